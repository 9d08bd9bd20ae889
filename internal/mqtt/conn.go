package mqtt

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/auth"
)

// maxConnect bounds a CONNECT packet, in bytes: three names and a will of 64 KiB each. It is checked before anything
// is allocated for the packet, since anybody may send the first five bytes.
const maxConnect = 256 << 10

// conn is what mochi reads from and writes to: a TCP, TLS or WebSocket connection that checks how a client begins,
// gives up writing to clients that do not read, and tells the flow when the parser runs out of bytes.
type conn struct {
	net.Conn
	door      *door
	timeout   time.Duration // of one write
	principal *auth.Principal
	refused   bool  // whether a refusal was logged already
	flow      *flow // nil before the session; used by the connection's read loop only

	head  [5]byte // the first bytes received
	nhead int     // how many of them; -1 when they are checked

	mu     sync.Mutex // one writer at a time; each Write is a number of whole packets
	window window     // guarded by mu; limit is set before the first message is sent
}

// Read submits what the parser has made of the bytes before, then waits for more.
func (c *conn) Read(p []byte) (int, error) {
	if c.flow != nil {
		c.flow.submit()
	}
	n, err := c.Conn.Read(p)
	if n > 0 && c.nhead >= 0 {
		c.nhead += copy(c.head[c.nhead:], p[:n])
		complete, bad := checkConnect(c.head[:c.nhead], maxConnect)
		if bad != nil {
			return 0, bad
		}
		if complete {
			c.nhead = -1
		}
	}
	return n, err
}

// Write writes whole packets, those of the window at once or later.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(p)
	if c.window.limit > 0 {
		if p = c.window.pass(nil, p); len(p) == 0 {
			return n, nil
		}
	}
	if err := c.send(p); err != nil {
		return 0, err
	}
	return n, nil
}

// acknowledged lets the next messages go that waited for the client's acknowledgements.
func (c *conn) acknowledged(id uint16) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.window.limit == 0 {
		return nil
	}
	next := c.window.acknowledged(id)
	if len(next) == 0 {
		return nil
	}
	return c.send(next)
}

func (c *conn) send(p []byte) error {
	if err := c.Conn.SetWriteDeadline(c.door.writeDeadline(c.timeout)); err != nil {
		return err
	}
	_, err := c.Conn.Write(p)
	return err
}

// certificate is what the client presented and the handshake verified, or nil.
func (c *conn) certificate() *x509.Certificate {
	inner := c.Conn
	if w, ok := inner.(*webConn); ok {
		inner = w.Conn
	}
	if t, ok := inner.(*tls.Conn); ok {
		if peers := t.ConnectionState().VerifiedChains; len(peers) > 0 {
			return peers[0][0]
		}
	}
	return nil
}

// SetDeadline is how mochi enforces the keep-alive; it concerns reading only here, because writes have their own.
func (c *conn) SetDeadline(t time.Time) error {
	if !t.IsZero() {
		t = t.Add(time.Second / 2) // mochi rounds one and a half keep-alives down to seconds [MQTT-3.1.2-22]
	}
	return c.Conn.SetReadDeadline(t)
}

// checkConnect looks at the first bytes of a connection: complete is true when they are the whole fixed header of a
// CONNECT of at most limit bytes; an error means they cannot become one.
func checkConnect(b []byte, limit int) (complete bool, err error) {
	if len(b) == 0 {
		return false, nil
	}
	if b[0] != 0x10 {
		return false, notMQTT(b)
	}
	size := 0
	for i := 1; i < len(b); i++ {
		if i > 4 {
			break
		}
		size |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i]&0x80 != 0 {
			continue
		}
		if size > limit {
			return false, fmt.Errorf("CONNECT of %d bytes: at most %d", size, limit)
		}
		return true, nil
	}
	if len(b) >= 5 {
		return false, errors.New("no MQTT: the packet length never ends")
	}
	return false, nil
}

// notMQTT says what a first byte that is no CONNECT probably is.
func notMQTT(b []byte) error {
	switch {
	case b[0] == 0x16:
		return errors.New("no MQTT but TLS: the client wants tls_listen")
	case bytes.ContainsAny(b[:1], "GPHDOC"):
		return errors.New("no MQTT but perhaps HTTP: browsers want ws_listen")
	}
	return fmt.Errorf("no MQTT: the first byte is 0x%02x, a CONNECT begins with 0x10", b[0])
}
