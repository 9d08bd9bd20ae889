package ingest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logText is a log that the test reads while others write.
type logText struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func config(rules ...ingest.Rule) ingest.Config {
	c := ingest.DefaultConfig()
	c.Rules = rules
	return c
}

func open(t testing.TB, c ingest.Config, e interface {
	stream.Appender
	stream.Admin
}, o ingest.Options,
) *ingest.Router {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	o.Appender, o.Admin = e, e
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r, err := ingest.Open(t.Context(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func engine(t testing.TB) *memory.Engine {
	t.Helper()
	e := memory.Open(memory.Options{})
	t.Cleanup(func() { e.Close() })
	return e
}

// accept waits for the batch and checks that done ran once.
func accept(ctx context.Context, r *ingest.Router, batch []ingest.Message) error {
	results := make(chan error, 2)
	r.Accept(ctx, batch, func(err error) { results <- err })
	err := <-results
	select {
	case again := <-results:
		return fmt.Errorf("done ran twice: %v, then %w", err, again)
	default:
		return err
	}
}

// contents reads a stream to its end: key, payload and attributes of each record.
func contents(t interface{ Fatal(...any) }, e stream.Engine, name record.StreamName) []string {
	info, err := e.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var c stream.Chunk
	for at := record.Offset(0); at < info.Bounds.Next; at = c.Next {
		if err := e.Read(context.Background(), info.ID, at, 1<<20, &c); err != nil {
			t.Fatal(err)
		}
		for _, rec := range c.Records {
			line := fmt.Sprintf("%d %s %s", rec.Time, rec.Key, rec.Payload)
			for name, value := range rec.Attributes.All() {
				line += fmt.Sprintf(" %s=%s", name, value)
			}
			got = append(got, line)
		}
	}
	return got
}

func TestEveryMatchingStreamGetsEachMessageOnceInOrder(t *testing.T) {
	filters := []string{"#", "a/#", "a/+", "+/b", "a/b/c", "$x/#", "b", "$share/g/a/b"}
	topics := []string{"a", "a/b", "a/b/c", "b", "c/b", "$x/y", "d/e/f"}
	sources := []string{ingest.BrokerSource, "plc", "other"}
	rapid.Check(t, func(t *rapid.T) {
		var rules []ingest.Rule
		for i := range rapid.IntRange(0, 4).Draw(t, "rules") {
			rules = append(rules, ingest.Rule{
				Name:   "r" + strconv.Itoa(i),
				Source: rapid.SampledFrom(append([]string{""}, sources...)).Draw(t, "source"),
				Topics: rapid.SliceOfN(rapid.SampledFrom(filters), 1, 3).Draw(t, "filters"),
			})
		}
		e := memory.Open(memory.Options{})
		defer e.Close()
		r, err := ingest.Open(context.Background(), config(rules...), ingest.Options{Appender: e, Admin: e, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		want := make([][]string, len(rules))
		var unmatched int64
		var clock int64
		for range rapid.IntRange(1, 8).Draw(t, "batches") {
			var batch []ingest.Message
			for range rapid.IntRange(0, 6).Draw(t, "messages") {
				clock++
				m := ingest.Message{
					Topic:    rapid.SampledFrom(topics).Draw(t, "topic"),
					Payload:  []byte(strconv.FormatInt(clock, 10)),
					Source:   rapid.SampledFrom(sources).Draw(t, "from"),
					Retain:   rapid.Bool().Draw(t, "retain"),
					Received: clock,
				}
				batch = append(batch, m)
				line := fmt.Sprintf("%d %s %s", m.Received, m.Topic, m.Payload)
				if m.Retain {
					line += " retain=1"
				}
				if m.Source != ingest.BrokerSource {
					line += " source=" + m.Source
				}
				matched := false
				for i, rule := range rules {
					if (rule.Source == "" || rule.Source == m.Source) &&
						slices.ContainsFunc(rule.Topics, func(f string) bool { return ingest.Matches(f, m.Topic) }) {
						want[i] = append(want[i], line)
						matched = true
					}
				}
				if !matched {
					unmatched++
				}
			}
			if err := accept(context.Background(), r, batch); err != nil {
				t.Fatal(err)
			}
			for i := range batch { // a door reuses its buffers
				clear(batch[i].Payload)
			}
		}
		st := r.Stats()
		if st.Unmatched != unmatched {
			t.Fatalf("unmatched %d, want %d", st.Unmatched, unmatched)
		}
		for i := range rules {
			got := contents(t, e, rules[i].Stream())
			if !slices.Equal(got, want[i]) {
				t.Fatalf("rule %+v:\ngot  %q\nwant %q", rules[i], got, want[i])
			}
			if st.Rules[i].Messages != int64(len(got)) {
				t.Fatalf("counted %d, stored %d", st.Rules[i].Messages, len(got))
			}
		}
	})
}

func TestConnectionsKeepTheirOrder(t *testing.T) {
	e := engine(t)
	r := open(t, config(ingest.Rule{Name: "all", Topics: []string{"#"}}, ingest.Rule{Name: "one", Topics: []string{"c/1"}}), e, ingest.Options{})
	const clients, batches, size = 4, 50, 7
	var clientsDone, acked sync.WaitGroup
	for c := range clients {
		clientsDone.Go(func() {
			for b := range batches {
				var batch []ingest.Message
				for i := range size {
					batch = append(batch, ingest.Message{
						Topic: fmt.Sprintf("c/%d", c), Payload: []byte(strconv.Itoa(b*size + i)), Source: ingest.BrokerSource,
					})
				}
				acked.Add(1)
				r.Accept(t.Context(), batch, func(err error) {
					if err != nil {
						t.Error(err)
					}
					acked.Done()
				})
			}
		})
	}
	clientsDone.Wait()
	acked.Wait()
	next := map[string]int{}
	for _, line := range contents(t, e, "ingest/all") {
		f := strings.Fields(line)
		if f[2] != strconv.Itoa(next[f[1]]) {
			t.Fatalf("%s got %s, want %d", f[1], f[2], next[f[1]])
		}
		next[f[1]]++
	}
	for c := range clients {
		if topic := fmt.Sprintf("c/%d", c); next[topic] != batches*size {
			t.Errorf("%s: %d messages, want %d", topic, next[topic], batches*size)
		}
	}
	if got := len(contents(t, e, "ingest/one")); got != batches*size {
		t.Errorf("rule one: %d messages, want %d", got, batches*size)
	}
}

// faulty fails appends to one stream; it acknowledges on another goroutine, as an engine does.
type faulty struct {
	*memory.Engine
	fail record.StreamID
	err  error
	wg   sync.WaitGroup
	hold chan struct{} // if not nil, acknowledgements wait until it is closed
}

func (f *faulty) Append(ctx context.Context, id record.StreamID, records []record.Record, done func(record.Offset, error)) {
	if id == f.fail {
		f.wg.Go(func() { done(0, f.err) })
		return
	}
	f.Engine.Append(ctx, id, records, func(first record.Offset, err error) {
		f.wg.Go(func() {
			if f.hold != nil {
				<-f.hold
			}
			done(first, err)
		})
	})
}

func TestOneStreamFails(t *testing.T) {
	f := &faulty{Engine: engine(t), err: record.Errorf(record.Full, "full").WithHint("free some space")}
	r := open(t, config(ingest.Rule{Name: "good", Topics: []string{"#"}}, ingest.Rule{Name: "bad", Topics: []string{"a"}}), f, ingest.Options{})
	f.fail, _ = r.Stream("bad")
	defer f.wg.Wait()
	err := accept(t.Context(), r, []ingest.Message{{Topic: "a", Payload: []byte("1")}, {Topic: "b", Payload: []byte("2")}})
	if record.KindOf(err) != record.Full || !strings.Contains(err.Error(), "ingest/bad") || record.HintOf(err) != "free some space" {
		t.Errorf("error %v, hint %q", err, record.HintOf(err))
	}
	if got := contents(t, f.Engine, "ingest/good"); len(got) != 2 {
		t.Errorf("the other stream has %q", got)
	}
	if err := accept(t.Context(), r, []ingest.Message{{Topic: "b", Payload: []byte("3")}}); err != nil {
		t.Errorf("a batch beside the full stream: %v", err)
	}
	st := r.Stats()
	if st.Rules[0].Messages != 3 || st.Rules[1].Failed != 1 || st.Rules[1].Messages != 0 {
		t.Errorf("stats %+v", st.Rules)
	}
}

func TestTooLargeIsRefusedWhole(t *testing.T) {
	e := engine(t)
	r := open(t, config(ingest.DefaultRule()), e, ingest.Options{})
	for _, m := range []ingest.Message{
		{Topic: "a", Payload: make([]byte, record.MaxPayload+1)},
		{Topic: strings.Repeat("t", record.MaxKey+1)},
	} {
		err := accept(t.Context(), r, []ingest.Message{{Topic: "a", Payload: []byte("1")}, m})
		if record.KindOf(err) != record.Invalid || record.HintOf(err) == "" {
			t.Errorf("error %v, hint %q", err, record.HintOf(err))
		}
	}
	if got := contents(t, e, "ingest/default"); len(got) != 0 {
		t.Errorf("stored %d messages of refused batches", len(got))
	}
	if st := r.Stats(); st.TooLarge != 2 || st.Failed != 4 {
		t.Errorf("stats %+v", st)
	}
}

func TestMoreThanOneAppendTakes(t *testing.T) {
	e := engine(t)
	r := open(t, config(ingest.DefaultRule()), e, ingest.Options{})
	var batch []ingest.Message
	for i := range 5 {
		p := make([]byte, 10<<20)
		p[0] = byte(i)
		batch = append(batch, ingest.Message{Topic: "a", Payload: p, Received: int64(i)})
	}
	if err := accept(t.Context(), r, batch); err != nil {
		t.Fatal(err)
	}
	id, _ := r.Stream("default")
	if b, err := e.Bounds(id); err != nil || b.Next != 5 || b.Bytes != 5*(10<<20+1) {
		t.Errorf("bounds %+v, %v", b, err)
	}
	if st := r.Stats().Rules[0]; st.Messages != 5 || st.Bytes != 5*(10<<20+1) {
		t.Errorf("stats %+v", st)
	}
}

func TestCloseWaitsForAcknowledgements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.Open(memory.Options{})
		defer e.Close()
		f := &faulty{Engine: e, hold: make(chan struct{})}
		r := open(t, config(ingest.DefaultRule()), f, ingest.Options{})
		var done atomic.Int32
		r.Accept(t.Context(), []ingest.Message{{Topic: "a"}}, func(error) { done.Add(1) })
		var closed atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() { r.Close(); closed.Store(true) })
		synctest.Wait()
		if closed.Load() {
			t.Error("Close returned before the acknowledgement")
		}
		if err := accept(t.Context(), r, []ingest.Message{{Topic: "a"}}); record.KindOf(err) != record.Unavailable {
			t.Errorf("Accept after Close: %v", err)
		}
		close(f.hold)
		wg.Wait()
		f.wg.Wait()
		if done.Load() != 1 {
			t.Errorf("done ran %d times", done.Load())
		}
	})
}

func TestAdmissionEndsWithTheContext(t *testing.T) {
	e := engine(t)
	r := open(t, config(ingest.DefaultRule()), e, ingest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := accept(ctx, r, []ingest.Message{{Topic: "a", Payload: []byte("1")}})
	if err != nil && record.KindOf(err) != record.Unavailable {
		t.Errorf("error %v", err)
	}
}

func TestTopicsAreForgottenNotLost(t *testing.T) {
	e := memory.Open(memory.Options{MaxBytes: 256 << 20})
	t.Cleanup(func() { e.Close() })
	r := open(t, config(ingest.Rule{Name: "even", Topics: []string{"t/+/0"}}), e, ingest.Options{})
	const topics = 70_000 // more than are remembered
	batch := make([]ingest.Message, 0, 1000)
	for i := range topics {
		batch = append(batch, ingest.Message{Topic: "t/" + strconv.Itoa(i) + "/" + strconv.Itoa(i%2), Source: ingest.BrokerSource})
		if len(batch) == cap(batch) {
			if err := accept(t.Context(), r, batch); err != nil {
				t.Fatal(err)
			}
			batch = batch[:0]
		}
	}
	if st := r.Stats(); st.Rules[0].Messages != topics/2 || st.Unmatched != topics/2 {
		t.Errorf("stats %+v", st)
	}
}

func TestOpenChangesPolicies(t *testing.T) {
	e := engine(t)
	open(t, config(ingest.Rule{Name: "a", Topics: []string{"#"}}), e, ingest.Options{})
	open(t, config(ingest.Rule{Name: "a", Topics: []string{"#"}, MaxBytes: 1 << 20, OnFull: "drop_oldest"}), e, ingest.Options{})
	info, err := e.Lookup("ingest/a")
	if err != nil || info.Policy.MaxBytes != 1<<20 || info.Policy.OnFull != stream.DropOldest || !info.Policy.UntilExported {
		t.Errorf("policy %+v, %v", info.Policy, err)
	}
}

func TestOpenReportsTheRule(t *testing.T) {
	e := memory.Open(memory.Options{})
	e.Close()
	_, err := ingest.Open(t.Context(), ingest.DefaultConfig(), ingest.Options{Appender: e, Admin: e, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "ingest rule default") || record.KindOf(err) != record.Unavailable {
		t.Errorf("error %v", err)
	}
}

func TestSilentSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.Open(memory.Options{})
		defer e.Close()
		var log logText
		r := open(t, config(ingest.DefaultRule()), e, ingest.Options{
			Log: slog.New(slog.NewTextHandler(&log, nil)),
			Sources: []ingest.Source{
				{Name: ingest.BrokerSource, Timeout: time.Minute},
				{Name: "plc", Timeout: time.Minute, Expected: true},
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		defer wg.Wait()
		defer cancel()
		expect := func(step string, lines map[string]int, degraded ...string) {
			t.Helper()
			synctest.Wait()
			for text, n := range lines {
				if got := strings.Count(log.String(), text); got != n {
					t.Errorf("%s: %q logged %d times, want %d:\n%s", step, text, got, n, log.String())
				}
			}
			got := r.Degraded()
			if len(got) != len(degraded) {
				t.Fatalf("%s: degraded %q, want %q", step, got, degraded)
			}
			for i := range got {
				if !strings.Contains(got[i], degraded[i]) {
					t.Errorf("%s: degraded %q, want %q", step, got, degraded)
				}
			}
		}
		send := func(source string) {
			t.Helper()
			if err := accept(ctx, r, []ingest.Message{{Topic: "a/b", Source: source, Client: "c1", Received: time.Now().UnixNano()}}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(59 * time.Second)
		expect("before the timeout", map[string]int{"silent": 0})
		time.Sleep(20 * time.Second)
		expect("never heard of", map[string]int{"source is silent": 1, "source=plc": 1}, "source plc has been silent for 1m19s")
		send("plc")
		send(ingest.BrokerSource)
		send("plc")
		expect("first messages", map[string]int{"first message": 2, "source sends again": 1, "client=c1": 2})
		time.Sleep(30 * time.Second)
		send("plc")
		time.Sleep(45 * time.Second)
		expect("only the broker is silent", map[string]int{"source is silent": 2}, "source broker")
		time.Sleep(time.Hour)
		expect("one line for each silence", map[string]int{"source is silent": 3}, "source broker", "source plc")
		for _, s := range r.Stats().Sources {
			if !s.Silent || s.Last.IsZero() || s.Messages == 0 {
				t.Errorf("stats %+v", s)
			}
		}
	})
}

// instant acknowledges at once and keeps nothing: what is measured is the router.
type instant struct {
	*memory.Engine
	records int
}

func (a *instant) Append(_ context.Context, _ record.StreamID, records []record.Record, done func(record.Offset, error)) {
	a.records += len(records)
	done(0, nil)
}

func busyRouter(t testing.TB, batch int) (*ingest.Router, *instant, []ingest.Message) {
	e := &instant{Engine: engine(t)}
	r := open(t, config(ingest.DefaultRule(), ingest.Rule{Name: "some", Topics: []string{"plant/+/7"}}), e, ingest.Options{})
	var messages []ingest.Message
	for i := range batch {
		messages = append(messages, ingest.Message{
			Topic: "plant/line/" + strconv.Itoa(i%125), Payload: []byte(`{"ts":1790000000000,"value":21.5}`),
			Source: "plc", Retain: i%10 == 0, Received: int64(i),
		})
	}
	return r, e, messages
}

func TestAcceptDoesNotAllocate(t *testing.T) {
	r, e, messages := busyRouter(t, 100)
	var failed error
	done := func(err error) { failed = errors.Join(failed, err) }
	accept := func() { r.Accept(t.Context(), messages, done) }
	accept()
	n := testing.AllocsPerRun(200, accept)
	if failed != nil || e.records == 0 {
		t.Fatal(failed, e.records)
	}
	// The pools may be emptied by a garbage collection in between, and are under the race detector.
	if n >= 1 && !raceEnabled {
		t.Errorf("%v allocations for a batch of %d, want none", n, len(messages))
	}
}

func BenchmarkAccept(b *testing.B) {
	for _, size := range []int{1, 100} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			r, _, messages := busyRouter(b, size)
			done := func(error) {}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				r.Accept(b.Context(), messages, done)
				n += size
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/message")
		})
	}
}

// A sender repeats what was refused: what a full stream refuses must not fill the others with repetitions.
func TestWhatAFullStreamRefusesReachesNoOtherStream(t *testing.T) {
	e := engine(t)
	r := open(t, config(
		ingest.Rule{Name: "all", Topics: []string{"#"}},
		ingest.Rule{Name: "small", Topics: []string{"b/#"}, MaxBytes: 1 << 20},
		ingest.Rule{Name: "round", Topics: []string{"b/#"}, MaxBytes: 1 << 20, OnFull: "drop_oldest"},
	), e, ingest.Options{})
	big := ingest.Message{Topic: "b/1", Payload: make([]byte, 400<<10), QoS: 1}
	for range 2 {
		if err := accept(t.Context(), r, []ingest.Message{big}); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		batch := []ingest.Message{{Topic: "a", QoS: 1}, big}
		if err := accept(t.Context(), r, batch); record.KindOf(err) != record.Full {
			t.Fatalf("error %v, want full", err)
		}
	}
	if got := len(contents(t, e, "ingest/all")); got != 2 {
		t.Errorf("the other stream has %d records, want the 2 that were acknowledged", got)
	}
	// Nobody repeats QoS 0: the streams with room take it.
	big.QoS = 0
	if err := accept(t.Context(), r, []ingest.Message{big}); record.KindOf(err) != record.Full {
		t.Errorf("error %v, want full", err)
	}
	if got := len(contents(t, e, "ingest/all")); got != 3 {
		t.Errorf("the other stream has %d records, want 3", got)
	}
	if err := accept(t.Context(), r, []ingest.Message{{Topic: "a", QoS: 1}}); err != nil {
		t.Errorf("a message that the full stream does not get: %v", err)
	}
	if st := r.Stats(); st.Rules[1].Failed != 6 || st.Full != 5 {
		t.Errorf("stats %+v", st.Rules)
	}
}
