package export_test

import (
	"context"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/export"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/vfs"
)

// syncWatch knows which files and directories of a spool a power cut would lose, and looks at them whenever a cursor is
// stored and whenever an object is put.
type syncWatch struct {
	noWrapper
	t *testing.T

	mu     sync.Mutex
	dirty  map[string]bool // files with content, and directories with names, that are not synced
	checks int
}

func (w *syncWatch) hook(op vfs.Op) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := path.Clean(op.Name)
	switch op.Kind {
	case vfs.OpWrite:
		w.dirty[name], w.dirty[path.Dir(name)] = true, true
	case vfs.OpRename, vfs.OpMkdir:
		for d := path.Dir(name); ; d = path.Dir(d) {
			if w.dirty[d] = true; d == "." {
				break
			}
		}
		delete(w.dirty, name)
	case vfs.OpSync, vfs.OpSyncDir:
		delete(w.dirty, name)
	case vfs.OpRemove:
		for d := range w.dirty {
			if d == name || strings.HasPrefix(d, name+"/") {
				delete(w.dirty, d)
			}
		}
	}
	return nil
}

// check looks at the files of steps: names of a stream, and the way there.
func (w *syncWatch) check(when string, id record.StreamID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checks++
	for name := range w.dirty {
		if name == "." || strings.HasPrefix(name, id.String()) {
			w.t.Errorf("%s: %s is not synced", when, name)
		}
	}
}

func (w *syncWatch) log(l export.Log) export.Log { return &watchedLog{l, w} }

type watchedLog struct {
	export.Log
	w *syncWatch
}

func (l *watchedLog) StoreCursor(ctx context.Context, id record.StreamID, name string, c stream.Cursor) error {
	l.w.check("cursor stored", id)
	return l.Log.StoreCursor(ctx, id, name, c)
}

// TestTheSpoolIsSyncedBeforeTheCursorNamesIt is the power cut that can be repeated: whatever a cursor is about to name
// must be on disk, contents and names.
func TestTheSpoolIsSyncedBeforeTheCursorNamesIt(t *testing.T) {
	w := &syncWatch{t: t, dirty: map[string]bool{}}
	d := newDoor(t, t.TempDir())
	s := mustStack(t, options{dir: t.TempDir(), store: blob.Store(d), config: quick(), spoolHook: w.hook, wrap: w})
	for i := range 3 {
		s.put(t, 100*i, 100*i+100)
		s.flush(t)
	}
	if w.checks < 9 {
		t.Errorf("%d checks", w.checks)
	}
}
