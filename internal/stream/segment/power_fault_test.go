//go:build linux

package segment_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/testenv"
)

// TestPowerCut cuts the power of a machine that appends under load: ext4 on a loop device is shut down without flushing
// its journal, so that what no fdatasync covered is gone, then mounted again.
func TestPowerCut(t *testing.T) {
	testenv.WithOwnMounts(t, testenv.Soak(t, 0)+5*time.Minute, powerCuts)
}

func powerCuts(t *testing.T, dir string) {
	disk := testenv.NewDisk(t, dir, 256<<20)
	v := &victim{lab: newLab(t)}
	v.path = filepath.Join(disk.Path, "log")
	deadline := time.Now().Add(testenv.Soak(t, 0) / 4)
	cuts := 0
	for ; cuts < 8 || time.Now().Before(deadline); cuts++ {
		v.run(cuts, func(p *os.Process) {
			<-time.After(time.Duration(rand.IntN(120)) * time.Millisecond) // when the fault strikes
			v.deaf.Store(true)                                             // what is told after the cut does not count
			disk.CutPower()
			_ = p.Kill()
		})
		disk.Remount()
		v.verify(true)
	}
	t.Logf("%d power cuts: %d records acknowledged, %d seen by readers; missing or changed at level disk 0, seen by a reader 0; "+
		"%d lost at level os that nobody had seen", cuts, v.acked, v.seen, v.lost)
}
