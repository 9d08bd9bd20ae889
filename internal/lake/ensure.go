package lake

import (
	"fmt"
	"slices"
	"strings"

	"github.com/leat-io/leat/internal/record"
)

// Validate says what is wrong with a table's configuration.
func (s TableSpec) Validate() error {
	bad := func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
	}
	switch {
	case s.Name == "" || len(s.Name) > 128 || strings.ContainsFunc(s.Name, bad) || s.Name[0] == '_' || s.Name[0] == '-':
		return record.Errorf(record.Invalid, "table name %q", s.Name).
			WithHint("use lower-case letters, digits, _ and -, not starting with _ or -, at most 128")
	case strings.HasPrefix(s.Prefix, "/") && s.Prefix != NoPrefix || strings.HasPrefix(s.Prefix, "_") ||
		strings.Contains("/"+s.Prefix, "/../"):
		return record.Errorf(record.Invalid, "prefix %q of table %s", s.Prefix, s.Name).
			WithHint("write the key's beginning without a leading / or _, for example \"plant1/samples/\"")
	case len(s.Declared) > MaxColumns-ownColumns:
		return record.Errorf(record.Invalid, "table %s declares %d columns, at most %d are possible", s.Name,
			len(s.Declared), MaxColumns-ownColumns)
	}
	for _, c := range s.Declared {
		if c.Name == "" || c.Type < Double || c.Type > Timestamp {
			return record.Errorf(record.Invalid, "table %s: declared column %q has no type", s.Name, c.Name).
				WithHint("give each column a name and a type: double, bigint, boolean, text, json or timestamp")
		}
	}
	if p := s.Pinned; p != nil && (p.Layout != s.Layout || p.Table != s.Name) {
		return record.Errorf(record.Invalid, "table %s is %s, the pinned schema is of table %s, %s", s.Name, s.Layout,
			p.Table, p.Layout)
	}
	return nil
}

// prefix is where the table's keys start.
func (s TableSpec) prefix() string {
	if s.Prefix == NoPrefix {
		return ""
	}
	if s.Prefix != "" {
		return s.Prefix
	}
	return s.Name + "/"
}

// EnsureTable makes the table as spec and cfg want it, or widens it. What exists is never changed: another layout or
// another type for a column is Invalid. Call it when the program starts, so that such an error shows at once.
func (c *Catalog) EnsureTable(spec TableSpec, cfg Config) error {
	_, err := c.ensure(spec, cfg)
	return err
}

func (c *Catalog) ensure(spec TableSpec, cfg Config) (*table, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old, err := c.load(spec.Name)
	if err != nil {
		return nil, err
	}
	t := old
	if t == nil {
		s := Schema{Table: spec.Name, Layout: spec.Layout, TimeUnit: Milli, Columns: baseColumns(spec.Layout)}
		t = newTable(s, spec.prefix(), false)
	}
	if t.Layout != spec.Layout {
		return nil, record.Errorf(record.Invalid, "table %s has layout %s, the configuration says %s", t.Table, t.Layout,
			spec.Layout).WithHint("give the new layout a table of its own, or put the old layout back")
	}
	declared := slices.Clone(spec.Declared)
	for i := range declared {
		declared[i].Declared = true
	}
	unit := cfg.TimeUnit
	if spec.Pinned != nil {
		declared = append(declared, spec.Pinned.Columns...)
		unit = max(unit, spec.Pinned.TimeUnit)
	}
	for i := range declared {
		if d := &declared[i]; d.Source == "" && t.column(d.Name) < 0 && !isOwn(d.Name) {
			d.Source = d.Name
		}
	}
	if cfg.Provenance {
		declared = append(declared, provenanceColumns()...)
	}
	w := t.widened(declared, reservedBy(cfg))
	w.TimeUnit = max(t.TimeUnit, unit)
	w.prefix = spec.prefix()
	if err := w.agrees(declared); err != nil {
		return nil, err
	}
	if old == nil || len(w.Columns) != len(t.Columns) || w.TimeUnit != t.TimeUnit || w.prefix != t.prefix {
		if err := c.save(w); err != nil {
			return nil, err
		}
	}
	return c.pinned(w, spec), nil
}

// pinned returns the table as a builder of spec sees it: closed when the schema is pinned.
func (c *Catalog) pinned(t *table, spec TableSpec) *table {
	if spec.Pinned == nil {
		return t
	}
	return newTable(t.Schema, t.prefix, true)
}

func isOwn(name string) bool {
	return slices.Contains([]string{colTime, colTopic, colSignal, colValue, colText, colExtra, colNode, colSeq,
		colReceived}, name)
}

// agrees checks that the declared columns have the declared types.
func (t *table) agrees(declared []Column) error {
	for _, d := range declared {
		i, known := t.fields[d.Source]
		switch {
		case d.Source == "":
			i, known = t.names[d.Name]
		case d.Label:
			i, known = t.labels[d.Source]
		}
		if known && t.Columns[i].Type != d.Type {
			return record.Errorf(record.Invalid, "column %s of table %s is %s, the configuration says %s",
				t.Columns[i].Name, t.Table, t.Columns[i].Type, d.Type).
				WithHint("a column's type never changes: declare it under another name, or use another table")
		}
	}
	return nil
}

func reservedBy(cfg Config) []string {
	names := reservedNames()
	for segment := range strings.SplitSeq(cfg.Pattern, "/") {
		if name, _, ok := strings.Cut(segment, "="); ok {
			names = append(names, strings.ToLower(name))
		}
	}
	return names
}

// widen adds columns to the table and returns it as it then is, durable.
func (c *Catalog) widen(t *table, add []Column, reserved []string) (*table, error) {
	return c.alter(t, func(now *table) *table { return now.widened(add, reserved) })
}

// setUnit makes the table's time unit at least u.
func (c *Catalog) setUnit(t *table, u TimeUnit) (*table, error) {
	return c.alter(t, func(now *table) *table {
		w := now.widened(nil, nil)
		w.TimeUnit = max(w.TimeUnit, u)
		return w
	})
}

// alter applies do to the newest schema of t's table, which another builder may have widened meanwhile.
func (c *Catalog) alter(t *table, do func(*table) *table) (*table, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := c.load(t.Table)
	if err != nil {
		return nil, err
	}
	if now == nil {
		return nil, fmt.Errorf("widen table %s: it is gone from the catalog", t.Table)
	}
	closed := newTable(now.Schema, now.prefix, t.unwiden)
	w := do(closed)
	if len(w.Columns) != len(now.Columns) || w.TimeUnit != now.TimeUnit {
		if err := c.save(newTable(w.Schema, w.prefix, false)); err != nil {
			return nil, err
		}
	}
	return w, nil
}
