package memory

import (
	"context"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Read is part of stream.Reader.
func (e *Engine) Read(
	ctx context.Context, id record.StreamID, from record.Offset, maxBytes int, c *stream.Chunk,
) error {
	b, err := e.find(id)
	if err != nil {
		return err
	}
	c.First, c.Next = from, from
	c.Records, c.Origins, c.Gaps = c.Records[:0], c.Origins[:0], c.Gaps[:0]
	for {
		wait, err := b.read(from, maxBytes, c)
		if err != nil || wait == nil {
			return err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.closing:
			return errClosed()
		}
	}
}

// read fills c, or returns the channel to wait for when from is at the head.
func (b *buffer) read(from record.Offset, maxBytes int, c *stream.Chunk) (wait chan struct{}, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.gone:
		return nil, record.Errorf(record.NotFound, "stream %v was deleted", b.id)
	case from > b.next:
		return nil, record.Errorf(record.Invalid, "offset %d is beyond the end of stream %s at %d", from, b.name, b.next)
	case from < b.first:
		c.Gaps = append(c.Gaps, stream.Gap{From: from, To: b.first, Reason: stream.Dropped})
		from = b.first
	case from == b.next && b.sealed:
		return nil, stream.ErrEnd
	case from == b.next:
		return b.waiting(), nil
	}
	c.First, c.Next = from, from
	b.fill(from, maxBytes, c)
	return nil, nil
}

// Seek is part of stream.Reader.
func (e *Engine) Seek(_ context.Context, id record.StreamID, t time.Time) (record.Offset, error) {
	b, err := e.find(id)
	if err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seek(t.UnixNano()), nil
}

// Sync is part of stream.Reader: what is acknowledged is readable.
func (e *Engine) Sync(_ context.Context, id record.StreamID) error {
	_, err := e.find(id)
	return err
}

// Bounds is part of stream.Reader.
func (e *Engine) Bounds(id record.StreamID) (stream.Bounds, error) {
	b, err := e.find(id)
	if err != nil {
		return stream.Bounds{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bounds(), nil
}
