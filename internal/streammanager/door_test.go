package streammanager

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/streammanager/wire"
	"github.com/leat-io/leat/internal/testenv"
)

// fakeService keeps payloads in memory. The hooks, where set, stand in for a method; set them before it is used.
type fakeService struct {
	onAppend func(ctx context.Context, name string, payloads [][]byte, done func(int64, error))
	onRead   func(ctx context.Context, name string, o *wire.ReadMessagesOptions) ([]wire.Message, error)
	onCreate func(ctx context.Context, d *wire.MessageStreamDefinition) error

	mu      sync.Mutex
	names   []string            // guarded by mu
	streams map[string][]string // guarded by mu
}

func (f *fakeService) Create(ctx context.Context, d *wire.MessageStreamDefinition) error {
	if f.onCreate != nil {
		return f.onCreate(ctx, d)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams[d.Name] != nil {
		return record.Errorf(record.Conflict, "stream %q already exists", d.Name)
	}
	if f.streams == nil {
		f.streams = map[string][]string{}
	}
	f.streams[d.Name] = []string{}
	f.names = append(f.names, d.Name)
	return nil
}

func (f *fakeService) Update(context.Context, *wire.MessageStreamDefinition) error {
	return wire.Errorf(wire.UpdateNotAllowed, "persistence cannot change")
}

func (f *fakeService) Delete(_ context.Context, name string) error {
	_, err := f.Describe(name)
	return err
}

func (f *fakeService) List() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.names...)
}

func (f *fakeService) Describe(name string) (*wire.MessageStreamInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list, ok := f.streams[name]
	if !ok {
		return nil, record.Errorf(record.NotFound, "no stream %q", name)
	}
	return &wire.MessageStreamInfo{
		Definition:    &wire.MessageStreamDefinition{Name: name},
		StorageStatus: wire.StorageStatus{NewestSequenceNumber: int64(len(list)) - 1},
	}, nil
}

func (f *fakeService) Append(ctx context.Context, name string, payloads [][]byte, done func(int64, error)) {
	if f.onAppend != nil {
		f.onAppend(ctx, name, payloads, done)
		return
	}
	if _, err := f.Describe(name); err != nil {
		done(0, err)
		return
	}
	f.mu.Lock()
	first := int64(len(f.streams[name]))
	for _, p := range payloads {
		f.streams[name] = append(f.streams[name], string(p))
	}
	f.mu.Unlock()
	done(first, nil)
}

func (f *fakeService) Read(ctx context.Context, name string, o *wire.ReadMessagesOptions) ([]wire.Message, error) {
	if f.onRead != nil {
		return f.onRead(ctx, name, o)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []wire.Message
	for n, p := range f.streams[name] {
		out = append(out, wire.Message{StreamName: name, SequenceNumber: int64(n), Payload: []byte(p)})
	}
	if out == nil {
		return nil, wire.Errorf(wire.NotEnoughMessages, "none")
	}
	return out, nil
}

// untilStopped is a read that nothing satisfies.
func untilStopped(ctx context.Context, _ string, _ *wire.ReadMessagesOptions) ([]wire.Message, error) {
	<-ctx.Done()
	return nil, wire.Errorf(wire.NotEnoughMessages, "stopped")
}

// runServer serves until the test ends or stop is called, which returns when Run has.
func runServer(t testing.TB, s *Server) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Run(ctx, func() { close(ready) }); err != nil {
			t.Error(err)
		}
	}()
	<-ready
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

// openDoor serves on a free port of loopback.
func openDoor(t testing.TB, service Service, change ...func(*Config)) (s *Server, stop func(), log *testenv.Output) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	for _, f := range change {
		f(&cfg)
	}
	log = &testenv.Output{}
	s, err := OpenServer(t.Context(), cfg, service, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s, runServer(t, s), log
}

// doorClient speaks frames. It fails the test when the door does not answer.
type doorClient struct {
	t  testing.TB
	nc net.Conn
	br *bufio.Reader
}

const patience = 20 * time.Second // of a test that waits for what must come

func newDoorClient(t testing.TB, nc net.Conn) *doorClient {
	t.Cleanup(func() { nc.Close() })
	return &doorClient{t, nc, bufio.NewReader(nc)}
}

// dial connects without a handshake.
func dial(t testing.TB, s *Server) *doorClient {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return newDoorClient(t, nc)
}

// connect is dial and a handshake that succeeds.
func connect(t testing.TB, s *Server, token string) *doorClient {
	t.Helper()
	c := dial(t, s)
	c.greet(token)
	return c
}

func (c *doorClient) greet(token string) {
	c.t.Helper()
	r := c.hello(&wire.Connect{RequestID: "c", ProtocolVersion: "1.1.0", OtherSupportedProtocolVersions: []string{"1.0.0"}, SDKVersion: "1.1.0", AuthToken: token})
	if r.Status != wire.Success {
		c.t.Fatalf("handshake: %s %s", r.Status, r.ErrorMessage)
	}
}

func (c *doorClient) hello(connect *wire.Connect) *wire.ConnectResponse {
	c.t.Helper()
	c.write(c.frame([]byte{wire.ConnectVersion}, wire.OpConnect, connect))
	return c.welcome()
}

// welcome reads the version byte and a ConnectResponse.
func (c *doorClient) welcome() *wire.ConnectResponse {
	c.t.Helper()
	if b, err := c.br.ReadByte(); err != nil || b != wire.ConnectVersion {
		c.t.Fatalf("version byte %d, %v", b, err)
	}
	r := &wire.ConnectResponse{}
	c.receive(wire.OpConnectResponse, r)
	return r
}

func (c *doorClient) frame(dst []byte, op wire.Operation, body wire.Body) []byte {
	c.t.Helper()
	b, err := wire.AppendFrame(dst, op, body)
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c *doorClient) write(b []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *doorClient) send(op wire.Operation, body wire.Body) {
	c.t.Helper()
	c.write(c.frame(nil, op, body))
}

// receive reads a frame of an operation into r and returns what it says of the request.
func (c *doorClient) receive(want wire.Operation, r wire.Reply) error {
	c.t.Helper()
	op, payload, err := wire.ReadFrame(c.br, nil, wire.MaxFrame)
	if err != nil {
		c.t.Fatalf("read an answer: %v", err)
	}
	if op != want {
		c.t.Fatalf("operation %d, want %d", op, want)
	}
	return wire.DecodeResponse(payload, r)
}

// answer reads any response, of which it tells the operation and the common part.
func (c *doorClient) answer() (wire.Operation, wire.Response) {
	c.t.Helper()
	op, payload, err := wire.ReadFrame(c.br, nil, wire.MaxFrame)
	if err != nil {
		c.t.Fatalf("read an answer: %v", err)
	}
	var r wire.Response
	_ = wire.DecodeResponse(payload, &r) // its failure is in r
	return op, r
}

// want reads a response and checks who is answered, and how.
func (c *doorClient) want(op wire.Operation, id string, status wire.Status) wire.Response {
	c.t.Helper()
	got, r := c.answer()
	if got != op || r.RequestID != id || r.Status != status {
		c.t.Fatalf("operation %d, id %q, %s (%s); want %d, %q, %s", got, r.RequestID, r.Status, r.ErrorMessage, op, id, status)
	}
	return r
}

// wantEnd checks that the door closes the connection.
func (c *doorClient) wantEnd() {
	c.t.Helper()
	if b, err := c.br.ReadByte(); err == nil {
		c.t.Fatalf("got byte %#x, want the end", b)
	} else if e, ok := err.(net.Error); ok && e.Timeout() { //nolint:errorlint // as the connection returns it
		c.t.Fatal("the connection stays open")
	}
}

func (c *doorClient) create(name string) {
	c.t.Helper()
	c.send(wire.OpCreate, &wire.CreateRequest{RequestID: "create", Definition: &wire.MessageStreamDefinition{Name: name, StrategyOnFull: wire.NewInt(1)}})
	c.want(wire.OpCreateResponse, "create", wire.Success)
}

func appendRequest(id, name, payload string) *wire.AppendRequest {
	return &wire.AppendRequest{RequestID: id, Name: name, Payload: []byte(payload)}
}

// pipes is a listener whose connections are net.Pipes, so that they live in the fake time of synctest.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	ended chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), ended: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.ended) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p *pipes) dial(t testing.TB) *doorClient {
	mine, theirs := net.Pipe()
	p.conns <- theirs
	return newDoorClient(t, mine)
}

// openPipes serves a fake listener.
func openPipes(t testing.TB, service Service) (s *Server, p *pipes, stop func()) {
	p = newPipes()
	cfg := DefaultConfig()
	s = newServer(cfg, nil, service, p, slog.New(slog.NewTextHandler(io.Discard, nil)))
	return s, p, runServer(t, s)
}
