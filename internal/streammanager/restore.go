package streammanager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leat-io/leat/internal/export/forward"
	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// Open finishes what a crash interrupted and starts the exports of all streams. The Exports must take Set and Remove
// before they run. The result must be closed.
//
// Streams of persistence Memory begin empty, at sequence number 0. A stream of the log without a definition, which only
// damage to the metadata leaves, is kept with what its policy says, without exports; that is logged as an error. An
// export that cannot be started is logged as an error and keeps its place; the other exports and the stream work. A deletion
// that cannot be finished is logged, too: the stream stays hidden until Delete or Create of its name, or the next start.
func Open(ctx context.Context, opt Options) (*Manager, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.step == nil {
		opt.step = func(string) {}
	}
	m := &Manager{
		opt: opt, admin: make(chan struct{}, 1), half: map[string]*managed{}, streams: map[string]*managed{}, unheard: map[string]struct{}{},
	}
	entries, err := m.load()
	if err != nil {
		return nil, fmt.Errorf("read the definitions of streams: %w", err)
	}
	for _, e := range entries {
		if !e.deleting {
			if err := m.restore(ctx, e.def); err != nil {
				return nil, fmt.Errorf("restore stream %q: %w", e.def.Name, err)
			}
		}
	}
	// Now that all streams are there: targets of exports that leave report to them.
	for _, e := range entries {
		if err := m.finish(ctx, e); err != nil {
			opt.Log.Error("an interrupted change of a stream could not be finished; the next start tries again", "stream", e.def.Name, "error", err)
		}
	}
	for _, info := range opt.Disk.List(enginePrefix) {
		if err := m.adopt(ctx, info); err != nil {
			return nil, fmt.Errorf("adopt stream %q: %w", info.Name, err)
		}
	}
	return m, nil
}

func (m *Manager) now() time.Time { return m.opt.Now() }

// loaded is an entry decoded.
type loaded struct {
	def, previous *wire.MessageStreamDefinition
	deleting      bool
}

// load reads the entries. Damaged ones are logged and passed over: their streams are adopted.
func (m *Manager) load() (list []loaded, err error) {
	err = m.opt.Meta.View(func(tx *meta.Tx) error {
		for from := ""; ; {
			again := false
			for e, err := range definitions.Scan(tx, "", from) {
				l, derr := decode(e, err)
				switch {
				case derr == nil:
					list = append(list, l)
				case record.KindOf(derr) != record.Corrupt:
					return derr
				default:
					m.opt.Log.Error("the definition of a stream is damaged", "stream", e.Key, "error", derr)
				}
				if err != nil { // Scan ends here: go on behind it
					from, again = e.Key+"\x00", true
				}
			}
			if !again {
				return nil
			}
		}
	})
	return list, err
}

func decode(e meta.Entry[entry], err error) (l loaded, _ error) {
	if err != nil {
		return l, err
	}
	l.deleting = e.Value.Deleting
	if l.def, err = wire.UnmarshalDefinition(e.Value.Definition); err != nil {
		return l, err
	}
	if l.def.Name != e.Key {
		return l, record.Errorf(record.Corrupt, "the definition of stream %q lies under the name %q", l.def.Name, e.Key)
	}
	if e.Value.Previous != nil {
		l.previous, err = wire.UnmarshalDefinition(e.Value.Previous)
	}
	return l, err
}

// restore makes the engine agree with a definition, and starts its exports.
func (m *Manager) restore(ctx context.Context, d *wire.MessageStreamDefinition) error {
	s, err := m.build(ctx, d)
	if err != nil {
		return err
	}
	m.publish(s)
	m.start(ctx, s, m.specsToStart(d))
	return nil
}

// finish ends an update or a deletion that a crash interrupted.
func (m *Manager) finish(ctx context.Context, l loaded) error {
	if l.deleting {
		return m.restoreDeleted(ctx, l.def)
	}
	if l.previous == nil {
		return nil
	}
	s, err := m.find(l.def.Name)
	if err != nil {
		return err
	}
	leaving := removedExports(l.previous, l.def)
	m.startAgain(ctx, s, l.previous, leaving)
	if err := m.removeExports(ctx, s, leaving, leftDefinition); err != nil {
		return err
	}
	return m.put("update: done", l.def, nil, false)
}

// restoreDeleted finishes a deletion. The stream may be gone already.
func (m *Manager) restoreDeleted(ctx context.Context, d *wire.MessageStreamDefinition) error {
	engine := m.engineOf(d)
	info, err := engine.Lookup(EngineName(d.Name))
	switch {
	case err == nil:
	case record.KindOf(err) == record.NotFound:
		return m.forget("delete: definition", d.Name)
	default:
		return err
	}
	s := &managed{name: d.Name, id: info.ID, engine: engine}
	s.def.Store(d)
	m.half[d.Name] = s
	m.startAgain(ctx, s, d, removedExports(d, &wire.MessageStreamDefinition{}))
	return m.finishDelete(ctx, d.Name)
}

// startAgain starts exports of a definition that are about to be removed, disabled, so that their targets can be told.
func (m *Manager) startAgain(ctx context.Context, s *managed, d *wire.MessageStreamDefinition, identifiers []string) {
	leaving := map[string]bool{}
	for _, identifier := range identifiers {
		leaving[identifier] = true
	}
	var specs []forward.Spec
	for _, spec := range m.specsToStart(d) {
		if spec.Disabled = true; leaving[spec.Identifier] {
			specs = append(specs, spec)
		}
	}
	m.start(ctx, s, specs)
}

// start logs the failures that setExports returns: the stream works without.
func (m *Manager) start(ctx context.Context, s *managed, specs []forward.Spec) {
	if err := m.setExports(ctx, s, specs); err != nil {
		m.opt.Log.Error("an export could not be started; it keeps its place", "stream", s.name, "error", err)
	}
}

// specsToStart is specs, but an export whose target cannot be made is disabled, and logged.
func (m *Manager) specsToStart(d *wire.MessageStreamDefinition) (specs []forward.Spec) {
	for kind, e := range d.ExportDefinition.All() {
		spec := m.spec(kind, e)
		var err error
		if spec.Target, err = m.opt.Targets.New(d.Name, kind, e, m.AppendStatus); err != nil {
			spec.Target, spec.Disabled = nil, true
			m.opt.Log.Error("an export cannot run and is disabled", "stream", d.Name, "export", e.Identifier, "kind", string(kind),
				"error", err, "hint", record.HintOf(err))
		}
		specs = append(specs, spec)
	}
	return specs
}

// adopt gives a stream of the log that has no definition one. Its exports' cursors stay: an update that names the exports
// again goes on where they were.
func (m *Manager) adopt(ctx context.Context, info stream.Info) error {
	name, _ := ClientName(info.Name)
	if _, err := m.find(name); err == nil || m.half[name] != nil {
		return nil
	}
	d := derived(name, info)
	m.opt.Log.Error("a stream has lost its definition; its messages are kept, its exports must be defined again by an update",
		"stream", name, "messages", uint64(info.Bounds.Next-info.Bounds.First), "bytes", info.Bounds.Bytes)
	if err := m.put("adopt: definition", d, nil, false); err != nil {
		return err
	}
	s, err := m.build(ctx, d)
	if err != nil {
		return errors.Join(err, m.forget("adopt: undo", name))
	}
	m.publish(s)
	return nil
}

// derived is the definition that a policy came from.
func derived(name string, info stream.Info) *wire.MessageStreamDefinition {
	p := info.Policy
	strategy, flush := wire.RejectNewData, p.Durability == stream.Disk
	if p.OnFull == stream.DropOldest {
		strategy = wire.OverwriteOldestData
	}
	d := &wire.MessageStreamDefinition{
		Name: name, StrategyOnFull: wire.NewInt(int64(strategy)), Persistence: wire.NewInt(int64(wire.File)), FlushOnWrite: &flush,
		MaxSize: wire.NewInt(max(p.MaxBytes, 1024)),
	}
	if p.MaxBytes == 0 { // no limit: nothing may be dropped because of a default
		d.MaxSize = wire.NewInt(wire.MaxNumber)
	}
	if p.DropBytes > 0 {
		d.StreamSegmentSize = wire.NewInt(p.DropBytes)
	}
	if p.MaxAge > 0 {
		d.TimeToLiveMillis = wire.NewInt(int64(p.MaxAge / time.Millisecond))
	}
	return d.Resolve()
}
