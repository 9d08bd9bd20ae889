package mqtt

import (
	"bytes"
	"context"
	"errors"
	"hash/maphash"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/record"
)

// intake is a source's way from deliveries to acknowledgements: messages that wait together become one Accept, several
// Accepts are underway at once, and acknowledgements go out in order of arrival.
type intake struct {
	cfg    SourceConfig
	accept Acceptor
	log    *slog.Logger
	seed   maphash.Seed

	messages, bytes, taken, repeated, retries, dropped atomic.Int64

	last atomic.Int64 // when the last message came, in nanoseconds since 1970; 0 before the first

	mu     sync.Mutex
	unsent map[uint16]*parcel // guarded by mu: taken over, but the acknowledgement did not go out; by packet id
}

// parcel is one message on its way.
type parcel struct {
	delivery
	sum   uint64 // of topic and payload
	taken chan struct{}
}

// consignment is what one Accept takes.
type consignment struct {
	parcels  []*parcel
	messages []ingest.Message
	outcome  chan error // receives once per Accept
}

// underwayMax bounds the Accepts of one source at a time; each takes up to batchMessages messages or batchBytes bytes.
const underwayMax = 16

func newIntake(cfg SourceConfig, accept Acceptor, log *slog.Logger) *intake {
	return &intake{cfg: cfg, accept: accept, log: log, seed: maphash.MakeSeed(), unsent: map[uint16]*parcel{}}
}

func (in *intake) fill(s *SourceStats) {
	s.Messages, s.Bytes, s.Taken = in.messages.Load(), in.bytes.Load(), in.taken.Load()
	s.Repeated, s.Retries, s.Dropped = in.repeated.Load(), in.retries.Load(), in.dropped.Load()
}

// hear notes a message.
func (in *intake) hear(d *delivery) {
	in.messages.Add(1)
	in.bytes.Add(int64(len(d.payload)))
	in.last.Store(time.Now().UnixNano())
}

// intakeRun is the intake during one connection.
type intakeRun struct {
	in      *intake
	ctx     context.Context //nolint:containedctx // a run is one call of Source.connection, handed to paho's callbacks
	cancel  context.CancelFunc
	closing chan struct{}     // closed when nothing new is taken
	queue   chan *parcel      // from deliver to the batcher: at most window
	sent    chan *consignment // from the batcher to the acknowledger
	resumed atomic.Bool
	known   chan struct{} // closed when resumed is known
	wg      sync.WaitGroup
}

// begin starts a run's goroutines; end waits for them.
func (in *intake) begin(ctx context.Context) *intakeRun {
	r := &intakeRun{
		in: in, queue: make(chan *parcel, in.cfg.Window), sent: make(chan *consignment, underwayMax), known: make(chan struct{}),
		closing: make(chan struct{}),
	}
	// The end of ctx is no reason to forget what is underway: end gives it a moment.
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.wg.Go(r.batch)
	r.wg.Go(r.acknowledge)
	return r
}

// established tells the run whether packet identifiers of the connection before still mean the same.
func (r *intakeRun) established(resumed bool) {
	r.resumed.Store(resumed)
	if !resumed {
		r.in.mu.Lock()
		clear(r.in.unsent)
		r.in.mu.Unlock()
	}
	close(r.known)
}

// end takes nothing new, gives what is underway a moment to become durable and be acknowledged, and stops the run. Call
// it before the link closes. What was taken over but could not be acknowledged is remembered for the next run.
func (r *intakeRun) end() {
	close(r.closing)
	defer time.AfterFunc(r.in.cfg.DrainTimeout, r.cancel).Stop()
	r.wg.Wait()
	r.cancel()
}

// ending reports whether nothing new is taken.
func (r *intakeRun) ending() bool {
	select {
	case <-r.closing:
		return true
	default:
		return false
	}
}

// deliver takes a message from the link. It blocks while the window is full, which stops the link from reading.
func (r *intakeRun) deliver(d delivery) {
	r.in.hear(&d)
	p := &parcel{delivery: d, sum: r.in.sum(&d), taken: make(chan struct{})}
	select {
	case r.queue <- p:
	case <-r.closing:
	}
}

func (in *intake) sum(d *delivery) uint64 {
	var h maphash.Hash
	h.SetSeed(in.seed)
	h.WriteString(d.topic)
	h.WriteByte(0)
	h.Write(d.payload)
	return h.Sum64()
}

// batch gathers what waits and hands it over.
func (r *intakeRun) batch() {
	defer close(r.sent)
	select {
	case <-r.known:
	case <-r.closing:
		return
	}
	for !r.ending() {
		select {
		case <-r.closing:
			return
		case p := <-r.queue:
			if !r.offer(r.gather(p)) {
				return
			}
		}
	}
}

func (r *intakeRun) gather(p *parcel) *consignment {
	c, size := &consignment{outcome: make(chan error, 1)}, 0
	for {
		c.parcels = append(c.parcels, p)
		if !r.repeated(p) {
			c.messages = append(c.messages, ingest.Message{
				Topic: p.topic, Payload: p.payload, QoS: p.qos, Retain: p.retain,
				Source: r.in.cfg.Name, Client: r.in.cfg.ClientID, Received: time.Now().UnixNano(),
			})
			size += len(p.topic) + len(p.payload)
		}
		if len(c.parcels) >= batchMessages || size >= batchBytes {
			return c
		}
		select {
		case p = <-r.queue:
		default:
			return c
		}
	}
}

// repeated reports whether p is a message that we took over on an earlier connection of this session, and whose
// acknowledgement did not go out.
func (r *intakeRun) repeated(p *parcel) bool {
	if p.qos == 0 || !p.dup || !r.resumed.Load() {
		return false
	}
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	before := r.in.unsent[p.id]
	if before == nil || before.sum != p.sum || before.topic != p.topic || !bytes.Equal(before.payload, p.payload) {
		return false
	}
	r.in.repeated.Add(1)
	return true
}

// offer hands a consignment to the acceptor and queues it for acknowledgement.
func (r *intakeRun) offer(c *consignment) bool {
	select {
	case r.sent <- c:
	case <-r.ctx.Done():
		return false
	}
	if len(c.messages) == 0 {
		c.outcome <- nil
		return true
	}
	r.in.accept.Accept(r.ctx, c.messages, func(err error) { c.outcome <- err })
	return true
}

// acknowledge waits for the outcomes in order. What is refused is offered again until it is taken: the broker would
// send it again only after a reconnect.
func (r *intakeRun) acknowledge() {
	for c := range r.sent {
		err, ok := r.settle(c)
		if !ok {
			continue
		}
		if err == nil {
			r.in.taken.Add(int64(len(c.messages)))
		}
		for _, p := range c.parcels {
			r.confirm(p)
		}
	}
}

// confirm sends one acknowledgement, or remembers that it is owed.
func (r *intakeRun) confirm(p *parcel) {
	if p.ack == nil {
		return
	}
	err := net.ErrClosed
	if r.ctx.Err() == nil {
		err = p.ack()
	}
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	if err != nil {
		r.in.unsent[p.id] = p
	} else {
		delete(r.in.unsent, p.id)
	}
}

// settle returns a consignment's final outcome: nil, or the error for which it was given up. ok is false when the run
// ended first.
func (r *intakeRun) settle(c *consignment) (err error, ok bool) {
	wait := r.in.cfg.BackoffMin
	for {
		select {
		case err = <-c.outcome:
		case <-r.ctx.Done():
			// The outcome may have come at the same moment: then it counts.
			select {
			case err = <-c.outcome:
			default:
				return nil, false
			}
		}
		switch {
		case err == nil:
			return nil, true
		case r.ctx.Err() != nil || r.ending():
			return nil, false
		case record.KindOf(err) == record.Invalid && len(c.messages) == 1:
			r.in.dropped.Add(1)
			r.in.log.Warn("message dropped: it can never be taken", "topic", c.messages[0].Topic,
				"bytes", len(c.messages[0].Payload), "error", err)
			return err, true
		case record.KindOf(err) == record.Invalid:
			return nil, r.settleSingly(c)
		}
		pause := wait/2 + rand.N(wait/2+1)
		r.in.retries.Add(1)
		r.in.log.Warn("messages refused: not acknowledged, tried again", "messages", len(c.messages),
			"topic", c.messages[0].Topic, "error", err, "hint", record.HintOf(err), "retry_in", pause)
		select {
		case <-r.closing:
			return nil, false
		case <-time.After(pause):
		}
		wait = min(2*wait, r.in.cfg.BackoffMax)
		r.in.accept.Accept(r.ctx, c.messages, func(err error) { c.outcome <- err })
	}
}

// settleSingly finds the message that spoils a batch.
func (r *intakeRun) settleSingly(c *consignment) bool {
	for i := range c.messages {
		one := &consignment{messages: c.messages[i : i+1], outcome: make(chan error, 1)}
		r.in.accept.Accept(r.ctx, one.messages, func(err error) { one.outcome <- err })
		if _, ok := r.settle(one); !ok {
			return false
		}
	}
	return true
}

// sniff remembers the first bytes that a broker sends, because paho does not say that a CONNACK was an MQTT 3 one.
type sniff struct {
	net.Conn

	mu    sync.Mutex
	head  [4]byte // guarded by mu
	nhead int     // guarded by mu
}

// Read passes on.
func (s *sniff) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 && s.nhead < len(s.head) {
		s.nhead += copy(s.head[s.nhead:], p[:n])
	}
	return n, err
}

// refusesVersion5 reports whether the broker answered our CONNECT as one that knows MQTT 3 only: with return code 1 in
// a CONNACK without properties, or (3.1.1 allows that too) with nothing at all.
func (s *sniff) refusesVersion5(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nhead == 0 {
		return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
	}
	return s.nhead == 4 && s.head[0] == 0x20 && s.head[1] == 2 && s.head[3] == 1
}
