package lake

import (
	"io"
	"math"
	"reflect"

	"github.com/parquet-go/parquet-go"
)

// batch is how many values are handed to a Parquet column at a time.
const batch = 4096

// Pages are as large as compression profits from, smaller where a table has so many columns that their open pages
// would not fit the budget.
const (
	maxPage = 512 << 10
	minPage = 8 << 10
)

// dictionaryLimit is the size, in bytes, at which a column's dictionary is given up for plain values.
const dictionaryLimit = 1 << 20

// node builds the Parquet column of c.
func node(c Column, unit TimeUnit) parquet.Node {
	switch c.Type {
	case Double:
		return parquet.Optional(parquet.Encoded(parquet.Leaf(parquet.DoubleType), &parquet.Plain))
	case Bigint:
		return parquet.Optional(parquet.Encoded(parquet.Leaf(parquet.Int64Type), &parquet.DeltaBinaryPacked))
	case Boolean:
		return parquet.Optional(parquet.Leaf(parquet.BooleanType))
	case Timestamp:
		if c.Name != colTime {
			unit = Micro
		}
		n := parquet.Encoded(parquet.TimestampAdjusted(parquetUnit(unit), false), &parquet.DeltaBinaryPacked)
		if c.Name == colTime {
			return parquet.Required(n)
		}
		return parquet.Optional(n)
	case Binary:
		return parquet.Optional(parquet.Leaf(parquet.ByteArrayType))
	}
	n := parquet.Encoded(parquet.String(), &parquet.RLEDictionary)
	if isKey(c) {
		return parquet.Required(n)
	}
	return parquet.Optional(n)
}

// isKey tells whether every row has the column: it is dense and required.
func isKey(c Column) bool {
	return c.Source == "" && (c.Name == colTopic || c.Name == colSignal)
}

func parquetUnit(u TimeUnit) parquet.TimeUnit {
	switch u {
	case Micro:
		return parquet.Microsecond
	case Nano:
		return parquet.Nanosecond
	}
	return parquet.Millisecond
}

// group is a parquet.Group whose fields keep the order of the table's columns: the library's own sorts them by name.
type group struct {
	parquet.Group
	fields []parquet.Field
}

func (g *group) Fields() []parquet.Field { return g.fields }

type field struct {
	parquet.Node
	name string
}

func (f *field) Name() string { return f.name }

func (f *field) Value(base reflect.Value) reflect.Value {
	return base.MapIndex(reflect.ValueOf(f.name))
}

// form is how the files of a table look: it is derived from a schema and from the configuration.
type form struct {
	schema  *parquet.Schema
	options []parquet.WriterOption
	keys    []int // columns that rows are sorted by, before ts
}

func newForm(t *table, keys []string, cfg Config, codec *codec) *form {
	g := &group{Group: parquet.Group{}}
	for _, c := range t.Columns {
		f := &field{node(c, t.TimeUnit), c.Name}
		g.fields = append(g.fields, f)
		g.Group[c.Name] = f
	}
	f := &form{schema: parquet.NewSchema(t.Table, g)}
	var sorting []parquet.SortingColumn
	for _, k := range keys {
		f.keys = append(f.keys, t.column(k))
		sorting = append(sorting, parquet.Ascending(k))
	}
	sorting = append(sorting, parquet.Ascending(colTime))
	page := int(max(minPage, min(maxPage, cfg.RowGroupBytes/int64(len(t.Columns)))))
	f.options = []parquet.WriterOption{
		f.schema,
		parquet.Compression(codec),
		parquet.SortingWriterConfig(parquet.SortingColumns(sorting...)),
		parquet.PageBufferSize(page),
		parquet.DictionaryMaxBytes(dictionaryLimit),
		parquet.ColumnPageBuffers(parquet.NewChunkBufferPool(minPage)),
		parquet.WriteBufferSize(64 << 10),
		// In page headers bounds stand twice and whole, however long a text is; readers take them from the page index.
		parquet.DataPageStatistics(false),
		parquet.CreatedBy("leat", "1", "lake"),
		parquet.MaxRowsPerRowGroup(math.MaxInt64), // row groups end where buffers are flushed
	}
	return f
}

// encoder writes buffers as row groups. It keeps its memory between uses.
type encoder struct {
	sorter sorter
	codec  *codec
	at     []int32 // row → index of its value in a sparse column, -1 for none
	values [batch]parquet.Value
}

// rowGroup writes all rows of b, sorted, as one row group.
func (e *encoder) rowGroup(rg *parquet.ConcurrentRowGroupWriter, f *form, t *table, b *buffer, in *interner) error {
	order := e.sorter.sort(b, f.keys, in)
	for i, cw := range rg.ColumnWriters() {
		var err error
		switch {
		case t.Columns[i].Name == colTime:
			err = e.times(cw, i, b.ts, order, t.TimeUnit.nanos())
		case i >= len(b.cols) || b.cols[i].len() == 0:
			err = e.nulls(cw, i, len(order))
		default:
			err = e.column(cw, i, t.Columns[i], &b.cols[i], order, in)
		}
		if err != nil {
			return err
		}
	}
	_, err := rg.Commit()
	return err
}

func (e *encoder) write(cw *parquet.ColumnWriter, values []parquet.Value) error {
	n, err := cw.WriteRowValues(values)
	if err == nil && n != len(values) {
		err = io.ErrShortWrite
	}
	return err
}

func (e *encoder) times(cw *parquet.ColumnWriter, col int, ts []int64, order []uint32, unit int64) error {
	for len(order) > 0 {
		n := min(batch, len(order))
		for i, row := range order[:n] {
			e.values[i] = parquet.Int64Value(ts[row]/unit).Level(0, 0, col)
		}
		if err := e.write(cw, e.values[:n]); err != nil {
			return err
		}
		order = order[n:]
	}
	return nil
}

func (e *encoder) nulls(cw *parquet.ColumnWriter, col, rows int) error {
	for i := range min(batch, rows) {
		e.values[i] = parquet.NullValue().Level(0, 0, col)
	}
	for rows > 0 {
		n := min(batch, rows)
		if err := e.write(cw, e.values[:n]); err != nil {
			return err
		}
		rows -= n
	}
	return nil
}

func (e *encoder) column(cw *parquet.ColumnWriter, col int, c Column, data *column, order []uint32, in *interner) error {
	at := e.positions(data, len(order))
	size, def := data.len(), 1
	if isKey(c) {
		def = 0
	}
	null := parquet.NullValue().Level(0, 0, col)
	last, lastValue := uint64(0), null // runs of equal values are made once
	for len(order) > 0 {
		n := min(batch, len(order))
		for i, row := range order[:n] {
			k := int(row)
			if at != nil {
				k = int(at[row])
			}
			if k < 0 || k >= size {
				e.values[i] = null
				continue
			}
			if w := data.word(k); w != last || lastValue.IsNull() {
				last, lastValue = w, value(c.Type, w, in).Level(0, def, col)
			}
			e.values[i] = lastValue
		}
		if err := e.write(cw, e.values[:n]); err != nil {
			return err
		}
		order = order[n:]
	}
	return nil
}

func (c *column) word(k int) uint64 {
	if c.ids != nil {
		return uint64(c.ids[k])
	}
	return c.words[k]
}

// positions tells where the values of a sparse column's rows are; nil when the column is dense (at its end rows may
// still be missing).
func (e *encoder) positions(data *column, rows int) []int32 {
	if data.rows == nil {
		return nil
	}
	if cap(e.at) < rows {
		e.at = make([]int32, rows)
	}
	at := e.at[:rows]
	for i := range at {
		at[i] = -1
	}
	for k, row := range data.rows {
		at[row] = int32(k)
	}
	return at
}

func value(t Type, w uint64, in *interner) parquet.Value {
	switch t {
	case Double:
		return parquet.DoubleValue(math.Float64frombits(w))
	case Bigint:
		return parquet.Int64Value(int64(w))
	case Boolean:
		return parquet.BooleanValue(w != 0)
	case Timestamp:
		return parquet.Int64Value(int64(w) / 1000)
	}
	return parquet.ByteArrayValue(in.get(uint32(w)))
}
