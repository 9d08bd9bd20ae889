// Package readers_test has independent programs read what leat writes: DuckDB, pyarrow and hyparquet (JavaScript). Each
// prints the same report of a lake directory, and each must print what went in.
package readers_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "github.com/duckdb/duckdb-go/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/sim"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

// report is what a reader found. Integers of messages are strings, times milliseconds.
type report struct {
	Types      map[string]string `json:"types"`
	Partitions map[string]int    `json:"partitions"` // rows by day of the month
	Signals    map[string]signal `json:"signals"`
	Messages   []map[string]any  `json:"messages"` // in the order of _seq, without nulls
}

type signal struct {
	N     int       `json:"n"`
	Min   float64   `json:"min"`
	Max   float64   `json:"max"`
	Sum   float64   `json:"sum"`
	First []float64 `json:"first"` // up to 20, in the order of time
	From  int64     `json:"from"`
	To    int64     `json:"to"`
}

func TestReadersAgreeWithWhatWasWritten(t *testing.T) {
	root, want := buildLake(t)
	readers := map[string]struct {
		read  func(t *testing.T, root string) report
		types map[string]string
	}{
		"duckdb": {readDuckDB, map[string]string{
			"ts": "TIMESTAMP", "value": "DOUBLE", "signal": "VARCHAR", "text": "VARCHAR", "site": "VARCHAR",
		}},
		"pyarrow": {readPyarrow, map[string]string{
			"ts": "timestamp[ms]", "value": "double", "signal": "string", "text": "string", "site": "string",
		}},
		"hyparquet": {readHyparquet, map[string]string{
			"ts": "TIMESTAMP", "value": "DOUBLE", "signal": "STRING", "text": "STRING", "site": "STRING",
		}},
	}
	for name, r := range readers {
		t.Run(name, func(t *testing.T) {
			got := r.read(t, root)
			if diff := cmp.Diff(r.types, got.Types); diff != "" {
				t.Errorf("types (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want.Partitions, got.Partitions); diff != "" {
				t.Errorf("partitions (-want +got):\n%s", diff)
			}
			for s, w := range want.Signals {
				g := got.Signals[s]
				if math.Abs(g.Sum-w.Sum) > 1e-9*math.Abs(w.Sum) {
					t.Errorf("%s: sum %v, want %v", s, g.Sum, w.Sum)
				}
				g.Sum = w.Sum // added up in another order
				if diff := cmp.Diff(w, g); diff != "" {
					t.Errorf("%s (-want +got):\n%s", s, diff)
				}
			}
			if len(got.Messages) != len(want.Messages) {
				t.Fatalf("%d messages, want %d", len(got.Messages), len(want.Messages))
			}
			for i := range want.Messages {
				if !reflect.DeepEqual(want.Messages[i], got.Messages[i]) {
					t.Fatalf("message %d (-want +got):\n%s", i, cmp.Diff(want.Messages[i], got.Messages[i]))
				}
			}
		})
	}
}

// start is ten seconds before midnight, so that the samples lie in two partitions.
var start = time.Date(2026, 11, 21, 23, 59, 50, 0, time.UTC)

const ticks = 20 * 25

type decodeFunc func(rec *record.Record, dst []payload.Row) ([]payload.Row, error)

func (f decodeFunc) Decode(rec *record.Record, dst []payload.Row) ([]payload.Row, error) {
	return f(rec, dst)
}

type builder struct {
	t     *testing.T
	spool *vfs.Dir
	cat   *lake.Catalog
	root  string
}

// buildLake writes a lake of two tables and returns what its readers must find.
func buildLake(t *testing.T) (root string, want report) {
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
	b := &builder{t: t, spool: spool, cat: lake.NewCatalog(db, slog.New(slog.DiscardHandler)), root: t.TempDir()}
	want = report{Partitions: map[string]int{}, Signals: map[string]signal{}}
	b.samples(&want)
	b.messages(&want)
	return b.root, want
}

// build encodes records whose keys are their numbers and links the files below root.
func (b *builder) build(spec lake.TableSpec, from, to int, at func(n int) time.Time, rows func(n int) []payload.Row) {
	b.t.Helper()
	cfg := lake.DefaultConfig()
	cfg.RowGroupBytes = 2 << 20 // several row groups and pages
	cfg.Provenance = true
	rng := lake.Range{Node: "a1b2c3d4e5f6", Stream: 7, From: record.Offset(from), To: record.Offset(to), Cut: start}
	dec := decodeFunc(func(rec *record.Record, dst []payload.Row) ([]payload.Row, error) {
		n, err := strconv.Atoi(string(rec.Key))
		return append(dst, rows(n)...), err
	})
	bld := lake.NewBuilder(b.spool, cfg, spec, b.cat, rng, dec, nil)
	c := &stream.Chunk{Origins: []stream.Origin{{First: record.Offset(from), Count: to - from, Trusted: true}}}
	for n := from; n < to; n++ {
		c.First = record.Offset(n)
		c.Records = []record.Record{{Time: at(n).UnixNano(), Key: []byte(strconv.Itoa(n))}}
		if err := bld.Add(c); err != nil {
			b.t.Fatal(err)
		}
	}
	res, err := bld.Finish()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range res.Files {
		path := filepath.Join(b.root, filepath.FromSlash(f.Key))
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.Link(filepath.Join(b.spool.Path(), f.Spool), path))
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// samples are the reference signals, portable, one record per tick.
func (b *builder) samples(want *report) {
	signals := sim.NewSignals(42)
	at := func(n int) time.Time { return start.Add(time.Duration(n) * 40 * time.Millisecond) }
	site := []payload.Field{{Name: "site", Value: payload.Value{Kind: payload.Text, S: []byte("Lübeck")}}}
	b.build(lake.TableSpec{Name: "samples"}, 0, ticks, at, func(n int) (rows []payload.Row) {
		want.Partitions[strconv.Itoa(at(n).Day())] += len(signals.List())
		for i, s := range signals.List() {
			v := signals.Value(i, n)
			w, known := want.Signals[s.Name]
			if !known {
				w = signal{Min: v, Max: v, From: at(n).UnixMilli()}
			}
			w.N, w.Sum, w.Min, w.Max, w.To = w.N+1, w.Sum+v, min(w.Min, v), max(w.Max, v), at(n).UnixMilli()
			if len(w.First) < 20 {
				w.First = append(w.First, v)
			}
			want.Signals[s.Name] = w
			rows = append(rows, payload.Row{
				Topic: []byte("plant/" + s.Name), Signal: []byte(s.Name), Value: payload.Value{Kind: payload.Float, F: v}, Labels: site,
			})
		}
		return rows
	})
}

// messages are objects, in the column layout: every type, nulls, values that do not fit, a table that widens between
// files, and texts that overflow a dictionary.
func (b *builder) messages(want *report) {
	spec := lake.TableSpec{Name: "messages", Layout: lake.Columns}
	at := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
	for _, r := range [][2]int{{0, 50}, {50, 100}, {100, 2500}} {
		b.build(spec, r[0], r[1], at, func(n int) []payload.Row {
			id := int64(1<<53+1) + int64(n)
			note := fmt.Sprintf("%d %s", n, strings.Repeat(strconv.Itoa(n*7919), 100))
			f := []payload.Field{
				{Name: "id", Value: payload.Value{Kind: payload.Int, I: id}},
				{Name: "temp", Value: payload.Value{Kind: payload.Float, F: float64(n) / 3}},
				{Name: "on", Value: payload.Value{Kind: payload.Bool, I: int64(n % 2)}},
			}
			m := map[string]any{
				"ts": float64(at(n).UnixMilli()), "_received": float64(at(n).UnixMilli()), "_node": "a1b2c3d4e5f6",
				"_seq": strconv.Itoa(n), "topic": strconv.Itoa(n), "id": strconv.FormatInt(id, 10), "temp": float64(n) / 3, "on": n%2 == 1,
			}
			if n >= 50 {
				f = append(f, payload.Field{Name: "note", Value: payload.Value{Kind: payload.Text, S: []byte(note)}},
					payload.Field{Name: "at", Value: payload.Value{Kind: payload.Time, I: at(n).UnixNano()}})
				m["note"], m["at"] = note, float64(at(n).UnixMilli())
			}
			switch n % 10 {
			case 3:
				f[1].Value = payload.Value{Kind: payload.Text, S: []byte(`wärm "!"`)}
				delete(m, "temp")
				m["_extra"] = `{"temp":"wärm \"!\""}`
			case 4:
				f = f[:2]
				delete(m, "on")
				delete(m, "note")
				delete(m, "at")
			}
			want.Messages = append(want.Messages, m)
			return []payload.Row{{Fields: f}}
		})
	}
}

func readPyarrow(t *testing.T, root string) report {
	python := filepath.Join(testenv.ModuleRoot(t), ".tools", "venv", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		testenv.Missing(t, "pyarrow: %s does not exist; run make tools", python)
	}
	return run(t, exec.CommandContext(t.Context(), python, "read.py", root))
}

func readHyparquet(t *testing.T, root string) report {
	node := testenv.Need(t, "node")
	if _, err := os.Stat("node_modules/hyparquet"); err != nil {
		testenv.Missing(t, "hyparquet: test/readers/node_modules does not exist; run make tools")
	}
	return run(t, exec.CommandContext(t.Context(), node, "read.mjs", root))
}

func run(t *testing.T, cmd *exec.Cmd) (r report) {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, exit.Stderr)
		}
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func readDuckDB(t *testing.T, root string) (r report) {
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	from := func(table string) string {
		return fmt.Sprintf("read_parquet('%s/%s/**/*.parquet', hive_partitioning = true, union_by_name = true)", root, table)
	}
	query := func(into any, q string) {
		t.Helper()
		var text string
		q = "SELECT to_json(list(x))::VARCHAR FROM (" + q + ") x"
		if err := db.QueryRowContext(context.Background(), q).Scan(&text); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	var types []map[string]string
	query(&types, "SELECT DISTINCT typeof(ts) AS ts, typeof(value) AS value, typeof(signal) AS signal, typeof(text) AS text, "+
		"typeof(site) AS site FROM "+from("samples"))
	if len(types) != 1 {
		t.Fatalf("types %v", types)
	}
	r.Types = types[0]
	var parts []struct {
		Day string
		N   int
	}
	query(&parts, "SELECT CAST(day AS VARCHAR) AS Day, count(*) AS N FROM "+from("samples")+" WHERE year = 2026 AND month = 11 GROUP BY day")
	r.Partitions = map[string]int{}
	for _, p := range parts {
		r.Partitions[p.Day] = p.N
	}
	var signals []struct {
		Name string
		signal
	}
	query(&signals, `SELECT signal AS Name, count(*) AS n, min(value) AS min, max(value) AS max, sum(value) AS sum,
		(list(value ORDER BY ts))[1:20] AS first, epoch_ms(min(ts)) AS "from", epoch_ms(max(ts)) AS "to"
		FROM `+from("samples")+" GROUP BY signal")
	r.Signals = map[string]signal{}
	for _, s := range signals {
		r.Signals[s.Name] = s.signal
	}
	var messages []map[string]any
	query(&messages, `SELECT epoch_ms(ts) AS ts, epoch_ms(_received) AS _received, epoch_ms("at") AS "at", _node,
		CAST(_seq AS VARCHAR) AS _seq, topic, CAST(id AS VARCHAR) AS id, temp, "on", note, _extra
		FROM `+from("messages")+" ORDER BY CAST(_seq AS BIGINT)")
	for _, m := range messages {
		for name, v := range m {
			if v == nil {
				delete(m, name)
			}
		}
		r.Messages = append(r.Messages, m)
	}
	return r
}
