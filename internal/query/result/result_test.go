package result_test

import (
	"bytes"
	stdcsv "encoding/csv"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leat-io/leat/internal/query/result"
	"github.com/leat-io/leat/internal/record"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func text(s string) result.Value   { return result.Value{Kind: result.Text, S: []byte(s)} }
func integer(i int64) result.Value { return result.Value{Kind: result.Int, I: i} }
func float(f float64) result.Value { return result.Value{Kind: result.Float, F: f} }

func of(kind result.Kind, s string) result.Value { return result.Value{Kind: kind, S: []byte(s)} }

func sample() ([]result.Column, [][]result.Value) {
	columns := []result.Column{
		{Name: "ts", Type: "TIMESTAMP"}, {Name: "signal", Type: "VARCHAR"}, {Name: "value", Type: "DOUBLE"},
		{Name: "n", Type: "BIGINT"}, {Name: "big", Type: "HUGEINT"}, {Name: "ok", Type: "BOOLEAN"},
		{Name: "doc", Type: "JSON"}, {Name: "raw", Type: "BLOB"}, {Name: "value", Type: "FLOAT"},
	}
	single := func(f float32) result.Value { return result.Value{Kind: result.Float32, F: float64(f)} }
	yes, no := result.Value{Kind: result.Bool, I: 1}, result.Value{Kind: result.Bool}
	null := result.Value{}
	rows := [][]result.Value{
		{of(result.Time, "2026-05-01 12:00:00.25"), text("temp"), float(21.5), integer(math.MaxInt64),
			of(result.Number, "170141183460469231731687303715884105727"), yes, of(result.JSON, `{"a":[1,2]}`), of(result.Blob, "\x00\xff"), single(0.1)},
		{of(result.Time, "2026-05-01 12:00:01+00"), text(`a "quoted", text`), float(math.NaN()), integer(math.MinInt64), null, no, null, null, null},
		{of(result.Time, "infinity"), text("two\nlines\tand \x1b[31mred"), float(math.Inf(-1)), integer(0), of(result.Number, "-1"), null,
			of(result.JSON, "null"), of(result.Blob, ""), single(-0)},
		{null, text(""), float(1e-7), integer(1), null, yes, null, null, single(1e30)},
		{null, text(" Übergrößenträger 温度センサー"), float(123456789012345680), integer(-5), null, yes, null, null, null},
	}
	return columns, rows
}

func write(t *testing.T, format result.Format, width int, truncated bool, columns []result.Column, rows [][]result.Value) string {
	t.Helper()
	var b bytes.Buffer
	w, err := result.New(format, &b, width)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Start(columns); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if err := w.Row(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.End(truncated); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	columns, rows := sample()
	for name, got := range map[string]string{
		"table.txt":       write(t, result.FormatTable, 0, false, columns, rows),
		"table-80.txt":    write(t, result.FormatTable, 80, true, columns, rows),
		"table-empty.txt": write(t, result.FormatTable, 80, false, columns[:2], nil),
		"table-one.txt":   write(t, result.FormatTable, 80, false, columns[:2], [][]result.Value{rows[0][:2]}),
		"rows.csv":        write(t, result.FormatCSV, 0, false, columns, rows),
		"rows.json":       write(t, result.FormatJSON, 0, false, columns, rows),
		"rows.ndjson":     write(t, result.FormatNDJSON, 0, false, columns, rows),
		"empty.json":      write(t, result.FormatJSON, 0, false, columns, nil),
	} {
		path := filepath.Join("testdata", name)
		if *rewrite {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestJSONIsValidAndExact(t *testing.T) {
	columns, rows := sample()
	dec := json.NewDecoder(strings.NewReader(write(t, result.FormatJSON, 0, false, columns, rows)))
	dec.UseNumber()
	var got []map[string]any
	if err := dec.Decode(&got); err != nil || len(got) != len(rows) {
		t.Fatalf("%d rows, %v", len(got), err)
	}
	if got[0]["n"] != json.Number("9223372036854775807") || got[0]["big"] != json.Number("170141183460469231731687303715884105727") {
		t.Errorf("integers: %v %v", got[0]["n"], got[0]["big"])
	}
	if got[1]["value"] != nil || got[2]["value"] != nil {
		t.Errorf("NaN and infinity: %v %v", got[1]["value"], got[2]["value"])
	}
	if got[0]["value_1"] != json.Number("0.1") {
		t.Errorf("second column of one name: %v", got[0]["value_1"])
	}
	for _, line := range strings.Split(strings.TrimSpace(write(t, result.FormatNDJSON, 0, false, columns, rows)), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
}

// Whatever the text, a CSV reader gets it back, a JSON reader gets valid UTF-8, and a table keeps its lines.
func TestTextsSurvive(t *testing.T) {
	columns := []result.Column{{Name: "a", Type: "VARCHAR"}, {Name: "b", Type: "VARCHAR"}}
	rapid.Check(t, func(rt *rapid.T) {
		a, b := rapid.String().Draw(rt, "a"), rapid.String().Draw(rt, "b")
		rows := [][]result.Value{{text(a), text(b)}}
		out := write(t, result.FormatCSV, 0, false, columns, rows)
		got, err := stdcsv.NewReader(strings.NewReader(out)).ReadAll()
		fold := func(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") } // what encoding/csv does in quotes
		if err != nil || len(got) != 2 || got[1][0] != fold(a) || got[1][1] != fold(b) {
			rt.Fatalf("%q %q: %q, %v", a, b, got, err)
		}
		var objects []map[string]string
		if err := json.Unmarshal([]byte(write(t, result.FormatJSON, 0, false, columns, rows)), &objects); err != nil ||
			objects[0]["a"] != strings.ToValidUTF8(a, "\ufffd") && utf8.ValidString(a) {
			rt.Fatalf("%q: %v, %v", a, objects, err)
		}
		if lines := strings.Count(write(t, result.FormatTable, 40, false, columns, rows), "\n"); lines != 5 {
			rt.Fatalf("%q %q: table of %d lines", a, b, lines)
		}
	})
}

func TestManyRowsAreStreamed(t *testing.T) {
	columns := []result.Column{{Name: "n", Type: "BIGINT"}, {Name: "s", Type: "VARCHAR"}}
	var b bytes.Buffer
	w, err := result.New(result.FormatTable, &b, 40)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Start(columns); err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		before := b.Len()
		if err := w.Row([]result.Value{integer(int64(i)), text(strings.Repeat("x", i))}); err != nil {
			t.Fatal(err)
		}
		if i > 1000 && b.Len() == before {
			t.Fatalf("row %d is held back", i)
		}
	}
	if err := w.End(false); err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(b.String(), "\n") {
		if n := utf8.RuneCountInString(line); n > 40 {
			t.Fatalf("line of %d columns: %s", n, line)
		}
	}
}

func TestUnknownFormat(t *testing.T) {
	for _, f := range []result.Format{"", "xml", "CSV"} {
		if err := f.Validate(); record.KindOf(err) != record.Invalid {
			t.Errorf("%q: %v", f, err)
		}
		if _, err := result.New(f, nil, 0); err == nil {
			t.Errorf("%q: a writer was made", f)
		}
	}
	for _, f := range result.Formats() {
		if err := f.Validate(); err != nil || f.ContentType() == "" {
			t.Errorf("%q: %v", f, err)
		}
	}
}
