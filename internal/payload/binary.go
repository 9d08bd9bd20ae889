package payload

import (
	"encoding/binary"
	"math"
	"strconv"

	"github.com/leat-io/leat/internal/record"
)

// binaryFormat is a way to read one number off the start of b; num must be the byte order asked for.
type binaryFormat struct {
	size  int
	value func(b []byte, num binary.ByteOrder) Value
}

func formatOf(name string) (binaryFormat, bool) {
	switch name {
	case "float32":
		return binaryFormat{4, func(b []byte, num binary.ByteOrder) Value {
			return Value{Kind: Float, F: float64(math.Float32frombits(num.Uint32(b)))}
		}}, true
	case "float64":
		return binaryFormat{8, func(b []byte, num binary.ByteOrder) Value {
			return Value{Kind: Float, F: math.Float64frombits(num.Uint64(b))}
		}}, true
	case "int8":
		return binaryFormat{1, func(b []byte, _ binary.ByteOrder) Value { return Value{Kind: Int, I: int64(int8(b[0]))} }}, true
	case "uint8":
		return binaryFormat{1, func(b []byte, _ binary.ByteOrder) Value { return Value{Kind: Int, I: int64(b[0])} }}, true
	case "int16":
		return binaryFormat{2, func(b []byte, num binary.ByteOrder) Value {
			return Value{Kind: Int, I: int64(int16(num.Uint16(b)))}
		}}, true
	case "uint16":
		return binaryFormat{2, func(b []byte, num binary.ByteOrder) Value { return Value{Kind: Int, I: int64(num.Uint16(b))} }}, true
	case "int32":
		return binaryFormat{4, func(b []byte, num binary.ByteOrder) Value {
			return Value{Kind: Int, I: int64(int32(num.Uint32(b)))}
		}}, true
	case "uint32":
		return binaryFormat{4, func(b []byte, num binary.ByteOrder) Value { return Value{Kind: Int, I: int64(num.Uint32(b))} }}, true
	case "int64":
		return binaryFormat{8, func(b []byte, num binary.ByteOrder) Value { return Value{Kind: Int, I: int64(num.Uint64(b))} }}, true
	case "uint64":
		// Above the largest int64 Decode makes a BigNumber of it.
		return binaryFormat{8, func(b []byte, num binary.ByteOrder) Value {
			u := num.Uint64(b)
			if u > math.MaxInt64 {
				return Value{Kind: BigNumber, I: int64(u)}
			}
			return Value{Kind: Int, I: int64(u)}
		}}, true
	}
	return binaryFormat{}, false
}

func (c Config) validateBinary() error {
	f, ok := formatOf(c.Format)
	switch {
	case !ok:
		return oneOf("format", c.Format,
			"float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
	case f.size > 1 && c.Order == "":
		return record.Errorf(record.Invalid, "order: missing for format %s", c.Format).
			WithHint("set order to little or big: which byte the device sends first")
	case len(c.Names) > MaxValues:
		return record.Errorf(record.Invalid, "names: more than %d", MaxValues).WithHint("use array: true")
	case len(c.Names) > 0 && c.Signal != "":
		return record.Errorf(record.Invalid, "signal: has no effect with names").WithHint("remove one of them")
	case len(c.Names) > 0 && c.Array:
		return record.Errorf(record.Invalid, "array: has no effect with names").WithHint("remove one of them")
	}
	seen := map[string]bool{}
	for i, n := range c.Names {
		if !goodName(n) || seen[n] {
			return record.Errorf(record.Invalid, "names[%d]: %.40q is no name, or given twice", i, n).
				WithHint("give each number a name of its own, at most %d bytes of UTF-8 without control characters", MaxName)
		}
		seen[n] = true
	}
	return nil
}

// binaryDecoder is the parser binary: numbers as they lie in memory.
type binaryDecoder struct {
	sink   *sink
	format binaryFormat
	order  binary.ByteOrder
	array  bool
	names  [][]byte // by index; of an array, those met so far
	fixed  int      // how many numbers there must be; 0: any number
	nan    string
}

func newBinaryDecoder(c Config, s *sink) *binaryDecoder {
	d := &binaryDecoder{sink: s, order: binary.LittleEndian, array: c.Array, nan: c.NaN, fixed: 1, names: [][]byte{s.bareKey}}
	d.format, _ = formatOf(c.Format)
	if c.Order == "big" {
		d.order = binary.BigEndian
	}
	if c.Array {
		d.fixed, d.names = 0, nil
	}
	if len(c.Names) > 0 {
		d.fixed, d.names = len(c.Names), nil
		for _, n := range c.Names {
			d.names = append(d.names, []byte(n))
		}
	}
	return d
}

// Decode implements Decoder.
func (d *binaryDecoder) Decode(rec *record.Record, dst []Row) ([]Row, error) {
	d.sink.begin(rec, dst)
	err := d.decode(rec.Payload)
	rows, none := d.sink.end()
	if err != nil {
		return rows, err
	}
	return rows, none
}

func (d *binaryDecoder) decode(payload []byte) error {
	size := d.format.size
	count := len(payload) / size
	switch {
	case len(payload)%size != 0 || count == 0:
		return reject("%d bytes are not a whole number of %d-byte values", len(payload), size)
	case d.fixed > 0 && count != d.fixed:
		return reject("%d values of %d bytes, want %d", count, size, d.fixed)
	case count > MaxValues:
		return reject("more than %d values", MaxValues)
	}
	for i := range count {
		if i == len(d.names) {
			d.names = append(d.names, strconv.AppendInt(nil, int64(i), 10))
		}
		v, err := d.value(payload[i*size:])
		if err != nil {
			return err
		}
		if err := d.sink.add(d.names[i], v); err != nil {
			return err
		}
	}
	return d.sink.endUnit()
}

func (d *binaryDecoder) value(b []byte) (Value, error) {
	v := d.format.value(b, d.order)
	switch {
	case v.Kind == Float && (math.IsNaN(v.F) || math.IsInf(v.F, 0)):
		return notFinite(v.F, d.nan)
	case v.Kind == BigNumber:
		s := d.sink
		from := len(s.scratch)
		s.scratch = strconv.AppendUint(s.scratch, uint64(v.I), 10)
		return Value{Kind: BigNumber, S: s.scratch[from:len(s.scratch):len(s.scratch)]}, nil
	}
	return v, nil
}
