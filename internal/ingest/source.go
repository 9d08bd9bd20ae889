package ingest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Source is where messages come from, as far as silence goes.
type Source struct {
	Name    string
	Timeout time.Duration // silence that is warned about; 0: none
	// Expected: its silence counts from the start. Otherwise it counts from the first message, as with the embedded
	// broker, which may well have no clients.
	Expected bool
}

const (
	maxTopics     = 65_536
	maxTopicBytes = 8 << 20
)

// source is what the router knows of a source.
type source struct {
	Source
	router *Router
	routes []*route // those that take messages of this source

	messages atomic.Int64
	first    atomic.Bool  // a message has come
	last     atomic.Int64 // when the last one came, in nanoseconds since Router.start
	lastWall atomic.Int64 // the same by its Received
	silent   atomic.Bool  // has been warned about

	mu     sync.RWMutex // guards topics and bytes
	topics map[string][]*route
	bytes  int
}

func (r *Router) newSource(s Source) *source {
	src := &source{Source: s, router: r, topics: map[string][]*route{}}
	for _, rt := range r.routes {
		if rt.rule.Source == "" || rt.rule.Source == s.Name {
			src.routes = append(src.routes, rt)
		}
	}
	return src
}

// source returns what is known of the source called name. Names come from the configuration, so that they are few.
func (r *Router) source(name string) *source {
	r.mu.RLock()
	s := r.sources[name]
	r.mu.RUnlock()
	if s != nil {
		return s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s = r.sources[name]; s == nil {
		name = strings.Clone(name)
		s = r.newSource(Source{Name: name})
		r.sources[name] = s
	}
	return s
}

// heard notes that n messages came, m being the first.
func (s *source) heard(m *Message, n int, now int64) {
	s.messages.Add(int64(n))
	s.last.Store(now)
	s.lastWall.Store(m.Received)
	if !s.first.Load() && s.first.CompareAndSwap(false, true) {
		s.router.log.Info("first message", "source", s.Name, "topic", m.Topic, "bytes", len(m.Payload), "client", m.Client)
	}
	if s.silent.Load() && s.silent.CompareAndSwap(true, false) {
		s.router.log.Info("source sends again", "source", s.Name, "topic", m.Topic)
	}
}

// learn finds the routes of a topic and remembers them.
func (s *source) learn(topic string) []*route {
	var routes []*route
	for _, rt := range s.routes {
		if slices.ContainsFunc(rt.filters, func(f string) bool { return Matches(f, topic) }) {
			routes = append(routes, rt)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.topics) >= maxTopics || s.bytes+len(topic) > maxTopicBytes {
		s.topics, s.bytes = map[string][]*route{}, 0
	}
	topic = strings.Clone(topic) // it may be a part of a whole packet
	s.topics[topic] = routes
	s.bytes += len(topic)
	return routes
}

// silence is how long the source has been silent, if that is too long.
func (s *source) silence(now int64) (time.Duration, bool) {
	if s.Timeout <= 0 || (!s.Expected && !s.first.Load()) {
		return 0, false
	}
	d := time.Duration(now - s.last.Load())
	return d, d >= s.Timeout
}

// Run warns about sources that are silent for too long, until ctx ends.
func (r *Router) Run(ctx context.Context) error {
	tick := time.NewTicker(r.checkInterval())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.checkSources()
		}
	}
}

func (r *Router) checkInterval() time.Duration {
	if r.interval > 0 {
		return r.interval
	}
	d := 10 * time.Second
	for _, s := range r.allSources() {
		if s.Timeout > 0 {
			d = min(d, s.Timeout/4)
		}
	}
	return max(d, 10*time.Millisecond)
}

func (r *Router) checkSources() {
	now := int64(time.Since(r.start))
	for _, s := range r.allSources() {
		if d, silent := s.silence(now); silent && s.silent.CompareAndSwap(false, true) {
			r.log.Warn("source is silent", "source", s.Name, "silent", d.Round(time.Millisecond), "mqtt_timeout", s.Timeout,
				"messages", s.messages.Load(), "hint", "look whether its devices publish and whether the rule's filters match")
		}
	}
}

func (r *Router) allSources() []*source {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]*source, 0, len(r.sources))
	for _, s := range r.sources {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *source) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Degraded says, in a sentence each, which sources are silent for too long.
func (r *Router) Degraded() []string {
	var lines []string
	now := int64(time.Since(r.start))
	for _, s := range r.allSources() {
		if d, silent := s.silence(now); silent {
			lines = append(lines, fmt.Sprintf("source %s has been silent for %s (mqtt_timeout %s)", s.Name, d.Round(time.Second), s.Timeout))
		}
	}
	return lines
}

// Stats is what the router has done so far. Messages count once for each rule that matched them.
type Stats struct {
	Unmatched int64 // messages that no rule wants: acknowledged, brokered, not kept
	TooLarge  int64 // batches refused for a message too large
	Full      int64 // batches refused, before any append, because one of several streams was at its limit
	Failed    int64 // messages of batches refused before any append: too large, or after Close
	Rules     []RuleStats
	Sources   []SourceStats
}

// RuleStats is what one rule's stream got.
type RuleStats struct {
	Rule     string
	Stream   string
	Table    string
	Messages int64 // durable
	Bytes    int64 // of them: topic, payload and attributes
	Failed   int64 // not durable; their sender knows
}

// SourceStats is what came from one source.
type SourceStats struct {
	Source   string
	Messages int64
	Last     time.Time // when the last message came; zero: none yet
	Silent   bool      // for longer than its timeout
}

// Stats returns a snapshot.
func (r *Router) Stats() Stats {
	st := Stats{Unmatched: r.unmatched.Load(), TooLarge: r.tooLarge.Load(), Full: r.full.Load(), Failed: r.failed.Load()}
	for _, rt := range r.routes {
		st.Rules = append(st.Rules, RuleStats{
			Rule: rt.rule.Name, Stream: string(rt.rule.Stream()), Table: rt.rule.Table,
			Messages: rt.messages.Load(), Bytes: rt.bytes.Load(), Failed: rt.failed.Load(),
		})
	}
	now := int64(time.Since(r.start))
	for _, s := range r.allSources() {
		ss := SourceStats{Source: s.Name, Messages: s.messages.Load()}
		if s.first.Load() {
			ss.Last = time.Unix(0, s.lastWall.Load())
		}
		_, ss.Silent = s.silence(now)
		st.Sources = append(st.Sources, ss)
	}
	return st
}
