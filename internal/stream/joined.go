package stream

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/leat-io/leat/internal/record"
)

// Joined is several engines seen as one, for those who work on any stream of a node and must not care which engine has
// it: the API, metrics, exports. It holds no state and no lock of its own.
//
// A stream is found by id or name in the first engine that has it. Whoever creates streams keeps names unique across
// the engines: Commit refuses a name that one of them has, but two commits at once may both succeed. IDs are random, so
// they do not meet.
type Joined struct {
	engines []Engine
}

var _ Engine = Joined{}

// Join joins engines, at least one. The first is where streams are created.
func Join(first Engine, others ...Engine) Joined {
	return Joined{engines: append([]Engine{first}, others...)}
}

// of is the engine that has the stream. When none has it, the one that answers with the reason: closed or failed,
// otherwise the first, whose answer is NotFound.
func (j Joined) of(id record.StreamID) Engine {
	answers := j.engines[0]
	for _, e := range j.engines {
		_, err := e.Bounds(id)
		if err == nil {
			return e
		}
		if record.KindOf(err) != record.NotFound {
			answers = e
		}
	}
	return answers
}

// Append implements Appender.
func (j Joined) Append(ctx context.Context, id record.StreamID, records []record.Record, done func(record.Offset, error)) {
	j.of(id).Append(ctx, id, records, done)
}

// Read implements Reader.
func (j Joined) Read(ctx context.Context, id record.StreamID, from record.Offset, maxBytes int, c *Chunk) error {
	return j.of(id).Read(ctx, id, from, maxBytes, c)
}

// Seek implements Reader.
func (j Joined) Seek(ctx context.Context, id record.StreamID, t time.Time) (record.Offset, error) {
	return j.of(id).Seek(ctx, id, t)
}

// Bounds implements Reader.
func (j Joined) Bounds(id record.StreamID) (Bounds, error) { return j.of(id).Bounds(id) }

// Sync implements Reader.
func (j Joined) Sync(ctx context.Context, id record.StreamID) error { return j.of(id).Sync(ctx, id) }

// Commit implements Admin. All changes are made in the engine of the streams that they are about, creations in the first
// when they come alone; streams of two engines in one commit are Invalid.
func (j Joined) Commit(ctx context.Context, changes ...Change) ([]record.StreamID, error) {
	var in Engine
	for i := range changes {
		id, ok := changes[i].target()
		if !ok {
			continue
		}
		if _, err := j.Bounds(id); err != nil {
			return nil, err
		}
		e := j.of(id)
		if in != nil && e != in {
			return nil, record.Errorf(record.Invalid, "the streams of one commit must be in one engine").
				WithHint("commit the changes of each engine on their own")
		}
		in = e
	}
	if in == nil {
		in = j.engines[0]
	}
	for i := range changes {
		if c := changes[i].Create; c != nil {
			if err := j.unused(c, in); err != nil {
				return nil, err
			}
		}
	}
	return in.Commit(ctx, changes...)
}

// unused tells when an engine other than the one that will create the stream has its name or ID: Conflict.
func (j Joined) unused(c *Create, in Engine) error {
	for _, e := range j.engines {
		if e == in {
			continue
		}
		if _, err := e.Lookup(c.Name); err == nil {
			return record.Errorf(record.Conflict, "stream %s exists", c.Name)
		}
		if _, err := e.Bounds(c.ID); c.ID != 0 && err == nil {
			return record.Errorf(record.Conflict, "stream id %v exists", c.ID)
		}
	}
	return nil
}

// target is the stream that a change is about; ok is false for a creation.
func (c *Change) target() (id record.StreamID, ok bool) {
	switch {
	case c.Alter != nil:
		return c.Alter.ID, true
	case c.Seal != nil:
		return c.Seal.ID, true
	case c.Delete != nil:
		return c.Delete.ID, true
	case c.Truncate != nil:
		return c.Truncate.ID, true
	}
	return 0, false
}

// Lookup implements Admin.
func (j Joined) Lookup(name record.StreamName) (info Info, err error) {
	for _, e := range j.engines {
		var this error
		if info, this = e.Lookup(name); this == nil {
			return info, nil
		}
		if err == nil || record.KindOf(this) != record.NotFound {
			err = this
		}
	}
	return Info{}, err
}

// List implements Admin.
func (j Joined) List(prefix string) []Info {
	var all []Info
	for _, e := range j.engines {
		all = append(all, e.List(prefix)...)
	}
	slices.SortStableFunc(all, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// LoadCursor implements Cursors.
func (j Joined) LoadCursor(id record.StreamID, name string) (Cursor, error) {
	return j.of(id).LoadCursor(id, name)
}

// StoreCursor implements Cursors.
func (j Joined) StoreCursor(ctx context.Context, id record.StreamID, name string, c Cursor) error {
	return j.of(id).StoreCursor(ctx, id, name, c)
}

// DeleteCursor implements Cursors.
func (j Joined) DeleteCursor(ctx context.Context, id record.StreamID, name string) error {
	return j.of(id).DeleteCursor(ctx, id, name)
}

// ListCursors implements Cursors.
func (j Joined) ListCursors(id record.StreamID) (map[string]record.Offset, error) {
	return j.of(id).ListCursors(id)
}

// Close closes the engines, the last one first.
func (j Joined) Close() error {
	var errs []error
	for _, e := range slices.Backward(j.engines) {
		errs = append(errs, e.Close())
	}
	return errors.Join(errs...)
}
