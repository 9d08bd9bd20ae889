package streammanager

import (
	"context"
	"sync"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// recordCost is what the engines count for a record in stream.MaxBatch beside its bytes.
const recordCost = 32

// Append adds messages to a stream as one unit. done is called once, with the sequence number of the first one or the
// error: before Append returns or later on the goroutine that commits, so that it must not block. The payloads may be
// reused when Append has returned. Append waits for admission until ctx ends.
func (m *Manager) Append(ctx context.Context, name string, payloads [][]byte, done func(first int64, err error)) {
	s, err := m.find(name)
	if err != nil {
		done(0, err)
		return
	}
	size, err := s.check(payloads)
	if err != nil {
		done(0, err)
		return
	}
	records := recordPool.Get().(*[]record.Record)
	now := m.now().UnixNano()
	for _, p := range payloads {
		*records = append(*records, record.Record{Time: now, Payload: p})
	}
	op, ok := opPool.Get().(*appendOp)
	if !ok {
		op = &appendOp{}
		op.complete = op.end
	}
	op.s, op.n, op.size, op.done = s, len(payloads), size, done
	s.engine.Append(ctx, s.id, *records, op.complete)
	clear(*records) // do not keep the payloads
	*records = (*records)[:0]
	recordPool.Put(records)
}

var recordPool = sync.Pool{New: func() any { return new([]record.Record) }}

// appendOp is an append under way. It is kept for the next one, so that an append allocates nothing.
type appendOp struct {
	s        *managed
	n, size  int
	done     func(int64, error)
	complete func(record.Offset, error) // the method end of this op
}

var opPool sync.Pool // of *appendOp

func (op *appendOp) end(first record.Offset, err error) {
	s, n, size, done := op.s, op.n, op.size, op.done
	op.s, op.done = nil, nil
	opPool.Put(op)
	if err != nil {
		done(0, s.refused(err))
		return
	}
	s.messages.Add(uint64(n))
	s.bytes.Add(uint64(size))
	done(int64(first), nil)
}

// check says what no stream of this definition ever takes, and else how many bytes there are.
func (s *managed) check(payloads [][]byte) (size int, err error) {
	if len(payloads) == 0 {
		return 0, record.Errorf(record.Invalid, "append to stream %q: no message", s.name).WithHint("send at least one")
	}
	d := s.def.Load()
	limit := min(record.MaxPayload, d.StreamSegmentSize.Or(wire.DefaultSegmentSize), d.MaxSize.Or(wire.DefaultMaxSize))
	for _, p := range payloads {
		switch {
		case len(p) == 0:
			return 0, record.Errorf(record.Invalid, "append to stream %q: the payload is empty", s.name).
				WithHint("a message has at least one byte")
		case int64(len(p)) > limit:
			return 0, wire.Errorf(wire.RequestPayloadTooLarge,
				"append to stream %q: the message has %d bytes, the stream takes %d at most: the least of streamSegmentSize, maxSize and %d (send it in parts, or raise the first two)",
				s.name, len(p), limit, record.MaxPayload)
		}
		size += len(p)
	}
	if most := stream.MaxBatch - recordCost*len(payloads); size > most {
		return 0, wire.Errorf(wire.RequestPayloadTooLarge, "append to stream %q: %d messages of %d bytes together, %d fit into one request (send fewer at once)",
			s.name, len(payloads), size, max(most, 0))
	}
	return size, nil
}

// refused says why the engine did not take an append.
func (s *managed) refused(err error) error {
	if record.KindOf(err) != record.Full {
		return s.failed("append to", err)
	}
	e := record.Errorf(record.Full, "append to stream %q: it is full: %w", s.name, err)
	if record.HintOf(err) == "" {
		e = e.WithHint("raise maxSize, set a timeToLiveMillis, or let it overwrite the oldest messages (strategyOnFull 1)")
	}
	return e
}

// AppendStatus appends a status message of an export to the stream that the export names, and returns when it is
// acknowledged. A stream that does not exist costs the message: it is counted, and logged once for each name, until the
// stream was there.
func (m *Manager) AppendStatus(ctx context.Context, name string, payload []byte) error {
	type result struct{ err error }
	ch := make(chan result, 1)
	m.Append(ctx, name, [][]byte{payload}, func(_ int64, err error) { ch <- result{err} })
	var err error
	select {
	case r := <-ch:
		err = r.err
	case <-ctx.Done():
		return record.Errorf(record.Unavailable, "append a status to stream %q: %w", name, ctx.Err())
	}
	if err != nil && record.KindOf(err) != record.NotFound {
		return err
	}
	m.statusMu.Lock()
	defer m.statusMu.Unlock()
	if err == nil {
		delete(m.unheard, name)
		return nil
	}
	m.dropped.Add(1)
	if _, known := m.unheard[name]; !known {
		m.unheard[name] = struct{}{}
		m.opt.Log.Warn("status messages of exports are dropped: their stream does not exist", "stream", name)
	}
	return nil
}

// DroppedStatuses is how many status messages found no stream since the process started.
func (m *Manager) DroppedStatuses() uint64 { return m.dropped.Load() }
