package forward

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-io/leat/internal/record"
)

func TestGateLetsTheHighestPriorityInThenTheLongestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2)
		for range 2 {
			if err := g.enter(t.Context(), 10); err != nil {
				t.Fatal(err)
			}
		}
		if g.try() {
			t.Fatal("a third slot")
		}
		var order []int // no lock: one has the slot at a time
		wait := func(ctx context.Context, name, priority int) {
			go func() {
				if g.enter(ctx, priority) == nil {
					order = append(order, name)
					g.leave()
				}
			}()
			synctest.Wait()
		}
		wait(t.Context(), 101, 10)
		wait(t.Context(), 51, 5)
		wait(t.Context(), 11, 1)
		impatient, cancel := context.WithCancel(t.Context())
		wait(impatient, 12, 1)
		wait(t.Context(), 52, 5)
		cancel()
		synctest.Wait()
		g.leave()
		synctest.Wait()
		if want := []int{11, 51, 52, 101}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
		g.leave()
		if g.free != 2 {
			t.Errorf("%d of 2 slots free", g.free)
		}
	})
}

func TestLimiterKeepsTheAverage(t *testing.T) {
	for _, kbps := range []int64{8, 512, 100_000} {
		synctest.Test(t, func(t *testing.T) {
			l := NewLimiter(kbps)
			start, sent := time.Now(), 0
			const chunk = 1 << 20
			for time.Since(start) < 10*time.Minute {
				if err := l.Wait(t.Context(), chunk); err != nil {
					t.Fatal(err)
				}
				sent += chunk
			}
			got, want := float64(sent)*8/1000/time.Since(start).Seconds(), float64(kbps)
			if got < 0.98*want || got > 1.04*want {
				t.Errorf("%.1f kbit/s instead of %.1f", got, want)
			}
		})
	}
}

func TestLimiterTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(800) // 100 kB/s
		large := make(chan time.Time, 1)
		go func() {
			if l.Wait(t.Context(), 10<<20) == nil {
				large <- time.Now()
			}
		}()
		synctest.Wait()
		start := time.Now()
		if err := l.Wait(t.Context(), 1000); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("a small request waited for %v behind a large one", d)
		}
		if d := (<-large).Sub(start); d < 100*time.Second {
			t.Errorf("10 MiB in %v", d)
		}
	})
}

func TestLimiterEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(8)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := l.Wait(ctx, 1<<20); record.KindOf(err) != record.Unavailable {
			t.Errorf("canceled: %v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Wait(ctx, 1<<20); record.KindOf(err) != record.Unavailable || record.HintOf(err) == "" {
			t.Errorf("timeout: %v (hint %q)", err, record.HintOf(err))
		}
		if NewLimiter(0) != nil || NewLimiter(0).Wait(t.Context(), 1<<30) != nil {
			t.Error("0 limits")
		}
	})
}
