package memory

import (
	"context"
	"slices"
	"strings"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Commit is part of stream.Admin.
func (e *Engine) Commit(ctx context.Context, changes ...stream.Change) ([]record.StreamID, error) {
	if ctx.Err() != nil {
		return nil, unavailable(ctx, "commit changes of streams")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errClosed()
	}
	p := plan{
		e:     e,
		ids:   make(map[record.StreamID]*buffer),
		names: make(map[record.StreamName]*buffer),
	}
	for i, c := range changes {
		if err := p.stage(c); err != nil {
			return nil, record.Errorf(record.KindOf(err), "change %d: %w", i, err)
		}
	}
	for _, apply := range p.steps {
		apply()
	}
	return p.created, nil
}

// plan checks the changes of one commit, each against the state that those before it leave, and collects what to do:
// nothing is done before all are found good. The engine is locked meanwhile, so that nothing is appended.
type plan struct {
	e       *Engine
	ids     map[record.StreamID]*buffer   // created (not nil) or deleted (nil) by this commit
	names   map[record.StreamName]*buffer // likewise
	lane    stream.Lane
	laned   bool // lane is set
	steps   []func()
	created []record.StreamID
}

func (p *plan) stage(c stream.Change) error {
	if err := onlyOne(c); err != nil {
		return err
	}
	switch {
	case c.Create != nil:
		return p.create(c.Create)
	case c.Alter != nil:
		return p.alter(c.Alter)
	case c.Seal != nil:
		return p.seal(c.Seal)
	case c.Delete != nil:
		return p.delete(c.Delete)
	default:
		return p.truncate(c.Truncate)
	}
}

func onlyOne(c stream.Change) error {
	n := 0
	for _, set := range []bool{c.Create != nil, c.Alter != nil, c.Seal != nil, c.Delete != nil, c.Truncate != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return record.Errorf(record.Invalid, "want exactly one of create, alter, seal, delete, truncate; have %d", n)
	}
	return nil
}

func (p *plan) find(id record.StreamID) (*buffer, error) {
	b, staged := p.ids[id]
	if !staged {
		b = p.e.ids[id]
	}
	if b == nil {
		return nil, record.Errorf(record.NotFound, "stream %v does not exist", id)
	}
	return b, p.inLane(b.policy.Lane)
}

func (p *plan) inLane(l stream.Lane) error {
	if p.laned && p.lane != l {
		return record.Errorf(record.Invalid, "streams of two lanes in one commit").
			WithHint("commit the changes of each lane on their own")
	}
	p.lane, p.laned = l, true
	return nil
}

func (p *plan) create(c *stream.Create) error {
	if err := c.Name.Validate(); err != nil {
		return err
	}
	if err := checkPolicy(c.Policy); err != nil {
		return err
	}
	if err := p.inLane(c.Policy.Lane); err != nil {
		return err
	}
	taken, staged := p.names[c.Name]
	if !staged {
		taken = p.e.names[c.Name]
	}
	if taken != nil {
		return record.Errorf(record.Conflict, "stream %s exists", c.Name)
	}
	id := c.ID
	for id == 0 || c.ID == 0 && p.used(id) {
		id = newStreamID()
	}
	if p.used(id) {
		return record.Errorf(record.Conflict, "stream id %v exists", id)
	}
	b := &buffer{id: id, name: c.Name, policy: c.Policy}
	p.ids[id], p.names[c.Name] = b, b
	p.created = append(p.created, id)
	p.steps = append(p.steps, func() { p.e.ids[id], p.e.names[b.name] = b, b })
	return nil
}

// used reports whether a stream has or, before an earlier change of this commit, had the id.
func (p *plan) used(id record.StreamID) bool {
	_, staged := p.ids[id]
	return staged || p.e.ids[id] != nil
}

func (p *plan) alter(c *stream.Alter) error {
	b, err := p.find(c.ID)
	if err != nil {
		return err
	}
	if c.Policy.Lane != b.policy.Lane {
		return record.Errorf(record.Invalid, "stream %s: its lane cannot change", b.name)
	}
	if err := checkPolicy(c.Policy); err != nil {
		return err
	}
	p.steps = append(p.steps, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.policy = c.Policy
		p.e.release(b.passed())
		p.e.drop(b.shrink(0))
	})
	return nil
}

func checkPolicy(p stream.Policy) error {
	if p.MaxBytes < 0 || p.DropBytes < 0 || p.MaxAge < 0 || p.Durability > stream.OS || p.OnFull > stream.DropOldest || p.Lane > stream.Long {
		return record.Errorf(record.Invalid, "policy %+v: a value is out of range", p)
	}
	return nil
}

func (p *plan) seal(c *stream.Seal) error {
	b, err := p.find(c.ID)
	if err != nil {
		return err
	}
	p.steps = append(p.steps, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sealed = true
		b.notify()
	})
	return nil
}

func (p *plan) delete(c *stream.Delete) error {
	b, err := p.find(c.ID)
	if err != nil {
		return err
	}
	p.ids[b.id], p.names[b.name] = nil, nil
	p.steps = append(p.steps, func() {
		delete(p.e.ids, b.id)
		delete(p.e.names, b.name)
		b.mu.Lock()
		defer b.mu.Unlock()
		p.e.release(b.truncate(b.next))
		b.gone = true
		b.notify()
	})
	return nil
}

func (p *plan) truncate(c *stream.Truncate) error {
	b, err := p.find(c.ID)
	if err != nil {
		return err
	}
	b.mu.Lock()
	next := b.next
	b.mu.Unlock()
	if c.Before > next {
		return record.Errorf(record.Invalid, "stream %s: truncate before %d, beyond its end at %d", b.name, c.Before, next)
	}
	p.steps = append(p.steps, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		p.e.release(b.truncate(c.Before))
	})
	return nil
}

// Lookup is part of stream.Admin.
func (e *Engine) Lookup(name record.StreamName) (stream.Info, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closed {
		return stream.Info{}, errClosed()
	}
	b, ok := e.names[name]
	if !ok {
		return stream.Info{}, record.Errorf(record.NotFound, "stream %s does not exist", name)
	}
	return b.info(), nil
}

// List is part of stream.Admin.
func (e *Engine) List(prefix string) []stream.Info {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var infos []stream.Info
	for name, b := range e.names {
		if strings.HasPrefix(string(name), prefix) {
			infos = append(infos, b.info())
		}
	}
	slices.SortFunc(infos, func(a, b stream.Info) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return infos
}
