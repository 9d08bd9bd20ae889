package segment

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// recovery brings a lane back: it loads the newest checkpoint that reads, replays the segments from there on (one,
// unless a checkpoint was damaged), and decides what an unreadable end means.
//
// A bad range is a torn tail only when no valid frame follows it and it lies behind the floor, the highest position
// known to have been synced (from frame headers and from the floor file). A torn tail was never acknowledged at level
// disk and is cut off. Every other bad range was once durable: it is reported, copied aside and skipped, and offsets
// that may have been in it are not given out again.
type recovery struct {
	l       *lane
	onDisk  []segmentState // sorted by number
	indexes []segmentState // that index files are of
	// readOnly is set by tools that only look: no file is changed.
	readOnly bool
	base     int     // index of the segment whose checkpoint was loaded; -1 without any
	newest   int64   // highest wall time seen
	floor    int64   // of the segment being replayed
	pieces   []piece // unreadable ones since the last good frame of the segment being replayed
}

// recover opens or creates the lane's files. Nothing else runs yet.
func (l *lane) recover() error {
	start := time.Now()
	var err error
	if l.floor, err = openFloor(l.dir); err != nil {
		return err
	}
	if kept, err := l.dir.ReadDir(quarantineDir); err == nil {
		l.quarantined = len(kept)
	}
	r := &recovery{l: l, base: -1}
	if err := r.list(); err != nil {
		return err
	}
	if err := r.loadBase(); err != nil {
		return err
	}
	for i := max(r.base, 0); i < len(r.onDisk); i++ {
		if err := r.replay(i); err != nil {
			return err
		}
	}
	l.epoch++
	r.dropMissing()
	if err := r.begin(); err != nil {
		return err
	}
	if err := r.settleOffsets(); err != nil {
		return err
	}
	// Last: what made them leftovers is durable now.
	if err := r.removeLeftovers(); err != nil {
		return err
	}
	if len(r.onDisk) > 0 {
		l.logger.Info("log opened", "streams", len(l.streams), "segments", len(l.segments),
			"bytes", l.physical.Load(), "took", time.Since(start).Round(time.Microsecond).String())
	}
	return nil
}

// list finds the segment files.
func (r *recovery) list() error {
	entries, err := r.l.dir.ReadDir(".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		number, salt, ext, ok := parseFileName(e.Name())
		if !ok {
			continue
		}
		if ext == indexExt {
			r.indexes = append(r.indexes, segmentState{number: number, salt: salt})
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		r.l.physical.Add(info.Size())
		if ext == segmentExt {
			r.onDisk = append(r.onDisk, segmentState{number: number, salt: salt, size: info.Size()})
		}
	}
	slices.SortFunc(r.onDisk, func(a, b segmentState) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	return nil
}

// loadBase finds the newest segment whose checkpoint reads and applies it. A newest segment that holds nothing but a
// torn head was being made when the power went and is removed.
func (r *recovery) loadBase() error {
	for i := len(r.onDisk) - 1; i >= 0; i-- {
		seg := r.onDisk[i]
		ops, h, err := r.readHead(&seg)
		if err == nil {
			r.base = i
			r.l.epoch = max(r.l.epoch, h.epoch)
			for k := range ops {
				r.l.apply(&ops[k])
			}
			return nil
		}
		if record.KindOf(err) != record.Corrupt {
			return fmt.Errorf("open %s: %w", r.l.dir.Path(), err)
		}
		if i == len(r.onDisk)-1 && r.l.floor.at(seg.number) == 0 && !r.hasFrames(&seg) {
			r.onDisk = r.onDisk[:i]
			if r.readOnly {
				continue
			}
			r.l.logger.Warn("removed a segment whose creation was interrupted", "segment", seg.number, "bytes", seg.size)
			if err := r.l.removeSegment(&seg); err != nil {
				return err
			}
			continue
		}
		r.l.report(damage{segment: seg, from: 0, to: min(seg.size, segmentHeaderSize)})
	}
	return nil
}

// readHead reads a segment's header and checkpoint.
func (r *recovery) readHead(seg *segmentState) (ops []op, h segmentHeader, err error) {
	f, err := r.l.dir.Open(fileName(seg.number, seg.salt, segmentExt))
	if err != nil {
		return nil, h, err
	}
	defer f.Close()
	sc := newScanner(f, seg.size, seg.salt)
	head := sc.bytes(0, segmentHeaderSize)
	if sc.err != nil {
		return nil, h, sc.err
	}
	if h, err = parseSegmentHeader(head); err != nil {
		return nil, h, err
	}
	for {
		p, err := sc.next()
		if sc.err != nil {
			return nil, h, sc.err
		}
		if err != nil || p.kind != kindCheckpoint || p.unreadable {
			return nil, h, record.Errorf(record.Corrupt, "checkpoint of segment %d is damaged", seg.number)
		}
		rd := opReader{b: p.body}
		for o, ok := rd.next(); ok; o, ok = rd.next() {
			ops = append(ops, o)
		}
		if rd.bad {
			return nil, h, record.Errorf(record.Corrupt, "checkpoint of segment %d is damaged", seg.number)
		}
		if p.flags&flagLast != 0 {
			return ops, h, nil
		}
	}
}

// hasFrames reports whether a segment holds a frame behind its head.
func (r *recovery) hasFrames(seg *segmentState) bool {
	f, err := r.l.dir.Open(fileName(seg.number, seg.salt, segmentExt))
	if err != nil {
		return true // rather keep it
	}
	defer f.Close()
	sc := newScanner(f, seg.size, seg.salt)
	for {
		p, err := sc.next()
		if err != nil {
			return !errors.Is(err, io.EOF) // rather keep it
		}
		if p.kind == kindData || p.kind == kindControl {
			return true
		}
	}
}

// replay applies the frames of a segment. The last segment's torn tail is cut off.
func (r *recovery) replay(i int) error {
	l := r.l
	seg := r.onDisk[i]
	last := i == len(r.onDisk)-1
	l.segments[seg.number] = &segmentState{number: seg.number, salt: seg.salt, size: seg.size}
	l.active = l.segments[seg.number]
	for _, s := range l.streams {
		s.groups = nil
	}
	f, err := l.dir.OpenFile(fileName(seg.number, seg.salt, segmentExt), r.openFlag())
	if err != nil {
		return err
	}
	defer f.Close()
	r.floor, r.pieces = l.floor.at(seg.number), r.pieces[:0]
	if !last {
		r.floor = seg.size
	}
	sc := newScanner(f, seg.size, seg.salt)
	l.headEnd = segmentHeaderSize
	for {
		p, err := sc.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("replay segment %d: %w", seg.number, err)
		}
		if p.kind == 0 || p.unreadable {
			p.body = nil
			r.pieces = append(r.pieces, p)
			continue
		}
		r.confirm()
		r.frame(&p)
		if p.kind == kindCheckpoint {
			l.headEnd = p.end
		}
	}
	end, err := r.tail(f, seg.size)
	if err != nil {
		return err
	}
	l.active.size, l.end = end, end
	if !last && !r.readOnly {
		if err := l.writeIndex(l.active, l.activeIndex()); err != nil {
			l.logger.Warn("index not written; it will be rebuilt when needed", "segment", seg.number, "error", err)
		}
	}
	return nil
}

func (r *recovery) openFlag() int {
	if r.readOnly {
		return os.O_RDONLY
	}
	return os.O_RDWR
}

// confirm turns the unreadable pieces before a good frame into damage.
func (r *recovery) confirm() {
	for i := range r.pieces {
		r.damage(&r.pieces[i])
	}
	r.pieces = r.pieces[:0]
}

// damage reports a piece that was once durable, and marks the streams whose frames may have been in it.
func (r *recovery) damage(p *piece) {
	l := r.l
	d := damage{segment: *l.active, from: p.pos, to: p.end}
	if s := l.streams[p.stream]; p.kind == kindData && s != nil {
		// The header reads, so what is lost is known: the hole shows in the extents.
		d.stream, d.first, d.next = s.name, p.first, p.header.next()
		if p.flags&flagRelocated == 0 { // else it tells nothing of the stream's end
			s.next = max(s.next, p.header.next())
			s.unsure = 0
		}
	} else if p.kind != kindVoid {
		for _, s := range l.streams {
			if !s.sealed { // a seal that comes behind the range is not known yet
				s.unsure += uint64(p.end-p.pos)/minRecord + 1
			}
		}
	}
	l.report(d)
}

// minRecord is the least a record takes in a frame: four varints. It bounds how many a damaged range can have held.
const minRecord = 4

// frame applies a good frame.
func (r *recovery) frame(p *piece) {
	l := r.l
	l.epoch = max(l.epoch, p.epoch)
	r.newest = max(r.newest, p.wall)
	r.floor = max(r.floor, int64(p.synced))
	switch p.kind {
	case kindControl:
		rd := opReader{b: p.body}
		for o, ok := rd.next(); ok; o, ok = rd.next() {
			l.apply(&o)
		}
		if rd.bad {
			l.logger.Error("control frame holds steps this program does not know", "segment", l.active.number, "position", p.pos)
		}
	case kindData:
		s := l.streams[p.stream]
		if s == nil {
			s = &streamState{
				id: p.stream, name: record.StreamName("lost+found/" + p.stream.String()), lane: l,
				policy: stream.Policy{Lane: l.kind}, first: p.first, next: p.first,
			}
			l.addStream(s)
			l.logger.Error("frames of a stream whose creation was lost", "stream_id", p.stream.String(), "kept_as", string(s.name))
		}
		r.data(s, p)
	}
}

func (r *recovery) data(s *streamState, p *piece) {
	if p.flags&flagRelocated != 0 {
		r.l.moveFrame(s, &p.header, p.pos)
		return
	}
	if p.first < s.next {
		r.l.logger.Error("frame repeats offsets; ignored", "stream", string(s.name), "first_offset", uint64(p.first),
			"segment", r.l.active.number, "position", p.pos)
		return
	}
	s.next, s.unsure = p.first, 0 // a hole before it shows in the extents
	r.l.addFrame(s, &p.header, p.pos)
}

// tail decides about what follows the last good frame and returns where the segment ends.
func (r *recovery) tail(f interface{ Truncate(int64) error }, size int64) (end int64, err error) {
	l := r.l
	if len(r.pieces) == 0 {
		if r.floor > size && l.active.number == r.onDisk[len(r.onDisk)-1].number {
			r.damage(&piece{pos: size, end: r.floor})
		}
		return size, nil
	}
	start := r.pieces[0].pos
	if l.active.number != r.onDisk[len(r.onDisk)-1].number {
		r.confirm() // a sealed segment was synced to its end
		return size, nil
	}
	torn := r.pieces[:0:0]
	for i := range r.pieces {
		p := r.pieces[i]
		if p.pos < r.floor {
			p.end = max(p.end, min(r.floor, size))
			r.damage(&p)
		} else {
			torn = append(torn, p)
		}
	}
	if r.floor > size {
		r.damage(&piece{pos: size, end: r.floor})
	}
	if len(torn) > 0 {
		l.stats.tailBytes.Add(size - torn[0].pos)
		l.logger.Warn("dropped a torn tail: a commit that was not finished when the process or the power ended",
			"segment", l.active.number, "position", torn[0].pos, "bytes", size-torn[0].pos)
	}
	if r.readOnly {
		return start, nil
	}
	if err := f.Truncate(start); err != nil {
		return 0, fmt.Errorf("cut torn tail of segment %d: %w", l.active.number, err)
	}
	l.physical.Add(start - size)
	return start, nil
}

// dropMissing declares damaged what lay in segments that are not there.
func (r *recovery) dropMissing() {
	for _, seg := range r.l.sortedSegments() {
		if !slices.ContainsFunc(r.onDisk, func(d segmentState) bool { return d.number == seg.number }) {
			r.l.report(damage{segment: *seg, from: 0, to: 0})
			o := op{kind: opDropSegment, segment: seg.number}
			r.l.apply(&o)
			r.l.lazy = append(r.l.lazy, o)
		}
	}
}

// removeLeftovers deletes segments that were dropped, but whose file removal did not happen any more, and indexes
// without a segment.
func (r *recovery) removeLeftovers() error {
	for _, seg := range slices.Concat(r.onDisk, r.indexes) {
		if r.l.segments[seg.number] == nil {
			if err := r.l.removeSegment(&seg); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin opens the last segment for appending, or makes a new one when there is none or its checkpoint is damaged.
func (r *recovery) begin() error {
	l := r.l
	if c, ok := l.log.opts.Clock.(interface{ SetFloor(int64) }); ok && r.newest > 0 {
		c.SetFloor(r.newest)
	}
	number := uint64(1)
	if l.active != nil {
		f, err := l.dir.OpenFile(fileName(l.active.number, l.active.salt, segmentExt), os.O_RDWR)
		if err != nil {
			return err
		}
		// What a process that was killed had written is in the page cache: before readers may see it, it is synced.
		if err := f.Sync(); err != nil {
			return errors.Join(fmt.Errorf("sync segment %d: %w", l.active.number, err), f.Close())
		}
		if r.base == len(r.onDisk)-1 {
			l.file, l.synced = f, l.end
			return nil
		}
		if err := f.Close(); err != nil {
			return err
		}
		number = l.active.number + 1
		if err := l.writeIndex(l.active, l.activeIndex()); err != nil {
			l.logger.Warn("index not written; it will be rebuilt when needed", "segment", l.active.number, "error", err)
		}
	}
	r.skipUnsure()
	seg, f, err := l.createSegment(number, l.checkpoint())
	if err != nil {
		return err
	}
	l.file = f
	l.activate(seg)
	return nil
}

// skipUnsure moves the next offset of streams that may have lost their newest records behind all that can have been.
func (r *recovery) skipUnsure() (ops []op) {
	for _, s := range r.l.sortedStreams() {
		next := s.next + record.Offset(s.unsure)
		for _, c := range s.cursors {
			next = max(next, c.Offset) // a cursor has seen what is lost
		}
		if next > s.next {
			o := op{kind: opSkip, id: s.id, offset: next}
			r.l.apply(&o)
			ops = append(ops, o)
		}
		s.unsure = 0
	}
	return ops
}

// settleOffsets shows readers what was recovered. Skips are durable before readers see them, and before the floor that
// told of the damage is lowered to where the segment now ends.
func (r *recovery) settleOffsets() error {
	l := r.l
	for _, s := range l.streams {
		s.synced = s.next
	}
	l.lazy = append(l.lazy, r.skipUnsure()...)
	if len(l.lazy) > 0 {
		if err := l.logLazy(); err != nil {
			l.logger.Warn("what was found damaged is not logged yet", "error", err)
			return nil
		}
		if err := l.sync(); err != nil {
			return err
		}
	}
	if l.floor.at(l.active.number) > l.synced {
		l.noteFloor(true)
	}
	return nil
}
