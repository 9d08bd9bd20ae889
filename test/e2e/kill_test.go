//go:build linux

package e2e_test

import (
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/sim"
	"github.com/leat-io/leat/internal/testenv"
)

// TestKillWholeProgram kills the program again and again while clients publish and send again what was not
// acknowledged, and while files are cut. SOAK says for how long; without it, five kills.
func TestKillWholeProgram(t *testing.T) {
	const killsPerRound = 5
	deadline := time.Now().Add(testenv.Soak(t, 0) * 3 / 4) // the rest is for the power cuts
	kills, acked, twice := 0, int64(0), 0
	for round := 0; round == 0 || time.Now().Before(deadline); round++ {
		durability := []string{"disk", "os"}[round%2] // kill -9 takes nothing from the page cache
		a, d := killRound(t, killsPerRound, durability)
		kills, acked, twice = kills+killsPerRound, acked+a, twice+d
		if t.Failed() {
			t.Fatalf("in round %d, durability %s", round, durability)
		}
	}
	t.Logf("%d kills: %d messages acknowledged, 0 missing; %d there twice, each sent again by its client; others twice: 0",
		kills, acked, twice)
}

func killRound(t *testing.T, kills int, durability string) (acked int64, twice int) {
	t.Helper()
	const rate = 10_000
	n := newNode(t, t.TempDir(), "ingest:\n  rules: [{name: default, topics: ['#'], durability: "+durability+"}]\n").start()
	messages := kills * rate
	wait := background(func() (sim.LoadResult, error) {
		return n.load(t.Context(), sim.LoadConfig{
			Messages: messages, Rate: rate, Connections: 5, Window: 500, Reconnect: patience, Resend: true,
		})
	})
	for range kills {
		<-time.After(time.Duration(100+rand.IntN(1100)) * time.Millisecond) // when the fault strikes
		n.kill()
		n.start()
	}
	res := wait(t)
	if res.Acked.Len() != int64(messages) {
		t.Errorf("%d of %d acknowledged in the end", res.Acked.Len(), messages)
	}
	n.flush()
	n.stop(syscall.SIGTERM)
	all := readLake(t, filepath.Join(n.dir, "lake"), messages)
	return res.Acked.Len(), all.check(t, res.Acked, res.Again)
}

// TestStopUnderLoad stops the program in the middle of a load by each of the signals that mean it: it ends within a
// second or so, and nothing that it acknowledged is lost.
func TestStopUnderLoad(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			const messages = 60_000
			n := newNode(t, t.TempDir(), "").start()
			acked := sim.NewSet(messages)
			wait := background(func() (sim.LoadResult, error) {
				return n.load(t.Context(), sim.LoadConfig{
					Messages: messages, Rate: 20_000, Reconnect: patience, Resend: true, Acked: acked,
				})
			})
			testenv.Wait(t, patience, func() bool { return acked.Len() > messages/3 }, "a third of the load")
			took := n.stop(sig)
			if took > 2*time.Second {
				t.Errorf("stopped in %s, want at most a second (two on a busy machine)", took)
			}
			n.start()
			res := wait(t)
			n.flush()
			n.stop(sig)
			all := readLake(t, filepath.Join(n.dir, "lake"), messages)
			twice := all.check(t, acked, res.Again)
			t.Logf("stopped in %s under load; %d messages were sent again, %d of them had been taken", took, len(res.Again), twice)
		})
	}
}
