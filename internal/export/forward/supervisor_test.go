package forward

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/memory"
	"github.com/leat-io/leat/internal/testenv"
)

func TestSetHoldsTheDataAtOnce(t *testing.T) {
	bubble(t, stream.Policy{UntilExported: true}, func(t *testing.T, w *world) {
		w.put(0, 5)
		var f fakeTarget
		w.set(&f, func(s *Spec) { s.Disabled, s.Target = true, nil })
		c, err := w.engine.LoadCursor(w.id, CursorPrefix+"out")
		if err != nil || c.Offset != 0 {
			t.Fatalf("cursor %+v, %v", c, err)
		}
		w.put(5, 25)
		pass(time.Hour)
		if s := w.status(); !s.Disabled || s.BacklogRecords != 25 || len(f.got()) != 0 {
			t.Errorf("%+v", s)
		}
		w.set(&f)
		synctest.Wait()
		wantEqual(t, "enabled", f.got(), numbers(0, 20))
	})
}

func TestExportsSetBeforeRunRunAndKeepTheirPlaceOverRestarts(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		var f fakeTarget
		w.stop()
		w.set(&f) // on the supervisor that has stopped: the place is durable, nothing runs
		w.put(0, 15)
		synctest.Wait()
		wantEqual(t, "stopped", f.got(), nil)
		for range 3 {
			w.start()
			w.set(&f)
			synctest.Wait()
			w.stop()
		}
		w.put(15, 20)
		w.start()
		w.set(&f)
		synctest.Wait()
		wantEqual(t, "calls", f.seen(), batches(0, 20, 10))
		if s := w.status(); s.Messages != 20 || s.Bytes != 30 || s.LastDelivered.IsZero() || s.LastAttempt.IsZero() {
			t.Errorf("%+v", s)
		}
	})
}

func TestSetReplacesWhileDeliveringAndPausing(t *testing.T) {
	for name, answer := range map[string]func(context.Context, *Batch) error{
		"delivering": func(ctx context.Context, b *Batch) error {
			b.Delivered(0)
			<-ctx.Done()
			return ctx.Err()
		},
		"pausing": down,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
				var old, neu fakeTarget
				old.set(answer)
				w.set(&old)
				w.put(0, 10)
				synctest.Wait()
				w.set(&neu, func(s *Spec) { s.BatchSize = 2 })
				synctest.Wait()
				calls := len(old.seen())
				pass(time.Hour)
				if len(old.seen()) != calls {
					t.Error("the old one goes on")
				}
				all := append(old.got(), neu.got()...)
				wantEqual(t, "delivered", all[:8], numbers(0, 8))
			})
		})
	}
}

func TestSetThatFailsLeavesTheOldOneRunning(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		var f fakeTarget
		w.set(&f)
		c, err := w.engine.LoadCursor(w.id, CursorPrefix+"out")
		if err != nil {
			t.Fatal(err)
		}
		newer := stream.Cursor{State: []byte{progressVersion + 1}}
		if err := w.engine.StoreCursor(t.Context(), w.id, CursorPrefix+"out", newer); err != nil {
			t.Fatal(err)
		}
		if err := w.sup.Set(t.Context(), w.spec(&f)); record.KindOf(err) != record.Invalid || record.HintOf(err) == "" {
			t.Errorf("a newer state: %v", err)
		}
		if err := w.engine.StoreCursor(t.Context(), w.id, CursorPrefix+"out", c); err != nil {
			t.Fatal(err)
		}
		w.put(0, 10)
		synctest.Wait()
		wantEqual(t, "delivered", f.got(), numbers(0, 10))
	})
}

func TestSetRefusesWhatCannotBe(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		for name, change := range map[string]func(*Spec){
			"no log":            func(s *Spec) { s.Log = nil },
			"no identifier":     func(s *Spec) { s.Identifier = "" },
			"no batch size":     func(s *Spec) { s.BatchSize = 0 },
			"negative interval": func(s *Spec) { s.Interval = -1 },
			"priority 11":       func(s *Spec) { s.Priority = 11 },
			"priority -1":       func(s *Spec) { s.Priority = -1 },
			"no target":         func(s *Spec) { s.Target = nil },
		} {
			if err := w.sup.Set(t.Context(), w.spec(&fakeTarget{}, change)); record.KindOf(err) != record.Invalid {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := w.sup.Set(t.Context(), w.spec(&fakeTarget{}, func(s *Spec) { s.ID++ })); record.KindOf(err) != record.NotFound {
			t.Errorf("no stream: %v", err)
		}
		if n := len(w.sup.All()); n != 0 {
			t.Errorf("%d exports", n)
		}
	})
}

// cancelTarget notes what it is told of the end.
type cancelTarget struct {
	fakeTarget
	canceled []string
	slow     time.Duration
}

func (c *cancelTarget) Cancel(_ context.Context, streamName string, m Message, why string) error {
	time.Sleep(c.slow)
	c.canceled = append(c.canceled, fmt.Sprintf("%s/%s %s", streamName, m.Payload, why))
	return errDown // is logged, and does not keep the others from being told
}

func TestRemoveTellsOfEveryPendingMessageAndForgetsThePlace(t *testing.T) {
	for name, answer := range map[string]func(context.Context, *Batch) error{
		"delivering": func(ctx context.Context, b *Batch) error {
			b.Delivered(1)
			<-ctx.Done()
			return ctx.Err()
		},
		"pausing": func(_ context.Context, b *Batch) error {
			b.Delivered(1)
			return errDown
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, stream.Policy{UntilExported: true}, func(t *testing.T, w *world) {
				var f cancelTarget
				f.set(answer)
				w.set(&f, func(s *Spec) { s.BatchSize = 3 })
				w.put(0, 5)
				synctest.Wait()
				if err := w.sup.RemoveStream(t.Context(), w.id, "deleted"); err != nil {
					t.Fatal(err)
				}
				wantEqual(t, "told", f.canceled, []string{"test/0 deleted", "test/2 deleted", "test/3 deleted", "test/4 deleted"})
				if _, err := w.engine.LoadCursor(w.id, CursorPrefix+"out"); record.KindOf(err) != record.NotFound {
					t.Errorf("cursor: %v", err)
				}
				if len(w.sup.Status(w.id)) != 0 {
					t.Error("still listed")
				}
				if err := w.sup.Remove(t.Context(), w.id, "out", "again"); err != nil {
					t.Errorf("again: %v", err)
				}
			})
		})
	}
}

func TestRemoveTellsForALimitedTime(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		f := cancelTarget{slow: time.Second}
		f.set(down)
		w.set(&f)
		w.put(0, 100)
		start := time.Now()
		if err := w.sup.Remove(t.Context(), w.id, "out", "gone"); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 11*time.Second || len(f.canceled) < 9 {
			t.Errorf("%d in %v", len(f.canceled), d)
		}
		if !strings.Contains(w.logged.String(), "not all pending messages were told") {
			t.Error("the rest is not logged")
		}
	})
}

func TestAStreamThatIsDeletedEndsItsExportQuietly(t *testing.T) {
	for name, put := range map[string]int{"idle": 0, "waiting for more": 5, "pausing": 10} {
		t.Run(name, func(t *testing.T) {
			bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
				var f fakeTarget
				f.set(down)
				w.set(&f)
				w.put(0, put)
				synctest.Wait()
				if _, err := w.engine.Commit(t.Context(), stream.Change{Delete: &stream.Delete{ID: w.id}}); err != nil {
					t.Fatal(err)
				}
				pass(time.Hour)
				if logged := w.logged.String(); !strings.Contains(logged, "export ended with its stream") {
					t.Errorf("logged: %s", logged)
				}
				if err := w.sup.RemoveStream(t.Context(), w.id, "deleted"); err != nil || len(w.sup.All()) != 0 {
					t.Errorf("remove: %v", err)
				}
			})
		})
	}
}

func TestASealedStreamSendsItsRest(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		var f fakeTarget
		w.set(&f)
		w.put(0, 5)
		if _, err := w.engine.Commit(t.Context(), stream.Change{Seal: &stream.Seal{ID: w.id}}); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		wantEqual(t, "delivered", f.got(), numbers(0, 5))
	})
}

// idleBytes starts n exports of empty streams in real time and returns what each takes, in bytes.
func idleBytes(t *testing.T, n int) float64 {
	t.Helper()
	w := &world{t: t, clock: &goClock{}}
	w.engine = memory.Open(memory.Options{Clock: w.clock})
	defer w.engine.Close()
	w.start()
	defer w.stop()
	ids := make([]record.StreamID, n)
	for i := range ids {
		ids[i] = w.create(record.StreamName(fmt.Sprintf("sm/%d", i)), stream.Policy{})
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	target, log := &fakeTarget{}, &countingLog{Log: w.engine}
	for i, id := range ids {
		w.set(target, func(s *Spec) { s.Log, s.ID, s.Name = log, id, record.StreamName(fmt.Sprintf("sm/%d", i)) })
	}
	testenv.Wait(t, 10*time.Second, func() bool { return log.calls.Load() == 3*int64(n) }, "all sleep in Read: each has asked three things")
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := float64(after.HeapAlloc) - float64(before.HeapAlloc) + float64(after.StackInuse) - float64(before.StackInuse)
	return used / float64(n)
}

func TestAThousandIdleExportsTakeLittle(t *testing.T) {
	per := idleBytes(t, 1000)
	t.Logf("%.0f bytes for each idle export", per)
	if per > 12<<10 {
		t.Errorf("%.0f bytes for each idle export", per)
	}
}

func TestIdleExportsDoNothing(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		counted := &countingLog{Log: w.engine}
		for i := range 200 {
			w.set(&fakeTarget{}, func(s *Spec) { s.Log, s.Identifier = counted, fmt.Sprint(i) })
		}
		synctest.Wait()
		before := counted.calls.Load()
		pass(10 * time.Hour)
		if n := counted.calls.Load() - before; n != 0 {
			t.Errorf("%d calls of the log while idle", n)
		}
	})
}
