package segment

import (
	"encoding/binary"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// opKind is a step of control state. A control frame holds steps that happened; a checkpoint holds the steps that
// lead from nothing to the state at its segment's head, so one function (lane.apply) serves both.
type opKind uint8

const (
	opCreate       opKind = 1  // id, name, policy
	opAlter        opKind = 2  // id, policy
	opSeal         opKind = 3  // id
	opDelete       opKind = 4  // id
	opTruncate     opKind = 5  // id, offset, bytes: logical bytes left in the extent that offset cuts
	opCursor       opKind = 6  // id, name, offset, state
	opCursorDelete opKind = 7  // id, name
	opDropSegment  opKind = 8  // segment
	opSkip         opKind = 9  // id, offset: the next offset becomes this one; what lies between was damaged
	opBounds       opKind = 10 // checkpoint: id, offset (first), next
	opExtent       opKind = 11 // checkpoint: id, extent
	opSegment      opKind = 12 // checkpoint: segment, salt, bytes
)

// op is one step; which fields count depends on its kind.
type op struct {
	kind    opKind
	id      record.StreamID
	name    string
	policy  stream.Policy
	offset  record.Offset
	next    record.Offset
	bytes   int64
	state   []byte
	segment uint64
	salt    uint64
	extent  extent
}

func appendOps(b []byte, ops ...op) []byte {
	for i := range ops {
		b = appendOp(b, &ops[i])
	}
	return b
}

func appendOp(b []byte, o *op) []byte {
	b = append(b, byte(o.kind))
	switch o.kind {
	case opDropSegment:
		return binary.AppendUvarint(b, o.segment)
	case opSegment:
		b = binary.AppendUvarint(b, o.segment)
		b = binary.LittleEndian.AppendUint64(b, o.salt)
		return binary.AppendUvarint(b, uint64(o.bytes))
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(o.id))
	switch o.kind {
	case opCreate:
		b = appendString(b, o.name)
		b = appendPolicy(b, &o.policy)
	case opAlter:
		b = appendPolicy(b, &o.policy)
	case opTruncate:
		b = binary.AppendUvarint(b, uint64(o.offset))
		b = binary.AppendUvarint(b, uint64(o.bytes))
	case opCursor:
		b = appendString(b, o.name)
		b = binary.AppendUvarint(b, uint64(o.offset))
		b = appendString(b, string(o.state))
	case opCursorDelete:
		b = appendString(b, o.name)
	case opSkip:
		b = binary.AppendUvarint(b, uint64(o.offset))
	case opBounds:
		b = binary.AppendUvarint(b, uint64(o.offset))
		b = binary.AppendUvarint(b, uint64(o.next))
	case opExtent:
		e := &o.extent
		for _, v := range []uint64{uint64(e.first), uint64(e.next), e.segment, uint64(e.physical), uint64(e.logical)} {
			b = binary.AppendUvarint(b, v)
		}
		b = binary.AppendVarint(b, e.maxTime)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendPolicy(b []byte, p *stream.Policy) []byte {
	var flags byte
	if p.UntilExported {
		flags |= policyUntilExported
	}
	if p.DropBytes != 0 {
		flags |= policyDropBytes
	}
	b = append(b, byte(p.Durability), byte(p.OnFull), byte(p.Lane), flags)
	b = binary.AppendUvarint(b, uint64(p.MaxBytes))
	b = binary.AppendUvarint(b, uint64(p.MaxAge))
	if p.DropBytes != 0 {
		b = binary.AppendUvarint(b, uint64(p.DropBytes))
	}
	return b
}

// The flags of a policy. Fields that came later are written only where they are used, so that logs without them stay
// as they were.
const (
	policyUntilExported = 1 << iota
	policyDropBytes     // max age is followed by drop bytes
)

// opReader takes a body of ops apart. After the first malformed field every read gives zero and bad is set.
type opReader struct {
	b   []byte
	bad bool
}

func (r *opReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *opReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *opReader) fixed64() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *opReader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *opReader) field() []byte {
	f, rest, ok := cutField(r.b)
	if !ok {
		r.fail()
		return nil
	}
	r.b = rest
	return f
}

func (r *opReader) fail() { r.b, r.bad = nil, true }

func (r *opReader) policy() stream.Policy {
	p := stream.Policy{Durability: stream.Durability(r.byte()), OnFull: stream.OnFull(r.byte()), Lane: stream.Lane(r.byte())}
	flags := r.byte()
	p.UntilExported = flags&policyUntilExported != 0
	p.MaxBytes = int64(r.uvarint())
	p.MaxAge = time.Duration(r.uvarint())
	if flags&policyDropBytes != 0 {
		p.DropBytes = int64(r.uvarint())
	}
	if flags >= policyDropBytes<<1 {
		r.fail() // what follows is not known
	}
	return p
}

// next reads one op. ok is false at the end and after a malformed one (then bad is set).
func (r *opReader) next() (o op, ok bool) {
	if len(r.b) == 0 {
		return o, false
	}
	o.kind = opKind(r.byte())
	switch o.kind {
	case opDropSegment:
		o.segment = r.uvarint()
		return o, !r.bad
	case opSegment:
		o.segment, o.salt, o.bytes = r.uvarint(), r.fixed64(), int64(r.uvarint())
		return o, !r.bad
	}
	o.id = record.StreamID(r.fixed64())
	switch o.kind {
	case opCreate:
		o.name, o.policy = string(r.field()), r.policy()
	case opAlter:
		o.policy = r.policy()
	case opSeal, opDelete:
	case opTruncate:
		o.offset, o.bytes = record.Offset(r.uvarint()), int64(r.uvarint())
	case opCursor:
		o.name, o.offset = string(r.field()), record.Offset(r.uvarint())
		o.state = append([]byte(nil), r.field()...)
	case opCursorDelete:
		o.name = string(r.field())
	case opSkip:
		o.offset = record.Offset(r.uvarint())
	case opBounds:
		o.offset, o.next = record.Offset(r.uvarint()), record.Offset(r.uvarint())
	case opExtent:
		o.extent = extent{
			first: record.Offset(r.uvarint()), next: record.Offset(r.uvarint()), segment: r.uvarint(),
			physical: int64(r.uvarint()), logical: int64(r.uvarint()), maxTime: r.varint(),
		}
	default:
		r.fail()
	}
	return o, !r.bad
}
