package streammanager

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/export/forward"
	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

func TestRestartKeepsFilesAndEmptiesMemory(t *testing.T) {
	n := newNode(t)
	m := n.open()
	ok(t, m.Create(t.Context(), define("file", exporting("e"), sized(4096, 1024))))
	ok(t, m.Create(t.Context(), define("memory", inMemory)))
	for _, name := range m.List() {
		must[int64](t)(appendTo(m, name, "1", "2"))
	}
	before := must[*wire.MessageStreamInfo](t)(m.Describe("file"))
	n.stop()
	n.start()
	m = n.open()
	if l := m.List(); !slices.Equal(l, []string{"file", "memory"}) {
		t.Fatalf("%q", l)
	}
	after := must[*wire.MessageStreamInfo](t)(m.Describe("file"))
	if *after.Definition.MaxSize != 4096 || after.StorageStatus != before.StorageStatus || len(after.ExportStatuses) != 1 {
		t.Errorf("%+v, was %+v", after, before)
	}
	if msgs := must[[]wire.Message](t)(read(m, "file", 0, 2, 2, 0)); string(msgs[1].Payload) != "2" {
		t.Errorf("%+v", msgs)
	}
	if first := must[int64](t)(appendTo(m, "memory", "1")); first != 0 {
		t.Errorf("a memory stream begins at %d", first)
	}
}

// crash runs do and reports whether it was ended at step number at, as by a power cut.
func (n *node) crash(at int, do func(m *Manager)) (crashed bool) {
	m := n.open()
	steps := 0
	m.opt.step = func(name string) {
		if steps++; steps > at {
			panic("crash before " + name)
		}
	}
	defer func() { crashed = recover() != nil }()
	do(m)
	return false
}

func (n *node) restart() *Manager {
	n.stop()
	n.start()
	return n.open()
}

// each crashes do at each of its steps in turn, and lets check look at the manager after the restart.
func each(t *testing.T, prepare, do func(m *Manager), check func(t *testing.T, n *node, m *Manager)) {
	for at, crashed := 0, true; crashed; at++ {
		t.Run(fmt.Sprintf("at step %d", at), func(t *testing.T) {
			n := newNode(t)
			prepare(n.open())
			crashed = n.crash(at, do)
			check(t, n, n.restart())
			check(t, n, n.restart()) // a restart changes nothing more
			if _, err := n.disk.Lookup(EngineName("kept")); err != nil {
				t.Errorf("another stream: %v", err)
			}
		})
		if at > 20 {
			t.Fatal("no end")
		}
	}
}

// state is what can be seen of the stream "s".
func state(t *testing.T, n *node, m *Manager) (exports []string, cursors []string, exists bool) {
	t.Helper()
	info, err := n.disk.Lookup(EngineName("s"))
	stored := err == nil
	d, err := m.Describe("s")
	if stored != (err == nil) {
		t.Fatalf("the log has the stream: %v; it can be described: %v", stored, err)
	}
	entries := 0
	ok(t, n.meta.View(func(tx *meta.Tx) error {
		for e, err := range definitions.Scan(tx, "s", "s") {
			ok(t, err)
			if entries++; e.Value.Deleting || e.Value.Previous != nil {
				t.Errorf("unfinished: %+v", e.Value)
			}
		}
		return nil
	}))
	if (entries == 1) != stored {
		t.Fatalf("%d definitions, the log has the stream: %v", entries, stored)
	}
	if !stored {
		return nil, nil, false
	}
	for _, e := range d.ExportStatuses {
		exports = append(exports, e.ExportConfigIdentifier)
	}
	offsets, err := n.disk.ListCursors(info.ID)
	ok(t, err)
	for name := range offsets {
		cursors = append(cursors, strings.TrimPrefix(name, forward.CursorPrefix))
	}
	slices.Sort(exports)
	slices.Sort(cursors)
	return exports, cursors, true
}

func TestCrashDuringCreate(t *testing.T) {
	each(t, func(m *Manager) { ok(t, m.Create(t.Context(), define("kept"))) },
		func(m *Manager) { ok(t, m.Create(t.Context(), define("s", exporting("a", "b")))) },
		func(t *testing.T, n *node, m *Manager) {
			exports, cursors, exists := state(t, n, m)
			if exists && (len(exports) != 2 || !slices.Equal(exports, cursors)) {
				t.Errorf("exports %q, cursors %q", exports, cursors)
			}
		})
}

func TestCrashDuringUpdate(t *testing.T) {
	each(t, func(m *Manager) {
		ok(t, m.Create(t.Context(), define("kept")))
		ok(t, m.Create(t.Context(), define("s", exporting("a", "b"))))
		must[int64](t)(appendTo(m, "s", "1"))
		must[[]wire.Message](t)(read(m, "s", 0, 1, 1, 0))
	}, func(m *Manager) {
		ok(t, m.Update(t.Context(), define("s", exporting("b", "c"), sized(2048, 1024))))
	}, func(t *testing.T, n *node, m *Manager) {
		exports, cursors, exists := state(t, n, m)
		if !exists || !slices.Equal(exports, cursors) {
			t.Fatalf("exports %q, cursors %q", exports, cursors)
		}
		info, err := n.disk.Lookup(EngineName("s"))
		ok(t, err)
		switch strings.Join(exports, " ") {
		case "a b":
			if info.Policy.MaxBytes != 256<<20 {
				t.Errorf("old definition, policy %+v", info.Policy)
			}
		case "b c":
			if info.Policy.MaxBytes != 2048 {
				t.Errorf("new definition, policy %+v", info.Policy)
			}
			if len(n.targets.canceled) == 0 || m.DroppedStatuses() > 0 {
				t.Error("the target of the removed export was not told, or its status found no stream")
			}
		default:
			t.Errorf("exports %q", exports)
		}
		if info.Bounds.Next != 1 {
			t.Errorf("messages: %+v", info.Bounds)
		}
	})
}

func TestCrashDuringDelete(t *testing.T) {
	each(t, func(m *Manager) {
		ok(t, m.Create(t.Context(), define("kept")))
		ok(t, m.Create(t.Context(), define("s", exporting("a", "b"))))
		must[int64](t)(appendTo(m, "s", "1"))
		must[[]wire.Message](t)(read(m, "s", 0, 1, 1, 0))
	}, func(m *Manager) {
		ok(t, m.Delete(t.Context(), "s"))
	}, func(t *testing.T, n *node, m *Manager) {
		exports, cursors, exists := state(t, n, m)
		if exists { // then nothing of it was touched
			info := must[*wire.MessageStreamInfo](t)(m.Describe("s"))
			if !slices.Equal(exports, cursors) || len(exports) != 2 || info.StorageStatus.NewestSequenceNumber != 0 || len(n.targets.canceled) > 0 {
				t.Errorf("half deleted: exports %q, cursors %q, %+v, canceled %q", exports, cursors, info.StorageStatus, n.targets.canceled)
			}
		}
		if !exists && len(n.targets.canceled) < 2 || m.DroppedStatuses() > 0 {
			t.Errorf("targets were told %q, %d statuses found no stream", n.targets.canceled, m.DroppedStatuses())
		}
	})
}

func TestStreamThatLostItsDefinitionIsAdopted(t *testing.T) {
	for name, damage := range map[string]func(tx *meta.Tx) error{
		"missing": func(tx *meta.Tx) error { return definitions.Delete(tx, "s") },
		"unreadable": func(tx *meta.Tx) error {
			return definitions.Put(tx, "s", entry{Definition: []byte{0xff}})
		},
		"of another type": func(tx *meta.Tx) error {
			return meta.Bucket[string](definitions).Put(tx, "s", "?")
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			m := n.open()
			for _, stream := range []string{"r", "t"} {
				ok(t, m.Create(t.Context(), define(stream)))
			}
			ok(t, m.Create(t.Context(), define("s", exporting("e"), overwrite, sized(4096, 1024))))
			must[int64](t)(appendTo(m, "s", "1"))
			ok(t, n.meta.Update(damage))
			m = n.restart()
			d := must[*wire.MessageStreamInfo](t)(m.Describe("s"))
			if *d.Definition.MaxSize != 4096 || *d.Definition.StrategyOnFull != 1 || d.Definition.ExportDefinition != nil || d.StorageStatus.NewestSequenceNumber != 0 {
				t.Errorf("%+v", d)
			}
			if len(m.List()) != 3 || !strings.Contains(n.log.String(), "lost its definition") {
				t.Errorf("%q, log: %s", m.List(), n.log.String())
			}
			before := strings.Count(n.log.String(), "lost its definition")
			m = n.restart()
			if strings.Count(n.log.String(), "lost its definition") != before || len(m.List()) != 3 {
				t.Error("adopted again")
			}
		})
	}
}

func TestReclaimIsForStreamsThatAskForIt(t *testing.T) {
	n := newNode(t)
	n.reclaim = []string{"buffer*"}
	m := n.open()
	for name, want := range map[string]bool{"buffer 1": true, "other": false} {
		ok(t, m.Create(t.Context(), define(name)))
		info, err := n.disk.Lookup(EngineName(name))
		ok(t, err)
		if info.Policy.UntilExported != want || info.Policy.Durability != stream.OS {
			t.Errorf("%s: %+v", name, info.Policy)
		}
	}
}
