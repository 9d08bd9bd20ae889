package segment

import (
	"context"
	"errors"
	"hash/crc32"
	"io/fs"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Read implements stream.Reader.
func (l *Log) Read(ctx context.Context, id record.StreamID, from record.Offset, maxBytes int, c *stream.Chunk) error {
	c.Records, c.Origins, c.Gaps = c.Records[:0], c.Origins[:0], c.Gaps[:0]
	c.First, c.Next = from, from
	s, err := l.stream(id)
	if err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, wait, err := s.lane.plan(s, c)
		if err != nil {
			return err
		}
		if wait != nil {
			if len(c.Gaps) > 0 {
				return nil
			}
			select {
			case <-wait:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		err = s.lane.fill(&r, maxBytes, c)
		if errors.Is(err, fs.ErrNotExist) {
			// Cleaning moved what was planned between plan and fill: the next plan finds it elsewhere. A segment
			// that somebody removed is found missing here too.
			if err = s.lane.vanished(r.segment); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if len(c.Records) > 0 || len(c.Gaps) > 0 {
			return nil
		}
	}
}

// Sync implements stream.Reader. What was acknowledged is written, so a commit that asks for durability is enough.
func (l *Log) Sync(ctx context.Context, id record.StreamID) error {
	s, err := l.stream(id)
	if err != nil {
		return err
	}
	la := s.lane
	la.mu.Lock()
	want, readable, err := s.next, s.synced >= s.next, la.refuse()
	la.mu.Unlock()
	if readable || err != nil {
		return err
	}
	err = la.submit(ctx, &control{steps: func() ([]op, error) { return nil, nil }})
	la.mu.Lock()
	defer la.mu.Unlock()
	switch {
	case s.deleted:
		return notFound(id)
	case s.synced >= want:
		return nil // also when something else of that commit failed: there was no room for truncations, say
	}
	return err
}

// readPlan is where to read next.
type readPlan struct {
	s       *streamState
	segment segmentState
	groups  []group       // copied when of the active segment, else nil
	from    record.Offset // wanted
	end     record.Offset // of the extent, or of what is readable
	limit   int64         // file position behind which nothing may be read
}

// plan decides what to read for c.Next: it adds the gap before it, or returns a channel to wait on at the head.
func (l *lane) plan(s *streamState, c *stream.Chunk) (r readPlan, wait <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := c.Next
	switch {
	case s.deleted:
		return r, nil, notFound(s.id)
	case l.failed != nil || l.stopping:
		return r, nil, l.refuse()
	case from > s.next:
		return r, nil, record.Errorf(record.Invalid, "offset %d is beyond the end of stream %s: the next one is %d", from, s.name, s.next)
	}
	if from < s.first {
		addGap(c, from, s.first, stream.Dropped)
		from = s.first
	}
	i := findExtent(s.extents, from)
	if from < s.synced && (i == len(s.extents) || s.extents[i].first > from) {
		to := s.synced
		if i < len(s.extents) {
			to = min(to, s.extents[i].first)
		}
		addGap(c, from, to, stream.Damaged)
		from = to
		i = findExtent(s.extents, from)
	}
	c.First, c.Next = from, from
	if from >= s.synced {
		if s.sealed && from == s.next && len(c.Gaps) == 0 {
			return r, nil, stream.ErrEnd
		}
		return r, s.waiter(), nil
	}
	e := &s.extents[i]
	r = readPlan{s: s, from: from, end: min(e.next, s.synced), segment: *l.segments[e.segment]}
	// Offsets decide what may be read, not positions: frames that cleaning has just copied here are not synced yet, but
	// their originals are.
	r.limit = r.segment.size
	if e.segment == l.active.number {
		g := s.groups[findGroup(s.groups, from):]
		r.groups = append([]group(nil), g[:min(len(g), maxGroupsPerRead)]...)
	}
	return r, nil, nil
}

// maxGroupsPerRead bounds what a read of the active segment copies under the mutex.
const maxGroupsPerRead = 64

func addGap(c *stream.Chunk, from, to record.Offset, why stream.GapReason) {
	if n := len(c.Gaps); n > 0 && c.Gaps[n-1].To == from && c.Gaps[n-1].Reason == why {
		c.Gaps[n-1].To = to
		return
	}
	c.Gaps = append(c.Gaps, stream.Gap{From: from, To: to, Reason: why})
}

// fill reads the planned frames into c. What does not read becomes a gap.
func (l *lane) fill(r *readPlan, maxBytes int, c *stream.Chunk) error {
	groups := r.groups
	if groups == nil {
		all, err := l.indexes.get(r.segment, r.s.id)
		if err != nil {
			return err
		}
		groups = all[findGroup(all, r.from):]
	}
	if len(groups) == 0 || groups[0].first >= r.end {
		l.lost(r, c, r.end, r.limit, r.limit) // the index does not know what the control state does
		return nil
	}
	start, stop, end := region(groups, r.end, maxBytes)
	stop = min(stop, r.limit)
	h, err := l.files.open(r.segment.number, r.segment.salt)
	if err != nil {
		return err
	}
	defer h.release()
	n := int(max(0, stop-start))
	if cap(c.Buf) < n {
		c.Buf = make([]byte, n)
	}
	c.Buf = c.Buf[:n]
	if err := readOrZero(h.file, c.Buf, start); err != nil {
		return err
	}
	l.collect(r, c, start, end)
	trim(c, maxBytes)
	return nil
}

// region is the stretch of the file that holds the first group and those after it that lie near and fit, and the
// offset they reach to.
func region(groups []group, end record.Offset, maxBytes int) (start, stop int64, reach record.Offset) {
	g := &groups[0]
	start, stop, reach = int64(g.pos), int64(g.pos)+int64(g.span), min(g.next(), end)
	for i := 1; i < len(groups); i++ {
		g := &groups[i]
		at := int64(g.pos)
		if g.first != groups[i-1].next() || g.first >= end || at < stop || at > stop+groupSpan ||
			at+int64(g.span)-start > int64(maxBytes) {
			break
		}
		stop, reach = at+int64(g.span), min(g.next(), end)
	}
	return start, stop, reach
}

// collect takes the stream's records in [r.from, end) out of c.Buf, which holds the file from start on. Frames of the
// stream that lie there out of turn (copied forward by cleaning) are passed over.
func (l *lane) collect(r *readPlan, c *stream.Chunk, start int64, end record.Offset) {
	want, later := r.from, end
	for at := 0; at < len(c.Buf) && want < end; {
		pos := start + int64(at)
		h, err := parseHeader(c.Buf[at:], r.segment.salt, pos)
		if errors.Is(err, errNoFrame) {
			at += frameAlign // damaged: look for the next frame
			continue
		}
		at += int(h.size())
		body := c.Buf[min(int(pos-start)+frameHeaderSize, len(c.Buf)):]
		if h.kind != kindData || h.stream != r.s.id || h.next() <= want || int(h.bodyLen) > len(body) {
			continue
		}
		if h.first > want {
			later = min(later, h.first)
			continue
		}
		n := len(c.Records)
		if err == nil {
			c.Records, err = l.records(c.Records, &h, body[:h.bodyLen], want)
		}
		if err != nil {
			c.Records = c.Records[:n]
			if n == 0 {
				l.lost(r, c, min(h.next(), end), pos, pos+h.size())
			}
			return
		}
		c.Origins = append(c.Origins, origin(&h))
		c.Records = c.Records[:n+int(min(h.next(), end)-want)]
		want = min(h.next(), end)
		c.Next = want
	}
	if len(c.Records) == 0 {
		l.lost(r, c, later, start, start+int64(len(c.Buf)))
	}
}

// records decodes a frame's records from offset want on.
func (l *lane) records(dst []record.Record, h *header, body []byte, want record.Offset) ([]record.Record, error) {
	if crc32.Checksum(body, castagnoli) != h.bodyCRC {
		return dst, record.Errorf(record.Corrupt, "frame body is damaged")
	}
	return decodeRecords(body, int(h.count), int(want-h.first), dst)
}

// trim leaves the records that fit into maxBytes, and the one that reaches it.
func trim(c *stream.Chunk, maxBytes int) {
	size := 0
	for i := range c.Records {
		if size += c.Records[i].Size(); size >= maxBytes {
			c.Records = c.Records[:i+1]
			break
		}
	}
	if len(c.Records) > 0 {
		c.Next = c.First + record.Offset(len(c.Records))
		for n := len(c.Origins); n > 0 && c.Origins[n-1].First >= c.Next; n = len(c.Origins) {
			c.Origins = c.Origins[:n-1]
		}
	}
}

func origin(h *header) stream.Origin {
	return stream.Origin{
		First: h.first, Count: int(h.count), Boot: h.boot, Mono: h.mono, Wall: h.wall, Trusted: h.flags&flagTrusted != 0,
	}
}

// lost adds a gap of damaged records up to `to`, which lay in [pos, end) of the segment, counts and logs it.
func (l *lane) lost(r *readPlan, c *stream.Chunk, to record.Offset, pos, end int64) {
	l.report(damage{segment: r.segment, from: pos, to: end, stream: r.s.name, first: c.Next, next: to})
	addGap(c, c.Next, to, stream.Damaged)
	c.First, c.Next = to, to
}

// vanished is called when a planned segment's file is not there. It returns nil when that is legitimate because the
// segment was cleaned meanwhile, and otherwise declares it missing.
func (l *lane) vanished(seg segmentState) error {
	l.mu.Lock()
	_, known := l.segments[seg.number]
	l.mu.Unlock()
	if !known {
		return nil
	}
	return l.declareMissing(seg.number)
}

// Seek implements stream.Reader.
func (l *Log) Seek(ctx context.Context, id record.StreamID, t time.Time) (record.Offset, error) {
	s, err := l.stream(id)
	if err != nil {
		return 0, err
	}
	at := t.UnixNano()
	from := record.Offset(0)
	var c stream.Chunk
	for {
		next, ok, err := s.lane.seekGroup(s, from, at)
		if err != nil || !ok {
			return next, err
		}
		if err := l.Read(ctx, id, next, groupSpan, &c); err != nil {
			return 0, err
		}
		for i := range c.Records {
			if c.Records[i].Time >= at {
				return c.First + record.Offset(i), nil
			}
		}
		from = c.Next
	}
}

// seekGroup finds the lowest offset from `from` on whose group holds a record of time t or later. ok is false when
// there is none: then it returns the next offset.
func (l *lane) seekGroup(s *streamState, from record.Offset, t int64) (off record.Offset, ok bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.deleted {
		return 0, false, notFound(s.id)
	}
	from = max(from, s.first)
	for i := findExtent(s.extents, from); i < len(s.extents); i++ {
		e := s.extents[i]
		if e.maxTime < t || e.first >= s.synced {
			continue
		}
		groups := s.groups
		if e.segment != l.active.number {
			groups, err = l.indexes.get(*l.segments[e.segment], s.id)
			if errors.Is(err, fs.ErrNotExist) {
				return max(from, e.first), true, nil // a segment is missing: Read finds out and goes on behind it
			}
			if err != nil {
				return 0, false, err
			}
		}
		for _, g := range groups[findGroup(groups, max(from, e.first)):] {
			if at := max(g.first, from, e.first); g.maxTime >= t && at < min(e.next, s.synced) {
				return at, true, nil
			}
		}
	}
	return s.synced, false, nil
}
