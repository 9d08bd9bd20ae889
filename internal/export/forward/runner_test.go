package forward

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// pass lets fake time pass, and what is due then happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestWhatFailedIsTriedAgainAndNothingElse(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		var f fakeTarget
		odd := true
		f.set(func(_ context.Context, b *Batch) error { // as Kinesis does: some records fail
			for _, i := range b.Pending() {
				if !odd || i%2 == 1 {
					b.Delivered(i)
				}
			}
			odd = false
			if b.left > 0 {
				return errDown
			}
			return nil
		})
		w.set(&f)
		w.put(0, 10)
		pass(time.Minute)
		wantEqual(t, "calls", f.seen(), []string{"0 1 2 3 4 5 6 7 8 9", "0 2 4 6 8"})
		if s := w.status(); s.Next != 10 || s.Messages != 10 || s.Bytes != 10 || s.Retries != 1 || s.InRow != 0 || s.LastError != "" {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhatIsDeliveredInFrontIsPassedAtOnceAndTheRestDoesNotWaitForMore(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		var f fakeTarget
		f.set(func(_ context.Context, b *Batch) error {
			for i := range 4 {
				b.Delivered(i)
			}
			return errDown
		})
		w.set(&f)
		w.put(0, 10)
		synctest.Wait()
		if s := w.status(); s.Next != 4 || s.Messages != 4 || s.InRow != 1 || s.LastError != errDown.Error() || s.Hint != errDown.Hint ||
			s.NextRetry.IsZero() || s.BacklogRecords != 6 {
			t.Errorf("%+v", s)
		}
		f.set(nil)
		pass(time.Minute)
		wantEqual(t, "calls", f.seen(), []string{"0 1 2 3 4 5 6 7 8 9", "4 5 6 7 8 9"})
	})
}

func TestATargetThatSettlesNothingAndSaysNothingIsAFailure(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		var f fakeTarget
		f.set(func(context.Context, *Batch) error { return nil })
		w.set(&f)
		w.put(0, 10)
		synctest.Wait()
		if s := w.status(); s.InRow != 1 || !strings.Contains(s.LastError, "10 of 10") {
			t.Errorf("%+v", s)
		}
	})
}

func TestRetriesBackOffToTheirLimitAndWakeCutsThemShort(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		var f fakeTarget
		f.set(down)
		w.set(&f)
		w.put(0, 10)
		pass(3 * time.Hour)
		times := f.times()
		if n := len(times); n < 36 || n > 90 {
			t.Fatalf("%d attempts in 3 hours", n)
		}
		for i := 1; i < len(times); i++ {
			if d := times[i].Sub(times[i-1]); d > 5*time.Minute || i > 12 && d < 150*time.Second {
				t.Errorf("pause %d of %v", i, d)
			}
		}
		if s := w.status(); !s.Degraded || s.InRow != len(times) || int(s.Retries) != len(times) || s.Lag < 3*time.Hour {
			t.Errorf("%+v", s)
		}
		f.set(nil)
		w.sup.Wake()
		synctest.Wait()
		wantEqual(t, "after Wake", f.got(), numbers(0, 10))
		if s := w.status(); s.Degraded || s.InRow != 0 || !s.NextRetry.IsZero() || s.Lag != 0 {
			t.Errorf("%+v", s)
		}
		if n := strings.Count(w.logged.String(), "export held up"); n < 3 || n > 12 {
			t.Errorf("%d log lines of %d failures", n, len(times))
		}
	})
}

func TestFailuresThatNeedAPersonDegradeAtOnce(t *testing.T) {
	for kind, want := range map[record.Kind]bool{
		record.Denied: true, record.NotFound: true, record.Invalid: true, record.Unavailable: false, record.Throttled: false, record.Internal: false,
	} {
		bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
			var f fakeTarget
			f.set(func(context.Context, *Batch) error { return record.Errorf(kind, "no") })
			w.set(&f)
			w.put(0, 10)
			synctest.Wait()
			if s := w.status(); s.Degraded != want {
				t.Errorf("%v: degraded %v", kind, s.Degraded)
			}
		})
	}
}

func TestAnOutageOfHoursLosesNothing(t *testing.T) {
	bubble(t, stream.Policy{UntilExported: true}, func(t *testing.T, w *world) {
		var f fakeTarget
		w.set(&f, func(s *Spec) { s.Interval = time.Minute })
		const n = 6000
		for i := range n {
			switch i {
			case 500:
				f.set(down)
			case 5500:
				f.set(nil)
			}
			w.put(i, i+1)
			time.Sleep(3 * time.Second)
		}
		pass(10 * time.Minute)
		wantEqual(t, "delivered", f.got(), numbers(0, n))
		if s := w.status(); s.Messages != n || s.Dropped != 0 || s.BacklogRecords != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestTheEndOfAnOutageWakesTheOthersOfTheKind(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		targets := map[string]*fakeTarget{"a": {}, "b": {}, "other": {}}
		for name, f := range targets {
			f.set(down)
			w.set(f, func(s *Spec) {
				s.Identifier = name
				if name == "other" {
					s.Kind = "other"
				}
			})
		}
		w.put(0, 10)
		pass(time.Hour)
		for _, f := range targets {
			f.set(nil)
		}
		synctest.Wait()
		for len(targets["a"].got())+len(targets["b"].got()) == 0 {
			pass(time.Second)
		}
		if a, b := len(targets["a"].got()), len(targets["b"].got()); a != 10 || b != 10 {
			t.Errorf("a has %d, b %d", a, b)
		}
	})
}

func TestSkippedMessagesAreCountedAndShown(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		var f fakeTarget
		f.set(func(ctx context.Context, b *Batch) error {
			b.Skip(3, "1.5 MiB are more than a record may have")
			b.Skip(7, "too large, too")
			return deliverAll(ctx, b)
		})
		w.set(&f)
		w.put(0, 10)
		synctest.Wait()
		s := w.status()
		if s.Next != 10 || s.Messages != 8 || s.Bytes != 8 || s.Skipped != 2 || s.InRow != 0 || s.Degraded ||
			!strings.Contains(s.LastError, "2 messages skipped") || !strings.Contains(s.LastError, "3: 1.5 MiB") || s.Hint == "" {
			t.Errorf("%+v", s)
		}
		f.set(nil)
		w.put(10, 20)
		pass(time.Minute)
		if s := w.status(); s.LastError == "" {
			t.Error("forgotten within a minute")
		}
		time.Sleep(time.Hour)
		w.put(20, 30)
		synctest.Wait()
		if s := w.status(); s.LastError != "" || s.Skipped != 2 {
			t.Errorf("after an hour: %+v", s)
		}
		if n := strings.Count(w.logged.String(), "messages skipped"); n != 1 {
			t.Errorf("%d log lines", n)
		}
	})
}

// dropTarget notes what it is told that the stream lost.
type dropTarget struct {
	fakeTarget
	drops []string
}

func (d *dropTarget) Drop(_ context.Context, streamName string, from, to record.Offset, why string) error {
	d.drops = append(d.drops, fmt.Sprintf("%s [%d,%d) %s", streamName, from, to, why))
	return record.Errorf(record.Unavailable, "no status stream")
}

func TestMessagesThatTheStreamOverwroteAreCountedAndTold(t *testing.T) {
	bubble(t, stream.Policy{OnFull: stream.DropOldest, MaxBytes: 30}, func(t *testing.T, w *world) {
		var f dropTarget
		f.set(down)
		w.set(&f, func(s *Spec) { s.BatchSize, s.MaxBatchBytes = 5, 1000 })
		w.put(10, 15)
		synctest.Wait() // the export pauses after a failure: it sees the loss afterwards, in one piece
		w.put(15, 50)   // 2 bytes each: 15 of 40 stay
		f.set(nil)
		pass(time.Minute)
		wantEqual(t, "delivered", f.got(), numbers(35, 50))
		s := w.status()
		if s.Dropped != 25 || s.Messages != 15 || s.Next != 40 || !strings.Contains(s.LastError, "25 messages from 0 on") || s.Hint == "" {
			t.Errorf("%+v", s)
		}
		if len(f.drops) != 1 || !strings.HasPrefix(f.drops[0], "test [0,25) ") {
			t.Errorf("told: %q", f.drops)
		}
		if n := strings.Count(w.logged.String(), "messages lost"); n != 1 {
			t.Errorf("%d log lines", n)
		}
	})
}

func TestAGapDoesNotResetTheBackOff(t *testing.T) {
	bubble(t, stream.Policy{OnFull: stream.DropOldest, MaxBytes: 40}, func(t *testing.T, w *world) {
		var f fakeTarget
		f.set(down)
		w.set(&f, func(s *Spec) { s.BatchSize = 1 })
		for i := range 3600 {
			w.put(i, i+1)
			time.Sleep(time.Second)
		}
		if n := len(f.times()); n > 40 {
			t.Errorf("%d attempts in an hour", n)
		}
		f.set(nil)
		pass(time.Hour)
		if s := w.status(); s.Messages+s.Dropped != 3600 || s.Messages < 10 || s.Dropped < 3000 {
			t.Errorf("%+v", s)
		}
	})
}

func TestStateOfATargetIsThereAgainWithTheSameMessage(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		var f fakeTarget
		f.set(func(ctx context.Context, b *Batch) error {
			b.Delivered(0)
			if err := b.Save(ctx, []byte("at part 2")); err != nil {
				return err
			}
			return errDown
		})
		w.set(&f, func(s *Spec) { s.BatchSize = 3 })
		w.put(0, 3)
		synctest.Wait()
		w.stop()
		w.start()
		f.set(nil)
		w.set(&f, func(s *Spec) { s.BatchSize = 2 })
		synctest.Wait()
		if c := f.calls[len(f.calls)-1]; c.state != "at part 2" || strings.Join(c.pending, " ") != "1 2" {
			t.Errorf("%+v", c)
		}
		w.put(3, 5)
		synctest.Wait()
		if c := f.calls[len(f.calls)-1]; c.state != "" {
			t.Errorf("state %q of a message that was settled", c.state)
		}
		wantEqual(t, "delivered", f.got(), numbers(0, 5))
	})
}

func TestPriorityDecidesWhoComesNext(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		w.stop()
		w.cfg.Threads = 1
		w.start()
		var order []string // no lock: one thread
		for _, priority := range []int{10, 5, 1, 5} {
			name := fmt.Sprintf("%d-%d", priority, len(order))
			order = append(order, "")
			f := &fakeTarget{}
			f.set(func(ctx context.Context, b *Batch) error {
				time.Sleep(time.Second)
				order = append(order, name[:strings.Index(name, "-")])
				return deliverAll(ctx, b)
			})
			w.set(f, func(s *Spec) { s.Identifier, s.Priority, s.BatchSize = name, priority, 1 })
		}
		order = nil
		w.put(0, 3)
		pass(time.Minute)
		got := strings.Join(order[1:], " ") // who is first has come before the others
		if len(order) != 12 || !strings.Contains(got, "5 5") || strings.Index(got, "1") > 2 || !strings.HasSuffix(got, "10 10") {
			t.Errorf("order %v", order)
		}
	})
}

func TestNoMoreThanThreadsDeliverAtATime(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		var busy, most atomic.Int64
		for i := range 50 {
			f := &fakeTarget{}
			f.set(func(ctx context.Context, b *Batch) error {
				busy.Add(1)
				time.Sleep(time.Second)
				most.Store(max(most.Load(), busy.Load())) // all see the same: they end together
				busy.Add(-1)
				return deliverAll(ctx, b)
			})
			w.set(f, func(s *Spec) { s.Identifier = fmt.Sprint(i) })
		}
		w.put(0, 10)
		pass(9 * time.Second)
		if most.Load() != 5 {
			t.Errorf("%d at a time", most.Load())
		}
		lagging := 0
		for _, s := range w.sup.All() {
			if s.Lag >= 9*time.Second {
				lagging++
			}
		}
		if lagging != 5 {
			t.Errorf("%d exports show that they wait", lagging)
		}
		pass(time.Minute)
	})
}
