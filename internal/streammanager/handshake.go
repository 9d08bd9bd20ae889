package streammanager

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/leat-io/leat/internal/streammanager/wire"
)

// The limits of a handshake.
const (
	handshakeTime = 10 * time.Second // from the connection to its Connect
	maxConnect    = 16 << 10         // bytes of a Connect's payload
	lingerTime    = 250 * time.Millisecond
)

// serverVersion is that of the protocol's original whose behaviour this door has; clients show it at most.
const serverVersion = "1.1.0"

// handshake is section 2.2 of the protocol: the version byte and Connect one way, the version byte and ConnectResponse
// the other. It answers a refusal too, in a form that all clients understand, and returns why.
func (c *conn) handshake() error {
	if err := c.in.limit(time.Now().Add(handshakeTime)); err != nil {
		return err
	}
	version, err := c.br.ReadByte()
	if err != nil {
		return plainEnd(err)
	}
	if version != wire.ConnectVersion {
		return c.refuseConnect("", wire.Errorf(wire.UnsupportedConnectVersion,
			"the connection begins with byte %d: a client of the Stream Manager begins with %d", version, wire.ConnectVersion))
	}
	op, payload, err := wire.ReadFrame(c.br, nil, maxConnect)
	large, isLarge := errors.AsType[*wire.TooLargeError](err)
	if err != nil && !isLarge {
		return plainEnd(err)
	}
	id, _ := wire.RequestID(payload)
	switch {
	case op != wire.OpConnect:
		return c.refuseConnect(id, wire.Errorf(wire.UnexpectedOperation, "the first operation is %d: want Connect (%d)", op, wire.OpConnect))
	case isLarge:
		return c.refuseConnect(id, wire.Errorf(wire.RequestPayloadTooLarge, "a Connect of %d bytes: at most %d", large.Size, maxConnect))
	}
	req, err := wire.Decode(wire.OpConnect, payload)
	connect, ok := req.(*wire.Connect)
	if err != nil || !ok {
		return c.refuseConnect(id, err)
	}
	if c.grant, err = c.s.authenticate(connect.AuthToken); err != nil {
		return c.refuseConnect(id, err)
	}
	protocol, err := wire.Negotiate(connect)
	if err != nil {
		return c.refuseConnect(id, err)
	}
	c.greet(&wire.ConnectResponse{
		Response: wire.Response{RequestID: id}, ProtocolVersion: protocol, Extensions: []string{wire.ExtensionAppendBatch},
	})
	c.s.log.Debug("Stream Manager client connected", "client", c.id, "address", c.nc.RemoteAddr(), "sdk", fmt.Sprintf("%.32q", connect.SDKVersion),
		"protocol", protocol, "token", c.grant.label())
	return c.in.limit(time.Time{})
}

// greet sends the version byte and the response in one frame, hence in one write.
func (c *conn) greet(resp *wire.ConnectResponse) {
	resp.SupportedProtocolVersions, resp.ServerVersion, resp.ClientIdentifier = wire.ProtocolVersions, serverVersion, c.id
	f := newFrame()
	f.b = append(f.b[:0], wire.ConnectVersion)
	var err error
	if f.b, err = wire.AppendFrame(f.b, wire.OpConnectResponse, resp); err != nil {
		f.release() // unreachable: there is nothing in it that cannot be encoded
		return
	}
	c.out.send(f)
}

// refuseConnect answers with why, waits until the client has had the chance to read that, and returns why. Closing a
// socket that holds unread bytes resets the connection, which may take the answer with it: so those are read first.
func (c *conn) refuseConnect(id string, why error) error {
	resp := &wire.ConnectResponse{Response: wire.Failure(id, why), ProtocolVersion: wire.ProtocolVersions[0]}
	c.s.count.failed(resp.Status)
	c.greet(resp)
	c.out.flush(time.Now().Add(flushTime))
	c.hangUp(maxConnect)
	return why
}

// plainEnd replaces what a half-open connection ends with by words.
func plainEnd(err error) error {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no Connect in time")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("closed before Connect")
	}
	return err
}

// label names the grant in a log.
func (g *grant) label() string {
	if g == nil {
		return "none asked for"
	}
	return g.name
}

// authenticate returns what the token allows: nil, everything, when none is asked for.
func (s *Server) authenticate(token string) (*grant, error) {
	if !s.cfg.authenticates() {
		return nil, nil
	}
	if g, ok := s.tokens.find(token); ok {
		return g, nil
	}
	if token == "" { // the Java client sends an empty one for none
		return nil, wire.Errorf(wire.Unauthorized, "no token: set AWS_CONTAINER_AUTHORIZATION_TOKEN in the client's environment to one of stream_manager.tokens_file")
	}
	return nil, wire.Errorf(wire.Unauthorized, "the token in AWS_CONTAINER_AUTHORIZATION_TOKEN is none of those in stream_manager.tokens_file")
}
