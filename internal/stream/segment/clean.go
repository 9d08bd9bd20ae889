package segment

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Limits are kept in two places: enforce runs with every commit and costs memory only; maintain runs on a timer and
// gives space back, by deleting segments that nothing points to and by copying the few live frames of others forward.

// enforce truncates s as its policy says. Called with mu held; s may be nil.
func (l *lane) enforce(s *streamState) {
	if s == nil || s.deleted {
		return
	}
	p := &s.policy
	if p.MaxBytes > 0 && p.OnFull == stream.DropOldest && s.bytes > p.MaxBytes {
		l.drop(s, l.oldestKept(s, s.bytes-p.MaxBytes, p.DropBytes))
	}
	if p.UntilExported {
		if lowest, ok := s.exported(); ok {
			l.cut(s, min(lowest, s.synced))
		}
	}
}

// drop is a cut that loses records: it is counted.
func (l *lane) drop(s *streamState, before record.Offset) {
	first, bytes := s.first, s.bytes
	l.cut(s, min(before, s.synced))
	if n := s.first - first; n > 0 {
		l.stats.droppedRecords.Add(int64(n))
		l.stats.droppedBytes.Add(bytes - s.bytes)
	}
}

// cut truncates s and remembers the step, to be logged before the next commit.
func (l *lane) cut(s *streamState, before record.Offset) {
	if before <= s.first {
		return
	}
	o := op{kind: opTruncate, id: s.id, offset: before, bytes: l.logicalFrom(s, before)}
	l.apply(&o)
	l.lazy = append(l.lazy, o)
}

// groupsOf returns the groups of s that lie in e, from either index.
func (l *lane) groupsOf(s *streamState, e *extent) ([]group, error) {
	if e.segment == l.active.number {
		return s.groups, nil
	}
	seg := l.segments[e.segment]
	if seg == nil {
		return nil, nil
	}
	return l.indexes.get(*seg, s.id)
}

// frameInfo is what limits need to know of a frame.
type frameInfo struct {
	next    record.Offset
	logical int64
	maxTime int64
}

// framesOf lists the stream's frames in a group. When they do not read, the group counts as one frame.
func (l *lane) framesOf(e *extent, id record.StreamID, g *group) []frameInfo {
	whole := []frameInfo{{next: g.next(), logical: int64(g.logical), maxTime: g.maxTime}}
	if g.span < 2*frameHeaderSize || g.count == 1 {
		return whole
	}
	seg := l.segments[e.segment]
	h, err := l.files.open(seg.number, seg.salt)
	if err != nil {
		return whole
	}
	defer h.release()
	b := make([]byte, min(int(g.span), groupSpan+frameHeaderSize))
	if readOrZero(h.file, b, int64(g.pos)) != nil {
		return whole
	}
	var frames []frameInfo
	want := g.first
	for at := 0; at+frameHeaderSize <= len(b) && want < g.next(); {
		h, err := parseHeader(b[at:], seg.salt, int64(g.pos)+int64(at))
		if err != nil {
			return whole
		}
		if h.kind == kindData && h.stream == id && h.first == want {
			frames = append(frames, frameInfo{next: h.next(), logical: int64(h.logical), maxTime: h.maxTime})
			want = h.next()
		}
		at += int(h.size())
	}
	if want != g.next() {
		return whole
	}
	return frames
}

// logicalFrom is the logical bytes from before on of the extent that before cuts: exact at a frame's border, else the
// whole frame counts.
func (l *lane) logicalFrom(s *streamState, before record.Offset) (left int64) {
	i := findExtent(s.extents, before)
	if i == len(s.extents) || s.extents[i].first >= before {
		return 0
	}
	e := s.extents[i]
	groups, err := l.groupsOf(s, &e)
	if err != nil || len(groups) == 0 {
		return e.share(before, e.next).logical
	}
	for _, g := range groups[findGroup(groups, before):] {
		switch {
		case g.first >= e.next:
		case g.first >= before:
			left += int64(g.logical)
		default:
			for _, f := range l.framesOf(&e, s.id, &g) {
				if f.next > before {
					left += f.logical
				}
			}
		}
	}
	return min(left, e.logical)
}

// walk calls visit with the stream's frames from the oldest on, whole groups where inside says that their frames need
// not be looked at, until visit returns false.
func (l *lane) walk(s *streamState, inside func(g *group) bool, visit func(f frameInfo) bool) {
	for i := range s.extents {
		e := s.extents[i]
		groups, err := l.groupsOf(s, &e)
		if err != nil || len(groups) == 0 {
			if !visit(frameInfo{next: e.next, logical: e.logical, maxTime: e.maxTime}) {
				return
			}
			continue
		}
		for _, g := range groups[findGroup(groups, max(e.first, s.first)):] {
			if g.first >= e.next {
				break
			}
			frames := []frameInfo{{next: g.next(), logical: int64(g.logical), maxTime: g.maxTime}}
			if inside(&g) {
				frames = l.framesOf(&e, s.id, &g)
			}
			for _, f := range frames {
				if f.next > max(e.first, s.first) && !visit(frameInfo{min(f.next, e.next), f.logical, f.maxTime}) {
					return
				}
			}
		}
	}
}

// exactBelow is the MaxBytes up to which the oldest records are dropped frame by frame and not group by group.
const exactBelow = 64 * groupSpan

// oldestKept is the offset before which at least surplus logical bytes lie, and at least `least` where that leaves
// something.
func (l *lane) oldestKept(s *streamState, surplus, least int64) record.Offset {
	at, passed := s.first, int64(0)
	wanted := max(surplus, least)
	l.walk(s,
		func(g *group) bool {
			cut := g.first < s.first || g.next() == s.next // part of it is gone, or is the newest frame
			return cut || wanted-passed < int64(g.logical) && s.policy.MaxBytes < exactBelow
		},
		func(f frameInfo) bool {
			if passed >= surplus && f.next >= s.next {
				return false
			}
			at = f.next
			passed += f.logical
			return passed < wanted
		})
	return at
}

// firstSince is the lowest offset whose frame holds a record of time t or later, and that frame's highest time.
func (l *lane) firstSince(s *streamState, t int64) (at record.Offset, newest int64) {
	at, newest = s.first, math.MinInt64
	l.walk(s,
		func(g *group) bool { return g.maxTime >= t },
		func(f frameInfo) bool {
			if f.maxTime >= t {
				newest = f.maxTime
				return false
			}
			at = f.next
			return true
		})
	return at, newest
}

// maintain runs until the lane is stopped.
func (l *lane) maintain() {
	t := time.NewTicker(l.log.opts.MaintainInterval)
	defer t.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l.idle.Go(func() {
		<-l.quit
		cancel()
	})
	for {
		select {
		case <-l.quit:
			return
		case <-t.C:
			l.log.measureSpace()
			l.expire()
			if err := l.clean(ctx); err != nil && ctx.Err() == nil {
				l.logger.Error("cleaning the log", "error", err)
			}
		}
	}
}

// expire truncates by age. A record's age is by its own time, seen by the box's clock once that is trusted.
func (l *lane) expire() {
	now := l.log.opts.Clock.Read()
	if !now.Trusted {
		return
	}
	var aged []*streamState
	l.mu.Lock()
	for _, s := range l.streams {
		if s.policy.MaxAge > 0 {
			aged = append(aged, s)
		}
	}
	l.mu.Unlock()
	for _, s := range aged {
		l.expireStream(s, now.Wall)
	}
}

// expireStream takes the mutex for one stream: it may have to read frame headers, and appends must not wait for all
// streams. It looks only when the oldest frame can have expired.
func (l *lane) expireStream(s *streamState, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := now - int64(s.policy.MaxAge)
	if s.deleted || s.policy.MaxAge == 0 || s.first == s.oldest && since <= s.oldestTime {
		return
	}
	at, newest := l.firstSince(s, since)
	l.drop(s, at)
	s.oldest, s.oldestTime = at, newest
}

// reclaim drops the oldest records of streams that allow it while the node is over its budget, and deletes the segments
// that fall free. It runs on the committer, so that appends cannot outrun it.
func (l *lane) reclaim() {
	for l.failed == nil && l.log.overBudget() > 0 {
		l.mu.Lock()
		dropped := l.dropOldestSegment()
		dead := l.deadSegments()
		l.mu.Unlock()
		if !dropped && len(dead) == 0 {
			return
		}
		ops := make([]op, len(dead))
		for i := range dead {
			ops[i] = op{kind: opDropSegment, segment: dead[i].number}
		}
		err := l.logLazy()
		if err == nil {
			err = l.writeControl(ops)
		}
		if err != nil {
			l.logger.Warn("no room to note what was dropped", "error", err)
			return
		}
		if err := l.sync(); err != nil {
			l.fail(err)
			return
		}
		l.mu.Lock()
		for i := range dead {
			l.forgetSegment(dead[i].number)
		}
		l.mu.Unlock()
		for i := range dead {
			if err := l.removeSegment(&dead[i]); err != nil {
				l.logger.Warn("dropped segment not removed", "error", err)
				return
			}
		}
	}
}

// dropOldestSegment drops what streams that allow it have in the oldest sealed segment that holds any of it.
func (l *lane) dropOldestSegment() (dropped bool) {
	for _, seg := range l.sortedSegments() {
		if seg == l.active || dropped {
			break
		}
		for _, s := range l.streams {
			if s.policy.OnFull == stream.DropOldest && len(s.extents) > 0 && s.extents[0].segment == seg.number {
				l.drop(s, s.extents[0].next)
				dropped = true
			}
		}
	}
	return dropped
}

// clean deletes segments without live frames and copies the live frames of the emptiest others forward while garbage
// makes up more than a quarter of the lane.
func (l *lane) clean(ctx context.Context) error {
	if err := l.dropDead(); err != nil {
		return err
	}
	for {
		victim, ok := l.victim()
		if !ok {
			return nil
		}
		if err := l.copyForward(ctx, victim); err != nil {
			return err
		}
		if err := l.dropSegments(ctx, victim); err != nil {
			return err
		}
		l.stats.cleanedSegments.Add(1)
	}
}

// victim is the sealed segment with the smallest live share, when cleaning is due.
func (l *lane) victim() (best segmentState, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var total, garbage int64
	bestShare := 0.75
	for _, seg := range l.segments {
		if seg == l.active {
			continue
		}
		total += seg.size
		garbage += seg.size - seg.live
		if share := float64(seg.live) / float64(seg.size); share < bestShare {
			best, bestShare, ok = *seg, share, true
		}
	}
	return best, ok && garbage*4 > total
}

// dropDead removes the segments that nothing points to.
func (l *lane) dropDead() error {
	l.mu.Lock()
	dead := l.deadSegments()
	l.mu.Unlock()
	if len(dead) == 0 {
		return nil
	}
	return l.dropSegments(context.Background(), dead...)
}

// deadSegments are those to which no extent points. Live counts are not asked: shares are rounded.
func (l *lane) deadSegments() (dead []segmentState) {
	held := map[uint64]bool{l.active.number: true}
	for _, s := range l.streams {
		for i := range s.extents {
			held[s.extents[i].segment] = true
		}
	}
	for _, seg := range l.sortedSegments() {
		if !held[seg.number] {
			dead = append(dead, *seg)
		}
	}
	return dead
}

// dropSegments logs, durably, that the segments are gone, and removes their files.
func (l *lane) dropSegments(ctx context.Context, segs ...segmentState) error {
	ops := make([]op, len(segs))
	for i := range segs {
		ops[i] = op{kind: opDropSegment, segment: segs[i].number}
	}
	err := l.submit(ctx, &control{steps: func() ([]op, error) { return ops, nil }})
	if err != nil {
		return err
	}
	var errs []error
	for i := range segs {
		errs = append(errs, l.removeSegment(&segs[i]))
	}
	return errors.Join(errs...)
}

// copyForward appends the live frames of a segment to the active one and waits until they are durable there.
func (l *lane) copyForward(ctx context.Context, victim segmentState) error {
	h, err := l.files.open(victim.number, victim.salt)
	if errors.Is(err, fs.ErrNotExist) {
		return l.declareMissing(victim.number)
	}
	if err != nil {
		return err
	}
	defer h.release()
	size, err := h.file.Size()
	if err != nil {
		return err
	}
	var c copies
	err = l.copyFrames(ctx, victim, newScanner(h.file, size, victim.salt), &c)
	return errors.Join(err, c.wait())
}

// copies waits for relocated frames.
type copies struct {
	pending sync.WaitGroup
	mu      sync.Mutex // guards failed
	failed  error
}

func (c *copies) done(_ record.Offset, err error) {
	defer c.pending.Done()
	if err != nil {
		c.mu.Lock()
		c.failed = errors.Join(c.failed, err)
		c.mu.Unlock()
	}
}

func (c *copies) wait() error {
	c.pending.Wait()
	return c.failed
}

func (l *lane) copyFrames(ctx context.Context, victim segmentState, sc *scanner, c *copies) error {
	for {
		p, err := sc.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if p.kind != kindData || p.unreadable {
			l.reportUnreadable(victim, &p)
			continue
		}
		weight := min(p.end-p.pos, l.log.opts.QueueBytes)
		if err := l.space.Acquire(ctx, weight); err != nil {
			return err
		}
		c.pending.Add(1)
		if !l.relocate(victim.number, &p, weight, c.done) {
			c.pending.Done()
			l.space.Release(weight)
		}
	}
}

// relocate queues a copy of a frame when its stream still has it in that segment; else it reports false.
func (l *lane) relocate(segment uint64, p *piece, weight int64, done func(record.Offset, error)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.streams[p.stream]
	if s == nil || l.refuse() != nil {
		return false
	}
	i := findExtent(s.extents, max(p.first, s.first))
	if i == len(s.extents) || s.extents[i].segment != segment || s.extents[i].first >= p.header.next() {
		return false
	}
	q := &l.queue
	start := len(q.buf)
	q.buf = append(q.buf, make([]byte, frameHeaderSize)...)
	q.buf = append(q.buf, p.body...)
	h := p.header
	h.flags |= flagRelocated
	q.closeFrame(start, h)
	q.items = append(q.items, item{s: s, frames: 1, weight: weight, relocate: true, done: done})
	l.stats.copiedBytes.Add(p.end - p.pos)
	l.wake()
	return true
}

// reportUnreadable reports damage that cleaning came across.
func (l *lane) reportUnreadable(seg segmentState, p *piece) {
	if p.kind != 0 && !p.unreadable || p.kind == kindVoid {
		return
	}
	d := damage{segment: seg, from: p.pos, to: p.end}
	if p.kind == kindData {
		d.first, d.next = p.first, p.header.next()
	}
	l.report(d)
}
