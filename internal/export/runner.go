package export

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// CursorName is the cursor of the export to the lake.
const CursorName = stream.ExportCursor + "lake"

// readBytes is how much of the log is read at once.
const readBytes = 1 << 20

// Spec is one export.
type Spec struct {
	Stream   record.StreamID
	Name     record.StreamName
	Table    string        // for people: what Status and the log lines call it
	Period   time.Duration // of the grid
	Revision uint64        // of the configuration that Sink was made from
	Sink     Sink
}

// Runner exports one stream. It is made by Supervisor.Add.
type Runner struct {
	spec  Spec
	cfg   Config
	log   Log
	clock clock.Clock
	slog  *slog.Logger
	share *shared

	cutter    bells
	deliverer bells

	saving sync.Mutex // held while the cursor is stored: one writer of pos at a time

	mu         sync.Mutex // guards all below
	loaded     bool       // pos is what the cursor says
	pos        position
	registered record.Offset // steps below it are known to the sink's catalog
	oldest     int64         // record time at the head of the backlog; 0 when not known
	waiters    []waiter
	totals     Stats
	closed     Last
	uploaded   Last
	cutting    trouble
	delivering trouble
	reason     string // why nothing is cut although there is a backlog
	stopped    bool   // run has returned
	ended      error  // why it did, when nobody asked it to
}

// bells wake a loop. Both have capacity 1: a bell that rings already says enough.
type bells struct {
	work chan struct{} // there may be something to do; does not cut a pause short
	kick chan struct{} // also out of the pause after a failure
}

func newBells() bells { return bells{work: make(chan struct{}, 1), kick: make(chan struct{}, 1)} }

func ring(bell chan<- struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// waiter is a Flush that waits until everything below to is committed.
type waiter struct {
	to   record.Offset
	done chan struct{}
}

func newRunner(spec Spec, cfg Config, log Log, c clock.Clock, sl *slog.Logger, share *shared) *Runner {
	return &Runner{
		spec: spec, cfg: cfg, log: log, clock: c, share: share,
		slog:      sl.With("stream", string(spec.Name), "table", spec.Table),
		cutter:    newBells(),
		deliverer: newBells(),
	}
}

// recover loads the cursor and lets the sink clean up and register what is encoded.
func (r *Runner) recover(ctx context.Context) error {
	pos, err := r.load()
	if err != nil {
		return fmt.Errorf("load export of stream %s: %w", r.spec.Name, err)
	}
	if err := r.spec.Sink.Recover(ctx, pos.steps); err != nil {
		return fmt.Errorf("recover export of stream %s: %w", r.spec.Name, err)
	}
	if n := len(pos.steps); n > 0 {
		r.slog.Info("export resumes", "steps", n, "from", uint64(pos.steps[0].From), "state", pos.steps[0].State.String())
	}
	r.mu.Lock()
	r.pos, r.loaded = pos, true
	r.mu.Unlock()
	if err := r.register(ctx); err != nil { // a full disk, for instance, must not stop the start: cutLoop insists
		r.slog.Warn("export steps not registered in the catalog yet", "error", err)
	}
	return nil
}

// register tells the sink again, in order, which steps are ENCODED. Nothing is delivered before it has been.
func (r *Runner) register(ctx context.Context) error {
	r.mu.Lock()
	steps, upTo := r.pos.clone().steps, r.pos.encoded
	r.mu.Unlock()
	for _, s := range steps {
		if s.State == Planned {
			continue
		}
		s.State = Encoded
		if err := r.spec.Sink.Reached(ctx, s); err != nil {
			return fmt.Errorf("register step: %w", err)
		}
	}
	r.mu.Lock()
	r.registered = max(r.registered, upTo)
	r.mu.Unlock()
	ring(r.deliverer.work)
	return nil
}

func (r *Runner) load() (position, error) {
	cur, err := r.log.LoadCursor(r.spec.Stream, CursorName)
	if record.KindOf(err) == record.NotFound && err != nil {
		// The export is new: what the stream dropped before is no loss of ours.
		b, err := r.log.Bounds(r.spec.Stream)
		return position{encoded: b.First}, err
	}
	if err != nil {
		return position{}, err
	}
	return decodeState(cur)
}

// run exports until ctx ends, or the stream is gone.
func (r *Runner) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	loop := func(do func(context.Context) error) {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			r.end(err)
		}
		cancel()
	}
	wg.Go(func() { loop(r.cutLoop) })
	wg.Go(func() { loop(r.deliverLoop) })
	wg.Wait()
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.release()
}

// end notes why the export is over although nobody stopped it.
func (r *Runner) end(err error) {
	r.mu.Lock()
	r.ended, r.stopped = err, true
	r.mu.Unlock()
	r.slog.Error("export ended", "error", err, "hint", record.HintOf(err))
	r.release()
}

// update changes the position durably. When it fails, what is stored is either the old or the new position.
func (r *Runner) update(ctx context.Context, change func(p *position)) error {
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	p := r.pos.clone()
	r.mu.Unlock()
	change(&p)
	cur, err := encodeState(&p)
	if err != nil {
		return err
	}
	if err := r.log.StoreCursor(ctx, r.spec.Stream, CursorName, cur); err != nil {
		return fmt.Errorf("store export cursor: %w", err)
	}
	r.mu.Lock()
	r.pos = p
	r.mu.Unlock()
	return nil
}

// insist repeats do until it succeeds, ctx ends, or the stream is gone. It is for the steps that only a failing disk
// stops, and that must not be skipped.
func (r *Runner) insist(ctx context.Context, t *trouble, kick <-chan struct{}, do func() error) error {
	pause := backoff{low: r.cfg.RetryMin, high: r.cfg.RetryMax}
	for {
		err := do()
		if err == nil {
			r.clear(t)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if r.gone() {
			return err
		}
		if err := r.hold(ctx, t, kick, pause.next(), err); err != nil {
			return err
		}
	}
}

// gone reports whether the stream was deleted: then there is nothing left to export.
func (r *Runner) gone() bool {
	_, err := r.log.Bounds(r.spec.Stream)
	return err != nil && record.KindOf(err) == record.NotFound
}

// hold records a failure and pauses, until the time is over or somebody wakes the loop.
func (r *Runner) hold(ctx context.Context, t *trouble, kick <-chan struct{}, d time.Duration, cause error) error {
	select { // a kick from before the failure has had its try
	case <-kick:
	default:
	}
	next := time.Now().Add(d)
	r.mu.Lock()
	loud := t.add(cause, next)
	r.totals.Retries++
	n := t.inRow
	r.mu.Unlock()
	if loud {
		r.slog.Warn("export held up, will try again", "error", cause, "hint", record.HintOf(cause), "kind", record.KindOf(cause).String(),
			"in_a_row", n, "retry_in", d.Round(time.Millisecond).String())
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	case <-kick:
	}
	return nil
}

func (r *Runner) clear(t *trouble) {
	r.mu.Lock()
	was := t.inRow
	*t = trouble{}
	r.mu.Unlock()
	if was > 0 {
		r.slog.Info("export goes on", "failures", was)
	}
}

// wake lets both loops look again at once, also out of a pause.
func (r *Runner) wake() {
	ring(r.cutter.kick)
	ring(r.deliverer.kick)
}

// Flush cuts what was acknowledged before the call and returns when it is committed, or ctx ends.
func (r *Runner) Flush(ctx context.Context) error {
	to, err := r.acknowledged(ctx)
	if err != nil {
		return fmt.Errorf("flush stream %s: %w", r.spec.Name, err)
	}
	w := waiter{to: to, done: make(chan struct{})}
	r.mu.Lock()
	r.waiters = append(r.waiters, w)
	r.mu.Unlock()
	r.release()
	r.wake()
	select {
	case <-w.done:
	case <-ctx.Done():
		r.mu.Lock()
		r.waiters = slices.DeleteFunc(r.waiters, func(o waiter) bool { return o.done == w.done })
		r.mu.Unlock()
		return record.Errorf(record.Unavailable, "flush stream %s: not all of it is in the lake yet: %w", r.spec.Name, ctx.Err()).
			WithHint("it goes on by itself; `leat health` shows what holds it up")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.loaded && w.to <= r.committed():
		return nil
	case r.ended != nil:
		return r.ended
	}
	return record.Errorf(record.Unavailable, "flush stream %s: the export was stopped", r.spec.Name).
		WithHint("nothing is lost: it goes on with the next start")
}

// acknowledged is the stream's next offset, once readers see everything below it: a stream of durability os shows its
// newest records only with the next sync.
func (r *Runner) acknowledged(ctx context.Context) (record.Offset, error) {
	b, err := r.log.Bounds(r.spec.Stream)
	if err != nil || b.Readable == b.Next {
		return b.Next, err
	}
	var newest stream.Chunk
	return b.Next, r.log.Read(ctx, r.spec.Stream, b.Next-1, 1, &newest)
}

// release lets go the waiters whose records are committed, and all of them once the runner has stopped.
func (r *Runner) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	done := r.committed()
	r.waiters = slices.DeleteFunc(r.waiters, func(w waiter) bool {
		if !r.stopped && (!r.loaded || w.to > done) {
			return false
		}
		close(w.done)
		return true
	})
}

// committed is the offset below which everything is in the lake. r.mu is held.
func (r *Runner) committed() record.Offset {
	if len(r.pos.steps) > 0 {
		return min(r.pos.steps[0].From, r.pos.encoded)
	}
	return r.pos.encoded
}
