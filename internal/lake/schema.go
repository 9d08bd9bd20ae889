package lake

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
)

// Layout is the shape of a table.
type Layout uint8

// The layouts.
const (
	Portable Layout = iota // one row per signal and instant: ts, topic, signal, value, text and label columns
	Columns                // one row per message: ts, topic, label columns and a typed column per field
)

// Type is the type of a column.
type Type uint8

// The types of column.
const (
	Double Type = iota + 1
	Bigint
	Boolean
	Text
	JSON // text that is a JSON document
	Timestamp
	Binary // only in rejected files
)

// TimeUnit is the resolution of a table's timestamps.
type TimeUnit uint8

// The resolutions. Auto starts with Milli and widens to Micro, for good, when an event time needs it.
const (
	Auto TimeUnit = iota
	Milli
	Micro
	Nano
)

// Column is one column of a table.
type Column struct {
	Name   string `json:"name" yaml:"name"`
	Type   Type   `json:"type" yaml:"type"`
	Source string `json:"source,omitempty" yaml:"source"` // the field's or label's own name; empty in leat's own columns
	Label  bool   `json:"label,omitempty" yaml:"label"`   // comes from a topic level or a static label
	// Declared: the configuration fixed the type. A declared text column takes numbers, too, digit for digit.
	Declared bool `json:"declared,omitempty" yaml:"-"`
}

// TableSpec is a table as the configuration describes it.
type TableSpec struct {
	Name     string
	Layout   Layout
	Prefix   string   // of the table's keys; "" means Name + "/", NoPrefix none
	Declared []Column // columns with a type fixed beforehand; Source "" means Name
	Pinned   *Schema  // the fleet's schema: nothing is added to it, what it does not name goes into _extra
}

// NoPrefix lets a table's partitions begin at the top of the store: for a store that belongs to one table, as the
// documents have it. Other engines pass over _manifests and _rejected beside them, as over every name with _ in front.
const NoPrefix = "/"

// Schema is a table's columns as manifests, pinned schema files and the catalog keep them.
type Schema struct {
	Table    string   `json:"table"`
	Layout   Layout   `json:"layout"`
	TimeUnit TimeUnit `json:"time_unit"`
	Columns  []Column `json:"columns"`
}

// DecodeSchema reads a pinned schema file: a Schema as JSON, as manifests hold it. Keys are strict.
func DecodeSchema(data []byte) (Schema, error) {
	const form = `want for example {"table": "gps", "layout": "columns", "columns": [{"name": "lat", "type": "double"}]}; ` +
		`the "schema" of any manifest is one`
	var s Schema
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return Schema{}, record.Errorf(record.Invalid, "decode schema: %w", err).WithHint(form)
	}
	seen := map[string]bool{}
	for i, c := range s.Columns {
		if c.Name == "" || c.Type < Double || seen[c.Name] {
			return Schema{}, record.Errorf(record.Invalid, "decode schema: column %d (%q) has no name, no type, or is there twice", i, c.Name).
				WithHint(form)
		}
		seen[c.Name] = true
	}
	if s.Table == "" || len(s.Columns) == 0 {
		return Schema{}, record.Errorf(record.Invalid, "decode schema: it has no table or no columns").WithHint(form)
	}
	return s, nil
}

func (l Layout) names() []string { return []string{"portable", "columns"} }
func (t Type) names() []string {
	return []string{"", "double", "bigint", "boolean", "text", "json", "timestamp", "binary"}
}
func (u TimeUnit) names() []string { return []string{"auto", "ms", "us", "ns"} }

// String is the layout as configuration and manifests write it.
func (l Layout) String() string { return nameOf(l, l.names()) }

// MarshalText is String as bytes.
func (l Layout) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads a layout.
func (l *Layout) UnmarshalText(text []byte) error { return parseName(l, text, l.names()) }

// String is the type as configuration and manifests write it.
func (t Type) String() string { return nameOf(t, t.names()) }

// MarshalText is String as bytes.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads a type.
func (t *Type) UnmarshalText(text []byte) error { return parseName(t, text, t.names()) }

// String is the unit as configuration and manifests write it.
func (u TimeUnit) String() string { return nameOf(u, u.names()) }

// MarshalText is String as bytes.
func (u TimeUnit) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads a unit.
func (u *TimeUnit) UnmarshalText(text []byte) error { return parseName(u, text, u.names()) }

// nanos is the unit's length; Auto counts as Milli.
func (u TimeUnit) nanos() int64 {
	switch u {
	case Micro:
		return 1e3
	case Nano:
		return 1
	}
	return 1e6
}

func nameOf[E ~uint8](e E, names []string) string {
	if int(e) < len(names) {
		return names[e]
	}
	return fmt.Sprintf("%T(%d)", e, uint8(e))
}

func parseName[E ~uint8](e *E, text []byte, names []string) error {
	i := slices.Index(names, string(text))
	if i < 0 || len(text) == 0 {
		return record.Errorf(record.Invalid, "%q: want one of %s", text, strings.TrimSpace(strings.Join(names, " ")))
	}
	*e = E(i)
	return nil
}

// baseColumns are the columns that every table of a layout starts with.
func baseColumns(l Layout) []Column {
	cols := []Column{{Name: colTime, Type: Timestamp}, {Name: colTopic, Type: Text}}
	if l == Portable {
		cols = append(cols, Column{Name: colSignal, Type: Text}, Column{Name: colValue, Type: Double},
			Column{Name: colText, Type: Text})
	}
	return cols
}

// provenanceColumns are the columns that Config.Provenance adds.
func provenanceColumns() []Column {
	return []Column{
		{Name: colNode, Type: Text}, {Name: colSeq, Type: Bigint}, {Name: colReceived, Type: Timestamp},
	}
}

// ownColumns is the room that leat's own columns need below MaxColumns: base, provenance and _extra.
const ownColumns = 9

// table is a schema with its indexes. It is immutable: widening makes another.
type table struct {
	Schema
	prefix  string
	names   map[string]int // every column by Name
	fields  map[string]int // field columns by Source
	labels  map[string]int
	unwiden bool // pinned: nothing may be added but leat's own columns
}

func newTable(s Schema, prefix string, pinned bool) *table {
	t := &table{Schema: s, prefix: prefix, unwiden: pinned}
	t.names = make(map[string]int, len(s.Columns))
	t.fields, t.labels = map[string]int{}, map[string]int{}
	for i, c := range s.Columns {
		t.names[c.Name] = i
		switch {
		case c.Source == "":
		case c.Label:
			t.labels[c.Source] = i
		default:
			t.fields[c.Source] = i
		}
	}
	return t
}

// column is the index of the column called name, or -1.
func (t *table) column(name string) int {
	if i, ok := t.names[name]; ok {
		return i
	}
	return -1
}

// open tells whether a field or label may still get a column.
func (t *table) open() bool { return !t.unwiden && len(t.Columns) < MaxColumns-ownColumns }

// widened returns the table with columns added: leat's own (no Source) under their name, others under a free one, as
// long as there is room. Columns that are there already, by source or name, are left as they are.
func (t *table) widened(add []Column, reserved []string) *table {
	cols := slices.Clone(t.Columns)
	w := newTable(Schema{t.Table, t.Layout, t.TimeUnit, cols}, t.prefix, t.unwiden)
	for _, c := range add {
		if c.Source == "" {
			if w.column(c.Name) >= 0 {
				continue
			}
		} else {
			known := w.fields
			if c.Label {
				known = w.labels
			}
			if _, ok := known[c.Source]; ok || !w.open() {
				continue
			}
			c.Name = freeName(cmp.Or(c.Name, c.Source), reserved, func(s string) bool { return w.column(s) >= 0 })
			known[c.Source] = len(w.Columns)
		}
		w.names[c.Name] = len(w.Columns)
		w.Columns = append(w.Columns, c)
	}
	return w
}

// exactInt is the largest magnitude up to which every integer is a float64.
const exactInt = 1 << 53

// typeOf is the type that a column gets from the first value seen in it; 0 for Null, which says nothing.
func typeOf(v payload.Value) Type {
	switch v.Kind {
	case payload.Bool:
		return Boolean
	case payload.Int:
		if v.I > exactInt || v.I < -exactInt {
			return Bigint
		}
		return Double
	case payload.Float, payload.BigNumber:
		return Double
	case payload.Text:
		return Text
	case payload.JSON:
		return JSON
	case payload.Time:
		return Timestamp
	}
	return 0
}
