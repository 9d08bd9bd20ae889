//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/leat-io/leat/internal/sim"
	"github.com/leat-io/leat/internal/testenv"
)

// powerDir is set in the environment of the test binary when it runs in a mount namespace of its own.
const powerDir = "LEAT_TEST_POWER_DIR"

// TestPowerCutOfTheWholeProgram cuts the power of a machine on which the whole program takes in, exports and stores:
// ext4 on a loop device is shut down without flushing its journal, so that what no fdatasync covered is gone.
func TestPowerCutOfTheWholeProgram(t *testing.T) {
	if dir := os.Getenv(powerDir); dir != "" {
		for _, durability := range []string{"disk", "os"} {
			t.Run(durability, func(t *testing.T) { powerCuts(t, filepath.Join(dir, durability), durability) })
		}
		return
	}
	testenv.Root(t)
	unshare := testenv.Need(t, "unshare")
	for _, tool := range []string{"mkfs.ext4", "mount", "umount"} {
		testenv.Need(t, tool)
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		testenv.Missing(t, "loop devices: %v", err)
	}
	soak := testenv.Soak(t, 0)
	cmd := exec.Command(unshare, "-m", "--propagation", "private", os.Args[0],
		"-test.run=^TestPowerCutOfTheWholeProgram$", "-test.v", fmt.Sprintf("-test.timeout=%v", soak+5*time.Minute))
	cmd.Env = append(os.Environ(), powerDir+"="+t.TempDir())
	out, err := cmd.CombinedOutput()
	t.Logf("%s", strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatalf("in the mount namespace: %v", err)
	}
}

// powerCuts runs in a mount namespace of its own: what it mounts ends with it.
func powerCuts(t *testing.T, dir, durability string) {
	const rate, leastCuts, perCut = 10_000, 3, 60_000
	mnt := mountDisk(t, dir)
	n := newNode(t, mnt.path, "disk: {budget: 300MiB}\ningest:\n  rules: [{name: default, topics: ['#'], durability: "+durability+"}]\n")
	n.faults = true
	deadline := time.Now().Add(testenv.Soak(t, 0) / 8) // the soak's kills take the rest
	cuts := 0
	promised := sim.NewSet(0)
	for ; cuts < leastCuts || time.Now().Before(deadline); cuts++ {
		n.start()
		first := cuts * perCut
		acked := sim.NewSet(first + perCut)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = n.load(ctx, sim.LoadConfig{ // ends with an error: the broker goes away
				First: first, Messages: perCut, Rate: rate, Acked: acked, ClientID: fmt.Sprintf("cut%d", cuts),
			})
		}()
		<-time.After(time.Duration(200+rand.IntN(1800)) * time.Millisecond) // when the power goes
		// Only what was acknowledged before counts: an fdatasync that is under way while the file system is shut down may
		// return success for what then is not there.
		earlier := acked.Clone()
		if durability == "os" {
			// What was acknowledged is on the disk 100 ms later; a busy machine needs longer.
			<-time.After(1500 * time.Millisecond)
		}
		mnt.cutPower()
		n.kill()
		cancel()
		<-ended
		mnt.remount()
		promised = union(promised, earlier, first+perCut)
	}
	n.start()
	n.flush()
	n.stop(syscall.SIGTERM)
	all := readLake(t, filepath.Join(n.dir, "lake"), cuts*perCut)
	all.check(t, promised, nil)
	t.Logf("%s: %d power cuts, %d messages acknowledged before, 0 missing, 0 twice; %d files, no offset in two of them",
		durability, cuts, promised.Len(), all.files)
}

func union(a, b *sim.Set, limit int) *sim.Set {
	u := sim.NewSet(limit)
	for n := range limit {
		if a.Has(n) || b.Has(n) {
			u.Add(n)
		}
	}
	return u
}

// disk is an ext4 file system on a loop device.
type disk struct {
	t           *testing.T
	image, path string
}

func mountDisk(t *testing.T, dir string) *disk {
	t.Helper()
	d := &disk{t: t, image: filepath.Join(dir, "disk.img"), path: filepath.Join(dir, "mnt")}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, 512<<20); err != nil {
		t.Fatal(err)
	}
	d.run("mkfs.ext4", "-q", "-F", d.image)
	d.run("mount", "-o", "loop", d.image, d.path)
	t.Cleanup(func() { d.run("umount", d.path) })
	return d
}

// cutPower ends the file system at once, without writing its journal: every later access fails.
func (d *disk) cutPower() {
	d.t.Helper()
	f, err := os.Open(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	const shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN
	how := uint32(2)            // EXT4_GOING_FLAGS_NOLOGFLUSH
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		d.t.Fatalf("shut down %s: %v", d.path, errno)
	}
}

func (d *disk) remount() {
	d.t.Helper()
	d.run("umount", d.path)
	d.run("mount", "-o", "loop", d.image, d.path)
}

func (d *disk) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(testenv.Need(d.t, name), args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
