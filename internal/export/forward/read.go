package forward

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// scanBytes is how much of the log is read at once to count what waits at its head.
const scanBytes = 64 << 10

// await returns when messages are eligible, with r.until behind them; or when the stream has lost some, which read finds.
func (r *runner) await(ctx context.Context) error {
	if err := r.passStart(ctx); err != nil {
		return err
	}
	next := r.at.next
	if next < r.until { // the rest of what was eligible together
		return nil
	}
	s := scan{seen: next}
	for {
		b, err := r.spec.Log.Bounds(r.spec.ID)
		if err != nil {
			return fmt.Errorf("look at stream: %w", err)
		}
		if lost := max(b.First, s.lost); lost > next {
			r.until = lost
			return nil
		}
		queued := int(min(b.Readable-next, record.Offset(r.spec.BatchSize)))
		if queued == r.spec.BatchSize || queued > 0 && (s.due || s.bytes >= r.spec.MaxBatchBytes) {
			r.until = next + record.Offset(queued)
			return nil
		}
		if err := r.scan(ctx, &s); err != nil {
			return err
		}
	}
}

// scan is what a runner knows of the messages that wait for more. It counts them without keeping them: hundreds of
// exports may each wait with a batch that is almost full.
type scan struct {
	seen     record.Offset // messages below it are counted
	bytes    int           // their payloads
	deadline time.Time     // when the oldest has waited enough; zero: never, or nothing waits
	due      bool          // it has, or nothing more will come
	lost     record.Offset // the end of a gap that was met; 0: none
}

// scan waits for messages behind those that are counted, or for the deadline.
func (r *runner) scan(ctx context.Context, s *scan) error {
	readCtx, cancel := ctx, context.CancelFunc(func() {})
	if !s.deadline.IsZero() {
		readCtx, cancel = context.WithDeadline(ctx, s.deadline)
	}
	defer cancel()
	var c stream.Chunk // not reused: an idle export holds no buffer
	err := r.spec.Log.Read(readCtx, r.spec.ID, s.seen, scanBytes, &c)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case readCtx.Err() != nil && err != nil:
		s.due = true
		return nil
	case errors.Is(err, stream.ErrEnd) && s.seen > r.at.next:
		s.due = true
		return nil
	case errors.Is(err, stream.ErrEnd):
		<-ctx.Done()
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("read stream: %w", err)
	}
	if n := len(c.Gaps); n > 0 {
		s.lost = c.Gaps[n-1].To
		return nil
	}
	if s.seen == r.at.next && len(c.Records) > 0 {
		r.update(func() { r.oldest = stampOf(&c) })
		if wait := r.patience(); wait > 0 {
			s.deadline = time.Now().Add(max(0, wait-r.oldest.age(r.sh.clock.Read())))
		}
	}
	for i := range c.Records {
		s.bytes += len(c.Records[i].Payload)
	}
	s.seen = c.Next
	return nil
}

// patience is how long a message waits for more at most; 0 is without limit.
func (r *runner) patience() time.Duration {
	if r.spec.Interval == 0 && !r.spec.WaitFull {
		return r.sh.cfg.Linger
	}
	return r.spec.Interval
}

// passStart passes the messages before Start, which are never delivered. Where they are still to come it stores its place
// once per Linger at most, so that the stream may let go of them.
func (r *runner) passStart(ctx context.Context) error {
	for wait := false; r.at.next < r.spec.Start; wait = true {
		var c stream.Chunk
		err := r.spec.Log.Read(ctx, r.spec.ID, r.at.next, 1, &c)
		if errors.Is(err, stream.ErrEnd) {
			<-ctx.Done()
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		if wait {
			timer := time.NewTimer(r.sh.cfg.Linger)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			}
		}
		b, err := r.spec.Log.Bounds(r.spec.ID)
		if err != nil {
			return fmt.Errorf("look at stream: %w", err)
		}
		p := r.at
		p.next, p.target = min(r.spec.Start, b.Readable), nil
		if err := r.store(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// look learns when the oldest message came, where that is not known.
func (r *runner) look(ctx context.Context) error {
	if r.held != nil || r.oldest.known && r.oldest.sequence >= r.at.next {
		return nil
	}
	var c stream.Chunk
	if err := r.spec.Log.Read(ctx, r.spec.ID, r.at.next, 1, &c); err != nil {
		return fmt.Errorf("read stream: %w", err)
	}
	if len(c.Records) > 0 {
		r.update(func() { r.oldest = stampOf(&c) })
	}
	return nil
}

// read makes the next batch of messages below r.until and holds it; a gap before them is passed instead.
func (r *runner) read(ctx context.Context) error {
	var messages []Message
	want, size := int(min(r.until-r.at.next, record.Offset(r.spec.BatchSize))), 0
	for at := r.at.next; len(messages) < want && size < r.spec.MaxBatchBytes; {
		room, err := r.room(want-len(messages), r.spec.MaxBatchBytes-size)
		if err != nil {
			return err
		}
		var c stream.Chunk // a new one each time: the messages stay in its buffer
		if err := r.spec.Log.Read(ctx, r.spec.ID, at, room, &c); err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		if len(c.Gaps) > 0 {
			if len(messages) > 0 {
				break
			}
			return r.lost(ctx, c.Gaps)
		}
		if len(c.Records) == 0 {
			return record.Errorf(record.Internal, "read stream at %d: neither records nor a gap", at)
		}
		full := false
		if messages, size, full = r.add(messages, size, want, &c); full {
			break
		}
		at = c.Next
	}
	state := r.at.target
	r.held = NewBatch(r.spec.Stream, messages, state, r.save)
	return nil
}

// add appends the records of c to a batch of size bytes, as far as they fit.
func (r *runner) add(messages []Message, size, want int, c *stream.Chunk) (list []Message, bytes int, full bool) {
	if len(messages) == 0 {
		r.update(func() { r.oldest = stampOf(c) })
	}
	for i := range c.Records {
		rec := &c.Records[i]
		if len(messages) == want || len(messages) > 0 && size+len(rec.Payload) > r.spec.MaxBatchBytes {
			return messages, size, true
		}
		size += len(rec.Payload)
		messages = append(messages, messageOf(c, i))
	}
	return messages, size, false
}

// room is how many bytes to read for n messages and at most limit bytes: a small batch from a large backlog must not
// read megabytes.
func (r *runner) room(n, limit int) (int, error) {
	b, err := r.spec.Log.Bounds(r.spec.ID)
	if err != nil {
		return 0, fmt.Errorf("look at stream: %w", err)
	}
	average := float64(b.Bytes) / float64(max(1, b.Next-b.First))
	return min(limit, int(average*float64(n)*5/4)+1<<10), nil
}

// lost counts and tells of messages that the stream no longer has, and passes them.
func (r *runner) lost(ctx context.Context, gaps []stream.Gap) error {
	for _, g := range gaps {
		from := max(g.From, r.at.next)
		if g.To <= from {
			continue
		}
		n := uint64(g.To - from)
		text, hint := fmt.Sprintf("%d messages from %d on were overwritten or expired before they were exported", n, from),
			"give the stream more max size or time to live, or find out what held the export up"
		if g.Reason == stream.Damaged {
			text, hint = fmt.Sprintf("%d messages from %d on are damaged on disk and were not exported", n, from),
				"check the disk; `leat log verify` tells more"
		}
		if d, ok := r.spec.Target.(Dropper); ok {
			if err := d.Drop(ctx, r.spec.Stream, from, g.To, text); err != nil && ctx.Err() == nil {
				r.log().Warn("loss not told to the destination", "error", err, "hint", record.HintOf(err))
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p := r.at
		p.next, p.target, p.dropped = g.To, nil, p.dropped+n
		p.trouble = note{at: r.sh.clock.Read().Wall, loss: true, text: text, hint: hint}
		if err := r.store(ctx, p); err != nil {
			return err
		}
		r.log().Error("messages lost before they were exported", "error", text, "hint", hint, "from", uint64(from), "count", n)
	}
	return nil
}
