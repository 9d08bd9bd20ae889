package lake_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/vfs"
)

// bench is a catalog and a spool in a temporary directory.
type bench struct {
	t     testing.TB
	dir   *vfs.Dir
	spool *vfs.Dir
	db    *meta.DB
	cat   *lake.Catalog
}

func newBench(t testing.TB) *bench {
	t.Helper()
	dir, err := vfs.OpenDir(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	spool, err := dir.Sub("spool")
	if err != nil {
		t.Fatal(err)
	}
	db, err := meta.Open(dir, meta.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(); spool.Close(); dir.Close() })
	return &bench{t: t, dir: dir, spool: spool, db: db, cat: lake.NewCatalog(db, slog.New(slog.DiscardHandler))}
}

// decodeFunc is a payload.Decoder.
type decodeFunc func(rec *record.Record, dst []payload.Row) ([]payload.Row, error)

func (f decodeFunc) Decode(rec *record.Record, dst []payload.Row) ([]payload.Row, error) {
	return f(rec, dst)
}

func testRange(from, to record.Offset) lake.Range {
	return lake.Range{
		Node: "a1b2c3d4e5f6", Stream: 0x0123456789abcdef, From: from, To: to,
		Cut: time.Date(2026, 11, 21, 1, 5, 0, 0, time.UTC), Revision: 3,
	}
}

func chunkOf(first record.Offset, recs ...record.Record) *stream.Chunk {
	return &stream.Chunk{
		First: first, Records: recs, Next: first + record.Offset(len(recs)),
		Origins: []stream.Origin{{First: first, Count: len(recs), Trusted: true}},
	}
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatalf("%v (hint: %s)", err, record.HintOf(err))
	}
	return v
}

// build encodes records with dec and returns the result.
func (b *bench) build(cfg lake.Config, spec lake.TableSpec, rng lake.Range, dec payload.Decoder, c ...*stream.Chunk) lake.Result {
	b.t.Helper()
	bld := lake.NewBuilder(b.spool, cfg, spec, b.cat, rng, dec, nil)
	for _, c := range c {
		if err := bld.Add(c); err != nil {
			b.t.Fatalf("%v (hint: %s)", err, record.HintOf(err))
		}
	}
	res, err := bld.Finish()
	return must(b.t, res, err)
}

// fixed decodes record n to rows[n]; the record's payload is n in decimal. A nil entry is rejected.
func fixed(rows [][]payload.Row) payload.Decoder {
	return decodeFunc(func(rec *record.Record, dst []payload.Row) ([]payload.Row, error) {
		n, err := strconv.Atoi(string(rec.Payload))
		if err != nil || rows[n] == nil {
			return dst, errors.New("not a row")
		}
		return append(dst, rows[n]...), nil
	})
}

// numbered returns a chunk of n records with payloads 0 … n-1, received a second apart from t on.
func numbered(n int, t time.Time) *stream.Chunk {
	recs := make([]record.Record, n)
	for i := range recs {
		recs[i] = record.Record{
			Time: t.Add(time.Duration(i) * time.Second).UnixNano(), Key: []byte("plant/a"), Payload: []byte(strconv.Itoa(i)),
		}
	}
	return chunkOf(0, recs...)
}

// encode builds rows, one record each, and returns what the data files hold, in their order.
func (b *bench) encode(cfg lake.Config, spec lake.TableSpec, rows ...payload.Row) ([]map[string]any, lake.Result) {
	b.t.Helper()
	perRecord := make([][]payload.Row, len(rows))
	for i, r := range rows {
		perRecord[i] = []payload.Row{r}
	}
	c := numbered(len(rows), day1)
	res := b.build(cfg, spec, testRange(0, c.Next), fixed(perRecord), c)
	var all []map[string]any
	for _, f := range res.Files {
		if !f.Manifest && !f.Rejected {
			all = append(all, b.read(f)...)
		}
	}
	return all, res
}

// day1 is the event time of tests, in the partition year=2026/month=11/day=21.
var day1 = time.Date(2026, 11, 21, 1, 0, 0, 0, time.UTC)

// read returns a file's rows as maps without their nulls: float64, int64, bool, string.
func (b *bench) read(f lake.File) []map[string]any {
	b.t.Helper()
	pf := b.open(f)
	var out []map[string]any
	for _, rg := range pf.RowGroups() {
		out = append(out, readGroup(b.t, pf, rg)...)
	}
	if int64(len(out)) != f.Rows {
		b.t.Errorf("%s has %d rows, its File says %d", f.Key, len(out), f.Rows)
	}
	return out
}

func (b *bench) open(f lake.File) *parquet.File {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.spool.Path(), f.Spool))
	if err != nil {
		b.t.Fatal(err)
	}
	if int64(len(data)) != f.Size || sha256.Sum256(data) != f.SHA256 {
		b.t.Errorf("%s: size or checksum differ from its File", f.Spool)
	}
	pf, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
	return must(b.t, pf, err)
}

func readGroup(t testing.TB, pf *parquet.File, rg parquet.RowGroup) (out []map[string]any) {
	t.Helper()
	rows := rg.Rows()
	defer rows.Close()
	buf := make([]parquet.Row, 100)
	for {
		n, err := rows.ReadRows(buf)
		for _, row := range buf[:n] {
			m := map[string]any{}
			for _, v := range row {
				if !v.IsNull() {
					m[pf.Schema().Columns()[v.Column()][0]] = goValue(v)
				}
			}
			out = append(out, m)
		}
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func goValue(v parquet.Value) any {
	switch v.Kind() {
	case parquet.Boolean:
		return v.Boolean()
	case parquet.Int64:
		return v.Int64()
	case parquet.Double:
		return v.Double()
	}
	return string(v.ByteArray())
}

func float(f float64) payload.Value { return payload.Value{Kind: payload.Float, F: f} }
func integer(i int64) payload.Value { return payload.Value{Kind: payload.Int, I: i} }
func text(s string) payload.Value   { return payload.Value{Kind: payload.Text, S: []byte(s)} }

func fields(pairs ...any) (f []payload.Field) {
	for i := 0; i < len(pairs); i += 2 {
		f = append(f, payload.Field{Name: pairs[i].(string), Value: pairs[i+1].(payload.Value)})
	}
	return f
}
