package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Options are the surroundings of a Router.
type Options struct {
	Appender stream.Appender
	Admin    stream.Admin // ensures the streams of the rules, and tells how full they are
	Log      *slog.Logger
	Sources  []Source // those that may be silent too long
	// CheckInterval is how often Run looks for silent sources; default a quarter of the shortest timeout, at most 10 s.
	CheckInterval time.Duration
}

// Router appends messages to the streams of the rules that match them. It is safe for concurrent use.
type Router struct {
	log      *slog.Logger
	append   stream.Appender
	admin    stream.Admin
	routes   []*route
	start    time.Time
	interval time.Duration
	works    sync.Pool // *work
	batches  sync.Pool // *batch
	appends  sync.Pool // *appending

	mu       sync.RWMutex // guards closed and sources
	closed   bool
	sources  map[string]*source
	inflight sync.WaitGroup // batches not yet done; grows only under mu while not closed

	unmatched, tooLarge, full, failed atomic.Int64
}

// route is a rule with its stream.
type route struct {
	index   int
	rule    Rule
	id      record.StreamID
	filters []string

	messages, bytes, failed atomic.Int64
}

// Open makes sure that each rule has its stream, with the rule's policy, and returns the router. It must be closed. The
// configuration must be valid.
func Open(ctx context.Context, c Config, o Options) (*Router, error) {
	c = c.Resolved()
	r := &Router{log: o.Log, append: o.Appender, admin: o.Admin, start: time.Now(), interval: o.CheckInterval, sources: map[string]*source{}}
	for i, rule := range c.Rules {
		info, err := stream.Ensure(ctx, o.Admin, rule.Stream(), rule.Policy())
		if err != nil {
			return nil, fmt.Errorf("open the stream of ingest rule %s: %w", rule.Name, err)
		}
		rt := &route{index: i, rule: rule, id: info.ID}
		for _, f := range rule.Topics {
			rt.filters = append(rt.filters, unshared(f))
		}
		r.routes = append(r.routes, rt)
	}
	for _, s := range o.Sources {
		r.sources[s.Name] = r.newSource(s)
	}
	r.works.New = func() any { return &work{groups: make([]group, len(r.routes))} }
	r.batches.New = func() any { return new(batch) }
	r.appends.New = func() any {
		a := new(appending)
		a.finish = a.finished
		return a
	}
	return r, nil
}

// Stream is the stream of the rule called name.
func (r *Router) Stream(rule string) (record.StreamID, bool) {
	for _, rt := range r.routes {
		if rt.rule.Name == rule {
			return rt.id, true
		}
	}
	return 0, false
}

// Close waits until the batches on their way are done and takes no more. Close it before the engine.
func (r *Router) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.inflight.Wait()
	return nil
}

// Accept takes a batch over. done runs exactly once: with nil when all of it is durable in every matching stream, or
// with the first error; it must not block. It may run before Accept returns. A batch that contains a message too large,
// or one for a stream at its limit, is refused whole, before any of it is appended. Accept blocks only for admission,
// until ctx ends; slices and strings of the batch may be reused when it has returned.
func (r *Router) Accept(ctx context.Context, messages []Message, done func(error)) {
	if err := r.admit(messages); err != nil {
		r.failed.Add(int64(len(messages)))
		done(err)
		return
	}
	w := r.works.Get().(*work)
	w.sort(r, messages)
	b := r.batches.Get().(*batch)
	b.router, b.done = r, done
	b.left.Store(1) // held until everything is appended
	err := r.room(messages, w)
	if err == nil {
		for _, i := range w.used {
			r.appendGroup(ctx, r.routes[i], &w.groups[i], b)
		}
	}
	w.reset()
	r.works.Put(w)
	b.release(err)
}

// room refuses, before anything is appended, a batch of which a stream at its limit would refuse a part: the sender
// repeats the whole, and the other streams would get it once with each repetition. QoS 0 is not repeated, so that the
// streams with room shall have it. A limit that is reached between this look and the append still shows there.
func (r *Router) room(messages []Message, w *work) error {
	if len(w.used) < 2 || !slices.ContainsFunc(messages, func(m Message) bool { return m.QoS > 0 }) {
		return nil
	}
	for _, i := range w.used {
		rt, g := r.routes[i], &w.groups[i]
		if rt.rule.MaxBytes == 0 || rt.rule.Policy().OnFull != stream.Reject {
			continue
		}
		info, err := r.admin.Lookup(rt.rule.Stream())
		if err == nil {
			size := info.Bounds.Bytes
			for j := range g.records {
				size += int64(g.records[j].Size())
			}
			if size <= rt.rule.MaxBytes {
				continue
			}
			err = record.Errorf(record.Full, "it holds its limit of %d bytes", rt.rule.MaxBytes)
		}
		r.full.Add(1)
		rt.failed.Add(int64(len(g.records)))
		return fmt.Errorf("append to %s: %w", rt.rule.Stream(), err)
	}
	return nil
}

// admit counts the batch in, or says why not.
func (r *Router) admit(messages []Message) error {
	for i := range messages {
		if err := messages[i].Check(); err != nil {
			r.tooLarge.Add(1)
			return err
		}
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.closed {
		return record.Errorf(record.Unavailable, "ingest is closing")
	}
	r.inflight.Add(1)
	return nil
}

// appendGroup appends the records of one stream: at once, unless they are more than one append takes.
func (r *Router) appendGroup(ctx context.Context, rt *route, g *group, b *batch) {
	const overhead = 32 // of each record, by stream.MaxBatch
	for from := 0; from < len(g.records); {
		to, size := from, 0
		for to < len(g.records) {
			n := g.records[to].Size()
			if to > from && size+n+overhead > stream.MaxBatch {
				break
			}
			size += n + overhead
			to++
		}
		a := r.appends.Get().(*appending)
		a.batch, a.route = b, rt
		a.messages, a.bytes = int64(to-from), int64(size-overhead*(to-from))
		b.left.Add(1)
		r.append.Append(ctx, rt.id, g.records[from:to], a.finish)
		from = to
	}
}

// batch is one Accept on its way.
type batch struct {
	router *Router
	done   func(error)
	left   atomic.Int32 // appends not done, and Accept itself
	mu     sync.Mutex   // guards err
	err    error        // the first
}

func (b *batch) release(err error) {
	if err != nil {
		b.mu.Lock()
		if b.err == nil {
			b.err = err
		}
		b.mu.Unlock()
	}
	if b.left.Add(-1) > 0 {
		return
	}
	r, done, err := b.router, b.done, b.err
	b.router, b.done, b.err = nil, nil, nil
	r.batches.Put(b)
	done(err)
	r.inflight.Done()
}

// appending is one append on its way. finish is the method finished, bound once.
type appending struct {
	batch           *batch
	route           *route
	messages, bytes int64
	finish          func(record.Offset, error)
}

func (a *appending) finished(_ record.Offset, err error) {
	b, rt := a.batch, a.route
	if err == nil {
		rt.messages.Add(a.messages)
		rt.bytes.Add(a.bytes)
	} else {
		rt.failed.Add(a.messages)
		err = fmt.Errorf("append to %s: %w", rt.rule.Stream(), err)
	}
	a.batch, a.route = nil, nil
	b.router.appends.Put(a)
	b.release(err)
}

// work is what Accept needs to sort a batch by stream.
type work struct {
	groups []group // by route
	used   []int   // indexes of groups that have records, in the order of their first
	arena  []byte  // keys and attributes
}

type group struct {
	records []record.Record
}

// keepRecords is how many records a group keeps room for between batches, keepArena the same in bytes.
const (
	keepRecords = 4_096
	keepArena   = 1 << 20
)

func (w *work) reset() {
	for _, i := range w.used {
		g := &w.groups[i]
		clear(g.records)
		g.records = g.records[:0]
		if cap(g.records) > keepRecords {
			g.records = nil
		}
	}
	w.used = w.used[:0]
	if cap(w.arena) > keepArena {
		w.arena = nil
	}
}

// sort fills the groups with the records of the messages.
func (w *work) sort(r *Router, messages []Message) {
	w.arena = w.arena[:0]
	now := int64(time.Since(r.start))
	for from := 0; from < len(messages); {
		to := from + 1
		for to < len(messages) && messages[to].Source == messages[from].Source {
			to++
		}
		s := r.source(messages[from].Source)
		s.heard(&messages[from], to-from, now)
		s.mu.RLock()
		for i := from; i < to; i++ {
			m := &messages[i]
			routes, known := s.topics[m.Topic]
			if !known {
				s.mu.RUnlock()
				routes = s.learn(m.Topic)
				s.mu.RLock()
			}
			w.add(r, m, routes)
		}
		s.mu.RUnlock()
		from = to
	}
}

// add gives the message's record to the group of each route.
func (w *work) add(r *Router, m *Message, routes []*route) {
	if len(routes) == 0 {
		r.unmatched.Add(1)
		return
	}
	// A full arena moves; what was taken from it before stays where it is.
	from := len(w.arena)
	w.arena = append(w.arena, m.Topic...)
	key := w.arena[from:len(w.arena):len(w.arena)]
	from = len(w.arena)
	if m.Retain {
		w.arena = record.Attributes(w.arena).Append(AttrRetain, "1")
	}
	if m.Source != BrokerSource && m.Source != "" {
		w.arena = record.Attributes(w.arena).Append(AttrSource, m.Source)
	}
	rec := record.Record{
		Time: m.Received, Key: key, Payload: m.Payload,
		Attributes: record.Attributes(w.arena[from:len(w.arena):len(w.arena)]),
	}
	for _, rt := range routes {
		g := &w.groups[rt.index]
		if len(g.records) == 0 {
			w.used = append(w.used, rt.index)
		}
		g.records = append(g.records, rec)
	}
}
