package memory

import (
	"context"
	"sync"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// ack is a done function that waits for its turn, and what it will be told.
type ack struct {
	done    func(record.Offset, error)
	first   record.Offset
	records int
	err     error
	charge  int64
}

// acks is the queue to the goroutine that calls done. Engine.admitted bounds it: each entry holds at least perRecord
// of its bytes.
type acks struct {
	wake chan struct{} // holds one token when there is something to do

	mu      sync.Mutex // guards pending
	pending []ack
}

func (q *acks) push(a ack) {
	q.mu.Lock()
	q.pending = append(q.pending, a)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns what is pending and leaves room, an empty slice to reuse, in its place.
func (q *acks) take(room []ack) []ack {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.pending
	q.pending = room[:0]
	return taken
}

// acknowledge calls done functions until the engine is closed and the queue empty.
func (e *Engine) acknowledge() {
	var room []ack
	for closing := false; ; {
		batch := e.acks.take(room)
		for _, a := range batch {
			if a.err == nil {
				e.appends.Add(1)
				e.records.Add(int64(a.records))
			}
			a.done(a.first, a.err)
			e.admitted.Release(a.charge)
		}
		clear(batch)
		room = batch
		switch {
		case len(batch) > 0:
		case closing:
			return
		default:
			select {
			case <-e.acks.wake:
			case <-e.closing:
				closing = true // nothing is pushed any more: one last look
			}
		}
	}
}

// Append is part of stream.Appender.
func (e *Engine) Append(
	ctx context.Context, id record.StreamID, records []record.Record, done func(record.Offset, error),
) {
	size := charge(records)
	if err := checkBatch(records); err != nil {
		done(0, err)
		return
	}
	admission := min(size+perRecord, e.maxQueue) // a batch above the whole limit is admitted alone
	if err := e.admitted.Acquire(ctx, admission); err != nil {
		done(0, unavailable(ctx, "append not admitted"))
		return
	}
	e.mu.RLock()
	b, err := e.lookup(id)
	if err == nil {
		e.enqueue(b, records, ack{done: done, records: len(records), charge: admission}, size)
	}
	e.mu.RUnlock()
	if err != nil {
		e.admitted.Release(admission)
		done(0, err)
	}
}

// enqueue adds the records and queues their acknowledgement, or the refusal. The caller holds e.mu for reading.
func (e *Engine) enqueue(b *buffer, records []record.Record, a ack, size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(records) > 0 {
		a.err = e.makeRoom(b, records, size)
	}
	if a.err == nil {
		a.first = b.next
		b.add(records, e.clock.Read())
	}
	e.acks.push(a)
}

// makeRoom reserves size bytes of the engine's limit, or tells why the stream cannot take the records. While it drops
// what others hold it lets go of b.mu; policies and the set of streams stay, as the caller holds e.mu.
func (e *Engine) makeRoom(b *buffer, records []record.Record, size int64) error {
	for {
		if err := b.admit(size - perRecord*int64(len(records))); err != nil {
			return err
		}
		e.drop(b.shrink(size - perRecord*int64(len(records))))
		if e.reserve(size) {
			return nil
		}
		b.mu.Unlock()
		freed := e.reclaim(size)
		b.mu.Lock()
		if !freed {
			return record.Errorf(record.Full, "stream %s: memory for records is full (%d of %d bytes)",
				b.name, e.held.Load(), e.maxBytes).
				WithHint("let readers and exports catch up, or raise the memory for records")
		}
	}
}

// reserve charges size bytes when they fit the engine's limit.
func (e *Engine) reserve(size int64) bool {
	for {
		held := e.held.Load()
		if held+size > e.maxBytes {
			return false
		}
		if e.held.CompareAndSwap(held, held+size) {
			return true
		}
	}
}

// reclaimShare is the part of the engine's limit that is dropped beyond what an append needs, so that looking for it
// at all streams is paid by many appends.
const reclaimShare = 64

// reclaim drops the oldest records of the largest streams that allow it until size bytes more fit the engine's limit,
// and reports whether that helped. A stream that allows it must not keep others from appending: which of them appends
// next would be chance, and one that came late would never hold anything.
func (e *Engine) reclaim(size int64) bool {
	if size > e.maxBytes {
		return false
	}
	e.reclaiming.Lock()
	defer e.reclaiming.Unlock()
	over := e.held.Load() + size - e.maxBytes
	if over <= 0 {
		return true // another append has made room meanwhile
	}
	freed := false
	for need := over + e.maxBytes/reclaimShare; need > 0; {
		b := e.largestDroppable()
		if b == nil {
			return freed
		}
		b.mu.Lock()
		d := b.dropCharged(need)
		b.mu.Unlock()
		e.drop(d)
		need -= d.charge
		freed = freed || d.charge > 0
	}
	return true
}

// largestDroppable is the stream that holds most of those whose oldest records may be dropped; nil when none holds any.
func (e *Engine) largestDroppable() (largest *buffer) {
	var most int64
	for _, b := range e.ids {
		b.mu.Lock()
		if held := b.charged(); b.policy.OnFull == stream.DropOldest && held > most {
			largest, most = b, held
		}
		b.mu.Unlock()
	}
	return largest
}

// admit tells why the stream cannot take so many bytes more, or nil.
func (b *buffer) admit(added int64) error {
	if b.sealed {
		return record.Errorf(record.Invalid, "stream %s is sealed", b.name)
	}
	limit, drops := b.policy.MaxBytes, b.policy.OnFull == stream.DropOldest
	if limit > 0 && (added > limit || b.bytes+added > limit && !drops) {
		return record.Errorf(record.Full, "stream %s: %d bytes kept, %d more would pass its limit of %d",
			b.name, b.bytes, added, limit)
	}
	return nil
}

func checkBatch(records []record.Record) error {
	const perRecord = 32 // as stream.MaxBatch counts
	size := perRecord * len(records)
	for i := range records {
		r := &records[i]
		size += r.Size()
		if len(r.Key) > record.MaxKey {
			return record.Errorf(record.Invalid, "record %d: key of %d bytes: at most %d", i, len(r.Key), record.MaxKey)
		}
		if len(r.Payload) > record.MaxPayload {
			return record.Errorf(record.Invalid, "record %d: payload of %d bytes: at most %d",
				i, len(r.Payload), record.MaxPayload)
		}
	}
	if size > stream.MaxBatch {
		return record.Errorf(record.Invalid, "batch of %d bytes: at most %d", size, stream.MaxBatch)
	}
	return nil
}
