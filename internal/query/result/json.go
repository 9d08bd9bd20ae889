package result

import (
	"encoding/base64"
	"io"
	"math"
	"strconv"
	"unicode/utf8"
)

// array writes a JSON array of objects, one object per line; or with lines only the objects (NDJSON). Columns of the
// same name are told apart as in SQL engines: a, a_1, a_2.
type array struct {
	w     io.Writer
	lines bool
	names [][]byte // quoted, with colon
	buf   []byte
	any   bool
}

func (a *array) Start(columns []Column) error {
	seen := make(map[string]bool, len(columns))
	for _, c := range columns {
		name := c.Name
		for i := 1; seen[name]; i++ {
			name = c.Name + "_" + strconv.Itoa(i)
		}
		seen[name] = true
		a.names = append(a.names, append(appendJSONText(nil, []byte(name)), ':'))
	}
	if a.lines {
		return nil
	}
	_, err := a.w.Write([]byte("["))
	return err
}

func (a *array) Row(row []Value) error {
	b := a.buf[:0]
	if !a.lines {
		if a.any {
			b = append(b, ',')
		}
		b = append(b, '\n')
	}
	a.any = true
	b = append(b, '{')
	for i, v := range row {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, a.names[i]...)
		b = appendJSON(b, v)
	}
	b = append(b, '}')
	if a.lines {
		b = append(b, '\n')
	}
	a.buf = b
	_, err := a.w.Write(b)
	return err
}

func (a *array) End(bool) error {
	switch {
	case a.lines:
		return nil
	case a.any:
		_, err := a.w.Write([]byte("\n]\n"))
		return err
	}
	_, err := a.w.Write([]byte("]\n"))
	return err
}

func appendJSON(b []byte, v Value) []byte {
	switch v.Kind {
	case Null:
		return append(b, "null"...)
	case Bool:
		return strconv.AppendBool(b, v.I != 0)
	case Int:
		return strconv.AppendInt(b, v.I, 10)
	case Number, JSON:
		return append(b, v.S...)
	case Float, Float32:
		if math.IsNaN(v.F) || math.IsInf(v.F, 0) {
			return append(b, "null"...)
		}
		return appendFloat(b, v)
	case Time:
		return appendJSONText(b, rfc3339(v.S))
	case Blob:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.S)
		return append(b, '"')
	}
	return appendJSONText(b, v.S)
}

// rfc3339 turns "2026-05-01 13:00:00.25" or "… 13:00:00+00" into "2026-05-01T13:00:00.25Z". What is no date with a time
// (a date alone, a time alone, infinity, a year of more digits) stays as it is.
func rfc3339(s []byte) []byte {
	if len(s) < 19 || s[4] != '-' || s[10] != ' ' {
		return s
	}
	if n := len(s); string(s[n-3:]) == "+00" {
		s = s[:n-3]
	}
	out := make([]byte, 0, len(s)+1)
	out = append(out, s[:10]...)
	out = append(out, 'T')
	out = append(out, s[11:]...)
	return append(out, 'Z')
}

// appendJSONText appends s as a JSON string. Bytes that are not UTF-8 become the replacement character.
func appendJSONText(b, s []byte) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for len(s) > 0 {
		c := s[0]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c < 0x20 || c == 0x7f:
			b = append(b, `\u00`...)
			b = append(b, digits[c>>4], digits[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRune(s)
			b = utf8.AppendRune(b, r)
			s = s[n:]
			continue
		}
		s = s[1:]
	}
	return append(b, '"')
}
