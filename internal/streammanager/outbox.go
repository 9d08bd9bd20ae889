package streammanager

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/leat-io/leat/internal/streammanager/wire"
)

// The limits of what waits for a client to read.
const (
	highWater    = 256 << 10        // bytes waiting from which on the connection is not read
	directMost   = 64 << 10         // bytes of a frame that may leave from the goroutine which completed it
	writeTimeout = 30 * time.Second // for a frame to be taken by the client's kernel, and writePace more
	writePace    = 64 << 10         // bytes per second that a client must take beyond writeTimeout
	keepFrame    = 64 << 10         // bytes of a buffer that is kept for reuse
)

// frame is an encoded response on its way out. Frames are pooled: whoever hands one over does not touch it again.
type frame struct{ b []byte }

var frames = sync.Pool{New: func() any { return &frame{} }}

func newFrame() *frame { return frames.Get().(*frame) }

func (f *frame) release() {
	if cap(f.b) <= keepFrame {
		f.b = f.b[:0]
		frames.Put(f)
	}
}

// outbox writes the frames of a connection, in the order of send, each with one write call (section 2.4 of the protocol:
// the Python client does not survive a frame's length that arrives in two pieces).
//
// send never blocks, since it runs on the goroutine that commits the log: it tries one non-blocking write when nothing
// waits, and leaves what the kernel did not take to a goroutine, drain, which lives only while there is something to write.
// So an answer costs no hand-over between goroutines where it matters, with a client that waits for it.
//
// The queue has no bound of its own: the connection is not read while more than highWater waits, and has maxInflight
// requests at most, so it ends by itself. A client that does not read is closed after writeTimeout.
type outbox struct {
	conn    net.Conn
	raw     syscall.RawConn // nil when conn is no socket: then drain writes everything
	count   *counters
	drained func() // called, without mu, when what waits has fallen to highWater or below; must not block

	mu      sync.Mutex
	queue   []*frame // guarded by mu; drain works on the first
	waiting int      // bytes of queue; guarded by mu
	writing bool     // drain runs; guarded by mu
	sealed  bool     // nothing is taken any more; guarded by mu
	closed  bool     // nor written; implies sealed; guarded by mu
	drains  sync.WaitGroup

	// The arguments and results of attempt, which is made once so that a write allocates nothing. Guarded by mu.
	attempt func(fd uintptr) bool
	buf     []byte
	wrote   int
	err     error
}

func newOutbox(conn net.Conn, count *counters, drained func()) *outbox {
	o := &outbox{conn: conn, count: count, drained: drained}
	if sc, ok := conn.(syscall.Conn); ok && nonBlocking {
		if raw, err := sc.SyscallConn(); err == nil {
			o.raw = raw
		}
	}
	o.attempt = func(fd uintptr) bool {
		o.wrote, o.err = writeOnce(fd, o.buf)
		return true // never wait
	}
	return o
}

// send takes f and writes it now or soon. After flush and close it is forgotten.
func (o *outbox) send(f *frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		f.release()
		return
	}
	if !o.writing && o.raw != nil && len(f.b) <= directMost {
		n, ok := o.try(f.b)
		if ok && n == len(f.b) {
			o.count.out.Add(uint64(n))
			f.release()
			return
		}
		if n > 0 { // the rest follows, before everything else
			o.count.out.Add(uint64(n))
			f.b = f.b[:copy(f.b, f.b[n:])]
		}
	}
	o.queue = append(o.queue, f)
	o.waiting += len(f.b)
	if !o.writing {
		o.writing = true
		o.drains.Go(o.drain)
	}
}

// try makes one attempt to write b. When it fails for another reason than a full buffer, drain will meet that reason
// again, and deals with it. o.mu is held; the write does not block.
func (o *outbox) try(b []byte) (n int, ok bool) {
	o.buf, o.wrote, o.err = b, 0, nil
	err := o.raw.Write(o.attempt)
	o.buf = nil
	return max(o.wrote, 0), err == nil && o.err == nil
}

// drain writes until nothing waits. An error closes the connection, which ends its reader too.
func (o *outbox) drain() {
	for {
		o.mu.Lock()
		if len(o.queue) == 0 || o.closed {
			o.writing, o.queue, o.waiting = false, nil, 0
			o.mu.Unlock()
			return
		}
		f := o.queue[0]
		o.mu.Unlock()

		err := o.write(f.b)

		o.mu.Lock()
		size := len(f.b)
		was := o.waiting
		o.waiting -= size
		o.queue[0] = nil
		o.queue = o.queue[1:]
		if err != nil {
			o.sealed, o.closed = true, true
		}
		low := was > highWater && o.waiting <= highWater
		o.mu.Unlock()
		f.release()
		if err != nil {
			o.conn.Close() //nolint:errcheck // it is broken already
		}
		if low || err != nil {
			o.drained()
		}
	}
}

// write writes b with one call, within its time. The deadline is cleared behind it: it would hold for attempts too.
func (o *outbox) write(b []byte) error {
	timeout := writeTimeout + time.Duration(len(b)/writePace)*time.Second
	if err := o.conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	n, err := o.conn.Write(b)
	o.count.out.Add(uint64(n))
	return errors.Join(err, o.conn.SetWriteDeadline(time.Time{}))
}

// full reports whether the client must read before it may ask for more. A closed outbox is not full.
func (o *outbox) full() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waiting > highWater && !o.closed
}

// flush takes nothing more and gives the client until end to take what waits. Call close after it.
func (o *outbox) flush(end time.Time) {
	o.mu.Lock()
	o.sealed = true
	o.mu.Unlock()
	late := time.AfterFunc(time.Until(end), o.abort)
	o.drains.Wait()
	late.Stop()
}

// abort closes the connection and forgets what waits.
func (o *outbox) abort() {
	o.mu.Lock()
	o.sealed, o.closed = true, true
	o.mu.Unlock()
	o.conn.Close() //nolint:errcheck // nothing to do about it
}

// close is abort, and waits for drain.
func (o *outbox) close() {
	o.abort()
	o.drains.Wait()
}

// encode makes the frame of a response. One that cannot be encoded or is too large becomes a failure, which always can.
func encode(op wire.Operation, id string, body wire.Body) (*frame, wire.Status) {
	f := newFrame()
	var err error
	if f.b, err = wire.AppendFrame(f.b[:0], op, body); err == nil {
		return f, wire.Success
	}
	fail := wire.Failure(id, err)
	f.b, _ = wire.AppendFrame(f.b[:0], op, &fail) // of a few KiB and without a definition: it cannot fail
	return f, fail.Status
}
