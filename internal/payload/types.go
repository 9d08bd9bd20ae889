package payload

import "github.com/leat-io/leat/internal/record"

// Kind is the type of a Value.
type Kind uint8

// The kinds of value.
const (
	Null      Kind = iota
	Bool           // I is 0 or 1
	Int            // I
	Float          // F; finite when it came from JSON or text
	Text           // S, valid UTF-8
	JSON           // S, one valid JSON document, byte for byte as it arrived
	Time           // I, nanoseconds since 1970 UTC
	BigNumber      // S, the digits of a number that neither int64 nor float64 holds exactly enough: a JSON number
)

// Value is one scalar. Which of the fields holds it follows from Kind; the others are zero.
type Value struct {
	Kind Kind
	I    int64
	F    float64
	S    []byte
}

// Field is a named value.
type Field struct {
	Name  string
	Value Value
}

// Row is one row for a table. The portable layout uses Signal and Value, the column layout Fields.
type Row struct {
	Time    int64 // event time, nanoseconds since 1970 UTC; without HasTime the record's time counts
	HasTime bool
	Topic   []byte
	Signal  []byte // empty in the column layout
	Value   Value
	Fields  []Field // names are distinct
	Labels  []Field // topic levels and static labels, text; shared between rows: do not modify
}

// Decoder turns records into rows. It is not safe for concurrent use.
type Decoder interface {
	// Decode appends the record's rows to dst. What the rows hold may alias rec and the decoder's own buffers: it is
	// valid until the next Decode. An error (a short reason, without the payload) rejects the whole record: the rows
	// it may have appended do not count.
	Decode(rec *record.Record, dst []Row) ([]Row, error)
}
