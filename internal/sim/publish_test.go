package sim_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/sim"
	"github.com/leat-io/leat/internal/testenv"
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// mqtt5Broker is a real broker that keeps what it was sent.
type mqtt5Broker struct {
	mochi.HookBase
	addr   string
	server *mochi.Server

	mu       sync.Mutex // guards messages
	messages map[string][]string
}

func (b *mqtt5Broker) ID() string { return "keep" }
func (b *mqtt5Broker) Provides(k byte) bool {
	return k == mochi.OnPublished || k == mochi.OnConnectAuthenticate || k == mochi.OnACLCheck
}
func (b *mqtt5Broker) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }
func (b *mqtt5Broker) OnACLCheck(*mochi.Client, string, bool) bool              { return true }

func (b *mqtt5Broker) OnPublished(_ *mochi.Client, pk packets.Packet) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.messages[pk.TopicName] = append(b.messages[pk.TopicName], string(pk.Payload))
}

func (b *mqtt5Broker) count() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.messages {
		n += len(m)
	}
	return n
}

func startMQTT5(t *testing.T) *mqtt5Broker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &mqtt5Broker{addr: l.Addr().String(), messages: map[string][]string{}}
	b.server = mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	for _, err := range []error{
		b.server.AddHook(b, nil), b.server.AddListener(listeners.NewNet("t", l)), b.server.Serve(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { b.server.Close() })
	return b
}

func TestPublisherSendsEverySignalInOrderOnOneGrid(t *testing.T) {
	b := startMQTT5(t)
	p := sim.NewPublisher(sim.PublishConfig{Addr: b.addr, Seed: 7, Period: 10 * time.Millisecond, Connections: 4, Count: 625}, slog.New(slog.DiscardHandler))
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p.Acked() != 625 {
		t.Fatalf("%d acknowledged, want 625", p.Acked())
	}
	testenv.Wait(t, 10*time.Second, func() bool { return b.count() == 625 }, "all messages at the broker")
	want := sim.NewSignals(7)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.messages) != 125 {
		t.Fatalf("%d topics, want 125", len(b.messages))
	}
	for i, s := range want.List() {
		var last float64
		for tick, text := range b.messages["demo/"+s.Name] {
			var m map[string]float64
			if err := json.Unmarshal([]byte(text), &m); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if m[s.Name] != want.Value(i, tick) || m["ts"] <= last || int64(m["ts"])%10 != 0 {
				t.Fatalf("%s, tick %d: %s, want value %v at a later time on the grid", s.Name, tick, text, want.Value(i, tick))
			}
			last = m["ts"]
		}
	}
}

func TestPublisherStopsSoonWithEverythingAcknowledged(t *testing.T) {
	b := startMQTT5(t)
	p := sim.NewPublisher(sim.PublishConfig{Addr: b.addr}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	testenv.Wait(t, 10*time.Second, func() bool { return p.Acked() > 125 }, "the first messages")
	began := time.Now()
	cancel()
	if err := <-done; err != nil || time.Since(began) > time.Second {
		t.Fatalf("%v after %s", err, time.Since(began))
	}
	testenv.Wait(t, 10*time.Second, func() bool { return int64(b.count()) == p.Acked() }, "broker and publisher to agree")
}

func TestPublisherGoesOnWhenItsConnectionBreaks(t *testing.T) {
	b := startMQTT5(t)
	p := sim.NewPublisher(sim.PublishConfig{Addr: b.addr, Connections: 1, Retry: 10 * time.Millisecond}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	testenv.Wait(t, 10*time.Second, func() bool { return p.Acked() > 125 }, "the first messages")
	for _, c := range b.server.Clients.GetAll() {
		if !c.Net.Inline {
			c.Stop(net.ErrClosed)
		}
	}
	at := p.Acked()
	testenv.Wait(t, 20*time.Second, func() bool { return p.Acked() > at+250 }, "messages after the break")
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestPublisherSaysWhenNobodyListens(t *testing.T) {
	p := sim.NewPublisher(sim.PublishConfig{Addr: "127.0.0.1:1", Connections: 1}, slog.New(slog.DiscardHandler))
	if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "connect to 127.0.0.1:1") {
		t.Fatalf("got %v", err)
	}
}
