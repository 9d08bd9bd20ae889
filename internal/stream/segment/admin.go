package segment

import (
	"context"
	"maps"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Commit implements stream.Admin.
func (l *Log) Commit(ctx context.Context, changes ...stream.Change) ([]record.StreamID, error) {
	if len(changes) == 0 {
		return nil, nil
	}
	l.names.Lock()
	la, err := l.laneOf(changes)
	if err != nil {
		l.names.Unlock()
		return nil, err
	}
	var ids []record.StreamID
	err = la.submit(ctx, &control{barrier: true, ended: l.names.Unlock, steps: func() ([]op, error) {
		ops, created, err := la.steps(changes)
		ids = created
		return ops, err
	}})
	if err != nil {
		return nil, err
	}
	return ids, nil
}

// laneOf finds the one lane that all changes are about.
func (l *Log) laneOf(changes []stream.Change) (la *lane, err error) {
	for i := range changes {
		var this *lane
		c := &changes[i]
		switch id, ok := target(c); {
		case ok:
			s, err := l.stream(id)
			if err != nil {
				return nil, err
			}
			this = s.lane
		case c.Create != nil && isOne(c) && int(c.Create.Policy.Lane) < len(l.lanes):
			this = l.lanes[c.Create.Policy.Lane]
		default:
			return nil, record.Errorf(record.Invalid, "change %d of %d: exactly one kind must be set, in a lane that exists", i+1, len(changes))
		}
		if la != nil && la != this {
			return nil, record.Errorf(record.Invalid, "the streams of one commit must be in one lane")
		}
		la = this
	}
	return la, nil
}

// target is the existing stream that a change is about, when it is one change and not a creation.
func target(c *stream.Change) (id record.StreamID, ok bool) {
	switch {
	case !isOne(c):
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

// isOne reports whether exactly one kind of change is set.
func isOne(c *stream.Change) bool {
	n := 0
	for _, set := range []bool{c.Create != nil, c.Alter != nil, c.Seal != nil, c.Delete != nil, c.Truncate != nil} {
		if set {
			n++
		}
	}
	return n == 1
}

// steps turns changes into steps, checking each against the state and the changes before it.
func (l *lane) steps(changes []stream.Change) (ops []op, created []record.StreamID, err error) {
	p := changePlan{lane: l, names: map[record.StreamName]bool{}, ids: map[record.StreamID]bool{}}
	for i := range changes {
		if err := p.add(&changes[i]); err != nil {
			return nil, nil, err
		}
	}
	return p.ops, p.created, nil
}

// changePlan is a commit being checked: names and ids tell which it makes (true) or removes (false).
type changePlan struct {
	lane    *lane
	ops     []op
	created []record.StreamID
	names   map[record.StreamName]bool
	ids     map[record.StreamID]bool
}

func (p *changePlan) add(c *stream.Change) error {
	if c.Create != nil {
		return p.create(c.Create)
	}
	id, _ := target(c)
	s := p.lane.streams[id]
	if exists, changed := p.ids[id]; s == nil || changed && !exists {
		return notFound(id)
	}
	switch {
	case c.Alter != nil:
		if c.Alter.Policy.Lane != s.policy.Lane {
			return record.Errorf(record.Invalid, "stream %s: the lane of a stream cannot change", s.name)
		}
		p.ops = append(p.ops, op{kind: opAlter, id: id, policy: c.Alter.Policy})
	case c.Seal != nil:
		p.ops = append(p.ops, op{kind: opSeal, id: id})
	case c.Delete != nil:
		p.ids[id], p.names[s.name] = false, false
		p.ops = append(p.ops, op{kind: opDelete, id: id})
	case c.Truncate != nil:
		before := c.Truncate.Before
		if before > s.synced {
			return record.Errorf(record.Invalid, "truncate stream %s before %d: readers see offsets below %d only", s.name, before, s.synced)
		}
		p.ops = append(p.ops, op{kind: opTruncate, id: id, offset: before, bytes: p.lane.logicalFrom(s, before)})
	}
	return nil
}

func (p *changePlan) create(c *stream.Create) error {
	if err := c.Name.Validate(); err != nil {
		return err
	}
	exists, changed := p.names[c.Name]
	if !changed {
		_, err := p.lane.log.lookupName(c.Name)
		exists = err == nil
	}
	if exists {
		return record.Errorf(record.Conflict, "stream %s exists already", c.Name)
	}
	id := c.ID
	if id == 0 {
		id = record.StreamID(newID())
	}
	if _, err := p.lane.log.stream(id); err == nil || p.ids[id] {
		return record.Errorf(record.Conflict, "stream id %s is taken", id)
	}
	p.names[c.Name], p.ids[id] = true, true
	p.created = append(p.created, id)
	p.ops = append(p.ops, op{kind: opCreate, id: id, name: string(c.Name), policy: c.Policy})
	return nil
}

func (l *Log) lookupName(name record.StreamName) (*streamState, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if s := l.byName[name]; s != nil {
		return s, nil
	}
	return nil, record.Errorf(record.NotFound, "stream %s does not exist", name)
}

// LoadCursor implements stream.Cursors.
func (l *Log) LoadCursor(id record.StreamID, name string) (stream.Cursor, error) {
	s, err := l.stream(id)
	if err != nil {
		return stream.Cursor{}, err
	}
	s.lane.mu.Lock()
	defer s.lane.mu.Unlock()
	c, ok := s.cursors[name]
	if !ok {
		return stream.Cursor{}, record.Errorf(record.NotFound, "stream %s has no cursor %q", s.name, name)
	}
	c.State = append([]byte(nil), c.State...)
	return c, nil
}

// StoreCursor implements stream.Cursors.
func (l *Log) StoreCursor(ctx context.Context, id record.StreamID, name string, c stream.Cursor) error {
	s, err := l.stream(id)
	if err != nil {
		return err
	}
	if len(c.State) > stream.MaxCursorState || len(name) > record.MaxKey {
		return record.Errorf(record.Invalid, "cursor %.64q of stream %s: %d bytes of state, at most %d", name, s.name, len(c.State), stream.MaxCursorState)
	}
	state := append([]byte(nil), c.State...)
	return s.lane.submit(ctx, &control{steps: func() ([]op, error) {
		if s.deleted {
			return nil, notFound(id)
		}
		if c.Offset > s.synced {
			return nil, record.Errorf(record.Invalid, "cursor %q of stream %s: offset %d is beyond what readers see, %d", name, s.name, c.Offset, s.synced)
		}
		return []op{{kind: opCursor, id: id, name: name, offset: c.Offset, state: state}}, nil
	}})
}

// DeleteCursor implements stream.Cursors.
func (l *Log) DeleteCursor(ctx context.Context, id record.StreamID, name string) error {
	s, err := l.stream(id)
	if err != nil {
		return err
	}
	return s.lane.submit(ctx, &control{steps: func() ([]op, error) {
		if s.deleted {
			return nil, notFound(id)
		}
		return []op{{kind: opCursorDelete, id: id, name: name}}, nil
	}})
}

// ListCursors implements stream.Cursors.
func (l *Log) ListCursors(id record.StreamID) (map[string]record.Offset, error) {
	s, err := l.stream(id)
	if err != nil {
		return nil, err
	}
	s.lane.mu.Lock()
	defer s.lane.mu.Unlock()
	offsets := make(map[string]record.Offset, len(s.cursors))
	for name, c := range maps.All(s.cursors) {
		offsets[name] = c.Offset
	}
	return offsets, nil
}
