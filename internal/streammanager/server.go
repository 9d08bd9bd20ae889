package streammanager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/leat-io/leat/internal/listen"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// Definitions is the part of a Service that makes, changes and shows streams. Errors become the client's status and message
// as wire.StatusOf says.
type Definitions interface {
	Create(ctx context.Context, d *wire.MessageStreamDefinition) error
	Update(ctx context.Context, d *wire.MessageStreamDefinition) error
	Delete(ctx context.Context, name string) error
	// List returns the names of all streams.
	List() []string
	Describe(name string) (*wire.MessageStreamInfo, error)
}

// Messages is the part of a Service that takes and gives messages.
type Messages interface {
	// Append stores the payloads as consecutive messages, all or none. done is called exactly once, with the sequence
	// number of the first or the error; it may be called before Append returns and does not block. Append waits only
	// for admission, until ctx ends. payloads and what they point to are the caller's again when it has returned.
	Append(ctx context.Context, name string, payloads [][]byte, done func(first int64, err error))
	// Read returns messages as section 5 of the protocol says; o may be nil. It waits itself, for readTimeoutMillis
	// less a margin. When ctx ends before, it answers at once with what it has or NotEnoughMessages. How much memory
	// one answer may take is for it to bound.
	Read(ctx context.Context, name string, o *wire.ReadMessagesOptions) ([]wire.Message, error)
}

// Service is what stands behind the door. Its methods are called from many goroutines at once.
type Service interface {
	Definitions
	Messages
}

// The limits and times of a Server.
const (
	maxMemory     = 64 << 20    // bytes of all frames above freeFrame that are being read or admitted
	maxReads      = 10_000      // reads that wait at a time, of all connections
	sweepInterval = time.Second // how often requests are looked at for their time
	stopTime      = time.Second // at a stop, for what is in flight
	flushTime     = 500 * time.Millisecond
	acceptPause   = 5 * time.Millisecond // after a failed accept, doubled up to acceptPauseMost
	acceptMost    = time.Second
)

// Server is the door: it accepts connections and speaks the protocol.
type Server struct {
	cfg     Config
	service Service
	log     *slog.Logger
	tokens  tokens
	ln      net.Listener
	memory  *semaphore.Weighted // of maxMemory
	count   counters
	refusal refusals
	reads   atomic.Int64 // in flight

	reading     context.Context // ends when the door closes: reads answer with what they have
	stopReading context.CancelFunc
	work        context.Context // ends stopTime later: nothing is waited for any more
	abort       context.CancelFunc
	stopOnce    sync.Once

	mu       sync.Mutex
	conns    map[*conn]struct{} // guarded by mu
	number   uint64             // of the last connection; guarded by mu
	stopping bool               // guarded by mu
	handlers sync.WaitGroup     // one for each of conns
}

// OpenServer binds the address and reads the tokens. Call Run to serve, and Close in any case. cfg must be valid. A busy
// port is a Conflict error that names who has it.
func OpenServer(ctx context.Context, cfg Config, service Service, log *slog.Logger) (*Server, error) {
	var list tokens
	if cfg.authenticates() {
		var err error
		if list, err = loadTokens(cfg.TokensFile, log); err != nil {
			return nil, err
		}
	}
	ln, err := listen.TCP(ctx, cfg.Listen, "stream_manager.listen", "--stream-manager-listen")
	if err != nil {
		return nil, err
	}
	return newServer(cfg, list, service, ln, log), nil
}

func newServer(cfg Config, list tokens, service Service, ln net.Listener, log *slog.Logger) *Server {
	s := &Server{
		cfg: cfg, service: service, log: log, tokens: list, ln: ln, memory: semaphore.NewWeighted(maxMemory),
		refusal: refusals{log: log, seen: map[string]*refusal{}}, conns: map[*conn]struct{}{},
	}
	s.work, s.abort = context.WithCancel(context.Background())
	s.reading, s.stopReading = context.WithCancel(s.work)
	return s
}

// Addr is the bound address.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Stats tells what the door has done. It may be called at any time.
func (s *Server) Stats() ServerStats {
	st := s.count.snapshot()
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Open = len(s.conns)
	return st
}

// Run serves until ctx ends, answers what is in flight, and returns nil within two seconds if the Service keeps to its
// contexts. It calls ready when the door is open. A Server runs once.
func (s *Server) Run(ctx context.Context, ready func()) error {
	var loops sync.WaitGroup
	closed := make(chan struct{})
	loops.Go(func() {
		s.accept()
		close(closed)
	})
	loops.Go(s.sweep)
	// The original's acceptance tests, and programs that wait for it to be up, look for exactly this text.
	s.log.Info("Stream Manager reporting the state: RUNNING", "address", s.ln.Addr().String(), "authentication", s.cfg.authenticates())
	ready()
	select {
	case <-ctx.Done():
	case <-closed:
	}
	s.stop()
	loops.Wait()
	return nil
}

// Close stops serving and frees the address. It waits as Run does, and is idempotent.
func (s *Server) Close() error {
	s.stop()
	return nil
}

// stop closes the door and waits until every connection has ended.
func (s *Server) stop() {
	s.stopOnce.Do(func() {
		s.ln.Close() //nolint:errcheck // nothing to do about it
		s.mu.Lock()
		s.stopping = true
		s.stopReading()
		for c := range s.conns {
			c.stop()
		}
		s.mu.Unlock()
		late := time.AfterFunc(stopTime, s.abort)
		s.handlers.Wait()
		late.Stop()
		s.abort()
	})
}

// accept starts connections until the listener is closed. Errors that pass (too many open files) are waited out.
func (s *Server) accept() {
	pause := acceptPause
	for {
		nc, err := s.ln.Accept()
		switch {
		case err == nil:
			pause = acceptPause
			s.admit(nc)
			continue
		case errors.Is(err, net.ErrClosed), s.reading.Err() != nil:
			return
		}
		s.refusal.report("accept", "", err)
		select {
		case <-s.reading.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, acceptMost)
	}
}

// admit applies the rules that need no byte from the client, and starts the connection. TCP_NODELAY and keep-alive are what
// package net sets.
func (s *Server) admit(nc net.Conn) {
	s.count.accepted.Add(1)
	err := s.mayConnect(nc.RemoteAddr())
	if err == nil {
		err = s.begin(nc)
	}
	if err != nil {
		s.refused("admission", nc.RemoteAddr(), err)
		nc.Close() //nolint:errcheck // refused anyway
	}
}

// begin registers a connection and starts its goroutine.
func (s *Server) begin(nc net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return errStopped
	}
	if len(s.conns) >= s.cfg.MaxConnections {
		return fmt.Errorf("%d connections are open: the limit is stream_manager.max_connections", len(s.conns))
	}
	s.number++
	c := newConn(s, nc, fmt.Sprintf("client-%d", s.number))
	s.conns[c] = struct{}{}
	s.handlers.Go(c.serve)
	return nil
}

// forget is the end of begin.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// refused counts and logs a connection that did not come to be.
func (s *Server) refused(kind string, from net.Addr, err error) {
	s.count.refused.Add(1)
	if !errors.Is(err, errStopped) {
		s.refusal.report(kind, from.String(), err)
	}
}

// mayConnect applies allow_plain, which counts only where other machines can reach the listener.
func (s *Server) mayConnect(from net.Addr) error {
	if listen.Loopback(s.cfg.Listen) {
		return nil
	}
	ap, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return fmt.Errorf("no IP address: %w", err)
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.IsLoopback() {
		return nil
	}
	for _, n := range s.cfg.AllowPlain {
		if n.Contains(ip) {
			return nil
		}
	}
	return errors.New("not from a network of stream_manager.allow_plain")
}

// sweep looks at every request in flight for its time.
func (s *Server) sweep() {
	t := time.NewTicker(sweepInterval)
	defer t.Stop()
	for {
		select {
		case <-s.work.Done():
			return
		case now := <-t.C:
			for _, c := range s.all() {
				c.sweep(now)
			}
		}
	}
}

func (s *Server) all() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		list = append(list, c)
	}
	return list
}

// takeRead admits one more read, unless too many wait.
func (s *Server) takeRead() bool {
	if s.reads.Add(1) > maxReads {
		s.reads.Add(-1)
		return false
	}
	return true
}

func (s *Server) releaseRead() { s.reads.Add(-1) }
