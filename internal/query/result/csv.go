package result

import (
	"bytes"
	"io"
)

// csv writes RFC 4180: CRLF, a header line, quotes where needed. NULL is an empty field, the empty text is "".
type csv struct {
	w    io.Writer
	line []byte
	cell []byte
}

func (c *csv) Start(columns []Column) error {
	c.line = c.line[:0]
	for i, col := range columns {
		if i > 0 {
			c.line = append(c.line, ',')
		}
		c.line = quote(c.line, []byte(col.Name))
	}
	return c.flush()
}

func (c *csv) Row(row []Value) error {
	c.line = c.line[:0]
	for i, v := range row {
		if i > 0 {
			c.line = append(c.line, ',')
		}
		if v.Kind == Null {
			continue
		}
		c.cell = appendText(c.cell[:0], v)
		c.line = quote(c.line, c.cell)
	}
	return c.flush()
}

func (c *csv) End(bool) error { return nil }

func (c *csv) flush() error {
	c.line = append(c.line, '\r', '\n')
	_, err := c.w.Write(c.line)
	return err
}

// quote appends the field, in quotes when it is empty, has a character that RFC 4180 names, or a space at an end.
func quote(b, field []byte) []byte {
	n := len(field)
	if n > 0 && !bytes.ContainsAny(field, "\",\r\n") && field[0] != ' ' && field[n-1] != ' ' {
		return append(b, field...)
	}
	b = append(b, '"')
	for _, c := range field {
		if c == '"' {
			b = append(b, '"')
		}
		b = append(b, c)
	}
	return append(b, '"')
}
