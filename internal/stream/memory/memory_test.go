package memory_test

import (
	"fmt"
	"runtime"
	"sync"
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

// Ten thousand streams that hold nothing cost a few hundred bytes each and no goroutine.
func TestIdleStreamsCostLittle(t *testing.T) {
	const streams = 10_000
	e := memory.Open(memory.Options{})
	defer e.Close()
	changes := make([]stream.Change, streams)
	for i := range changes {
		name := record.StreamName(fmt.Sprintf("test/%d", i))
		changes[i].Create = &stream.Create{Name: name, Policy: stream.Policy{MaxBytes: 1 << 30, OnFull: stream.DropOldest}}
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, goroutines := heap(), runtime.NumGoroutine()
	ids, err := e.Commit(t.Context(), changes...)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids { // also when they held something once
		at, err := stream.AppendWait(t.Context(), e, id, record.Record{Payload: make([]byte, 1000)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Commit(t.Context(), stream.Change{Truncate: &stream.Truncate{ID: id, Before: at + 1}}); err != nil {
			t.Fatal(err)
		}
	}
	each := (int64(heap()) - int64(before)) / streams
	if each > 1000 || runtime.NumGoroutine() > goroutines {
		t.Errorf("%d bytes for an idle stream, %d goroutines before, %d now", each, goroutines, runtime.NumGoroutine())
	}
	t.Logf("%d bytes for an idle stream", each)
}

// What may be dropped yields to every append, also of a stream that must not lose anything; what may not be dropped
// stays, and then the append is refused.
func TestFullMemoryTakesFromStreamsThatMayBeDropped(t *testing.T) {
	e := memory.Open(memory.Options{MaxBytes: 1 << 20})
	defer e.Close()
	ids, err := e.Commit(t.Context(),
		stream.Change{Create: &stream.Create{Name: "test/hog", Policy: stream.Policy{OnFull: stream.DropOldest}}},
		stream.Change{Create: &stream.Create{Name: "test/small", Policy: stream.Policy{OnFull: stream.DropOldest}}},
		stream.Change{Create: &stream.Create{Name: "test/keeps"}})
	if err != nil {
		t.Fatal(err)
	}
	hog, small, keeps := ids[0], ids[1], ids[2]
	put := func(id record.StreamID) error {
		_, err := stream.AppendWait(t.Context(), e, id, record.Record{Payload: make([]byte, 4096)})
		return err
	}
	kept := func(id record.StreamID) int {
		b, err := e.Bounds(id)
		if err != nil {
			t.Fatal(err)
		}
		return int(b.Next - b.First)
	}
	for _, step := range []struct {
		id   record.StreamID
		n    int
		what string
	}{{hog, 1000, "hog"}, {small, 2, "small"}, {keeps, 100, "keeps"}} {
		for range step.n {
			if err := put(step.id); err != nil {
				t.Fatalf("%s: %v", step.what, err)
			}
		}
	}
	if kept(hog) == 0 || kept(hog) > 155 || kept(small) != 2 || kept(keeps) != 100 {
		t.Errorf("%d, %d, %d records kept", kept(hog), kept(small), kept(keeps))
	}
	n := 100
	for ; put(keeps) == nil; n++ {
	}
	if err := put(keeps); record.KindOf(err) != record.Full {
		t.Errorf("append with nothing left that may be dropped: %v", err)
	}
	if kept(hog) != 0 || kept(small) != 0 || kept(keeps) != n || e.Stats().Bytes > 1<<20 {
		t.Errorf("%d, %d, %d of %d records kept, %+v", kept(hog), kept(small), kept(keeps), n, e.Stats())
	}
}

// Appends that all have to make room do not wait for one another for ever, and the limit holds.
func TestFullMemoryUnderConcurrentAppends(t *testing.T) {
	e := memory.Open(memory.Options{MaxBytes: 1 << 20})
	defer e.Close()
	var running sync.WaitGroup
	for i := range 8 {
		info, err := stream.Ensure(t.Context(), e, record.StreamName(fmt.Sprintf("test/%d", i)), stream.Policy{OnFull: stream.DropOldest})
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			for range 1000 {
				if _, err := stream.AppendWait(t.Context(), e, info.ID, record.Record{Payload: make([]byte, 4096)}); err != nil {
					t.Error(err)
					return
				}
				if held := e.Stats().Bytes; held > 1<<20 {
					t.Errorf("%d bytes held", held)
				}
			}
		})
	}
	running.Wait()
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
