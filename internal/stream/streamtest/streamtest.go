// Package streamtest is the conformance suite of package stream: what every engine must do, clause by clause, as named
// subtests, and a property-based test that compares an engine with plain slices.
//
// An engine's own test calls Run with a function that makes a Harness: empty storage of its own for each subtest, and
// the ways to open it again. What an engine does beyond the contract (file formats, damage, performance) it tests
// itself.
package streamtest

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Limits are the options of an engine that the suite sets. Zero means the engine's default.
type Limits struct {
	QueueBytes int   // what may be appended and not acknowledged
	MaxBytes   int64 // of the node: memory or physical disk
}

// Cut says how much a crash leaves.
type Cut uint8

// The crashes.
const (
	Kill  Cut = iota // kill -9: the operating system keeps what it was given
	Power            // power loss: what no fdatasync covered is lost, torn or garbage
)

// Harness is one engine's storage.
type Harness struct {
	// Open opens the engine on the storage, which is empty at first. The suite opens it again only after Close or Crash.
	// The engine must look after MaxAge and exports within a second of real time.
	Open func(Limits) (stream.Engine, error)
	// Crash ends the engine at this instant without letting it tidy up and leaves the storage as the cut would. It must
	// wait for the engine's goroutines. Nil exactly when the harness is Volatile.
	Crash func(stream.Engine, Cut)
	// Volatile says that the engine loses everything on Close by design. Then the suite tests exactly that, and what
	// concerns reopening and crashes does not apply.
	Volatile bool
	// Clock is the one the engine was given.
	Clock *clock.Fake
	// Soak is how long the model test goes on; 0 is one round of it.
	Soak time.Duration
}

// Now is where a harness should set its clock: a time that package clock trusts.
func Now() clock.Reading {
	wall := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC).UnixNano()
	return clock.Reading{Wall: wall, Mono: int64(time.Hour), Boot: 7, Trusted: true}
}

// patience is how long the suite waits for what must happen soon before it calls it missing.
const patience = 30 * time.Second

// Run runs the suite. open is called once per subtest.
func Run(t *testing.T, open func(t testing.TB) Harness) {
	groups := []testGroup{
		{"append", appendCases()},
		{"read", readCases()},
		{"admin", adminCases()},
		{"policy", policyCases()},
		{"cursor", cursorCases()},
		{"load", loadCases()},
		{"close", closeCases()},
	}
	// Groups run side by side: they mostly wait for the disk.
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			runCases(t, open, g.cases)
		})
	}
	ends := testGroup{"durable", durableCases()}
	if open(t).Volatile {
		ends = testGroup{"volatile", volatileCases()}
	}
	t.Run(ends.name, func(t *testing.T) {
		t.Parallel()
		runCases(t, open, ends.cases)
	})
	t.Run("model", func(t *testing.T) {
		t.Parallel()
		checkModel(t, open)
	})
}

// testGroup is the part of the suite about one noun.
type testGroup struct {
	name  string
	cases []testCase
}

// testCase is a clause of the contract.
type testCase struct {
	name   string
	limits Limits
	run    func(w *world)
}

func runCases(t *testing.T, open func(t testing.TB) Harness, cases []testCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, open(t), c.limits)
			c.run(w)
		})
	}
}

// world is an engine under test with what the cases do to it. Its methods fail the test.
type world struct {
	reporter
	h      Harness
	limits Limits
	e      stream.Engine
	opened bool
}

// reporter is where failures go: a test, or a run of a property.
type reporter interface {
	rapid.TB
	Cleanup(func())
}

func newWorld(t reporter, h Harness, limits Limits) *world {
	w := &world{reporter: t, h: h, limits: limits}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	w.Helper()
	e, err := w.h.Open(w.limits)
	if err != nil {
		w.Fatalf("open engine: %v", err)
	}
	w.e, w.opened = e, true
}

func (w *world) close() {
	w.Helper()
	if !w.opened {
		return
	}
	w.opened = false
	if err := w.e.Close(); err != nil {
		w.Errorf("close engine: %v", err)
	}
}

func (w *world) reopen() {
	w.Helper()
	w.close()
	w.open()
}

func (w *world) crash(cut Cut) {
	w.Helper()
	w.opened = false
	w.h.Crash(w.e, cut)
	w.open()
}

// soon is a context for a call that must not block for long.
func (w *world) soon() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.Cleanup(cancel)
	return ctx
}

// eventually polls until cond holds.
func (w *world) eventually(what string, cond func() bool) {
	w.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			w.Fatalf("after %v still not: %s", patience, what)
		}
		<-time.After(time.Millisecond)
	}
}

// await receives from ch.
func await[T any](w *world, ch <-chan T, what string) T {
	w.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		w.Fatalf("no %s within %v", what, patience)
		panic("unreachable")
	}
}

func (w *world) create(name record.StreamName, p stream.Policy) record.StreamID {
	w.Helper()
	ids := w.commit(stream.Change{Create: &stream.Create{Name: name, Policy: p}})
	if len(ids) != 1 || ids[0] == 0 {
		w.Fatalf("create %s: ids %v", name, ids)
	}
	return ids[0]
}

func (w *world) commit(changes ...stream.Change) []record.StreamID {
	w.Helper()
	ids, err := w.e.Commit(w.soon(), changes...)
	if err != nil {
		w.Fatalf("commit: %v", err)
	}
	return ids
}

func (w *world) commitFails(want record.Kind, changes ...stream.Change) {
	w.Helper()
	ids, err := w.e.Commit(w.soon(), changes...)
	w.wantKind("commit", err, want)
	if len(ids) != 0 {
		w.Errorf("failed commit returned ids %v", ids)
	}
}

func (w *world) wantKind(what string, err error, want record.Kind) {
	w.Helper()
	if err == nil {
		w.Fatalf("%s: no error, want kind %v", what, want)
	}
	if got := record.KindOf(err); got != want {
		w.Fatalf("%s: error of kind %v (%v), want %v", what, got, err, want)
	}
}

func (w *world) append(id record.StreamID, records ...record.Record) record.Offset {
	w.Helper()
	first, err := stream.AppendWait(w.soon(), w.e, id, records...)
	if err != nil {
		w.Fatalf("append %d records: %v", len(records), err)
	}
	return first
}

func (w *world) appendFails(want record.Kind, id record.StreamID, records ...record.Record) {
	w.Helper()
	_, err := stream.AppendWait(w.soon(), w.e, id, records...)
	w.wantKind("append", err, want)
}

func (w *world) bounds(id record.StreamID) stream.Bounds {
	w.Helper()
	b, err := w.e.Bounds(id)
	if err != nil {
		w.Fatalf("bounds of %v: %v", id, err)
	}
	return b
}

func (w *world) wantBounds(id record.StreamID, first, next record.Offset) {
	w.Helper()
	if b := w.bounds(id); b.First != first || b.Next != next {
		w.Fatalf("bounds [%d, %d), want [%d, %d)", b.First, b.Next, first, next)
	}
}

// settle waits until all of the stream is readable, which at level OS takes a moment.
func (w *world) settle(id record.StreamID) {
	w.Helper()
	w.eventually("readable up to next", func() bool { b := w.bounds(id); return b.Readable == b.Next })
}

// read reads [from, to) in chunks of about maxBytes and returns copies of the records and the gaps met.
func (w *world) read(id record.StreamID, from, to record.Offset, maxBytes int) ([]record.Record, []stream.Gap) {
	w.Helper()
	var (
		records []record.Record
		gaps    []stream.Gap
		c       stream.Chunk
	)
	for ctx := w.soon(); from < to; {
		if err := w.e.Read(ctx, id, from, maxBytes, &c); err != nil {
			w.Fatalf("read from %d: %v", from, err)
		}
		w.checkChunk(&c, from)
		gaps = append(gaps, c.Gaps...)
		for i := range c.Records {
			records = append(records, clone(&c.Records[i]))
		}
		from = c.Next
	}
	return records, gaps
}

// checkChunk holds what every chunk promises about itself.
func (w *world) checkChunk(c *stream.Chunk, from record.Offset) {
	w.Helper()
	at := from
	for _, g := range c.Gaps {
		if g.From != at || g.To <= g.From {
			w.Fatalf("read from %d: gaps %v do not begin at %d or are empty", from, c.Gaps, at)
		}
		at = g.To
	}
	if len(c.Records) > 0 && c.First != at {
		w.Fatalf("read from %d: gaps %v, first record %d: want %d", from, c.Gaps, c.First, at)
	}
	if want := at + record.Offset(len(c.Records)); c.Next != want || c.Next == from {
		w.Fatalf("read from %d: %d records, gaps %v, next %d: want %d", from, len(c.Records), c.Gaps, c.Next, want)
	}
	if len(c.Records) == 0 {
		return
	}
	covered := c.First
	for i, o := range c.Origins {
		if i > 0 && o.First != covered || i == 0 && o.First > covered || o.Count < 1 {
			w.Fatalf("origins %+v do not cover [%d, %d)", c.Origins, c.First, c.Next)
		}
		covered = o.First + record.Offset(o.Count)
	}
	if covered < c.Next {
		w.Fatalf("origins %+v do not cover [%d, %d)", c.Origins, c.First, c.Next)
	}
}

// wantRecords reads [from, from+len(want)) and compares.
func (w *world) wantRecords(id record.StreamID, from record.Offset, want []record.Record) {
	w.Helper()
	got, gaps := w.read(id, from, from+record.Offset(len(want)), 1<<20)
	if len(gaps) > 0 {
		w.Fatalf("read from %d: unexpected gaps %v", from, gaps)
	}
	w.sameRecords(from, got, want)
}

func (w *world) sameRecords(from record.Offset, got, want []record.Record) {
	w.Helper()
	if len(got) < len(want) {
		w.Fatalf("read from %d: %d records, want %d", from, len(got), len(want))
	}
	for i := range want {
		if !equal(&got[i], &want[i]) {
			w.Fatalf("record %d is %s, want %s", from+record.Offset(i), show(&got[i]), show(&want[i]))
		}
	}
}

func show(r *record.Record) string {
	return fmt.Sprintf("{time %d key %.40q payload %.40q (%d bytes) attributes %.40q}",
		r.Time, r.Key, r.Payload, len(r.Payload), []byte(r.Attributes))
}

func equal(a, b *record.Record) bool {
	return a.Time == b.Time && string(a.Key) == string(b.Key) && string(a.Payload) == string(b.Payload) &&
		string(a.Attributes) == string(b.Attributes)
}

func clone(r *record.Record) record.Record {
	return record.Record{
		Time:       r.Time,
		Key:        slices.Clone(r.Key),
		Payload:    slices.Clone(r.Payload),
		Attributes: slices.Clone(r.Attributes),
	}
}

// text makes a record with a payload.
func text(payload string) record.Record {
	return record.Record{Time: Now().Wall, Key: []byte("plant/a"), Payload: []byte(payload)}
}

// numbered makes n records that tell who made them and which they are; each payload has at least size bytes.
func numbered(who string, from, n, size int) []record.Record {
	records := make([]record.Record, n)
	for i := range records {
		payload := fmt.Appendf(nil, "%s-%d.", who, from+i)
		for len(payload) < size {
			payload = append(payload, byte('a'+(from+i+len(payload))%26))
		}
		records[i] = record.Record{
			Time:       Now().Wall + int64(from+i)*int64(time.Millisecond),
			Key:        fmt.Appendf(nil, "key/%d", (from+i)%7),
			Payload:    payload,
			Attributes: record.Attributes(nil).Append("n", fmt.Sprint(from+i)),
		}
	}
	return records
}

// outcome is what a done function was told.
type outcome struct {
	first record.Offset
	err   error
}

// appendAsync appends and returns where the acknowledgement will arrive; a second one fails the test.
func (w *world) appendAsync(ctx context.Context, id record.StreamID, records []record.Record) <-chan outcome {
	ch := make(chan outcome, 1)
	var calls atomic.Int32
	w.e.Append(ctx, id, records, func(first record.Offset, err error) {
		if calls.Add(1) > 1 {
			w.Errorf("done called again with %d, %v", first, err)
			return
		}
		ch <- outcome{first, err}
	})
	return ch
}
