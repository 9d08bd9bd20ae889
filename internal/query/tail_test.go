package query_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/query"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

func (n *node) fill(id record.StreamID, count int) {
	n.t.Helper()
	b := must(n.log.Bounds(id))(n.t)
	recs := make([]record.Record, count)
	for i := range recs {
		v := int(b.Next) + i
		recs[i] = record.Record{Time: noon.Add(time.Duration(v) * time.Second).UnixNano(), Key: []byte("t"), Payload: fmt.Append(nil, v)}
	}
	n.putAll(id, recs...)
}

// check asks for number and sum of the values 0 … count-1: each exactly once.
func (n *node) check(count int) {
	n.t.Helper()
	want := fmt.Sprintf("n,d,s\n%d,%d,%d\n", count, count, count*(count-1)/2)
	if got := n.csv("SELECT count(*) AS n, count(DISTINCT value) AS d, sum(value) AS s FROM samples"); got != want {
		n.t.Errorf("got %q, want %q", got, want)
	}
}

func TestFullChunksAreEncodedOnce(t *testing.T) {
	n := newNode(t, func(o *nodeOptions) { o.config = func(c *query.Config) { c.TailChunk = 100 } })
	id := n.table("samples", lake.Portable)
	steps := []struct {
		add    int
		encode int64 // records encoded by the query
	}{
		{250, 250}, // 0-100 100-200 200-250
		{0, 0},
		{10, 60},  // 200-260
		{45, 105}, // 200-300 300-305
		{0, 0},
	}
	count := 0
	for i, s := range steps {
		if s.add > 0 {
			n.fill(id, s.add)
			count += s.add
		}
		before := n.reads.Load()
		n.check(count)
		if got := n.reads.Load() - before; got != s.encode {
			t.Errorf("step %d encoded %d records, want %d", i, got, s.encode)
		}
	}
	// An export covers 0-305; what follows starts in the middle of the grid.
	n.export(id)
	before := n.reads.Load()
	n.check(count)
	n.fill(id, 200) // 305-400 400-500 500-505
	n.check(count + 200)
	n.check(count + 200)
	if got := n.reads.Load() - before; got != 200 {
		t.Errorf("after the export %d records were encoded, want 200", got)
	}
	if s := n.engine.Stats(); s.Encoded != 415+200 {
		t.Errorf("stats %+v", s)
	}
	chunks := must(os.ReadDir(filepath.Join(n.dir, "cache/tail/samples")))(t)
	if len(chunks) != 3 {
		t.Errorf("%d chunks on disk, want 3: %v", len(chunks), chunks)
	}
}

func TestTailLimitIsReported(t *testing.T) {
	n := newNode(t, func(o *nodeOptions) { o.config = func(c *query.Config) { c.TailChunk, c.TailRecords = 100, 250 } })
	id := n.table("samples", lake.Portable)
	n.fill(id, 300)
	out, sum, err := n.ask("SELECT count(*) AS n FROM samples")
	if err != nil || out != "n\n250\n" || len(sum.Warnings) != 1 {
		t.Errorf("%q %v %v", out, sum.Warnings, err)
	}
	_, sum, err = n.ask("SELECT 1")
	if err != nil || sum.Tail != 0 {
		t.Errorf("a statement without the table: %+v %v", sum, err)
	}
	if out, _, err := n.askAs(query.Request{SQL: "SELECT count(*) AS n FROM samples", Format: "csv", NoTail: true}); err != nil || out != "n\n0\n" {
		t.Errorf("without the tail: %q %v", out, err)
	}
}

func TestRejectedRecordsOfTheTailAreNoRows(t *testing.T) {
	n := newNode(t)
	id := n.table("machines", lake.Columns)
	n.put(id, noon, "m", `{"a": 1}`)
	n.put(id, noon, "m", `{"a": `)
	if got := n.csv("SELECT a FROM machines"); got != "a\n1\n" {
		t.Errorf("got %q", got)
	}
}

// While a query is between its steps, records arrive, are exported, the log is trimmed and files move to the store:
// every answer has each row exactly once.
func TestQueriesBesideExportsAndUploads(t *testing.T) {
	n := newNode(t, func(o *nodeOptions) { o.config = func(c *query.Config) { c.TailChunk = 64 } })
	id := n.table("samples", lake.Portable)
	n.fill(id, 10)
	var spooled []lake.File
	steps := []func(){
		func() { n.fill(id, 37) },
		func() { spooled = append(spooled, n.export(id)...) },
		func() { n.upload(spooled); spooled = nil },
	}
	last := 0
	for round := range 9 {
		for _, stage := range []string{"reading streams", "planning"} {
			done := false
			var out bytes.Buffer
			_, err := n.engine.Query(t.Context(), query.Request{
				SQL: "SELECT count(*) AS n, count(DISTINCT value) AS d, max(value) AS m FROM samples", Format: "csv",
			}, &out, func(p query.Progress) {
				if p.Stage == stage && !done {
					done = true
					steps[round%3]()
				}
			})
			if err != nil {
				t.Fatalf("round %d, %s: %v", round, stage, err)
			}
			var rows, distinct, highest int
			if _, err := fmt.Sscanf(out.String(), "n,d,m\r\n%d,%d,%d", &rows, &distinct, &highest); err != nil {
				t.Fatalf("%q: %v", out.String(), err)
			}
			if rows != distinct || highest != rows-1 || rows < last {
				t.Errorf("round %d, %s: %d rows, %d distinct, highest %d, before %d", round, stage, rows, distinct, highest, last)
			}
			last = rows
			n.fill(id, 5)
		}
	}
}

// A full stream that drops its oldest records before they are exported does not keep queries from what is left.
func TestRecordsDroppedBeforeExportAreReported(t *testing.T) {
	n := newNode(t)
	id := n.table("samples", lake.Portable)
	n.fill(id, 30)
	if _, err := n.log.Commit(t.Context(), stream.Change{Truncate: &stream.Truncate{ID: id, Before: 10}}); err != nil {
		t.Fatal(err)
	}
	out, sum, err := n.ask("SELECT count(*) AS n, min(value) AS lowest FROM samples")
	if err != nil || out != "n,lowest\n20,10\n" || len(sum.Warnings) != 1 {
		t.Errorf("%q %v %v", out, sum.Warnings, err)
	}
}
