package memory_test

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/memory"
	"github.com/leat-io/leat/internal/stream/streamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	streamtest.Run(t, func(testing.TB) streamtest.Harness {
		c := clock.NewFake(streamtest.Now())
		return streamtest.Harness{
			Open: func(l streamtest.Limits) (stream.Engine, error) {
				return memory.Open(memory.Options{
					Clock: c, QueueBytes: l.QueueBytes, MaxBytes: l.MaxBytes, ExpireEvery: 5 * time.Millisecond,
				}), nil
			},
			Volatile: true,
			Clock:    c,
		}
	})
}

func create(tb testing.TB, e stream.Engine, p stream.Policy) record.StreamID {
	tb.Helper()
	info, err := stream.Ensure(tb.Context(), e, "test/s", p)
	if err != nil {
		tb.Fatal(err)
	}
	return info.ID
}

// An append costs no allocation per record: only a chunk per several hundred of them.
func TestAppendAllocations(t *testing.T) {
	e := memory.Open(memory.Options{})
	defer e.Close()
	id := create(t, e, stream.Policy{MaxBytes: 1 << 20, OnFull: stream.DropOldest})
	batch := make([]record.Record, 500)
	for i := range batch {
		batch[i] = record.Record{Key: []byte("plant/a"), Payload: make([]byte, 100)}
	}
	acked := make(chan error, 1)
	done := func(_ record.Offset, err error) { acked <- err }
	allocs := testing.AllocsPerRun(100, func() {
		e.Append(t.Context(), id, batch, done)
		if err := <-acked; err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 15 {
		t.Errorf("%v allocations for an append of %d records", allocs, len(batch))
	}
	t.Logf("%v allocations for an append of %d records", allocs, len(batch))
}

// Overwriting the oldest keeps memory at the limit, whatever passes through.
func TestStatsCountWhatIsHeld(t *testing.T) {
	e := memory.Open(memory.Options{MaxBytes: 1 << 20})
	defer e.Close()
	id := create(t, e, stream.Policy{OnFull: stream.DropOldest})
	for i := range 1000 {
		r := record.Record{Payload: fmt.Appendf(nil, "%04096d", i)}
		if _, err := stream.AppendWait(t.Context(), e, id, r); err != nil {
			t.Fatal(err)
		}
	}
	s := e.Stats()
	b, err := e.Bounds(id)
	if err != nil {
		t.Fatal(err)
	}
	kept := int64(b.Next - b.First)
	if s.Bytes > 1<<20 || s.Bytes != kept*(4096+64) || s.Dropped != 1000-kept || s.Appends != 1000 || s.Records != 1000 || s.Streams != 1 {
		t.Errorf("stats %+v, bounds %+v", s, b)
	}
	if _, err := e.Commit(t.Context(), stream.Change{Delete: &stream.Delete{ID: id}}); err != nil {
		t.Fatal(err)
	}
	if s := e.Stats(); s.Bytes != 0 || s.Streams != 0 {
		t.Errorf("stats after deletion %+v", s)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 500} {
		b.Run(fmt.Sprintf("%d records of 100 B", n), func(b *testing.B) {
			e := memory.Open(memory.Options{})
			defer e.Close()
			id := create(b, e, stream.Policy{OnFull: stream.DropOldest})
			batch := make([]record.Record, n)
			for i := range batch {
				batch[i] = record.Record{Key: []byte("plant/a"), Payload: make([]byte, 100)}
			}
			done := func(_ record.Offset, err error) {
				if err != nil {
					b.Error(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				e.Append(b.Context(), id, batch, done)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
