package payload_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
)

// parsers are all parsers with their options, in both layouts where both exist.
func parsers(t testing.TB) map[string]payload.Decoder {
	all := map[string]payload.Decoder{}
	for _, c := range []payload.Config{
		{}, {Arrays: "json"},
		{Type: payload.JSONObject}, {Type: payload.JSONObject, Arrays: "index"},
		{Type: payload.JSONSignals}, {Type: payload.JSONSignals, Root: "a", Name: "n", Value: "v", Extra: "drop", Arrays: "json"},
		{Type: payload.Number}, {Type: payload.Number, NaN: "keep"}, {Type: payload.Boolean}, {Type: payload.PlainText}, {Type: payload.Raw},
		{Type: payload.Binary, Format: "float32", Order: "little", Array: true},
		{Type: payload.Binary, Format: "uint64", Order: "big", Array: true},
		{Type: payload.Binary, Format: "int8"},
	} {
		for _, tc := range []payload.TimeConfig{{}, {Field: "a.ts", Format: "ms"}, {Format: "received"}} {
			for _, columns := range []bool{false, true} {
				if columns && c.Type == payload.JSONSignals || tc.Field != "" && !c.IsJSON() {
					continue
				}
				all[fmt.Sprintf("%+v %+v %v", c, tc, columns)] = decoder(t, c, tc, columns)
			}
		}
	}
	return all
}

func seeds(f *testing.F) {
	for _, s := range shapes {
		f.Add([]byte(s.payload))
	}
	for _, s := range []string{
		`{"a":{"ts":1790000000000,"x":[1,{"y":"\u00e9"}]},"n":"N"}`, `[{"n":"x","v":[1,2],"ts":"2026-01-02T03:04:05Z"}]`,
		`{"a":[{"n":"p","v":1.5e300,"u":"C"}]}`, `{"a":9007199254740993,"b":18446744073709551616,"c":0.1000000000000000055511151231257827}`,
		`"\ud83d\ude00"`, `"\ud83d"`, "\xff\xfe", "", " ", "nan", "-.5e3", "{", "[1,", `{"a":1}{`, `{"a":1,"a":2}`, `{"":1}`, "[[[[]]]]",
	} {
		f.Add([]byte(s))
	}
}

// FuzzDecode holds every parser to what Decoder and Row promise, whatever arrives.
func FuzzDecode(f *testing.F) {
	seeds(f)
	all := parsers(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		for name, d := range all {
			rec := &record.Record{Key: []byte("t"), Payload: bytes.Clone(doc)}
			rows, err := d.Decode(rec, nil)
			if !bytes.Equal(rec.Payload, doc) {
				t.Fatalf("%s: payload changed", name)
			}
			if err != nil {
				if record.KindOf(err) != record.Invalid || len(err.Error()) > 300 || !utf8.ValidString(err.Error()) {
					t.Errorf("%s: error %q", name, err)
				}
				continue
			}
			first := fmt.Sprintf("%+v", rows)
			checkRows(t, name, rows, strings.HasSuffix(name, " true"))
			again, err := d.Decode(rec, nil)
			if second := fmt.Sprintf("%+v", again); err != nil || first != second {
				t.Errorf("%s: first %s, then %s, %v", name, first, second, err)
			}
		}
	})
}

func checkRows(t *testing.T, name string, rows []payload.Row, columns bool) {
	if len(rows) == 0 {
		t.Errorf("%s: neither rows nor an error", name)
	}
	for _, r := range rows {
		if columns {
			seen := map[string]bool{}
			for _, f := range r.Fields {
				checkValue(t, name, f.Name, f.Value)
				if seen[f.Name] {
					t.Errorf("%s: field %q twice", name, f.Name)
				}
				seen[f.Name] = true
			}
		} else {
			checkValue(t, name, string(r.Signal), r.Value)
		}
		if (r.Fields != nil) != columns || (len(r.Signal) > 0) == columns || !r.HasTime && r.Time != 0 {
			t.Errorf("%s: row %+v", name, r)
		}
	}
}

func checkValue(t *testing.T, parser, name string, v payload.Value) {
	if name == "" || len(name) > payload.MaxName || !utf8.ValidString(name) {
		t.Errorf("%s: name %q", parser, name)
	}
	want := payload.Value{Kind: v.Kind}
	ok := true
	switch v.Kind {
	case payload.Null:
	case payload.Bool:
		want.I, ok = v.I, v.I == 0 || v.I == 1
	case payload.Int:
		want.I = v.I
	case payload.Float:
		want.F = v.F
		if math.IsNaN(v.F) || math.IsInf(v.F, 0) {
			ok = strings.Contains(parser, "NaN:keep") || strings.Contains(parser, "Type:binary")
			want.F, v.F = 0, 0
		}
	case payload.Text:
		want.S, ok = v.S, utf8.Valid(v.S)
	case payload.JSON, payload.BigNumber:
		want.S, ok = v.S, json.Valid(v.S)
	default:
		ok = false
	}
	if !ok || !reflect.DeepEqual(v, want) {
		t.Errorf("%s: %q has value %+v", parser, name, v)
	}
}

// leaf is what the oracle finds.
type leaf struct {
	name  string
	value any // nil, bool, string or json.Number
}

// flatten lists the leaves of the next value by encoding/json.
func flatten(d *json.Decoder, path string, out []leaf) ([]leaf, error) {
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	join := func(name string) string {
		if path == "" {
			return name
		}
		return path + "." + name
	}
	switch tok {
	case json.Delim('{'):
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			if out, err = flatten(d, join(key.(string)), out); err != nil {
				return nil, err
			}
		}
	case json.Delim('['):
		for i := 0; d.More(); i++ {
			if out, err = flatten(d, join(strconv.Itoa(i)), out); err != nil {
				return nil, err
			}
		}
	default:
		return append(out, leaf{path, tok}), nil
	}
	_, err = d.Token()
	return out, err
}

// stricter are reasons for which leat rejects what encoding/json takes.
var stricter = []string{
	"UTF-8", "surrogate", "duplicate member", "levels", "name of more than", "names of more than", "without a name", "control character",
	"no values", "more than 65536", "array of objects",
}

// FuzzAutoAgainstEncodingJSON compares the leaves of documents: same names, same values, same order.
func FuzzAutoAgainstEncodingJSON(f *testing.F) {
	seeds(f)
	d := decoder(f, payload.Config{}, payload.TimeConfig{Format: payload.FormatReceived}, false)
	f.Fuzz(func(t *testing.T, doc []byte) {
		trimmed := bytes.Trim(doc, " \t\r\n")
		if len(trimmed) == 0 || trimmed[0] != '{' {
			return
		}
		rows, err := d.Decode(&record.Record{Payload: doc}, nil)
		if err != nil {
			if !json.Valid(doc) {
				return
			}
			for _, reason := range stricter {
				if strings.Contains(err.Error(), reason) {
					return
				}
			}
			t.Fatalf("%q: %v", doc, err)
		}
		dec := json.NewDecoder(bytes.NewReader(doc))
		dec.UseNumber()
		want, oracle := flatten(dec, "", nil)
		if oracle != nil && oracle != io.EOF || !json.Valid(doc) {
			t.Fatalf("%q accepted, but %v", doc, oracle)
		}
		if len(rows) != len(want) {
			t.Fatalf("%q: %d rows, want %d", doc, len(rows), len(want))
		}
		for i, r := range rows {
			if string(r.Signal) != want[i].name || !equal(r.Value, want[i].value) {
				t.Fatalf("%q: row %d is %s=%s, want %+v", doc, i, r.Signal, showValue(r.Value), want[i])
			}
		}
	})
}

// equal reports whether v is exactly what the oracle read.
func equal(v payload.Value, want any) bool {
	switch w := want.(type) {
	case nil:
		return v.Kind == payload.Null
	case bool:
		return v.Kind == payload.Bool && (v.I == 1) == w
	case string:
		return v.Kind == payload.Text && string(v.S) == w
	case json.Number:
		return sameNumber(v, string(w))
	}
	return false
}

func sameNumber(v payload.Value, lit string) bool {
	switch v.Kind {
	case payload.Int:
		return strconv.FormatInt(v.I, 10) == lit
	case payload.Float:
		f, err := strconv.ParseFloat(lit, 64)
		return err == nil && math.Float64bits(f) == math.Float64bits(v.F) && exact(lit, f)
	case payload.BigNumber:
		if string(v.S) != lit {
			return false
		}
		if !strings.ContainsAny(lit, ".eE") {
			i, ok := new(big.Int).SetString(lit, 10)
			return ok && !i.IsInt64()
		}
		f, err := strconv.ParseFloat(lit, 64)
		return err != nil || !exact(lit, f)
	}
	return false
}

// exact reports whether f, written with as many digits as lit has, or as few as tell it apart, is lit again. big.Rat
// knows neither limit of the code under test.
func exact(lit string, f float64) bool {
	mantissa, _, _ := strings.Cut(strings.ToLower(lit), "e")
	digits := strings.Trim(strings.ReplaceAll(strings.TrimLeft(mantissa, "-"), ".", ""), "0")
	if digits == "" {
		return f == 0
	}
	if len(digits) > 40 {
		return false
	}
	want, ok := new(big.Rat).SetString(lit)
	if !ok {
		return false
	}
	for _, prec := range []int{len(digits) - 1, -1} {
		got, ok := new(big.Rat).SetString(strconv.FormatFloat(f, 'e', prec, 64))
		if ok && got.Cmp(want) == 0 {
			return true
		}
	}
	return false
}

// FuzzNumber compares the parser number with strconv and math/big.
func FuzzNumber(f *testing.F) {
	for _, s := range []string{"1", "-0", "+1.5", "007", ".5", "5.", "1e5", "9223372036854775808", "0.30000000000000004", "1e-400", "5e-324", "nan"} {
		f.Add(s)
	}
	d := decoder(f, payload.Config{Type: payload.Number}, payload.TimeConfig{}, false)
	f.Fuzz(func(t *testing.T, s string) {
		rows, err := d.Decode(&record.Record{Payload: []byte(s)}, nil)
		if err != nil {
			var n json.Number
			if json.Unmarshal([]byte(s), &n) == nil && n != "" && !strings.Contains(s, `"`) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		s = strings.TrimPrefix(strings.Trim(s, " \t\r\n"), "+")
		v := rows[0].Value
		if len(s) > 300 || hugeExponent(s) {
			return
		}
		want, ok := new(big.Rat).SetString(s)
		if !ok {
			t.Fatalf("%q accepted as %s", s, showValue(v))
		}
		switch v.Kind {
		case payload.Int:
			ok = want.IsInt() && want.Num().IsInt64() && want.Num().Int64() == v.I
		case payload.Float:
			near, _ := want.Float64()
			ok = near == v.F
		case payload.BigNumber:
			got, valid := new(big.Rat).SetString(string(v.S))
			ok = valid && got.Cmp(want) == 0
		}
		if !ok {
			t.Errorf("%q is %s, want %s", s, showValue(v), want)
		}
	})
}

// hugeExponent tells of numbers that big.Rat would need gigabytes for.
func hugeExponent(s string) bool {
	_, e, ok := strings.Cut(strings.ToLower(s), "e")
	n, err := strconv.Atoi(e)
	return ok && (err != nil || n > 5000 || n < -5000)
}

// FuzzEpoch compares event times with math/big, in every unit.
func FuzzEpoch(f *testing.F) {
	for _, s := range []string{"1790000000", "1790000000.123456789123456789", "-1.5", "1e9", "9223372036854775807", "0.0000000001", "1e-30"} {
		f.Add(s)
	}
	units := map[string]int64{"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1}
	decoders := map[string]payload.Decoder{}
	for unit := range units {
		decoders[unit] = decoder(f, payload.Config{}, payload.TimeConfig{Field: "t", Format: unit}, false)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var n json.Number
		if json.Unmarshal([]byte(s), &n) != nil || n == "" || strings.ContainsAny(s, "\" \t\r\n") || hugeExponent(s) || len(s) > 300 {
			return
		}
		value, _ := new(big.Rat).SetString(s)
		for unit, d := range decoders {
			ns := new(big.Rat).Mul(value, new(big.Rat).SetInt64(units[unit]))
			want := new(big.Int).Quo(ns.Num(), ns.Denom()) // towards 1970
			rows, err := d.Decode(&record.Record{Payload: []byte(`{"t":` + s + `,"v":1}`)}, nil)
			switch {
			case err == nil && (!want.IsInt64() || rows[0].Time != want.Int64() || !rows[0].HasTime):
				t.Errorf("%s %s: %d, want %s", s, unit, rows[0].Time, want)
			case err != nil && want.IsInt64() && want.Int64() != math.MinInt64 && len(s) <= 19:
				t.Errorf("%s %s: %v, want %s", s, unit, err, want)
			}
		}
	})
}

// FuzzBinary writes the values again: the same bytes, except for the payload of a NaN.
func FuzzBinary(f *testing.F) {
	f.Add([]byte{0, 0, 0xac, 0x41, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, format := range []string{"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"} {
			for name, order := range map[string]binary.AppendByteOrder{"little": binary.LittleEndian, "big": binary.BigEndian} {
				d := decoder(t, payload.Config{Type: payload.Binary, Format: format, Order: name, Array: true}, payload.TimeConfig{}, false)
				size, _ := strconv.Atoi(strings.TrimLeft(format, "uintfloa"))
				whole := b[:len(b)-len(b)%(size/8)]
				rows, err := d.Decode(&record.Record{Payload: whole}, nil)
				if (err != nil) != (len(whole) == 0) {
					t.Fatalf("%s: %v", format, err)
				}
				if got := encode(rows, format, size, order); err == nil && got != nil && !bytes.Equal(got, whole) {
					t.Errorf("%s %s: %x, want %x", format, name, got, whole)
				}
			}
		}
	})
}

func encode(rows []payload.Row, format string, size int, order binary.AppendByteOrder) []byte {
	var out []byte
	for _, r := range rows {
		bits := uint64(r.Value.I)
		switch {
		case math.IsNaN(r.Value.F): // which NaN it was is lost between float32 and float64
			return nil
		case r.Value.Kind == payload.BigNumber:
			bits, _ = strconv.ParseUint(string(r.Value.S), 10, 64)
		case format == "float32":
			bits = uint64(math.Float32bits(float32(r.Value.F)))
		case format == "float64":
			bits = math.Float64bits(r.Value.F)
		}
		switch size {
		case 8:
			out = append(out, byte(bits))
		case 16:
			out = order.AppendUint16(out, uint16(bits))
		case 32:
			out = order.AppendUint32(out, uint32(bits))
		case 64:
			out = order.AppendUint64(out, bits)
		}
	}
	return out
}
