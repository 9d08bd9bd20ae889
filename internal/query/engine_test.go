package query_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/query"
	"github.com/leat-io/leat/internal/query/result"
	"github.com/leat-io/leat/internal/record"
)

func TestAveragePerMinuteOverStoredSpooledAndStreamedRows(t *testing.T) {
	n := newNode(t)
	id := n.table("samples", lake.Portable)
	// Two signals, one value a second for nine minutes: three minutes in the store, three in the spool, three in the stream.
	want := map[string]float64{}
	second := 0
	phase := func() {
		for range 180 {
			at := noon.Add(time.Duration(second) * time.Second)
			for s, signal := range []string{"temp", "level"} {
				v := float64(second*(s+1)) / 4
				n.put(id, at, "plant/"+signal, number(v))
				want[fmt.Sprintf("%s,%s", "plant/"+signal, at.Truncate(time.Minute).Format("2006-01-02 15:04:05"))] += v
			}
			second++
		}
	}
	phase()
	n.upload(n.export(id))
	phase()
	n.export(id)
	phase()
	out, sum, err := n.ask(`SELECT topic, date_trunc('minute', ts) AS minute, avg(value) AS mean, count(*) AS n
		FROM samples GROUP BY ALL ORDER BY ALL`)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 1+18 {
		t.Fatalf("%d lines:\n%s", len(lines), out)
	}
	for _, line := range lines[1:] {
		cells := strings.Split(line, ",")
		key := cells[0] + "," + cells[1]
		if cells[2] != number(want[key]/60) || cells[3] != "60" {
			t.Errorf("%s: mean %s of %s rows, want %v of 60", key, cells[2], cells[3], want[key]/60)
		}
	}
	if sum.Tail != 360 || sum.Files != 2 || sum.Rows != 18 {
		t.Errorf("summary %+v", sum)
	}
	if left := n.leftovers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFormats(t *testing.T) {
	n := newNode(t)
	sql := `SELECT * FROM (VALUES
		(1::BIGINT, 9223372036854775807, 'NaN'::DOUBLE, 1.50::DECIMAL(9,2), TIMESTAMP '2026-05-01 12:00:00.25', 'a,"b"', [1,2]),
		(-2, 170141183460469231731687303715884105727, 0.1, -0.05, NULL, NULL, NULL)) t(i, h, d, dec, ts, s, l) ORDER BY i DESC`
	for format, want := range map[result.Format]string{
		result.FormatCSV: "i,h,d,dec,ts,s,l\n" +
			"1,9223372036854775807,NaN,1.50,2026-05-01 12:00:00.25,\"a,\"\"b\"\"\",\"[1, 2]\"\n" +
			"-2,170141183460469231731687303715884105727,0.1,-0.05,,,\n",
		result.FormatJSON: "[\n" +
			`{"i":1,"h":9223372036854775807,"d":null,"dec":1.50,"ts":"2026-05-01T12:00:00.25Z","s":"a,\"b\"","l":[1,2]},` + "\n" +
			`{"i":-2,"h":170141183460469231731687303715884105727,"d":0.1,"dec":-0.05,"ts":null,"s":null,"l":null}` + "\n]\n",
		result.FormatNDJSON: `{"i":1,"h":9223372036854775807,"d":null,"dec":1.50,"ts":"2026-05-01T12:00:00.25Z","s":"a,\"b\"","l":[1,2]}` + "\n" +
			`{"i":-2,"h":170141183460469231731687303715884105727,"d":0.1,"dec":-0.05,"ts":null,"s":null,"l":null}` + "\n",
	} {
		out, _, err := n.askAs(query.Request{SQL: sql, Format: format})
		if err != nil {
			t.Fatal(err)
		}
		if out != want {
			t.Errorf("%s:\n%s\nwant:\n%s", format, out, want)
		}
	}
	out, _, err := n.askAs(query.Request{SQL: sql})
	if err != nil || !strings.HasSuffix(out, "(2 rows)\n") || !strings.Contains(out, "decimal(9,2)") {
		t.Errorf("table: %v\n%s", err, out)
	}
	var file bytes.Buffer
	sum, err := n.engine.Query(t.Context(), query.Request{SQL: sql, Format: result.FormatParquet}, &file, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil || f.NumRows() != 2 || sum.Rows != 2 || len(f.Schema().Columns()) != 7 {
		t.Errorf("parquet: %v, %+v", err, sum)
	}
}

func TestOrderSurvivesTheCastOfColumns(t *testing.T) {
	n := newNode(t)
	out := n.csv(`SELECT i, [i] AS l FROM range(300000) r(i) ORDER BY (i * 7919) % 300007`)
	last := -1
	for i, line := range strings.Split(strings.TrimSpace(out), "\n")[1:] {
		var v int
		if _, err := fmt.Sscanf(line, "%d,", &v); err != nil {
			t.Fatal(err)
		}
		key := v * 7919 % 300007
		if key <= last {
			t.Fatalf("row %d: out of order", i)
		}
		last = key
	}
}

func TestPartitionColumnsCompareWithNumbersAndTexts(t *testing.T) {
	n := newNode(t)
	id := n.table("samples", lake.Portable)
	n.put(id, noon, "a", "1")
	n.put(id, noon.AddDate(0, 7, 0), "a", "2")
	n.export(id)
	for _, where := range []string{
		"year = 2026 AND month = 5", "year = '2026' AND month = '05'", "month = '5'", "month < 6", "month IN (4, 5)",
		"ts < TIMESTAMP '2026-06-01'", "CAST(ts AS DATE) = DATE '2026-05-01'", "month BETWEEN 5 AND 6",
	} {
		out, sum, err := n.ask("SELECT value, year, month, day FROM samples WHERE " + where)
		if err != nil || out != "value,year,month,day\n1,2026,5,1\n" || sum.Files != 1 {
			t.Errorf("%s: %v, %d files\n%s", where, err, sum.Files, out)
		}
	}
}

func TestColumnsOfLaterFilesAreNullInEarlierOnes(t *testing.T) {
	n := newNode(t)
	id := n.table("machines", lake.Columns)
	n.put(id, noon, "m/1", `{"speed": 1.5}`)
	n.upload(n.export(id))
	n.put(id, noon.AddDate(0, 0, 1), "m/1", `{"speed": 2, "state": "on"}`)
	n.export(id)
	n.put(id, noon.AddDate(0, 0, 2), "m/1", `{"speed": 3, "state": "off", "serial": 9007199254740993}`)
	if got, want := n.csv(`SELECT speed, state, serial FROM machines ORDER BY ts`),
		"speed,state,serial\n1.5,,\n2,on,\n3,off,9007199254740993\n"; got != want {
		t.Errorf("got\n%s", got)
	}
	// Only the first file is read: the columns of the others exist all the same.
	if got := n.csv(`SELECT speed, state, serial, typeof(serial) FROM machines WHERE day = 1`); got !=
		"speed,state,serial,\"typeof(serial)\"\n1.5,,,BIGINT\n" && !strings.HasPrefix(got, "speed,state,serial,typeof(serial)\n1.5,,,BIGINT\n") {
		t.Errorf("got\n%s", got)
	}
}

func TestTableWithoutRowsHasItsColumns(t *testing.T) {
	n := newNode(t)
	n.table("samples", lake.Portable)
	if err := n.cat.EnsureTable(lake.TableSpec{Name: "samples"}, n.cfg); err != nil {
		t.Fatal(err)
	}
	got := n.csv("SELECT * FROM samples")
	if got != "ts,topic,signal,value,text,year,month,day\n" {
		t.Errorf("got %q", got)
	}
	if got := n.csv("SHOW TABLES"); !strings.Contains(got, "samples") {
		t.Errorf("SHOW TABLES: %q", got)
	}
	if got := n.csv("DESCRIBE samples"); !strings.Contains(got, "value,DOUBLE") || !strings.Contains(got, "month,INTEGER") {
		t.Errorf("DESCRIBE: %q", got)
	}
}

func TestStatementErrorsTellThePlace(t *testing.T) {
	n := newNode(t)
	_, _, err := n.ask("SELECT 1,\n       speeed\nFROM range(3)")
	se, ok := errors.AsType[*query.StatementError](err)
	if !ok || record.KindOf(err) != record.Invalid {
		t.Fatalf("error %v", err)
	}
	if se.Line != 2 || se.Column != 8 || !strings.Contains(err.Error(), "  "+"       ^") {
		t.Errorf("line %d column %d:\n%v", se.Line, se.Column, err)
	}
	if _, _, err := n.ask("SELEC 1"); record.KindOf(err) != record.Invalid || !strings.Contains(err.Error(), "line 1, column 1") {
		t.Errorf("error %v", err)
	}
	if _, _, err := n.ask("  -- nothing"); record.KindOf(err) != record.Invalid {
		t.Errorf("error %v", err)
	}
}

func TestRowLimit(t *testing.T) {
	n := newNode(t, func(o *nodeOptions) { o.config = func(c *query.Config) { c.MaxRows = 5000 } })
	for limit, want := range map[int64]int64{10: 10, 0: 5000, 6000: 5000} {
		out, sum, err := n.askAs(query.Request{SQL: "SELECT * FROM range(100000)", Format: result.FormatJSON, MaxRows: limit})
		if err != nil || sum.Rows != want || !sum.Truncated {
			t.Errorf("limit %d: %v %+v", limit, err, sum)
		}
		var rows []map[string]int
		if err := json.Unmarshal([]byte(out), &rows); err != nil || int64(len(rows)) != want {
			t.Errorf("limit %d: %d rows, %v", limit, len(rows), err)
		}
	}
	_, sum, err := n.askAs(query.Request{SQL: "SELECT 1", MaxRows: 1})
	if err != nil || sum.Truncated {
		t.Errorf("exactly the limit: %v %+v", err, sum)
	}
}

func TestDeadlineCancelAndQueue(t *testing.T) {
	n := newNode(t, func(o *nodeOptions) {
		o.config = func(c *query.Config) { c.Workers, c.Queue = 1, 1 }
	})
	const forever = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"
	began := time.Now()
	_, _, err := n.askAs(query.Request{SQL: forever, Timeout: 700 * time.Millisecond})
	if record.KindOf(err) != record.Unavailable || !strings.Contains(err.Error(), "longer than") {
		t.Fatalf("deadline: %v", err)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("deadline was kept after %s", d)
	}
	theirs, giveUp := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer giveUp()
	_, err = n.engine.Query(theirs, query.Request{SQL: forever}, io.Discard, func(query.Progress) {})
	if record.KindOf(err) != record.Unavailable || !strings.Contains(err.Error(), "longer than") || record.HintOf(err) == "" {
		t.Fatalf("the caller's deadline: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan struct{})
	ended := make(chan error, 2)
	ask := func() {
		first := true
		_, err := n.engine.Query(ctx, query.Request{SQL: forever}, &bytes.Buffer{}, func(p query.Progress) {
			if first && (p.Stage == "planning" || p.Stage == "waiting") {
				first = false
				running <- struct{}{}
			}
		})
		ended <- err
	}
	go ask()
	<-running
	go ask() // waits
	<-running
	if s := n.engine.Stats(); s.Running != 1 || s.Waiting != 1 {
		t.Errorf("stats %+v", s)
	}
	_, _, err = n.ask("SELECT 1")
	if record.KindOf(err) != record.Throttled {
		t.Errorf("third query: %v", err)
	}
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
	if got := n.csv("SELECT 42 AS x"); got != "x\n42\n" { // a slot is free again
		t.Errorf("got %q", got)
	}
	if s := n.engine.Stats(); s.Running != 0 || s.Waiting != 0 || s.Killed < 2 || s.Refused != 1 {
		t.Errorf("stats %+v", s)
	}
	if left := n.leftovers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What a query writes must not take the room that the log needs to go on.
func TestAQueryThatFillsTheDiskIsEnded(t *testing.T) {
	n := newNode(t, func(o *nodeOptions) { o.minFree = 1 << 60 })
	if got := n.csv("SELECT count(*) AS n FROM range(1000)"); got != "n\n1000\n" {
		t.Errorf("one that writes nothing: %q", got)
	}
	_, _, err := n.askAs(query.Request{SQL: "SELECT random() AS r FROM range(1000000000)", Format: result.FormatParquet})
	if record.KindOf(err) != record.Full || !strings.Contains(record.HintOf(err), "disk.min_free") {
		t.Errorf("one that writes: %v, hint %q", err, record.HintOf(err))
	}
	if left := n.leftovers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWithoutWorkerTheErrorSaysWhatToInstall(t *testing.T) {
	n := newNode(t, func(o *nodeOptions) { o.noSQL = true })
	t.Setenv("PATH", t.TempDir())
	_, _, err := n.ask("SELECT 1")
	if record.KindOf(err) != record.Unavailable || !strings.Contains(err.Error(), "leat-sql") ||
		!strings.Contains(err.Error(), "PATH") || !strings.Contains(record.HintOf(err), "make leat-sql") {
		t.Errorf("error %v, hint %q", err, record.HintOf(err))
	}
	if _, err := query.Locate("/nowhere/leat-sql"); err == nil || !strings.Contains(err.Error(), "/nowhere/leat-sql (sql.binary)") {
		t.Errorf("error %v", err)
	}
}
