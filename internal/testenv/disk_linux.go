package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ownMounts is set in the environment of a test binary that runs in a mount namespace of its own: to a directory for
// its images and mount points.
const ownMounts = "LEAT_TEST_OWN_MOUNTS"

// WithOwnMounts runs body in a mount namespace of its own, so that what it mounts ends with it: the test calls itself
// again in another process, which may take up to timeout. body gets an empty directory. It needs root and loop devices.
func WithOwnMounts(t *testing.T, timeout time.Duration, body func(t *testing.T, dir string)) {
	t.Helper()
	if dir := os.Getenv(ownMounts); dir != "" {
		body(t, dir)
		return
	}
	Root(t)
	unshare := Need(t, "unshare")
	for _, tool := range []string{"mkfs.ext4", "mount", "umount"} {
		Need(t, tool)
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		Missing(t, "loop devices: %v", err)
	}
	cmd := exec.Command(unshare, "-m", "--propagation", "private", os.Args[0],
		"-test.run=^"+t.Name()+"$", "-test.v", fmt.Sprintf("-test.timeout=%v", timeout))
	cmd.Env = append(os.Environ(), ownMounts+"="+t.TempDir())
	out, err := cmd.CombinedOutput()
	t.Logf("%s", strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatalf("in the mount namespace: %v", err)
	}
}

// Disk is an ext4 file system on a loop device, whose power can be cut.
type Disk struct {
	Path  string // where it is mounted
	image string
	t     *testing.T
}

// NewDisk makes a disk of size bytes in dir and mounts it until the test ends. Call it inside WithOwnMounts.
func NewDisk(t *testing.T, dir string, size int64) *Disk {
	t.Helper()
	d := &Disk{t: t, image: filepath.Join(dir, "disk.img"), Path: filepath.Join(dir, "mnt")}
	if err := errors.Join(os.MkdirAll(d.Path, 0o700), os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, size)); err != nil {
		t.Fatal(err)
	}
	d.run("mkfs.ext4", "-q", "-F", d.image)
	d.run("mount", "-o", "loop", d.image, d.Path)
	t.Cleanup(d.unmount)
	return d
}

// CutPower ends the file system at once, without writing its journal: what no fsync covered is gone, and every access
// fails until Remount. An fdatasync that is under way meanwhile may return success for what then is not there (measured
// with a bare write and fdatasync loop: 8 of 150 times; never for one that had returned before), so what is told after
// the cut must not count.
func (d *Disk) CutPower() {
	d.t.Helper()
	f, err := os.Open(d.Path)
	if err != nil {
		d.t.Errorf("open %s: %v", d.Path, err)
		return
	}
	defer f.Close()
	const shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN
	how := uint32(2)            // EXT4_GOING_FLAGS_NOLOGFLUSH
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		d.t.Errorf("shut down %s: %v", d.Path, errno)
	}
}

// Remount brings the disk back as a machine finds it when the power returns. Nothing may have files on it open.
func (d *Disk) Remount() {
	d.t.Helper()
	d.unmount()
	d.run("mount", "-o", "loop", d.image, d.Path)
}

// unmount waits while the kernel still holds files of a process that has just ended.
func (d *Disk) unmount() {
	d.t.Helper()
	var out []byte
	Wait(d.t, 20*time.Second, func() bool {
		var err error
		out, err = exec.Command(Need(d.t, "umount"), d.Path).CombinedOutput()
		return err == nil
	}, "unmount "+d.Path)
	if len(out) > 0 {
		d.t.Logf("umount: %s", out)
	}
}

func (d *Disk) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(Need(d.t, name), args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
