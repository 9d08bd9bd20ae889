package segment_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/leat-io/leat/internal/vfs"
)

// The benchmarks of the log stand beside a bare write and fdatasync loop of the same bytes in the same run: figures of
// shared machines mean something only as ratios. BenchmarkRatios prints the ones that docs/benchmarks.md quotes;
//
//	go test -run '^$' -bench Ratios -benchtime 1x ./internal/stream/segment

// bench is a log, or a bare file, with one stream.
type bench struct {
	testing.TB
	dir string
	log *segment.Log
	id  record.StreamID
}

func openBench(tb testing.TB, dir string, policy stream.Policy) *bench {
	tb.Helper()
	d, err := vfs.OpenDir(dir, nil)
	if err != nil {
		tb.Fatal(err)
	}
	log, err := segment.Open(segment.Options{Dir: d, Clock: clock.NewSystem(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	info, err := stream.Ensure(context.Background(), log, "bench/s", policy)
	if err != nil {
		tb.Fatal(err)
	}
	return &bench{TB: tb, dir: dir, log: log, id: info.ID}
}

func (b *bench) close() {
	if err := b.log.Close(); err != nil {
		b.Fatal(err)
	}
}

// benchBatch is n records of size bytes of key and payload.
func benchBatch(n, size int) []record.Record {
	batch := make([]record.Record, n)
	for i := range batch {
		batch[i] = record.Record{Time: int64(i), Key: []byte("plant/line/7"), Payload: noise(size - 12)}
	}
	return batch
}

// appendFor has appenders goroutines append batches one after the other, each waiting for its acknowledgement, and
// returns how many appends were acknowledged per second.
func (b *bench) appendFor(d time.Duration, appenders int, batch []record.Record) float64 {
	var total atomic.Int64
	var running sync.WaitGroup
	start := time.Now()
	for range appenders {
		running.Go(func() {
			acked := make(chan error, 1)
			done := func(_ record.Offset, err error) { acked <- err }
			for time.Since(start) < d {
				b.log.Append(context.Background(), b.id, batch, done)
				if err := <-acked; err != nil {
					b.Error(err)
					return
				}
				total.Add(1)
			}
		})
	}
	running.Wait()
	return float64(total.Load()) / time.Since(start).Seconds()
}

// bareFor appends the same bytes to a file, with an fdatasync after each write when durable, and returns writes per
// second.
func bareFor(tb testing.TB, dir string, d time.Duration, size int, durable bool) float64 {
	tb.Helper()
	f, err := os.CreateTemp(dir, "bare")
	if err != nil {
		tb.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	buf := noise(size)
	n := 0
	start := time.Now()
	for time.Since(start) < d {
		if _, err := f.Write(buf); err != nil {
			tb.Fatal(err)
		}
		if durable {
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				tb.Fatal(err)
			}
		}
		n++
	}
	return float64(n) / time.Since(start).Seconds()
}

var levels = []struct {
	name  string
	level stream.Durability
}{{"disk", stream.Disk}, {"os", stream.OS}}

// trimmed is a policy that keeps a benchmark's disk small.
func trimmed(level stream.Durability) stream.Policy {
	return stream.Policy{Durability: level, OnFull: stream.DropOldest, MaxBytes: 256 << 20}
}

func BenchmarkAppend(b *testing.B) {
	for _, level := range levels {
		for _, appenders := range []int{1, 2, 64} {
			for _, records := range []int{1, 500} {
				for _, size := range []int{100, 1000} {
					name := fmt.Sprintf("%s/appenders=%d/records=%d/size=%d", level.name, appenders, records, size)
					b.Run(name, func(b *testing.B) { benchAppend(b, level.level, appenders, benchBatch(records, size)) })
				}
			}
		}
	}
}

func benchAppend(b *testing.B, level stream.Durability, appenders int, batch []record.Record) {
	l := openBench(b, b.TempDir(), trimmed(level))
	defer l.close()
	var next atomic.Int64
	var running sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range appenders {
		running.Go(func() {
			acked := make(chan error, 1)
			done := func(_ record.Offset, err error) { acked <- err }
			for next.Add(1) <= int64(b.N) {
				l.log.Append(context.Background(), l.id, batch, done)
				if err := <-acked; err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	b.StopTimer()
	rate := float64(b.N) * float64(len(batch)) / b.Elapsed().Seconds()
	b.ReportMetric(rate, "records/s")
	b.ReportMetric(rate*float64(batch[0].Size())/1e6, "MB/s")
}

func BenchmarkBare(b *testing.B) {
	for _, level := range levels {
		for _, size := range []int{100, 1000, 50_000, 500_000} {
			b.Run(fmt.Sprintf("%s/size=%d", level.name, size), func(b *testing.B) {
				f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
				if err != nil {
					b.Fatal(err)
				}
				defer f.Close()
				buf := noise(size)
				b.SetBytes(int64(size))
				for i := 0; b.Loop(); i++ {
					if _, err := f.WriteAt(buf, int64(i)*int64(size)%(1<<30)); err != nil {
						b.Fatal(err)
					}
					if level.level == stream.Disk {
						if err := unix.Fdatasync(int(f.Fd())); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}

// fillBench appends total records in batches of 500 and returns the log, synced.
func fillBench(b *testing.B, dir string, total, size int) *bench {
	l := openBench(b, dir, stream.Policy{Durability: stream.OS})
	batch := benchBatch(500, size)
	for i := 0; i < total; i += len(batch) {
		for k := range batch {
			batch[k].Time = int64(i + k)
		}
		if _, err := stream.AppendWait(context.Background(), l.log, l.id, batch...); err != nil {
			b.Fatal(err)
		}
	}
	for l.readable() < record.Offset(total) {
		runtime.Gosched()
	}
	return l
}

func (b *bench) readable() record.Offset {
	bounds, err := b.log.Bounds(b.id)
	if err != nil {
		b.Fatal(err)
	}
	return bounds.Readable
}

func BenchmarkRead(b *testing.B) {
	const total = 500_000
	l := fillBench(b, b.TempDir(), total, 100)
	defer l.close()
	var c stream.Chunk
	b.Run("sequential", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for at := record.Offset(0); at < total; at = c.Next {
				if err := l.log.Read(context.Background(), l.id, at, 1<<20, &c); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(b.N)*total/b.Elapsed().Seconds(), "records/s")
	})
	b.Run("random", func(b *testing.B) {
		b.ReportAllocs()
		for i := uint64(1); b.Loop(); i++ {
			at := record.Offset(i * 0x9e3779b97f4a7c15 % total)
			if err := l.log.Read(context.Background(), l.id, at, 1000, &c); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("seek", func(b *testing.B) {
		for i := uint64(1); b.Loop(); i++ {
			at := int64(i * 0x9e3779b97f4a7c15 % total)
			if got, err := l.log.Seek(context.Background(), l.id, time.Unix(0, at)); err != nil || int64(got) != at {
				b.Fatal(got, err)
			}
		}
	})
}

// BenchmarkTail is from the start of an append until a reader at the head has the record.
func BenchmarkTail(b *testing.B) {
	for _, level := range levels {
		b.Run(level.name, func(b *testing.B) {
			d, err := vfs.OpenDir(b.TempDir(), nil)
			if err != nil {
				b.Fatal(err)
			}
			log, err := segment.Open(segment.Options{
				Dir: d, Clock: clock.NewSystem(), Logger: slog.New(slog.DiscardHandler), SyncInterval: time.Millisecond,
			})
			if err != nil {
				b.Fatal(err)
			}
			defer log.Close()
			info, err := stream.Ensure(context.Background(), log, "bench/s", trimmed(level.level))
			if err != nil {
				b.Fatal(err)
			}
			batch := benchBatch(1, 100)
			seen := make(chan record.Offset)
			ctx, cancel := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() {
				var c stream.Chunk
				for at := record.Offset(0); log.Read(ctx, info.ID, at, 1<<16, &c) == nil; at = c.Next {
					seen <- c.Next
				}
			})
			for b.Loop() {
				log.Append(ctx, info.ID, batch, func(record.Offset, error) {})
				<-seen
			}
			cancel()
			running.Wait()
		})
	}
}

// BenchmarkTruncate drops the older half of a stream of 50 MB and appends as much again.
func BenchmarkTruncate(b *testing.B) {
	l := fillBench(b, b.TempDir(), 100_000, 500)
	defer l.close()
	batch := benchBatch(500, 500)
	b.ReportAllocs()
	for b.Loop() {
		change := stream.Change{Truncate: &stream.Truncate{ID: l.id, Before: l.readable() - 50_000}}
		if _, err := l.log.Commit(context.Background(), change); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		for range 100 {
			if _, err := stream.AppendWait(context.Background(), l.log, l.id, batch...); err != nil {
				b.Fatal(err)
			}
		}
		for l.readable()%50_000 != 0 {
			runtime.Gosched()
		}
		b.StartTimer()
	}
}

// BenchmarkReopen opens logs of different sizes: the time must not grow with them.
func BenchmarkReopen(b *testing.B) {
	for _, megabytes := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("%dMB", megabytes), func(b *testing.B) {
			dir := b.TempDir()
			fillBench(b, dir, megabytes*1000, 1000).close()
			b.ResetTimer()
			for b.Loop() {
				l := openBench(b, dir, stream.Policy{Durability: stream.OS})
				b.StopTimer()
				l.close()
				b.StartTimer()
			}
		})
	}
}

// ratio is one comparison of interleaved rounds: what the log does in terms of the bare loop or of itself.
type ratio struct {
	name   string
	aim    float64
	atMost bool
	rounds []float64
	ours   []float64
	bare   []float64
}

func (r *ratio) add(ours, bare float64) {
	r.ours, r.bare, r.rounds = append(r.ours, ours), append(r.bare, bare), append(r.rounds, ours/bare)
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// BenchmarkRatios measures the ratios that the project aims at, in rounds that alternate between the log and the bare
// loop, and prints medians and ranges. It gates nothing: seconds on shared machines do not.
func BenchmarkRatios(b *testing.B) {
	var ratios []*ratio
	for b.Loop() {
		ratios = measureRatios(b, 7, 700*time.Millisecond)
	}
	var out strings.Builder
	for _, r := range ratios {
		m := median(r.rounds)
		met := m >= r.aim
		if r.atMost {
			met = m <= r.aim
		}
		fmt.Fprintf(&out, "%-58s median %6.2f (%.2f to %.2f), aim %.2f, met: %v; ours %.0f, other %.0f\n", r.name, m,
			slices.Min(r.rounds), slices.Max(r.rounds), r.aim, met, median(r.ours), median(r.bare))
	}
	io.WriteString(os.Stdout, "\n"+out.String())
}

func measureRatios(b *testing.B, rounds int, d time.Duration) []*ratio {
	two := &ratio{name: "2 appenders × 500 records × 1 KB, disk ÷ bare write+fdatasync", aim: 0.9}
	twoSmall := &ratio{name: "2 appenders × 500 records × 100 B, disk ÷ bare write+fdatasync", aim: 0.9}
	one := &ratio{name: "1 appender × 1 record × 100 B, disk ÷ bare write+fdatasync", aim: 0.8}
	many := &ratio{name: "64 appenders ÷ 1 appender, 1 record × 100 B, disk", aim: 20}
	lazy := &ratio{name: "1 appender × 500 records × 1 KB, os ÷ bare write", aim: 0}
	amplification := &ratio{name: "bytes written ÷ payload, 500 records × 1 KB", aim: 1.05, atMost: true}
	dir := b.TempDir()
	disk := openBench(b, filepath.Join(dir, "disk"), trimmed(stream.Disk))
	defer disk.close()
	lazyLog := openBench(b, filepath.Join(dir, "os"), trimmed(stream.OS))
	defer lazyLog.close()
	single, small, large := benchBatch(1, 100), benchBatch(500, 100), benchBatch(500, 1000)
	for range rounds {
		two.add(disk.appendFor(d, 2, large), bareFor(b, dir, d, 500_000, true))
		twoSmall.add(disk.appendFor(d, 2, small), bareFor(b, dir, d, 50_000, true))
		rate := disk.appendFor(d, 1, single)
		one.add(rate, bareFor(b, dir, d, 100, true))
		many.add(disk.appendFor(d, 64, single), rate)
		before := lazyLog.log.Stats()[0]
		lazy.add(lazyLog.appendFor(d, 1, large), bareFor(b, dir, d, 500_000, false))
		after := lazyLog.log.Stats()[0]
		amplification.add(float64(after.WrittenBytes-before.WrittenBytes), float64(after.Bytes-before.Bytes))
	}
	return []*ratio{two, twoSmall, one, many, lazy, amplification}
}

// Appends cost no allocation per record, whatever the batch: this is a count, so it gates.
func TestAppendAllocatesPerCommitOnly(t *testing.T) {
	l := openBench(t, t.TempDir(), trimmed(stream.OS))
	defer l.close()
	perAppend := func(n int) float64 {
		batch := benchBatch(n, 100)
		acked := make(chan error, 1)
		done := func(_ record.Offset, err error) { acked <- err }
		return testing.AllocsPerRun(300, func() {
			l.log.Append(context.Background(), l.id, batch, done)
			if err := <-acked; err != nil {
				t.Fatal(err)
			}
		})
	}
	one, many := perAppend(1), perAppend(500)
	t.Logf("%.1f allocations per append of 1 record, %.1f of 500", one, many)
	if many > one+5 {
		t.Errorf("%.1f allocations for 500 records, %.1f for one: some are per record", many, one)
	}
	if one > 10 {
		t.Errorf("%.1f allocations per append", one)
	}
}

// Write amplification in batches is a count of bytes, so it gates.
func TestWriteAmplification(t *testing.T) {
	l := openBench(t, t.TempDir(), stream.Policy{})
	defer l.close()
	batch := benchBatch(500, 1000)
	before := l.log.Stats()[0]
	for range 40 {
		if _, err := stream.AppendWait(t.Context(), l.log, l.id, batch...); err != nil {
			t.Fatal(err)
		}
	}
	after := l.log.Stats()[0]
	got := float64(after.WrittenBytes-before.WrittenBytes) / float64(after.Bytes-before.Bytes)
	t.Logf("%.4f bytes written per byte appended in batches of 500 records of 1 KB", got)
	if got > 1.05 {
		t.Errorf("write amplification %.3f, at most 1.05", got)
	}
}

// 64 appenders share fdatasyncs: this is a count, so it gates, unlike the throughput that follows from it.
func TestGroupCommitSharesSyncs(t *testing.T) {
	l := openBench(t, t.TempDir(), stream.Policy{})
	defer l.close()
	before := l.log.Stats()[0]
	l.appendFor(500*time.Millisecond, 64, benchBatch(1, 100))
	after := l.log.Stats()[0]
	got := float64(after.Appends-before.Appends) / float64(after.Syncs-before.Syncs)
	t.Logf("%.1f appends per fdatasync with 64 appenders", got)
	if got < 20 {
		t.Errorf("%.1f appends per fdatasync with 64 appenders, want at least 20", got)
	}
}

// Opening does not read what is stored: the bytes read are a count, so they gate.
func TestReopenReadsOneSegment(t *testing.T) {
	dir := t.TempDir()
	read := func(records int) int64 {
		sub := filepath.Join(dir, fmt.Sprint(records))
		var bytes atomic.Int64
		open := func(hook vfs.Hook) *segment.Log {
			d, err := vfs.OpenDir(sub, hook)
			if err != nil {
				t.Fatal(err)
			}
			log, err := segment.Open(segment.Options{
				Dir: d, Clock: clock.NewSystem(), Logger: slog.New(slog.DiscardHandler), SegmentBytes: 1 << 20,
			})
			if err != nil {
				t.Fatal(err)
			}
			return log
		}
		log := open(nil)
		info, err := stream.Ensure(t.Context(), log, "bench/s", stream.Policy{Durability: stream.OS})
		if err != nil {
			t.Fatal(err)
		}
		batch := benchBatch(100, 1000)
		for i := 0; i < records; i += len(batch) {
			if _, err := stream.AppendWait(t.Context(), log, info.ID, batch...); err != nil {
				t.Fatal(err)
			}
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		log = open(func(op vfs.Op) error {
			if op.Kind == vfs.OpRead {
				bytes.Add(int64(op.Size))
			}
			return nil
		})
		defer log.Close()
		return bytes.Load()
	}
	few, many := read(2_000), read(40_000)
	t.Logf("opening reads %d bytes of 2 MB, %d bytes of 40 MB", few, many)
	if many > few+4<<20 {
		t.Errorf("opening reads %d bytes of 40 MB and %d of 2 MB: it grows with what is stored", many, few)
	}
}

// Ten thousand small streams in at most 50 MB of heap and 50 files, also after a restart.
func TestTenThousandStreamsAreCheap(t *testing.T) {
	const streams = 10_000
	dir := t.TempDir()
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	files := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no /proc: open files cannot be counted")
		}
		return len(entries)
	}
	heapBefore, filesBefore := heap(), files()
	l := openBench(t, dir, stream.Policy{})
	ids := make([]record.StreamID, 0, streams)
	for len(ids) < streams {
		var changes []stream.Change
		for i := range 500 {
			name := record.StreamName(fmt.Sprintf("many/%05d", len(ids)+i))
			changes = append(changes, stream.Change{Create: &stream.Create{Name: name}})
		}
		made, err := l.log.Commit(t.Context(), changes...)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, made...)
	}
	var left sync.WaitGroup
	for range 10 {
		for _, id := range ids {
			left.Add(1)
			l.log.Append(t.Context(), id, benchBatch(1, 100), func(_ record.Offset, err error) {
				defer left.Done()
				if err != nil {
					t.Error(err)
				}
			})
		}
		left.Wait()
	}
	check := func(when string) {
		t.Helper()
		mb, n := float64(heap()-heapBefore)/1e6, files()-filesBefore
		t.Logf("%s: %.1f MB of heap, %d files", when, mb, n)
		if mb > 50 || n > 50 {
			t.Errorf("%s: %.1f MB of heap and %d files for %d streams, at most 50 and 50", when, mb, n, streams)
		}
	}
	check("after appending")
	l.close()
	start := time.Now()
	l = openBench(t, dir, stream.Policy{})
	defer l.close()
	t.Logf("opened in %v", time.Since(start).Round(time.Millisecond))
	check("after opening again")
	if b, err := l.log.Bounds(ids[streams-1]); err != nil || b.Next != 10 {
		t.Errorf("last stream: %+v, %v", b, err)
	}
}
