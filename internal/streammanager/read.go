package streammanager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// The sizes of a response of Read, in bytes as wire.Message.EncodedSize counts.
const (
	// softResponse is where a response with enough messages ends, whatever maxMessageCount says: a client reads on from
	// where it is, and a request should not hold memory that others need.
	softResponse = 1 << 20
	// hardResponse is the most that a minMessageCount may demand; then the request fails with ResponsePayloadTooLarge.
	hardResponse = 64 << 20
)

// answerMargin is how long before readTimeoutMillis a read is answered at most; a tenth of it when that is less. A
// client whose own timeout is the same would otherwise take the answer for lost, and the Python client dies of it when
// it comes after all.
const answerMargin = 250 * time.Millisecond

// Read returns messages of a stream from a sequence number on: at least min, at most max, in order. What was acknowledged
// before the call is seen. It waits for min until shortly before the timeout and fails with NotEnoughMessages then, or when
// ctx ends.
//
// A start below the oldest message is the oldest; one beyond the newest waits for it. Messages that the stream dropped
// are passed over, and so are damaged ones, which the engine logs and counts; when damage is why nothing can be read, the
// read fails with MessageStoreReadError instead. A response ends at about 1 MiB once it has min messages; one that must
// exceed 64 MiB is ResponsePayloadTooLarge.
func (m *Manager) Read(ctx context.Context, name string, options *wire.ReadMessagesOptions) ([]wire.Message, error) {
	w, err := options.Resolve()
	if err != nil {
		return nil, err
	}
	s, err := m.find(name)
	if err != nil {
		return nil, err
	}
	r := reading{s: s, w: w, next: record.Offset(w.Start)}
	if err := r.sync(ctx); err != nil {
		return nil, err
	}
	if err := r.available(ctx); err != nil || r.enough() {
		return r.messages, err
	}
	if w.Timeout > 0 {
		wait, cancel := context.WithTimeout(ctx, w.Timeout-min(answerMargin, w.Timeout/10))
		defer cancel()
		if err := r.wait(wait); err != nil || r.enough() {
			return r.messages, err
		}
	}
	return nil, r.short()
}

// reading is one call of Read.
type reading struct {
	s        *managed
	w        wire.ReadWindow
	next     record.Offset // of the next message wanted
	messages []wire.Message
	size     int
	full     bool // nothing more may be added
	damaged  record.Offset
	bounds   stream.Bounds // as last seen
}

func (r *reading) enough() bool { return len(r.messages) >= r.w.Min }

// sync makes readable what was acknowledged, if this read may want it: at level OS that is up to the engine's sync
// interval behind.
func (r *reading) sync(ctx context.Context) error {
	b, err := r.look()
	if err != nil || b.Readable == b.Next || uint64(r.next) >= uint64(b.Next) || uint64(b.Readable) >= uint64(max(r.next, b.First))+uint64(r.w.Max) {
		return err
	}
	if err := r.s.engine.Sync(ctx, r.s.id); err != nil {
		return r.s.failed("read", err)
	}
	return nil
}

func (r *reading) look() (stream.Bounds, error) {
	b, err := r.s.engine.Bounds(r.s.id)
	if err != nil {
		return b, r.s.failed("read", err)
	}
	r.bounds = b
	return b, nil
}

// available takes what is readable now, without waiting.
func (r *reading) available(ctx context.Context) error {
	for !r.full && len(r.messages) < r.w.Max {
		b, err := r.look()
		if err != nil || r.next >= b.Readable {
			return err
		}
		// The messages keep the chunk's memory: handing it over is cheaper than copying each payload.
		var c stream.Chunk
		if err := r.s.engine.Read(ctx, r.s.id, r.next, r.estimate(b), &c); err != nil {
			return r.ended(err)
		}
		if err := r.take(&c); err != nil {
			return err
		}
	}
	return nil
}

// estimate is how many bytes the messages still wanted have, judged by the stream's average: a client that wants one
// message must not cost a megabyte of reading.
func (r *reading) estimate(b stream.Bounds) int {
	average := int64(1)
	if n := int64(b.Next - b.First); n > 0 {
		average = b.Bytes/n + 1
	}
	wanted := int64(r.w.Max - len(r.messages))
	return int(max(1, min(softResponse/average, wanted)*average))
}

// take adds the chunk's messages as far as they fit.
func (r *reading) take(c *stream.Chunk) error {
	for _, g := range c.Gaps {
		if g.Reason == stream.Damaged {
			r.damaged += g.To - g.From
		}
	}
	for i := range c.Records {
		if len(r.messages) == r.w.Max || r.enough() && r.size >= softResponse {
			r.full = true
			return nil
		}
		message := wire.Message{
			StreamName: r.s.name, SequenceNumber: int64(c.First) + int64(i),
			IngestTime: c.Records[i].Time / int64(time.Millisecond), Payload: c.Records[i].Payload,
		}
		r.size += message.EncodedSize()
		if r.size > hardResponse {
			if r.full = r.enough(); r.full {
				return nil
			}
			return wire.Errorf(wire.ResponsePayloadTooLarge,
				"read stream %q: the first %d of at least %d messages have more than %d bytes (ask for fewer: minMessageCount)",
				r.s.name, len(r.messages)+1, r.w.Min, hardResponse)
		}
		r.messages = append(r.messages, message)
	}
	r.next = c.Next
	return nil
}

// wait takes what becomes readable until there are enough messages or ctx ends. It sleeps in the engine.
func (r *reading) wait(ctx context.Context) error {
	for !r.full && !r.enough() {
		b, err := r.look()
		if err != nil {
			return err
		}
		// The engine waits at the stream's end at most: a start beyond it is waited for message by message.
		var c stream.Chunk
		if err := r.s.engine.Read(ctx, r.s.id, min(r.next, b.Next), 1, &c); err != nil {
			return r.ended(err)
		}
		if err := r.available(ctx); err != nil {
			return err
		}
	}
	return nil
}

// ended turns the end of waiting into no error: what was asked for is not there.
func (r *reading) ended(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, stream.ErrEnd) {
		return nil
	}
	return r.s.failed("read", err)
}

// short says that there were not enough messages.
func (r *reading) short() error {
	if r.damaged > 0 && len(r.messages) == 0 {
		return wire.Errorf(wire.MessageStoreReadError,
			"read stream %q: %d messages from sequence number %d on are damaged and nothing else is readable yet (see the log; read on from %d)",
			r.s.name, r.damaged, r.w.Start, r.next)
	}
	has := "it is empty"
	if b := r.bounds; b.First < b.Next {
		has = fmt.Sprintf("it has %d to %d", b.First, b.Next-1)
	}
	return wire.Errorf(wire.NotEnoughMessages, "read stream %q: %d of at least %d messages from sequence number %d on are there; %s (wait longer: readTimeoutMillis, or ask for fewer: minMessageCount)",
		r.s.name, len(r.messages), r.w.Min, r.w.Start, has)
}
