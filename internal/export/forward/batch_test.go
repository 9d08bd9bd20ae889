package forward

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

func TestBatchGoesOutWhenItIsFullOrTheOldestHasWaited(t *testing.T) {
	type step struct {
		put   int // messages appended
		pause time.Duration
		sent  int // since the beginning, after the pause
	}
	size := func(s *Spec) { s.BatchSize, s.WaitFull = 10, true }
	both := func(s *Spec) { s.BatchSize, s.WaitFull, s.Interval = 10, true, time.Minute }
	interval := func(s *Spec) { s.BatchSize, s.WaitFull, s.Interval = 500, false, time.Minute }
	neither := func(s *Spec) { s.BatchSize, s.WaitFull = 500, false }
	for name, c := range map[string]struct {
		spec  func(*Spec)
		steps []step
	}{
		"size alone waits without limit":         {size, []step{{9, 1000 * time.Hour, 0}, {1, 0, 10}, {25, 0, 30}}},
		"both: full":                             {both, []step{{9, 30 * time.Second, 0}, {1, 0, 10}}},
		"both: the oldest has waited":            {both, []step{{1, 59 * time.Second, 0}, {5, time.Second, 6}}},
		"both: each oldest waits anew":           {both, []step{{1, time.Minute, 1}, {1, 59 * time.Second, 1}, {0, time.Second, 2}}},
		"interval alone":                         {interval, []step{{499, 59 * time.Second, 0}, {0, time.Second, 499}}},
		"neither waits for the linger":           {neither, []step{{3, time.Second, 0}, {3, time.Second, 6}}},
		"neither: full goes out at once":         {neither, []step{{501, 0, 500}, {0, 2 * time.Second, 501}}},
		"one at a time goes out at once":         {func(s *Spec) { s.BatchSize = 1 }, []step{{3, 0, 3}}},
		"a huge batch size without limit, empty": {func(s *Spec) { s.BatchSize = 1 << 40 }, []step{{0, time.Hour, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
				var f fakeTarget
				w.set(&f, c.spec)
				next := 0
				for i, s := range c.steps {
					w.put(next, next+s.put)
					next += s.put
					time.Sleep(s.pause)
					synctest.Wait()
					wantEqual(t, fmt.Sprintf("step %d", i), f.got(), numbers(0, s.sent))
				}
			})
		})
	}
}

func TestBatchSizeAloneSendsExactlyTen(t *testing.T) {
	bubble(t, stream.Policy{OnFull: stream.DropOldest}, func(t *testing.T, w *world) {
		var f fakeTarget
		w.set(&f)
		for i := range 105 {
			w.put(i, i+1)
			time.Sleep(time.Second)
		}
		wantEqual(t, "batches", f.seen(), batches(0, 100, 10))
	})
}

func TestBatchFullOfBytesGoesOut(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		var f fakeTarget
		w.set(&f, func(s *Spec) { s.MaxBatchBytes = 10 })
		w.append(w.id, "aaa", "bbb", "ccc")
		synctest.Wait()
		wantEqual(t, "below the limit", f.seen(), nil)
		w.append(w.id, "ddd") // 12 bytes: three fit, and what was together stays together
		synctest.Wait()
		wantEqual(t, "above the limit", f.seen(), []string{"aaa bbb ccc", "ddd"})
		w.append(w.id, "larger than a batch may be")
		synctest.Wait()
		wantEqual(t, "one is larger", f.seen()[2:], []string{"larger than a batch may be"})
	})
}

func TestStepsOfTheWallClockDoNotHangABatch(t *testing.T) {
	for _, step := range []time.Duration{-20 * 365 * 24 * time.Hour, 20 * 365 * 24 * time.Hour} {
		bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
			var f fakeTarget
			w.set(&f, func(s *Spec) { s.Interval = time.Minute })
			w.put(0, 1)
			synctest.Wait()
			w.clock.step(step)
			time.Sleep(59 * time.Second)
			synctest.Wait()
			wantEqual(t, "before", f.got(), nil)
			if lag := w.status().Lag; lag != 59*time.Second {
				t.Errorf("lag %v", lag)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			wantEqual(t, "after", f.got(), numbers(0, 1))
		})
	}
}

func TestBatchSettlesEachMessageOnce(t *testing.T) {
	b := NewBatch("s", make([]Message, 4), nil, nil)
	b.Delivered(1)
	b.Skip(1, "later")
	b.Skip(2, "")
	if got := b.Pending(); !slices.Equal(got, []int{0, 3}) || b.left != 2 || b.settled[1].reason != "" || b.settled[2].reason == "" {
		t.Errorf("pending %v, %+v", got, b)
	}
	if b.head() != 0 {
		t.Errorf("head %d", b.head())
	}
	b.Delivered(0)
	if b.head() != 3 {
		t.Errorf("head %d", b.head())
	}
	if err := b.Save(t.Context(), make([]byte, MaxTargetState+1)); record.KindOf(err) != record.Invalid {
		t.Errorf("too much state: %v", err)
	}
}

func TestStartIsWhereANewExportBegins(t *testing.T) {
	for name, c := range map[string]struct {
		before int           // messages in the stream when the export is made
		start  record.Offset // of the spec
		after  int           // appended then
		want   []string
	}{
		"at the beginning":   {5, 0, 10, numbers(0, 10)},
		"in the middle":      {5, 3, 10, numbers(3, 13)},
		"at the end":         {5, 5, 10, numbers(5, 15)},
		"beyond the end":     {5, 12, 20, numbers(12, 22)},
		"beyond what comes":  {5, 1000, 20, nil},
		"of an empty stream": {0, 4, 14, numbers(4, 14)},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, stream.Policy{UntilExported: true}, func(t *testing.T, w *world) {
				var f fakeTarget
				w.put(0, c.before)
				w.set(&f, func(s *Spec) { s.Start = c.start })
				for i := c.before; i < c.before+c.after; i++ {
					w.put(i, i+1)
					time.Sleep(time.Second)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				wantEqual(t, "delivered", f.got(), c.want)
				if s := w.status(); s.Dropped+s.Skipped > 0 || s.LastError != "" {
					t.Errorf("%+v", s)
				}
				if b, err := w.engine.Bounds(w.id); err != nil || b.First < min(c.start, b.Next) {
					t.Errorf("the stream keeps messages from %d on (%v)", b.First, err)
				}
			})
		})
	}
}
