//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/sim"
	"github.com/leat-io/leat/internal/testenv"
)

// TestPowerCutOfTheWholeProgram cuts the power of a machine on which the whole program takes in, exports and stores.
func TestPowerCutOfTheWholeProgram(t *testing.T) {
	testenv.WithOwnMounts(t, testenv.Soak(t, 0)+5*time.Minute, func(t *testing.T, dir string) {
		for _, durability := range []string{"disk", "os"} {
			t.Run(durability, func(t *testing.T) { powerCuts(t, filepath.Join(dir, durability), durability) })
		}
	})
}

func powerCuts(t *testing.T, dir, durability string) {
	const rate, leastCuts, perCut = 10_000, 3, 60_000
	disk := testenv.NewDisk(t, dir, 512<<20)
	n := newNode(t, disk.Path, "disk: {budget: 300MiB}\ningest:\n  rules: [{name: default, topics: ['#'], durability: "+durability+"}]\n")
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
		disk.CutPower()
		n.kill()
		cancel()
		<-ended
		disk.Remount()
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
