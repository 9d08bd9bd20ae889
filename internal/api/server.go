package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/record"
)

// The limits that nobody needs to change.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
	maxBody       = 1 << 20
	stopGrace     = 300 * time.Millisecond // for answers under way when the server stops
)

// Server serves the API.
type Server struct {
	cfg  Config
	node Node
	log  *slog.Logger
	puts chan struct{} // a token for each put under way
}

// New returns a server of node.
func New(cfg Config, node Node, log *slog.Logger) *Server {
	return &Server{cfg: cfg, node: node, log: log, puts: make(chan struct{}, maxPuts)}
}

// Serve answers requests on the socket and, when it is not nil, on the TCP listener until ctx ends. It closes both, lets
// answers under way finish for a moment, cancels the rest and waits for them.
func (s *Server) Serve(ctx context.Context, socket, tcp net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	mux := s.routes()
	servers := []*http.Server{s.server(base, mux)}
	listeners := []net.Listener{socket}
	if tcp != nil {
		servers = append(servers, s.server(base, s.guard(mux)))
		listeners = append(listeners, s.limit(tcp))
	}
	var wg sync.WaitGroup
	errs := make([]error, len(servers))
	failed := make(chan struct{}, len(servers))
	for i, srv := range servers {
		wg.Go(func() {
			if err := srv.Serve(listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				errs[i] = err
				failed <- struct{}{}
			}
		})
	}
	select {
	case <-ctx.Done():
	case <-failed:
	}
	// Long answers (a tail, a query) only end when they are cancelled, so they get that at once when the grace is over.
	grace := time.AfterFunc(stopGrace, cancel)
	defer grace.Stop()
	for _, srv := range servers {
		wg.Go(func() {
			stop, done := context.WithTimeout(context.WithoutCancel(ctx), 2*stopGrace)
			defer done()
			if err := srv.Shutdown(stop); err != nil {
				srv.Close()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Server) server(base context.Context, h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", s.ready)
	if s.node.Metrics != nil {
		mux.Handle("GET /metrics", s.node.Metrics)
	}
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, s.node.Status())
	})
	mux.HandleFunc("GET /api/v1/streams", s.listStreams)
	mux.HandleFunc("DELETE /api/v1/streams", s.remove)
	mux.HandleFunc("GET /api/v1/streams/records", s.records)
	mux.HandleFunc("POST /api/v1/streams/records", s.put)
	mux.HandleFunc("GET /api/v1/lake/files", s.listFiles)
	mux.HandleFunc("POST /api/v1/lake/flush", s.flush)
	mux.HandleFunc("POST /api/v1/query", s.query)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, record.Errorf(record.NotFound, "no such path or method: %s %s", r.Method, r.URL.Path).
			WithHint("the paths are in docs/reference/api.md"))
	})
	return mux
}

// guard protects the TCP side from web pages and from networks that may not connect.
func (s *Server) guard(next http.Handler) http.Handler {
	origins := http.NewCrossOriginProtection()
	origins.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, record.Errorf(record.Denied, "request from a page of another origin"))
	}))
	checked := origins.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.knownHost(r.Host) {
			writeError(w, record.Errorf(record.Denied, "host %q is not allowed", r.Host).
				WithHint("ask by IP address or as localhost, or add the name to http.allowed_hosts"))
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		checked.ServeHTTP(w, r)
	})
}

// knownHost tells whether a Host header is an address, localhost or a configured name. Names a web page could choose by
// pointing its own DNS at this machine are none of these.
func (s *Server) knownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost") ||
		slices.ContainsFunc(s.cfg.AllowedHosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// limit admits MaxConnections at a time, and only from the networks that may connect.
func (s *Server) limit(l net.Listener) net.Listener {
	return &limited{Listener: l, slots: make(chan struct{}, s.cfg.MaxConnections), closed: make(chan struct{}), may: s.mayConnect}
}

func (s *Server) mayConnect(addr net.Addr) bool {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return false
	}
	ip := ap.Addr().Unmap().WithZone("")
	return ip.IsLoopback() || slices.ContainsFunc(s.cfg.AllowPlain, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// limited is a listener that waits with accepting while all slots are taken.
type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
	may    func(net.Addr) bool
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		select {
		case l.slots <- struct{}{}:
		case <-l.closed:
			return nil, net.ErrClosed
		}
		c, err := l.Listener.Accept()
		if err != nil {
			<-l.slots
			return nil, err
		}
		if l.may(c.RemoteAddr()) {
			return &limitedConn{Conn: c, release: func() { <-l.slots }}, nil
		}
		c.Close()
		<-l.slots
	}
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	once    sync.Once
	release func()
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}
