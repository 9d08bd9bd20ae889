package awsclient

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// sendBuffer is how many bytes of a request the kernel takes before they are on the wire. It bounds what has to drain
// after the last write and before the answer can come, so that a slow line is not taken for a hanging server: with 30 s
// of StallTimeout, 9 kB/s is fast enough.
const sendBuffer = 256 << 10

// HTTPOptions are the settings of connections. Both timeouts are above 0.
type HTTPOptions struct {
	// ConnectTimeout limits making a connection, TLS included.
	ConnectTimeout time.Duration
	// StallTimeout limits how long no byte moves on a connection in use.
	StallTimeout time.Duration
	// IdleConns is how many idle connections are kept per host.
	IdleConns int
	// FollowRedirects follows 307 and 308, with which S3 answers for buckets that are new or elsewhere. Without it, and
	// for other redirects, the answer that redirects is the answer: following would make a GET without body of a POST,
	// and carry the body to hosts that nobody configured.
	FollowRedirects bool
}

// NewHTTPClient returns a client that gives up on a connection when no byte moves for the stall timeout, and never
// because a transfer as a whole takes long. It is safe for concurrent use. Its owner calls CloseIdleConnections at the
// end. (It is not the SDK's frozen client, which does not pass that call on.)
func NewHTTPClient(o HTTPOptions) *http.Client {
	t := awshttp.NewBuildableClient().GetTransport()
	t.DialContext = dialer(o)
	// One connection each for HTTP/1.1: deadlines of a shared HTTP/2 connection would be everybody's.
	t.ForceAttemptHTTP2 = false
	t.TLSHandshakeTimeout = o.ConnectTimeout
	t.MaxIdleConnsPerHost = o.IdleConns
	// Idle connections go before their own read deadline makes them look like failures.
	t.IdleConnTimeout = o.StallTimeout / 2
	return &http.Client{Transport: t, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		status := r.Response.StatusCode
		if !o.FollowRedirects || len(via) >= maxRedirects || (status != http.StatusTemporaryRedirect && status != http.StatusPermanentRedirect) {
			return http.ErrUseLastResponse
		}
		if r.URL.Host != via[len(via)-1].URL.Host {
			r.Header.Del("X-Amz-Security-Token") // net/http does the same with Authorization
		}
		return nil
	}}
}

// maxRedirects is how many redirects of one request are followed.
const maxRedirects = 10

func dialer(o HTTPOptions) func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := &net.Dialer{Timeout: o.ConnectTimeout, KeepAlive: 15 * time.Second}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			if err := tcp.SetWriteBuffer(sendBuffer); err != nil {
				conn.Close()
				return nil, err
			}
		}
		return &stallConn{Conn: conn, limit: o.StallTimeout}, nil
	}
}

// stallConn is a connection whose reads and writes fail when nothing moves for limit. Progress of either side extends
// the other's deadline: net/http reads all the time, also while a long request is still being written.
type stallConn struct {
	net.Conn
	limit time.Duration
	// broken is what the first failed read said. net/http closes the connection then, perhaps under a write, whose own
	// error would only tell that.
	broken atomic.Pointer[error]
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, c.cause(err)
	}
	n, err := c.Conn.Read(p)
	if err != nil {
		c.broken.CompareAndSwap(nil, &err)
	}
	return n, err
}

// cause is why the connection is closed, when that is what err says.
func (c *stallConn) cause(err error) error {
	if first := c.broken.Load(); first != nil && errors.Is(err, net.ErrClosed) {
		return *first
	}
	return err
}

// Write passes on at most 64 KiB at a time, so that each piece has the whole limit.
func (c *stallConn) Write(p []byte) (n int, err error) {
	for first := true; first || len(p) > 0; first = false {
		if err := c.SetDeadline(time.Now().Add(c.limit)); err != nil {
			return n, c.cause(err)
		}
		done, err := c.Conn.Write(p[:min(len(p), 64<<10)])
		n += done
		if err != nil {
			return n, c.cause(err)
		}
		p = p[done:]
	}
	// All is written. That net/http has closed the connection meanwhile is told by the read that made it do so.
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil && !errors.Is(err, net.ErrClosed) {
		return n, err
	}
	return n, nil
}
