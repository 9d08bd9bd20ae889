// Package record is the vocabulary of leat: the words that every other package uses, and no work.
// It imports the standard library only.
//
// Glossary, in the order of a message's way:
//
//   - A record is one thing that arrived: time, key, payload, attributes.
//   - A door is where records arrive (MQTT, later Kinesis and others). It speaks a wire protocol and keeps no state.
//   - A stream is an ordered, durable sequence of records. Its name is "kind/name/part"; each incarnation of that
//     name (created, deleted, created again) has an ID of its own.
//   - An offset is a record's place in its stream incarnation: dense, from 0, never reused.
//   - A frame is one append as it lies in the log: the unit of checksum, of copying and of distribution.
//   - A commit is what one fdatasync made durable: the frames of all streams that were waiting.
//   - A lane is a set of streams that share segments because they keep data about equally long.
//   - A cursor is a reader's durable place in a stream, with a little state of its own.
//   - An export moves records out of a stream: cursor, plan, batch, sink.
//   - A table is where rows live in the lake; a partition is a day of event time below it.
//   - The spool holds encoded files that wait for upload.
package record

import (
	"encoding/binary"
	"fmt"
	"iter"
	"strings"
)

// MaxPayload is the largest payload a record may carry, in bytes (16 MiB less room for its framing).
const MaxPayload = 16<<20 - 64<<10

// MaxKey is the largest key, in bytes: an MQTT topic fits.
const MaxKey = 1<<16 - 1

// Record is one thing that arrived. The byte slices may alias a buffer of whoever handed the record over:
// copy what outlives the call.
type Record struct {
	// Time is nanoseconds since 1970-01-01 UTC. Doors set it to the time of arrival; a time that is part of the
	// payload is read when the payload is parsed.
	Time int64
	// Key is the record's subject: an MQTT topic, a partition key. At most MaxKey bytes.
	Key []byte
	// Payload is what arrived, untouched. At most MaxPayload bytes.
	Payload []byte
	// Attributes are names and values beside the payload (encoded; see Attributes).
	Attributes Attributes
}

// Size is what the record counts for in stream limits: key, payload and attribute bytes.
func (r *Record) Size() int { return len(r.Key) + len(r.Payload) + len(r.Attributes) }

// Offset is a record's place in its stream incarnation: 0, 1, 2 … without holes at the time of writing.
type Offset uint64

// StreamID identifies one incarnation of a stream on one node. It is random and never 0.
type StreamID uint64

// String is the 16 hexadecimal digits used in keys, logs and file names.
func (id StreamID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// StreamName is "kind/name/part" (`kinesis/orders/shardId-000000000000`, `sm/My stream`): the first element keeps
// streams of different doors apart.
type StreamName string

// MaxStreamName is the longest stream name, in bytes.
const MaxStreamName = 1024

// Validate reports, as an Invalid error, what is wrong with the name.
func (n StreamName) Validate() error {
	kind, rest, ok := strings.Cut(string(n), "/")
	switch {
	case !ok || kind == "" || rest == "":
		return Errorf(Invalid, "stream name %q: want kind/name, for example mqtt/samples", string(n))
	case len(n) > MaxStreamName:
		return Errorf(Invalid, "stream name of %d bytes: at most %d", len(n), MaxStreamName)
	case strings.ContainsRune(string(n), 0):
		return Errorf(Invalid, "stream name %q contains a zero byte", string(n))
	}
	return nil
}

// Attributes is a list of name/value pairs in one slice, so that a record with attributes costs no allocation:
// for each pair uvarint(len name) name uvarint(len value) value. The zero value is an empty list.
type Attributes []byte

// Append returns a with one more pair.
func (a Attributes) Append(name, value string) Attributes {
	a = binary.AppendUvarint(a, uint64(len(name)))
	a = append(a, name...)
	a = binary.AppendUvarint(a, uint64(len(value)))
	return append(a, value...)
}

// Get returns the value of the first pair called name.
func (a Attributes) Get(name string) (value []byte, ok bool) {
	for n, v := range a.All() {
		if string(n) == name {
			return v, true
		}
	}
	return nil, false
}

// All yields the pairs in order; it ends early when the encoding is damaged (see Valid).
func (a Attributes) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		rest := []byte(a)
		for len(rest) > 0 {
			var name, value []byte
			var ok bool
			if name, rest, ok = cutPrefixed(rest); !ok {
				return
			}
			if value, rest, ok = cutPrefixed(rest); !ok {
				return
			}
			if !yield(name, value) {
				return
			}
		}
	}
}

// Valid reports whether a is a whole number of well-formed pairs.
func (a Attributes) Valid() bool {
	rest, ok := []byte(a), true
	for len(rest) > 0 {
		for range 2 {
			if _, rest, ok = cutPrefixed(rest); !ok {
				return false
			}
		}
	}
	return true
}

func cutPrefixed(b []byte) (field, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return nil, nil, false
	}
	end := used + int(n)
	return b[used:end:end], b[end:], true
}
