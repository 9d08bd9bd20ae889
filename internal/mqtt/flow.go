package mqtt

import (
	"errors"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/record"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// Bounds of one connection: batchMessages and batchBytes end a batch, maxBatches are underway before the connection is
// no longer read.
const (
	batchMessages = 256
	batchBytes    = 256 << 10
	maxBatches    = 8
)

// flow is one connection's publishes on their way: the read loop adds and submits, a worker (started by the first
// submit) waits for the outcomes in order and answers.
type flow struct {
	b       *Broker
	cl      *mochi.Client
	conn    *conn
	current *batch      // being filled by the read loop
	pending chan *batch // nil before the first submit; closed by the read loop
}

// batch is what one Accept takes.
type batch struct {
	messages []ingest.Message
	publish  []publish
	bytes    int
	outcome  chan error // receives once
}

// publish is what fan-out and acknowledgement need of a packet.
type publish struct {
	id         uint16
	properties *packets.Properties // nil for MQTT 3
	expiry     int64
}

// add takes a message over from the parser.
func (f *flow) add(pk *packets.Packet, m ingest.Message) {
	if f.current == nil {
		f.current = &batch{outcome: make(chan error, 1)}
	}
	c := f.current
	p := publish{id: pk.PacketID, expiry: pk.Expiry}
	if f.cl.Properties.ProtocolVersion == 5 {
		p.properties = new(pk.Properties)
	}
	c.messages, c.publish = append(c.messages, m), append(c.publish, p)
	c.bytes += len(m.Payload) + len(m.Topic)
	if len(c.messages) >= batchMessages || c.bytes >= batchBytes {
		f.submit()
	}
}

// submit hands the current batch over. It blocks while maxBatches are underway and for admission.
func (f *flow) submit() {
	c := f.current
	if c == nil {
		return
	}
	f.current = nil
	if f.pending == nil {
		f.pending = make(chan *batch, maxBatches)
		f.b.workers.Go(f.answerAll)
	}
	f.b.underway.Add(1)
	f.pending <- c
	f.b.accept(c.messages, func(err error) { c.outcome <- err })
}

// end submits the rest and lets the worker finish.
func (f *flow) end() {
	f.submit()
	if f.pending != nil {
		close(f.pending)
	}
}

// answerAll is the worker.
func (f *flow) answerAll() {
	for c := range f.pending {
		var err error
		select {
		case err = <-c.outcome:
		case <-f.b.abandon:
			err = errAbandoned
		}
		f.answer(c, err)
		f.b.underway.Add(-1)
	}
}

var errAbandoned = errors.New("stopped before the outcome was known")

// answer fans out and acknowledges a batch, or refuses it.
func (f *flow) answer(c *batch, err error) {
	if err != nil {
		f.b.refused(f.cl, c.messages, err)
	}
	acks := make([]byte, 0, 5*len(c.messages))
	for i := range c.messages {
		m, p := &c.messages[i], &c.publish[i]
		if err == nil || m.QoS == 0 {
			// A refused QoS 0 message is lost to the stream, not to those who listen now.
			f.b.fanOut(f.cl, m, p)
		}
		switch {
		case m.QoS == 0:
		case err == nil:
			acks = append(acks, packets.Puback<<4, 2, byte(p.id>>8), byte(p.id)) // [MQTT-4.3.2-4] [MQTT-4.6.0-2]
		case errors.Is(err, errAbandoned):
		case f.cl.Properties.ProtocolVersion == 5:
			acks = append(acks, packets.Puback<<4, 3, byte(p.id>>8), byte(p.id), reasonCode(err).Code) // [MQTT-3.4.2-1]
		}
	}
	if len(acks) > 0 {
		// A client that is gone, or does not read, will ask again; mochi notices either when it reads.
		if _, werr := f.conn.Write(acks); werr != nil {
			f.cl.Stop(werr)
		}
	}
	if err != nil && f.cl.Properties.ProtocolVersion < 5 && hasAck(c.messages) {
		f.cl.Stop(reasonCode(err)) // MQTT 3 has no word for no
	}
}

func hasAck(ms []ingest.Message) bool {
	for i := range ms {
		if ms[i].QoS > 0 {
			return true
		}
	}
	return false
}

// refused counts and, now and then, logs what was not taken over.
func (b *Broker) refused(cl *mochi.Client, ms []ingest.Message, err error) {
	for i := range ms {
		if ms[i].QoS == 0 {
			b.counters.lost.Add(1)
		} else {
			b.counters.rejected.Add(1)
		}
	}
	if b.stopping.Load() {
		return
	}
	if more, ok := b.quiet.allow("refused", time.Now()); ok {
		b.log.Warn("messages refused: not acknowledged", "client", cl.ID, "topic", ms[0].Topic, "messages", len(ms),
			"error", err, "hint", record.HintOf(err), "not_logged", more)
	}
}

// reasonCode is the MQTT 5 word for an error.
func reasonCode(err error) packets.Code {
	switch record.KindOf(err) {
	case record.Full, record.Throttled:
		return packets.ErrQuotaExceeded
	case record.Invalid:
		return packets.ErrPayloadFormatInvalid
	case record.Denied:
		return packets.ErrNotAuthorized
	case record.Unavailable:
		return packets.ErrImplementationSpecificError
	}
	return packets.ErrUnspecifiedError
}

// fanOut publishes to subscribers and retains, as mochi would have done after its own acknowledgement.
func (b *Broker) fanOut(cl *mochi.Client, m *ingest.Message, p *publish) {
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: m.QoS, Retain: m.Retain},
		TopicName:   m.Topic,
		Payload:     m.Payload,
		PacketID:    p.id,
		Expiry:      p.expiry,
	}
	if p.properties != nil {
		pk.Properties = *p.properties
		pk.Properties.TopicAlias, pk.Properties.TopicAliasFlag = 0, false
	}
	pk.Connect.ClientIdentifier = cl.ID // the hook makes it the packet's origin
	if m.Retain && len(m.Payload) > 0 && b.retained() >= int64(b.cfg.MaxRetained) {
		if _, replaces := b.server.Topics.Retained.Get(m.Topic); !replaces {
			pk.FixedHeader.Retain = false
			b.counters.unretained.Add(1)
		}
	}
	if err := b.server.InjectPacket(b.inline, pk); err != nil {
		b.log.Debug("publish to subscribers", "topic", m.Topic, "error", err)
	}
}

// exactlyOnce remembers which QoS 2 packet identifiers of which session were taken over and not yet released, so that
// a PUBLISH that comes again after a broken connection is not a second message [MQTT-4.3.3-10].
type exactlyOnce struct {
	mu       sync.Mutex
	sessions map[string]map[uint16]*taken // guarded by mu; client id → packet id
}

// taken is one QoS 2 message. err is set before done is closed.
type taken struct {
	done chan struct{}
	err  error
}

// take returns the entry of a packet; fresh tells the caller to accept the message and finish the entry.
func (e *exactlyOnce) take(client string, id uint16, dup bool) (t *taken, fresh bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ids := e.sessions[client]
	if ids == nil {
		ids = map[uint16]*taken{}
		e.sessions[client] = ids
	}
	if t = ids[id]; t != nil && dup {
		return t, false
	}
	t = &taken{done: make(chan struct{})}
	ids[id] = t
	return t, true
}

// release forgets one packet: its PUBREL came, or it was refused.
func (e *exactlyOnce) release(client string, id uint16) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.sessions[client], id)
	if len(e.sessions[client]) == 0 {
		delete(e.sessions, client)
	}
}

// forget drops a session that ended.
func (e *exactlyOnce) forget(client string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.sessions, client)
}
