package forward

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

// damagedLog is a log whose records [from, to) do not read.
type damagedLog struct {
	Log
	from, to record.Offset
}

func (l damagedLog) Read(ctx context.Context, id record.StreamID, from record.Offset, n int, c *stream.Chunk) error {
	damaged := from >= l.from && from < l.to
	at := from
	if damaged {
		at = l.to
	}
	if err := l.Log.Read(ctx, id, at, n, c); err != nil {
		return err
	}
	if damaged {
		c.Gaps = []stream.Gap{{From: from, To: l.to, Reason: stream.Damaged}}
	}
	if c.First < l.from && c.Next > l.from {
		c.Records, c.Next = c.Records[:l.from-c.First], l.from
	}
	return nil
}

func TestDamagedMessagesAreCountedAndTheRestGoesOn(t *testing.T) {
	for name, c := range map[string]struct {
		from, to record.Offset
		want     []string // calls
	}{
		"in the middle":    {3, 6, []string{"0 1 2", "6 7 8 9"}},
		"at the beginning": {0, 4, []string{"4 5 6 7 8 9"}},
		"at the end":       {8, 10, []string{"0 1 2 3 4 5 6 7", "10"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
				var f fakeTarget
				w.put(0, 10)
				w.set(&f, func(s *Spec) { s.Log, s.Interval = damagedLog{w.engine, c.from, c.to}, time.Minute })
				w.put(10, 11)
				pass(2 * time.Minute)
				if c.to < 10 {
					c.want = append(c.want, "10")
				}
				wantEqual(t, "calls", f.seen(), c.want)
				s := w.status()
				if s.Dropped != uint64(c.to-c.from) || s.Next != 11 || !strings.Contains(s.LastError, "damaged on disk") || s.Hint == "" {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestDamageAmongWhatWaitsForMoreDoesNotHangTheRest(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		var f fakeTarget
		w.put(0, 4)
		w.set(&f, func(s *Spec) { s.Log, s.Interval = damagedLog{w.engine, 0, 2}, time.Minute })
		pass(2 * time.Minute)
		wantEqual(t, "delivered", f.got(), numbers(2, 4))
	})
}

func TestMessagesThatExpireWhileABatchWaitsAreCounted(t *testing.T) {
	bubble(t, stream.Policy{MaxAge: time.Minute}, func(t *testing.T, w *world) {
		var f fakeTarget
		w.set(&f)
		w.put(0, 5)
		time.Sleep(10 * time.Minute)
		for i := 5; i < 25; i++ {
			w.put(i, i+1)
			synctest.Wait()
		}
		wantEqual(t, "calls", f.seen(), batches(5, 25, 10))
		if s := w.status(); s.Dropped != 5 || s.Messages != 20 {
			t.Errorf("%+v", s)
		}
	})
}

// TestAStopRepeatsNothing restarts over the log on disk, where the place comes back from the cursor alone.
func TestAStopRepeatsNothing(t *testing.T) {
	dir, err := vfs.OpenDir(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	const lives, each = 4, 25
	var f fakeTarget
	for life := range lives {
		log, err := segment.Open(segment.Options{Dir: dir, Clock: clock.NewSystem(), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		info, err := stream.Ensure(t.Context(), log, testStream, stream.Policy{UntilExported: true})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, clock: &goClock{}, id: info.ID}
		w.start()
		w.set(&f, func(s *Spec) { s.Log = log })
		if s := w.status(); s.Messages != uint64(life*each/10*10) {
			t.Errorf("life %d begins with %+v", life, s)
		}
		for i := life * each; i < (life+1)*each; i++ {
			rec := record.Record{Time: time.Now().UnixNano(), Payload: fmt.Append(nil, i)}
			if _, err := stream.AppendWait(t.Context(), log, info.ID, rec); err != nil {
				t.Fatal(err)
			}
		}
		want := (life + 1) * each / 10 * 10
		testenv.Wait(t, 20*time.Second, func() bool { return w.status().Messages == uint64(want) }, "full batches are delivered")
		w.stop()
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wantEqual(t, "calls", f.seen(), batches(0, lives*each, 10))
}
