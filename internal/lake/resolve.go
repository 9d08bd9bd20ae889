package lake

import (
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/leat-io/leat/internal/payload"
)

// resolver finds the columns of labels and fields. Messages repeat the same names in the same order, so it first looks
// at what the name at the same place was last time.
type resolver struct {
	table    *table
	reserved []string
	cols     []int // of the rows last resolved: for each its labels, then its fields; -1 has no column
	missing  []Column
	labels   []hint
	fields   []hint

	extra, node, seq, received int // columns of leat's own, or -1
}

type hint struct {
	name string
	col  int
}

func (r *resolver) use(t *table) {
	r.table = t
	r.labels, r.fields = r.labels[:0], r.fields[:0]
	r.extra, r.node, r.seq, r.received = t.column(colExtra), t.column(colNode), t.column(colSeq), t.column(colReceived)
}

// resolve fills cols and returns the columns that the table would have to be widened by.
func (r *resolver) resolve(rows []payload.Row, fields bool) []Column {
	r.cols, r.missing = r.cols[:0], r.missing[:0]
	for i := range rows {
		r.labels = r.find(rows[i].Labels, true, r.labels)
		if fields {
			r.fields = r.find(rows[i].Fields, false, r.fields)
		}
	}
	return r.missing
}

func (r *resolver) find(fields []payload.Field, label bool, hints []hint) []hint {
	known := r.table.fields
	if label {
		known = r.table.labels
	}
	for i := range fields {
		f := &fields[i]
		if i < len(hints) && hints[i].name == f.Name {
			r.cols = append(r.cols, hints[i].col)
			continue
		}
		col, ok := known[f.Name]
		if !ok {
			col = -1
			if t := typeOf(f.Value); t != 0 && r.table.open() {
				r.missing = append(r.missing, Column{Type: t, Source: f.Name, Label: label})
			}
			r.cols = append(r.cols, col)
			continue
		}
		r.cols = append(r.cols, col)
		if i < len(hints) {
			hints[i] = hint{f.Name, col}
		} else if i == len(hints) {
			hints = append(hints, hint{f.Name, col})
		}
	}
	return hints
}

// fits gives column col of buf's newest row the value v when its type holds it exactly.
func (b *Builder) fits(buf *buffer, col int, v payload.Value) bool {
	c := &b.rows.table.Columns[col]
	switch c.Type {
	case Double:
		switch {
		case v.Kind == payload.Float:
			b.rows.put(buf, col, math.Float64bits(v.F))
		case v.Kind == payload.Int && v.I <= exactInt && v.I >= -exactInt:
			b.rows.put(buf, col, math.Float64bits(float64(v.I)))
		default:
			return false
		}
	case Bigint:
		i, ok := v.I, v.Kind == payload.Int
		if v.Kind == payload.Float && math.Abs(v.F) <= exactInt && v.F == math.Trunc(v.F) {
			i, ok = int64(v.F), true
		}
		if !ok {
			return false
		}
		b.rows.put(buf, col, uint64(i))
	case Boolean:
		if v.Kind != payload.Bool {
			return false
		}
		b.rows.put(buf, col, uint64(v.I))
	case Timestamp:
		if v.Kind != payload.Time || v.I%1000 != 0 {
			return false
		}
		b.rows.put(buf, col, uint64(v.I))
	case JSON:
		if v.Kind == payload.JSON {
			b.rows.text(buf, col, v.S)
		} else {
			b.number = appendJSON(b.number[:0], v)
			b.rows.text(buf, col, b.number)
		}
	default:
		return b.fitsText(buf, col, c.Declared, v)
	}
	return true
}

// fitsText takes text, and, where the configuration declared the column as text, numbers by their digits: serial
// numbers arrive now as one, now as the other.
func (b *Builder) fitsText(buf *buffer, col int, declared bool, v payload.Value) bool {
	switch {
	case v.Kind == payload.Text:
		b.rows.text(buf, col, v.S)
	case declared && v.Kind == payload.Int:
		b.number = strconv.AppendInt(b.number[:0], v.I, 10)
		b.rows.text(buf, col, b.number)
	case declared && v.Kind == payload.BigNumber:
		b.rows.text(buf, col, v.S)
	default:
		return false
	}
	return true
}

// appendMember adds a member to the JSON object in dst, which is opened when dst is empty and not closed.
func appendMember(dst []byte, name string, v payload.Value) []byte {
	if len(dst) == 0 {
		dst = append(dst, '{')
	} else {
		dst = append(dst, ',')
	}
	dst = append(appendString(dst, name), ':')
	return appendJSON(dst, v)
}

// appendJSON adds a value as JSON, digit for digit. What JSON has no number for (NaN, infinities) becomes text.
func appendJSON(dst []byte, v payload.Value) []byte {
	switch v.Kind {
	case payload.Bool:
		return strconv.AppendBool(dst, v.I != 0)
	case payload.Int:
		return strconv.AppendInt(dst, v.I, 10)
	case payload.Float:
		if math.IsNaN(v.F) || math.IsInf(v.F, 0) {
			return appendString(dst, strconv.FormatFloat(v.F, 'g', -1, 64))
		}
		return strconv.AppendFloat(dst, v.F, 'g', -1, 64)
	case payload.Text:
		return appendString(dst, string(v.S))
	case payload.JSON, payload.BigNumber:
		return append(dst, v.S...)
	case payload.Time:
		return appendString(dst, time.Unix(0, v.I).UTC().Format(time.RFC3339Nano))
	}
	return append(dst, "null"...)
}

func appendString(dst []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil { // not for a string
		return append(dst, `""`...)
	}
	return append(dst, quoted...)
}
