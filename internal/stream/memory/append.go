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
	a.first = b.next
	if len(records) > 0 {
		if a.err = e.makeRoom(b, records, size); a.err == nil {
			b.add(records, e.clock.Read())
		} else {
			a.first = 0
		}
	}
	e.acks.push(a)
}

// makeRoom reserves size bytes of the engine's limit, or tells why the stream cannot take the records.
func (e *Engine) makeRoom(b *buffer, records []record.Record, size int64) error {
	if b.sealed {
		return record.Errorf(record.Invalid, "stream %s is sealed", b.name)
	}
	limit, added := b.policy.MaxBytes, size-perRecord*int64(len(records))
	drops := b.policy.OnFull == stream.DropOldest
	if limit > 0 && (added > limit || b.bytes+added > limit && !drops) {
		return record.Errorf(record.Full, "stream %s: %d bytes kept, %d more would pass its limit of %d",
			b.name, b.bytes, added, limit)
	}
	e.drop(b.shrink(added))
	if over := e.held.Add(size) - e.maxBytes; over > 0 && drops {
		var freed int64
		e.drop(b.dropWhile(func(c *chunk, pos int) bool {
			enough := freed >= over
			freed += int64(c.lengthAt(pos)-headerSize) + perRecord
			return !enough
		}))
	}
	if held := e.held.Load(); held > e.maxBytes {
		e.held.Add(-size)
		return record.Errorf(record.Full, "stream %s: memory for records is full (%d of %d bytes)",
			b.name, held-size, e.maxBytes)
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
