package forward

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// progress is the whole content of an export's cursor. docs/format/export-state.md describes its bytes.
type progress struct {
	next record.Offset // the first message that is not settled: the cursor's offset

	messages, bytes, skipped, dropped uint64 // see Status

	attempt, delivered int64 // wall time of the last, nanoseconds; 0 never
	trouble            note
	target             []byte // Batch.State for message next
}

// note is what LastError shows.
type note struct {
	at         int64 // wall time, nanoseconds
	loss       bool  // something was skipped or lost, which is not mended by the next success
	text, hint string
}

// progressVersion is the version of the state's bytes.
const progressVersion = 1

// maxNoteText is the most bytes of each text of a note.
const maxNoteText = 1000

// noteIsLoss is the flag of note.loss.
const noteIsLoss = 1

// encode gives the cursor. It fits into stream.MaxCursorState whatever is in it.
func (p *progress) encode() stream.Cursor {
	b := []byte{progressVersion}
	for _, n := range []uint64{p.messages, p.bytes, p.skipped, p.dropped} {
		b = binary.AppendUvarint(b, n)
	}
	for _, at := range []int64{p.attempt, p.delivered, p.trouble.at} {
		b = binary.AppendVarint(b, at)
	}
	var flags byte
	if p.trouble.loss {
		flags |= noteIsLoss
	}
	b = append(b, flags)
	for _, text := range []string{clip(p.trouble.text), clip(p.trouble.hint), string(p.target)} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	return stream.Cursor{Offset: p.next, State: b}
}

// clip makes valid UTF-8 of at most maxNoteText bytes of a text that somebody else may have written.
func clip(text string) string {
	if len(text) > maxNoteText {
		n := maxNoteText
		for n > maxNoteText-utf8.UTFMax && !utf8.RuneStart(text[n]) {
			n--
		}
		text = text[:n]
	}
	return strings.ToValidUTF8(text, "")
}

// decodeProgress reads a cursor. A state of another version is Invalid with the remedy, anything else that does not read
// Corrupt.
func decodeProgress(c stream.Cursor) (progress, error) {
	p := progress{next: c.Offset}
	if len(c.State) == 0 { // a cursor that somebody stored by hand: a place, no counters
		return p, nil
	}
	if v := c.State[0]; v != progressVersion {
		return p, record.Errorf(record.Invalid, "forwarding state of version %d: this program reads version %d", v, progressVersion).
			WithHint("run the leat version that wrote this data directory, or a newer one; its exports go on where they were")
	}
	d := progressReader{rest: c.State[1:]}
	for _, n := range []*uint64{&p.messages, &p.bytes, &p.skipped, &p.dropped} {
		*n = d.uvarint()
	}
	for _, at := range []*int64{&p.attempt, &p.delivered, &p.trouble.at} {
		*at = d.varint()
	}
	flags := d.flags()
	p.trouble.loss = flags&noteIsLoss != 0
	p.trouble.text = string(d.bytes(maxNoteText))
	p.trouble.hint = string(d.bytes(maxNoteText))
	if target := d.bytes(MaxTargetState); len(target) > 0 {
		p.target = append([]byte(nil), target...)
	}
	if d.failed || len(d.rest) > 0 {
		return progress{}, record.Errorf(record.Corrupt, "forwarding state of %d bytes does not read", len(c.State)).
			WithHint("run `leat log verify`; the state is part of the log and covered by its checksums")
	}
	return p, nil
}

// progressReader reads the parts of a state; after the first part that is not there it gives zeros and has failed.
type progressReader struct {
	rest   []byte
	failed bool
}

func (d *progressReader) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	return d.number(v, n)
}

func (d *progressReader) varint() int64 {
	v, n := binary.Varint(d.rest)
	return int64(d.number(uint64(v), n))
}

// number passes the n bytes that made v; n is at most 0 when there is no number.
func (d *progressReader) number(v uint64, n int) uint64 {
	if d.failed || n <= 0 {
		d.failed = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *progressReader) flags() byte {
	if d.failed || len(d.rest) == 0 || d.rest[0]&^noteIsLoss != 0 {
		d.failed = true
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *progressReader) bytes(limit uint64) []byte {
	n := d.uvarint()
	if d.failed || n > limit || n > uint64(len(d.rest)) {
		d.failed = true
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}
