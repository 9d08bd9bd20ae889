package export

import (
	"context"
	"slices"
	"time"
)

// deliverLoop brings encoded steps out, one after the other, in order.
func (r *Runner) deliverLoop(ctx context.Context) error {
	pause := backoff{low: r.cfg.RetryMin, high: r.cfg.RetryMax}
	for {
		s, ok := r.nextDelivery()
		if !ok {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-r.deliverer.work:
			case <-r.deliverer.kick:
			}
			continue
		}
		if s.State == Encoded {
			sum, err := r.deliver(ctx, s)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				if r.gone() {
					return err
				}
				if err := r.hold(ctx, &r.delivering, r.deliverer.kick, pause.next(), err); err != nil {
					return err
				}
				continue
			}
			r.delivered(sum, pause.interval > 0)
			pause.reset()
		}
		if err := r.commit(ctx, s); err != nil {
			return err
		}
	}
}

// nextDelivery is the first step, when it is ready to go out.
func (r *Runner) nextDelivery() (Step, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pos.steps) == 0 {
		return Step{}, false
	}
	s := r.pos.steps[0]
	return s, s.State != Planned && s.To <= r.registered
}

func (r *Runner) deliver(ctx context.Context, s Step) (Summary, error) {
	if err := r.share.uploads.acquire(ctx); err != nil {
		return Summary{}, err
	}
	defer r.share.uploads.release()
	return r.spec.Sink.Deliver(ctx, s)
}

func (r *Runner) delivered(sum Summary, wasFailing bool) {
	r.clear(&r.delivering)
	r.mu.Lock()
	r.totals.UploadedBytes += uint64(sum.Bytes)
	r.totals.UploadedFiles += uint64(sum.Files)
	r.totals.DamagedFiles += uint64(sum.Damaged)
	r.totals.LostRows += uint64(sum.Lost)
	r.uploaded = Last{At: time.Now(), Key: sum.Key, Rows: sum.Rows, Bytes: sum.Bytes}
	r.mu.Unlock()
	if wasFailing { // the store is back: the other streams need not sit out their pauses
		r.share.wakeAll()
	}
}

// commit takes a step that is in the store to COMMITTED.
func (r *Runner) commit(ctx context.Context, s Step) error {
	steps := []func() error{
		func() error { return r.spec.Sink.Reached(ctx, s) },
		func() error {
			return r.update(ctx, func(p *position) { p.steps = slices.Delete(p.steps, 0, 1) })
		},
	}
	if s.State == Encoded {
		s.State = Uploaded
		steps = slices.Insert(steps, 0, func() error {
			return r.update(ctx, func(p *position) { p.steps[0].State = Uploaded })
		})
	}
	for _, step := range steps {
		if err := r.insist(ctx, &r.delivering, r.deliverer.kick, step); err != nil {
			return err
		}
	}
	s.State = Committed
	if err := r.spec.Sink.Reached(ctx, s); err != nil {
		r.slog.Warn("spool not cleaned, the next start will", "error", err)
	}
	r.release()
	ring(r.cutter.work)
	return nil
}
