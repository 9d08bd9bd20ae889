package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/memory"
	"github.com/leat-io/leat/internal/testenv"
)

var errDown = record.Errorf(record.Unavailable, "no route to host").WithHint("check the network")

// goClock reads time.Now, which synctest fakes.
type goClock struct {
	mu    sync.Mutex
	shift time.Duration // of the wall clock
}

func (c *goClock) Read() clock.Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	return clock.Reading{Wall: now.Add(c.shift).UnixNano(), Mono: now.UnixNano(), Boot: 1, Trusted: true}
}

func (c *goClock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shift += d
}

// call is one call of Deliver.
type call struct {
	at      time.Time
	pending []string // payloads
	state   string
}

// fakeTarget notes what it is given.
type fakeTarget struct {
	mu      sync.Mutex
	answer  func(ctx context.Context, b *Batch) error // nil: everything is delivered
	calls   []call
	arrived []string // payloads that were answered as delivered, in order
}

func (f *fakeTarget) Deliver(ctx context.Context, b *Batch) error {
	c := call{at: time.Now(), state: string(b.State)}
	for _, i := range b.Pending() {
		c.pending = append(c.pending, string(b.Messages[i].Payload))
	}
	f.mu.Lock()
	answer := f.answer
	f.calls = append(f.calls, c)
	f.mu.Unlock()
	if answer == nil {
		answer = deliverAll
	}
	pending := b.Pending()
	err := answer(ctx, b)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range pending {
		if b.settled[i].done && b.settled[i].reason == "" {
			f.arrived = append(f.arrived, string(b.Messages[i].Payload))
		}
	}
	return err
}

func deliverAll(_ context.Context, b *Batch) error {
	for _, i := range b.Pending() {
		b.Delivered(i)
	}
	return nil
}

func down(context.Context, *Batch) error { return errDown }

func (f *fakeTarget) set(answer func(context.Context, *Batch) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *fakeTarget) got() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.arrived)
}

// seen is the calls, each as its pending payloads.
func (f *fakeTarget) seen() (list []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		list = append(list, strings.Join(c.pending, " "))
	}
	return list
}

func (f *fakeTarget) times() (list []time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		list = append(list, c.at)
	}
	return list
}

// world is a log in memory with one stream, and a supervisor over it.
type world struct {
	t      *testing.T
	engine *memory.Engine
	clock  *goClock
	id     record.StreamID
	sup    *Supervisor
	cfg    Config
	logged testenv.Output
	cancel context.CancelFunc
	ended  chan error
}

const testStream = record.StreamName("sm/test")

// bubble runs body in fake time, over a world whose supervisor runs.
func bubble(t *testing.T, policy stream.Policy, body func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, clock: &goClock{}}
		w.engine = memory.Open(memory.Options{Clock: w.clock})
		defer w.engine.Close()
		w.id = w.create(testStream, policy)
		w.start()
		defer w.stop()
		body(t, w)
	})
}

func (w *world) create(name record.StreamName, p stream.Policy) record.StreamID {
	w.t.Helper()
	info, err := stream.Ensure(w.t.Context(), w.engine, name, p)
	if err != nil {
		w.t.Fatal(err)
	}
	return info.ID
}

func (w *world) start() {
	ctx, cancel := context.WithCancel(context.Background())
	w.sup = New(Options{Config: w.cfg, Clock: w.clock, Log: slog.New(slog.NewTextHandler(&w.logged, nil))})
	w.cancel, w.ended = cancel, make(chan error, 1)
	sup, ended := w.sup, w.ended
	ready := make(chan struct{})
	go func() { ended <- sup.Run(ctx, func() { close(ready) }) }()
	<-ready
}

func (w *world) stop() {
	w.t.Helper()
	w.cancel()
	if err := <-w.ended; !errors.Is(err, context.Canceled) {
		w.t.Errorf("Run: %v", err)
	}
}

// spec is an export of the world's stream.
func (w *world) spec(target Target, change ...func(*Spec)) Spec {
	s := Spec{
		Log: w.engine, ID: w.id, Name: testStream, Stream: "test", Identifier: "out", Kind: "fake", BatchSize: 10, WaitFull: true, Target: target,
	}
	for _, c := range change {
		c(&s)
	}
	return s
}

func (w *world) set(target Target, change ...func(*Spec)) {
	w.t.Helper()
	if err := w.sup.Set(w.t.Context(), w.spec(target, change...)); err != nil {
		w.t.Fatal(err)
	}
}

// put appends messages numbered [from, to), one at a time.
func (w *world) put(from, to int) {
	w.t.Helper()
	for i := from; i < to; i++ {
		w.append(w.id, fmt.Sprint(i))
	}
}

func (w *world) append(id record.StreamID, payloads ...string) {
	w.t.Helper()
	for _, p := range payloads {
		rec := record.Record{Time: w.clock.Read().Wall, Payload: []byte(p)}
		if _, err := stream.AppendWait(w.t.Context(), w.engine, id, rec); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) status() Status {
	w.t.Helper()
	list := w.sup.Status(w.id)
	if len(list) != 1 {
		w.t.Fatalf("%d exports", len(list))
	}
	return list[0]
}

// numbers is the payloads that put makes.
func numbers(from, to int) (list []string) {
	for i := from; i < to; i++ {
		list = append(list, fmt.Sprint(i))
	}
	return list
}

// batches is the calls of exports that send [from, to) in batches of n.
func batches(from, to, n int) (list []string) {
	for ; from < to; from += n {
		list = append(list, strings.Join(numbers(from, min(to, from+n)), " "))
	}
	return list
}

func wantEqual(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}
