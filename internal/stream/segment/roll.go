package segment

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"syscall"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// roll seals the active segment and starts the next one, whose head is a checkpoint of the control state. When that
// cannot be written the old segment stays active.
func (l *lane) roll() error {
	if err := l.sync(); err != nil {
		l.fail(err)
		return record.Errorf(record.Unavailable, "seal segment %d: %w", l.active.number, err)
	}
	l.mu.Lock()
	ops := l.checkpoint()
	index := l.activeIndex()
	number := l.active.number + 1
	l.mu.Unlock()

	seg, file, err := l.createSegment(number, ops)
	if err != nil {
		return err
	}
	// The index can be made again from the segment, so a failure to write it costs time later and nothing else.
	if err := l.writeIndex(l.active, index); err != nil {
		l.logger.Warn("index not written; it will be rebuilt when needed", "segment", l.active.number, "error", err)
	}
	old := l.file
	l.mu.Lock()
	l.activate(seg)
	l.mu.Unlock()
	l.file = file
	if err := old.Close(); err != nil {
		l.logger.Warn("closing a sealed segment", "segment", number-1, "error", err)
	}
	return nil
}

// activate makes seg, which holds nothing but its head, the active segment.
func (l *lane) activate(seg *segmentState) {
	l.segments[seg.number] = seg
	l.active = seg
	l.end, l.synced, l.headEnd = seg.size, seg.size, seg.size
	l.unsynced = false
	for _, s := range l.streams {
		s.groups = nil
	}
}

// createSegment writes a segment file that holds its head only, durably.
func (l *lane) createSegment(number uint64, ops []op) (*segmentState, *vfs.File, error) {
	seg := &segmentState{number: number, salt: newID()}
	h := segmentHeader{
		lane: uint8(l.kind), number: number, salt: seg.salt, log: l.log.id,
		created: l.log.opts.Clock.Read().Wall, epoch: l.epoch,
	}
	head := h.encode()
	for len(ops) > 0 || len(head) == segmentHeaderSize {
		buf := make([]byte, frameHeaderSize, frameHeaderSize+4096)
		n := 0
		for n < len(ops) && len(buf) < maxFrameBody {
			buf = appendOp(buf, &ops[n])
			n++
		}
		ops = ops[n:]
		var flags uint16
		if len(ops) == 0 {
			flags = flagLast
		}
		head = append(head, l.frame(kindCheckpoint, flags, buf, seg.salt, int64(len(head)))...)
	}
	name := fileName(number, seg.salt, segmentExt)
	file, err := l.dir.Create(name)
	if err != nil {
		return nil, nil, fmt.Errorf("create segment %d: %w", number, l.classify(err))
	}
	if _, err = file.WriteAt(head, 0); err == nil {
		if err = file.Sync(); err == nil {
			err = l.dir.SyncDir(".")
		}
	}
	if err != nil {
		if gone := errors.Join(file.Close(), l.dir.Remove(name), l.dir.SyncDir(".")); gone != nil {
			// The next start would take it for the newest segment, and what is appended to the older one for lost.
			err = errors.Join(err, gone)
			l.fail(fmt.Errorf("remove segment %d, whose creation failed: %w", number, err))
		}
		return nil, nil, fmt.Errorf("create segment %d: %w", number, l.classify(err))
	}
	seg.size = int64(len(head))
	l.physical.Add(seg.size)
	l.stats.writtenBytes.Add(seg.size)
	return seg, file, nil
}

// classify gives an error of the file system the kind that appenders see.
func (l *lane) classify(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return record.Errorf(record.Full, "%w", err).WithHint("free space on the disk of %s", l.dir.Path())
	}
	return record.Errorf(record.Unavailable, "%w", err)
}

func newID() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return max(1, binary.LittleEndian.Uint64(b[:]))
}

// rest runs when the lane has been idle for a moment: it logs lazy steps and notes the floor.
func (l *lane) rest() {
	if l.failed != nil {
		return
	}
	if err := l.logLazy(); err != nil {
		l.logger.Warn("control steps not written; they will be taken again", "error", err)
	}
	l.noteFloor(false)
}

// noteFloor records beside the log how far it is synced, so that recovery can tell a torn tail from a damaged one even
// when the damage took the end of the segment. Losing the note is harmless.
func (l *lane) noteFloor(durable bool) {
	if err := l.floor.store(l.active.number, l.synced, durable); err != nil {
		l.logger.Warn("floor not noted", "error", err)
	}
}

// floorFile holds two slots that are written in turn, so that a torn write leaves the other.
//
//	0 8 sequence  8 8 segment  16 8 position  24 4 CRC32C of 0..24  28 4 zero
type floorFile struct {
	f        *vfs.File
	sequence uint64
	segment  uint64
	position int64
}

const floorSlot = 32

func openFloor(dir *vfs.Dir) (*floorFile, error) {
	f, err := dir.OpenFile("floor", os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	ff := &floorFile{f: f}
	var b [2 * floorSlot]byte
	n, _ := f.ReadAt(b[:], 0) // what does not read is no valid slot
	for at := 0; at+floorSlot <= n; at += floorSlot {
		slot := b[at : at+floorSlot]
		le := binary.LittleEndian
		if seq := le.Uint64(slot); le.Uint32(slot[24:]) == crc32.Checksum(slot[:24], castagnoli) && seq > ff.sequence {
			ff.sequence, ff.segment, ff.position = seq, le.Uint64(slot[8:]), int64(le.Uint64(slot[16:]))
		}
	}
	return ff, nil
}

func (f *floorFile) store(segment uint64, position int64, durable bool) error {
	if segment != f.segment || position != f.position {
		f.sequence++
		f.segment, f.position = segment, position
		var b [floorSlot]byte
		le := binary.LittleEndian
		le.PutUint64(b[:], f.sequence)
		le.PutUint64(b[8:], segment)
		le.PutUint64(b[16:], uint64(position))
		le.PutUint32(b[24:], crc32.Checksum(b[:24], castagnoli))
		if _, err := f.f.WriteAt(b[:], int64(f.sequence%2)*floorSlot); err != nil {
			return fmt.Errorf("write floor: %w", err)
		}
	}
	if !durable {
		return nil
	}
	if err := f.f.SyncData(); err != nil {
		return fmt.Errorf("sync floor: %w", err)
	}
	return nil
}

// at is the floor of a segment: everything below was durable.
func (f *floorFile) at(segment uint64) int64 {
	if f.segment == segment {
		return f.position
	}
	return 0
}

func (f *floorFile) close() error { return f.f.Close() }

// removeSegment deletes the files of a segment that control state does not know any more.
func (l *lane) removeSegment(seg *segmentState) error {
	l.files.forget(seg.number)
	l.indexes.forget(seg.number)
	var errs []error
	for _, ext := range []string{indexExt, segmentExt} {
		name := fileName(seg.number, seg.salt, ext)
		st, err := l.dir.Stat(name)
		if err == nil {
			err = l.dir.Remove(name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // the committer and maintenance may both be at it
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", name, err))
			continue
		}
		l.physical.Add(-st.Size())
	}
	return errors.Join(errs...)
}
