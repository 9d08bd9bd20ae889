package export

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// cutLoop plans and encodes steps.
func (r *Runner) cutLoop(ctx context.Context) error {
	if r.unregistered() {
		if err := r.insist(ctx, &r.cutting, r.cutter.kick, func() error { return r.register(ctx) }); err != nil {
			return err
		}
	}
	start := r.clock.Read()
	last := cutMark{wall: r.lastCut(start.Wall), mono: start.Mono}
	for {
		step, ok := r.plannedStep()
		if !ok {
			reading := r.clock.Read()
			var v view
			err := r.insist(ctx, &r.cutting, r.cutter.kick, func() (err error) {
				v, err = r.look(ctx, reading, start, last)
				return err
			})
			if err != nil {
				return err
			}
			d := decide(v, r.cfg, r.spec.Period)
			r.explain(v)
			if !d.cut {
				if err := r.rest(ctx, reading); err != nil {
					return err
				}
				continue
			}
			if step, err = r.plan(ctx, d, v, reading); err != nil {
				return err
			}
			last = cutMark{wall: d.at, mono: reading.Mono}
		}
		if err := r.encodeStep(ctx, step); err != nil {
			return err
		}
	}
}

func (r *Runner) unregistered() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.registered < r.pos.encoded
}

// cutMark is when the last cut was, on both clocks.
type cutMark struct{ wall, mono int64 }

func (r *Runner) lastCut(now int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pos.lastCut == 0 {
		return now
	}
	return r.pos.lastCut
}

// rest waits until the next instant of the grid, at most Config.Poll.
func (r *Runner) rest(ctx context.Context, now clock.Reading) error {
	timer := time.NewTimer(min(untilGrid(now.Wall, r.spec.Period), r.cfg.Poll))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	case <-r.cutter.work:
	case <-r.cutter.kick:
	}
	return nil
}

func (r *Runner) plannedStep() (Step, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.pos.steps); n > 0 && r.pos.steps[n-1].State == Planned {
		return r.pos.steps[n-1], true
	}
	return Step{}, false
}

// look gathers what the decision needs.
func (r *Runner) look(ctx context.Context, now, start clock.Reading, last cutMark) (view, error) {
	b, err := r.log.Bounds(r.spec.Stream)
	if err != nil {
		return view{}, err
	}
	r.mu.Lock()
	from, pending, oldest := r.pos.planned(), len(r.pos.steps), r.oldest
	flush := false
	for _, w := range r.waiters {
		flush = flush || w.to > from
	}
	r.mu.Unlock()
	records, bytes := backlog(b, from)
	if records > 0 && oldest == 0 {
		if err := r.peek(ctx, from); err != nil {
			return view{}, err
		}
	}
	return view{
		wall: now.Wall, mono: now.Mono, trusted: now.Trusted, waited: time.Duration(now.Mono - start.Mono),
		lastCut: last.wall, lastMono: last.mono,
		records: records, bytes: bytes, pending: pending, spool: r.share.spoolBytes(), flush: flush,
	}, nil
}

// backlog is how much from on is readable; bytes is an estimate by the stream's mean size of a record.
func backlog(b stream.Bounds, from record.Offset) (records uint64, bytes int64) {
	if b.Readable <= from {
		return 0, 0
	}
	records = uint64(b.Readable - from)
	if kept := uint64(b.Next - b.First); kept > 0 {
		bytes = int64(float64(b.Bytes) * float64(min(records, kept)) / float64(kept))
	}
	return records, bytes
}

// peek reads the time of the record at the head of the backlog, for Status.
func (r *Runner) peek(ctx context.Context, from record.Offset) error {
	var c stream.Chunk
	if err := r.log.Read(ctx, r.spec.Stream, from, 1, &c); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(c.Records) > 0 {
		r.oldest = c.Records[0].Time
	}
	return nil
}

// explain keeps, for Status, why a backlog is not cut.
func (r *Runner) explain(v view) {
	reason := ""
	switch {
	case v.records == 0:
	case v.pending >= maxPending:
		reason = fmt.Sprintf("%d steps wait for the store: the log keeps what comes", v.pending)
	case r.cfg.MaxSpoolBytes > 0 && v.spool > r.cfg.MaxSpoolBytes:
		reason = "the spool is full: the log keeps what comes"
	case !v.trusted && v.waited < r.cfg.ClockWait:
		reason = "the clock is not set: waiting for it"
	}
	r.mu.Lock()
	changed := r.reason != reason
	r.reason = reason
	r.mu.Unlock()
	if changed && reason != "" {
		r.slog.Warn("export waits", "reason", reason)
	}
}

// plan makes the next step durable.
func (r *Runner) plan(ctx context.Context, d decision, v view, now clock.Reading) (Step, error) {
	r.mu.Lock()
	from, oldest := r.pos.planned(), r.oldest
	r.mu.Unlock()
	s := Step{
		State: Planned, From: from, To: from + record.Offset(v.records), Cut: time.Unix(0, d.at).UTC(),
		Revision: r.spec.Revision, Untrusted: !d.trusted, Oldest: oldest, LogBytes: v.bytes,
	}
	if v.bytes > r.cfg.MaxStepBytes {
		err := r.insist(ctx, &r.cutting, r.cutter.kick, func() (err error) {
			s.To, s.LogBytes, err = r.measure(ctx, from, from+record.Offset(v.records), r.cfg.MaxStepBytes)
			return err
		})
		if err != nil {
			return Step{}, err
		}
	}
	err := r.insist(ctx, &r.cutting, r.cutter.kick, func() error {
		return r.update(ctx, func(p *position) {
			if a, ok := clock.AnchorOf(now); ok {
				p.remember(a)
			}
			p.lastCut = d.at
			p.steps = append(p.steps, s)
		})
	})
	r.mu.Lock()
	r.oldest = 0
	r.mu.Unlock()
	return s, err
}

// measure finds the offset at which a step of about limit bytes ends.
func (r *Runner) measure(ctx context.Context, from, to record.Offset, limit int64) (record.Offset, int64, error) {
	var c stream.Chunk
	bytes := int64(0)
	for at := from; at < to; at = c.Next {
		if err := r.log.Read(ctx, r.spec.Stream, at, readBytes, &c); err != nil {
			return 0, 0, err
		}
		if c.Next <= at {
			break
		}
		for i := range c.Records {
			bytes += int64(c.Records[i].Size())
		}
		if bytes >= limit {
			return min(c.Next, to), bytes, nil
		}
	}
	return to, bytes, nil
}

// encodeStep takes a planned step to ENCODED. It returns early only when ctx ends or the stream is gone.
func (r *Runner) encodeStep(ctx context.Context, s Step) error {
	var sum Summary
	var notes Notes
	err := r.insist(ctx, &r.cutting, r.cutter.kick, func() error {
		if s.Revision != r.spec.Revision { // planned before the configuration changed, and nothing of it is visible
			err := r.update(ctx, func(p *position) { p.steps[len(p.steps)-1].Revision = r.spec.Revision })
			if err != nil {
				return err
			}
			s.Revision = r.spec.Revision
		}
		if err := r.share.encodes.acquire(ctx); err != nil {
			return err
		}
		defer r.share.encodes.release()
		var err error
		sum, notes, err = r.encode(ctx, s)
		return err
	})
	if err != nil {
		return err
	}
	// From here on the batch is never made again: when storing the cursor fails, the state may be stored all the same,
	// with the checksum of these very bytes.
	s.State, s.Detail, s.Parser = Encoded, sum.Detail, nil
	err = r.insist(ctx, &r.cutting, r.cutter.kick, func() error {
		return r.update(ctx, func(p *position) {
			p.steps[len(p.steps)-1] = s
			p.encoded = s.To
		})
	})
	if err != nil {
		return err
	}
	if err := r.insist(ctx, &r.cutting, r.cutter.kick, func() error { return r.spec.Sink.Reached(ctx, s) }); err != nil {
		return err
	}
	r.note(s, sum, notes)
	ring(r.deliverer.work)
	return nil
}

// encode reads the step's range into a batch.
func (r *Runner) encode(ctx context.Context, s Step) (_ Summary, notes Notes, err error) {
	notes.Untrusted = s.Untrusted
	stamp := newRestamper(r.anchors(), &notes, func(boot uint64, after record.Offset) (int64, bool, error) {
		return findAnchor(ctx, r.log, r.spec.Stream, boot, after)
	})
	batch, err := r.spec.Sink.Begin(s, stamp.time)
	if err != nil {
		return Summary{}, notes, fmt.Errorf("begin batch: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, batch.Abort())
		}
	}()
	var c stream.Chunk
	for at := s.From; at < s.To; at = c.Next {
		if err := r.log.Read(ctx, r.spec.Stream, at, readBytes, &c); err != nil {
			return Summary{}, notes, fmt.Errorf("read stream: %w", err)
		}
		clip(&c, s.To)
		for _, g := range c.Gaps {
			notes.gap(g)
		}
		if c.Next <= at {
			return Summary{}, notes, record.Errorf(record.Internal, "read stream at %d: no progress", at)
		}
		if err := batch.Add(&c); err != nil {
			return Summary{}, notes, fmt.Errorf("encode: %w", err)
		}
		if stamp.err != nil {
			return Summary{}, notes, fmt.Errorf("look for the time of a boot: %w", stamp.err)
		}
	}
	sum, err := batch.Finish(notes)
	if err != nil {
		return Summary{}, notes, fmt.Errorf("finish batch: %w", err)
	}
	if len(sum.Detail) > MaxDetail {
		return Summary{}, notes, record.Errorf(record.Internal, "sink keeps %d bytes in a step: at most %d", len(sum.Detail), MaxDetail)
	}
	return sum, notes, nil
}

// anchors are those remembered, and the current boot's as of now.
func (r *Runner) anchors() []clock.Anchor {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pos.clone()
	if a, ok := clock.AnchorOf(r.clock.Read()); ok {
		p.remember(a)
	}
	return p.anchors
}

// clip cuts a chunk off at to.
func clip(c *stream.Chunk, to record.Offset) {
	c.Next = min(c.Next, to)
	if c.First >= to {
		c.Records, c.Origins = c.Records[:0], c.Origins[:0]
	} else if n := int(to - c.First); n < len(c.Records) {
		c.Records = c.Records[:n]
	}
	for len(c.Origins) > 0 && c.Origins[len(c.Origins)-1].First >= to {
		c.Origins = c.Origins[:len(c.Origins)-1]
	}
	kept := c.Gaps[:0]
	for _, g := range c.Gaps {
		if g.To = min(g.To, to); g.From < g.To {
			kept = append(kept, g)
		}
	}
	c.Gaps = kept
}

// note counts and reports a step that has been encoded.
func (r *Runner) note(s Step, sum Summary, n Notes) {
	r.mu.Lock()
	r.registered = s.To
	t := &r.totals
	t.Steps++
	t.Records += uint64(s.To - s.From)
	t.Files += uint64(sum.Files)
	t.Rows += uint64(sum.Rows)
	t.Rejected += uint64(sum.Rejected)
	t.Bytes += uint64(sum.Bytes)
	t.DroppedRecords += n.Dropped
	t.DamagedRecords += n.Damaged
	t.Restamped += uint64(n.Restamped)
	t.UnknownTime += uint64(n.Unknown)
	r.closed = Last{At: time.Now(), Key: sum.Key, Rows: sum.Rows, Bytes: sum.Bytes}
	r.mu.Unlock()
	r.slog.Info("period closed", "rows", sum.Rows, "bytes", sum.Bytes, "files", sum.Files, "key", sum.Key,
		"from", uint64(s.From), "to", uint64(s.To))
	if sum.Rejected > 0 {
		r.slog.Warn("records rejected", "records", sum.Rejected, "first_reason", sum.Reject)
	}
	if n.Dropped+n.Damaged > 0 {
		r.slog.Error("records missing from the log", "dropped", n.Dropped, "damaged", n.Damaged,
			"from", uint64(s.From), "to", uint64(s.To))
	}
	if n.Unknown > 0 {
		r.slog.Warn("records keep the time of a clock that was never set", "records", n.Unknown)
	}
}
