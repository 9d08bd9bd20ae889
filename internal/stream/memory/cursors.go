package memory

import (
	"context"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// LoadCursor is part of stream.Cursors.
func (e *Engine) LoadCursor(id record.StreamID, name string) (stream.Cursor, error) {
	b, err := e.find(id)
	if err != nil {
		return stream.Cursor{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.cursors[name]
	if !ok {
		return stream.Cursor{}, record.Errorf(record.NotFound, "stream %s has no cursor %s", b.name, name)
	}
	return cloneCursor(c), nil
}

// StoreCursor is part of stream.Cursors.
func (e *Engine) StoreCursor(_ context.Context, id record.StreamID, name string, c stream.Cursor) error {
	if name == "" {
		return record.Errorf(record.Invalid, "cursor without a name")
	}
	if len(c.State) > stream.MaxCursorState {
		return record.Errorf(record.Invalid, "cursor %s: state of %d bytes: at most %d",
			name, len(c.State), stream.MaxCursorState)
	}
	return e.changeCursors(id, func(b *buffer) error {
		if c.Offset > b.next {
			return record.Errorf(record.Invalid, "cursor %s: offset %d is beyond the end of stream %s at %d",
				name, c.Offset, b.name, b.next)
		}
		if b.cursors == nil {
			b.cursors = make(map[string]stream.Cursor)
		}
		b.cursors[name] = cloneCursor(c)
		return nil
	})
}

// DeleteCursor is part of stream.Cursors.
func (e *Engine) DeleteCursor(_ context.Context, id record.StreamID, name string) error {
	return e.changeCursors(id, func(b *buffer) error {
		delete(b.cursors, name)
		return nil
	})
}

// changeCursors changes a stream's cursors and drops what all its exports have passed then.
func (e *Engine) changeCursors(id record.StreamID, change func(*buffer) error) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	b, err := e.lookup(id)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := change(b); err != nil {
		return err
	}
	e.release(b.passed())
	return nil
}

// ListCursors is part of stream.Cursors.
func (e *Engine) ListCursors(id record.StreamID) (map[string]record.Offset, error) {
	b, err := e.find(id)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	offsets := make(map[string]record.Offset, len(b.cursors))
	for name, c := range b.cursors {
		offsets[name] = c.Offset
	}
	return offsets, nil
}
