package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/record"

	"github.com/eclipse/paho.golang/paho/session/state"
)

// Source takes messages from an external broker. New it, Run it once.
type Source struct {
	cfg    SourceConfig
	log    *slog.Logger
	url    *url.URL
	tls    *tls.Config
	intake *intake

	mu     sync.Mutex
	status SourceStatus // guarded by mu
}

// SourceStatus is what health shows of a source.
type SourceStatus struct {
	Name          string
	URL           string
	Connected     bool
	Since         time.Time // of the connection, or of its loss
	Protocol      string    // 5 or 3.1.1; empty before the first connection
	Subscriptions []SubscriptionStatus
	LastMessage   time.Time // zero before the first
	LastError     string    // why it is not connected
	Stats         SourceStats
}

// SubscriptionStatus is one filter's state.
type SubscriptionStatus struct {
	Filter  string
	Granted bool
	Reason  byte // the QoS granted, or from 0x80 on why not
}

// SourceStats are counts since the start.
type SourceStats struct {
	Connections int64 // that succeeded
	Failures    int64 // attempts and connections that ended by themselves
	Messages    int64 // received, repetitions included
	Bytes       int64 // their payloads
	Taken       int64 // durable
	Repeated    int64 // redelivered although taken; acknowledged, not taken again
	Retries     int64 // batches offered again after a refusal
	Dropped     int64 // messages that can never be taken (too large, for example)
}

// Degraded lists, in words, what an operator should look at. The source is named by whoever shows it.
func (s *SourceStatus) Degraded() []string {
	var out []string
	if !s.Connected {
		out = append(out, fmt.Sprintf("not connected to %s since %s: %s", s.URL, s.Since.UTC().Format(time.RFC3339), s.LastError))
	}
	for _, sub := range s.Subscriptions {
		if !sub.Granted && s.Connected {
			out = append(out, fmt.Sprintf("subscription to %s refused with reason 0x%02x", sub.Filter, sub.Reason))
		}
	}
	return out
}

// NewSource checks cfg and reads its certificates.
func NewSource(cfg SourceConfig, accept Acceptor, log *slog.Logger) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("parse URL: %w", err)
	}
	s := &Source{cfg: cfg, log: log.With("source", cfg.Name), url: u}
	if s.tls, err = cfg.load(u); err != nil {
		return nil, err
	}
	s.intake = newIntake(cfg, accept, s.log)
	s.status = SourceStatus{Name: cfg.Name, URL: u.Redacted(), Since: time.Now()}
	return s, nil
}

// Status returns a snapshot.
func (s *Source) Status() SourceStatus {
	s.mu.Lock()
	out := s.status
	out.Subscriptions = slices.Clone(out.Subscriptions)
	s.mu.Unlock()
	if ns := s.intake.last.Load(); ns != 0 {
		out.LastMessage = time.Unix(0, ns)
	}
	s.intake.fill(&out.Stats)
	return out
}

func (s *Source) update(f func(*SourceStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

// Run connects, and connects again whenever the connection ends, until ctx does. An unreachable broker is no error: it
// calls ready at once, reports in the log and in Status, and keeps trying.
func (s *Source) Run(ctx context.Context, ready func()) error {
	kept := state.NewInMemory() // which QoS 2 messages we have, over connections
	defer kept.Close()          //nolint:errcheck // in memory
	ready()
	wait := s.cfg.BackoffMin
	for ctx.Err() == nil {
		began := time.Now()
		err := s.attempt(ctx, kept)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > s.cfg.BackoffMax {
			wait = s.cfg.BackoffMin // it had worked for a while
		}
		pause := wait/2 + rand.N(wait/2+1)
		s.lost(err, pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		wait = min(2*wait, s.cfg.BackoffMax)
	}
	return nil
}

// attempt is one connection; when the broker does not speak MQTT 5, one in 3.1.1.
func (s *Source) attempt(ctx context.Context, kept *state.State) error {
	if s.cfg.Protocol == "3.1.1" {
		return s.connection(ctx, false, kept)
	}
	err := s.connection(ctx, true, kept)
	if s.cfg.Protocol == "auto" && errors.Is(err, errVersion) && ctx.Err() == nil {
		s.log.Info("falling back to MQTT 3.1.1", "broker", s.url.Redacted(), "reason", err)
		return s.connection(ctx, false, kept)
	}
	return err
}

func (s *Source) lost(err error, pause time.Duration) {
	if err == nil {
		err = errors.New("the connection ended")
	}
	level := slog.LevelDebug // the same failure again is no news
	s.update(func(st *SourceStatus) {
		if st.Connected {
			st.Since = time.Now()
		}
		if st.LastError != brief(err) {
			level = slog.LevelWarn
		}
		st.Connected, st.LastError = false, brief(err)
		st.Stats.Failures++
	})
	s.log.Log(context.Background(), level, "not connected", "broker", s.url.Redacted(), "error", err,
		"hint", record.HintOf(err), "retry_in", pause)
}

// brief is an error without the addresses of sockets, which differ each time.
func brief(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		short := *op
		short.Source, short.Addr = nil, nil
		return strings.Replace(err.Error(), op.Error(), short.Error(), 1)
	}
	return err.Error()
}

// connection is one connection from dialling to its end.
func (s *Source) connection(ctx context.Context, version5 bool, kept *state.State) error {
	dctx, cancel := context.WithTimeout(ctx, s.cfg.ConnectTimeout)
	defer cancel()
	conn, err := dialBroker(dctx, s.url, s.tls)
	if err != nil {
		return err
	}
	wire, run, protocol := &sniff{Conn: conn}, s.intake.begin(ctx), "5"
	var o opened
	if version5 {
		o, err = open5(dctx, &s.cfg, wire, kept, run.deliver)
		if err != nil && wire.refusesVersion5(err) {
			err = errVersion
		}
	} else {
		protocol = "3.1.1"
		o, err = open3(dctx, &s.cfg, wire, run.deliver)
	}
	if err != nil {
		run.end()
		return fmt.Errorf("connect: %w", err)
	}
	defer func() {
		run.end()
		o.link.close()
	}()
	run.established(o.resumed)
	s.update(func(st *SourceStatus) {
		st.Connected, st.Since, st.Protocol, st.LastError = true, time.Now(), protocol, ""
		st.Stats.Connections++
	})
	s.log.Info("connected", "broker", s.url.Redacted(), "protocol", protocol, "session_resumed", o.resumed)
	for subs := range slices.Chunk(s.cfg.Subscriptions, filtersPerPacket) {
		if err := s.subscribe(dctx, o.link, subs); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
	}
	return s.hold(ctx, o.link)
}

// filtersPerPacket is what every broker takes in one SUBSCRIBE (AWS IoT: 8).
const filtersPerPacket = 8

// hold waits for the connection's end and meanwhile tries refused subscriptions again.
func (s *Source) hold(ctx context.Context, l link) error {
	again := time.NewTicker(s.cfg.Resubscribe)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.done():
			s.update(func(st *SourceStatus) {
				st.Connected, st.Since, st.LastError = false, time.Now(), "the connection was lost"
			})
			return l.cause()
		case <-again.C:
			for refused := range slices.Chunk(s.refusedSubscriptions(), filtersPerPacket) {
				sctx, cancel := context.WithTimeout(ctx, s.cfg.ConnectTimeout)
				err := s.subscribe(sctx, l, refused)
				cancel()
				if err != nil {
					return fmt.Errorf("subscribe: %w", err)
				}
			}
		}
	}
}

func (s *Source) refusedSubscriptions() []ingest.Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []ingest.Subscription
	for _, sub := range s.cfg.Subscriptions {
		for _, st := range s.status.Subscriptions {
			if st.Filter == sub.Filter && !st.Granted {
				out = append(out, sub)
			}
		}
	}
	return out
}

// subscribe asks, reports each refusal once, and keeps the state for Status.
func (s *Source) subscribe(ctx context.Context, l link, subs []ingest.Subscription) error {
	codes, err := l.subscribe(ctx, subs)
	if err != nil {
		return err
	}
	for i, sub := range subs {
		now := SubscriptionStatus{Filter: sub.Filter, Granted: codes[i] < 0x80, Reason: codes[i]}
		before, known := s.record(now)
		switch {
		case now.Granted && codes[i] < sub.QoS:
			s.log.Warn("subscribed with a lower QoS", "topic", sub.Filter, "asked", sub.QoS, "granted", codes[i])
		case now.Granted:
			s.log.Info("subscribed", "topic", sub.Filter, "qos", codes[i])
		case !known || before.Reason != now.Reason:
			s.log.Warn("subscription refused", "topic", sub.Filter, "reason_code", fmt.Sprintf("0x%02x", codes[i]),
				"hint", "allow the client this topic in the broker's access list; it is tried again every "+s.cfg.Resubscribe.String())
		}
	}
	return nil
}

func (s *Source) record(now SubscriptionStatus) (before SubscriptionStatus, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, st := range s.status.Subscriptions {
		if st.Filter == now.Filter {
			s.status.Subscriptions[i] = now
			return st, true
		}
	}
	s.status.Subscriptions = append(s.status.Subscriptions, now)
	return before, false
}
