package payload_test

import (
	"testing"

	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
)

// shapes are the payloads that devices send most, by parser.
var shapes = []struct {
	name    string
	config  payload.Config
	time    payload.TimeConfig
	columns bool
	payload string
}{
	{"auto", payload.Config{}, payload.TimeConfig{}, false, `{"ts":1790000000000,"value":21.5}`},
	{"auto of 60 bytes", payload.Config{}, payload.TimeConfig{}, false, `{"ts":1790000000000,"value":21.5,"unit":"C","q":true,"n":17}`},
	{"auto with 17 digits", payload.Config{}, payload.TimeConfig{}, false, `{"ts":1790000000000,"value":0.30000000000000004}`},
	{"auto, a bare number", payload.Config{}, payload.TimeConfig{}, false, `21.5`},
	{"nested", payload.Config{}, payload.TimeConfig{Field: "ts", Format: "ms"}, false, `{"ts":1790000000000,"p":{"a":1,"b":{"c":2.5}},"q":[1,2,3]}`},
	{"time as RFC 3339", payload.Config{}, payload.TimeConfig{}, false, `{"ts":"2026-09-21T14:13:20.25Z","value":21.5}`},
	{"columns", payload.Config{Type: payload.JSONObject}, payload.TimeConfig{}, true, `{"ts":1790000000000,"value":21.5,"unit":"C","q":true,"pos":{"x":1,"y":2}}`},
	{"json_signals", payload.Config{Type: payload.JSONSignals}, payload.TimeConfig{}, false,
		`[{"name":"a","value":1,"ts":1790000000},{"name":"b","value":2.5,"ts":1790000001}]`},
	{"number", payload.Config{Type: payload.Number}, payload.TimeConfig{}, false, "21.5"},
	{"bool", payload.Config{Type: payload.Boolean}, payload.TimeConfig{}, false, "ON"},
	{"text", payload.Config{Type: payload.PlainText}, payload.TimeConfig{}, false, "running"},
	{"binary", payload.Config{Type: payload.Binary, Format: "float32", Order: "big", Array: true}, payload.TimeConfig{}, false, "\x41\xac\x00\x00\x41\xac\x00\x00"},
	{"raw", payload.Config{Type: payload.Raw}, payload.TimeConfig{}, false, "\xff\x00\x01"},
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			d := decoder(t, s.config, s.time, s.columns)
			rec := &record.Record{Key: []byte("plant/a/temp"), Payload: []byte(s.payload)}
			var rows []payload.Row
			n := testing.AllocsPerRun(100, func() {
				var err error
				if rows, err = d.Decode(rec, rows[:0]); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 {
				t.Errorf("%v allocations per message, want none", n)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, s := range shapes {
		b.Run(s.name, func(b *testing.B) {
			d := decoder(b, s.config, s.time, s.columns)
			rec := &record.Record{Key: []byte("plant/a/temp"), Payload: []byte(s.payload)}
			var rows []payload.Row
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if rows, err = d.Decode(rec, rows[:0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
