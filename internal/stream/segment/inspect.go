package segment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// Report is what Verify found.
type Report struct {
	Segments int
	Frames   int
	Records  int64
	Bytes    int64 // of segment files
	// Damaged lists ranges that do not read, in words. A torn tail of the newest segment is not among them.
	Damaged []string
	// Tail is the bytes behind the last good frame of each lane's newest segment: what the next start will decide about.
	Tail int64
	// Indexes lists index files that are missing or damaged; they are rebuilt when needed.
	Indexes []string
}

// Inspect prints what the log in dir holds: lanes, segments, streams with bounds and cursors; with frames also every
// frame. It only reads, and works beside a running leat, whose newest frames it may then see half.
func Inspect(dir *vfs.Dir, w io.Writer, frames bool) error {
	return eachLane(dir, func(name string, lane *vfs.Dir, segs []segmentState) error {
		fmt.Fprintf(w, "lane %s\n", name)
		for i := range segs {
			if err := inspectSegment(lane, &segs[i], w, frames); err != nil {
				return err
			}
		}
		if len(segs) == 0 {
			return nil
		}
		return inspectStreams(lane, segs, w)
	})
}

// eachLane calls visit for each lane directory that exists, with its segments in order.
func eachLane(dir *vfs.Dir, visit func(name string, lane *vfs.Dir, segs []segmentState) error) error {
	for _, name := range laneNames {
		if _, err := dir.Stat(name); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		lane, err := dir.Sub(name)
		if err != nil {
			return err
		}
		r := recovery{l: memoryLane(lane)}
		if err = r.list(); err == nil {
			err = visit(name, lane, r.onDisk)
		}
		if err = errors.Join(err, lane.Close()); err != nil {
			return fmt.Errorf("lane %s: %w", name, err)
		}
	}
	return nil
}

func inspectSegment(dir *vfs.Dir, seg *segmentState, w io.Writer, frames bool) error {
	var data, control, bad int
	var records int64
	head := "header damaged"
	err := scanSegment(dir, seg, func(h segmentHeader, herr error) {
		if herr == nil {
			head = fmt.Sprintf("epoch %d, created %s", h.epoch, stamp(h.created))
		} else {
			head = herr.Error()
		}
	}, func(p *piece) {
		switch {
		case p.kind == 0 || p.unreadable:
			bad++
		case p.kind == kindData:
			data++
			records += int64(p.count)
		default:
			control++
		}
		if frames {
			fmt.Fprintf(w, "    %s\n", describe(p))
		}
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "  segment %d: %d bytes, %d data frames, %d records, %d other frames, %d unreadable; %s\n",
		seg.number, seg.size, data, records, control, bad, head)
	return nil
}

// scanSegment walks a segment file.
func scanSegment(dir *vfs.Dir, seg *segmentState, head func(segmentHeader, error), visit func(*piece)) error {
	f, err := dir.Open(fileName(seg.number, seg.salt, segmentExt))
	if err != nil {
		return err
	}
	defer f.Close()
	sc := newScanner(f, seg.size, seg.salt)
	head(parseSegmentHeader(sc.bytes(0, segmentHeaderSize)))
	for {
		p, err := sc.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		visit(&p)
	}
}

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

func describe(p *piece) string {
	where := fmt.Sprintf("%12d %9d bytes", p.pos, p.end-p.pos)
	kind := map[frameKind]string{kindData: "data", kindControl: "control", kindCheckpoint: "checkpoint", kindVoid: "void"}[p.kind]
	switch {
	case p.kind == 0:
		return where + "  no frame: damaged, or a torn tail"
	case p.unreadable:
		return where + "  " + kind + " frame whose body does not read"
	case p.kind == kindData:
		return fmt.Sprintf("%s  data  stream %s  offsets [%d, %d)  %s  flags %d", where, p.stream, p.first, p.header.next(), stamp(p.wall), p.flags)
	default:
		return where + "  " + kind
	}
}

// damaged says what is lost with a piece that does not read.
func (p *piece) damaged() string {
	if p.unreadable && p.kind == kindData {
		return fmt.Sprintf("data of stream %s, offsets [%d, %d), does not read", p.stream, p.first, p.header.next())
	}
	return "no frame reads here"
}

// inspectStreams opens a copy of the lane's control state, as recovery would, and prints it.
func inspectStreams(dir *vfs.Dir, segs []segmentState, w io.Writer) error {
	l := memoryLane(dir)
	r := recovery{l: l, base: -1, onDisk: segs, readOnly: true}
	if err := r.loadBase(); err != nil {
		return err
	}
	for i := max(r.base, 0); i < len(r.onDisk); i++ {
		if err := r.replay(i); err != nil {
			return err
		}
	}
	for _, s := range l.sortedStreams() {
		b := s.bounds()
		fmt.Fprintf(w, "  stream %s %s: offsets [%d, %d), %d bytes, %d extents, sealed %v\n", s.id, s.name, b.First, b.Next, b.Bytes, len(s.extents), b.Sealed)
		for _, name := range sortedKeys(s.cursors) {
			c := s.cursors[name]
			fmt.Fprintf(w, "    cursor %s: offset %d, %d bytes of state\n", name, c.Offset, len(c.State))
		}
	}
	return nil
}

// memoryLane is a lane for reading control state: nothing runs, nothing is written.
func memoryLane(dir *vfs.Dir) *lane {
	log := &Log{byID: map[record.StreamID]*streamState{}, byName: map[record.StreamName]*streamState{}}
	return &lane{
		log: log, dir: dir, logger: slog.New(slog.DiscardHandler), floor: &floorFile{},
		streams: map[record.StreamID]*streamState{}, segments: map[uint64]*segmentState{}, reported: map[damageKey]struct{}{},
		quarantined: maxQuarantined,
	}
}

// Verify reads every byte of the log in dir and checks it. It only reads.
func Verify(dir *vfs.Dir) (Report, error) {
	var rep Report
	err := eachLane(dir, func(name string, lane *vfs.Dir, segs []segmentState) error {
		floor, err := readFloor(lane)
		if err != nil {
			return err
		}
		for i := range segs {
			if err := rep.segment(name, lane, &segs[i], floor, i == len(segs)-1); err != nil {
				return err
			}
		}
		return nil
	})
	return rep, err
}

// readFloor reads the lane's floor file without making one.
func readFloor(lane *vfs.Dir) (*floorFile, error) {
	if _, err := lane.Stat("floor"); errors.Is(err, fs.ErrNotExist) {
		return &floorFile{}, nil
	}
	f, err := openFloor(lane)
	if err != nil {
		return nil, err
	}
	return f, f.close()
}

func (rep *Report) segment(lane string, dir *vfs.Dir, seg *segmentState, file *floorFile, newest bool) error {
	rep.Segments++
	rep.Bytes += seg.size
	say := func(from, to int64, what string) {
		rep.Damaged = append(rep.Damaged, fmt.Sprintf("lane %s, segment %d, bytes %d to %d: %s", lane, seg.number, from, to, what))
	}
	floor := file.at(seg.number)
	var pieces []piece
	confirm := func(below int64) {
		for len(pieces) > 0 && pieces[0].pos < below {
			say(pieces[0].pos, pieces[0].end, pieces[0].damaged())
			pieces = pieces[1:]
		}
	}
	err := scanSegment(dir, seg, func(_ segmentHeader, herr error) {
		if herr != nil {
			say(0, segmentHeaderSize, herr.Error())
		}
	}, func(p *piece) {
		if p.kind == 0 || p.unreadable {
			p.body = nil
			pieces = append(pieces, *p)
			return
		}
		confirm(p.pos)
		floor = max(floor, int64(p.synced))
		rep.Frames++
		if p.kind == kindData {
			rep.Records += int64(p.count)
			if _, err := decodeRecords(p.body, int(p.count), 0, nil); err != nil {
				say(p.pos, p.end, err.Error())
			}
		}
	})
	if err != nil {
		return err
	}
	if newest { // as recovery has it: below the floor everything was durable, behind it lies a torn tail
		confirm(floor)
		if floor > seg.size {
			say(seg.size, floor, "missing, and were durable: the file was cut")
		}
		if len(pieces) > 0 {
			rep.Tail += seg.size - pieces[0].pos
		}
		return nil
	}
	confirm(seg.size)
	return rep.index(lane, dir, seg)
}

func (rep *Report) index(lane string, dir *vfs.Dir, seg *segmentState) error {
	b, err := dir.ReadFile(fileName(seg.number, seg.salt, indexExt))
	if err == nil {
		_, err = decodeIndex(b, seg.number, seg.salt)
	}
	if err != nil {
		rep.Indexes = append(rep.Indexes, fmt.Sprintf("lane %s, segment %d: %v", lane, seg.number, err))
	}
	return nil
}

// Repair does now, while leat is stopped, what leat otherwise does at its start and when it meets damage: it cuts a torn
// tail, copies what does not read into the quarantine directory, moves what does read out of damaged segments, drops
// those, and rebuilds indexes. No record that reads is removed; readers get a gap for the others.
func Repair(dir *vfs.Dir, logger *slog.Logger) error {
	l, err := Open(Options{Dir: dir, Clock: clock.NewSystem(), Logger: logger, MaintainInterval: time.Hour})
	if err != nil {
		return err
	}
	for _, la := range l.lanes {
		for _, seg := range la.sealed() {
			err = errors.Join(err, la.repairSegment(seg))
		}
	}
	return errors.Join(err, l.Close())
}

func (l *lane) sealed() []segmentState {
	l.mu.Lock()
	defer l.mu.Unlock()
	var segs []segmentState
	for _, seg := range l.sortedSegments() {
		if seg != l.active {
			segs = append(segs, *seg)
		}
	}
	return segs
}

func (l *lane) repairSegment(seg segmentState) error {
	bad := false
	err := scanSegment(l.dir, &seg, func(_ segmentHeader, err error) { bad = err != nil }, func(p *piece) {
		bad = bad || p.kind == 0 || p.unreadable
	})
	if err != nil {
		return err
	}
	if bad { // its good frames move, the rest is in the quarantine
		if err := l.copyForward(context.Background(), seg); err != nil {
			return err
		}
		return l.dropSegments(context.Background(), seg)
	}
	b, err := l.dir.ReadFile(fileName(seg.number, seg.salt, indexExt))
	if err == nil {
		if _, err = decodeIndex(b, seg.number, seg.salt); err == nil {
			return nil
		}
	}
	l.logger.Warn("rebuilding an index", "segment", seg.number, "reason", err)
	_, err = l.indexes.rebuild(seg, 0)
	return err
}
