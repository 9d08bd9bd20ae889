// Package client is a small client of the Stream Manager for leat's own use: benchmarks, tests, programs. Programs of
// others have the official SDKs.
//
// # Guarantees
//
//   - A Client may be used by many goroutines at once. Their requests are pipelined on its one connection, and responses
//     are matched by id, in any order.
//   - What the server refuses is a *wire.Error with its status; what is wrong with the connection is an Unavailable error,
//     which says nothing about whether the server did what it was asked.
//   - A call ends when its context does. Its answer, should it come, is dropped; the connection stays usable.
//
// # Goroutines and locks
//
// There is no goroutine that reads. Whoever waits for an answer and finds nobody reading reads for all, until its own
// answer is there, and hands that duty on: a single caller writes, reads and decodes without another goroutine being woken.
// The duty is the token in Client.reader. Client.writing is held over one write, Client.mu never over I/O. A context that
// ends runs a function in a goroutine of package context for an instant, which the call waits for.
//
// # What it does not do
//
// It does not reconnect, and a request that was cut off in the middle by its context ends the connection: after an Unavailable error without a context's in it, dial again. It does not retry.
package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// Options are those of Dial. The zero value is usable.
type Options struct {
	Token string // for a server that authenticates; it is sent as it is
}

// Client is one connection. Close it.
type Client struct {
	conn   net.Conn
	server wire.ConnectResponse
	lastID atomic.Uint64

	writing sync.Mutex // guards out, and keeps frames whole
	out     []byte

	reader chan struct{} // holds one token: who takes it may read from conn, and use in, start and end
	in     []byte
	start  int // in[start:end] has been read and not been taken
	end    int

	mu     sync.Mutex // guards what follows
	calls  map[string]*call
	failed error // why the connection cannot be used any more
}

// call is a request that waits for its answer.
type call struct {
	op    wire.Operation // of the answer
	reply wire.Reply     // who takes the call out of Client.calls may write to it, until done has an element
	done  chan error     // gets one element
}

// maxKeptBuffer is the largest buffer that is kept for the next frame, in bytes.
const maxKeptBuffer = 1 << 20

// sdkVersion is what the client calls itself; the protocol has no other place for a name.
const sdkVersion = "leat"

var errClosed = record.Errorf(record.Unavailable, "the client is closed")

// Dial connects to addr ("127.0.0.1:8088") and shakes hands; ctx bounds both.
func Dial(ctx context.Context, addr string, o Options) (*Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, record.Errorf(record.Unavailable, "connect to the Stream Manager: %w", err)
	}
	c := &Client{conn: conn, in: make([]byte, 16<<10), reader: make(chan struct{}, 1), calls: map[string]*call{}}
	c.reader <- struct{}{}
	if err := c.handshake(ctx, o); err != nil {
		conn.Close() // the handshake's error says more
		return nil, err
	}
	return c, nil
}

func (c *Client) handshake(ctx context.Context, o Options) error {
	defer interruptible(ctx, c.conn, net.Conn.SetDeadline)()
	hello, err := wire.AppendFrame([]byte{wire.ConnectVersion}, wire.OpConnect, &wire.Connect{
		RequestID: "connect", ProtocolVersion: wire.ProtocolVersions[0], OtherSupportedProtocolVersions: wire.ProtocolVersions[1:],
		SDKVersion: sdkVersion, AuthToken: o.Token,
	})
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(hello); err != nil {
		return lost(err)
	}
	if _, err := io.ReadFull(c.conn, c.in[:1]); err != nil {
		return lost(err)
	}
	if c.in[0] != wire.ConnectVersion {
		return wire.Errorf(wire.UnsupportedConnectVersion, "the server begins with byte %d: is it a Stream Manager?", c.in[0])
	}
	op, payload, err := c.frame()
	if err != nil {
		return lost(err)
	}
	if op != wire.OpConnectResponse {
		return wire.Errorf(wire.UnexpectedOperation, "the server answers with operation %d, not with %d", op, wire.OpConnectResponse)
	}
	return wire.DecodeResponse(payload, &c.server)
}

// Server is what the server told of itself when it was dialled.
func (c *Client) Server() wire.ConnectResponse { return c.server }

// Close ends the connection and every call on it. It returns when nothing reads any more.
func (c *Client) Close() error {
	c.fail(errClosed)
	<-c.reader
	c.reader <- struct{}{}
	return nil
}

// do sends a request and waits for its answer.
func (c *Client) do(ctx context.Context, op wire.Operation, id string, req wire.Body, reply wire.Reply) error {
	k := &call{op: op.Response(), reply: reply, done: make(chan error, 1)}
	c.mu.Lock()
	if c.failed != nil {
		defer c.mu.Unlock()
		return c.failed
	}
	c.calls[id] = k
	c.mu.Unlock()
	if err := c.send(ctx, op, req); err != nil {
		if c.take(id) == nil {
			return <-k.done // why the connection failed
		}
		return err
	}
	for {
		select {
		case err := <-k.done:
			return err
		case <-c.reader:
			c.read(ctx, k)
			c.reader <- struct{}{}
		case <-ctx.Done():
			if c.take(id) == nil {
				return <-k.done // somebody is decoding it at this moment
			}
			return lost(ctx.Err())
		}
	}
}

// send writes a request as one frame.
func (c *Client) send(ctx context.Context, op wire.Operation, req wire.Body) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	frame, err := wire.AppendFrame(c.out[:0], op, req)
	if err != nil {
		return err
	}
	if cap(frame) <= maxKeptBuffer {
		c.out = frame
	}
	defer interruptible(ctx, c.conn, net.Conn.SetWriteDeadline)()
	if n, err := c.conn.Write(frame); err != nil {
		if n > 0 || ctx.Err() == nil { // what follows half a frame is not understood
			c.fail(lost(err))
		}
		return lost(err)
	}
	return nil
}

// read takes answers for everybody until there is one for k, ctx ends, or the connection fails. The caller has the token.
func (c *Client) read(ctx context.Context, k *call) {
	defer interruptible(ctx, c.conn, net.Conn.SetReadDeadline)()
	for len(k.done) == 0 {
		op, payload, err := c.frame()
		if err != nil {
			if ctx.Err() == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
				c.fail(lost(err))
			}
			return
		}
		c.deliver(op, payload)
	}
}

// deliver gives an answer to the call that waits for it; without one it is dropped.
func (c *Client) deliver(op wire.Operation, payload []byte) {
	id, _ := wire.RequestID(payload)
	k := c.take(id)
	if k == nil {
		return
	}
	if _, ok := k.reply.(*wire.ReadResponse); ok {
		payload = bytes.Clone(payload) // its messages alias it
	}
	err := wire.DecodeResponse(payload, k.reply)
	if err == nil && op != k.op {
		err = wire.Errorf(wire.UnknownFailure, "the server answers with operation %d, not with %d", op, k.op)
	}
	k.done <- err
}

// take takes a call out of those that wait; nil when it is not there any more.
func (c *Client) take(id string) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.calls[id]
	delete(c.calls, id)
	return k
}

// fail ends the connection and every call that waits. The first reason stays.
func (c *Client) fail(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return
	}
	c.failed = why
	c.conn.Close() // nothing was promised of bytes on their way
	for id, k := range c.calls {
		delete(c.calls, id)
		k.done <- why
	}
}

// frame takes the next frame; its payload is valid until the next one is taken. What had been read of a frame when a
// deadline passed is kept for the next attempt.
func (c *Client) frame() (op wire.Operation, payload []byte, err error) {
	for {
		have, need := c.in[c.start:c.end], wire.HeaderSize
		if len(have) >= need {
			op, size, err := wire.ParseHeader(have)
			if err != nil {
				return 0, nil, err
			}
			if need += size; len(have) >= need {
				c.start += need
				return op, have[wire.HeaderSize:need], nil
			}
		}
		c.room(need)
		n, err := c.conn.Read(c.in[c.end:])
		c.end += n
		if n == 0 && err != nil {
			return 0, nil, err
		}
	}
}

// room moves what has been read to the front of in, and sees to it that more can be read of a frame of need bytes. It
// grows by doubling: memory follows what has arrived.
func (c *Client) room(need int) {
	into := c.in
	switch held := c.end - c.start; {
	case held == len(c.in) && need > held:
		into = make([]byte, min(need, 2*len(c.in)))
	case held == 0 && len(c.in) > maxKeptBuffer:
		into = make([]byte, 16<<10)
	}
	if c.start > 0 || len(into) != len(c.in) {
		c.end = copy(into, c.in[c.start:c.end])
		c.start, c.in = 0, into
	}
}

// interruptible lets ctx interrupt I/O through a deadline, until the function that it returns is called, which also
// removes the deadline.
func interruptible(ctx context.Context, conn net.Conn, setDeadline func(net.Conn, time.Time) error) (done func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = setDeadline(conn, time.Unix(1, 0)) // it fails on a closed connection only, which interrupts as well
	})
	return func() {
		if !stop() {
			<-fired
			_ = setDeadline(conn, time.Time{}) // as above
		}
	}
}

func lost(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return record.Errorf(record.Unavailable, "Stream Manager's connection: %w", err)
}

func (c *Client) nextID() string { return strconv.FormatUint(c.lastID.Add(1), 10) }
