package lake_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// peak runs do and returns how far the heap's live and not yet collected bytes rose above where they were.
func peak(do func()) int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	start, high := int64(m.HeapAlloc), int64(0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		sample := time.NewTicker(2 * time.Millisecond)
		defer sample.Stop()
		for {
			runtime.ReadMemStats(&m)
			high = max(high, int64(m.HeapAlloc))
			select {
			case <-sample.C:
			case <-stop:
				return
			}
		}
	})
	do()
	close(stop)
	wg.Wait()
	return high - start
}

// TestMemoryStaysBelowTheCeiling builds files of one and of ten times as many rows, in several shapes, and compares the
// peak of the heap with the ceiling that the package comment states.
func TestMemoryStaysBelowTheCeiling(t *testing.T) {
	const budget = 4 << 20
	shapes := map[string]struct {
		spec lake.TableSpec
		rows int // per record
		make func(n, i int, r *payload.Row)
	}{
		"portable, one day": {lake.TableSpec{Name: "a"}, 100, func(n, i int, r *payload.Row) {
			r.Time, r.HasTime = day1.UnixNano()+int64(n)*1e6, true
			r.Signal, r.Value = fmt.Appendf(r.Signal[:0], "signal-%03d", i), float(float64(n))
		}},
		"portable, 40 days": {lake.TableSpec{Name: "b"}, 100, func(n, i int, r *payload.Row) {
			r.Time, r.HasTime = day1.AddDate(0, 0, n%40).UnixNano()+int64(n)*1e6, true
			r.Signal, r.Value = fmt.Appendf(r.Signal[:0], "signal-%03d", i), float(float64(n))
		}},
		"unique texts": {lake.TableSpec{Name: "c"}, 20, func(n, i int, r *payload.Row) {
			r.Time, r.HasTime, r.Signal = day1.UnixNano(), true, append(r.Signal[:0], "log"...)
			r.Value = payload.Value{Kind: payload.Text, S: fmt.Appendf(r.Value.S[:0], "line %d.%d of a log that never repeats itself", n, i)}
		}},
		"900 columns, 20 used": {lake.TableSpec{Name: "d", Layout: lake.Columns}, 10, func(n, i int, r *payload.Row) {
			r.Time, r.HasTime = day1.UnixNano()+int64(n)*1e6, true
			r.Fields = r.Fields[:0]
			for j := range 20 {
				r.Fields = append(r.Fields, payload.Field{Name: columns900[(n*20+i*7+j)%900], Value: float(float64(n + j))})
			}
		}},
	}
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			var peaks [2]int64
			columns := 0
			for k, records := range []int{600, 6000} {
				b := newBench(t)
				scratch := make([]payload.Row, s.rows)
				n := 0
				dec := decodeFunc(func(rec *record.Record, dst []payload.Row) ([]payload.Row, error) {
					for i := range scratch {
						s.make(n, i, &scratch[i])
					}
					n++
					return append(dst, scratch...), nil
				})
				bld := lake.NewBuilder(b.spool, lake.Config{RowGroupBytes: budget}, s.spec, b.cat,
					testRange(0, record.Offset(records)), dec, nil)
				c := &stream.Chunk{Records: make([]record.Record, 1), Origins: []stream.Origin{{Count: records, Trusted: true}}}
				peaks[k] = peak(func() {
					for i := range records {
						c.First = record.Offset(i)
						c.Records[0].Key = []byte("t")
						if err := bld.Add(c); err != nil {
							t.Fatal(err)
						}
					}
					if res := must2(bld.Finish()); res.Rows != int64(records*s.rows) {
						t.Errorf("%d rows", res.Rows)
					}
				})
				columns = len(must2(b.cat.Schema(s.spec.Name)).Columns)
			}
			ceiling := lake.Config{RowGroupBytes: budget}.MemoryCeiling(columns)
			t.Logf("peak %.1f MiB, with ten times the rows %.1f MiB; ceiling %.1f MiB", float64(peaks[0])/(1<<20),
				float64(peaks[1])/(1<<20), float64(ceiling)/(1<<20))
			if max(peaks[0], peaks[1]) > ceiling {
				t.Errorf("the heap rose by %d and %d bytes, the ceiling is %d", peaks[0], peaks[1], ceiling)
			}
		})
	}
}

var columns900 = func() (names []string) {
	for i := range 900 {
		names = append(names, fmt.Sprintf("field_%d", i))
	}
	return names
}()
