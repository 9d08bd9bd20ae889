package sim

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// PublishConfig says how the reference signals are published.
type PublishConfig struct {
	Addr        string
	Prefix      string        // topics are Prefix/<signal>; default "demo"
	ClientID    string        // connections are ClientID-0 …; default "leat-sim"
	Seed        uint64        // of the values
	Period      time.Duration // between two values of a signal; default 40 ms
	Connections int           // the signals are divided among them; default 5
	Count       int64         // messages to publish; 0 = until the context ends
	User        string
	Password    string
	Retry       time.Duration // pause before connecting again; default 500 ms
}

// Publisher publishes the reference signals: for each a message per period, at QoS 1, as a JSON object with the time
// of the value in milliseconds ("ts") and the value under the signal's name.
//
// A value is sent again when its connection broke before it was acknowledged. When the broker is slower than the period,
// the publisher falls behind and catches up later: no value is left out, and its memory does not grow.
type Publisher struct {
	cfg   PublishConfig
	log   *slog.Logger
	acked atomic.Int64
	left  atomic.Int64 // messages that may still be begun, when Count is set
}

// NewPublisher returns a publisher.
func NewPublisher(cfg PublishConfig, log *slog.Logger) *Publisher {
	if cfg.Prefix == "" {
		cfg.Prefix = "demo"
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "leat-sim"
	}
	if cfg.Period <= 0 {
		cfg.Period = 40 * time.Millisecond
	}
	if cfg.Connections <= 0 {
		cfg.Connections = 5
	}
	if cfg.Retry <= 0 {
		cfg.Retry = 500 * time.Millisecond
	}
	p := &Publisher{cfg: cfg, log: log}
	p.left.Store(cfg.Count)
	return p
}

// Acked is how many messages the broker has acknowledged so far.
func (p *Publisher) Acked() int64 { return p.acked.Load() }

// Run publishes until ctx ends or Count is reached. Messages under way when ctx ends get a moment for their
// acknowledgement. It fails when the first connection cannot be made; later it tries for ever.
func (p *Publisher) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, p.cfg.Connections)
	// The grid is the wall clock's, so that values of all signals and of all runs share their times.
	start := time.Now().Truncate(p.cfg.Period)
	for i := range p.cfg.Connections {
		feed := newFeed(p.cfg, i, start)
		wg.Go(func() { errs[i] = p.serve(ctx, feed) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// serve keeps one connection publishing.
func (p *Publisher) serve(ctx context.Context, f *feed) error {
	for first := true; ; first = false {
		c, err := p.connect(ctx, f.client)
		if err == nil {
			err = p.publish(ctx, c, f)
			c.Disconnect(&paho.Disconnect{}) //nolint:errcheck // a broken connection is disconnected already
			<-c.Done()
		} else if first && ctx.Err() == nil {
			return fmt.Errorf("connect to %s: %w", p.cfg.Addr, err)
		}
		if err == nil || ctx.Err() != nil {
			return nil
		}
		p.log.Warn("connection lost", "client", f.client, "error", err)
		if pause(ctx, p.cfg.Retry) != nil {
			return nil
		}
	}
}

func (p *Publisher) connect(ctx context.Context, id string) (*paho.Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", p.cfg.Addr)
	if err != nil {
		return nil, err
	}
	c := paho.NewClient(paho.ClientConfig{ClientID: id, Conn: conn, PacketTimeout: 30 * time.Second})
	cp := &paho.Connect{ClientID: id, KeepAlive: 30, CleanStart: true}
	if p.cfg.User != "" {
		cp.UsernameFlag, cp.Username = true, p.cfg.User
		cp.PasswordFlag, cp.Password = true, []byte(p.cfg.Password)
	}
	// paho ties the connection's life to this context; a stop has to let acknowledgements come in first.
	if _, err := c.Connect(context.WithoutCancel(ctx), cp); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// ackGrace is how long messages under way at a stop may wait for their acknowledgement.
const ackGrace = 250 * time.Millisecond

// publish sends tick after tick, each signal's values in order.
func (p *Publisher) publish(ctx context.Context, c *paho.Client, f *feed) error {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var watch sync.WaitGroup
	watch.Go(func() { // a message that is begun while the connection breaks would wait for its whole time-out
		select {
		case <-c.Done():
			cancel()
		case <-sending.Done():
		}
	})
	defer watch.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(ackGrace, cancel) })
	defer stop()
	for {
		if err := pause(ctx, time.Until(f.due())); err != nil {
			return nil
		}
		messages := f.messages(p.take)
		if len(messages) == 0 {
			return nil
		}
		if err := p.send(sending, c, f, messages); err != nil {
			return err
		}
		f.tick++
	}
}

// take reports whether one more message may be begun.
func (p *Publisher) take() bool { return p.cfg.Count <= 0 || p.left.Add(-1) >= 0 }

// send publishes one tick's messages together and waits for their acknowledgements. What was acknowledged is marked, so
// that after an error only the rest is sent again.
func (p *Publisher) send(ctx context.Context, c *paho.Client, f *feed, messages []message) error {
	var wg sync.WaitGroup
	errs := make([]error, len(messages))
	for i, m := range messages {
		wg.Go(func() {
			_, errs[i] = c.Publish(ctx, &paho.Publish{QoS: 1, Topic: m.topic, Payload: m.payload})
		})
	}
	wg.Wait()
	f.pending = f.pending[:0]
	var failed error
	for i, m := range messages {
		if errs[i] != nil {
			failed = errs[i]
			f.pending = append(f.pending, m)
			continue
		}
		p.acked.Add(1)
	}
	return failed
}

// message is one value on its way.
type message struct {
	topic   string
	payload []byte
}

// feed is one connection's share of the signals. It belongs to one goroutine.
type feed struct {
	client  string
	period  time.Duration
	start   time.Time
	signals *Signals
	mine    []int // numbers of the signals
	topics  []string
	tick    int
	pending []message // of the tick, not acknowledged when the connection broke
}

func newFeed(cfg PublishConfig, index int, start time.Time) *feed {
	f := &feed{
		client: fmt.Sprintf("%s-%d", cfg.ClientID, index), period: cfg.Period, start: start, signals: NewSignals(cfg.Seed),
	}
	for i, s := range f.signals.List() {
		if i%cfg.Connections == index {
			f.mine = append(f.mine, i)
			f.topics = append(f.topics, cfg.Prefix+"/"+s.Name)
		}
	}
	return f
}

// due is when the next tick is to be published.
func (f *feed) due() time.Time { return f.start.Add(time.Duration(f.tick) * f.period) }

// messages are the tick's messages, or what is left of it after a broken connection. Each new one takes a permission.
func (f *feed) messages(take func() bool) []message {
	if len(f.pending) > 0 {
		return append([]message(nil), f.pending...)
	}
	out := make([]message, 0, len(f.mine))
	ts := f.due().UnixMilli()
	for i, n := range f.mine {
		if !take() {
			break
		}
		b := append(make([]byte, 0, 64), `{"ts":`...)
		b = strconv.AppendInt(b, ts, 10)
		b = append(b, `,"`...)
		b = append(b, f.signals.List()[n].Name...)
		b = append(b, `":`...)
		b = strconv.AppendFloat(b, f.signals.Value(n, f.tick), 'f', -1, 64)
		out = append(out, message{topic: f.topics[i], payload: append(b, '}')})
	}
	return out
}
