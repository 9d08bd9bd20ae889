package streammanager

import (
	"bufio"
	"context"
	"time"

	"github.com/leat-io/leat/internal/record"
)

// frameReader reads a connection for bufio, which reads for wire.ReadFrame. It knows whether a frame has begun: between
// frames it waits for ever, inside of one bytes must keep coming. Beyond freeFrame bytes of a frame it takes a share of
// Server.memory before each read, so that what all connections hold of their frames has a bound and a length that is only
// claimed costs nothing. It belongs to the connection's goroutine.
type frameReader struct {
	c        *conn
	idle     bool // no frame has begun
	fixed    bool // the deadline stays as it is: a handshake
	armed    bool // there is a deadline to be removed
	skipping bool // what comes is thrown away, so it needs no memory
	got      int  // bytes of the frame, about
	held     int64
}

// limit sets the deadline of all reads until the next limit. The zero time: that of frames again.
func (f *frameReader) limit(end time.Time) error {
	f.fixed, f.armed = !end.IsZero(), true
	return f.deadline(end)
}

// deadline sets a read deadline. conn.stop sets one too, after it has set stopping; whichever is last, reads end.
func (f *frameReader) deadline(end time.Time) error {
	if err := f.c.nc.SetReadDeadline(end); err != nil {
		return err
	}
	if f.c.stopping.Load() {
		return errStopped
	}
	return nil
}

// begin waits for a frame's first byte.
func (f *frameReader) begin(br *bufio.Reader) error {
	f.idle = true
	_, err := br.Peek(1)
	f.idle, f.got = false, 0
	return err
}

// end gives back what the frame took of the memory.
func (f *frameReader) end() {
	f.skipping = false
	if f.held > 0 {
		f.c.s.memory.Release(f.held)
		f.held = 0
	}
}

// Read reads what is there.
func (f *frameReader) Read(p []byte) (int, error) {
	if !f.fixed {
		if err := f.prepare(&p); err != nil {
			return 0, err
		}
	}
	n, err := f.c.nc.Read(p)
	f.got += n
	f.c.s.count.in.Add(uint64(n))
	if err != nil && f.c.stopping.Load() {
		err = errStopped
	}
	return n, err
}

func (f *frameReader) prepare(p *[]byte) error {
	switch {
	case f.idle && f.armed:
		f.armed = false
		return f.deadline(time.Time{})
	case f.idle:
		return nil
	}
	if len(*p) > readStep {
		*p = (*p)[:readStep]
	}
	if need := int64(f.got+len(*p)-freeFrame) - f.held; need > 0 && !f.skipping {
		if err := f.acquire(need); err != nil {
			return err
		}
	}
	f.armed = true
	return f.deadline(time.Now().Add(progress))
}

func (f *frameReader) acquire(n int64) error {
	ctx, cancel := context.WithTimeout(f.c.ctx, memoryWait)
	defer cancel()
	if err := f.c.s.memory.Acquire(ctx, n); err != nil {
		return record.Errorf(record.Throttled, "large requests of other connections hold the memory for them: %w", err)
	}
	f.held += n
	return nil
}
