package segment

import (
	"context"
	"hash/crc32"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/vfs"
)

// lane is one log: the streams that share an active segment, and the goroutine that commits for them.
//
// Fields of the first group are guarded by mu. Those of the second belong to the committer, which alone writes to
// files; it changes the first group under mu too, so that it may read it without.
type lane struct {
	log    *Log
	kind   stream.Lane
	dir    *vfs.Dir
	logger *slog.Logger
	space  *semaphore.Weighted // bytes queued and in flight: Options.QueueBytes

	mu       sync.Mutex
	streams  map[record.StreamID]*streamState
	segments map[uint64]*segmentState
	active   *segmentState
	end      int64 // where the next frame goes in the active segment
	synced   int64 // what an fdatasync has covered of it
	dirty    []*streamState
	lazy     []op // applied, logged before the next commit: losing them brings back old data, no harm
	queue    queue
	stopping bool
	failed   error

	file       *vfs.File // the active segment
	headEnd    int64     // end of its checkpoint
	epoch      uint32
	generation uint64
	work       queue
	unsynced   bool
	unsyncedAt time.Time // when the first bytes were written that are not synced
	floor      *floorFile

	files    *fileCache
	indexes  *indexCache
	wakeup   chan struct{} // capacity 1: the queue has items, or stopping is set
	finished chan struct{} // closed when the committer has ended
	quit     chan struct{} // closed to end maintenance
	idle     sync.WaitGroup

	damageMu    sync.Mutex // guards reported and quarantined; taken after mu or alone
	reported    map[damageKey]struct{}
	quarantined int

	physical atomic.Int64 // bytes of all segment and index files
	stats    counters
}

// queue is what appenders hand to the committer: encoded frames in one buffer, so that a commit is one write.
type queue struct {
	buf    []byte
	items  []item
	frames []frameRef

	itemsTaken, framesTaken int // by the committer
}

// item is one Append, one control commit, or one batch of relocated frames.
type item struct {
	s        *streamState
	frames   int // how many of queue.frames are its
	count    int // records
	logical  int64
	queued   int64 // of logical, what s.queued still counts
	weight   int64 // held of lane.space
	relocate bool
	done     func(first record.Offset, err error)
	control  *control
	err      error
	first    record.Offset
}

// frameRef is a frame in queue.buf whose header is not written yet.
type frameRef struct {
	off    int
	header header
}

func (q *queue) reset(keep int) {
	clear(q.items)
	q.items, q.frames = q.items[:0], q.frames[:0]
	if cap(q.buf) > keep {
		q.buf = nil
	}
	q.buf = q.buf[:0]
	q.itemsTaken, q.framesTaken = 0, 0
}

// control is a control commit on its way. steps is called by the committer, under the lane's mutex, when everything
// admitted before has been written.
type control struct {
	// barrier keeps what was admitted later out of this commit: its checks must see the changes made.
	barrier bool
	steps   func() ([]op, error)
	ended   func() // when set, called once: when the commit has been decided or was refused
	ops     []op
}

func (c *control) end() {
	if c.ended != nil {
		c.ended()
	}
}

// append encodes the records of one Append into the queue. Called with admission granted.
func (l *lane) append(s *streamState, records []record.Record, sum batchSize, done func(record.Offset, error)) {
	l.mu.Lock()
	if err := l.refuse(); err != nil {
		l.mu.Unlock()
		l.space.Release(sum.weight)
		done(0, err)
		return
	}
	it := item{s: s, count: len(records), logical: sum.logical, weight: sum.weight, done: done}
	if it.err = l.admit(s, sum.logical); it.err == nil {
		it.frames = l.queue.encode(s.id, records)
		it.queued = sum.logical
		s.queued += sum.logical
	} else {
		it.logical = 0
	}
	l.queue.items = append(l.queue.items, it)
	l.mu.Unlock()
	l.wake()
}

// refuse says why the lane takes nothing any more, or nil.
func (l *lane) refuse() error {
	switch {
	case l.failed != nil:
		return record.Errorf(record.Unavailable, "the log has failed: %w", l.failed)
	case l.stopping:
		return record.Errorf(record.Unavailable, "the log is closed")
	}
	return nil
}

// admit applies the stream's policy to an append of so many logical bytes.
func (l *lane) admit(s *streamState, logical int64) error {
	if s.deleted {
		return notFound(s.id)
	}
	if s.sealed {
		return record.Errorf(record.Invalid, "stream %s is sealed", s.name)
	}
	if logical == 0 {
		return nil
	}
	if s.policy.OnFull == stream.DropOldest {
		// The committer makes room; where that does not suffice (nothing left that may be dropped), it ends here.
		if l.log.overBudget() <= max(l.log.opts.SegmentBytes, l.log.opts.QueueBytes) {
			return nil
		}
		l.stats.rejected.Add(1)
		return l.log.roomFor(logical)
	}
	if limit := s.policy.MaxBytes; limit > 0 && s.bytes+s.queued+logical > limit {
		l.stats.rejected.Add(1)
		return record.Errorf(record.Full, "stream %s holds its limit of %d bytes", s.name, limit)
	}
	if err := l.log.roomFor(logical); err != nil {
		l.stats.rejected.Add(1)
		return err
	}
	return nil
}

// encode appends the frames of one batch: as few as the size limit of a frame allows.
func (q *queue) encode(id record.StreamID, records []record.Record) (frames int) {
	for len(records) > 0 {
		start := len(q.buf)
		q.buf = append(q.buf, make([]byte, frameHeaderSize)...)
		h := header{kind: kindData, stream: id, minTime: records[0].Time, maxTime: records[0].Time}
		var prev, logical int64
		n := 0
		for n < len(records) {
			r := &records[n]
			if n > 0 && len(q.buf)-start+r.Size()+recordOverhead > maxFrameBody {
				break
			}
			q.buf = appendRecord(q.buf, r, prev)
			prev = r.Time
			h.minTime, h.maxTime = min(h.minTime, r.Time), max(h.maxTime, r.Time)
			logical += int64(r.Size())
			n++
		}
		h.count = uint32(n)
		h.logical = uint32(logical)
		q.closeFrame(start, h)
		records = records[n:]
		frames++
	}
	return frames
}

// closeFrame completes the frame that begins at start of the buffer: length, checksum, padding.
func (q *queue) closeFrame(start int, h header) {
	body := q.buf[start+frameHeaderSize:]
	h.bodyLen, h.bodyCRC = uint32(len(body)), crc32.Checksum(body, castagnoli)
	for len(q.buf)%frameAlign != 0 {
		q.buf = append(q.buf, 0)
	}
	q.frames = append(q.frames, frameRef{off: start, header: h})
}

// submit queues a control commit and waits for it.
func (l *lane) submit(ctx context.Context, c *control) error {
	done := make(chan error, 1)
	l.mu.Lock()
	if err := l.refuse(); err != nil {
		l.mu.Unlock()
		c.end()
		return err
	}
	l.queue.items = append(l.queue.items, item{control: c, done: func(_ record.Offset, err error) {
		c.end()
		done <- err
	}})
	l.mu.Unlock()
	l.wake()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		// The commit may still happen; the caller only stops waiting.
		return record.Errorf(record.Unavailable, "control commit: %w", ctx.Err())
	}
}

func (l *lane) wake() {
	select {
	case l.wakeup <- struct{}{}:
	default:
	}
}

// fail ends the lane for good: what is durable is not known any more, so nothing may be acknowledged.
func (l *lane) fail(err error) {
	l.mu.Lock()
	if l.failed == nil {
		l.failed = err
	}
	for _, s := range l.streams {
		s.notify()
	}
	l.mu.Unlock()
	l.log.fail(err)
}

// stop makes the committer finish what is queued and end, and waits for it.
func (l *lane) stop() {
	l.mu.Lock()
	if !l.stopping {
		l.stopping = true
		close(l.quit)
		for _, s := range l.streams {
			s.notify()
		}
	}
	l.mu.Unlock()
	l.wake()
	<-l.finished
	l.idle.Wait()
}

// counters are the lane's part of Stats.
type counters struct {
	appends, records, bytes      atomic.Int64
	commits, syncs, syncNanos    atomic.Int64
	rejected                     atomic.Int64
	droppedRecords, droppedBytes atomic.Int64
	damagedRanges, damagedBytes  atomic.Int64
	tailBytes                    atomic.Int64
	indexRebuilds                atomic.Int64
	cleanedSegments, copiedBytes atomic.Int64
	writeErrors                  atomic.Int64
	writtenBytes                 atomic.Int64
}

// recordOverhead is the most framing a record needs beside its bytes.
const recordOverhead = 32

// batchSize is what one Append amounts to.
type batchSize struct {
	logical int64 // record.Size summed
	weight  int64 // of lane.space
}

// measure checks the limits on a batch.
func measure(records []record.Record, capacity int64) (sum batchSize, err error) {
	for i := range records {
		r := &records[i]
		if len(r.Payload) > record.MaxPayload || len(r.Key) > record.MaxKey || r.Size() > maxRecord {
			return sum, record.Errorf(record.Invalid, "record %d of %d is too large: key %d bytes (at most %d), payload %d bytes (at most %d)",
				i+1, len(records), len(r.Key), record.MaxKey, len(r.Payload), record.MaxPayload)
		}
		sum.logical += int64(r.Size())
	}
	total := sum.logical + recordOverhead*int64(len(records))
	if total > stream.MaxBatch {
		return sum, record.Errorf(record.Invalid, "batch of %d bytes is too large: at most %d", total, stream.MaxBatch)
	}
	sum.weight = min(total+frameHeaderSize, capacity)
	return sum, nil
}

// maxRecord keeps a record with its attributes within maxBody.
const maxRecord = 16 << 20

// idleInterval is how long after its last commit a lane counts as idle and notes how far it is synced.
const idleInterval = 10 * time.Millisecond
