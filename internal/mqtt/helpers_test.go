package mqtt_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/auth"
	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/mqtt"
	"github.com/leat-io/leat/internal/testenv"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for something that should happen at once.
const patience = 10 * time.Second

// acceptor is a stand-in for ingest: it records what it is given and answers by itself, or holds every answer until
// the test gives it.
type acceptor struct {
	mu       sync.Mutex
	messages []ingest.Message
	batches  int
	held     []func(error)
	hold     bool
	err      error
}

func (a *acceptor) Accept(_ context.Context, batch []ingest.Message, done func(error)) {
	a.mu.Lock()
	a.batches++
	for _, m := range batch {
		m.Payload = append([]byte(nil), m.Payload...)
		a.messages = append(a.messages, m)
	}
	err := a.err
	if a.hold {
		a.held = append(a.held, done)
		a.mu.Unlock()
		return
	}
	a.mu.Unlock()
	done(err)
}

func (a *acceptor) setHold(hold bool) { a.mu.Lock(); a.hold = hold; a.mu.Unlock() }
func (a *acceptor) setErr(err error)  { a.mu.Lock(); a.err = err; a.mu.Unlock() }
func (a *acceptor) count() int        { a.mu.Lock(); defer a.mu.Unlock(); return len(a.messages) }
func (a *acceptor) waiting() int      { a.mu.Lock(); defer a.mu.Unlock(); return len(a.held) }
func (a *acceptor) all() []ingest.Message {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]ingest.Message(nil), a.messages...)
}

// release answers the oldest held batch.
func (a *acceptor) release(err error) {
	a.mu.Lock()
	done := a.held[0]
	a.held = a.held[1:]
	a.mu.Unlock()
	done(err)
}

func (a *acceptor) releaseAll(err error) {
	for a.waiting() > 0 {
		a.release(err)
	}
}

func (a *acceptor) payloads() string {
	var out []string
	for _, m := range a.all() {
		out = append(out, string(m.Payload))
	}
	return strings.Join(out, " ")
}

// logBuffer collects log lines.
type logBuffer struct{ testenv.Output }

func (l *logBuffer) tail() string {
	lines := strings.Split(l.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}
func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type testBroker struct {
	*mqtt.Broker
	t      *testing.T
	accept *acceptor
	log    *logBuffer
	stop   func() // and wait; idempotent
}

func brokerConfig() mqtt.BrokerConfig {
	cfg := mqtt.DefaultBrokerConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.LogInterval = 0
	cfg.ConnectTimeout = patience
	return cfg
}

func startBroker(t *testing.T, cfg mqtt.BrokerConfig, users auth.Config) *testBroker {
	t.Helper()
	who, err := auth.Open(users)
	if err != nil {
		t.Fatal(err)
	}
	tb := &testBroker{t: t, accept: &acceptor{}, log: &logBuffer{}}
	tb.Broker, err = mqtt.Open(t.Context(), cfg, who, tb.log.logger())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- tb.Run(ctx, tb.accept, func() { close(ready) }) }()
	<-ready
	tb.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() {
		tb.accept.setHold(false)
		tb.accept.releaseAll(nil)
		tb.stop()
		if t.Failed() {
			t.Logf("log:\n%s", tb.log.tail())
		}
	})
	return tb
}

func (tb *testBroker) url(key string) string {
	for _, a := range tb.Addrs() {
		if a.Key == key {
			return a.URL
		}
	}
	tb.t.Fatalf("no listener %s", key)
	return ""
}

func (tb *testBroker) addr() string { return tb.Addrs()[0].Address }

func wait(t *testing.T, what string, cond func() bool) {
	t.Helper()
	testenv.Wait(t, patience, cond, what)
}

// wire is a hand-made client: it says exactly what a test wants and sees exactly what comes back.
type wire struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *wire {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &wire{t: t, Conn: c, r: bufio.NewReader(c)}
}

func str(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func frame(header byte, body ...[]byte) []byte {
	var b []byte
	for _, p := range body {
		b = append(b, p...)
	}
	return append(binary.AppendUvarint([]byte{header}, uint64(len(b))), b...)
}

// connectFrame makes a CONNECT. Version 5 asks for a session of an hour when it is not clean.
func connectFrame(version byte, id string, clean bool, keepAlive uint16) []byte {
	flags := byte(0)
	if clean {
		flags = 2
	}
	head := append(str("MQTT"), version, flags, byte(keepAlive>>8), byte(keepAlive))
	if version == 5 {
		if clean {
			head = append(head, 0)
		} else {
			head = append(head, 5, 17, 0, 0, 14, 16)
		}
	}
	return frame(0x10, head, str(id))
}

func publishFrame(version, qos byte, id uint16, dup bool, topic, payload string) []byte {
	header := 0x30 | qos<<1
	if dup {
		header |= 8
	}
	body := str(topic)
	if qos > 0 {
		body = binary.BigEndian.AppendUint16(body, id)
	}
	if version == 5 {
		body = append(body, 0)
	}
	return frame(header, body, []byte(payload))
}

func (w *wire) send(b ...[]byte) {
	w.t.Helper()
	var all []byte
	for _, p := range b {
		all = append(all, p...)
	}
	if _, err := w.Write(all); err != nil {
		w.t.Fatal(err)
	}
}

// next reads one packet.
func (w *wire) next() (header byte, body []byte, err error) {
	w.SetReadDeadline(time.Now().Add(patience))
	header, err = w.r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(w.r)
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, n)
	_, err = io.ReadFull(w.r, body)
	return header, body, err
}

func (w *wire) want(header byte, bodyPrefix ...byte) []byte {
	w.t.Helper()
	h, body, err := w.next()
	if err != nil {
		w.t.Fatalf("reading: %v, want a packet 0x%02x", err, header)
	}
	if h != header || len(body) < len(bodyPrefix) || string(body[:len(bodyPrefix)]) != string(bodyPrefix) {
		w.t.Fatalf("got packet 0x%02x % x, want 0x%02x % x…", h, body, header, bodyPrefix)
	}
	return body
}

// silent checks that the broker says nothing. It proves it with a ping, which is answered at once when reading goes on.
func (w *wire) silent() {
	w.t.Helper()
	w.send([]byte{0xC0, 0})
	w.want(0xD0)
}

// closed checks that the broker closes the connection (after packets that may still come).
func (w *wire) closed() {
	w.t.Helper()
	w.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, w.r); err != nil && !strings.Contains(err.Error(), "reset") {
		w.t.Fatalf("the connection is still open: %v", err)
	}
}

func (tb *testBroker) login(version byte, id string, clean bool) *wire {
	tb.t.Helper()
	w := dial(tb.t, tb.addr())
	w.send(connectFrame(version, id, clean, 60))
	w.want(0x20)
	return w
}

func newReader(c net.Conn) *bufio.Reader { return bufio.NewReader(c) }

func freeAddr(t *testing.T) string { return testenv.Addr(t) }
