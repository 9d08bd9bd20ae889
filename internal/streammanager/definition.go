package streammanager

import (
	"context"
	"errors"
	"time"

	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// Two stores know a stream: meta its definition, an engine its messages and the places of its exports. A crash can fall
// between any two steps, so each operation begins in meta, and what meta says is carried out at the next start:
//
//	create   1 definition into meta   2 stream in the engine   3 exports
//	update   1 definition into meta, with the previous one when exports leave   2 policy in the engine
//	         3 exports that leave are removed   4 those that stay or come are set   5 the previous definition is forgotten
//	delete   1 mark in meta   2 exports are removed   3 stream in the engine   4 definition out of meta
//
// The previous definition is kept in an update, and the definition in a deletion, because the targets of exports that
// leave must be told what they will not get, after a crash too.
//
// Names suffice to match both stores: a name is free for another stream only after step 4 of a deletion. The engine's
// id of the stream is not kept, it would have to be written in a second transaction.

// definitions is the bucket of entries by the clients' name.
const definitions meta.Bucket[entry] = "streammanager.streams"

// entry is a definition as it lies in meta: wire.MarshalDefinition's bytes.
type entry struct {
	Definition []byte `json:"definition"`
	Previous   []byte `json:"previous,omitempty"` // while an update removes exports
	Deleting   bool   `json:"deleting,omitempty"`
}

func (m *Manager) put(step string, def, previous *wire.MessageStreamDefinition, deleting bool) error {
	m.opt.step(step)
	e := entry{Deleting: deleting}
	var err error
	if e.Definition, err = wire.MarshalDefinition(def); err != nil {
		return err
	}
	if previous != nil {
		if e.Previous, err = wire.MarshalDefinition(previous); err != nil {
			return err
		}
	}
	err = m.opt.Meta.Update(func(tx *meta.Tx) error { return definitions.Put(tx, def.Name, e) })
	if err != nil {
		return record.Errorf(record.KindOf(err), "store the definition of stream %q: %w", def.Name, err)
	}
	return nil
}

func (m *Manager) forget(step, name string) error {
	m.opt.step(step)
	err := m.opt.Meta.Update(func(tx *meta.Tx) error { return definitions.Delete(tx, name) })
	if err != nil {
		return record.Errorf(record.KindOf(err), "delete the definition of stream %q: %w", name, err)
	}
	return nil
}

// policy is how an engine keeps the stream.
func (m *Manager) policy(d *wire.MessageStreamDefinition) stream.Policy {
	p := stream.Policy{
		Durability: stream.OS, OnFull: stream.Reject, Lane: stream.Short,
		MaxBytes:      d.MaxSize.Or(wire.DefaultMaxSize),
		DropBytes:     d.StreamSegmentSize.Or(wire.DefaultSegmentSize),
		MaxAge:        time.Duration(min(d.TimeToLiveMillis.Or(0), wire.MaxMillis)) * time.Millisecond,
		UntilExported: matchAny(m.opt.ReclaimExported, d.Name),
	}
	if d.FlushOnWrite != nil && *d.FlushOnWrite {
		p.Durability = stream.Disk
	}
	if wire.StrategyOnFull(d.StrategyOnFull.Or(0)) == wire.OverwriteOldestData {
		p.OnFull = stream.DropOldest
	}
	return p
}

func (m *Manager) engineOf(d *wire.MessageStreamDefinition) stream.Engine {
	if wire.Persistence(d.Persistence.Or(0)) == wire.Memory {
		return m.opt.Memory
	}
	return m.opt.Disk
}

// create makes the stream of a resolved definition. A failure undoes what was done, as far as that is possible: what
// remains is finished by the next start, or removed by the next Create of that name.
func (m *Manager) create(ctx context.Context, d *wire.MessageStreamDefinition) error {
	specs, err := m.specs(d)
	if err != nil {
		return err
	}
	if err := m.put("create: definition", d, nil, false); err != nil {
		return err
	}
	s, err := m.build(ctx, d)
	if err != nil {
		return errors.Join(createFailed(d.Name, err), m.forget("create: undo", d.Name))
	}
	if err := m.setExports(ctx, s, specs); err != nil {
		return errors.Join(createFailed(d.Name, err), m.remove(ctx, s))
	}
	m.publish(s)
	return nil
}

func createFailed(name string, err error) error {
	return record.Errorf(record.KindOf(err), "create stream %q: %w", name, err)
}

// build makes the engine's stream of d, or takes the one that is there: an unfinished creation left it.
func (m *Manager) build(ctx context.Context, d *wire.MessageStreamDefinition) (*managed, error) {
	m.opt.step("create: stream")
	engine := m.engineOf(d)
	info, err := stream.Ensure(ctx, engine, EngineName(d.Name), m.policy(d))
	if err != nil {
		return nil, err
	}
	s := &managed{name: d.Name, id: info.ID, engine: engine}
	s.def.Store(d)
	return s, nil
}

// update replaces the definition of s by the resolved d.
func (m *Manager) update(ctx context.Context, s *managed, d *wire.MessageStreamDefinition) error {
	old := s.def.Load()
	b, err := s.engine.Bounds(s.id)
	if err != nil {
		return s.failed("update", err)
	}
	if err := updatable(old, d, b); err != nil {
		return err
	}
	specs, err := m.specs(d)
	if err != nil {
		return err
	}
	leaving := removedExports(old, d)
	var previous *wire.MessageStreamDefinition
	if len(leaving) > 0 {
		previous = old
	}
	if err := m.put("update: definition", d, previous, false); err != nil {
		return updateFailed(s.name, err)
	}
	if err := m.alter(ctx, s, d); err != nil {
		return updateFailed(s.name, errors.Join(err, m.put("update: undo", old, nil, false)))
	}
	if err := m.removeExports(ctx, s, leaving, leftDefinition); err != nil {
		return updateFailed(s.name, err)
	}
	s.def.Store(d) // not before: an update that is repeated must find the exports that still have to leave
	if err := m.setExports(ctx, s, specs); err != nil {
		return updateFailed(s.name, err)
	}
	if previous == nil {
		return nil
	}
	if err := m.put("update: done", d, nil, false); err != nil {
		return updateFailed(s.name, err)
	}
	return nil
}

// The reasons that targets are given for what they will not get.
const (
	leftDefinition = "the export was removed from the stream's definition"
	streamDeleted  = "the stream was deleted"
)

func (m *Manager) alter(ctx context.Context, s *managed, d *wire.MessageStreamDefinition) error {
	m.opt.step("update: policy")
	_, err := stream.Ensure(ctx, s.engine, EngineName(s.name), m.policy(d))
	return err
}

// updateFailed is a failure after the request was found to be valid. What was begun is finished by the next start, or by
// the same update again.
func updateFailed(name string, err error) error {
	return wire.Errorf(wire.UpdateFailed, "update stream %q: %v (repeat the update)", name, err)
}

// updatable says what of the new definition an existing stream cannot take.
func updatable(old, d *wire.MessageStreamDefinition, b stream.Bounds) error {
	if o, n := old.Persistence.Or(0), d.Persistence.Or(0); o != n {
		return wire.Errorf(wire.UpdateNotAllowed,
			"stream %q: persistence cannot change from %d to %d (0 is File, 1 Memory; absent means File): delete the stream and create it again", d.Name, o, n)
	}
	if size := d.MaxSize.Or(wire.DefaultMaxSize); b.First < b.Next && size < b.Bytes {
		return record.Errorf(record.Invalid, "stream %q: maxSize is %d, but the stream holds %d bytes", d.Name, size, b.Bytes).
			WithHint("choose a maxSize that the stream fits into")
	}
	was := map[string]wire.ExportKind{}
	for kind, e := range old.ExportDefinition.All() {
		was[e.Identifier] = kind
	}
	for kind, e := range d.ExportDefinition.All() {
		k, stays := was[e.Identifier]
		if stays && k != kind {
			return wire.Errorf(wire.UpdateNotAllowed,
				"stream %q: export %q cannot change from %s to %s: give the new export an identifier of its own", d.Name, e.Identifier, k, kind)
		}
		newest := int64(b.Next) - 1
		if start := e.StartSequenceNumber.Or(0); !stays && start > 0 && start >= newest {
			return record.Errorf(record.Invalid, "stream %q: startSequenceNumber of export %q is %d: want less than the newest sequence number, which is %d",
				d.Name, e.Identifier, start, newest).WithHint("choose a lower one, or leave it out to export from the beginning")
		}
	}
	return nil
}

// removedExports are those of old that d does not have.
func removedExports(old, d *wire.MessageStreamDefinition) (identifiers []string) {
	stays := map[string]bool{}
	for _, e := range d.ExportDefinition.All() {
		stays[e.Identifier] = true
	}
	for _, e := range old.ExportDefinition.All() {
		if !stays[e.Identifier] {
			identifiers = append(identifiers, e.Identifier)
		}
	}
	return identifiers
}

// remove deletes a stream. It is hidden first; when a step fails it stays hidden and half deleted until the next Delete or
// Create of its name, or the next start.
func (m *Manager) remove(ctx context.Context, s *managed) error {
	d := s.def.Load()
	if err := m.put("delete: mark", d, nil, true); err != nil {
		return err // nothing has changed
	}
	m.hide(s)
	m.half[s.name] = s
	return m.finishDelete(ctx, s.name)
}

// finishDelete does what remains of a deletion; nothing when there is none.
func (m *Manager) finishDelete(ctx context.Context, name string) error {
	s := m.half[name]
	if s == nil {
		return nil
	}
	if err := m.removeExports(ctx, s, removedExports(s.def.Load(), &wire.MessageStreamDefinition{}), streamDeleted); err != nil {
		return record.Errorf(record.KindOf(err), "delete stream %q: %w", name, err).WithHint("delete it again")
	}
	m.opt.step("delete: stream")
	_, err := s.engine.Commit(ctx, stream.Change{Delete: &stream.Delete{ID: s.id}})
	if err != nil && record.KindOf(err) != record.NotFound {
		return record.Errorf(record.KindOf(err), "delete stream %q: %w", name, err).WithHint("delete it again")
	}
	if err := m.forget("delete: definition", name); err != nil {
		return err
	}
	delete(m.half, name)
	return nil
}
