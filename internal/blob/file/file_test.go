package file_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/blob/blobtest"
	"github.com/leat-io/leat/internal/blob/file"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

func open(t testing.TB, path string, hook vfs.Hook) *file.Store {
	t.Helper()
	dir, err := vfs.OpenDir(path, hook)
	if err != nil {
		t.Fatal(err)
	}
	s, err := file.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), s.Close(), dir.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store { return open(t, t.TempDir(), nil) },
		blobtest.Sizes{Large: 1 << 20, Many: 100})
}

// On file systems without hard links the suite holds too, but for two writers at one instant.
func TestWithoutHardLinks(t *testing.T) {
	hook := func(op vfs.Op) error {
		if op.Kind == vfs.OpLink {
			return syscall.EPERM
		}
		return nil
	}
	path := t.TempDir()
	s := open(t, path, hook)
	blobtest.MustPut(t, s, "a/b", []byte("1"))
	blobtest.MustPut(t, s, "a/b", []byte("1"))
	blobtest.WantKind(t, s.Put(t.Context(), blobtest.Upload("a/b", []byte("2"))), record.Conflict, "move")
	if got := blobtest.MustRead(t, s, "a/b"); string(got) != "1" {
		t.Fatalf("content %q", got)
	}
	wantNoLeftovers(t, path)
}

func wantNoLeftovers(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(path, blob.WorkDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if len(entries) != 0 {
		t.Errorf("left in %s: %v", blob.WorkDir, entries)
	}
}

// trace records the operations that decide about durability.
type trace struct {
	mu  sync.Mutex
	ops []string
}

func (r *trace) hook(op vfs.Op) error {
	switch op.Kind {
	case vfs.OpSync, vfs.OpSyncDir, vfs.OpLink, vfs.OpMkdir:
	default:
		return nil
	}
	name := op.Name
	if dir, _, ok := strings.Cut(name, "/"); ok && dir == blob.WorkDir {
		name = "tmp"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, string(op.Kind)+" "+name)
	return nil
}

func (r *trace) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ops := r.ops
	r.ops = nil
	return ops
}

func TestOrderOfDurability(t *testing.T) {
	var r trace
	path := t.TempDir()
	s := open(t, path, r.hook)
	blobtest.MustPut(t, s, "a/b/c", []byte("1"))
	want := []string{
		"mkdir " + blob.WorkDir, "sync tmp", "mkdir a", "syncdir .", "mkdir a/b", "syncdir a", "link tmp", "syncdir a/b",
	}
	if got := r.take(); !slices.Equal(got, want) {
		t.Errorf("first put: %q\nwant %q", got, want)
	}
	blobtest.MustPut(t, s, "a/b/d", []byte("1"))
	if got, want := r.take(), []string{"mkdir " + blob.WorkDir, "sync tmp", "link tmp", "syncdir a/b"}; !slices.Equal(got, want) {
		t.Errorf("second put: %q\nwant %q", got, want)
	}
	// Another process cannot know whether the first one lived to sync the directories.
	s = open(t, path, r.hook)
	blobtest.MustPut(t, s, "a/b/c", []byte("1"))
	want = []string{"mkdir a", "syncdir .", "mkdir a/b", "syncdir a", "syncdir a/b"}
	if got := r.take(); !slices.Equal(got, want) {
		t.Errorf("put of what exists, after a restart: %q\nwant %q", got, want)
	}
}

// Every operation fails once: Put says so, leaves nothing behind, and succeeds when tried again.
func TestEachOperationFails(t *testing.T) {
	for _, errno := range []error{syscall.EIO, syscall.ENOSPC} {
		for fail := 0; ; fail++ {
			path, n := t.TempDir(), 0
			hook := func(vfs.Op) error {
				if n++; n-1 == fail {
					return errno
				}
				return nil
			}
			dir, err := vfs.OpenDir(path, func(op vfs.Op) error { return hook(op) })
			if err != nil {
				t.Fatal(err)
			}
			s, err := file.Open(dir, slog.New(slog.DiscardHandler))
			if err == nil {
				err = s.Put(t.Context(), blobtest.Upload("a/b/c", []byte("content")))
			}
			if err != nil && (record.KindOf(err) != record.Unavailable || !errors.Is(err, errno)) {
				t.Fatalf("operation %d: %v", fail, err)
			}
			done := n <= fail
			hook = func(vfs.Op) error { return nil }
			if s, err = file.Open(dir, slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			blobtest.MustPut(t, s, "a/b/c", []byte("content"))
			wantNoLeftovers(t, path)
			if got := blobtest.Keys(t, s, ""); !slices.Equal(got, []string{"a/b/c"}) {
				t.Fatalf("operation %d: %q", fail, got)
			}
			if err := errors.Join(s.Close(), dir.Close()); err != nil {
				t.Fatal(err)
			}
			if done {
				break
			}
		}
	}
}

func TestLeftovers(t *testing.T) {
	path := t.TempDir()
	work := filepath.Join(path, blob.WorkDir)
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dead", "alive"} {
		if err := os.WriteFile(filepath.Join(work, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Another process that is writing: it holds the lock.
	other, err := vfs.OpenDir(work, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	lock, err := other.Lock("alive")
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, path, nil)
	if got := blobtest.Keys(t, s, ""); len(got) != 0 {
		t.Errorf("leftovers are listed: %q", got)
	}
	entries, err := os.ReadDir(work)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "alive" {
		t.Errorf("left: %v, want the file of the living process alone", entries)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path, nil)
	wantNoLeftovers(t, path)
}

func TestDeleteRemovesEmptyDirectories(t *testing.T) {
	path := t.TempDir()
	s := open(t, path, nil)
	blobtest.MustPut(t, s, "t/year=2026/day=01/x", []byte("1"))
	blobtest.MustPut(t, s, "t/year=2026/day=02/x", []byte("1"))
	if err := s.Delete(t.Context(), "t/year=2026/day=01/x"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, "t/year=2026/day=01")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("empty directory stays: %v", err)
	}
	if err := s.Delete(t.Context(), "t/year=2026/day=02/x"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, "t")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("empty directory stays: %v", err)
	}
}

// Puts go on while deletes take the directories away below them.
func TestPutWhileDirectoriesVanish(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			key := "a/b/" + string(rune('0'+g))
			for i := range 100 {
				content := blobtest.Bytes(uint64(i), 100)
				if err := s.Put(t.Context(), blobtest.Upload(key, content)); err != nil {
					t.Errorf("put: %v", err)
				}
				if err := s.Delete(t.Context(), key); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

func TestOutsideHelpAndHarm(t *testing.T) {
	path := t.TempDir()
	s := open(t, path, nil)
	blobtest.MustPut(t, s, "t/x", []byte("1"))
	if err := os.Symlink("/etc/passwd", filepath.Join(path, "t/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := blobtest.Keys(t, s, ""); !slices.Equal(got, []string{"t/x"}) {
		t.Errorf("listed: %q", got)
	}
	if body, _, err := s.Open(t.Context(), "t/link"); err == nil {
		body.Close()
		t.Error("a link led out of the store")
	}
	blobtest.WantKind(t, s.Put(t.Context(), blobtest.Upload("t/x/y", []byte("1"))), record.Conflict, "")
	blobtest.WantKind(t, s.Put(t.Context(), blobtest.Upload("t", []byte("1"))), record.Conflict, "")
	if err := os.RemoveAll(filepath.Join(path, "t")); err != nil {
		t.Fatal(err)
	}
	blobtest.MustPut(t, s, "t/x", []byte("2"))
	if got := blobtest.MustRead(t, s, "t/x"); !bytes.Equal(got, []byte("2")) {
		t.Errorf("content %q", got)
	}
}
