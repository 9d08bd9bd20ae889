package segment

import (
	"cmp"
	"slices"
	"strings"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// extent is a run of a stream's offsets that lies in one segment. A stream's extents are sorted and do not overlap;
// offsets between two of them were damaged.
type extent struct {
	first, next record.Offset
	segment     uint64
	physical    int64 // bytes of the frames, headers and padding included; shrinks in proportion when cut
	logical     int64 // record.Size summed; an upper bound once cut within a group
	maxTime     int64
}

// group is an index entry: consecutive offsets of a stream whose frames lie near one another in a segment, so that one
// read gets them all. Frames of other streams may lie between.
type group struct {
	first   record.Offset
	maxTime int64
	pos     uint32
	span    uint32 // from the first frame's start to the last frame's end
	count   uint32
	logical uint32
}

// groupSpan is how far into a group a frame may begin: the granularity of dropping, and about what a random read costs.
const groupSpan = 64 << 10

func (g *group) next() record.Offset { return g.first + record.Offset(g.count) }

// segmentState is what is known about a segment without opening it.
type segmentState struct {
	number, salt uint64
	size         int64 // of the file
	live         int64 // physical bytes of frames that extents point to
}

// streamState is a stream in memory. It is guarded by its lane's mutex.
type streamState struct {
	id      record.StreamID
	name    record.StreamName
	lane    *lane
	policy  stream.Policy
	first   record.Offset
	next    record.Offset
	synced  record.Offset // what readers may see: covered by an fdatasync
	bytes   int64         // logical bytes of the extents
	queued  int64         // logical bytes admitted but not yet written
	sealed  bool
	deleted bool
	isDirty bool // in lane.dirty

	// assigned is the next offset while a commit hands them out, valid for the commit of that generation only.
	assigned   record.Offset
	generation uint64

	extents []extent
	groups  []group // of the active segment, sorted by first
	cursors map[string]stream.Cursor
	wake    chan struct{} // closed and cleared when synced, sealed or deleted changes; nil when nobody waits

	// oldestTime is the highest time in the frame that begins at oldest, as expiry found it last; the frame does not
	// expire before then.
	oldest     record.Offset
	oldestTime int64

	// unsure is, during recovery, how many offsets may have been lost behind next; see recovery.damage.
	unsure uint64
}

func (s *streamState) notify() {
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}

// waiter returns a channel that is closed at the next change.
func (s *streamState) waiter() <-chan struct{} {
	if s.wake == nil {
		s.wake = make(chan struct{})
	}
	return s.wake
}

func (s *streamState) bounds() stream.Bounds {
	return stream.Bounds{First: s.first, Readable: s.synced, Next: s.next, Bytes: s.bytes, Sealed: s.sealed}
}

func (s *streamState) info() stream.Info {
	return stream.Info{ID: s.id, Name: s.name, Policy: s.policy, Bounds: s.bounds()}
}

// exported is the lowest place of the cursors that keep data; ok is false when there is none.
func (s *streamState) exported() (lowest record.Offset, ok bool) {
	for name, c := range s.cursors {
		if strings.HasPrefix(name, stream.ExportCursor) && (!ok || c.Offset < lowest) {
			lowest, ok = c.Offset, true
		}
	}
	return lowest, ok
}

// findExtent returns the index of the first extent that ends behind off.
func findExtent(extents []extent, off record.Offset) int {
	i, _ := slices.BinarySearchFunc(extents, off, func(e extent, off record.Offset) int {
		if e.next <= off {
			return -1
		}
		return 1
	})
	return i
}

// findGroup returns the index of the first group that ends behind off.
func findGroup(groups []group, off record.Offset) int {
	i, _ := slices.BinarySearchFunc(groups, off, func(g group, off record.Offset) int {
		if g.next() <= off {
			return -1
		}
		return 1
	})
	return i
}

// addGroup notes a frame at pos in a list of groups. Frames come in file order; relocated ones may have any offsets.
func addGroup(groups []group, h *header, pos int64) []group {
	end := uint32(pos + h.size())
	i := findGroup(groups, h.first)
	if i == len(groups) && i > 0 {
		g := &groups[i-1]
		if g.next() == h.first && pos-int64(g.pos) < groupSpan {
			g.count += h.count
			g.span = end - g.pos
			g.maxTime = max(g.maxTime, h.maxTime)
			g.logical += h.logical
			return groups
		}
	}
	if i < len(groups) && groups[i].first < h.next() {
		return groups // a second copy of what the segment has: cleaning was interrupted
	}
	return slices.Insert(groups, i, group{
		first: h.first, maxTime: h.maxTime, pos: uint32(pos), span: end - uint32(pos), count: h.count, logical: h.logical,
	})
}

// addFrame notes a new frame of the stream in the active segment.
func (l *lane) addFrame(s *streamState, h *header, pos int64) {
	size, logical := h.size(), int64(h.logical)
	s.groups = addGroup(s.groups, h, pos)
	s.next = h.next()
	s.bytes += logical
	l.active.live += size
	if n := len(s.extents); n > 0 {
		e := &s.extents[n-1]
		if e.segment == l.active.number && e.next == h.first {
			e.next, e.physical, e.logical = h.next(), e.physical+size, e.logical+logical
			e.maxTime = max(e.maxTime, h.maxTime)
			return
		}
	}
	s.extents = append(s.extents, extent{
		first: h.first, next: h.next(), segment: l.active.number, physical: size, logical: logical, maxTime: h.maxTime,
	})
}

// moveFrame notes that a frame was copied into the active segment: the part of it that the stream still has elsewhere
// is found here from now on. It does nothing when the stream has none of it any more.
func (l *lane) moveFrame(s *streamState, h *header, pos int64) {
	i := findExtent(s.extents, max(h.first, s.first))
	if i == len(s.extents) || s.extents[i].first >= h.next() {
		l.restoreFrame(s, h, pos, i)
		return
	}
	old := s.extents[i]
	first, next := max(h.first, old.first), min(h.next(), old.next)
	if first >= next || old.segment == l.active.number {
		return
	}
	s.groups = addGroup(s.groups, h, pos)
	// The logical bytes of the parts sum up to those of the whole, so that a stream's count stays exact.
	moved := old.share(first, next)
	moved.logical = min(int64(h.logical), old.logical)
	rest := old.logical - moved.logical
	l.release(&moved)
	l.active.live += h.size()
	parts := make([]extent, 0, 3)
	if old.first < first {
		before := old.share(old.first, first)
		if before.logical = min(before.logical, rest); next == old.next {
			before.logical = rest
		}
		rest -= before.logical
		parts = append(parts, before)
	}
	parts = append(parts, extent{
		first: first, next: next, segment: l.active.number, physical: h.size(), logical: moved.logical, maxTime: moved.maxTime,
	})
	if next < old.next {
		after := old.share(next, old.next)
		after.logical = rest
		parts = append(parts, after)
	}
	s.extents = joinExtents(slices.Replace(s.extents, i, i+1, parts...))
}

// restoreFrame notes a copy of what the stream has nowhere else, because the control state that knew the original is
// lost. Before extent i there is a hole that it fills.
func (l *lane) restoreFrame(s *streamState, h *header, pos int64, i int) {
	if h.first < s.first || h.next() > s.next {
		return
	}
	s.groups = addGroup(s.groups, h, pos)
	l.active.live += h.size()
	s.bytes += int64(h.logical)
	s.extents = slices.Insert(s.extents, i, extent{
		first: h.first, next: h.next(), segment: l.active.number, physical: h.size(), logical: int64(h.logical), maxTime: h.maxTime,
	})
}

// share is the part of e that holds [first, next), with its bytes in proportion. Shares of a whole sum up to it within
// rounding, which is good enough: they decide only when to clean.
func (e extent) share(first, next record.Offset) extent {
	part, whole := float64(next-first), float64(e.next-e.first)
	e.physical = int64(float64(e.physical) * part / whole)
	e.logical = int64(float64(e.logical) * part / whole)
	e.first, e.next = first, next
	return e
}

func joinExtents(extents []extent) []extent {
	out := extents[:0]
	for _, e := range extents {
		if n := len(out); n > 0 && out[n-1].segment == e.segment && out[n-1].next == e.first {
			p := &out[n-1]
			p.next, p.physical, p.logical = e.next, p.physical+e.physical, p.logical+e.logical
			p.maxTime = max(p.maxTime, e.maxTime)
			continue
		}
		out = append(out, e)
	}
	return out
}

// truncate drops offsets below before; left is the logical bytes that remain of the extent that before cuts.
func (l *lane) truncate(s *streamState, before record.Offset, left int64) {
	if before <= s.first {
		return
	}
	s.first = before
	s.next = max(s.next, before) // at recovery, what it dropped may have been damaged
	n := 0
	for n < len(s.extents) && s.extents[n].next <= before {
		l.release(&s.extents[n])
		s.bytes -= s.extents[n].logical
		n++
	}
	s.extents = slices.Delete(s.extents, 0, n)
	if len(s.extents) > 0 && s.extents[0].first < before {
		e := &s.extents[0]
		rest := e.share(before, e.next)
		left = min(left, e.logical)
		l.release(&extent{segment: e.segment, physical: e.physical - rest.physical})
		s.bytes -= e.logical - left
		rest.logical = left
		*e = rest
	}
	s.groups = s.groups[findGroup(s.groups, before):] // not moved: roll may be writing an index of them
}

// release notes that the bytes of e are garbage now.
func (l *lane) release(e *extent) {
	if seg := l.segments[e.segment]; seg != nil {
		seg.live -= e.physical
	}
}

// apply takes one step of control state, while running and at recovery. Steps about streams that are gone are ignored:
// they were overtaken by a deletion.
func (l *lane) apply(o *op) {
	switch o.kind {
	case opCreate:
		l.addStream(&streamState{id: o.id, name: record.StreamName(o.name), lane: l, policy: o.policy})
		return
	case opSegment:
		l.segments[o.segment] = &segmentState{number: o.segment, salt: o.salt, size: o.bytes}
		return
	case opDropSegment:
		l.forgetSegment(o.segment)
		return
	}
	s := l.streams[o.id]
	if s == nil {
		return
	}
	switch o.kind {
	case opAlter:
		s.policy = o.policy
	case opSeal:
		s.sealed = true
		s.notify()
	case opDelete:
		l.removeStream(s)
	case opTruncate:
		l.truncate(s, o.offset, o.bytes)
	case opCursor:
		if s.cursors == nil {
			s.cursors = map[string]stream.Cursor{}
		}
		s.cursors[o.name] = stream.Cursor{Offset: o.offset, State: o.state}
	case opCursorDelete:
		delete(s.cursors, o.name)
	case opSkip:
		s.next, s.synced = max(s.next, o.offset), max(s.synced, o.offset)
		s.notify()
	case opBounds:
		s.first, s.next, s.synced = o.offset, o.next, o.next
	case opExtent:
		s.extents = append(s.extents, o.extent)
		s.bytes += o.extent.logical
		if seg := l.segments[o.extent.segment]; seg != nil {
			seg.live += o.extent.physical
		}
	}
}

func (l *lane) addStream(s *streamState) {
	l.streams[s.id] = s
	l.log.register(s)
}

func (l *lane) removeStream(s *streamState) {
	for i := range s.extents {
		l.release(&s.extents[i])
	}
	s.deleted, s.extents, s.groups = true, nil, nil
	delete(l.streams, s.id)
	l.log.unregister(s)
	s.notify()
}

// forgetSegment removes a segment and whatever extents still point to it: what they held is damaged from now on.
func (l *lane) forgetSegment(number uint64) {
	seg := l.segments[number]
	if seg == nil {
		return
	}
	for _, s := range l.streams {
		s.extents = slices.DeleteFunc(s.extents, func(e extent) bool {
			if e.segment == number {
				s.bytes -= e.logical
			}
			return e.segment == number
		})
	}
	delete(l.segments, number)
}

// checkpoint is the control state as ops, streams in order of their ids so that equal states give equal bytes.
func (l *lane) checkpoint() []op {
	ops := make([]op, 0, len(l.segments)+3*len(l.streams))
	for _, seg := range l.sortedSegments() {
		ops = append(ops, op{kind: opSegment, segment: seg.number, salt: seg.salt, bytes: seg.size})
	}
	for _, s := range l.sortedStreams() {
		ops = append(ops,
			op{kind: opCreate, id: s.id, name: string(s.name), policy: s.policy},
			op{kind: opBounds, id: s.id, offset: s.first, next: s.next})
		if s.sealed {
			ops = append(ops, op{kind: opSeal, id: s.id})
		}
		for _, e := range s.extents {
			ops = append(ops, op{kind: opExtent, id: s.id, extent: e})
		}
		for _, name := range sortedKeys(s.cursors) {
			c := s.cursors[name]
			ops = append(ops, op{kind: opCursor, id: s.id, name: name, offset: c.Offset, state: c.State})
		}
	}
	return ops
}

func (l *lane) sortedSegments() []*segmentState {
	segs := make([]*segmentState, 0, len(l.segments))
	for _, seg := range l.segments {
		segs = append(segs, seg)
	}
	slices.SortFunc(segs, func(a, b *segmentState) int { return cmp.Compare(a.number, b.number) })
	return segs
}

func (l *lane) sortedStreams() []*streamState {
	all := make([]*streamState, 0, len(l.streams))
	for _, s := range l.streams {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *streamState) int { return cmp.Compare(a.id, b.id) })
	return all
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
