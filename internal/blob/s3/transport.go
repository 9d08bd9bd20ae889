package s3

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// sendBuffer is how many bytes of a request the kernel takes before they are on the wire. It bounds what has to drain
// after the last write and before the answer can come, so that a slow line is not taken for a hanging store: with 30 s
// of StallTimeout, 9 kB/s is fast enough.
const sendBuffer = 256 << 10

// newHTTPClient returns a client that gives up on a connection when no byte moves for the stall timeout, and never
// because a transfer as a whole takes long. The function it returns closes idle connections.
func newHTTPClient(cfg *Config) (client aws.HTTPClient, closeIdle func()) {
	var transport *http.Transport
	client = awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		dialer := &net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: 15 * time.Second}
		t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			if tcp, ok := conn.(*net.TCPConn); ok {
				if err := tcp.SetWriteBuffer(sendBuffer); err != nil {
					conn.Close()
					return nil, err
				}
			}
			return &stallConn{Conn: conn, limit: cfg.StallTimeout}, nil
		}
		// One connection each for HTTP/1.1: deadlines of a shared HTTP/2 connection would be everybody's.
		t.ForceAttemptHTTP2 = false
		t.TLSHandshakeTimeout = cfg.ConnectTimeout
		t.MaxIdleConnsPerHost = cfg.Concurrency + 2
		// Idle connections go before their own read deadline makes them look like failures.
		t.IdleConnTimeout = cfg.StallTimeout / 2
		transport = t
	}).Freeze() // else the SDK would put its own dialer in place of ours
	return client, func() {
		transport.CloseIdleConnections()
		if c, ok := client.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
	}
}

// stallConn is a connection whose reads and writes fail when nothing moves for limit. Progress of either side extends
// the other's deadline: net/http reads all the time, also while a long request is still being written.
type stallConn struct {
	net.Conn
	limit time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write passes on at most 64 KiB at a time, so that each piece has the whole limit.
func (c *stallConn) Write(p []byte) (n int, err error) {
	for first := true; first || len(p) > 0; first = false {
		if err := c.SetDeadline(time.Now().Add(c.limit)); err != nil {
			return n, err
		}
		done, err := c.Conn.Write(p[:min(len(p), 64<<10)])
		n += done
		if err != nil {
			return n, err
		}
		p = p[done:]
	}
	return n, c.SetReadDeadline(time.Now().Add(c.limit))
}
