package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Supervisor runs the exports of a node that deliver straight from the log. Its methods are safe for concurrent use.
type Supervisor struct {
	sh *shared

	changing sync.Mutex // held by Set and Remove: one change at a time

	mu      sync.Mutex // guards below; never held over I/O
	exports map[exportKey]*runner
	start   func(*runner) // nil while Run does not run
}

type exportKey struct {
	id         record.StreamID
	identifier string
}

// New returns a supervisor without exports.
func New(o Options) *Supervisor {
	cfg := o.Config.withDefaults()
	if o.Clock == nil {
		o.Clock = clock.NewSystem()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Supervisor{exports: make(map[exportKey]*runner)}
	s.sh = &shared{cfg: cfg, gate: newGate(cfg.Threads), clock: o.Clock, slog: o.Log, wake: s.wakeKind}
	return s
}

// Run calls ready and runs the exports until ctx ends, then waits for all of them. It runs once at a time.
func (s *Supervisor) Run(ctx context.Context, ready func()) error {
	var wg sync.WaitGroup
	s.mu.Lock()
	s.start = func(r *runner) {
		if r.spec.Disabled {
			return
		}
		own, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		r.cancel, r.done = cancel, done
		wg.Go(func() {
			defer close(done)
			defer cancel()
			r.run(own)
		})
	}
	for _, r := range s.exports {
		s.start(r)
	}
	s.mu.Unlock()
	ready()
	<-ctx.Done()
	s.mu.Lock()
	s.start = nil
	s.mu.Unlock()
	wg.Wait()
	return ctx.Err()
}

// launch runs r when Run does; else Run will.
func (s *Supervisor) launch(r *runner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exports[r.key()] = r
	if s.start != nil {
		s.start(r)
	}
}

// stop ends r's goroutine and waits for it.
func (s *Supervisor) stop(r *runner) {
	s.mu.Lock()
	cancel, done := r.cancel, r.done
	s.mu.Unlock()
	if cancel != nil { // it was started
		cancel()
		<-done
	}
}

func (r *runner) key() exportKey { return exportKey{r.spec.ID, r.spec.Identifier} }

func (s *Supervisor) find(key exportKey) *runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exports[key]
}

// Set adds the export, or replaces the one with its ID and Identifier, before or while Run runs. One that is replaced is
// stopped and waited for first; the place is kept. A new one begins at Start, at the stream's first message or at its end,
// whichever fits. When Set returns nil the place is durable, and a stream with Policy.UntilExported keeps what lies behind.
//
// Errors: Invalid when the spec cannot be or the stored state is of a newer version, Corrupt when it does not read,
// NotFound when the stream does not exist, Unavailable when the log does not take the cursor. The export that was there
// before goes on then.
func (s *Supervisor) Set(ctx context.Context, spec Spec) error {
	if err := spec.validate(); err != nil {
		return err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	r := &runner{spec: spec, sh: s.sh, kick: make(chan struct{}, 1)}
	old := s.find(r.key())
	if old != nil {
		s.stop(old)
		r.retries = old.retries
	}
	if err := r.load(ctx); err != nil {
		if old != nil {
			s.launch(old)
		}
		return err
	}
	s.launch(r)
	return nil
}

// Bounds of the work of telling a Canceler: the rest is counted in the log.
const (
	maxCanceled    = 10_000
	cancelDuration = 10 * time.Second
)

// Remove ends the export and forgets its place; one that is not there is no error. A target that is a Canceler is told
// why about every message that was pending: 10,000 of them, or those of 10 seconds, at most. After an error the export is
// stopped and still listed: remove it again.
func (s *Supervisor) Remove(ctx context.Context, id record.StreamID, identifier, why string) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	key := exportKey{id, identifier}
	r := s.find(key)
	if r == nil {
		return nil
	}
	s.stop(r)
	if c, ok := r.spec.Target.(Canceler); ok {
		r.cancelPending(ctx, c, why)
	}
	err := r.spec.Log.DeleteCursor(ctx, id, r.cursor())
	if err != nil && record.KindOf(err) != record.NotFound {
		return fmt.Errorf("remove export %s of stream %s: %w", identifier, r.spec.Name, err)
	}
	s.mu.Lock()
	delete(s.exports, key)
	s.mu.Unlock()
	return nil
}

// RemoveStream removes all exports of the stream. Call it before the stream is deleted, while its messages are there.
func (s *Supervisor) RemoveStream(ctx context.Context, id record.StreamID, why string) error {
	var errs []error
	for _, r := range s.list() {
		if r.spec.ID == id {
			errs = append(errs, s.Remove(ctx, id, r.spec.Identifier, why))
		}
	}
	return errors.Join(errs...)
}

// cancelPending tells c about the messages that are not settled. The runner has been stopped.
func (r *runner) cancelPending(ctx context.Context, c Canceler, why string) {
	bounds, err := r.spec.Log.Bounds(r.spec.ID)
	if err != nil {
		return // the stream is gone, and its messages
	}
	ctx, cancel := context.WithTimeout(ctx, cancelDuration)
	defer cancel()
	at := max(r.at.next, r.spec.Start, bounds.First)
	for end := min(bounds.Next, at+maxCanceled); at < end && err == nil; {
		var chunk stream.Chunk
		if err = r.spec.Log.Read(ctx, r.spec.ID, at, scanBytes, &chunk); err == nil {
			at, err = r.cancelChunk(ctx, c, &chunk, end, why)
		}
	}
	if at < bounds.Next {
		r.log().Warn("not all pending messages were told that their export has gone", "from", uint64(at), "count", uint64(bounds.Next-at), "error", err)
	}
}

// cancelChunk tells c about the messages of a chunk below end, and returns where it got to.
func (r *runner) cancelChunk(ctx context.Context, c Canceler, chunk *stream.Chunk, end record.Offset, why string) (record.Offset, error) {
	for i := range chunk.Records {
		m := messageOf(chunk, i)
		if m.Sequence >= end {
			return end, nil
		}
		if r.isSettled(m.Sequence) {
			continue
		}
		if ctx.Err() != nil {
			return m.Sequence, ctx.Err()
		}
		if err := c.Cancel(ctx, r.spec.Stream, m, why); err != nil {
			r.log().Warn("end of a message not told", "message", uint64(m.Sequence), "error", err, "hint", record.HintOf(err))
		}
	}
	return chunk.Next, nil
}

// isSettled reports whether the message was settled, in a batch that was not as a whole.
func (r *runner) isSettled(sequence record.Offset) bool {
	if r.held == nil || sequence < r.held.Messages[0].Sequence {
		return false
	}
	i := int(sequence - r.held.Messages[0].Sequence)
	return i < len(r.held.settled) && r.held.settled[i].done
}

func (s *Supervisor) list() []*runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*runner, 0, len(s.exports))
	for _, r := range s.exports {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *runner) int {
		return cmp.Or(cmp.Compare(a.spec.Name, b.spec.Name), cmp.Compare(a.spec.Identifier, b.spec.Identifier),
			cmp.Compare(a.spec.ID, b.spec.ID))
	})
	return list
}

// Status returns the exports of a stream, sorted by identifier.
func (s *Supervisor) Status(id record.StreamID) []Status {
	var list []Status
	for _, r := range s.list() {
		if r.spec.ID == id {
			list = append(list, r.status())
		}
	}
	return list
}

// All returns all exports, sorted by stream and identifier.
func (s *Supervisor) All() []Status {
	var list []Status
	for _, r := range s.list() {
		list = append(list, r.status())
	}
	return list
}

// Wake cuts the pauses of all exports short: the network is back, say.
func (s *Supervisor) Wake() {
	for _, r := range s.list() {
		r.wake()
	}
}

func (s *Supervisor) wakeKind(kind string) {
	for _, r := range s.list() {
		if r.spec.Kind == kind {
			r.wake()
		}
	}
}
