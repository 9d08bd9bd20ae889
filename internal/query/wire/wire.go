// Package wire is what the query engine and its worker process say to each other.
//
// The parent writes frames to the worker's standard input and reads frames from the worker's file descriptor 3; the
// worker's standard output and error carry no frames, because the SQL engine may print there. A frame is one byte of
// type, four bytes of length (big endian) and the payload: JSON, except for Data, which is a piece of the result.
//
//	parent                      worker
//	                        ←   Hello     version of the protocol and of the SQL engine, how it is confined
//	Request                 →             statement, tables, format, limits
//	                        ←   Plan      which tables, and which of their files can matter
//	Go                      →             the snapshot is complete: which tables have files in it
//	                        ←   Schema    columns of the result
//	                        ←   Data, Progress …
//	                        ←   Done, or at any time Failure
//
// A worker serves one request. It ends when its standard input does. The parent does not trust the worker: lengths are
// checked before memory is allocated, and whatever does not decode is an error.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// Version is the version of this protocol. Both ends must have the same.
const Version = 1

// MaxFrame is the largest payload of a frame, in bytes.
const MaxFrame = 8 << 20

// MaxData is the largest payload of a Data frame that a worker writes, in bytes.
const MaxData = 64 << 10

// Type is the type of a frame.
type Type byte

// The frames.
const (
	TypeHello    Type = 'H'
	TypeRequest  Type = 'Q'
	TypePlan     Type = 'P'
	TypeGo       Type = 'G'
	TypeSchema   Type = 'S'
	TypeData     Type = 'D'
	TypeProgress Type = 'R'
	TypeFailure  Type = 'E'
	TypeDone     Type = 'Z'
)

// Hello is the worker's first frame.
type Hello struct {
	Version  int    `json:"version"`
	Engine   string `json:"engine"`   // "DuckDB v1.5.5"
	Landlock int    `json:"landlock"` // ABI of the kernel; 0 = none
	Confined bool   `json:"confined"` // the worker has tried and could neither leave its directories nor open a socket
}

// Request is what to run.
type Request struct {
	SQL     string  `json:"sql"`
	Tables  []Table `json:"tables"`
	Hive    []Hive  `json:"hive"` // partition columns, of all tables
	Format  string  `json:"format"`
	Width   int     `json:"width"`    // of the terminal, for the format table; 0 = no limit
	MaxRows int64   `json:"max_rows"` // 0 = no limit
	Memory  int64   `json:"memory"`   // bytes
	Spill   int64   `json:"spill"`    // bytes of intermediate results in the scratch directory; 0 = none
	Threads int     `json:"threads"`
}

// Table is a table of the lake.
type Table struct {
	Name    string   `json:"name"`
	Dir     string   `json:"dir"` // below the snapshot directory
	Columns []Column `json:"columns"`
}

// Column is a column with its SQL type.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Hive is a partition column: INTEGER or VARCHAR.
type Hive struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Plan is what the statement can touch.
type Plan struct {
	Tables []TablePlan `json:"tables"` // only those that the statement names
}

// TablePlan is one table the statement reads, and the condition that every row it reads fulfils.
type TablePlan struct {
	Name   string `json:"name"`
	Filter Filter `json:"filter"`
}

// Go lets the worker run the statement.
type Go struct {
	Filled []string `json:"filled"` // tables that have at least one file in the snapshot
}

// Schema is the columns of the result.
type Schema struct {
	Columns []Column `json:"columns"`
}

// Progress is how far the worker is.
type Progress struct {
	Percent float64 `json:"percent"` // of the work; negative when the engine does not know
	Rows    int64   `json:"rows"`    // of the result
	Bytes   int64   `json:"bytes"`   // of the result as formatted
}

// Done ends a successful answer.
type Done struct {
	Rows      int64 `json:"rows"`
	Truncated bool  `json:"truncated"` // the row limit cut the result
}

// Failure ends an answer that failed.
type Failure struct {
	Kind     string `json:"kind"` // Kind… constants
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
	Position int    `json:"position"` // byte in the statement, or -1
}

// The kinds of failure.
const (
	KindInvalid  = "invalid" // the statement can never succeed as it is
	KindDenied   = "denied"  // the statement asks for what a query may not do
	KindMemory   = "memory"  // the statement needs more memory or scratch space than it may have
	KindSandbox  = "sandbox" // the worker could not confine itself
	KindInternal = "internal"
)

// Write writes one frame.
func Write(w io.Writer, t Type, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("write frame %q: %d bytes, at most %d", byte(t), len(payload), MaxFrame)
	}
	b := make([]byte, 5, 5+len(payload))
	b[0] = byte(t)
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload)))
	_, err := w.Write(append(b, payload...))
	return err
}

// WriteJSON writes v as the payload of one frame.
func WriteJSON(w io.Writer, t Type, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame %q: %w", byte(t), err)
	}
	return Write(w, t, b)
}

// Read reads one frame. It reuses buf when that is large enough. io.EOF means the end between two frames.
func Read(r io.Reader, buf []byte) (Type, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("read frame %q: %d bytes, at most %d", head[0], n, MaxFrame)
	}
	if cap(buf) < int(n) {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return Type(head[0]), buf, nil
}

// ReadJSON reads one frame, which must be of type t, into v.
func ReadJSON(r io.Reader, t Type, v any) error {
	got, payload, err := Read(r, nil)
	if err != nil {
		return err
	}
	if got != t {
		return fmt.Errorf("read frame: type %q, want %q", byte(got), byte(t))
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("decode frame %q: %w", byte(t), err)
	}
	return nil
}
