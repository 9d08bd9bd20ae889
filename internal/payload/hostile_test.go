package payload_test

import (
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
)

// TestHugePayloads meets every limit: no panic, no more rows than allowed, short errors, and buffers are given back.
func TestHugePayloads(t *testing.T) {
	const size = 2 << 20
	fill := func(head, piece, tail string) []byte {
		return []byte(head + strings.Repeat(piece, (size-len(head)-len(tail))/len(piece)) + tail)
	}
	all := map[string]payload.Decoder{
		"auto":         decoder(t, payload.Config{}, payload.TimeConfig{}, false),
		"columns":      decoder(t, payload.Config{}, payload.TimeConfig{}, true),
		"json":         decoder(t, payload.Config{Type: payload.JSONObject}, payload.TimeConfig{Field: "ts", Format: "s"}, true),
		"json_signals": decoder(t, payload.Config{Type: payload.JSONSignals}, payload.TimeConfig{}, false),
		"number":       decoder(t, payload.Config{Type: payload.Number}, payload.TimeConfig{}, false),
		"bool":         decoder(t, payload.Config{Type: payload.Boolean}, payload.TimeConfig{}, false),
		"raw":          decoder(t, payload.Config{Type: payload.Raw}, payload.TimeConfig{}, true),
	}
	for name, doc := range map[string][]byte{
		"numbers":         fill("[", "1,", "1]"),
		"nested":          fill("", "[", ""),
		"objects":         fill("[", "{},", "{}]"),
		"digits":          fill("", "9", ""),
		"fraction":        fill("0.", "9", ""),
		"one string":      fill(`{"a":"`, "x", `"}`),
		"escapes":         fill(`{"a":"`, `\u00e9`, `"}`),
		"one name":        fill(`{"`, "x", `":1}`),
		"escaped name":    fill(`{"`, `\u0041`, `":{"b":1}}`),
		"long path":       fill(`{"`+strings.Repeat("x", 1000)+`":[`, "1,", "1]}"),
		"many long names": fill(`{"a":{`, `"`+strings.Repeat("y", 900)+`":[1,2,3,4],`, `"b":1}}`),
		"white space":     fill("", " ", "1"),
		"zero bytes":      fill("", "\x00", ""),
		"zeros":           fill("", "0", "1"),
		"not UTF-8":       fill("", "\xff", ""),
		"time of digits":  fill(`{"v":1,"ts":`, "9", `}`),
		"time of text":    fill(`{"v":1,"ts":"`, "9", `"}`),
	} {
		for parser, d := range all {
			rows, err := d.Decode(&record.Record{Payload: doc}, nil)
			if len(rows) > payload.MaxValues {
				t.Errorf("%s, %s: %d rows", name, parser, len(rows))
			}
			if err != nil && len(err.Error()) > 300 {
				t.Errorf("%s, %s: an error of %d bytes", name, parser, len(err.Error()))
			}
		}
	}
}

func BenchmarkHuge(b *testing.B) {
	for name, piece := range map[string]string{"numbers": "[1,2.5],", "objects": `{"ts":1790000000,"v":{"a":1,"b":"x"}},`} {
		b.Run(name, func(b *testing.B) {
			doc := []byte("[" + strings.Repeat(piece, 10_000) + "0]")
			if strings.HasPrefix(piece, "{") {
				doc = []byte("[" + strings.Repeat(piece, 10_000) + "{}]")
			}
			d := decoder(b, payload.Config{}, payload.TimeConfig{}, false)
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			var rows []payload.Row
			for b.Loop() {
				var err error
				if rows, err = d.Decode(&record.Record{Payload: doc}, rows[:0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
