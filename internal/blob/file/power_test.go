//go:build linux

package file_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/leat-io/leat/internal/blob/blobtest"
	"github.com/leat-io/leat/internal/blob/file"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

// powerDir is set in the environment of the test binary when it runs in a mount namespace of its own.
const powerDir = "LEAT_TEST_POWER_DIR"

// TestPowerCut cuts the power of a machine that has just put objects: ext4 on a loop device is shut down without its journal,
// so that what no fsync covered is gone, and mounted again.
func TestPowerCut(t *testing.T) {
	if dir := os.Getenv(powerDir); dir != "" {
		powerCuts(t, dir)
		return
	}
	testenv.Root(t)
	unshare := testenv.Need(t, "unshare")
	testenv.Need(t, "mkfs.ext4")
	testenv.Need(t, "mount")
	testenv.Need(t, "umount")
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		testenv.Missing(t, "loop devices: %v", err)
	}
	cmd := exec.Command(unshare, "-m", "--propagation", "private", os.Args[0], "-test.run=^TestPowerCut$", "-test.v")
	cmd.Env = append(os.Environ(), powerDir+"="+t.TempDir())
	out, err := cmd.CombinedOutput()
	t.Logf("%s", bytes.TrimSpace(out))
	if err != nil {
		t.Fatalf("in the mount namespace: %v", err)
	}
}

func powerCuts(t *testing.T, dir string) {
	image, mnt := filepath.Join(dir, "disk.img"), filepath.Join(dir, "mnt")
	if err := errors.Join(os.Mkdir(mnt, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, 128<<20)); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-F", image)
	run(t, "mount", "-o", "loop", image, mnt)
	t.Cleanup(func() { run(t, "umount", mnt) })
	stored := map[string][]byte{}
	for cut := range 6 {
		dir, s := openAt(t, mnt)
		// Nothing else happens on the disk: a later fsync would make what came before durable by accident.
		for i := range cut%3 + 1 {
			key := fmt.Sprintf("table/cut=%d/%d", cut, i)
			stored[key] = blobtest.Bytes(uint64(cut), 10_000)
			blobtest.MustPut(t, s, key, stored[key])
		}
		shutDown(t, mnt)
		if err := s.Put(t.Context(), blobtest.Upload("lost", []byte("x"))); err == nil {
			t.Fatal("put without power")
		}
		if err := dir.Close(); err != nil {
			t.Fatal(err)
		}
		run(t, "umount", mnt)
		run(t, "mount", "-o", "loop", image, mnt)
		dir, s = openAt(t, mnt)
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

// shutDown ends the file system at mnt at once, without writing its journal: every later access fails.
func shutDown(t *testing.T, mnt string) {
	f, err := os.Open(mnt)
	if err != nil {
		t.Errorf("open %s: %v", mnt, err)
		return
	}
	defer f.Close()
	const shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN
	how := uint32(2)            // EXT4_GOING_FLAGS_NOLOGFLUSH
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		t.Errorf("shut down %s: %v", mnt, errno)
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(testenv.Need(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
