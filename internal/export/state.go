package export

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// State is how far a step has come. The numbers are stored: never change them.
type State uint8

// The states of a step. A committed step is in no cursor any more.
const (
	Planned   State = 1
	Encoded   State = 2
	Uploaded  State = 3
	Committed State = 4
)

var stateNames = [...]string{"unknown", "planned", "encoded", "uploaded", "committed"}

// String is the state in a word.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Step is a range of a stream on its way out.
type Step struct {
	State    State
	From, To record.Offset // [From, To)
	Cut      time.Time     // the instant the step is named after, UTC
	Revision uint64        // of the configuration it was planned under
	// Untrusted says that the cut did not wait any longer for a clock that can be believed.
	Untrusted bool
	Oldest    int64  // record time of the first record, for "how late are we"; 0 when not known
	LogBytes  int64  // size in the log, estimated
	Parser    []byte // state of the parser at From; empty as long as no parser has any
	Detail    []byte // the sink's, at most MaxDetail bytes; set when ENCODED
}

// MaxDetail is the most a sink may keep in a step: what is larger goes into a file of the spool.
const MaxDetail = 64

// position is the whole content of an export's cursor.
type position struct {
	encoded record.Offset  // below it everything is ENCODED or further: the cursor's offset
	lastCut int64          // wall time of the last cut, nanoseconds
	anchors []clock.Anchor // of the boots last seen with a trusted clock, oldest first
	steps   []Step         // in order, none committed
}

// planned is the offset at which the next step begins.
func (p *position) planned() record.Offset {
	if n := len(p.steps); n > 0 {
		return max(p.steps[n-1].To, p.encoded)
	}
	return p.encoded
}

// clone copies what update changes in place.
func (p *position) clone() position {
	c := *p
	c.steps = append([]Step(nil), p.steps...)
	c.anchors = append([]clock.Anchor(nil), p.anchors...)
	return c
}

// maxAnchors is how many boots a cursor remembers.
const maxAnchors = 8

// remember adds an anchor, or replaces the one of the same boot, and reports whether something changed that matters:
// offsets differ a little with every reading, so a boot already known keeps its first.
func (p *position) remember(a clock.Anchor) bool {
	for _, have := range p.anchors {
		if have.Boot == a.Boot {
			return false
		}
	}
	p.anchors = append(p.anchors, a)
	if len(p.anchors) > maxAnchors {
		p.anchors = p.anchors[len(p.anchors)-maxAnchors:]
	}
	return true
}

// stateVersion is the version of the cursor's bytes. docs/format/export-state.md describes them.
const stateVersion = 1

const flagUntrusted = 1

// encodeState gives the cursor of a position.
func encodeState(p *position) (stream.Cursor, error) {
	b := []byte{stateVersion}
	b = binary.AppendVarint(b, p.lastCut)
	b = binary.AppendUvarint(b, uint64(len(p.anchors)))
	for _, a := range p.anchors {
		b = binary.LittleEndian.AppendUint64(b, a.Boot)
		b = binary.AppendVarint(b, a.Offset)
	}
	b = binary.AppendUvarint(b, uint64(len(p.steps)))
	for i := range p.steps {
		b = appendStep(b, &p.steps[i])
	}
	if len(b) > stream.MaxCursorState {
		return stream.Cursor{}, record.Errorf(record.Internal, "state of %d steps takes %d bytes: at most %d",
			len(p.steps), len(b), stream.MaxCursorState)
	}
	return stream.Cursor{Offset: p.encoded, State: b}, nil
}

func appendStep(b []byte, s *Step) []byte {
	var flags byte
	if s.Untrusted {
		flags |= flagUntrusted
	}
	b = append(b, byte(s.State), flags)
	b = binary.AppendUvarint(b, uint64(s.From))
	b = binary.AppendUvarint(b, uint64(s.To-s.From))
	b = binary.AppendVarint(b, s.Cut.UnixNano())
	b = binary.AppendUvarint(b, s.Revision)
	b = binary.AppendVarint(b, s.Oldest)
	b = binary.AppendUvarint(b, uint64(s.LogBytes))
	b = binary.AppendUvarint(b, uint64(len(s.Parser)))
	b = append(b, s.Parser...)
	b = binary.AppendUvarint(b, uint64(len(s.Detail)))
	return append(b, s.Detail...)
}

// decodeState reads a cursor. A state of another version is Invalid with the remedy, anything else that does not read
// Corrupt.
func decodeState(c stream.Cursor) (position, error) {
	p := position{encoded: c.Offset}
	if len(c.State) == 0 { // a cursor somebody stored by hand: a place, no steps
		return p, nil
	}
	if v := c.State[0]; v != stateVersion {
		return p, record.Errorf(record.Invalid, "export state of version %d: this program reads version %d", v, stateVersion).
			WithHint("run the leat version that wrote this data directory, or a newer one; its exports go on where they were")
	}
	d := decoder{rest: c.State[1:]}
	p.lastCut = d.varint()
	for range d.count(maxAnchors) {
		p.anchors = append(p.anchors, clock.Anchor{Boot: d.uint64(), Offset: d.varint()})
	}
	for range d.count(maxPending) {
		p.steps = append(p.steps, d.step())
	}
	if d.failed || len(d.rest) > 0 || !p.consistent() {
		return position{}, record.Errorf(record.Corrupt, "export state of %d bytes does not read", len(c.State)).
			WithHint("run `leat log verify`; the state is part of the log and covered by its checksums")
	}
	return p, nil
}

// consistent reports whether the steps are in order: first those that are encoded, all below the cursor's offset, then
// at most one that is planned and begins there or later.
func (p *position) consistent() bool {
	at := record.Offset(0)
	for i, s := range p.steps {
		switch {
		case s.From < at || s.To <= s.From, s.State < Planned || s.State > Uploaded:
			return false
		case s.State == Planned && (i != len(p.steps)-1 || s.From < p.encoded):
			return false
		case s.State != Planned && s.To > p.encoded:
			return false
		}
		at = s.To
	}
	return true
}

// decoder reads the parts of a state; after the first part that is not there it gives zeros and has failed.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) take(n uint64) []byte {
	if d.failed || n > uint64(len(d.rest)) {
		d.failed = true
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	d.take(uint64(max(n, 0)))
	d.failed = d.failed || n <= 0
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	d.take(uint64(max(n, 0)))
	d.failed = d.failed || n <= 0
	return v
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

// count reads how many parts follow; more than limit is a failure.
func (d *decoder) count(limit int) int {
	n := d.uvarint()
	if n > uint64(limit) {
		d.failed = true
	}
	if d.failed {
		return 0
	}
	return int(n)
}

func (d *decoder) bytes() []byte {
	b := d.take(d.uvarint())
	if len(b) == 0 {
		return nil
	}
	return append([]byte(nil), b...)
}

func (d *decoder) step() Step {
	s := Step{State: State(d.byte())}
	flags := d.byte()
	d.failed = d.failed || flags&^flagUntrusted != 0
	s.Untrusted = flags&flagUntrusted != 0
	s.From = record.Offset(d.uvarint())
	n := d.uvarint()
	s.To = s.From + record.Offset(n)
	d.failed = d.failed || s.To < s.From
	s.Cut = time.Unix(0, d.varint()).UTC()
	s.Revision = d.uvarint()
	s.Oldest = d.varint()
	s.LogBytes = int64(d.uvarint())
	s.Parser = d.bytes()
	s.Detail = d.bytes()
	return s
}
