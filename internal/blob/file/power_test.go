//go:build linux

package file_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/blob/blobtest"
	"github.com/leat-io/leat/internal/blob/file"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

// TestPowerCut cuts the power of a machine that has just put objects: ext4 on a loop device is shut down without its journal,
// so that what no fsync covered is gone, and mounted again.
func TestPowerCut(t *testing.T) { testenv.WithOwnMounts(t, 5*time.Minute, powerCuts) }

func powerCuts(t *testing.T, dir string) {
	disk := testenv.NewDisk(t, dir, 128<<20)
	stored := map[string][]byte{}
	for cut := range 6 {
		dir, s := openAt(t, disk.Path)
		// Nothing else happens on the disk: a later fsync would make what came before durable by accident.
		for i := range cut%3 + 1 {
			key := fmt.Sprintf("table/cut=%d/%d", cut, i)
			stored[key] = blobtest.Bytes(uint64(cut), 10_000)
			blobtest.MustPut(t, s, key, stored[key])
		}
		disk.CutPower()
		if err := s.Put(t.Context(), blobtest.Upload("lost", []byte("x"))); err == nil {
			t.Fatal("put without power")
		}
		if err := dir.Close(); err != nil {
			t.Fatal(err)
		}
		disk.Remount()
		dir, s = openAt(t, disk.Path)
		verify(t, s, stored)
		wantNoLeftovers(t, dir.Path())
		if err := errors.Join(s.Close(), dir.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func openAt(t *testing.T, mnt string) (*vfs.Dir, *file.Store) {
	t.Helper()
	dir, err := vfs.OpenDir(filepath.Join(mnt, "lake"), nil)
	if err != nil {
		t.Fatal(err)
	}
	// The store's own directory is its opener's to make durable.
	if f, err := os.Open(mnt); err != nil || errors.Join(f.Sync(), f.Close()) != nil {
		t.Fatal("sync the mount point")
	}
	s, err := file.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return dir, s
}

// verify fails the test unless the acknowledged objects are there, whole, and nothing else.
func verify(t *testing.T, s *file.Store, stored map[string][]byte) {
	t.Helper()
	keys := blobtest.Keys(t, s, "")
	if want := slices.Sorted(maps.Keys(stored)); !slices.Equal(keys, want) {
		t.Fatalf("after the power cut: %q\nacknowledged: %q", keys, want)
	}
	for _, key := range keys {
		if !bytes.Equal(blobtest.MustRead(t, s, key), stored[key]) {
			t.Errorf("%s is torn", key)
		}
	}
}
