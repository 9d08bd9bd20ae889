package forward

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/record"
)

// The table is Java's: testdata/timestamp/DateTimeTable.java prints it.
func TestTimestampsAreJavas(t *testing.T) {
	table, err := os.ReadFile("testdata/timestamp/table.txt")
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSuffix(string(table), "\n"), "\n")
	if len(rows) < 400 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		cells := strings.Split(row, "\t")
		at, err := time.Parse(time.RFC3339Nano, cells[0])
		if err != nil || len(cells) != 3 {
			t.Fatalf("row %q: %v", row, err)
		}
		got, err := formatTime(cells[1], at.In(time.FixedZone("elsewhere", 5*3600)))
		if text, ok := strings.CutPrefix(cells[2], "="); ok && (err != nil || got != text) {
			t.Errorf("%s %q: %q, %v; Java: %q", cells[0], cells[1], got, err, text)
		} else if !ok && record.KindOf(err) != record.Invalid {
			t.Errorf("%s %q: %q, %v; Java refuses it", cells[0], cells[1], got, err)
		}
	}
}

func TestExpandKey(t *testing.T) {
	at := time.Date(2026, 11, 25, 6, 52, 19, 0, time.UTC)
	for key, want := range map[string]string{
		"a/b":                                    "a/b",
		"!{timestamp:yyyy/MM/dd}":                "2026/11/25",
		"a/!{timestamp:yyyy}-!{timestamp:HH}/b!": "a/2026-06/b!",
		"!{timestamp:}":                          "",
		"$price!{timestamp:yyyy}":                "$price2026",
	} {
		if got, err := expandKey(key, at); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", key, got, err, want)
		}
	}
	for key, about := range map[string]string{
		"!{date:yyyy}": "date", "!{timestamp}": "timestamp", "!{timestamp:yyyy": "not known", "!{timestamp:yyyy/bb}": `"bb"`,
		"!{Timestamp:yyyy}": "Timestamp", "!{timestamp:B}": `"B"`, "!{timestamp:ppH}": `"pp"`,
	} {
		if _, err := expandKey(key, at); record.KindOf(err) != record.Invalid || err == nil || !strings.Contains(err.Error(), about) {
			t.Errorf("%q: %v, want an Invalid error about %s", key, err, about)
		}
	}
}

func FuzzFormatTime(f *testing.F) {
	for _, p := range []string{"yyyy/MM/dd", "'", "''", "[", "]", "'a''b'", "SSSSSSSSSS", "YYYYww", "ü"} {
		f.Add(p, int64(1_764_000_000))
	}
	f.Fuzz(func(t *testing.T, pattern string, unix int64) {
		if len(pattern) > 1024 || unix < 0 || unix > 253402300799 {
			return
		}
		text, err := formatTime(pattern, time.Unix(unix, 0))
		if err != nil && (text != "" || record.KindOf(err) != record.Invalid) {
			t.Fatalf("%q: %q beside %v", pattern, text, err)
		}
	})
}
