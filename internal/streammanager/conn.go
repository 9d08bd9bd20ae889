package streammanager

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-io/leat/internal/streammanager/wire"
)

// The limits of a connection.
const (
	maxInflight  = 1024             // requests; then it is not read until one is answered
	maxPayload   = 32<<20 + 64<<10  // bytes of a request: the largest batch of the log (stream.MaxBatch) and its frame
	readBuffer   = 4 << 10          // bytes; larger frames are read past it
	keepBuffer   = 64 << 10         // bytes of a payload's buffer that is kept between requests
	freeFrame    = 64 << 10         // bytes of a frame that need no share of Server.memory
	readStep     = 256 << 10        // bytes read at once of a larger one
	progress     = 60 * time.Second // within which bytes of a frame that has begun must come
	memoryWait   = 30 * time.Second // for a share of Server.memory
	keepRequests = 32               // request objects kept for reuse
)

// errStopped ends a read loop.
var errStopped = errors.New("the door closes")

// conn is one connection. Its goroutine (serve) reads requests and starts them in order:
//
//   - An append is handed to the log and answered by the goroutine that commits it.
//   - A read has a goroutine of its own, since it may wait.
//   - Everything else is done at once, before the next request is read: what a client pipelines behind a create finds
//     the stream.
type conn struct {
	s     *Server
	id    string // clientIdentifier, and in logs
	nc    net.Conn
	out   *outbox
	in    *frameReader
	br    *bufio.Reader
	grant *grant // what the token allows; nil: everything
	reads sync.WaitGroup

	ctx      context.Context // ends with the connection; reads of messages also end when the server stops
	cancel   context.CancelFunc
	stopping atomic.Bool   // no more requests are taken
	room     chan struct{} // of 1: something has ended that the read loop may have waited for

	mu          sync.Mutex
	first, last *request   // in flight and not answered, in order of arrival; guarded by mu
	inflight    int        // requests in flight, those answered by timeout and still worked on included; guarded by mu
	unanswered  int        // guarded by mu
	free        []*request // guarded by mu
	admitting   time.Time  // when the append that the log has not admitted yet came; zero when there is none; guarded by mu
	admission   context.Context
	refuse      context.CancelFunc // ends admission; both guarded by mu
}

func newConn(s *Server, nc net.Conn, id string) *conn {
	c := &conn{s: s, id: id, nc: nc, room: make(chan struct{}, 1)}
	c.out = newOutbox(nc, &s.count, c.wake)
	c.in = &frameReader{c: c, idle: true}
	c.br = bufio.NewReaderSize(c.in, readBuffer)
	c.ctx, c.cancel = context.WithCancel(s.work)
	c.admission, c.refuse = context.WithCancel(c.ctx)
	return c
}

// wake tells the read loop to look again whether there is room.
func (c *conn) wake() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// stop makes the read loop end behind the requests that have arrived whole. It does not wait.
func (c *conn) stop() {
	c.stopping.Store(true)
	c.nc.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // a dead socket ends its reads anyway
	c.wake()
}

// serve runs the connection to its end.
func (c *conn) serve() {
	defer c.end()
	if err := c.handshake(); err != nil {
		c.s.refused("handshake", c.nc.RemoteAddr(), err)
		return
	}
	err := c.loop()
	switch {
	case errors.Is(err, errStopped), c.stopping.Load():
		c.drain()
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), c.ctx.Err() != nil:
	default:
		c.s.log.Debug("Stream Manager connection ended", "client", c.id, "error", err)
		c.out.flush(time.Now().Add(flushTime))
	}
}

// end frees what the connection has. Appends in flight are finished by the log; their answers are forgotten.
func (c *conn) end() {
	c.cancel()
	c.out.close()
	c.reads.Wait()
	c.in.end()
	c.s.forget(c)
}

// loop reads and starts requests until the connection ends, one way or the other.
func (c *conn) loop() error {
	var buf []byte
	for {
		if err := c.await(); err != nil {
			return err
		}
		if err := c.in.begin(c.br); err != nil {
			return err
		}
		op, payload, err := wire.ReadFrame(c.br, buf, maxPayload)
		if large, ok := errors.AsType[*wire.TooLargeError](err); ok {
			err = c.tooLarge(op, payload, large)
		} else if err == nil {
			err = c.take(op, payload)
		}
		c.in.end()
		if err != nil {
			return err
		}
		if buf = payload[:0]; cap(buf) > keepBuffer {
			buf = nil
		}
	}
}

// await waits until one more request may be taken.
func (c *conn) await() error {
	for {
		c.mu.Lock()
		full := c.inflight >= maxInflight
		c.mu.Unlock()
		if !full && !c.out.full() {
			return nil
		}
		select {
		case <-c.room:
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
		if c.stopping.Load() {
			return errStopped
		}
	}
}

// tooLarge answers a frame that is above the limit, and passes over it.
func (c *conn) tooLarge(op wire.Operation, prefix []byte, large *wire.TooLargeError) error {
	id, ok := wire.RequestID(prefix)
	if !ok {
		return errNoID(large)
	}
	c.in.skipping = true
	if err := large.Skip(c.br); err != nil {
		return err
	}
	r := c.start(op, id)
	r.fail(wire.Errorf(wire.RequestPayloadTooLarge, "a request of %d bytes: at most %d fit", large.Size, maxPayload))
	return nil
}

// take decodes one request and starts it. The payload is the caller's again when it returns.
func (c *conn) take(op wire.Operation, payload []byte) error {
	c.s.count.requests[requestIndex(op)].Add(1)
	if op == wire.OpAppend {
		return c.takeAppend(payload)
	}
	if op == wire.OpConnect {
		op = wire.OpUnknown // a second Connect is no request
	}
	req, err := wire.Decode(op, payload)
	if req == nil {
		return errNoID(err)
	}
	r := c.start(op, req.ID())
	if err != nil {
		r.fail(err)
		return nil
	}
	switch req := req.(type) {
	case *wire.AppendBatchRequest:
		c.append(r, req.Name, req.Payloads)
	case *wire.ReadRequest:
		c.read(r, req)
	default:
		c.do(r, req)
	}
	return nil
}

// takeAppend is take for the request that matters most: it allocates nothing but the request's id.
func (c *conn) takeAppend(payload []byte) error {
	r := c.newRequest()
	if err := wire.DecodeAppend(payload, &r.append); err != nil {
		id, ok := wire.RequestID(payload)
		if !ok {
			return errNoID(err)
		}
		c.enter(r, wire.OpAppend, id)
		r.fail(err)
		return nil
	}
	c.enter(r, wire.OpAppend, r.append.RequestID)
	r.list[0] = r.append.Payload
	r.append.Payload = nil // it is the read loop's buffer
	c.append(r, r.append.Name, r.list[:])
	return nil
}

// append hands messages to the log. It waits while the log admits no more; the time of that is bounded by sweep.
func (c *conn) append(r *request, name string, payloads [][]byte) {
	if err := c.grant.check(name); err != nil {
		r.fail(err)
		return
	}
	r.count = len(payloads)
	for _, p := range payloads {
		r.bytes += len(p)
	}
	c.mu.Lock()
	c.admitting = r.received
	if c.admission.Err() != nil && c.ctx.Err() == nil { // the last one was refused
		c.admission, c.refuse = context.WithCancel(c.ctx)
	}
	ctx := c.admission
	c.mu.Unlock()

	c.s.service.Append(ctx, name, payloads, r.done) // r may belong to another request from here on

	c.mu.Lock()
	c.admitting = time.Time{}
	c.mu.Unlock()
}

// read reads messages, beside whatever else the connection does.
func (c *conn) read(r *request, req *wire.ReadRequest) {
	if err := c.grant.check(req.StreamName); err != nil {
		r.fail(err)
		return
	}
	if !c.s.takeRead() {
		r.fail(wire.Errorf(wire.ServerTimeout, "%d reads wait at the moment, which is the most: try again later", maxReads))
		return
	}
	c.mu.Lock()
	r.wait(req.Options)
	c.mu.Unlock()
	c.reads.Go(func() {
		defer c.s.releaseRead()
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		defer context.AfterFunc(c.s.reading, cancel)()
		messages, err := c.s.service.Read(ctx, req.StreamName, req.Options)
		if err != nil {
			r.fail(err)
			return
		}
		r.complete(wire.Success, &wire.ReadResponse{Response: wire.Response{RequestID: r.id}, Messages: messages})
	})
}

// do does what is done at once.
func (c *conn) do(r *request, req wire.Request) {
	ctx, cancel := context.WithTimeout(c.ctx, answerWithin)
	defer cancel()
	id := r.id
	body, err := c.perform(ctx, id, req)
	if err != nil {
		r.fail(err)
		return
	}
	r.complete(wire.Success, body)
}

func (c *conn) perform(ctx context.Context, id string, req wire.Request) (wire.Body, error) {
	ok := wire.Response{RequestID: id}
	switch req := req.(type) {
	case *wire.CreateRequest:
		return &ok, c.define(ctx, req.Definition, c.s.service.Create)
	case *wire.UpdateRequest:
		return &ok, c.define(ctx, req.Definition, c.s.service.Update)
	case *wire.DeleteRequest:
		if err := c.grant.check(req.Name); err != nil {
			return nil, err
		}
		return &ok, c.s.service.Delete(ctx, req.Name)
	case *wire.DescribeRequest:
		if err := c.grant.check(req.Name); err != nil {
			return nil, err
		}
		info, err := c.s.service.Describe(req.Name)
		return &wire.DescribeResponse{Response: ok, Info: info}, err
	case *wire.ListRequest:
		names := []string{}
		for _, name := range c.s.service.List() {
			if c.grant.allows(name) {
				names = append(names, name)
			}
		}
		return &wire.ListResponse{Response: ok, Streams: names}, nil
	}
	return nil, fmt.Errorf("a request of type %T is not performed", req) // unreachable: see wire.Decode
}

// define creates or updates. A definition also names the streams that its statuses are written to.
func (c *conn) define(ctx context.Context, d *wire.MessageStreamDefinition, f func(context.Context, *wire.MessageStreamDefinition) error) error {
	if err := c.grant.check(d.Name); err != nil {
		return err
	}
	if d.ExportDefinition != nil {
		for i := range d.ExportDefinition.S3TaskExecutor {
			if s := d.ExportDefinition.S3TaskExecutor[i].StatusConfig; s != nil && s.StatusStreamName != "" {
				if err := c.grant.check(s.StatusStreamName); err != nil {
					return err
				}
			}
		}
	}
	return f(ctx, d)
}
