// Package result writes the rows of a query's answer as people and programs read them: an aligned table, CSV, a JSON
// array, or JSON lines. (Parquet is written by the SQL engine itself.)
//
// What is promised, whatever the format: integers and decimals appear with all their digits; floating-point numbers
// appear in the shortest form that reads back to the same bits; times are UTC. NaN and infinities have no form in
// JSON and become null there; the other formats write NaN, Infinity and -Infinity.
//
// Writers belong to one goroutine. They do not buffer the answer, except that the table looks at up to tableSample rows
// before it decides on the widths of its columns.
package result

import (
	"io"
	"math"
	"strconv"

	"github.com/leat-io/leat/internal/record"
)

// Kind is what a Value holds.
type Kind uint8

// The kinds of value.
const (
	Null    Kind = iota
	Bool         // I is 0 or 1
	Int          // I
	Number       // S: the digits of a number that int64 does not hold
	Float        // F
	Float32      // F, of single precision
	Text         // S
	Time         // S: "2026-05-01 13:00:00.25", UTC
	Blob         // S: the bytes
	JSON         // S: a JSON document
)

// Value is one cell. S is valid until the Row call it is passed to returns.
type Value struct {
	Kind Kind
	I    int64
	F    float64
	S    []byte
}

// Column is a column of the answer.
type Column struct {
	Name string
	Type string // SQL type
}

// Writer writes an answer.
type Writer interface {
	// Start comes first.
	Start(columns []Column) error
	// Row writes one row; it has as many values as there are columns.
	Row(row []Value) error
	// End comes last. truncated says that there would have been more rows.
	End(truncated bool) error
}

// Format names a form of answer.
type Format string

// The formats.
const (
	FormatTable   Format = "table"
	FormatCSV     Format = "csv"
	FormatJSON    Format = "json"
	FormatNDJSON  Format = "ndjson"
	FormatParquet Format = "parquet"
)

// Formats lists them, for messages.
func Formats() []Format {
	return []Format{FormatTable, FormatCSV, FormatJSON, FormatNDJSON, FormatParquet}
}

// Validate reports, as an Invalid error, a format that does not exist.
func (f Format) Validate() error {
	for _, known := range Formats() {
		if f == known {
			return nil
		}
	}
	return record.Errorf(record.Invalid, "format %q is not known", string(f)).
		WithHint("use table, csv, json, ndjson or parquet")
}

// ContentType is the format's media type.
func (f Format) ContentType() string {
	switch f {
	case FormatCSV:
		return "text/csv; charset=utf-8; header=present"
	case FormatJSON:
		return "application/json"
	case FormatNDJSON:
		return "application/x-ndjson"
	case FormatParquet:
		return "application/vnd.apache.parquet"
	}
	return "text/plain; charset=utf-8"
}

// New returns a writer of the format to w. width is the terminal's, in columns, for the table; 0 means as wide as needed.
func New(f Format, w io.Writer, width int) (Writer, error) {
	switch f {
	case FormatTable:
		return &table{w: w, limit: width}, nil
	case FormatCSV:
		return &csv{w: w}, nil
	case FormatJSON:
		return &array{w: w}, nil
	case FormatNDJSON:
		return &array{w: w, lines: true}, nil
	}
	return nil, f.Validate()
}

// appendText appends the value as the table and CSV show it; Null gives nothing.
func appendText(b []byte, v Value) []byte {
	switch v.Kind {
	case Null:
		return b
	case Bool:
		return strconv.AppendBool(b, v.I != 0)
	case Int:
		return strconv.AppendInt(b, v.I, 10)
	case Float, Float32:
		return appendFloat(b, v)
	case Blob:
		return appendHex(b, v.S)
	}
	return append(b, v.S...)
}

func appendHex(b, s []byte) []byte {
	const digits = "0123456789abcdef"
	b = append(b, `\x`...)
	for _, c := range s {
		b = append(b, digits[c>>4], digits[c&15])
	}
	return b
}

// appendFloat appends the shortest digits that read back to the same number: plain between 1e-6 and 1e21, as
// ECMAScript and encoding/json do, with an exponent outside.
func appendFloat(b []byte, v Value) []byte {
	switch {
	case math.IsNaN(v.F):
		return append(b, "NaN"...)
	case math.IsInf(v.F, 1):
		return append(b, "Infinity"...)
	case math.IsInf(v.F, -1):
		return append(b, "-Infinity"...)
	}
	bits := 64
	if v.Kind == Float32 {
		bits = 32
	}
	form := byte('f')
	if abs := math.Abs(v.F); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		form = 'e'
	}
	return strconv.AppendFloat(b, v.F, form, -1, bits)
}
