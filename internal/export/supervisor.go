package export

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
)

// Supervisor runs the exports of a node.
type Supervisor struct {
	cfg   Config
	log   Log
	clock clock.Clock
	slog  *slog.Logger
	share *shared

	mu      sync.Mutex // guards runners and running
	runners []*Runner
	running bool
}

// shared is what the runners of a node share.
type shared struct {
	encodes, uploads semaphore
	spoolBytes       func() int64
	wakeAll          func()
}

// semaphore bounds how many do something at once.
type semaphore chan struct{}

func (s semaphore) acquire(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s semaphore) release() { <-s }

// New returns a supervisor. spoolBytes tells how much the spool of the node holds; nil means nothing.
func New(cfg Config, log Log, c clock.Clock, spoolBytes func() int64, sl *slog.Logger) *Supervisor {
	cfg = cfg.withDefaults()
	if spoolBytes == nil {
		spoolBytes = func() int64 { return 0 }
	}
	s := &Supervisor{cfg: cfg, log: log, clock: c, slog: sl}
	s.share = &shared{
		encodes:    make(semaphore, cfg.Encodes),
		uploads:    make(semaphore, cfg.Uploads),
		spoolBytes: spoolBytes,
		wakeAll:    s.Wake,
	}
	return s
}

// Add adds an export before Run: Conflict when the stream has one already, Invalid when the spec cannot be.
func (s *Supervisor) Add(spec Spec) (*Runner, error) {
	if spec.Period <= 0 {
		return nil, record.Errorf(record.Invalid, "export of %s: period %v", spec.Name, spec.Period).
			WithHint("set a period of at least one second, for example 60")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running {
		return nil, record.Errorf(record.Conflict, "export of %s: the supervisor runs already", spec.Name)
	}
	for _, r := range s.runners {
		if r.spec.Stream == spec.Stream {
			return nil, record.Errorf(record.Conflict, "stream %s is exported to table %s already", spec.Name, r.spec.Table)
		}
	}
	r := newRunner(spec, s.cfg, s.log, s.clock, s.slog, s.share)
	s.runners = append(s.runners, r)
	return r, nil
}

// Run recovers all exports, calls ready, and runs them until ctx ends. It fails, before ready, when the state of one is
// of a newer version. One that cannot be recovered for another reason stays out, degraded, and the others run: its
// stream keeps what comes.
func (s *Supervisor) Run(ctx context.Context, ready func()) error {
	s.mu.Lock()
	s.running = true
	runners := s.runners
	s.mu.Unlock()
	var errs []error
	var sound []*Runner
	for _, r := range runners {
		switch err := r.recover(ctx); {
		case err == nil:
			sound = append(sound, r)
		case ctx.Err() != nil || record.KindOf(err) == record.Invalid:
			errs = append(errs, err)
		default:
			r.end(err)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	ready()
	var wg sync.WaitGroup
	for _, r := range sound {
		wg.Go(func() { r.run(ctx) })
	}
	wg.Wait()
	<-ctx.Done() // a deleted stream ends its runner, not the part
	return ctx.Err()
}

func (s *Supervisor) all() []*Runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runners
}

// Wake lets every export look again at once, also out of the pause after a failure.
func (s *Supervisor) Wake() {
	for _, r := range s.all() {
		r.wake()
	}
}

// Flush flushes every export and returns when all is committed, or ctx ends.
func (s *Supervisor) Flush(ctx context.Context) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // guards errs
		errs []error
	)
	for _, r := range s.all() {
		wg.Go(func() {
			if err := r.Flush(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Status tells where every export stands, in the order in which they were added.
func (s *Supervisor) Status() []Status {
	var all []Status
	for _, r := range s.all() {
		all = append(all, r.Status())
	}
	return all
}

// Stats sums the runners' counters up; Lag is the longest.
func (s *Supervisor) Stats() Stats {
	var sum Stats
	for _, st := range s.Status() {
		sum.add(st.Stats)
	}
	sum.SpoolBytes = s.share.spoolBytes()
	return sum
}
