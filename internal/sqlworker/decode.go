package sqlworker

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unsafe"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"github.com/leat-io/leat/internal/query/result"
)

// describe tells name and type of a column of a prepared statement.
func describe(p duckdb.PreparedStatement, i duckdb.IdxT) column {
	t := duckdb.PreparedStatementColumnLogicalType(p, i)
	defer duckdb.DestroyLogicalType(&t)
	c := column{name: duckdb.PreparedStatementColumnName(p, i), typ: typeName(t), id: duckdb.GetTypeId(t)}
	c.json = c.typ == "JSON"
	if c.id == duckdb.TypeDecimal {
		c.width = int(duckdb.DecimalScale(t))
	}
	return c
}

// typeName is a type as SQL writes it.
func typeName(t duckdb.LogicalType) string {
	if alias := duckdb.LogicalTypeGetAlias(t); alias != "" {
		return alias
	}
	child := func(c duckdb.LogicalType) string {
		defer duckdb.DestroyLogicalType(&c)
		return typeName(c)
	}
	switch id := duckdb.GetTypeId(t); id {
	case duckdb.TypeDecimal:
		return fmt.Sprintf("DECIMAL(%d,%d)", duckdb.DecimalWidth(t), duckdb.DecimalScale(t))
	case duckdb.TypeList:
		return child(duckdb.ListTypeChildType(t)) + "[]"
	case duckdb.TypeArray:
		return fmt.Sprintf("%s[%d]", child(duckdb.ArrayTypeChildType(t)), duckdb.ArrayTypeArraySize(t))
	case duckdb.TypeMap:
		return fmt.Sprintf("MAP(%s, %s)", child(duckdb.MapTypeKeyType(t)), child(duckdb.MapTypeValueType(t)))
	case duckdb.TypeStruct:
		var fields []string
		for i := range duckdb.StructTypeChildCount(t) {
			fields = append(fields, duckdb.StructTypeChildName(t, i)+" "+child(duckdb.StructTypeChildType(t, i)))
		}
		return "STRUCT(" + strings.Join(fields, ", ") + ")"
	default:
		return simpleName(id)
	}
}

func simpleName(id duckdb.Type) string {
	names := map[duckdb.Type]string{
		duckdb.TypeBoolean: "BOOLEAN", duckdb.TypeTinyInt: "TINYINT", duckdb.TypeSmallInt: "SMALLINT",
		duckdb.TypeInteger: "INTEGER", duckdb.TypeBigInt: "BIGINT", duckdb.TypeUTinyInt: "UTINYINT",
		duckdb.TypeUSmallInt: "USMALLINT", duckdb.TypeUInteger: "UINTEGER", duckdb.TypeUBigInt: "UBIGINT",
		duckdb.TypeHugeInt: "HUGEINT", duckdb.TypeUHugeInt: "UHUGEINT", duckdb.TypeBigNum: "BIGNUM",
		duckdb.TypeFloat: "FLOAT", duckdb.TypeDouble: "DOUBLE", duckdb.TypeTimestamp: "TIMESTAMP",
		duckdb.TypeTimestampS: "TIMESTAMP_S", duckdb.TypeTimestampMS: "TIMESTAMP_MS",
		duckdb.TypeTimestampNS: "TIMESTAMP_NS", duckdb.TypeTimestampTZ: "TIMESTAMP WITH TIME ZONE",
		duckdb.TypeDate: "DATE", duckdb.TypeTime: "TIME", duckdb.TypeTimeTZ: "TIME WITH TIME ZONE",
		duckdb.TypeInterval: "INTERVAL", duckdb.TypeVarchar: "VARCHAR", duckdb.TypeBlob: "BLOB",
		duckdb.TypeEnum: "ENUM", duckdb.TypeUUID: "UUID", duckdb.TypeUnion: "UNION", duckdb.TypeBit: "BIT",
		duckdb.TypeSQLNull: "NULL",
	}
	if n, ok := names[id]; ok {
		return n
	}
	return "UNKNOWN"
}

// direct reports whether cells of the type are decoded here. The others are cast to text by DuckDB (see Statement.wrap).
func direct(id duckdb.Type) bool {
	switch id {
	case duckdb.TypeBoolean, duckdb.TypeTinyInt, duckdb.TypeSmallInt, duckdb.TypeInteger, duckdb.TypeBigInt,
		duckdb.TypeUTinyInt, duckdb.TypeUSmallInt, duckdb.TypeUInteger, duckdb.TypeUBigInt, duckdb.TypeHugeInt,
		duckdb.TypeUHugeInt, duckdb.TypeFloat, duckdb.TypeDouble, duckdb.TypeDecimal, duckdb.TypeTimestamp,
		duckdb.TypeTimestampS, duckdb.TypeTimestampMS, duckdb.TypeTimestampNS, duckdb.TypeTimestampTZ, duckdb.TypeDate,
		duckdb.TypeVarchar, duckdb.TypeBlob:
		return true
	}
	return false
}

// vector is a column of a chunk: its memory belongs to DuckDB and lives as long as the chunk.
type vector struct {
	id       duckdb.Type
	internal duckdb.Type // of a DECIMAL
	scale    int
	memory   unsafe.Pointer
	validity unsafe.Pointer // one bit a row, in words of 64; nil = all valid
}

func newVector(v duckdb.Vector) vector {
	t := duckdb.VectorGetColumnType(v)
	defer duckdb.DestroyLogicalType(&t)
	out := vector{id: duckdb.GetTypeId(t), memory: duckdb.VectorGetData(v), validity: duckdb.VectorGetValidity(v)}
	if out.id == duckdb.TypeDecimal {
		out.internal, out.scale = duckdb.DecimalInternalType(t), int(duckdb.DecimalScale(t))
	}
	return out
}

func (v vector) valid(row int) bool {
	if v.validity == nil {
		return true
	}
	word := *(*uint64)(unsafe.Add(v.validity, 8*(row/64)))
	return word>>(row%64)&1 == 1
}

func at[T any](v vector, row int) T {
	var t T
	return *(*T)(unsafe.Add(v.memory, uintptr(row)*unsafe.Sizeof(t)))
}

// str is DuckDB's duckdb_string_t: up to 12 bytes lie in it, longer ones behind a pointer.
type str struct {
	length uint32
	prefix [4]byte
	ptr    unsafe.Pointer
}

const inlined = 12

func (v vector) bytes(row int) []byte {
	s := (*str)(unsafe.Add(v.memory, uintptr(row)*unsafe.Sizeof(str{})))
	if s.length <= inlined {
		return unsafe.Slice(&s.prefix[0], s.length)
	}
	return unsafe.Slice((*byte)(s.ptr), s.length)
}

// huge is DuckDB's 128-bit integer.
type huge struct {
	lower uint64
	upper int64
}

func (h huge) signed() *big.Int {
	n := big.NewInt(h.upper)
	n.Lsh(n, 64)
	return n.Add(n, new(big.Int).SetUint64(h.lower))
}

func (h huge) unsigned() *big.Int {
	n := new(big.Int).SetUint64(uint64(h.upper))
	n.Lsh(n, 64)
	return n.Add(n, new(big.Int).SetUint64(h.lower))
}

// value decodes one cell. Its bytes are DuckDB's, or scratch of this call.
func (v vector) value(row int) result.Value {
	if !v.valid(row) {
		return result.Value{}
	}
	switch v.id {
	case duckdb.TypeFloat:
		return result.Value{Kind: result.Float32, F: float64(at[float32](v, row))}
	case duckdb.TypeDouble:
		return result.Value{Kind: result.Float, F: at[float64](v, row)}
	case duckdb.TypeVarchar:
		return result.Value{Kind: result.Text, S: v.bytes(row)}
	case duckdb.TypeBlob:
		return result.Value{Kind: result.Blob, S: v.bytes(row)}
	case duckdb.TypeDecimal:
		return result.Value{Kind: result.Number, S: decimal(v.unscaled(row), v.scale)}
	case duckdb.TypeUBigInt:
		return result.Value{Kind: result.Number, S: strconv.AppendUint(nil, at[uint64](v, row), 10)}
	case duckdb.TypeHugeInt:
		return result.Value{Kind: result.Number, S: at[huge](v, row).signed().Append(nil, 10)}
	case duckdb.TypeUHugeInt:
		return result.Value{Kind: result.Number, S: at[huge](v, row).unsigned().Append(nil, 10)}
	}
	if s, ok := v.moment(row); ok {
		return result.Value{Kind: result.Time, S: s}
	}
	return v.integer(row)
}

func (v vector) integer(row int) result.Value {
	out := result.Value{Kind: result.Int}
	switch v.id {
	case duckdb.TypeBoolean:
		out.Kind, out.I = result.Bool, int64(at[uint8](v, row))
	case duckdb.TypeTinyInt:
		out.I = int64(at[int8](v, row))
	case duckdb.TypeSmallInt:
		out.I = int64(at[int16](v, row))
	case duckdb.TypeInteger:
		out.I = int64(at[int32](v, row))
	case duckdb.TypeBigInt:
		out.I = at[int64](v, row)
	case duckdb.TypeUTinyInt:
		out.I = int64(at[uint8](v, row))
	case duckdb.TypeUSmallInt:
		out.I = int64(at[uint16](v, row))
	case duckdb.TypeUInteger:
		out.I = int64(at[uint32](v, row))
	default:
		return result.Value{} // direct() and wrap() leave no other type
	}
	return out
}

// unscaled is a DECIMAL's integer.
func (v vector) unscaled(row int) *big.Int {
	switch v.internal {
	case duckdb.TypeSmallInt:
		return big.NewInt(int64(at[int16](v, row)))
	case duckdb.TypeInteger:
		return big.NewInt(int64(at[int32](v, row)))
	case duckdb.TypeBigInt:
		return big.NewInt(at[int64](v, row))
	}
	return at[huge](v, row).signed()
}

// decimal writes n with its last scale digits behind the point.
func decimal(n *big.Int, scale int) []byte {
	digits := new(big.Int).Abs(n).Append(nil, 10)
	if scale > 0 {
		for len(digits) <= scale {
			digits = append([]byte{'0'}, digits...)
		}
		i := len(digits) - scale
		digits = append(digits[:i:i], append([]byte{'.'}, digits[i:]...)...)
	}
	if n.Sign() < 0 {
		digits = append([]byte{'-'}, digits...)
	}
	return digits
}

// moment writes dates and timestamps; ok is false for other types.
func (v vector) moment(row int) (s []byte, ok bool) {
	const infinite64, infinite32 = 1<<63 - 1, 1<<31 - 1
	var t time.Time
	switch v.id {
	case duckdb.TypeDate:
		days := at[int32](v, row)
		if days == infinite32 || days == -infinite32 {
			return infinity(days < 0), true
		}
		return appendDate(nil, time.Unix(int64(days)*86400, 0).UTC()), true
	case duckdb.TypeTimestampS, duckdb.TypeTimestampMS, duckdb.TypeTimestamp, duckdb.TypeTimestampTZ,
		duckdb.TypeTimestampNS:
		n := at[int64](v, row)
		if n == infinite64 || n == -infinite64 {
			return infinity(n < 0), true
		}
		t = instant(v.id, n)
	default:
		return nil, false
	}
	s = append(appendDate(nil, t), ' ')
	s = t.AppendFormat(s, "15:04:05.999999999")
	if v.id == duckdb.TypeTimestampTZ {
		s = append(s, "+00"...)
	}
	return s, true
}

func instant(id duckdb.Type, n int64) time.Time {
	switch id {
	case duckdb.TypeTimestampS:
		return time.Unix(n, 0).UTC()
	case duckdb.TypeTimestampMS:
		return time.UnixMilli(n).UTC()
	case duckdb.TypeTimestampNS:
		return time.Unix(0, n).UTC()
	}
	return time.UnixMicro(n).UTC()
}

func infinity(negative bool) []byte {
	if negative {
		return []byte("-infinity")
	}
	return []byte("infinity")
}

// appendDate appends year-month-day, with "(BC)" for years before 1 as DuckDB writes them.
func appendDate(b []byte, t time.Time) []byte {
	year, month, day := t.Date()
	if year > 0 {
		return fmt.Appendf(b, "%04d-%02d-%02d", year, month, day)
	}
	return fmt.Appendf(b, "%04d-%02d-%02d (BC)", 1-year, month, day)
}
