// Package memory is the stream engine that keeps records in RAM: for tests, for development servers that must start
// and vanish quickly, and for buffers that their owner has declared worthless after a restart.
//
// It loses everything on Close, by design. It is an engine of its own and never a mode of the log on disk, so that no
// setting can turn a durable stream into this one. Until Close it keeps the whole contract of package stream: what is
// acknowledged is readable, offsets are dense and never reused, order is append order. Both levels of durability mean
// the same here: the process has the record.
//
// # Limits
//
// Options.MaxBytes bounds the records of all streams together and is never unlimited; Options.QueueBytes bounds what
// was appended and is not yet acknowledged. When the first is reached, the oldest records of the largest streams with
// DropOldest are dropped, whichever stream appends, and the append is refused with Full only when there are none: what
// may be dropped yields to what may not, and no stream that came first keeps the others out. When the second is reached
// Append waits for admission.
//
// # Goroutines and locks
//
// One goroutine calls the done functions, one drops records that are older than their stream's MaxAge; Close waits for
// both. Engine.mu guards the set of streams, buffer.mu the records of one; the first is always taken before the second.
// No lock is held while done runs.
//
// # Algorithm
//
// Append copies records into chunks: byte slices that start small, so that ten thousand quiet streams cost little, and
// double up to 64 KiB, so that busy ones allocate once per several hundred records. Bytes once written in a chunk never
// move or change; Read therefore hands out slices of them without copying, and the garbage collector keeps a chunk for
// as long as a reader looks at it. Truncation inside a chunk frees its bytes when the whole chunk is passed.
package memory

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Options are the engine's limits. The zero value of a field means its default.
type Options struct {
	Clock       clock.Clock   // origins and ages; default the machine's
	MaxBytes    int64         // records of all streams, with 64 bytes each for their place; default 256 MiB
	QueueBytes  int           // records appended but not acknowledged; default 32 MiB
	ExpireEvery time.Duration // how often MaxAge is looked at; default 1 s
}

// Engine keeps streams in RAM. It is safe for concurrent use.
type Engine struct {
	clock    clock.Clock
	maxBytes int64
	maxQueue int64
	admitted *semaphore.Weighted // bytes between Append and the end of done
	acks     acks
	closing  chan struct{} // closed when Close begins
	running  sync.WaitGroup

	mu     sync.RWMutex // guards what follows; held for reading while records are added
	closed bool
	ids    map[record.StreamID]*buffer
	names  map[record.StreamName]*buffer

	reclaiming sync.Mutex // held by the append that drops records of other streams; taken after mu, before a buffer's

	held    atomic.Int64 // charge of all records kept
	appends atomic.Int64
	records atomic.Int64
	dropped atomic.Int64
}

var _ stream.Engine = (*Engine)(nil)

// Open returns an empty engine. It must be closed.
func Open(o Options) *Engine {
	if o.Clock == nil {
		o.Clock = clock.NewSystem()
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 256 << 20
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = 32 << 20
	}
	if o.ExpireEvery <= 0 {
		o.ExpireEvery = time.Second
	}
	e := &Engine{
		clock:    o.Clock,
		maxBytes: o.MaxBytes,
		maxQueue: int64(o.QueueBytes),
		admitted: semaphore.NewWeighted(int64(o.QueueBytes)),
		closing:  make(chan struct{}),
		ids:      make(map[record.StreamID]*buffer),
		names:    make(map[record.StreamName]*buffer),
	}
	e.acks.wake = make(chan struct{}, 1)
	e.running.Go(e.acknowledge)
	e.running.Go(func() { e.expire(o.ExpireEvery) })
	return e
}

// Close acknowledges what was appended, wakes every reader with Unavailable and forgets all records.
func (e *Engine) Close() error {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		close(e.closing)
		clear(e.ids)
		clear(e.names)
		e.held.Store(0)
	}
	e.mu.Unlock()
	e.running.Wait()
	return nil
}

// Stats is a snapshot of the engine's counters.
type Stats struct {
	Streams int   // that exist now
	Bytes   int64 // charged against Options.MaxBytes now
	Appends int64 // acknowledged with success, since Open
	Records int64 // in those appends
	Dropped int64 // records lost to MaxBytes and MaxAge, since Open
}

// Stats counts.
func (e *Engine) Stats() Stats {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return Stats{
		Streams: len(e.ids),
		Bytes:   e.held.Load(),
		Appends: e.appends.Load(),
		Records: e.records.Load(),
		Dropped: e.dropped.Load(),
	}
}

// lookup finds a stream; the caller holds e.mu.
func (e *Engine) lookup(id record.StreamID) (*buffer, error) {
	if e.closed {
		return nil, errClosed()
	}
	b, ok := e.ids[id]
	if !ok {
		return nil, record.Errorf(record.NotFound, "stream %v does not exist", id)
	}
	return b, nil
}

// find is lookup for callers that hold no lock.
func (e *Engine) find(id record.StreamID) (*buffer, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.lookup(id)
}

func errClosed() error { return record.Errorf(record.Unavailable, "stream engine is closed") }

// unavailable is the error of a call that ctx ended.
func unavailable(ctx context.Context, what string) error {
	return record.Errorf(record.Unavailable, "%s: %w", what, ctx.Err())
}

func newStreamID() record.StreamID {
	var b [8]byte
	for {
		rand.Read(b[:])
		if id := binary.LittleEndian.Uint64(b[:]); id != 0 {
			return record.StreamID(id)
		}
	}
}

// expire drops what is older than its stream's MaxAge, until Close. It works at intervals rather than at each access
// so that a stream nobody touches gives its memory back too.
func (e *Engine) expire(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-e.closing:
			return
		case <-tick.C:
		}
		now := e.clock.Read()
		if !now.Trusted {
			continue
		}
		e.mu.RLock()
		for _, b := range e.ids {
			e.drop(b.expire(now.Wall))
		}
		e.mu.RUnlock()
	}
}

// drop accounts for records that a limit has cost the stream.
func (e *Engine) drop(d dropped) {
	e.release(d)
	e.dropped.Add(d.records)
}

// release accounts for records that nobody wanted any more.
func (e *Engine) release(d dropped) { e.held.Add(-d.charge) }
