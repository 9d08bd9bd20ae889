package export_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/export"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/memory"
)

// goClock reads time.Now, which synctest fakes.
type goClock struct {
	mu        sync.Mutex
	untrusted bool
	shift     time.Duration // of the wall clock
	boot      uint64
}

func (c *goClock) Read() clock.Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	return clock.Reading{Wall: now.Add(c.shift).UnixNano(), Mono: now.UnixNano(), Boot: c.boot + 1, Trusted: !c.untrusted}
}

func (c *goClock) trust() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.untrusted = false
}

// errCrashed is what everything says after a crash: the process is no more.
var errCrashed = errors.New("crashed")

// world is what survives a crash: the log, a spool and a store, kept in memory. It can crash before and after any
// call: the process that made the call then gets errCrashed for ever.
type world struct {
	t      *testing.T
	engine *memory.Engine
	id     record.StreamID
	clock  *goClock

	mu      sync.Mutex
	spool   map[string][]string // step → payloads, durable
	store   map[string][]string // key → payloads
	keys    []string            // of store, in order of arrival
	known   map[string]bool     // the catalog: keys registered
	stored  map[string]bool     // the catalog: keys marked as stored
	storeIs error               // what the store answers, nil for yes
	puts    []time.Time         // attempts
	cuts    map[string]time.Time
	notes   []export.Notes
}

func newWorld(t *testing.T, p stream.Policy) *world {
	t.Helper()
	c := &goClock{}
	w := &world{
		t: t, engine: memory.Open(memory.Options{Clock: c}), clock: c,
		spool: map[string][]string{}, store: map[string][]string{}, known: map[string]bool{}, stored: map[string]bool{},
		cuts: map[string]time.Time{},
	}
	t.Cleanup(func() { w.engine.Close() })
	info, err := stream.Ensure(t.Context(), w.engine, "ingest/test", p)
	if err != nil {
		t.Fatal(err)
	}
	w.id = info.ID
	return w
}

func (w *world) append(payloads ...string) {
	w.t.Helper()
	var rs []record.Record
	for _, p := range payloads {
		rs = append(rs, record.Record{Time: w.clock.Read().Wall, Key: []byte("k"), Payload: []byte(p)})
	}
	if _, err := stream.AppendWait(w.t.Context(), w.engine, w.id, rs...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) setStore(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.storeIs = err
}

// inStore returns all payloads in the order in which their objects came.
func (w *world) inStore() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, k := range w.keys {
		all = append(all, w.store[k]...)
	}
	return all
}

func (w *world) objects() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.keys)
}

// process is one life of the program.
type process struct {
	*world
	name   string
	sup    *export.Supervisor
	runner *export.Runner
	cancel context.CancelFunc
	ended  chan error

	mu      sync.Mutex
	calls   int
	crashAt int // number of the call that crashes it; 0 never
	dead    bool
}

// start runs a supervisor over the world, which crashes at the given point.
func (w *world) start(cfg export.Config, spec export.Spec, crashAt int) *process {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	p := &process{world: w, cancel: cancel, ended: make(chan error, 1), crashAt: crashAt}
	p.sup = export.New(cfg, p, w.clock, nil, slog.New(slog.DiscardHandler))
	spec.Stream, spec.Name, spec.Sink = w.id, "ingest/test", p.sink()
	var err error
	if p.runner, err = p.sup.Add(spec); err != nil {
		w.t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() { p.ended <- p.sup.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-p.ended:
		p.ended <- err
	}
	return p
}

func (p *process) stop() {
	p.cancel()
	<-p.ended
}

func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// do runs fn unless the process is dead or dies now: odd points before fn, even ones after it, so that its effect is
// there and its caller never learns.
func (p *process) do(fn func() error) error {
	p.mu.Lock()
	p.calls++
	before := p.crashAt == p.calls
	p.calls++
	after := p.crashAt == p.calls
	p.dead = p.dead || before
	dead := p.dead
	p.mu.Unlock()
	if dead {
		p.cancel()
		return errCrashed
	}
	err := fn()
	if after {
		p.mu.Lock()
		p.dead = true
		p.mu.Unlock()
		p.cancel()
		return errCrashed
	}
	return err
}

func (p *process) Read(ctx context.Context, id record.StreamID, from record.Offset, n int, c *stream.Chunk) error {
	return p.engine.Read(ctx, id, from, n, c)
}

func (p *process) Bounds(id record.StreamID) (stream.Bounds, error) { return p.engine.Bounds(id) }

func (p *process) LoadCursor(id record.StreamID, name string) (c stream.Cursor, err error) {
	return p.engine.LoadCursor(id, name)
}

func (p *process) StoreCursor(ctx context.Context, id record.StreamID, name string, c stream.Cursor) error {
	return p.do(func() error { return p.engine.StoreCursor(context.WithoutCancel(ctx), id, name, c) })
}

func (p *process) sink() export.Sink { return &fakeSink{p} }

// fakeSink keeps batches in the world.
type fakeSink struct{ p *process }

func stepName(s export.Step) string { return fmt.Sprintf("%d-%d", s.From, s.To) }

func (f *fakeSink) Recover(_ context.Context, steps []export.Step) error {
	w := f.p.world
	return f.p.do(func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		keep := map[string]bool{}
		for _, s := range steps {
			keep[stepName(s)] = s.State != export.Planned
		}
		maps.DeleteFunc(w.spool, func(name string, _ []string) bool { return !keep[name] })
		return nil
	})
}

func (f *fakeSink) Begin(s export.Step, restamp export.Restamp) (export.Batch, error) {
	return &fakeBatch{sink: f, step: s, restamp: restamp}, f.p.do(func() error { return nil })
}

func (f *fakeSink) Reached(_ context.Context, s export.Step) error {
	w := f.p.world
	return f.p.do(func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		switch s.State {
		case export.Encoded:
			w.known[stepName(s)] = true
		case export.Uploaded:
			if _, ok := w.store[stepName(s)]; !ok {
				w.t.Errorf("step %s marked as stored, and is not", stepName(s))
			}
			if !w.known[stepName(s)] {
				w.t.Errorf("step %s marked as stored before it was registered", stepName(s))
			}
			w.stored[stepName(s)] = true
		case export.Committed:
			delete(w.spool, stepName(s))
		}
		return nil
	})
}

func (f *fakeSink) Deliver(_ context.Context, s export.Step) (export.Summary, error) {
	w := f.p.world
	err := f.p.do(func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.puts = append(w.puts, time.Now())
		if w.storeIs != nil {
			return w.storeIs
		}
		name := stepName(s)
		batch, ok := w.spool[name]
		if !ok || strconv.Itoa(len(batch)) != string(s.Detail) {
			w.t.Errorf("step %s of %d records delivered with detail %q", name, len(batch), s.Detail)
		}
		if old, ok := w.store[name]; ok && !slices.Equal(old, batch) {
			w.t.Errorf("object %s put again with other content", name)
		} else if !ok {
			w.keys = append(w.keys, name)
		}
		w.store[name] = batch
		return nil
	})
	return export.Summary{Key: stepName(s), Files: 1, Bytes: 10}, err
}

type fakeBatch struct {
	sink    *fakeSink
	step    export.Step
	restamp export.Restamp
	records []string
}

func (b *fakeBatch) Add(c *stream.Chunk) error {
	for i := range c.Records {
		at := c.First + record.Offset(i)
		if at < b.step.From || at >= b.step.To {
			b.sink.p.t.Errorf("record %d in step %s", at, stepName(b.step))
		}
		b.records = append(b.records, string(c.Records[i].Payload))
		for _, o := range c.Origins {
			if at >= o.First && at < o.First+record.Offset(o.Count) && !o.Trusted {
				b.records[len(b.records)-1] += "@" + time.Unix(0, b.restamp(o, c.Records[i].Time)).UTC().Format("15:04:05")
			}
		}
	}
	return nil
}

func (b *fakeBatch) Finish(n export.Notes) (export.Summary, error) {
	w := b.sink.p.world
	err := b.sink.p.do(func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.known[stepName(b.step)] {
			w.t.Errorf("step %s encoded again after it was ENCODED", stepName(b.step))
		}
		w.spool[stepName(b.step)] = b.records
		w.cuts[stepName(b.step)] = b.step.Cut
		w.notes = append(w.notes, n)
		return nil
	})
	return export.Summary{
		Detail: []byte(strconv.Itoa(len(b.records))), Key: stepName(b.step), Files: 1, Rows: int64(len(b.records)), Bytes: 10,
	}, err
}

func (b *fakeBatch) Abort() error {
	return b.sink.p.do(func() error {
		w := b.sink.p.world
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.spool, stepName(b.step))
		return nil
	})
}
