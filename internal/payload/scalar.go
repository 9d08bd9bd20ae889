package payload

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/record"
)

// base64Name is the name of a raw payload that is no text.
const base64Name = "base64"

// scalarDecoder is the parsers number, bool, text and raw: one value.
type scalarDecoder struct {
	sink   *sink
	parse  func(payload []byte) (Value, error)
	base64 []byte // raw: name of a payload that is no text; nil for other parsers
	nan    string
	truth  map[string]int64 // bool: words in lower case
	lower  []byte
}

func newScalarDecoder(c Config, s *sink) *scalarDecoder {
	d := &scalarDecoder{sink: s, nan: c.NaN}
	switch c.Type {
	case Number:
		d.parse = d.number
	case Boolean:
		d.parse, d.truth = d.boolean, words(c)
	case PlainText:
		d.parse = plainText
	case Raw:
		d.parse, d.base64 = rawText, []byte(base64Name)
	}
	return d
}

// Decode implements Decoder.
func (d *scalarDecoder) Decode(rec *record.Record, dst []Row) ([]Row, error) {
	s := d.sink
	s.begin(rec, dst)
	v, err := d.parse(rec.Payload)
	switch {
	case err != nil:
	case d.base64 != nil && !utf8.Valid(v.S):
		s.scratch = base64.StdEncoding.AppendEncode(s.scratch, v.S)
		err = s.add(d.base64, Value{Kind: Text, S: s.scratch})
	default:
		err = s.addBare(v)
	}
	if err == nil {
		err = s.endUnit()
	}
	rows, none := s.end()
	if err != nil {
		return rows, err
	}
	return rows, none
}

func plainText(payload []byte) (Value, error) {
	if !utf8.Valid(payload) {
		return Value{}, reject("invalid UTF-8")
	}
	return Value{Kind: Text, S: payload}, nil
}

func rawText(payload []byte) (Value, error) { return Value{Kind: Text, S: payload}, nil }

// number reads a number as devices print them: JSON's form, and besides a sign +, leading zeros, ".5" and "5.".
func (d *scalarDecoder) number(payload []byte) (Value, error) {
	s := trim(payload)
	if isJSONNumber(s) {
		return parseNumber(s), nil
	}
	if len(s) == 0 {
		return Value{}, reject("empty payload")
	}
	if special(s) != 0 {
		return notFinite(special(s), d.nan)
	}
	normal, ok := normalize(d.sink.scratch[:0], s)
	if !ok {
		return Value{}, reject("not a number")
	}
	d.sink.scratch = normal
	return parseNumber(normal), nil
}

// normalize appends s in JSON's form to dst.
func normalize(dst, s []byte) ([]byte, bool) {
	if s[0] == '-' {
		dst = append(dst, '-')
	}
	if s[0] == '-' || s[0] == '+' {
		s = s[1:]
	}
	whole := skipDigits(s, 0)
	digits := bytes.TrimLeft(s[:whole], "0")
	if len(digits) == 0 {
		dst = append(dst, '0')
	}
	dst = append(dst, digits...)
	s = s[whole:]
	fraction := 0
	if len(s) > 0 && s[0] == '.' {
		if fraction = skipDigits(s, 1) - 1; fraction > 0 {
			dst = append(dst, s[:fraction+1]...)
		}
		s = s[fraction+1:]
		if len(s) > 0 && s[0] == '.' {
			return dst, false
		}
	}
	dst = append(dst, s...) // an exponent, if it is well formed
	return dst, whole+fraction > 0 && isJSONNumber(dst)
}

// special reads NaN and infinities as programs print them; 0 is none of them.
func special(s []byte) float64 {
	if len(s) > 9 {
		return 0
	}
	var buf [9]byte
	switch l := lowered(buf[:0], s); string(l) {
	case "nan", "-nan", "+nan":
		return math.NaN()
	case "inf", "+inf", "infinity", "+infinity":
		return math.Inf(1)
	case "-inf", "-infinity":
		return math.Inf(-1)
	}
	return 0
}

// lowered appends s in lower case, as far as it is ASCII.
func lowered(dst, s []byte) []byte {
	for _, c := range s {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// notFinite is what becomes of NaN and infinities.
func notFinite(f float64, policy string) (Value, error) {
	switch policy {
	case "keep":
		return Value{Kind: Float, F: f}, nil
	case "null":
		return Value{Kind: Null}, nil
	}
	return Value{}, reject("%s is not a finite number", strconv.FormatFloat(f, 'g', -1, 64))
}

func words(c Config) map[string]int64 {
	t, f := c.TrueWords, c.FalseWords
	if len(t) == 0 {
		t, f = []string{"true", "on", "yes", "1"}, []string{"false", "off", "no", "0"}
	}
	m := map[string]int64{}
	for _, w := range t {
		m[string(lowered(nil, []byte(w)))] = 1
	}
	for _, w := range f {
		m[string(lowered(nil, []byte(w)))] = 0
	}
	return m
}

func (d *scalarDecoder) boolean(payload []byte) (Value, error) {
	s := trim(payload)
	if len(s) > MaxName {
		s = nil // no word: see validateBool
	}
	d.lower = lowered(d.lower[:0], s)
	i, ok := d.truth[string(d.lower)]
	if !ok {
		return Value{}, reject("neither a true word nor a false word")
	}
	return Value{Kind: Bool, I: i}, nil
}
