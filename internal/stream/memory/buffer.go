package memory

import (
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// perRecord is what a record is charged beside its own bytes: header, mark and, when it came alone, an origin.
const perRecord = 64

// charge is what records count for in the engine's limits.
func charge(records []record.Record) int64 {
	var n int64
	for i := range records {
		n += int64(records[i].Size()) + perRecord
	}
	return n
}

// dropped is what a truncation has removed.
type dropped struct {
	records int64
	charge  int64
}

// buffer is one stream.
type buffer struct {
	id   record.StreamID
	name record.StreamName

	mu      sync.Mutex // guards what follows
	policy  stream.Policy
	sealed  bool
	gone    bool // deleted
	chunks  []*chunk
	first   record.Offset
	head    int // position of first in chunks[0]
	next    record.Offset
	bytes   int64 // Size of the records in [first, next)
	cursors map[string]stream.Cursor
	changed chan struct{} // closed at the next append, seal or deletion; nil while nobody waits
}

// add appends records that were found admissible.
func (b *buffer) add(records []record.Record, at clock.Reading) {
	if len(records) == 0 {
		return
	}
	c, first := b.last(), b.next // first is where this append begins in c
	for i := range records {
		r := &records[i]
		if c == nil || !c.fits(r) {
			if first < b.next {
				c.originate(first, at)
			}
			c, first = newChunk(b.next, c, headerSize+r.Size()), b.next
			b.chunks = append(b.chunks, c)
		}
		c.add(r)
		b.next++
		b.bytes += int64(r.Size())
	}
	c.originate(first, at)
	b.notify()
}

func (b *buffer) last() *chunk {
	if len(b.chunks) == 0 {
		return nil
	}
	return b.chunks[len(b.chunks)-1]
}

// notify wakes the readers that wait at the head.
func (b *buffer) notify() {
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// waiting is the channel that the next notify closes.
func (b *buffer) waiting() chan struct{} {
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.changed
}

// truncate drops records below before, which is at most next.
func (b *buffer) truncate(before record.Offset) dropped {
	return b.dropWhile(func(*chunk, int) bool { return b.first < before })
}

// dropWhile drops records from the front while more says so of the first one left.
func (b *buffer) dropWhile(more func(c *chunk, pos int) bool) (d dropped) {
	for len(b.chunks) > 0 {
		c := b.chunks[0]
		for b.first < c.end() {
			if !more(c, b.head) {
				return d
			}
			n := c.lengthAt(b.head)
			b.head += n
			b.first++
			b.bytes -= int64(n - headerSize)
			d.records++
			d.charge += int64(n-headerSize) + perRecord
		}
		b.dropChunk()
	}
	return d
}

// dropChunk lets go of the first chunk, all of whose records are dropped.
func (b *buffer) dropChunk() {
	b.head = 0
	b.chunks[0] = nil
	b.chunks = b.chunks[1:]
	if len(b.chunks) == 0 {
		b.chunks = nil
	}
}

// expire drops the records at the front that are older than the policy allows.
func (b *buffer) expire(now int64) dropped {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.policy.MaxAge <= 0 {
		return dropped{}
	}
	oldest := now - int64(b.policy.MaxAge)
	return b.dropWhile(func(c *chunk, pos int) bool { return c.timeAt(pos) < oldest })
}

// passed drops what every export has passed, where the policy keeps records only for them.
func (b *buffer) passed() dropped {
	before, ok := b.exported()
	if !ok || !b.policy.UntilExported {
		return dropped{}
	}
	return b.truncate(before)
}

// shrink drops the oldest records until extra bytes more fit the policy's limit, and DropBytes when it drops any.
func (b *buffer) shrink(extra int64) dropped {
	p := &b.policy
	if p.OnFull != stream.DropOldest || p.MaxBytes <= 0 || b.bytes+extra <= p.MaxBytes {
		return dropped{}
	}
	goal := b.bytes - p.DropBytes
	return b.dropWhile(func(*chunk, int) bool {
		newest := extra == 0 && b.first+1 == b.next
		return b.bytes+extra > p.MaxBytes || b.bytes > goal && !newest
	})
}

// charged is what the engine's limit counts for the stream.
func (b *buffer) charged() int64 { return b.bytes + perRecord*int64(b.next-b.first) }

// dropCharged drops the oldest records until so much is not charged any more, or none is left.
func (b *buffer) dropCharged(n int64) dropped {
	goal := b.charged() - n
	return b.dropWhile(func(*chunk, int) bool { return b.charged() > goal })
}

// exported is the offset that every export cursor has passed; ok is false when there is none.
func (b *buffer) exported() (before record.Offset, ok bool) {
	for name, c := range b.cursors {
		if strings.HasPrefix(name, stream.ExportCursor) && (!ok || c.Offset < before) {
			before, ok = c.Offset, true
		}
	}
	return before, ok
}

// chunkOf is the index of the chunk that holds offset, which is kept.
func (b *buffer) chunkOf(offset record.Offset) int {
	return sort.Search(len(b.chunks), func(i int) bool { return b.chunks[i].end() > offset })
}

// fill copies no bytes: the records alias the chunks. from is in [first, next).
func (b *buffer) fill(from record.Offset, maxBytes int, out *stream.Chunk) {
	left := maxBytes
	for i := b.chunkOf(from); i < len(b.chunks); i++ {
		c := b.chunks[i]
		start := from
		pos := c.position(from)
		for from < c.end() {
			r, next := c.recordAt(pos)
			if left -= r.Size() + perRecord; left < 0 && len(out.Records) > 0 {
				break
			}
			out.Records = append(out.Records, r)
			pos = next
			from++
		}
		out.Origins = c.originsOf(start, from, out.Origins)
		if left < 0 {
			break
		}
	}
	out.Next = from
}

// seek finds the lowest kept offset with a time of at least t.
func (b *buffer) seek(t int64) record.Offset {
	for _, c := range b.chunks {
		if c.maxTime < t {
			continue
		}
		offset := max(c.first, b.first)
		for pos := c.position(offset); pos < len(c.buf); pos += c.lengthAt(pos) {
			if c.timeAt(pos) >= t {
				return offset
			}
			offset++
		}
	}
	return b.next
}

func (b *buffer) bounds() stream.Bounds {
	return stream.Bounds{First: b.first, Readable: b.next, Next: b.next, Bytes: b.bytes, Sealed: b.sealed}
}

func (b *buffer) info() stream.Info {
	b.mu.Lock()
	defer b.mu.Unlock()
	return stream.Info{ID: b.id, Name: b.name, Policy: b.policy, Bounds: b.bounds()}
}

func cloneCursor(c stream.Cursor) stream.Cursor {
	return stream.Cursor{Offset: c.Offset, State: slices.Clone(c.State)}
}
