package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-io/leat/internal/listen"

	"github.com/gorilla/websocket"
	"github.com/mochi-mqtt/server/v2/listeners"
)

// door is one listener, in the form that mochi serves. It keeps every socket in a set, so that a stop also ends those
// that never said CONNECT.
type door struct {
	b        *Broker
	ep       endpoint
	raw      net.Listener
	tls      *tls.Config
	handlers sync.WaitGroup // connections being served
	until    atomic.Int64   // when stopping: the wall-clock end of all writes, in nanoseconds

	mu      sync.Mutex
	sockets map[*socket]struct{} // guarded by mu
	closed  bool                 // guarded by mu
}

// socket is an accepted TCP connection.
type socket struct {
	net.Conn
	door *door
	once sync.Once
}

// Close closes and forgets the socket.
func (s *socket) Close() error {
	err := s.Conn.Close()
	s.once.Do(func() {
		s.door.mu.Lock()
		delete(s.door.sockets, s)
		s.door.mu.Unlock()
	})
	return err
}

func openDoor(ctx context.Context, b *Broker, ep endpoint) (*door, error) {
	d := &door{b: b, ep: ep, sockets: map[*socket]struct{}{}}
	if ep.tls {
		cfg, err := b.cfg.TLS.load()
		if err != nil {
			return nil, err
		}
		d.tls = cfg
	}
	var err error
	d.raw, err = listen.TCP(ctx, ep.addr, ep.key, ep.flag)
	return d, err
}

// Init does nothing: the address is bound already.
func (d *door) Init(*slog.Logger) error { return nil }

// ID is the setting's key.
func (d *door) ID() string { return d.ep.key }

// Address is the bound address.
func (d *door) Address() string { return d.raw.Addr().String() }

// Protocol is the URL's scheme.
func (d *door) Protocol() string {
	return map[[2]bool]string{{false, false}: "mqtt", {true, false}: "mqtts", {false, true}: "ws", {true, true}: "wss"}[[2]bool{d.ep.tls, d.ep.ws}]
}

// Serve accepts until the listener closes.
func (d *door) Serve(establish listeners.EstablishFn) {
	var ln net.Listener = (*gate)(d)
	if d.tls != nil {
		ln = tls.NewListener(ln, d.tls)
	}
	if d.ep.ws {
		d.serveWeb(ln, establish)
		return
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		if !d.begin() {
			c.Close()
			return
		}
		go func() {
			defer d.handlers.Done()
			d.serve(c, establish)
		}()
	}
}

// begin registers a handler, unless the door is closed.
func (d *door) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.handlers.Add(1)
	return true
}

// serve runs one MQTT connection to its end.
func (d *door) serve(c net.Conn, establish listeners.EstablishFn) {
	defer c.Close()
	mc := &conn{Conn: c, door: d, timeout: d.b.cfg.WriteTimeout}
	if err := c.SetReadDeadline(time.Now().Add(d.b.cfg.ConnectTimeout)); err != nil {
		return
	}
	err := establish(d.ID(), mc)
	if mc.flow == nil && err != nil && !d.b.stopping.Load() && !mc.refused && !errors.Is(err, errLogged) {
		d.b.refuse("handshake", c.RemoteAddr().String(), plainEnd(err))
	}
}

// plainEnd replaces what a half-open connection ends with by words.
func plainEnd(err error) error {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no CONNECT in time")
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return errors.New("closed before CONNECT")
	}
	return err
}

// writeDeadline is when a write that begins now must have ended.
func (d *door) writeDeadline(timeout time.Duration) time.Time {
	if ns := d.until.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Now().Add(timeout)
}

// stopWrites is how long clients have to take the DISCONNECT of a stop.
const stopWrites = 100 * time.Millisecond

// shut stops accepting and lets all writes end soon.
func (d *door) shut() {
	end := time.Now().Add(stopWrites)
	d.until.Store(end.UnixNano())
	d.raw.Close() //nolint:errcheck // nothing to do about it
	for _, s := range d.close() {
		s.SetWriteDeadline(end) //nolint:errcheck // a dead socket ends its writes anyway
	}
}

func (d *door) close() []*socket {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	out := make([]*socket, 0, len(d.sockets))
	for s := range d.sockets {
		out = append(out, s)
	}
	return out
}

// Close tells clients goodbye and closes every socket.
func (d *door) Close(closeClients listeners.CloseFn) {
	d.shut()
	closeClients(d.ID())
	for _, s := range d.close() {
		s.Close() //nolint:errcheck // nothing to do about it
	}
}

func (d *door) open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.sockets)
}

// gate is the door as a net.Listener that lets only those in who may try.
type gate door

// Addr is the bound address.
func (g *gate) Addr() net.Addr { return g.raw.Addr() }

// Close closes the listener.
func (g *gate) Close() error { return g.raw.Close() }

// Accept waits for the next admitted connection. Errors that pass (too many open files) are waited out.
func (g *gate) Accept() (net.Conn, error) {
	d, wait := (*door)(g), 5*time.Millisecond
	for {
		c, err := g.raw.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || d.b.stopping.Load() {
				return nil, err
			}
			d.b.refuse("accept", "", err)
			select {
			case <-d.b.abandon:
			case <-time.After(wait):
			}
			wait = min(2*wait, time.Second)
			continue
		}
		wait = 5 * time.Millisecond
		d.b.counters.connections.Add(1)
		if s, err := d.admit(c); err != nil {
			d.b.refuse("admission", c.RemoteAddr().String(), err)
			c.Close() //nolint:errcheck // refused anyway
		} else {
			return s, nil
		}
	}
}

// admit applies the rules that need no byte from the client.
func (d *door) admit(c net.Conn) (*socket, error) {
	if !d.ep.tls && !isLoopback(c.RemoteAddr()) && !within(c.RemoteAddr(), d.b.cfg.AllowPlain) {
		return nil, errors.New("no TLS from this network: use tls_listen, or add it to mqtt.allow_plain")
	}
	// A few more sockets than clients, so that those beyond the limit can be told so.
	limit := d.b.cfg.MaxConnections + d.b.cfg.MaxConnections/8 + 8
	s := &socket{Conn: c, door: d}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.sockets) >= limit {
		return nil, fmt.Errorf("%d connections are open: the limit is mqtt.max_connections", len(d.sockets))
	}
	d.sockets[s] = struct{}{}
	return s, nil
}

func isLoopback(a net.Addr) bool {
	ip, ok := ipOf(a)
	return ok && ip.IsLoopback()
}

// serveWeb serves MQTT over WebSocket.
func (d *door) serveWeb(ln net.Listener, establish listeners.EstablishFn) {
	up := websocket.Upgrader{
		Subprotocols:     []string{"mqtt", "mqttv3.1"},
		CheckOrigin:      func(r *http.Request) bool { return d.originAllowed(r) },
		HandshakeTimeout: d.b.cfg.ConnectTimeout,
		ReadBufferSize:   1024, WriteBufferSize: 1024,
	}
	srv := &http.Server{
		ReadHeaderTimeout: d.b.cfg.ConnectTimeout,
		IdleTimeout:       d.b.cfg.ConnectTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(demote{d.b.log.Handler()}, slog.LevelDebug),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !d.begin() {
				http.Error(w, "stopping", http.StatusServiceUnavailable)
				return
			}
			defer d.handlers.Done()
			c, err := up.Upgrade(w, r, nil)
			if err != nil {
				d.b.refuse("websocket", r.RemoteAddr, err)
				return
			}
			c.SetReadLimit(int64(d.b.cfg.MaxPacketSize) + 1<<16)
			d.serve(&webConn{Conn: c.NetConn(), web: c}, establish)
		}),
	}
	srv.Serve(ln) //nolint:errcheck // ends when the listener closes
	srv.Close()   //nolint:errcheck // nothing to do about it
}

// originAllowed keeps web pages of other sites out: a browser sends Origin, a device does not. The Host must be the
// machine's own too, or a page could rebind its name to 127.0.0.1.
func (d *door) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	if slices.Contains(d.b.cfg.WSOrigins, origin) {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil || !strings.EqualFold(u.Host, r.Host) {
		return false
	}
	host := u.Hostname()
	return host == "localhost" || net.ParseIP(host) != nil
}

// webConn is a WebSocket as a stream of bytes [MQTT-6.0.0-1 to -3].
type webConn struct {
	net.Conn
	web  *websocket.Conn
	rest io.Reader // of the message being read; nil between messages
}

// Read reads on in the current message or waits for the next.
func (w *webConn) Read(p []byte) (int, error) {
	for {
		if w.rest == nil {
			kind, r, err := w.web.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("a text message on a WebSocket: MQTT packets are binary") // [MQTT-6.0.0-1]
			}
			w.rest = r
		}
		n, err := w.rest.Read(p)
		if errors.Is(err, io.EOF) {
			w.rest, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write sends p as one message.
func (w *webConn) Write(p []byte) (int, error) {
	if err := w.web.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}
