package mqtt

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-io/leat/internal/auth"
	"github.com/leat-io/leat/internal/ingest"

	mochi "github.com/mochi-mqtt/server/v2"
)

// Acceptor takes messages over. Accept blocks only for admission (back-pressure) and may be called from many
// goroutines; done runs exactly once per call, when all of the batch is durable (nil) or cannot become so, and must not
// block. The Acceptor may use the batch until done.
type Acceptor interface {
	Accept(ctx context.Context, batch []ingest.Message, done func(error))
}

// Broker is the embedded broker. Open it, Run it once, and Close it if Run was never called.
type Broker struct {
	cfg    BrokerConfig
	who    *auth.Authority
	log    *slog.Logger
	quiet  *sampler
	server *mochi.Server
	inline *mochi.Client // publishes to subscribers on behalf of the connections
	doors  []*door
	once   exactlyOnce

	accept    func(batch []ingest.Message, done func(error)) // set by Run, before the first connection
	workers   sync.WaitGroup                                 // flows that wait for outcomes
	underway  atomic.Int64                                   // batches handed to accept, not yet answered
	stopping  atomic.Bool                                    // no message is taken any more
	abandon   chan struct{}                                  // closed when a stop no longer waits for outcomes
	closeOnce sync.Once

	sysRetained atomic.Int64 // retained $SYS topics: a constant number that max_retained does not count
	counters    counters
}

// counters are the broker's own; mochi counts the rest.
type counters struct {
	connections, refused                   atomic.Int64
	messages, bytes, rejected, lost, wills atomic.Int64
	dropped, unretained                    atomic.Int64
}

// BrokerStats is a snapshot. Counts are since the start unless they say open or stored.
type BrokerStats struct {
	OpenConnections int64 // sockets, those before CONNECT included
	OpenClients     int64 // connected clients
	StoredSessions  int64 // those of absent clients included
	StoredRetained  int64 // messages
	Subscriptions   int64 // open
	Connections     int64 // accepted sockets
	Refused         int64 // connections closed before they were clients: limits, networks, garbage, bad passwords
	Messages        int64 // received by PUBLISH and as wills
	Bytes           int64 // their payloads
	Rejected        int64 // QoS 1 and 2 messages that were not taken over, and of which the client was told
	Lost            int64 // QoS 0 messages and wills that were not taken over
	Dropped         int64 // messages that a slow subscriber did not get
	NotRetained     int64 // retain requests beyond max_retained
}

// Open binds cfg's listeners. ports in use, missing certificates and unsafe combinations are errors with the key and
// the remedy. The caller must Run or Close the broker.
func Open(ctx context.Context, cfg BrokerConfig, who *auth.Authority, log *slog.Logger) (*Broker, error) {
	if err := cfg.Validate(who.Configured()); err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, who: who, log: log, quiet: newSampler(cfg.LogInterval), abandon: make(chan struct{})}
	b.once.sessions = map[string]map[uint16]*taken{}
	b.server = mochi.New(b.options())
	b.inline = b.server.NewClient(nil, mochi.LocalListener, "leat", true)
	b.inline.Properties.ProtocolVersion = 5
	if err := b.server.AddHook(&hook{b: b}, nil); err != nil {
		return nil, fmt.Errorf("attach to broker: %w", err)
	}
	for _, ep := range cfg.endpoints() {
		if ep.addr == "" {
			continue
		}
		d, err := openDoor(ctx, b, ep)
		if err != nil {
			b.Close()
			return nil, err
		}
		b.doors = append(b.doors, d)
		if err := b.server.AddListener(d); err != nil {
			b.Close()
			return nil, fmt.Errorf("attach listener: %w", err)
		}
	}
	return b, nil
}

// options translates the limits.
func (b *Broker) options() *mochi.Options {
	c := mochi.NewDefaultServerCapabilities()
	c.MaximumClients = int64(b.cfg.MaxConnections)
	c.MaximumMessageExpiryInterval = 0 // retained messages stay until replaced; message expiry is the sender's
	c.MaximumClientWritesPending = int32(b.cfg.MaxQueued)
	c.MaximumSessionExpiryInterval = uint32(b.cfg.SessionExpiry / time.Second)
	c.MaximumPacketSize = uint32(b.cfg.MaxPacketSize)
	c.ReceiveMaximum = uint16(b.cfg.MaxInflight)
	c.MaximumInflight = uint16(b.cfg.MaxInflight)
	c.TopicAliasMaximum = uint16(b.cfg.MaxTopicAliases)
	return &mochi.Options{
		Capabilities:             c,
		Logger:                   slog.New(demote{b.log.Handler()}),
		SysTopicResendInterval:   int64(b.cfg.SysInterval / time.Second),
		ClientNetReadBufferSize:  readBuffer,
		ClientNetWriteBufferSize: 2048,
		InlineClient:             true,
	}
}

// readBuffer is what one connection's parser holds, in bytes: also the most that one Accept takes of small messages.
const readBuffer = 4096

// Addr is one bound listener.
type Addr struct {
	Key     string // the setting: mqtt.listen, mqtt.tls_listen, …
	URL     string // mqtt://127.0.0.1:1883, mqtts://, ws://, wss://
	Address string // host:port
}

// Addrs are the bound listeners, for the line that says what leat listens on.
func (b *Broker) Addrs() []Addr {
	out := make([]Addr, 0, len(b.doors))
	for _, d := range b.doors {
		out = append(out, Addr{Key: d.ep.key, URL: d.Protocol() + "://" + d.Address(), Address: d.Address()})
	}
	return out
}

// Run serves until ctx ends, then stops within DrainTimeout and a little more: first nothing new is taken, then
// acknowledgements on their way go out, then connections close.
func (b *Broker) Run(ctx context.Context, accept Acceptor, ready func()) error {
	taking, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	b.accept = func(batch []ingest.Message, done func(error)) { accept.Accept(taking, batch, done) }
	if err := b.server.Serve(); err != nil {
		b.Close()
		return fmt.Errorf("serve MQTT: %w", err)
	}
	b.sysRetained.Store(int64(b.server.Topics.Retained.Len()))
	for _, a := range b.Addrs() {
		b.log.Info("listening", "protocol", "mqtt", "url", a.URL, "setting", a.Key)
	}
	ready()
	<-ctx.Done()

	b.stopping.Store(true)
	b.drain()
	cancel()
	b.Close()
	b.workers.Wait()
	return nil
}

// drain waits until nothing is underway, at most DrainTimeout.
func (b *Broker) drain() {
	deadline := time.NewTimer(b.cfg.DrainTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for b.underway.Load() > 0 {
		select {
		case <-deadline.C:
			b.log.Warn("stopping with unanswered messages: their senders will send them again",
				"batches", b.underway.Load())
			return
		case <-tick.C:
		}
	}
}

// Close closes the listeners and all connections, once.
func (b *Broker) Close() {
	b.closeOnce.Do(func() {
		b.stopping.Store(true)
		close(b.abandon)
		for _, d := range b.doors {
			d.shut()
		}
		b.server.Close() //nolint:errcheck // always nil
		for _, d := range b.doors {
			d.handlers.Wait()
		}
	})
}

// Stats returns a snapshot.
func (b *Broker) Stats() BrokerStats {
	info, c := b.server.Info.Clone(), &b.counters
	s := BrokerStats{
		OpenClients: info.ClientsConnected, StoredSessions: int64(b.server.Clients.Len()),
		StoredRetained: b.retained(), Subscriptions: info.Subscriptions,
		Connections: c.connections.Load(), Refused: c.refused.Load(),
		Messages: c.messages.Load(), Bytes: c.bytes.Load(),
		Rejected: c.rejected.Load(), Lost: c.lost.Load(),
		Dropped: c.dropped.Load(), NotRetained: c.unretained.Load(),
	}
	for _, d := range b.doors {
		s.OpenConnections += int64(d.open())
	}
	return s
}

// retained is how many messages of clients are retained.
func (b *Broker) retained() int64 {
	return int64(b.server.Topics.Retained.Len()) - b.sysRetained.Load()
}

// refuse counts and, now and then, logs a connection that is not let in.
func (b *Broker) refuse(kind, remote string, err error) {
	b.counters.refused.Add(1)
	if more, ok := b.quiet.allow(kind, time.Now()); ok {
		b.log.Warn("connection refused", "reason", kind, "remote", remote, "error", err, "not_logged", more)
	}
}

// arrived counts a message.
func (b *Broker) arrived(size int) {
	b.counters.messages.Add(1)
	b.counters.bytes.Add(int64(size))
}

// isSys reports whether clients may not publish to the topic.
func isSys(topic string) bool { return len(topic) >= 4 && strings.EqualFold(topic[:4], "$SYS") }
