package payload_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
)

// show writes rows the way the tables below want them: signal=value, with @time when the row has one.
func show(rows []payload.Row) string {
	var parts []string
	for _, r := range rows {
		var s string
		if r.Fields != nil {
			var fields []string
			for _, f := range r.Fields {
				fields = append(fields, f.Name+"="+showValue(f.Value))
			}
			s = "{" + strings.Join(fields, " ") + "}"
		} else {
			s = string(r.Signal) + "=" + showValue(r.Value)
		}
		if r.HasTime {
			s += fmt.Sprintf(" @%s", time.Unix(0, r.Time).UTC().Format("2006-01-02T15:04:05.999999999"))
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, "\n")
}

func showValue(v payload.Value) string {
	switch v.Kind {
	case payload.Null:
		return "null"
	case payload.Bool:
		return fmt.Sprintf("bool:%d", v.I)
	case payload.Int:
		return fmt.Sprintf("int:%d", v.I)
	case payload.Float:
		return fmt.Sprintf("float:%v", v.F)
	case payload.Text:
		return fmt.Sprintf("text:%q", v.S)
	case payload.JSON:
		return fmt.Sprintf("json:%s", v.S)
	case payload.BigNumber:
		return fmt.Sprintf("big:%s", v.S)
	}
	return fmt.Sprintf("kind %d", v.Kind)
}

func decoder(t testing.TB, c payload.Config, tc payload.TimeConfig, columns bool) payload.Decoder {
	t.Helper()
	d, err := payload.New(c, tc, columns)
	if err != nil {
		t.Fatalf("New(%+v, %+v): %v", c, tc, err)
	}
	return d
}

type decodeCase struct {
	name    string
	config  payload.Config
	time    payload.TimeConfig
	columns bool
	payload string
	want    string // rows, or "error: " and a part of the reason
}

func runCases(t *testing.T, cases []decodeCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := decoder(t, c.config, c.time, c.columns)
			before := c.payload
			rec := &record.Record{Key: []byte("a/b"), Payload: []byte(c.payload)}
			for round := range 2 { // the second meets what the first left in the decoder
				rows, err := d.Decode(rec, nil)
				if reason, ok := strings.CutPrefix(c.want, "error: "); ok {
					if err == nil || !strings.Contains(err.Error(), reason) || record.KindOf(err) != record.Invalid {
						t.Fatalf("round %d: error %v, want one with %q; rows:\n%s", round, err, reason, show(rows))
					}
					continue
				}
				if err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				if got := show(rows); got != c.want {
					t.Errorf("round %d:\ngot  %s\nwant %s", round, got, c.want)
				}
				for _, r := range rows {
					if string(r.Topic) != "a/b" {
						t.Errorf("topic %q", r.Topic)
					}
				}
			}
			if string(rec.Payload) != before {
				t.Errorf("payload changed to %q", rec.Payload)
			}
		})
	}
}

func TestAuto(t *testing.T) {
	runCases(t, []decodeCase{
		{name: "object with time", payload: `{"ts":1790000000000,"value":21.5}`, want: "value=float:21.5 @2026-09-21T14:13:20"},
		{name: "time behind the value", payload: `{"value":7,"timestamp":"2026-01-02T03:04:05.000000006Z"}`,
			want: "value=int:7 @2026-01-02T03:04:05.000000006"},
		{name: "time in seconds with a fraction", payload: `{"time":1790000000.123456789,"v":1}`, want: "v=int:1 @2026-09-21T14:13:20.123456789"},
		{name: "time in microseconds as text", payload: `{"ts":"1790000000000001","v":1}`, want: "v=int:1 @2026-09-21T14:13:20.000001"},
		{name: "time in nanoseconds", payload: `{"ts":1790000000000000001,"v":1}`, want: "v=int:1 @2026-09-21T14:13:20.000000001"},
		{name: "implausible time is a value", payload: `{"ts":17,"v":1}`, want: "ts=int:17\nv=int:1"},
		{name: "time by received", time: payload.TimeConfig{Format: "received"}, payload: `{"ts":1790000000000,"v":1}`,
			want: "ts=int:1790000000000\nv=int:1"},
		{name: "nested and arrays", payload: `{"a":{"b":{"c":1},"d":[true,null,{"e":"x"}]},"f":-2}`,
			want: "a.b.c=int:1\na.d.0=bool:1\na.d.1=null\na.d.2.e=text:\"x\"\nf=int:-2"},
		{name: "arrays as JSON", config: payload.Config{Arrays: "json"}, payload: `{"a":[1, {"b":2}],"c":{"d":[]}}`,
			want: "a=json:[1, {\"b\":2}]\nc.d=json:[]"},
		{name: "escaped names and text", payload: `{"a\u00e9":{"\"q\"":"x\ny"},"z\\":"\ud83d\ude00"}`,
			want: "aé.\"q\"=text:\"x\\ny\"\nz\\=text:\"😀\""},
		{name: "array of objects", payload: `[{"ts":1790000000,"v":1},{"v":2}]`, want: "v=int:1 @2026-09-21T14:13:20\nv=int:2"},
		{name: "array of scalars", payload: `[1,2.5,"x",[3]]`, want: "0=int:1\n1=float:2.5\n2=text:\"x\"\n3.0=int:3"},
		{name: "mixed array", payload: `[{"v":1},2]`, want: "error: array of objects and other values"},
		{name: "bare number", payload: " 21.5\n", want: "value=float:21.5"},
		{name: "bare true", payload: "true", want: "value=bool:1"},
		{name: "bare false", payload: "false", want: "value=bool:0"},
		{name: "bare null", payload: "null", want: "value=null"},
		{name: "bare string", payload: `"a\tb"`, want: `value=text:"a\tb"`},
		{name: "bare text", payload: "hello wörld", want: `value=text:"hello wörld"`},
		{name: "number-like text", payload: "007", want: `value=text:"007"`},
		{name: "other name", config: payload.Config{Signal: "reading"}, payload: "5", want: "reading=int:5"},
		{name: "column layout", columns: true, payload: `{"ts":1790000000,"a":{"b":1},"c":null}`, want: "{a.b=int:1 c=null} @2026-09-21T14:13:20"},
		{name: "column layout, bare", columns: true, payload: `5`, want: "{value=int:5}"},
		{name: "column layout, many", columns: true, payload: `[{"a":1},{"a":2}]`, want: "{a=int:1}\n{a=int:2}"},
		{name: "column twice", columns: true, payload: `{"a.b":1,"a":{"b":2}}`, want: `error: two values for column "a.b"`},
		{name: "same path in portable", payload: `{"a.b":1,"a":{"b":2}}`, want: "a.b=int:1\na.b=int:2"},
		{name: "duplicate name", payload: `{"a":1,"a":2}`, want: "error: duplicate member name"},
		{name: "empty", payload: "", want: "error: empty payload"},
		{name: "white space", payload: " \n", want: "error: empty payload"},
		{name: "empty object", payload: "{}", want: "error: no values"},
		{name: "nothing but a time", payload: `{"ts":1790000000}`, want: "error: no values"},
		{name: "empty name", payload: `{"":1}`, want: "error: member without a name"},
		{name: "control character in a name", payload: `{"a\u0000":1}`, want: "error: control character"},
		{name: "cut", payload: `{"a":1`, want: "error: ends early, after 6 bytes"},
		{name: "cut in a string", payload: `{"a":"x`, want: "error: ends early"},
		{name: "no JSON", payload: `{a:1}`, want: "error: invalid character 'a'"},
		{name: "NaN", payload: `{"a":NaN}`, want: "error: invalid character 'N'"},
		{name: "comma at the end", payload: `{"a":1,}`, want: "error: JSON:"},
		{name: "wrong bracket", payload: `{"a":1]`, want: "error: JSON:"},
		{name: "two documents", payload: `{"a":1} {"a":2}`, want: "error: more than one value"},
		{name: "garbage behind", payload: `{"a":1} x`, want: "error: JSON:"},
		{name: "invalid UTF-8 in JSON", payload: "{\"a\":\"\xff\"}", want: "error: invalid UTF-8"},
		{name: "half a surrogate pair", payload: `{"a":"\ud83d"}`, want: "error: surrogate"},
		{name: "invalid UTF-8 in text", payload: "a\xff", want: "error: invalid UTF-8"},
		{name: "binary", payload: "a\x01", want: "error: control character 0x01 at byte 1"},
		{name: "too deep", payload: strings.Repeat("[", 65) + strings.Repeat("]", 65), want: "error: more than 64 levels"},
		{name: "too many", payload: "[" + strings.Repeat("1,", 65536) + "1]", want: "error: more than 65536 values"},
		{name: "name too long", payload: `{"` + strings.Repeat("n", 1025) + `":1}`, want: "error: name of more than 1024 bytes"},
		{name: "path too long", payload: `{"` + strings.Repeat("n", 1022) + `":{"xy":1}}`, want: "error: name of more than 1024 bytes"},
		{name: "names too long together", payload: `{"` + strings.Repeat("n", 1000) + `":[` + strings.Repeat("1,", 10000) + `1]}`,
			want: "error: names of more than"},
	})
}

func TestNumbersStayExact(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"0", "int:0"},
		{"-0", "float:-0"},
		{"9007199254740993", "int:9007199254740993"},
		{"-9007199254740993", "int:-9007199254740993"},
		{"9223372036854775807", "int:9223372036854775807"},
		{"-9223372036854775808", "int:-9223372036854775808"},
		{"9223372036854775808", "big:9223372036854775808"},
		{"18446744073709551615", "big:18446744073709551615"},
		{"999999999999999999", "int:999999999999999999"},
		{"1000000000000000000", "int:1000000000000000000"},
		{"0.1", "float:0.1"},
		{"1e3", "float:1000"},
		{"1.50e+02", "float:150"},
		{"100.00", "float:100"},
		{"0.000", "float:0"},
		{"-0.0", "float:-0"},
		{"0e5", "float:0"},
		{"21.500000000000000000000000000000000000000000", "float:21.5"},
		{"0.1000000000000000055511151231257827", "float:0.1"},
		{"0.30000000000000004", "float:0.30000000000000004"},
		{"5.684341886080802e-14", "float:5.684341886080802e-14"},
		{"8.007199254740992", "big:8.007199254740992"}, // between two doubles, as numbers of 16 digits may be
		{"8.007199254740993", "float:8.007199254740993"},
		{"9007199254740993.0", "big:9007199254740993.0"},
		{"9007199254740992.0", "float:9.007199254740992e+15"},
		{"3.14159265358979323846264338327950288", "big:3.14159265358979323846264338327950288"},
		{"123456789012345678901234567890.5", "big:123456789012345678901234567890.5"},
		{"1e400", "big:1e400"},
		{"1e-400", "big:1e-400"},
		{"1e99999999999999999999", "big:1e99999999999999999999"},
		{"0e99999999999999999999", "float:0"},
		{"1.7976931348623157e308", "float:1.7976931348623157e+308"},
		{"5e-324", "float:5e-324"},
		{"1.23456e-320", "big:1.23456e-320"},
		{"2.2250738585072014e-308", "float:2.2250738585072014e-308"},
		{"1e22", "float:1e+22"},
		{"1e23", "float:1e+23"},
		{"123456789012345e22", "float:1.23456789012345e+36"},
	} {
		for _, p := range []payload.Config{{}, {Type: payload.Number}} {
			rows, err := decoder(t, p, payload.TimeConfig{}, false).Decode(&record.Record{Payload: []byte(c.in)}, nil)
			if err != nil || showValue(rows[0].Value) != c.want {
				t.Errorf("%s %s: %s, %v, want %s", p.Type, c.in, show(rows), err, c.want)
			}
		}
	}
}

func TestJSONObject(t *testing.T) {
	object := payload.Config{Type: payload.JSONObject}
	runCases(t, []decodeCase{
		{name: "flattened, arrays kept", config: object, columns: true, payload: `{"id":"x","pos":{"lat":1.5,"lon":2},"tags":["a", "b"],"ok":true}`,
			want: `{id=text:"x" pos.lat=float:1.5 pos.lon=int:2 tags=json:["a", "b"] ok=bool:1}`},
		{name: "arrays by index", config: payload.Config{Type: payload.JSONObject, Arrays: "index"}, columns: true,
			payload: `{"tags":["a",{"b":1}]}`, want: `{tags.0=text:"a" tags.1.b=int:1}`},
		{name: "time by path", config: object, columns: true, time: payload.TimeConfig{Field: "meta.at", Format: "s"},
			payload: `{"meta":{"at":1790000000,"n":1},"v":2}`, want: "{meta.n=int:1 v=int:2} @2026-09-21T14:13:20"},
		{name: "no bare values", config: object, columns: true, payload: "5", want: "error: not a JSON object"},
		{name: "no array of scalars", config: object, columns: true, payload: "[5]", want: "error: element 0 of the array is not an object"},
		{name: "portable", config: object, payload: `{"a":{"b":1}}`, want: "a.b=int:1"},
	})
	t.Run("many columns twice", func(t *testing.T) {
		var b strings.Builder
		for i := range 5000 { // more than are interned
			fmt.Fprintf(&b, `"f%d":%d,`, i, i)
		}
		d := decoder(t, object, payload.TimeConfig{}, true)
		rows, err := d.Decode(&record.Record{Payload: []byte("{" + b.String() + `"z":0}`)}, nil)
		if err != nil || len(rows) != 1 || len(rows[0].Fields) != 5001 || rows[0].Fields[4999].Name != "f4999" || rows[0].Fields[4999].Value.I != 4999 {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		if _, err = d.Decode(&record.Record{Payload: []byte("{" + b.String() + `"x.y":0,"x":{"y":1}}`)}, nil); err == nil {
			t.Error("the same column twice among thousands was accepted")
		}
	})
}

func TestEventTime(t *testing.T) {
	for _, c := range []struct{ format, value, want string }{
		{"s", `1790000000`, "2026-09-21T14:13:20"},
		{"s", `"1790000000.5"`, "2026-09-21T14:13:20.5"},
		{"s", `1.79e9`, "2026-09-21T14:13:20"},
		{"s", `-1.5`, "1969-12-31T23:59:58.5"},
		{"s", `1790000000.12345678901234567890`, "2026-09-21T14:13:20.123456789"},
		{"s", `0`, "1970-01-01T00:00:00"},
		{"s", `1e-400`, "1970-01-01T00:00:00"},
		{"ms", `1790000000123`, "2026-09-21T14:13:20.123"},
		{"ms", `1790000000123.4`, "2026-09-21T14:13:20.1234"},
		{"us", `1790000000123456`, "2026-09-21T14:13:20.123456"},
		{"ns", `1790000000123456789`, "2026-09-21T14:13:20.123456789"},
		{"ns", `9223372036854775807`, "2262-04-11T23:47:16.854775807"},
		{"ns", `1790000000123456789.999`, "2026-09-21T14:13:20.123456789"},
		{"rfc3339", `"2026-09-21T16:13:20.25+02:00"`, "2026-09-21T14:13:20.25"},
		{"auto", `"2026-09-21T14:13:20Z"`, "2026-09-21T14:13:20"},
		{"auto", `" 1790000000123 "`, "2026-09-21T14:13:20.123"},
		{"auto", `100000000000000`, "1973-03-03T09:46:40"},
		{"auto", `99999999999999`, "5138-11-16T09:46:39.999 out of range"},
		{"auto", `100000000000000000`, "1973-03-03T09:46:40"},
		{"auto", `100000000000`, "1973-03-03T09:46:40"},
		{"auto", `1000`, "1970-01-01T00:16:40"},
		{"auto", `99999999999`, "5138-11-16T09:46:39 out of range"},
		{"ns", `9223372036854775808`, ""},
		{"s", `9223372037`, ""},
		{"s", `1e300`, ""},
		{"s", `"x"`, ""},
		{"s", `""`, ""},
		{"s", `true`, ""},
		{"s", `{}`, ""},
		{"s", `"2026-09-21T14:13:20Z"`, ""},
		{"rfc3339", `1790000000`, ""},
		{"rfc3339", `"2026-09-21 14:13:20"`, ""},
		{"rfc3339", `"2026-02-30T00:00:00Z"`, ""},
		{"rfc3339", `"1600-01-01T00:00:00Z"`, ""},
		{"rfc3339", `"2300-01-01T00:00:00Z"`, ""},
	} {
		d := decoder(t, payload.Config{}, payload.TimeConfig{Field: "m.at", Format: c.format}, false)
		rows, err := d.Decode(&record.Record{Payload: []byte(`{"v":1,"m":{"at":` + c.value + `}}`)}, nil)
		want := "v=int:1 @" + c.want
		switch {
		case c.want == "" || strings.HasSuffix(c.want, "out of range"):
			if err == nil || !strings.Contains(err.Error(), "time m.at") {
				t.Errorf("%s %s: %s, %v; want an error", c.format, c.value, show(rows), err)
			}
		case err != nil || show(rows) != want:
			t.Errorf("%s %s: %s, %v; want %s", c.format, c.value, show(rows), err, want)
		}
	}
	t.Run("missing or null is the time of arrival", func(t *testing.T) {
		d := decoder(t, payload.Config{}, payload.TimeConfig{Field: "m.at", Format: "s"}, false)
		for _, doc := range []string{`{"v":1}`, `{"v":1,"m":{"at":null}}`, `{"v":1,"m":{}}`} {
			rows, err := d.Decode(&record.Record{Payload: []byte(doc)}, nil)
			if err != nil || show(rows) != "v=int:1" {
				t.Errorf("%s: %s, %v", doc, show(rows), err)
			}
		}
	})
}

func TestSignals(t *testing.T) {
	signals := payload.Config{Type: payload.JSONSignals}
	runCases(t, []decodeCase{
		{name: "names and values", config: signals, payload: `{"temp":21.5,"ok":true}`, want: "temp=float:21.5\nok=bool:1"},
		{name: "array of samples", config: signals,
			payload: `[{"name":"a","value":1,"ts":1790000000},{"ts":1790000001,"value":"x","signal":"b"}]`,
			want:    "a=int:1 @2026-09-21T14:13:20\nb=text:\"x\" @2026-09-21T14:13:21"},
		{name: "root and inherited time", config: payload.Config{Type: payload.JSONSignals, Root: "data.items"},
			payload: `{"ts":1790000000,"data":{"items":[{"name":"a","value":1},{"name":"b","value":2,"ts":1790000001}]}}`,
			want:    "a=int:1 @2026-09-21T14:13:20\nb=int:2 @2026-09-21T14:13:21"},
		{name: "named groups", config: signals, payload: `{"ts":1790000000,"p1":{"t":1,"h":{"in":2}},"p2":{"t":3}}`,
			want: "p1.t=int:1 @2026-09-21T14:13:20\np1.h.in=int:2 @2026-09-21T14:13:20\np2.t=int:3 @2026-09-21T14:13:20"},
		{name: "samples named by key", config: signals, payload: `{"t":{"value":1,"ts":1790000000},"h":{"value":2}}`,
			want: "t=int:1 @2026-09-21T14:13:20\nh=int:2"},
		{name: "series", config: signals, payload: `{"t":[{"ts":1790000000,"value":1},{"ts":1790000001,"value":2}]}`,
			want: "t=int:1 @2026-09-21T14:13:20\nt=int:2 @2026-09-21T14:13:21"},
		{name: "group that names itself", config: signals, payload: `{"name":"pump","items":[{"name":"t","value":1}]}`,
			want: "pump.items.t=int:1"},
		{name: "extra members kept", config: signals, payload: `[{"name":"t","value":1,"unit":"C","q":{"good":true}}]`,
			want: "t=int:1\nt.unit=text:\"C\"\nt.q.good=bool:1"},
		{name: "extra members dropped", config: payload.Config{Type: payload.JSONSignals, Extra: "drop"},
			payload: `[{"name":"t","value":1,"unit":"C"}]`, want: "t=int:1"},
		{name: "other member names", config: payload.Config{Type: payload.JSONSignals, Name: "n", Value: "v"},
			payload: `[{"n":"a","v":1.5},{"n":"b","v":{"x":1,"y":[2]}}]`, want: "a=float:1.5\nb.x=int:1\nb.y.0=int:2"},
		{name: "time of its own unit", config: signals, time: payload.TimeConfig{Field: "t", Format: "ms"},
			payload: `{"t":1790000000000,"a":{"t":1790000000001,"x":1},"b":2}`,
			want:    "a.x=int:1 @2026-09-21T14:13:20.001\nb=int:2 @2026-09-21T14:13:20"},
		{name: "array of scalars", config: signals, payload: `{"a":[1,[2]]}`, want: "a.0=int:1\na.1.0=int:2"},
		{name: "arrays as JSON", config: payload.Config{Type: payload.JSONSignals, Arrays: "json"}, payload: `{"a":[1,2],"b":{"c":[3]}}`,
			want: "a=json:[1,2]\nb.c=json:[3]"},
		{name: "many documents", config: payload.Config{Type: payload.JSONSignals, Root: "s"},
			payload: `[{"s":{"a":1}},{"s":{"a":2}}]`, want: "a=int:1\na=int:2"},
		{name: "long names then short", config: signals, payload: `{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":{"bbbbbbbbbbbbbbbbbbbbbbbbb":{"c":1}},"d":{"e":2}}`,
			want: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbb.c=int:1\nd.e=int:2"},
		{name: "sample without name", config: signals, payload: `{"value":1}`, want: "error: sample without a name"},
		{name: "root missing", config: payload.Config{Type: payload.JSONSignals, Root: "a.b"}, payload: `{"a":1}`, want: "error: no member a.b"},
		{name: "root is no group", config: payload.Config{Type: payload.JSONSignals, Root: "a"}, payload: `{"a":1}`, want: "error: value without a name"},
		{name: "array of scalars at the top", config: signals, payload: `[1]`, want: "error: array of something else than objects"},
		{name: "empty sample name", config: signals, payload: `[{"name":"","value":1}]`, want: "error: name is empty"},
		{name: "bare", config: signals, payload: `1`, want: "error: not a JSON object or array"},
		{name: "empty", config: signals, payload: ``, want: "error: empty payload"},
		{name: "nothing", config: signals, payload: `{"a":[],"b":{}}`, want: "error: no values"},
	})
}

func TestScalars(t *testing.T) {
	number, boolean := payload.Config{Type: payload.Number}, payload.Config{Type: payload.Boolean}
	door := payload.Config{Type: payload.Boolean, TrueWords: []string{"Open"}, FalseWords: []string{"closed"}}
	runCases(t, []decodeCase{
		{name: "number", config: number, payload: " -21.50 \r\n", want: "value=float:-21.5"},
		{name: "plus", config: number, payload: "+5", want: "value=int:5"},
		{name: "leading zeros", config: number, payload: "-007.250e1", want: "value=float:-72.5"},
		{name: "no digit before the point", config: number, payload: "-.5", want: "value=float:-0.5"},
		{name: "no digit behind the point", config: number, payload: "5.", want: "value=int:5"},
		{name: "only a point", config: number, payload: ".", want: "error: not a number"},
		{name: "two signs", config: number, payload: "+-5", want: "error: not a number"},
		{name: "only a sign", config: number, payload: "-", want: "error: not a number"},
		{name: "hexadecimal", config: number, payload: "0x1f", want: "error: not a number"},
		{name: "unit", config: number, payload: "21.5 C", want: "error: not a number"},
		{name: "empty number", config: number, payload: " ", want: "error: empty payload"},
		{name: "NaN", config: number, payload: "nan", want: "error: NaN is not a finite number"},
		{name: "infinity kept", config: payload.Config{Type: payload.Number, NaN: "keep"}, payload: "-Infinity", want: "value=float:-Inf"},
		{name: "NaN as null", config: payload.Config{Type: payload.Number, NaN: "null"}, payload: "NaN", want: "value=null"},
		{name: "number in columns", config: payload.Config{Type: payload.Number, Signal: "t"}, columns: true, payload: "1", want: "{t=int:1}"},
		{name: "ON", config: boolean, payload: "ON\n", want: "value=bool:1"},
		{name: "0", config: boolean, payload: "0", want: "value=bool:0"},
		{name: "maybe", config: boolean, payload: "maybe", want: "error: neither a true word nor a false word"},
		{name: "own words", config: door, payload: "open", want: "value=bool:1"},
		{name: "own words replace", config: door, payload: "true", want: "error: neither"},
		{name: "text", config: payload.Config{Type: payload.PlainText}, payload: " {x\x00", want: `value=text:" {x\x00"`},
		{name: "empty text", config: payload.Config{Type: payload.PlainText}, payload: "", want: `value=text:""`},
		{name: "text that is none", config: payload.Config{Type: payload.PlainText}, payload: "\xff", want: "error: invalid UTF-8"},
		{name: "raw text", config: payload.Config{Type: payload.Raw}, payload: `{"a":1}`, want: `value=text:"{\"a\":1}"`},
		{name: "raw bytes", config: payload.Config{Type: payload.Raw}, payload: "\xff\x00\x01", want: `base64=text:"/wAB"`},
		{name: "raw empty", config: payload.Config{Type: payload.Raw}, payload: "", want: `value=text:""`},
	})
}

func TestBinary(t *testing.T) {
	bin := func(format, order string) payload.Config {
		return payload.Config{Type: payload.Binary, Format: format, Order: order}
	}
	array := func(format, order string) payload.Config {
		c := bin(format, order)
		c.Array = true
		return c
	}
	named := bin("int16", "big")
	named.Names = []string{"x", "y"}
	nan := bin("float32", "big")
	nan.NaN = "reject"
	runCases(t, []decodeCase{
		{name: "float32 little", config: bin("float32", "little"), payload: "\x00\x00\xac\x41", want: "value=float:21.5"},
		{name: "float32 big", config: bin("float32", "big"), payload: "\x41\xac\x00\x00", want: "value=float:21.5"},
		{name: "float64 little", config: bin("float64", "little"), payload: "\x00\x00\x00\x00\x00\x80\x35\x40", want: "value=float:21.5"},
		{name: "float64 big", config: bin("float64", "big"), payload: "\x40\x35\x80\x00\x00\x00\x00\x00", want: "value=float:21.5"},
		{name: "int8", config: bin("int8", ""), payload: "\xff", want: "value=int:-1"},
		{name: "uint8", config: bin("uint8", ""), payload: "\xff", want: "value=int:255"},
		{name: "int16 little", config: bin("int16", "little"), payload: "\xfe\xff", want: "value=int:-2"},
		{name: "uint16 big", config: bin("uint16", "big"), payload: "\xff\xfe", want: "value=int:65534"},
		{name: "int32 big", config: bin("int32", "big"), payload: "\xff\xff\xff\xfe", want: "value=int:-2"},
		{name: "uint32 little", config: bin("uint32", "little"), payload: "\xff\xff\xff\xff", want: "value=int:4294967295"},
		{name: "int64 little", config: bin("int64", "little"), payload: "\x01\x00\x00\x00\x00\x00\x20\x00", want: "value=int:9007199254740993"},
		{name: "uint64 big", config: bin("uint64", "big"), payload: "\xff\xff\xff\xff\xff\xff\xff\xff", want: "value=big:18446744073709551615"},
		{name: "array", config: array("uint64", "big"), payload: "\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x01\x80\x00\x00\x00\x00\x00\x00\x00",
			want: "0=big:18446744073709551615\n1=int:1\n2=big:9223372036854775808"},
		{name: "array of one", config: array("uint8", ""), payload: "\x05", want: "0=int:5"},
		{name: "array in columns", config: array("uint8", ""), columns: true, payload: "\x05\x06", want: "{0=int:5 1=int:6}"},
		{name: "names", config: named, payload: "\x00\x01\x00\x02", want: "x=int:1\ny=int:2"},
		{name: "NaN kept", config: bin("float32", "big"), payload: "\x7f\xc0\x00\x00", want: "value=float:NaN"},
		{name: "NaN rejected", config: nan, payload: "\x7f\xc0\x00\x00", want: "error: NaN is not a finite number"},
		{name: "too short", config: bin("float32", "big"), payload: "\x7f\xc0\x00", want: "error: 3 bytes are not a whole number of 4-byte values"},
		{name: "empty", config: array("int8", ""), payload: "", want: "error: 0 bytes"},
		{name: "two for one", config: bin("int8", ""), payload: "\x01\x02", want: "error: 2 values of 1 bytes, want 1"},
		{name: "two names for three", config: named, payload: "\x00\x01\x00\x02\x00\x03", want: "error: 3 values of 2 bytes, want 2"},
		{name: "too many", config: array("int8", ""), payload: strings.Repeat("x", 65537), want: "error: more than 65536 values"},
	})
}
