package payload

import (
	"github.com/leat-io/leat/internal/record"
)

const (
	keepScratch = 1 << 20 // scratch above this many bytes is given back after the record that needed it
	maxInterned = 4_096   // distinct column names remembered; more than a table may have columns
	fewFields   = 16      // up to this many fields, comparing each with each beats a map
)

// sink collects the values of one record as rows, in either layout. A unit is what shares a time: an object, or an
// element of an array of objects. In the column layout it is one row.
type sink struct {
	columns bool
	bare    string // name of a value that has none

	topic   []byte
	rows    []Row
	time    int64
	hasTime bool
	values  int

	fields []Field // of all units of the record
	first  int     // first field of the current unit
	seen   map[string]struct{}
	names  map[string]string // interned column names

	scratch []byte // names and text that do not stand in the payload as they are
	nested  int    // bytes of names in scratch
	bareKey []byte
}

func newSink(bare string, columns bool) *sink {
	return &sink{
		columns: columns, bare: bare, bareKey: []byte(bare),
		seen: map[string]struct{}{}, names: map[string]string{},
	}
}

// begin starts a record whose rows go to dst.
func (s *sink) begin(rec *record.Record, dst []Row) {
	if cap(s.scratch) > keepScratch {
		s.scratch = nil
	}
	s.topic, s.rows = rec.Key, dst
	s.fields, s.scratch = s.fields[:0], s.scratch[:0]
	s.values, s.first, s.nested = 0, 0, 0
	s.time, s.hasTime = 0, false
}

// end finishes the record.
func (s *sink) end() ([]Row, error) {
	rows := s.rows
	s.rows, s.topic = nil, nil
	if s.values == 0 {
		return rows, reject("no values")
	}
	return rows, nil
}

// setTime sets the time of the values that follow.
func (s *sink) setTime(t int64, has bool) { s.time, s.hasTime = t, has }

// add takes a value. name stays valid as long as the rows (it stands in the payload or in scratch).
func (s *sink) add(name []byte, v Value) error {
	if s.values++; s.values > MaxValues {
		return reject("more than %d values", MaxValues)
	}
	if !s.columns {
		s.rows = append(s.rows, Row{Time: s.time, HasTime: s.hasTime, Topic: s.topic, Signal: name, Value: v})
		return nil
	}
	s.fields = append(s.fields, Field{Name: s.intern(name), Value: v})
	return nil
}

// addBare takes a value without a name.
func (s *sink) addBare(v Value) error { return s.add(s.bareKey, v) }

// endUnit makes the unit's fields a row.
func (s *sink) endUnit() error {
	if !s.columns || len(s.fields) == s.first {
		return nil
	}
	fields := s.fields[s.first:len(s.fields):len(s.fields)]
	s.first = len(s.fields)
	if name, twice := s.duplicate(fields); twice {
		return reject("two values for column %.60q", name)
	}
	s.rows = append(s.rows, Row{Time: s.time, HasTime: s.hasTime, Topic: s.topic, Fields: fields})
	return nil
}

// duplicate finds a name that occurs twice: {"a.b": 1, "a": {"b": 2}}.
func (s *sink) duplicate(fields []Field) (name string, found bool) {
	if len(fields) <= fewFields {
		for i := range fields {
			for j := range i {
				if fields[i].Name == fields[j].Name {
					return fields[i].Name, true
				}
			}
		}
		return "", false
	}
	clear(s.seen)
	for i := range fields {
		s.seen[fields[i].Name] = struct{}{}
		if len(s.seen) != i+1 {
			return fields[i].Name, true
		}
	}
	return "", false
}

// intern turns a column name into a string without allocating for names met before.
func (s *sink) intern(name []byte) string {
	if known, ok := s.names[string(name)]; ok {
		return known
	}
	if len(s.names) >= maxInterned {
		clear(s.names)
	}
	n := string(name)
	s.names[n] = n
	return n
}

// keepName copies a name that was put together into scratch. In the column layout add copies it.
func (s *sink) keepName(name []byte) ([]byte, error) {
	if s.columns {
		return name, nil
	}
	if s.nested += len(name); s.nested > MaxNames {
		return nil, reject("names of more than %d bytes together", MaxNames)
	}
	from := len(s.scratch)
	s.scratch = append(s.scratch, name...)
	return s.scratch[from:len(s.scratch):len(s.scratch)], nil
}
