package segment

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// run is the committer. While a commit is in flight, arrivals queue; the next commit is one write and one fdatasync
// for all of them. It ends when the lane is stopped and its queue is empty.
func (l *lane) run() {
	defer close(l.finished)
	sync, idle := newTimer(), newTimer()
	defer sync.Stop()
	defer idle.Stop()
	for {
		select {
		case <-l.wakeup:
			idle.Reset(idleInterval)
		case <-sync.C:
			l.syncLazily()
			idle.Reset(idleInterval)
		case <-idle.C:
			l.rest()
		}
		for l.swap() {
			for l.work.itemsTaken < len(l.work.items) {
				l.commit()
				if l.untilSync() <= 0 { // under steady load this loop does not end
					l.syncLazily()
				}
			}
		}
		if l.ended() {
			l.finish()
			return
		}
		if l.unsynced {
			sync.Reset(l.untilSync())
		}
	}
}

// untilSync is when the oldest bytes that no fdatasync covers have waited for SyncInterval; without such, never soon.
func (l *lane) untilSync() time.Duration {
	if !l.unsynced {
		return time.Hour
	}
	return l.log.opts.SyncInterval - time.Since(l.unsyncedAt)
}

func newTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// swap takes over what has queued; it reports whether there is anything.
func (l *lane) swap() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.work.reset(int(l.log.opts.QueueBytes))
	l.queue, l.work = l.work, l.queue
	return len(l.work.items) > 0
}

func (l *lane) ended() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopping && len(l.queue.items) == 0
}

// finish makes everything durable at the end of a clean stop.
func (l *lane) finish() {
	if l.failed == nil {
		if err := l.logLazy(); err != nil {
			l.logger.Warn("truncations not logged; what they dropped will be back", "error", err)
		}
		if err := l.sync(); err == nil {
			l.noteFloor(true)
		}
	}
	if err := errors.Join(l.file.Close(), l.floor.close()); err != nil {
		l.logger.Error("closing the log", "error", err)
	}
	l.files.close()
}

// commitGroup is what one commit takes from the front of the work queue.
type commitGroup struct {
	items   []item
	frames  []frameRef
	durable bool  // somebody waits for an fdatasync
	err     error // of writing the frames
}

// commit makes the items up to the next barrier durable and acknowledges them.
func (l *lane) commit() {
	g := l.take()
	if l.failed == nil {
		l.write(&g)
		if g.durable && l.failed == nil {
			if err := l.sync(); err != nil {
				l.fail(err)
			}
		}
	}
	l.settle(&g)
	// Only now: making room may start a segment, whose checkpoint must know the steps of this group.
	if l.log.overBudget() > 0 {
		l.reclaim()
	}
}

// take forms a group: it hands out offsets, and voids frames of streams that have gone or are sealed meanwhile.
func (l *lane) take() commitGroup {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.generation++
	w := &l.work
	var g commitGroup
	firstItem, firstFrame := w.itemsTaken, w.framesTaken
	for w.itemsTaken < len(w.items) {
		it := &w.items[w.itemsTaken]
		frames := w.frames[w.framesTaken : w.framesTaken+it.frames]
		w.itemsTaken++
		w.framesTaken += it.frames
		if it.control != nil {
			g.durable = true
			if it.control.barrier {
				break
			}
			continue
		}
		l.assign(it, frames)
		g.durable = g.durable || it.relocate || it.s.policy.Durability == stream.Disk
	}
	g.items, g.frames = w.items[firstItem:w.itemsTaken], w.frames[firstFrame:w.framesTaken]
	return g
}

// opsSize is an estimate of what the steps take in a control frame, in bytes.
func opsSize(ops []op) (n int) {
	for i := range ops {
		n += len(ops[i].state) + len(ops[i].name) + 64
	}
	return n
}

// assign gives the item's frames their offsets.
func (l *lane) assign(it *item, frames []frameRef) {
	s := it.s
	if it.err == nil && !it.relocate {
		it.err = stillOpen(s)
	}
	if it.err != nil || s.deleted {
		for i := range frames {
			h := &frames[i].header
			*h = header{kind: kindVoid, bodyLen: h.bodyLen, bodyCRC: h.bodyCRC}
		}
		return
	}
	if it.relocate {
		return // its frames keep their offsets
	}
	if s.generation != l.generation {
		s.generation, s.assigned = l.generation, s.next
	}
	it.first = s.assigned
	for i := range frames {
		frames[i].header.first = s.assigned
		s.assigned = frames[i].header.next()
	}
}

func stillOpen(s *streamState) error {
	if s.deleted {
		return notFound(s.id)
	}
	if s.sealed {
		return record.Errorf(record.Invalid, "stream %s is sealed", s.name)
	}
	return nil
}

// write brings the group to the file, in the order in which memory takes it, so that replaying it leads to the same
// state: truncations made before it, its frames in one write, its control steps. An error fails the group, not the lane:
// the file is cut back to its last whole frame and the next commit may succeed.
func (l *lane) write(g *commitGroup) {
	lazyErr := l.logLazy()
	if len(g.frames) > 0 {
		g.err = l.writeFrames(g)
	}
	l.writeSteps(g.items, lazyErr)
}

// writeSteps asks the group's control commits for their steps and writes them, as many in a frame as fit. Without the
// lazy steps (lazyErr) none are written: a segment must not be dropped before the truncation that emptied it.
func (l *lane) writeSteps(items []item, lazyErr error) {
	var ops []op
	from, size := 0, 0 // of what is not written yet
	flush := func(to int) {
		if err := l.writeControl(ops); err != nil {
			for i := from; i < to; i++ {
				if it := &items[i]; it.control != nil && it.err == nil {
					it.err = err
				}
			}
		}
		ops, size, from = nil, 0, to
	}
	for i := range items {
		it := &items[i]
		if it.control == nil {
			continue
		}
		if it.err = lazyErr; lazyErr != nil {
			continue
		}
		l.mu.Lock()
		it.control.ops, it.err = it.control.steps()
		l.mu.Unlock()
		if it.err != nil {
			continue
		}
		n := opsSize(it.control.ops)
		if size > 0 && size+n > maxFrameBody {
			flush(i)
		}
		ops, size = append(ops, it.control.ops...), size+n
	}
	flush(len(items))
}

// logLazy logs the steps that were applied before; those that cannot be written wait for the next time.
func (l *lane) logLazy() error {
	l.mu.Lock()
	ops := l.lazy
	l.lazy = nil
	l.mu.Unlock()
	err := l.writeControl(ops)
	if err != nil {
		l.mu.Lock()
		l.lazy = lastTruncations(append(ops, l.lazy...))
		l.mu.Unlock()
	}
	return err
}

// lastTruncations leaves out the truncations that a later one of the same stream makes needless, so that steps that
// cannot be logged for long stay few.
func lastTruncations(ops []op) []op {
	seen := map[record.StreamID]bool{}
	var kept []op
	for _, o := range slices.Backward(ops) {
		if o.kind == opTruncate {
			if seen[o.id] {
				continue
			}
			seen[o.id] = true
		}
		kept = append(kept, o)
	}
	slices.Reverse(kept)
	return kept
}

func (l *lane) writeFrames(g *commitGroup) error {
	last := &g.frames[len(g.frames)-1]
	buf := l.work.buf[g.frames[0].off : last.off+int(last.header.size())]
	if err := l.makeRoom(int64(len(buf))); err != nil {
		return err
	}
	now := l.log.opts.Clock.Read()
	for i := range g.frames {
		f := &g.frames[i]
		h := &f.header
		h.synced = uint64(l.synced)
		if h.flags&flagRelocated == 0 {
			h.epoch, h.boot, h.mono, h.wall = l.epoch, now.Boot, now.Mono, now.Wall
			if now.Trusted {
				h.flags |= flagTrusted
			}
		}
		at := f.off - g.frames[0].off
		h.put(buf[at:], l.active.salt, l.end+int64(at))
	}
	start := l.end
	if err := l.writeOut(buf); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := 0
	for n := range g.items {
		it := &g.items[n]
		for range it.frames {
			f := &g.frames[i]
			i++
			if f.header.kind != kindData || it.s.deleted {
				continue
			}
			pos := start + int64(f.off-g.frames[0].off)
			if it.relocate {
				l.moveFrame(it.s, &f.header, pos)
				continue
			}
			l.addFrame(it.s, &f.header, pos)
			l.markDirty(it.s)
			it.queued -= int64(f.header.logical) // s.bytes has it now
			it.s.queued -= int64(f.header.logical)
		}
	}
	return nil
}

func (l *lane) markDirty(s *streamState) {
	if !s.isDirty {
		s.isDirty = true
		l.dirty = append(l.dirty, s)
	}
}

// writeControl writes the steps as one frame, without waiting for it to be durable.
func (l *lane) writeControl(ops []op) error {
	if len(ops) == 0 {
		return nil
	}
	buf := make([]byte, frameHeaderSize, frameHeaderSize+1024)
	buf = appendOps(buf, ops...)
	if len(buf) > maxBody {
		return record.Errorf(record.Invalid, "control commit of %d bytes is too large: at most %d", len(buf), maxBody)
	}
	if err := l.makeRoom(align(int64(len(buf)))); err != nil {
		return err
	}
	return l.writeOut(l.frame(kindControl, 0, buf, l.active.salt, l.end))
}

// frame completes buf, which holds room for a header and a body, as a frame of ours at pos.
func (l *lane) frame(kind frameKind, flags uint16, buf []byte, salt uint64, pos int64) []byte {
	body := buf[frameHeaderSize:]
	now := l.log.opts.Clock.Read()
	h := header{
		kind: kind, flags: flags, epoch: l.epoch, boot: now.Boot, mono: now.Mono, wall: now.Wall,
		minTime: now.Wall, maxTime: now.Wall,
		bodyLen: uint32(len(body)), bodyCRC: crc32.Checksum(body, castagnoli),
	}
	if kind == kindControl {
		h.synced = uint64(l.synced)
	}
	if now.Trusted {
		h.flags |= flagTrusted
	}
	h.put(buf, salt, pos)
	for len(buf)%frameAlign != 0 {
		buf = append(buf, 0)
	}
	return buf
}

// makeRoom starts a new segment when n more bytes would make the active one too large.
func (l *lane) makeRoom(n int64) error {
	limit := max(l.log.opts.SegmentBytes, min(4*l.headEnd, maxSegmentBytes))
	if l.end == l.headEnd || l.end+n <= limit {
		return nil
	}
	return l.roll()
}

// writeOut writes buf at the end of the active segment, or leaves the file as it was.
func (l *lane) writeOut(buf []byte) error {
	_, err := l.file.WriteAt(buf, l.end)
	if err == nil {
		l.mu.Lock()
		l.end += int64(len(buf))
		l.active.size = l.end
		l.mu.Unlock()
		if !l.unsynced {
			l.unsynced, l.unsyncedAt = true, time.Now()
		}
		l.physical.Add(int64(len(buf)))
		l.stats.writtenBytes.Add(int64(len(buf)))
		return nil
	}
	l.stats.writeErrors.Add(1)
	if cut := l.file.Truncate(l.end); cut != nil {
		// What lies behind the last whole frame is not known; recovery will sort it out.
		err = errors.Join(err, cut)
		l.fail(fmt.Errorf("cut back segment %d: %w", l.active.number, err))
	}
	return fmt.Errorf("write to segment %d: %w", l.active.number, l.classify(err))
}

// sync makes all that was written durable and shows it to readers. A failed fdatasync is final: the kernel may have
// dropped the pages, so a second one that succeeds would prove nothing.
func (l *lane) sync() error {
	if l.unsynced {
		start := time.Now()
		if err := l.file.SyncData(); err != nil {
			return fmt.Errorf("fdatasync of segment %d: %w", l.active.number, err)
		}
		l.stats.syncs.Add(1)
		l.stats.syncNanos.Add(int64(time.Since(start)))
		l.unsynced = false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.synced = l.end
	for _, s := range l.dirty {
		s.isDirty = false
		s.synced = s.next
		s.notify()
	}
	clear(l.dirty)
	l.dirty = l.dirty[:0]
	return nil
}

// syncLazily is the sync that streams of level OS get on a timer.
func (l *lane) syncLazily() {
	if l.failed != nil {
		return
	}
	if err := l.sync(); err != nil {
		l.fail(err)
	}
}

// settle applies the control steps of a group that is durable, acknowledges its items and enforces limits.
func (l *lane) settle(g *commitGroup) {
	failed := l.failed
	l.mu.Lock()
	for i := range g.items {
		it := &g.items[i]
		switch {
		case failed != nil && it.err == nil:
			it.err = record.Errorf(record.Unavailable, "the log has failed: %w", failed)
		case it.control == nil && it.err == nil: // empty batches too: what was before them is not durable
			it.err = g.err
		}
		if it.control != nil && it.err == nil {
			for k := range it.control.ops {
				l.apply(&it.control.ops[k])
				l.enforce(l.streams[it.control.ops[k].id])
			}
		}
		if it.s != nil && !it.relocate {
			it.s.queued -= it.queued
			if it.frames > 0 {
				l.enforce(it.s)
			}
		}
	}
	l.mu.Unlock()
	l.stats.commits.Add(1)
	var weight int64
	for i := range g.items {
		it := &g.items[i]
		weight += it.weight
		if it.err == nil && it.control == nil && !it.relocate {
			l.stats.appends.Add(1)
			l.stats.records.Add(int64(it.count))
			l.stats.bytes.Add(it.logical)
		}
		it.done(it.first, it.err)
	}
	l.space.Release(weight)
}
