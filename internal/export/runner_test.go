package export_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leat-io/leat/internal/export"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

var perMinute = export.Spec{Period: time.Minute, Revision: 1}

// after waits fake time, then until all goroutines rest.
func after(d time.Duration) {
	time.Sleep(d) // fake: synctest
	synctest.Wait()
}

func TestStepsAreCutOnTheGridAndEmptyPeriodsWriteNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{UntilExported: true})
		after(20 * time.Second) // 00:00:20, not on the grid
		p := w.start(export.Config{}, perMinute, 0)
		w.append("a", "b")
		after(39 * time.Second)
		if n := len(w.objects()); n != 0 {
			t.Fatalf("%d objects before the period is over", n)
		}
		after(time.Second)
		w.append("c")
		after(time.Second)
		if got := w.inStore(); !slices.Equal(got, []string{"a", "b"}) {
			t.Fatalf("after the first period: %v", got)
		}
		after(10 * time.Minute) // nine of them empty
		p.stop()
		want := map[string]string{"0-2": "00:01:00", "2-3": "00:02:00"}
		got := map[string]string{}
		for k, at := range w.cuts {
			got[k] = at.Format("15:04:05")
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if b, err := w.engine.Bounds(w.id); err != nil || b.First != 3 {
			t.Errorf("the log keeps what is exported: %+v, %v", b, err)
		}
		if len(w.spool) != 0 {
			t.Errorf("left in the spool: %v", w.spool)
		}
	})
}

func TestAStoreThatIsDownIsAskedWithBackoffAndThenDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{UntilExported: true})
		p := w.start(export.Config{TargetBytes: 100}, perMinute, 0)
		w.setStore(record.Errorf(record.Unavailable, "connection refused"))
		var want []string
		for i := range 120 { // two hours, a record of 11 bytes each minute
			payload := fmt.Sprintf("record%04d", i)
			want = append(want, payload)
			w.append(payload)
			after(time.Minute)
		}
		st := p.runner.Status()
		if !st.Degraded || st.NeedsHuman || st.LastError != "connection refused" || st.Retries < 10 || st.NextRetry.IsZero() {
			t.Errorf("status: %+v", st)
		}
		if st.BacklogRecords != 120 || st.Lag < 119*time.Minute || st.Lag > 2*time.Hour {
			t.Errorf("backlog %d, lag %v", st.BacklogRecords, st.Lag)
		}
		if n := len(w.spool); n < 8 || n > 14 { // one step at once, then one for each 100 bytes
			t.Errorf("%d steps wait", n)
		}
		pauses := gaps(w.puts)
		if last := pauses[len(pauses)-1]; last < 150*time.Second || last > 5*time.Minute {
			t.Errorf("pauses %v: the last is not near 5 minutes", pauses)
		}
		if pauses[0] > time.Second {
			t.Errorf("the first pause is %v", pauses[0])
		}
		w.setStore(nil)
		after(5 * time.Minute)
		if got := w.inStore(); !slices.Equal(got, want) {
			t.Errorf("%d records in the store, want %d in order, each once: %v", len(got), len(want), got)
		}
		if st := p.runner.Status(); st.Degraded || st.Pending != 0 || st.Lag != 0 || st.LastError != "" {
			t.Errorf("status afterwards: %+v", st)
		}
		p.stop()
	})
}

func gaps(at []time.Time) []time.Duration {
	var ds []time.Duration
	for i := 1; i < len(at); i++ {
		ds = append(ds, at[i].Sub(at[i-1]))
	}
	return ds
}

func TestWhatAPersonMustMendShowsAsDegradedAtOnce(t *testing.T) {
	for _, kind := range []record.Kind{record.Denied, record.NotFound, record.Conflict} {
		t.Run(kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, stream.Policy{})
				w.setStore(record.Errorf(kind, "no").WithHint("do something"))
				p := w.start(export.Config{}, perMinute, 0)
				w.append("a")
				after(time.Minute)
				st := p.runner.Status()
				if !st.NeedsHuman || !st.Degraded || st.Hint != "do something" {
					t.Errorf("status: %+v", st)
				}
				w.setStore(nil)
				after(5 * time.Minute)
				if got := w.inStore(); !slices.Equal(got, []string{"a"}) {
					t.Errorf("not retried: %v", got)
				}
				p.stop()
			})
		})
	}
}

func TestFlushReturnsWhenEverythingIsCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{})
		p := w.start(export.Config{}, export.Spec{Period: time.Hour}, 0)
		w.append("a", "b", "c")
		if err := p.sup.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := w.inStore(); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("after flush: %v", got)
		}
		if err := p.sup.Flush(t.Context()); err != nil || len(w.objects()) != 1 {
			t.Errorf("a flush of nothing: %v, %v", err, w.objects())
		}
		w.setStore(record.Errorf(record.Unavailable, "down"))
		w.append("d")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.sup.Flush(ctx); record.KindOf(err) != record.Unavailable || time.Until(deadline(ctx)) > 0 {
			t.Errorf("flush while the store is down: %v", err)
		}
		p.stop()
	})
}

func deadline(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}

func TestAFlushEndsWithTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{})
		w.setStore(record.Errorf(record.Unavailable, "down"))
		p := w.start(export.Config{}, perMinute, 0)
		w.append("a")
		done := make(chan error, 1)
		go func() { done <- p.runner.Flush(t.Context()) }()
		after(time.Second)
		p.stop()
		if err := <-done; record.KindOf(err) != record.Unavailable {
			t.Errorf("flush of a stopped export: %v", err)
		}
	})
}

func TestGapsAreCountedAndDoNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{})
		p := w.start(export.Config{}, perMinute, 0)
		w.append("a")
		after(time.Minute)
		w.append("b", "c", "d", "e")
		if _, err := w.engine.Commit(t.Context(), stream.Change{Truncate: &stream.Truncate{ID: w.id, Before: 3}}); err != nil {
			t.Fatal(err)
		}
		after(time.Minute)
		if got := w.inStore(); !slices.Equal(got, []string{"a", "d", "e"}) {
			t.Errorf("in the store: %v", got)
		}
		if st := p.sup.Stats(); st.DroppedRecords != 2 || st.Records != 5 || st.Rows != 3 {
			t.Errorf("stats: %+v", st)
		}
		want := []stream.Gap{{From: 1, To: 3, Reason: stream.Dropped}}
		if d := cmp.Diff(want, w.notes[1].Gaps); d != "" {
			t.Error(d)
		}
		p.stop()
	})
}

func TestAPeriodOfNothingButGapsDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{})
		p := w.start(export.Config{}, perMinute, 0)
		w.append("a", "b")
		if _, err := w.engine.Commit(t.Context(), stream.Change{Truncate: &stream.Truncate{ID: w.id, Before: 2}}); err != nil {
			t.Fatal(err)
		}
		after(time.Minute)
		w.append("c")
		after(time.Minute)
		if got := w.inStore(); !slices.Equal(got, []string{"c"}) {
			t.Errorf("in the store: %v", got)
		}
		if st := p.sup.Stats(); st.DroppedRecords != 2 {
			t.Errorf("stats: %+v", st)
		}
		p.stop()
	})
}

func TestABacklogLargerThanAStepIsCutInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{})
		var want []string
		for i := range 40 {
			batch := strings.Repeat(fmt.Sprintf("%02d", i), 50<<10) // 100 KiB: several reads
			want = append(want, batch)
			w.append(batch)
		}
		p := w.start(export.Config{MaxStepBytes: 1 << 20}, export.Spec{Period: time.Hour}, 0)
		after(time.Minute)
		if n := len(w.objects()); n < 2 || n > 4 {
			t.Errorf("%d steps", n)
		}
		after(time.Hour)
		if got := w.inStore(); !slices.Equal(got, want) {
			t.Errorf("%d records of %d, or not in order", len(got), len(want))
		}
		p.stop()
	})
}

func TestCutsWaitForAClockThatCanBeBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{})
		w.clock.untrusted, w.clock.shift = true, -30*365*24*time.Hour
		p := w.start(export.Config{}, perMinute, 0)
		w.append("early")
		after(5 * time.Minute)
		if n := len(w.objects()); n != 0 {
			t.Fatalf("%d objects while the clock is not set", n)
		}
		if st := p.runner.Status(); !strings.Contains(st.Waiting, "clock") || !st.Degraded {
			t.Errorf("status: %+v", st)
		}
		w.clock.mu.Lock()
		w.clock.shift = 0
		w.clock.mu.Unlock()
		w.clock.trust()
		w.append("late")
		after(2 * time.Minute)
		// The early record came at 00:00:00 by the clock that is now believed.
		if got := w.inStore(); !slices.Equal(got, []string{"early@00:00:00", "late"}) {
			t.Errorf("in the store: %v", got)
		}
		if n := w.notes[0]; n.Restamped != 1 || n.Unknown != 0 || n.Untrusted {
			t.Errorf("notes: %+v", n)
		}
		p.stop()
	})
}

func TestCutsDoNotWaitForAClockForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{})
		w.clock.untrusted = true
		p := w.start(export.Config{}, perMinute, 0)
		w.append("a")
		after(11 * time.Minute)
		if got := w.inStore(); !slices.Equal(got, []string{"a@00:00:00"}) {
			t.Errorf("in the store: %v", got)
		}
		if n := w.notes[0]; !n.Untrusted || n.Unknown != 1 {
			t.Errorf("notes: %+v", n)
		}
		p.stop()
	})
}

func TestARecordOfAnEarlierBootIsRestampedFromWhatTheLogTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{})
		w.clock.untrusted, w.clock.shift = true, -time.Hour
		w.append("boot 1, before the clock was set")
		after(10 * time.Second)
		w.clock.shift = 0
		w.clock.trust()
		w.append("boot 1, after")
		after(10 * time.Second)
		w.clock.boot, w.clock.untrusted = 1, true
		w.append("boot 2, never set")
		w.clock.boot, w.clock.untrusted = 2, false
		p := w.start(export.Config{}, perMinute, 0)
		after(time.Minute)
		want := []string{"boot 1, before the clock was set@00:00:00", "boot 1, after", "boot 2, never set@00:00:20"}
		if d := cmp.Diff(want, w.inStore()); d != "" {
			t.Error(d)
		}
		if n := w.notes[0]; n.Restamped != 1 || n.Unknown != 1 {
			t.Errorf("notes: %+v", n)
		}
		p.stop()
	})
}

func TestABootWhoseClockWasSetAfterTheStepIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{})
		w.append("first")
		p := w.start(export.Config{}, perMinute, 0)
		after(time.Minute) // plans a step in boot 1 with a trusted clock
		p.stop()
		w.clock.mu.Lock()
		w.clock.untrusted, w.clock.shift = true, -time.Hour // still boot 1
		w.clock.mu.Unlock()
		w.append("second")
		w.clock.boot, w.clock.untrusted, w.clock.shift = 1, false, 0
		p = w.start(export.Config{}, perMinute, 0)
		after(time.Minute)
		if got := w.inStore(); !slices.Equal(got, []string{"first", "second@00:01:00"}) {
			t.Errorf("in the store: %v", got)
		}
		p.stop()
	})
}

func TestARestartCutsAPeriodThatEndedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{})
		p := w.start(export.Config{}, perMinute, 0)
		w.append("a")
		after(time.Minute)
		w.append("b")
		after(30 * time.Second)
		p.stop()
		after(time.Hour)
		p = w.start(export.Config{}, perMinute, 0)
		after(time.Second) // 01:01:31: no instant of the grid since the start
		if got := w.inStore(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("in the store: %v", got)
		}
		p.stop()
	})
}

func TestAnExportThatIsNewDoesNotReportWhatTheStreamDroppedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{})
		w.append("a", "b", "c")
		if _, err := w.engine.Commit(t.Context(), stream.Change{Truncate: &stream.Truncate{ID: w.id, Before: 2}}); err != nil {
			t.Fatal(err)
		}
		p := w.start(export.Config{}, perMinute, 0)
		after(time.Minute)
		if st := p.sup.Stats(); st.DroppedRecords != 0 || st.Rows != 1 {
			t.Errorf("stats: %+v", st)
		}
		p.stop()
	})
}

func TestADeletedStreamEndsItsExportOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{})
		p := w.start(export.Config{}, perMinute, 0)
		w.append("a")
		if _, err := w.engine.Commit(t.Context(), stream.Change{Delete: &stream.Delete{ID: w.id}}); err != nil {
			t.Fatal(err)
		}
		after(time.Minute)
		select {
		case err := <-p.ended:
			t.Errorf("the supervisor ended: %v", err)
		default:
		}
		p.stop()
	})
}

func TestAStateOfANewerVersionStopsTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{})
		w.append("a")
		err := w.engine.StoreCursor(t.Context(), w.id, export.CursorName, stream.Cursor{State: []byte{9}})
		if err != nil {
			t.Fatal(err)
		}
		p := w.start(export.Config{}, perMinute, 0)
		if err := <-p.ended; record.KindOf(err) != record.Invalid || record.HintOf(err) == "" {
			t.Errorf("run: %v", err)
		}
		p.cancel()
	})
}

func TestAStateThatDoesNotReadStopsThatExportOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{UntilExported: true})
		w.append("a")
		err := w.engine.StoreCursor(t.Context(), w.id, export.CursorName, stream.Cursor{State: []byte{1, 2}})
		if err != nil {
			t.Fatal(err)
		}
		p := w.start(export.Config{}, perMinute, 0)
		after(time.Minute)
		if st := p.runner.Status(); !st.Degraded || !st.NeedsHuman || st.Hint == "" {
			t.Errorf("status: %+v", st)
		}
		if err := p.sup.Flush(t.Context()); record.KindOf(err) != record.Corrupt {
			t.Errorf("flush: %v", err)
		}
		if b, err := w.engine.Bounds(w.id); err != nil || b.First != 0 {
			t.Errorf("the stream does not keep its records: %+v, %v", b, err)
		}
		p.stop()
	})
}

func TestAddRefusesWhatCannotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Policy{})
		p := w.start(export.Config{}, perMinute, 0)
		defer p.stop()
		sup := export.New(export.Config{}, p, w.clock, nil, discard)
		if _, err := sup.Add(export.Spec{Stream: 1}); record.KindOf(err) != record.Invalid {
			t.Errorf("without a period: %v", err)
		}
		if _, err := sup.Add(export.Spec{Stream: 1, Period: 1}); err != nil {
			t.Error(err)
		}
		if _, err := sup.Add(export.Spec{Stream: 1, Period: 1}); record.KindOf(err) != record.Conflict {
			t.Errorf("the same stream twice: %v", err)
		}
		if _, err := p.sup.Add(export.Spec{Stream: 2, Period: 1}); record.KindOf(err) != record.Conflict {
			t.Errorf("while it runs: %v", err)
		}
	})
}

// TestEveryRecordReachesTheStoreOnceWhereverTheProcessDies kills the process before and after every durable call, one
// after the other, and lets a second life finish the work.
func TestEveryRecordReachesTheStoreOnceWhereverTheProcessDies(t *testing.T) {
	for crashAt := 1; ; crashAt++ {
		died := false
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, stream.Policy{UntilExported: true})
			var want []string
			p := w.start(export.Config{TargetBytes: 1}, perMinute, crashAt)
			for i := range 4 {
				if i == 1 {
					w.setStore(record.Errorf(record.Unavailable, "down"))
				}
				if i == 3 {
					w.setStore(nil)
				}
				payload := fmt.Sprintf("%d", i)
				want = append(want, payload)
				w.append(payload)
				after(time.Minute)
				if p.isDead() {
					p.stop()
					died = true
					p = w.start(export.Config{TargetBytes: 1}, perMinute, 0)
				}
			}
			after(10 * time.Minute)
			died = died || p.isDead()
			p.stop()
			p = w.start(export.Config{}, perMinute, 0)
			after(10 * time.Minute)
			p.stop()
			if got := w.inStore(); !slices.Equal(got, want) {
				t.Errorf("crash point %d: in the store %v, want %v", crashAt, got, want)
			}
			if len(w.spool) != 0 {
				t.Errorf("crash point %d: left in the spool: %v", crashAt, w.spool)
			}
			for name := range w.store {
				if !w.known[name] || !w.stored[name] {
					t.Errorf("crash point %d: the catalog does not know %s", crashAt, name)
				}
			}
		})
		if t.Failed() {
			return
		}
		if !died {
			if crashAt < 50 {
				t.Errorf("only %d crash points", crashAt)
			}
			t.Logf("%d crash points", crashAt-1)
			return
		}
	}
}
