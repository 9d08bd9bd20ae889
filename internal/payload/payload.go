// Package payload turns the payload of a record into rows: what the parsers of an ingest rule do when a stream is
// exported.
//
// The main types are Config and TimeConfig (what a rule says), Decoder (made from them by New) and Row.
//
// # Guarantees
//
//   - A payload gives at least one row, or an error with a reason; never neither and never a part of it.
//   - Integers stay exact: within int64 as Int, beyond it, like decimals that a float64 would change, as BigNumber.
//   - Text is valid UTF-8. Floats are finite, except where NaN and infinities were asked for (Config.NaN).
//   - Work and memory are bounded: MaxValues values, MaxDepth levels, MaxName bytes in a name, MaxNames in all names.
//   - Once warm, decoding allocates nothing for payloads of ordinary size. Only rejecting does, and a number of more
//     than 15 digits that turns out to be inexact.
//
// # Duties of the caller
//
// A Decoder belongs to one goroutine, and its rows are valid until its next Decode. They may alias the record, so the
// record must stay as it is until then.
//
// # How JSON is read
//
// One pass over the text writes a tape: a node for each value, with the span of its name and of its text, and the
// index of the node behind it. The tape is walked afterwards, because the time of a sample may stand behind it. The
// tokens come from jsontext, the reader below encoding/json/v2 and by its authors: it checks UTF-8, surrogates and
// duplicate names and allocates nothing. It reads a message of 60 bytes in 0.35 µs, against 6.9 µs and 21 allocations
// of encoding/json and, with fewer checks, 0.29 µs of fastjson: too little to gain for a reader of our own. When the
// standard library exports jsontext without an experiment, the import moves there.
//
// The package does not know topics, labels and tables: ingest adds the first two, lake keeps the last.
// docs/guide/parsers.md is the same for users.
package payload

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/record"
)

// Limits on one record. They bound what a hostile payload can cost: 16 MiB of JSON can hold eight million values.
const (
	MaxValues = 65_536  // values (rows, or fields of a row)
	MaxDepth  = 64      // levels of objects and arrays
	MaxName   = 1_024   // bytes in the name of a signal or column
	MaxNames  = 8 << 20 // bytes in all names of nested values
)

// The parsers.
const (
	Auto        = "auto"
	JSONObject  = "json"
	JSONSignals = "json_signals"
	Number      = "number"
	Boolean     = "bool"
	PlainText   = "text"
	Binary      = "binary"
	Raw         = "raw"
)

var types = [...]string{Auto, JSONObject, JSONSignals, Number, Boolean, PlainText, Binary, Raw}

// Config is a parser with its options. Each option belongs to the parsers that its comment names; elsewhere it is an
// error.
type Config struct {
	Type string `yaml:"type"` // one of the parsers; default auto

	// Signal is the name of a value that has none of its own (auto, number, bool, text, binary, raw); default "value".
	Signal string `yaml:"signal,omitempty"`
	// Arrays says what becomes of an array inside a document (auto, json, json_signals): "index" gives each element a
	// name that ends in its index, "json" keeps the array as JSON text. Default: index, and json for parser json.
	Arrays string `yaml:"arrays,omitempty"`

	Root  string `yaml:"root,omitempty"`  // json_signals: path of the group that holds the signals; default all
	Name  string `yaml:"name,omitempty"`  // json_signals: member with a sample's name; default "name", else "signal"
	Value string `yaml:"value,omitempty"` // json_signals: member with a sample's value; default "value"
	Extra string `yaml:"extra,omitempty"` // json_signals: a sample's other members: keep (default) or drop

	Format string   `yaml:"format,omitempty"` // binary: float32, float64, int8 … int64, uint8 … uint64
	Order  string   `yaml:"order,omitempty"`  // binary: little or big, for formats of more than one byte
	Array  bool     `yaml:"array,omitempty"`  // binary: one or more numbers, named by index; else exactly one
	Names  []string `yaml:"names,omitempty"`  // binary: exactly this many numbers, with these names

	// NaN says what becomes of NaN and infinities (number, binary): "keep", "null" or "reject". Default: reject, and
	// keep for parser binary.
	NaN string `yaml:"nan,omitempty"`

	TrueWords  []string `yaml:"true_words,omitempty"`  // bool: default true, on, yes, 1, in any case
	FalseWords []string `yaml:"false_words,omitempty"` // bool: default false, off, no, 0, in any case
}

// TimeConfig says where in the payload the time of an event is.
type TimeConfig struct {
	// Field is the path of the member that holds it, its levels separated by '.'. Without it JSON parsers look for a
	// member ts, time or timestamp that holds a plausible time (2000 to 2099).
	Field string `yaml:"field,omitempty"`
	// Format is s, ms, us or ns (since 1970 UTC, as number or text, with or without a fraction), rfc3339, auto
	// (rfc3339, or the unit that the magnitude suggests; default), or received: the time of arrival, always.
	Format string `yaml:"format,omitempty"`
}

// The formats of a TimeConfig.
const (
	FormatAuto     = "auto"
	FormatRFC3339  = "rfc3339"
	FormatSeconds  = "s"
	FormatMillis   = "ms"
	FormatMicros   = "us"
	FormatNanos    = "ns"
	FormatReceived = "received"
)

// New makes the decoder that c and t describe; columns asks for the column layout: one row for an object, with a field
// for each member. The configuration must be valid.
func New(c Config, t TimeConfig, columns bool) (Decoder, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if columns && c.Type == JSONSignals {
		return nil, record.Errorf(record.Invalid, "type: parser json_signals makes a row for each signal, not columns").
			WithHint("set layout to portable, or use parser json")
	}
	c = c.withDefaults()
	s := newSink(c.Signal, columns)
	switch c.Type {
	case Auto, JSONObject:
		return &documentDecoder{sink: s, bare: c.Type == Auto, arraysAsJSON: c.Arrays == "json", time: newTimeReader(t)}, nil
	case JSONSignals:
		return newSignalsDecoder(c, newTimeReader(t), s), nil
	case Binary:
		return newBinaryDecoder(c, s), nil
	default:
		return newScalarDecoder(c, s), nil
	}
}

func (c Config) withDefaults() Config {
	def := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	def(&c.Type, Auto)
	def(&c.Signal, "value")
	def(&c.Value, "value")
	def(&c.Extra, "keep")
	if c.Type == JSONObject {
		def(&c.Arrays, "json")
	}
	def(&c.Arrays, "index")
	if c.Type == Binary {
		def(&c.NaN, "keep")
	}
	def(&c.NaN, "reject")
	return c
}

// IsJSON reports whether the parser reads JSON, so that an event time can be part of the payload.
func (c Config) IsJSON() bool {
	return c.Type == "" || c.Type == Auto || c.Type == JSONObject || c.Type == JSONSignals
}

// Validate reports, as an Invalid error that begins with the key, the first thing wrong with c.
func (c Config) Validate() error {
	if c.Type != "" && !slices.Contains(types[:], c.Type) {
		return oneOf("type", c.Type, types[:]...)
	}
	if err := c.validateBelongs(); err != nil {
		return err
	}
	if err := c.validateWords(); err != nil {
		return err
	}
	if c.Type == Binary {
		return c.validateBinary()
	}
	return c.validateBool()
}

// validateBelongs rejects options of other parsers: they would be ignored without a word.
func (c Config) validateBelongs() error {
	t := c.Type
	if t == "" {
		t = Auto
	}
	for _, o := range []struct {
		key    string
		set    bool
		belong []string
	}{
		{"signal", c.Signal != "", []string{Auto, Number, Boolean, PlainText, Binary, Raw}},
		{"arrays", c.Arrays != "", []string{Auto, JSONObject, JSONSignals}},
		{"root", c.Root != "", []string{JSONSignals}},
		{"name", c.Name != "", []string{JSONSignals}},
		{"value", c.Value != "", []string{JSONSignals}},
		{"extra", c.Extra != "", []string{JSONSignals}},
		{"format", c.Format != "", []string{Binary}},
		{"order", c.Order != "", []string{Binary}},
		{"array", c.Array, []string{Binary}},
		{"names", len(c.Names) > 0, []string{Binary}},
		{"nan", c.NaN != "", []string{Number, Binary}},
		{"true_words", len(c.TrueWords) > 0, []string{Boolean}},
		{"false_words", len(c.FalseWords) > 0, []string{Boolean}},
	} {
		if o.set && !slices.Contains(o.belong, t) {
			return record.Errorf(record.Invalid, "%s: not an option of parser %s", o.key, t).
				WithHint("remove it, or set type to %s", strings.Join(o.belong, " or "))
		}
	}
	return nil
}

func (c Config) validateWords() error {
	for _, w := range []struct {
		key, value string
		allowed    []string
	}{
		{"arrays", c.Arrays, []string{"index", "json"}},
		{"extra", c.Extra, []string{"keep", "drop"}},
		{"order", c.Order, []string{"little", "big"}},
		{"nan", c.NaN, []string{"keep", "null", "reject"}},
	} {
		if w.value != "" && !slices.Contains(w.allowed, w.value) {
			return oneOf(w.key, w.value, w.allowed...)
		}
	}
	for key, name := range map[string]string{"signal": c.Signal, "name": c.Name, "value": c.Value, "root": c.Root} {
		if name != "" && !goodName(name) {
			return record.Errorf(record.Invalid, "%s: %.40q is no name", key, name).
				WithHint("at most %d bytes of UTF-8 without control characters", MaxName)
		}
	}
	return nil
}

func (c Config) validateBool() error {
	for _, w := range c.TrueWords {
		if slices.ContainsFunc(c.FalseWords, func(f string) bool { return strings.EqualFold(f, w) }) {
			return record.Errorf(record.Invalid, "true_words: %q is in false_words too", w).WithHint("leave it in one of them")
		}
	}
	for _, w := range slices.Concat(c.TrueWords, c.FalseWords) {
		if w == "" || len(w) > MaxName || strings.Trim(w, " \t\r\n") != w {
			return record.Errorf(record.Invalid, "true_words, false_words: %.40q is no word", w).
				WithHint("at most %d bytes, at least one, without white space around it", MaxName)
		}
	}
	if (len(c.TrueWords) > 0) != (len(c.FalseWords) > 0) {
		return record.Errorf(record.Invalid, "true_words: only one of true_words and false_words is set").WithHint("set both")
	}
	return nil
}

// Validate reports, as an Invalid error that begins with the key, the first thing wrong with t.
func (t TimeConfig) Validate() error {
	formats := []string{FormatAuto, FormatRFC3339, FormatSeconds, FormatMillis, FormatMicros, FormatNanos, FormatReceived}
	switch {
	case t.Format != "" && !slices.Contains(formats, t.Format):
		return oneOf("format", t.Format, formats...)
	case t.Field != "" && t.Format == FormatReceived:
		return record.Errorf(record.Invalid, "field: has no effect with format received").WithHint("remove one of them")
	case t.Field != "" && (!goodName(t.Field) || slices.Contains(strings.Split(t.Field, "."), "")):
		return record.Errorf(record.Invalid, "field: %.40q is no path", t.Field).
			WithHint("write the names of the members with '.' between them, for example meta.ts")
	case t.Field == "" && t.Format != "" && t.Format != FormatAuto && t.Format != FormatReceived:
		return record.Errorf(record.Invalid, "format: %s without a field", t.Format).
			WithHint("set field to the path of the member that holds the time, for example ts")
	}
	return nil
}

func oneOf(key, got string, allowed ...string) error {
	return record.Errorf(record.Invalid, "%s: unknown %s %.40q", key, key, got).WithHint("use %s", strings.Join(allowed, ", "))
}

// goodName reports whether s can name a signal or a column.
func goodName(s string) bool {
	return s != "" && len(s) <= MaxName && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// reject makes the error of a Decode: short, without the payload.
func reject(format string, args ...any) error { return record.Errorf(record.Invalid, format, args...) }
