package lake_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
)

func TestPortableKeepsEveryValueExactly(t *testing.T) {
	type want = map[string]any
	cases := []struct {
		name string
		in   payload.Value
		want want // of value and text
	}{
		{"float", float(12.345), want{"value": 12.345}},
		{"negative zero", float(math.Copysign(0, -1)), want{"value": math.Copysign(0, -1)}},
		{"infinity", float(math.Inf(1)), want{"value": math.Inf(1)}},
		{"small integer", integer(-7), want{"value": -7.0}},
		{"largest exact integer", integer(1 << 53), want{"value": float64(1 << 53)}},
		{"integer beyond float64", integer(1<<53 + 1), want{"value": float64(1 << 53), "text": "9007199254740993"}},
		{"smallest int64", integer(math.MinInt64), want{"value": float64(math.MinInt64), "text": "-9223372036854775808"}},
		{"big number", payload.Value{Kind: payload.BigNumber, S: []byte("18446744073709551616")}, want{"value": 18446744073709551616.0, "text": "18446744073709551616"}},
		{"true", payload.Value{Kind: payload.Bool, I: 1}, want{"value": 1.0, "text": "true"}},
		{"false", payload.Value{Kind: payload.Bool}, want{"value": 0.0, "text": "false"}},
		{"text", text("läuft"), want{"text": "läuft"}},
		{"empty text", text(""), want{"text": ""}},
		{"json", payload.Value{Kind: payload.JSON, S: []byte(`{"a":[1]}`)}, want{"text": `{"a":[1]}`}},
		{"time", payload.Value{Kind: payload.Time, I: 1_500_000_001}, want{"text": "1970-01-01T00:00:01.500000001Z"}},
		{"null", payload.Value{}, want{}},
	}
	b := newBench(t)
	rows := make([]payload.Row, len(cases))
	for i, c := range cases {
		rows[i] = payload.Row{Signal: fmt.Appendf(nil, "s%02d", i), Value: c.in, Labels: fields("site", text("A"))}
	}
	got, res := b.encode(lake.DefaultConfig(), lake.TableSpec{Name: "samples"}, rows...)
	if len(got) != len(cases) || res.Rows != int64(len(cases)) {
		t.Fatalf("%d rows in the files, %d in the result, want %d", len(got), res.Rows, len(cases))
	}
	for i, c := range cases {
		c.want["ts"] = day1.UnixMilli() + int64(i)*1000
		c.want["topic"], c.want["signal"], c.want["site"] = "plant/a", fmt.Sprintf("s%02d", i), "A"
		if diff := cmp.Diff(map[string]any(c.want), got[i]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestColumnTypesAreFixedByTheFirstValue(t *testing.T) {
	big := int64(1<<53 + 1)
	first := fields("Temp °C", float(1.5), "n", integer(1), "id", integer(big), "on", payload.Value{Kind: payload.Bool, I: 1},
		"name", text("x"), "list", payload.Value{Kind: payload.JSON, S: []byte("[1]")},
		"at", payload.Value{Kind: payload.Time, I: 5_000_000}, "nothing", payload.Value{})
	second := fields("Temp °C", text("warm"), "n", integer(big), "id", float(0.5), "on", integer(1), "name", float(2),
		"list", text("x"), "at", payload.Value{Kind: payload.Time, I: 5_000_001},
		"nothing", payload.Value{Kind: payload.BigNumber, S: []byte("123456789012345678901")})
	third := fields("temp_°c", float(3), "id", float(7), "year", float(2026), "ts", text("t"), "1st", float(1), "_", float(0))
	b := newBench(t)
	spec := lake.TableSpec{Name: "messages", Layout: lake.Columns}
	got, _ := b.encode(lake.DefaultConfig(), spec, payload.Row{Fields: first}, payload.Row{Fields: second}, payload.Row{Fields: third})
	ms := day1.UnixMilli()
	want := []map[string]any{
		{"ts": ms, "topic": "plant/a", "temp__c": 1.5, "n": 1.0, "id": big, "on": true, "name": "x", "list": "[1]", "at": int64(5000)},
		{
			"ts": ms + 1000, "topic": "plant/a", "list": `"x"`,
			"_extra": `{"Temp °C":"warm","n":9007199254740993,"id":0.5,"on":1,"name":2,"at":"1970-01-01T00:00:00.005000001Z","nothing":123456789012345678901}`,
		},
		{"ts": ms + 2000, "topic": "plant/a", "temp__c_2": 3.0, "id": int64(7), "year_": 2026.0, "ts_": "t", "c_1st": 1.0, "field_": 0.0},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s := must2(b.cat.Schema("messages"))
	var types []string
	for _, c := range s.Columns {
		types = append(types, c.Name+" "+c.Type.String())
	}
	wantTypes := "ts timestamp, topic text, temp__c double, n double, id bigint, on boolean, name text, list json, " +
		"at timestamp, nothing double, _extra json, temp__c_2 double, year_ double, ts_ text, c_1st double, field_ double"
	if got := strings.Join(types, ", "); got != wantTypes {
		t.Errorf("columns\n%s\nwant\n%s", got, wantTypes)
	}
}

func TestDeclaredAndPinnedColumns(t *testing.T) {
	b := newBench(t)
	spec := lake.TableSpec{Name: "m", Layout: lake.Columns, Declared: []lake.Column{
		{Name: "serial", Type: lake.Text}, {Name: "total", Source: "Total-Wh", Type: lake.Bigint},
	}}
	row := payload.Row{Fields: fields("serial", integer(4711), "Total-Wh", float(12), "other", float(1))}
	got, _ := b.encode(lake.DefaultConfig(), spec, row)
	want := []map[string]any{{"ts": day1.UnixMilli(), "topic": "plant/a", "serial": "4711", "total": int64(12), "other": 1.0}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("declared (-want +got):\n%s", diff)
	}
	spec.Declared[0].Type = lake.Double
	if err := b.cat.EnsureTable(spec, lake.DefaultConfig()); record.KindOf(err) != record.Invalid {
		t.Errorf("another type for a column gives %v", err)
	}
	if err := b.cat.EnsureTable(lake.TableSpec{Name: "m"}, lake.DefaultConfig()); record.KindOf(err) != record.Invalid {
		t.Errorf("another layout gives %v", err)
	}

	other := newBench(t)
	pinned := must2(b.cat.Schema("m"))
	pinned.Columns = pinned.Columns[:4] // ts, topic, serial, total
	row.Labels = fields("site", text("A"))
	got, _ = other.encode(lake.DefaultConfig(), lake.TableSpec{Name: "m", Layout: lake.Columns, Pinned: &pinned}, row)
	want = []map[string]any{{
		"ts": day1.UnixMilli(), "topic": "plant/a", "serial": "4711", "total": int64(12), "_extra": `{"site":"A","other":1}`,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pinned (-want +got):\n%s", diff)
	}
}

func TestColumnsBeyondTheLimitGoToExtra(t *testing.T) {
	b := newBench(t)
	var rows []payload.Row
	for i := range 12 {
		var f []payload.Field
		for j := range 100 {
			f = append(f, payload.Field{Name: fmt.Sprintf("f%d", i*100+j), Value: float(float64(j))})
		}
		rows = append(rows, payload.Row{Fields: f})
	}
	got, res := b.encode(lake.DefaultConfig(), lake.TableSpec{Name: "wide", Layout: lake.Columns}, rows...)
	s := must2(b.cat.Schema("wide"))
	if n := len(s.Columns); n > lake.MaxColumns || n < lake.MaxColumns-20 {
		t.Errorf("%d columns", n)
	}
	values := 0
	for _, row := range got {
		for name := range row {
			if strings.HasPrefix(name, "f") {
				values++
			}
		}
		if extra, ok := row["_extra"].(string); ok {
			values += strings.Count(extra, ":")
		}
	}
	if values != 1200 || res.Rows != 12 {
		t.Errorf("%d values in %d rows, want 1200 in 12", values, res.Rows)
	}
}

func TestTimeUnitWidensForGoodAndIsNeverLostSilently(t *testing.T) {
	at := func(ns int64) payload.Row {
		return payload.Row{Time: day1.UnixNano() + ns, HasTime: true, Signal: []byte("s"), Value: float(1)}
	}
	b := newBench(t)
	cfg := lake.DefaultConfig()
	got, res := b.encode(cfg, lake.TableSpec{Name: "t"}, at(5e6), payload.Row{Signal: []byte("r"), Value: float(1)})
	if got[1]["ts"] != day1.UnixMilli()+5 || res.TimesRounded != 0 {
		t.Errorf("milliseconds: %v, %d rounded", got[1]["ts"], res.TimesRounded)
	}
	got, res = b.encode(cfg, lake.TableSpec{Name: "t"}, at(5_123_000), at(7_000_001))
	if got[0]["ts"] != day1.UnixMicro()+5123 || got[1]["ts"] != day1.UnixMicro()+7000 || res.TimesRounded != 1 {
		t.Errorf("microseconds: %v, %v, %d rounded", got[0]["ts"], got[1]["ts"], res.TimesRounded)
	}
	if res.Files[0].MinTime != day1.UnixNano()+5_123_000 || res.Files[0].MaxTime != day1.UnixNano()+7_000_000 {
		t.Errorf("file times %d, %d", res.Files[0].MinTime, res.Files[0].MaxTime)
	}
	if s := must2(b.cat.Schema("t")); s.TimeUnit != lake.Micro {
		t.Errorf("unit is %v", s.TimeUnit)
	}
	cfg.TimeUnit = lake.Nano
	got, res = b.encode(cfg, lake.TableSpec{Name: "n"}, at(7_000_001))
	if got[0]["ts"] != day1.UnixNano()+7_000_001 || res.TimesRounded != 0 {
		t.Errorf("nanoseconds: %v, %d rounded", got[0]["ts"], res.TimesRounded)
	}
	cfg.TimeUnit = lake.Milli
	got, res = b.encode(cfg, lake.TableSpec{Name: "f"}, at(7_999_999))
	if got[0]["ts"] != day1.UnixMilli()+7 || res.TimesRounded != 1 {
		t.Errorf("fixed milliseconds: %v, %d rounded", got[0]["ts"], res.TimesRounded)
	}
}

func TestProvenanceColumns(t *testing.T) {
	b := newBench(t)
	cfg := lake.DefaultConfig()
	cfg.Provenance = true
	got, _ := b.encode(cfg, lake.TableSpec{Name: "p"},
		payload.Row{Time: day1.Add(-time.Hour).UnixNano(), HasTime: true, Signal: []byte("s"), Value: float(1)})
	want := []map[string]any{{
		"ts": day1.Add(-time.Hour).UnixMilli(), "topic": "plant/a", "signal": "s", "value": 1.0,
		"_node": "a1b2c3d4e5f6", "_seq": int64(0), "_received": day1.UnixMicro(),
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
