package memory

import (
	"encoding/binary"
	"sort"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

const (
	headerSize   = 8 + 2 + 4 + 4 // time, lengths of key, attributes and payload
	firstChunk   = 512           // bytes of a stream's first chunk
	maxChunk     = 64 << 10      // of every later one, unless a single record is larger
	markInterval = 32            // records between two positions kept in a chunk's marks
)

// chunk holds consecutive records in one slice. Bytes below len(buf) never change and never move.
type chunk struct {
	first   record.Offset
	count   int
	maxTime int64
	buf     []byte
	marks   []uint32        // position of every markInterval-th record
	origins []stream.Origin // in order; one append that spans chunks has one in each
}

func newChunk(first record.Offset, after *chunk, need int) *chunk {
	size := firstChunk
	if after != nil {
		size = min(2*cap(after.buf), maxChunk)
	}
	return &chunk{first: first, maxTime: -1 << 63, buf: make([]byte, 0, max(size, need))}
}

func (c *chunk) end() record.Offset { return c.first + record.Offset(c.count) }

func (c *chunk) fits(r *record.Record) bool { return cap(c.buf)-len(c.buf) >= headerSize+r.Size() }

// add appends a record that fits.
func (c *chunk) add(r *record.Record) {
	if c.count%markInterval == 0 {
		c.marks = append(c.marks, uint32(len(c.buf)))
	}
	c.buf = binary.LittleEndian.AppendUint64(c.buf, uint64(r.Time))
	c.buf = binary.LittleEndian.AppendUint16(c.buf, uint16(len(r.Key)))
	c.buf = binary.LittleEndian.AppendUint32(c.buf, uint32(len(r.Attributes)))
	c.buf = binary.LittleEndian.AppendUint32(c.buf, uint32(len(r.Payload)))
	c.buf = append(c.buf, r.Key...)
	c.buf = append(c.buf, r.Attributes...)
	c.buf = append(c.buf, r.Payload...)
	c.count++
	c.maxTime = max(c.maxTime, r.Time)
}

// originate notes that the records from first to the chunk's end were appended together.
func (c *chunk) originate(first record.Offset, at clock.Reading) {
	c.origins = append(c.origins, stream.Origin{
		First: first, Count: int(c.end() - first), Boot: at.Boot, Mono: at.Mono, Wall: at.Wall, Trusted: at.Trusted,
	})
}

// position is where the record at offset lies in buf.
func (c *chunk) position(offset record.Offset) int {
	i := int(offset - c.first)
	if i == c.count {
		return len(c.buf)
	}
	pos := int(c.marks[i/markInterval])
	for range i % markInterval {
		pos += c.lengthAt(pos)
	}
	return pos
}

func (c *chunk) lengthAt(pos int) int {
	h := c.buf[pos : pos+headerSize]
	return headerSize + int(binary.LittleEndian.Uint16(h[8:])) + int(binary.LittleEndian.Uint32(h[10:])) +
		int(binary.LittleEndian.Uint32(h[14:]))
}

func (c *chunk) timeAt(pos int) int64 { return int64(binary.LittleEndian.Uint64(c.buf[pos:])) }

// recordAt returns the record at pos, which aliases the chunk, and the position of the next.
func (c *chunk) recordAt(pos int) (record.Record, int) {
	h := c.buf[pos : pos+headerSize]
	key := pos + headerSize
	attributes := key + int(binary.LittleEndian.Uint16(h[8:]))
	payload := attributes + int(binary.LittleEndian.Uint32(h[10:]))
	end := payload + int(binary.LittleEndian.Uint32(h[14:]))
	return record.Record{
		Time:       c.timeAt(pos),
		Key:        c.buf[key:attributes:attributes],
		Attributes: record.Attributes(c.buf[attributes:payload:payload]),
		Payload:    c.buf[payload:end:end],
	}, end
}

// originsOf appends the origins of the records in [from, to) to dst.
func (c *chunk) originsOf(from, to record.Offset, dst []stream.Origin) []stream.Origin {
	i := sort.Search(len(c.origins), func(i int) bool {
		o := c.origins[i]
		return o.First+record.Offset(o.Count) > from
	})
	for ; i < len(c.origins) && c.origins[i].First < to; i++ {
		dst = append(dst, c.origins[i])
	}
	return dst
}
