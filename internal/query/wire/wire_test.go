package wire_test

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/leat-io/leat/internal/query/wire"
)

func TestFramesRoundTrip(t *testing.T) {
	var b bytes.Buffer
	want := wire.Request{SQL: "SELECT 1", Tables: []wire.Table{{Name: "t", Columns: []wire.Column{{Name: "a", Type: "DOUBLE"}}}}}
	if err := wire.WriteJSON(&b, wire.TypeRequest, want); err != nil {
		t.Fatal(err)
	}
	if err := wire.Write(&b, wire.TypeData, nil); err != nil {
		t.Fatal(err)
	}
	var got wire.Request
	if err := wire.ReadJSON(&b, wire.TypeRequest, &got); err != nil || got.SQL != want.SQL || got.Tables[0].Columns[0].Type != "DOUBLE" {
		t.Errorf("%+v %v", got, err)
	}
	if typ, payload, err := wire.Read(&b, nil); typ != wire.TypeData || len(payload) != 0 || err != nil {
		t.Errorf("%q %v %v", byte(typ), payload, err)
	}
	if _, _, err := wire.Read(&b, nil); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestDamagedFrames(t *testing.T) {
	for name, in := range map[string]string{
		"torn head": "D\x00\x00", "torn payload": "D\x00\x00\x00\x05abc", "too large": "D\xff\xff\xff\xff",
	} {
		if _, _, err := wire.Read(strings.NewReader(in), nil); err == nil || err == io.EOF {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := wire.Write(io.Discard, wire.TypeData, make([]byte, wire.MaxFrame+1)); err == nil {
		t.Error("a frame above the limit was written")
	}
	var v wire.Go
	if err := wire.ReadJSON(strings.NewReader("Z\x00\x00\x00\x02{}"), wire.TypeGo, &v); err == nil {
		t.Error("a frame of another type was taken")
	}
	if err := wire.ReadJSON(strings.NewReader("G\x00\x00\x00\x01{"), wire.TypeGo, &v); err == nil {
		t.Error("broken JSON was taken")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("D\x00\x00\x00\x03abc"))
	f.Add([]byte("P\x00\x00\x00\x02{}Z\x00\x00\x00\x00"))
	f.Add([]byte("D\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		for {
			_, payload, err := wire.Read(r, nil)
			if err != nil {
				return
			}
			if len(payload) > len(in) {
				t.Fatalf("payload of %d bytes out of %d", len(payload), len(in))
			}
		}
	})
}

func FuzzFilter(f *testing.F) {
	f.Add([]byte(`{"op":"and","args":[{"op":"=","column":"year","value":2026},{"op":">","column":"ts","micros":5}]}`), int64(1), int64(9))
	f.Fuzz(func(t *testing.T, in []byte, lo, hi int64) {
		var filter wire.Filter
		if json.Unmarshal(in, &filter) == nil {
			filter.May(wire.Extent{Partition: map[string]int64{"year": lo}, Min: min(lo, hi), Max: max(lo, hi), HasTime: true})
		}
	})
}

// row is one row, for which filters are evaluated exactly.
type row struct{ day, ts int64 }

func holds(f wire.Filter, r row) bool {
	cmp := func(v, bound float64) bool {
		switch f.Op {
		case "<":
			return v < bound
		case "<=":
			return v <= bound
		case ">":
			return v > bound
		case ">=":
			return v >= bound
		}
		return v == bound
	}
	switch {
	case f.Op == "true":
		return true
	case f.Op == "and":
		for _, a := range f.Args {
			if !holds(a, r) {
				return false
			}
		}
		return true
	case f.Op == "or":
		for _, a := range f.Args {
			if holds(a, r) {
				return true
			}
		}
		return false
	case f.Column == "day":
		return cmp(float64(r.day), f.Value)
	case f.Column == wire.ColumnDate:
		const day = 86_400_000_000
		return cmp(float64((r.ts/day)*day), float64(f.Micros))
	}
	return cmp(float64(r.ts), float64(f.Micros))
}

// A file that holds a row which fulfils the filter is never rejected.
func TestMayNeverRejectsAFileWithARowOfInterest(t *testing.T) {
	const day = 86_400_000_000
	var gen func(depth int) *rapid.Generator[wire.Filter]
	gen = func(depth int) *rapid.Generator[wire.Filter] {
		return rapid.Custom(func(t *rapid.T) wire.Filter {
			if depth > 0 && rapid.Bool().Draw(t, "inner") {
				f := wire.Filter{Op: rapid.SampledFrom([]string{"and", "or"}).Draw(t, "op")}
				f.Args = rapid.SliceOfN(gen(depth-1), 1, 3).Draw(t, "args")
				return f
			}
			if rapid.IntRange(0, 9).Draw(t, "unknown") == 0 {
				return wire.Always()
			}
			return wire.Filter{
				Op:     rapid.SampledFrom([]string{"=", "<", "<=", ">", ">="}).Draw(t, "op"),
				Column: rapid.SampledFrom([]string{"day", wire.ColumnTime, wire.ColumnDate}).Draw(t, "column"),
				Value:  float64(rapid.IntRange(0, 8).Draw(t, "value")) / 2,
				Micros: rapid.Int64Range(0, 8).Draw(t, "micros") * day / 2,
			}
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		f := gen(3).Draw(t, "filter")
		times := rapid.SliceOfN(rapid.Int64Range(0, 8), 1, 4).Draw(t, "times")
		d := rapid.Int64Range(0, 4).Draw(t, "day")
		e := wire.Extent{Partition: map[string]int64{"day": d}, Min: times[0] * day / 2, Max: times[0] * day / 2, HasTime: true}
		interest := false
		for _, tm := range times {
			ts := tm * day / 2
			e.Min, e.Max = min(e.Min, ts), max(e.Max, ts)
			interest = interest || holds(f, row{d, ts})
		}
		if interest && !f.May(e) {
			t.Fatalf("%+v rejects %+v", f, e)
		}
	})
}
