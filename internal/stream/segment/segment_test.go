package segment_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/leat-io/leat/internal/stream/streamtest"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name         string
		segmentBytes int64
	}{
		{"default segments", 0},
		{"small segments", 16 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			streamtest.Run(t, func(t testing.TB) streamtest.Harness { return newHarness(t, c.segmentBytes) })
		})
	}
}

func newHarness(t testing.TB, segmentBytes int64) streamtest.Harness {
	clk := clock.NewFake(streamtest.Now())
	disk := &cutDisk{path: t.TempDir(), synced: map[string]int64{}}
	return streamtest.Harness{
		Clock: clk,
		Soak:  testenv.Soak(t, 0) / 8, // of each of two configurations; the rest is for the other long tests
		Open: func(limits streamtest.Limits) (stream.Engine, error) {
			disk.revive()
			dir, err := vfs.OpenDir(disk.path, disk.hook)
			if err != nil {
				return nil, err
			}
			return segment.Open(segment.Options{
				Dir: dir, Clock: clk, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), SegmentBytes: segmentBytes,
				QueueBytes: int64(limits.QueueBytes), MaxBytes: limits.MaxBytes, MaintainInterval: 20 * time.Millisecond,
				SyncInterval: 5 * time.Millisecond,
			})
		},
		Crash: func(e stream.Engine, cut streamtest.Cut) {
			disk.kill()
			_ = e.Close() // the disk is gone for it
			if cut == streamtest.Power {
				disk.losePower(t)
			}
		},
	}
}

var errCut = errors.New("the machine is off")

// cutDisk is a directory that can stop taking operations at an instant, and that knows which bytes of each file an
// fdatasync has covered.
type cutDisk struct {
	path string

	mu     sync.Mutex // guards what follows
	dead   bool
	synced map[string]int64
}

func (d *cutDisk) hook(op vfs.Op) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return errCut
	}
	switch op.Kind {
	case vfs.OpSync:
		if st, err := os.Stat(filepath.Join(d.path, op.Name)); err == nil {
			d.synced[op.Name] = st.Size()
		}
	case vfs.OpTruncate, vfs.OpRemove:
		delete(d.synced, op.Name)
	}
	return nil
}

func (d *cutDisk) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
}

func (d *cutDisk) revive() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = false
}

// losePower leaves of what was not synced a random part: nothing, some of it, or as many zeros or random bytes.
func (d *cutDisk) losePower(t testing.TB) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := filepath.WalkDir(d.path, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".seg") {
			return err
		}
		rel, err := filepath.Rel(d.path, path)
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		keep := min(d.synced[rel], st.Size())
		return spoil(path, keep, st.Size())
	})
	if err != nil {
		t.Fatal(err)
	}
}

func spoil(path string, keep, size int64) error {
	if keep == size {
		return nil
	}
	at := keep + rand.Int64N(size-keep+1)
	garbage := make([]byte, rand.Int64N(size-at+1))
	if rand.IntN(2) == 0 {
		for i := range garbage {
			garbage[i] = byte(rand.Uint32())
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(garbage, at)
	return errors.Join(err, f.Truncate(at+int64(len(garbage))), f.Close())
}
