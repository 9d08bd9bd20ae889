package export

import (
	"testing"
	"time"
)

const minute = int64(time.Minute)

func TestGridIsFixedInUTC(t *testing.T) {
	at := func(s string) int64 {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v.UnixNano()
	}
	cases := []struct {
		wall   string
		period time.Duration
		floor  string
		until  time.Duration
	}{
		{"2026-11-21T12:34:56.5Z", time.Minute, "2026-11-21T12:34:00Z", 3500 * time.Millisecond},
		{"2026-11-21T12:34:00Z", time.Minute, "2026-11-21T12:34:00Z", time.Minute},
		{"2026-11-21T12:34:56Z", 15 * time.Minute, "2026-11-21T12:30:00Z", 10*time.Minute + 4*time.Second},
		{"2026-11-21T23:59:59Z", 24 * time.Hour, "2026-11-21T00:00:00Z", time.Second},
		{"2026-11-21T12:34:56.75Z", 10 * time.Second, "2026-11-21T12:34:50Z", 3250 * time.Millisecond},
		{"1969-12-31T23:59:30Z", time.Minute, "1969-12-31T23:59:00Z", 30 * time.Second},
	}
	for _, c := range cases {
		if got := gridFloor(at(c.wall), c.period); got != at(c.floor) {
			t.Errorf("floor of %s by %v: %v, want %s", c.wall, c.period, time.Unix(0, got).UTC(), c.floor)
		}
		if got := untilGrid(at(c.wall), c.period); got != c.until {
			t.Errorf("from %s to the grid of %v: %v, want %v", c.wall, c.period, got, c.until)
		}
	}
}

func TestDecide(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxSpoolBytes = 1 << 30
	now := 1000*minute + 30*int64(time.Second)
	// A backlog, and an instant of the grid has passed since the last cut.
	base := view{wall: now, mono: now, trusted: true, lastCut: 999 * minute, lastMono: now - 90*int64(time.Second), records: 10, bytes: 600}
	cases := []struct {
		name   string
		change func(v *view)
		cut    bool
		at     int64
	}{
		{"the period is over", func(*view) {}, true, 1000 * minute},
		{"an empty period writes no file", func(v *view) { v.records = 0 }, false, 0},
		{"the period is not over", func(v *view) { v.lastCut = 1000 * minute }, false, 0},
		{"on the instant itself", func(v *view) { v.wall = 1000 * minute }, true, 1000 * minute},
		{"after a long sleep one cut takes all", func(v *view) { v.lastCut = 100 * minute }, true, 1000 * minute},
		{"a flush does not wait for the period", func(v *view) { v.lastCut, v.flush = 1000*minute, true }, true, now},
		{"the largest step does not wait for the period", func(v *view) { v.lastCut, v.bytes = 1000*minute, 1<<30 }, true, now},
		{"the store is down, little backlog", func(v *view) { v.pending = 1 }, false, 0},
		{"the store is down, the target is reached", func(v *view) { v.pending, v.bytes = 1, 32<<20 }, true, 1000 * minute},
		{"many steps wait: the target grows", func(v *view) { v.pending, v.bytes = 64, 64<<20 }, false, 0},
		{"many steps wait: the larger target is reached", func(v *view) { v.pending, v.bytes = 64, 96<<20 }, true, 1000 * minute},
		{"the cursor is full", func(v *view) { v.pending, v.bytes, v.flush = maxPending, 1<<40, true }, false, 0},
		{"the spool is full", func(v *view) { v.spool = 1<<30 + 1 }, false, 0},
		{"the clock is not set", func(v *view) { v.trusted, v.waited = false, 9*time.Minute }, false, 0},
		{"the clock is not set and the wait over", func(v *view) { v.trusted, v.waited = false, 10*time.Minute }, true, 1000 * minute},
		{"the clock was set back an hour just now", func(v *view) { v.wall -= 60 * minute; v.lastMono = v.mono }, false, 0},
		{"the clock was set back an hour, a period ago", func(v *view) { v.wall -= 60 * minute; v.lastMono = v.mono - minute }, true, 940 * minute},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v := base
			c.change(&v)
			got := decide(v, cfg, time.Minute)
			if got.cut != c.cut || got.at != c.at {
				t.Errorf("got %+v, want cut %v at %d", got, c.cut, c.at)
			}
			if got.cut && got.trusted != v.trusted {
				t.Errorf("trusted %v, clock %v", got.trusted, v.trusted)
			}
		})
	}
}

func TestBackoffDoublesUpToItsLimitAndIsJittered(t *testing.T) {
	b := backoff{low: time.Second, high: 5 * time.Minute}
	interval := time.Second
	distinct := map[time.Duration]bool{}
	for i := range 20 {
		d := b.next()
		if d < interval/2 || d > interval {
			t.Errorf("pause %d: %v, want between %v and %v", i, d, interval/2, interval)
		}
		distinct[d] = true
		interval = min(2*interval, 5*time.Minute)
	}
	if len(distinct) < 10 {
		t.Errorf("%d different pauses of 20: not jittered", len(distinct))
	}
	b.reset()
	if d := b.next(); d > time.Second {
		t.Errorf("after a success: %v", d)
	}
}

func TestTheLongestOutageFitsIntoACursor(t *testing.T) {
	total := int64(0)
	for pending := range maxPending {
		total += target(DefaultConfig(), pending)
	}
	if total < 64<<30 {
		t.Errorf("%d steps hold %d GiB of log", maxPending, total>>30)
	}
}
