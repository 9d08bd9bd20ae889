package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// storeTimeout is how long a cursor is still stored after the export was told to stop.
const storeTimeout = 5 * time.Second

// runner is one export. Its goroutine (run) owns what has no other note.
type runner struct {
	spec Spec
	sh   *shared
	kick chan struct{} // capacity 1; cuts a pause short

	cancel context.CancelFunc // with done: set when started, owned by the Supervisor under changing
	done   chan struct{}

	held  *Batch        // settled in part, or settled and not yet stored; nil: the next one is read
	until record.Offset // messages below it are eligible: they do not wait for more

	mu        sync.Mutex // guards below; only the runner's goroutine writes, so it alone reads without
	at        progress   // as stored, but for the times and the trouble, which are newer
	oldest    stamp      // of the oldest message that is not settled, when known
	failure   note       // of the failures in a row, while at.trouble is a loss that must be shown after them
	retries   uint64
	inRow     int
	human     bool // the last failure needs a person
	nextRetry time.Time
}

// shared is what the runners of a node share.
type shared struct {
	cfg   Config
	gate  *gate
	clock clock.Clock
	slog  *slog.Logger
	wake  func(kind string) // exports of that kind out of their pauses
}

// log is made when there is something to say: an idle export keeps none.
func (r *runner) log() *slog.Logger {
	return r.sh.slog.With("stream", string(r.spec.Name), "export", r.spec.Identifier, "kind", r.spec.Kind)
}

// update changes what status shows.
func (r *runner) update(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *runner) cursor() string { return CursorPrefix + r.spec.Identifier }

// load takes the export's place from its cursor. A new export gets one at once, so that its stream keeps what comes.
func (r *runner) load(ctx context.Context) error {
	c, err := r.spec.Log.LoadCursor(r.spec.ID, r.cursor())
	if err == nil {
		r.at, err = decodeProgress(c)
	} else if record.KindOf(err) == record.NotFound {
		var b stream.Bounds
		if b, err = r.spec.Log.Bounds(r.spec.ID); err == nil {
			// What the stream dropped before is no loss of this export.
			err = r.store(ctx, progress{next: min(max(r.spec.Start, b.First), b.Readable)})
		}
	}
	if err != nil {
		return fmt.Errorf("load export %s of stream %s: %w", r.spec.Identifier, r.spec.Name, err)
	}
	return nil
}

// store makes p durable, also while the export is told to stop: what was delivered would be delivered again.
func (r *runner) store(ctx context.Context, p progress) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := r.spec.Log.StoreCursor(ctx, r.spec.ID, r.cursor(), p.encode()); err != nil {
		return fmt.Errorf("store place of export: %w", err)
	}
	r.update(func() { r.at = p })
	return nil
}

// run delivers until ctx ends or the stream is gone.
func (r *runner) run(ctx context.Context) {
	pause := backoff{low: r.sh.cfg.RetryMin, high: r.sh.cfg.RetryMax}
	for ctx.Err() == nil {
		err := r.step(ctx)
		switch {
		case err == nil:
			if r.inRow == 0 { // a gap that is passed between two failures is no success
				pause.reset()
			}
		case ctx.Err() != nil:
		case r.gone():
			r.log().Info("export ended with its stream")
			return
		default:
			r.hold(ctx, max(pause.next(), min(RetryAfter(err), r.sh.cfg.RetryMax)), err)
		}
	}
}

// gone reports whether the stream was deleted: then there is nothing left to export.
func (r *runner) gone() bool {
	_, err := r.spec.Log.Bounds(r.spec.ID)
	return err != nil && record.KindOf(err) == record.NotFound
}

// step waits for a batch and takes it through one attempt.
func (r *runner) step(ctx context.Context) error {
	if r.held == nil {
		if err := r.await(ctx); err != nil {
			return err
		}
	}
	if !r.sh.gate.try() {
		if err := r.look(ctx); err != nil { // so that its lag shows while it waits
			return err
		}
		if err := r.sh.gate.enter(ctx, r.spec.Priority); err != nil {
			return err
		}
	}
	defer r.sh.gate.leave()
	if r.held == nil {
		if err := r.read(ctx); r.held == nil {
			return err // nil after a gap
		}
	}
	return r.attempt(ctx)
}

// attempt delivers what is pending of the batch and stores how far it is settled.
func (r *runner) attempt(ctx context.Context) error {
	b := r.held
	var failed error
	if b.left > 0 {
		r.update(func() { r.at.attempt = r.sh.clock.Read().Wall })
		failed = r.spec.Target.Deliver(ctx, b)
		if failed == nil && b.left > 0 {
			failed = record.Errorf(record.Internal, "target %s left %d of %d messages pending without an error", r.spec.Kind, b.left, len(b.Messages))
		}
	}
	if err := r.settle(ctx, b); err != nil {
		return errors.Join(failed, err)
	}
	if b.left == 0 { // whatever the target said
		r.held = nil
		r.recovered()
		return nil
	}
	if b.left == len(b.Messages)-b.passed { // nothing behind the cursor is settled: no need to keep it in memory
		r.held = nil
	}
	return failed
}

// settle moves the cursor past the settled messages at the head of b.
func (r *runner) settle(ctx context.Context, b *Batch) error {
	head := b.head()
	if head == b.passed {
		return nil
	}
	p, skipped := r.advance(b, head)
	if b.left == 0 && len(skipped) == 0 && r.forgets(p.trouble) {
		p.trouble = note{}
	}
	return r.pass(ctx, b, head, p, skipped)
}

// forgets reports whether a batch that went through whole ends the trouble: a loss is shown for some time longer.
func (r *runner) forgets(n note) bool {
	return !n.loss || r.sh.clock.Read().Wall-n.at >= int64(keepLoss)
}

// advance is the place behind the first head messages of b, with what became of them counted; skipped are the indices of
// those that were not delivered.
func (r *runner) advance(b *Batch, head int) (p progress, skipped []int) {
	p = r.at
	now := r.sh.clock.Read().Wall
	for i := b.passed; i < head; i++ {
		if b.settled[i].reason != "" {
			skipped = append(skipped, i)
			continue
		}
		p.messages++
		p.bytes += uint64(len(b.Messages[i].Payload))
		p.delivered = now
	}
	if head > b.passed {
		p.target = nil
		p.next = b.Messages[head-1].Sequence + 1
	}
	if n := len(skipped); n > 0 {
		p.skipped += uint64(n)
		first := skipped[0]
		text := fmt.Sprintf("message %d skipped: %s", b.Messages[first].Sequence, b.settled[first].reason)
		if n > 1 {
			text = fmt.Sprintf("%d messages skipped, the first was %d: %s", n, b.Messages[first].Sequence, b.settled[first].reason)
		}
		p.trouble = note{at: now, loss: true, text: clip(text), hint: "they stay in the stream, but are not sent again; append corrected ones"}
	}
	return p, skipped
}

// pass stores p, the place behind the first head messages of b.
func (r *runner) pass(ctx context.Context, b *Batch, head int, p progress, skipped []int) error {
	if err := r.store(ctx, p); err != nil {
		return err
	}
	b.passed = head
	if head < len(b.Messages) {
		m := &b.Messages[head]
		r.update(func() { r.oldest = stamp{sequence: m.Sequence, known: true, time: m.Time} })
	}
	if len(skipped) > 0 {
		r.log().Warn("messages skipped: the destination can never take them", "count", len(skipped),
			"first", uint64(b.Messages[skipped[0]].Sequence), "why", b.settled[skipped[0]].reason)
	}
	return nil
}

// save is Batch.Save.
func (r *runner) save(ctx context.Context, state []byte) error {
	b := r.held
	head := b.head()
	p, skipped := r.advance(b, head)
	p.target = append([]byte(nil), state...)
	return r.pass(ctx, b, head, p, skipped)
}

// recovered notes that a batch is through.
func (r *runner) recovered() {
	failures := r.inRow
	if failures == 0 {
		return
	}
	r.update(func() { r.inRow, r.human, r.nextRetry, r.failure = 0, false, time.Time{}, note{} })
	r.log().Info("export goes on", "failures", failures)
	if failures >= degradedAfter { // an outage is over: others of the kind need not sit out their pauses
		r.sh.wake(r.spec.Kind)
	}
}

// shown is what LastError tells: the failure that lasts, before the loss that it must not hide for good.
func (r *runner) shown() note {
	if r.failure.text != "" {
		return r.failure
	}
	return r.at.trouble
}

// hold records a failure and pauses, until the time is over, somebody wakes the export, or ctx ends.
func (r *runner) hold(ctx context.Context, d time.Duration, cause error) {
	select { // a kick from before the failure has had its try
	case <-r.kick:
	default:
	}
	was := r.shown().text
	r.update(func() {
		r.retries++
		r.inRow++
		r.human = needsHuman(cause)
		r.nextRetry = time.Now().Add(d)
		n := note{at: r.sh.clock.Read().Wall, text: clip(cause.Error()), hint: clip(record.HintOf(cause))}
		if r.forgets(r.at.trouble) {
			r.at.trouble = n
		} else {
			r.failure = n
		}
	})
	if r.inRow == 1 || r.shown().text != was || r.inRow%10 == 0 {
		r.log().Warn("export held up, will try again", "error", cause, "hint", record.HintOf(cause),
			"error_kind", record.KindOf(cause).String(), "in_a_row", r.inRow, "retry_in", d.Round(time.Millisecond).String())
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-r.kick:
	}
	r.update(func() { r.nextRetry = time.Time{} })
}

// wake cuts a pause short.
func (r *runner) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}
