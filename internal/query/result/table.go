package result

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tableSample is how many rows decide on the widths of the columns. Wider cells that come later are cut when the table
// has a limit, and otherwise push the rest of their row to the right.
const tableSample = 1000

// minColumn is the least width that a column is cut to when the table does not fit.
const minColumn = 6

// table writes an aligned table: names, types, a rule, rows, and the number of rows. Numbers are right-aligned.
type table struct {
	w       io.Writer
	limit   int // width of the terminal; 0 = none
	columns []Column
	right   []bool
	sample  [][]string // rows held back until the widths are known
	widths  []int
	rows    int64
	line    strings.Builder
}

const (
	gap      = "  "
	ellipsis = "…"
)

func (t *table) Start(columns []Column) error {
	t.columns = columns
	t.right = make([]bool, len(columns))
	for i, c := range columns {
		t.right[i] = numeric(c.Type)
	}
	return nil
}

func numeric(sqlType string) bool {
	base, _, _ := strings.Cut(sqlType, "(")
	switch base {
	case "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
		"UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL":
		return true
	}
	return false
}

func (t *table) Row(row []Value) error {
	t.rows++
	cells := make([]string, len(row))
	for i, v := range row {
		if v.Kind == Null {
			cells[i] = "NULL"
			continue
		}
		cells[i] = printable(string(appendText(nil, v)))
	}
	if t.widths != nil {
		return t.write(cells)
	}
	t.sample = append(t.sample, cells)
	if len(t.sample) < tableSample {
		return nil
	}
	return t.flush()
}

func (t *table) End(truncated bool) error {
	if t.widths == nil {
		if err := t.flush(); err != nil {
			return err
		}
	}
	unit := "rows"
	if t.rows == 1 {
		unit = "row"
	}
	note := ""
	if truncated {
		note = "; there are more: raise the row limit, or write csv, json or parquet"
	}
	_, err := fmt.Fprintf(t.w, "(%d %s%s)\n", t.rows, unit, note)
	return err
}

// flush decides on the widths and writes the heading and the rows held back.
func (t *table) flush() error {
	t.widths = make([]int, len(t.columns))
	names, types, rule := make([]string, len(t.columns)), make([]string, len(t.columns)), make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i], types[i] = printable(c.Name), strings.ToLower(printable(c.Type))
		t.widths[i] = max(width(names[i]), width(types[i]), 1)
	}
	for _, row := range t.sample {
		for i, cell := range row {
			t.widths[i] = max(t.widths[i], width(cell))
		}
	}
	t.fit()
	for i, w := range t.widths {
		rule[i] = strings.Repeat("─", w)
	}
	for _, cells := range append([][]string{names, types, rule}, t.sample...) {
		if err := t.write(cells); err != nil {
			return err
		}
	}
	t.sample = nil
	return nil
}

// fit takes width from the widest columns until the table fits its limit or no column can give more.
func (t *table) fit() {
	total := len(gap) * (len(t.widths) - 1)
	for _, w := range t.widths {
		total += w
	}
	for t.limit > 0 && total > t.limit {
		widest := 0
		for i, w := range t.widths {
			if w > t.widths[widest] {
				widest = i
			}
		}
		if t.widths[widest] <= minColumn {
			return
		}
		t.widths[widest]--
		total--
	}
}

func (t *table) write(cells []string) error {
	t.line.Reset()
	for i, cell := range cells {
		if i > 0 {
			t.line.WriteString(gap)
		}
		if t.limit > 0 {
			cell = cut(cell, t.widths[i])
		}
		pad := max(t.widths[i]-width(cell), 0)
		if t.right[i] {
			t.line.WriteString(strings.Repeat(" ", pad))
		}
		t.line.WriteString(cell)
		if !t.right[i] && i < len(cells)-1 {
			t.line.WriteString(strings.Repeat(" ", pad))
		}
	}
	_, err := io.WriteString(t.w, strings.TrimRight(t.line.String(), " ")+"\n")
	return err
}

// printable replaces what would break the lines of a table, or drive the terminal: control characters.
func printable(s string) string {
	clean := strings.IndexFunc(s, unicode.IsControl) < 0 && utf8.ValidString(s)
	if clean {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case unicode.IsControl(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// cut shortens s to at most n columns of the terminal.
func cut(s string, n int) string {
	if width(s) <= n {
		return s
	}
	used := 0
	for i, r := range s {
		if used += runeWidth(r); used > n-1 {
			return s[:i] + ellipsis
		}
	}
	return s
}

func width(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// runeWidth is how many columns of a terminal r takes: 0 for combining marks, 2 for the East Asian scripts and emoji.
func runeWidth(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana),
		r >= 0xff01 && r <= 0xff60, r >= 0x1f300 && r <= 0x1faff:
		return 2
	}
	return 1
}
