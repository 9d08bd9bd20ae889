package lake_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/sim"
	"github.com/leat-io/leat/internal/stream"
)

// reference is the simulator's reference set, generated beforehand: values[tick][signal].
type reference struct {
	signals []sim.Signal
	values  [][]float64
	start   time.Time
}

func newReference(seconds int) *reference {
	s := sim.NewSignals(1)
	r := &reference{signals: s.List(), start: time.Date(2026, 11, 21, 1, 0, 0, 0, time.UTC)}
	r.values = make([][]float64, seconds*25)
	for tick := range r.values {
		r.values[tick] = make([]float64, len(r.signals))
		for i := range r.signals {
			r.values[tick][i] = s.Value(i, tick)
		}
	}
	return r
}

func (r *reference) time(tick int) int64 {
	return r.start.UnixNano() + int64(tick)*int64(40*time.Millisecond)
}

func (r *reference) samples() int { return len(r.values) * len(r.signals) }

// feed gives the builder one record per tick, each with all signals: what a gateway with one message per scan sends.
func (r *reference) feed(t testing.TB, b *lake.Builder) {
	t.Helper()
	c := &stream.Chunk{Origins: []stream.Origin{{Count: len(r.values), Trusted: true}}}
	for tick := range r.values {
		c.Records = append(c.Records[:0], record.Record{Time: r.time(tick)})
		c.First = record.Offset(tick)
		if err := b.Add(c); err != nil {
			t.Fatal(err)
		}
	}
}

// decoder yields the rows of a tick, without the cost of parsing anything.
func (r *reference) decoder() payload.Decoder {
	var topics, names [][]byte
	for _, s := range r.signals {
		names = append(names, []byte(s.Name))
		topics = append(topics, []byte("plant/line1/"+s.Name))
	}
	return decodeFunc(func(rec *record.Record, dst []payload.Row) ([]payload.Row, error) {
		tick := int(rec.Time-r.start.UnixNano()) / int(40*time.Millisecond)
		for i, v := range r.values[tick] {
			dst = append(dst, payload.Row{
				Time: rec.Time, HasTime: true, Topic: topics[i], Signal: names[i],
				Value: payload.Value{Kind: payload.Float, F: v},
			})
		}
		return dst, nil
	})
}

// portable encodes the set with cfg and returns the bytes of its data files.
func (r *reference) portable(t testing.TB, cfg lake.Config) (size int64, rows int64) {
	t.Helper()
	b := newBench(t)
	bld := lake.NewBuilder(b.spool, cfg, lake.TableSpec{Name: "samples"}, b.cat,
		testRange(0, record.Offset(len(r.values))), r.decoder(), nil)
	r.feed(t, bld)
	res := must(t, must2(bld.Finish()), nil)
	for _, f := range res.Files {
		if !f.Manifest {
			size += f.Size
		}
	}
	return size, res.Rows
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// wideSnappy is what most tools write: a DOUBLE column per signal, dictionary and snappy.
func (r *reference) wideSnappy(t testing.TB) int64 {
	t.Helper()
	g := parquet.Group{"ts": parquet.Timestamp(parquet.Millisecond)}
	for _, s := range r.signals {
		g[s.Name] = parquet.Encoded(parquet.Leaf(parquet.DoubleType), &parquet.RLEDictionary)
	}
	schema := parquet.NewSchema("ref", g)
	var out bytes.Buffer
	w := parquet.NewWriter(&out, schema, parquet.Compression(&parquet.Snappy), parquet.PageBufferSize(1<<20),
		parquet.DictionaryMaxBytes(1<<20))
	for _, name := range schema.Columns() {
		leaf, _ := schema.Lookup(name...)
		cw := w.ColumnWriters()[leaf.ColumnIndex]
		var vals []parquet.Value
		signal := -1
		for i, s := range r.signals {
			if s.Name == name[0] {
				signal = i
			}
		}
		for tick := range r.values {
			v := parquet.Int64Value(r.time(tick) / 1e6)
			if signal >= 0 {
				v = parquet.DoubleValue(r.values[tick][signal])
			}
			vals = append(vals, v.Level(0, 0, leaf.ColumnIndex))
		}
		for len(vals) > 0 {
			n := min(4096, len(vals))
			if _, err := cw.WriteRowValues(vals[:n]); err != nil {
				t.Fatal(err)
			}
			vals = vals[n:]
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return int64(out.Len())
}

// longSnappy is the same rows as portable in the order they arrive, dictionary and snappy.
func (r *reference) longSnappy(t testing.TB) int64 {
	t.Helper()
	type row struct {
		TS     int64   `parquet:"ts,dict,timestamp(millisecond)"`
		Topic  string  `parquet:"topic,dict"`
		Signal string  `parquet:"signal,dict"`
		Value  float64 `parquet:"value,dict"`
	}
	var out bytes.Buffer
	w := parquet.NewGenericWriter[row](&out, parquet.Compression(&parquet.Snappy), parquet.PageBufferSize(1<<20),
		parquet.DictionaryMaxBytes(1<<20))
	var rows []row
	for tick := range r.values {
		rows = rows[:0]
		for i, s := range r.signals {
			rows = append(rows, row{r.time(tick) / 1e6, "plant/line1/" + s.Name, s.Name, r.values[tick][i]})
		}
		if _, err := w.Write(rows); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return int64(out.Len())
}

// TestBytesPerSample compares the files of the portable layout with what dictionary and snappy make of the same
// samples, in the same run. LEAT_BYTES_SECONDS sets how long the recording is.
func TestBytesPerSample(t *testing.T) {
	seconds := 900
	if s := os.Getenv("LEAT_BYTES_SECONDS"); s != "" {
		if _, err := fmt.Sscan(s, &seconds); err != nil {
			t.Fatal(err)
		}
	}
	ref := newReference(seconds)
	n := float64(ref.samples())
	start := time.Now()
	size, rows := ref.portable(t, lake.DefaultConfig())
	took := time.Since(start)
	if rows != int64(ref.samples()) {
		t.Errorf("%d rows, want %d", rows, ref.samples())
	}
	wide, long := ref.wideSnappy(t), ref.longSnappy(t)
	t.Logf("%d s × %d signals × 25 Hz = %d samples", seconds, len(ref.signals), ref.samples())
	t.Logf("portable %.3f B/sample (%.2f M rows/s), wide snappy+dictionary %.3f, long snappy+dictionary in arrival order %.3f",
		float64(size)/n, n/took.Seconds()/1e6, float64(wide)/n, float64(long)/n)
	t.Logf("portable is %.3f of wide, %.3f of long", float64(size)/float64(wide), float64(size)/float64(long))
	if ratio := float64(size) / float64(wide); ratio > 0.67 {
		t.Errorf("portable takes %.3f of the bytes of snappy + dictionary, want at most 0.67", ratio)
	}
}

// BenchmarkEncodePortable encodes a minute of the reference set per iteration, without any parsing.
func BenchmarkEncodePortable(b *testing.B) {
	ref := newReference(60)
	var size, rows int64
	for b.Loop() {
		size, rows = ref.portable(b, lake.DefaultConfig())
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(size)/float64(rows), "B/sample")
}

// Bounds of a long text stand in the file's footer, once each, and nowhere else.
func TestALongTextIsNotRepeatedInPageHeaders(t *testing.T) {
	b := newBench(t)
	text := make([]byte, 64<<10)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range text {
		text[i] = "0123456789abcdef"[rnd.IntN(16)]
	}
	_, res := b.encode(lake.DefaultConfig(), lake.TableSpec{Name: "samples"}, payload.Row{
		Topic: []byte("t"), Signal: []byte("value"), Value: payload.Value{Kind: payload.Text, S: text},
	})
	if size := res.Files[0].Size; size > int64(3*len(text)) {
		t.Errorf("%d bytes for a text of %d", size, len(text))
	}
}
