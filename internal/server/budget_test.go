package server

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

func TestBudgetLeavesRoomOnTheDisk(t *testing.T) {
	const gib = 1 << 30
	for name, c := range map[string]struct {
		cfg            config.Disk
		space          vfs.Space
		used           int64
		total, minFree int64
	}{
		"a tenth of a large disk":     {config.Disk{}, vfs.Space{Total: 500 * gib, Free: 300 * gib}, 0, 250 * gib, 50 * gib},
		"1 GiB of a small disk":       {config.Disk{}, vfs.Space{Total: 8 * gib, Free: 5 * gib}, 0, 4 * gib, gib},
		"what is there counts":        {config.Disk{}, vfs.Space{Total: 8 * gib, Free: 5 * gib}, 2 * gib, 6 * gib, gib},
		"free room as asked for":      {config.Disk{MinFree: 2 * gib}, vfs.Space{Total: 100 * gib, Free: 50 * gib}, 0, 48 * gib, 2 * gib},
		"a budget as asked for":       {config.Disk{Budget: gib}, vfs.Space{Total: 100 * gib, Free: 50 * gib}, 0, gib, 64 << 20},
		"both":                        {config.Disk{Budget: gib, MinFree: 3 * gib}, vfs.Space{Total: 100 * gib, Free: 50 * gib}, 0, gib, 3 * gib},
		"a full disk has nothing":     {config.Disk{}, vfs.Space{Total: 8 * gib, Free: gib / 2}, 0, -gib / 2, gib},
		"a full disk, much of it own": {config.Disk{}, vfs.Space{Total: 8 * gib, Free: 0}, 5 * gib, 4 * gib, gib},
	} {
		t.Run(name, func(t *testing.T) {
			b := divide(c.cfg, c.space, c.used)
			if b.Total != c.total || b.MinFree != c.minFree {
				t.Errorf("total %d, free %d; want %d, %d", b.Total, b.MinFree, c.total, c.minFree)
			}
			if sum := b.Log + b.Spool + b.Cache; c.total > 0 && sum > b.Total {
				t.Errorf("the parts are %d of %d", sum, b.Total)
			}
		})
	}
}

func TestAFullDiskStopsTheFirstStartOnly(t *testing.T) {
	full := config.Disk{MinFree: 1 << 60}
	open := func(path string) (budget, error) {
		dir, err := vfs.OpenDir(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		return newBudget(full, dir)
	}
	path := t.TempDir()
	if _, err := open(path); record.KindOf(err) != record.Full || record.HintOf(err) == "" {
		t.Errorf("first start: %v, want full", err)
	}
	if err := os.MkdirAll(filepath.Join(path, "log"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "log", "segment"), []byte("x"), 0o640); err != nil {
		t.Fatal(err)
	}
	if b, err := open(path); err != nil || b.Total != leastTotal || b.Log == 0 {
		t.Errorf("later start: %+v, %v; want it to run, with the least budget", b, err)
	}
}

func TestTheLogCountsAsFullForAWhileAfterARefusal(t *testing.T) {
	var r rejections
	now := time.Unix(1_790_000_000, 0)
	for _, step := range []struct {
		count int64
		after time.Duration
		want  bool
	}{{0, 0, false}, {3, time.Second, true}, {3, 30 * time.Second, true}, {3, time.Minute, false}, {4, time.Hour, true}} {
		now = now.Add(step.after)
		if got := r.recent(step.count, now); got != step.want {
			t.Errorf("%d refusals at %s: %v, want %v", step.count, now, got, step.want)
		}
	}
}
