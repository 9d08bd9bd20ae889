package vfs_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/vfs"
)

func open(t *testing.T, hook vfs.Hook) *vfs.Dir {
	t.Helper()
	d, err := vfs.OpenDir(filepath.Join(t.TempDir(), "made", "on", "the", "way"), hook)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestNamesDoNotLeadOut(t *testing.T) {
	d := open(t, nil)
	if err := os.Symlink("/etc", filepath.Join(d.Path(), "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../x", "/etc/passwd", "link/passwd", "a/../../x"} {
		if f, err := d.OpenFile(name, os.O_RDWR|os.O_CREATE); err == nil {
			f.Close()
			t.Errorf("%s opened", name)
		}
	}
}

func TestWriteFileLeavesOldOrNewContent(t *testing.T) {
	broken := errors.New("broken")
	var failAt, n int
	d := open(t, func(op vfs.Op) error {
		if n++; n == failAt {
			return broken
		}
		return nil
	})
	if err := d.WriteFile("f", []byte("old")); err != nil {
		t.Fatal(err)
	}
	steps := n
	for failAt = 1; failAt <= steps; failAt++ {
		n = 0
		err := d.WriteFile("f", []byte("new"))
		n = 1 << 20
		got, rerr := os.ReadFile(filepath.Join(d.Path(), "f"))
		if !errors.Is(err, broken) || rerr != nil || string(got) != "old" && string(got) != "new" {
			t.Errorf("operation %d of %d fails: %v; content %q, %v", failAt, steps, err, got, rerr)
		}
		if entries, err := d.ReadDir("."); err != nil || len(entries) != 1 {
			t.Errorf("operation %d of %d fails: left behind %v, %v", failAt, steps, entries, err)
		}
	}
}

func TestHooksSeeEveryOperationWithItsPath(t *testing.T) {
	var seen []string
	d := open(t, func(op vfs.Op) error {
		seen = append(seen, string(op.Kind)+" "+op.Name)
		return nil
	})
	sub, err := d.Sub("a")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	f, err := sub.Create("x")
	if err != nil {
		t.Fatal(err)
	}
	_, werr := f.WriteAt([]byte("12345"), 0)
	_, rerr := f.ReadAt(make([]byte, 2), 1)
	if err := errors.Join(werr, rerr, f.SyncData(), f.Truncate(3), f.Close(), sub.Rename("x", "y"), sub.Link("y", "z"),
		sub.SyncDir("."), sub.Remove("z")); err != nil {
		t.Fatal(err)
	}
	want := "mkdir a, syncdir ., open a/x, write a/x, read a/x, sync a/x, truncate a/x, rename a/x, link a/y, syncdir a/., remove a/z"
	if got := strings.Join(seen, ", "); got != want {
		t.Errorf("saw  %s\nwant %s", got, want)
	}
}

func TestShortWriteLetsSomeBytesThrough(t *testing.T) {
	d := open(t, func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite {
			return &vfs.ShortWrite{N: 3, Err: fs.ErrClosed}
		}
		return nil
	})
	f, err := d.Create("f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := f.WriteAt([]byte("12345"), 0)
	if size, serr := f.Size(); n != 3 || !errors.Is(err, fs.ErrClosed) || size != 3 || serr != nil {
		t.Errorf("wrote %d, %v; size %d, %v", n, err, size, serr)
	}
}

func TestLockKeepsASecondOut(t *testing.T) {
	d := open(t, nil)
	first, err := d.Lock("lock")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Lock("lock"); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := d.Lock("lock")
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	again.Close()
}
