package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/record"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session"
	v3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"
)

// link is one connection to an external broker, in either version of the protocol.
type link interface {
	// subscribe asks for all filters at once and returns one reason code each.
	subscribe(ctx context.Context, subs []ingest.Subscription) ([]byte, error)
	// done is closed when the connection has ended; cause then says why.
	done() <-chan struct{}
	cause() error
	// close says DISCONNECT and ends the connection.
	close()
}

// delivery is a message that came over a link.
type delivery struct {
	topic   string
	payload []byte
	qos     byte
	retain  bool
	dup     bool
	id      uint16
	ack     func() error // nil for QoS 0; to be called in order of arrival
}

// errVersion says that the broker does not speak MQTT 5.
var errVersion = errors.New("the broker does not speak MQTT 5")

// opened is what connecting tells.
type opened struct {
	link    link
	resumed bool // whether the broker had kept our session
}

// ending is the part of a link that both versions share: it is done once, for the first cause.
type ending struct {
	once sync.Once
	ch   chan struct{}
	err  error // set before ch is closed
}

func newEnding() ending { return ending{ch: make(chan struct{})} }

func (e *ending) end(err error)         { e.once.Do(func() { e.err = err; close(e.ch) }) }
func (e *ending) done() <-chan struct{} { return e.ch }
func (e *ending) cause() error          { return e.err }

// dialBroker opens the transport.
func dialBroker(ctx context.Context, u *url.URL, tlsCfg *tls.Config) (net.Conn, error) {
	_, web, _, _ := schemeOf(u.Scheme)
	if web {
		d := websocket.Dialer{Subprotocols: []string{"mqtt"}, TLSClientConfig: tlsCfg, Proxy: http.ProxyFromEnvironment}
		c, resp, err := d.DialContext(ctx, u.String(), nil)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", u.Redacted(), err)
		}
		resp.Body.Close() //nolint:errcheck // empty after an upgrade
		return &webConn{Conn: c.NetConn(), web: c}, nil
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", hostPort(u))
	if err != nil || tlsCfg == nil {
		return c, err
	}
	t := tls.Client(c, tlsCfg)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close() //nolint:errcheck // the handshake's error counts
		return nil, fmt.Errorf("TLS with %s: %w", hostPort(u), err)
	}
	return t, nil
}

// lateAcks is a session whose acknowledgements wait until we say so: paho's own manual mode sends them from a ticker,
// which costs either latency or an idle box's sleep.
type lateAcks struct{ session.SessionManager }

// Ack is called by paho when a handler returns, and does nothing.
func (lateAcks) Ack(*packets.Publish) error { return nil }

// link5 speaks MQTT 5.
type link5 struct {
	ending
	client *paho.Client
	conn   net.Conn
}

func open5(ctx context.Context, c *SourceConfig, conn net.Conn, state session.SessionManager, deliver func(delivery)) (opened, error) {
	l := &link5{ending: newEnding(), conn: conn}
	l.client = paho.NewClient(paho.ClientConfig{
		ClientID: c.ClientID,
		Conn:     packets.NewThreadSafeConn(conn),
		Session:  lateAcks{state},
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			d := delivery{
				topic: p.Packet.Topic, payload: p.Packet.Payload, qos: p.Packet.QoS, retain: p.Packet.Retain,
				dup: p.Packet.Duplicate(), id: p.Packet.PacketID,
			}
			if d.qos > 0 {
				ack := &packets.Publish{QoS: d.qos, PacketID: d.id}
				d.ack = func() error { return l.ack(state, ack) }
			}
			deliver(d)
			return true, nil
		}},
		PacketTimeout:      c.ConnectTimeout,
		OnServerDisconnect: func(d *paho.Disconnect) { l.end(fmt.Errorf("the broker said goodbye: reason 0x%02x", d.ReasonCode)) },
		OnClientError:      func(err error) { l.end(err) },
	})
	ack, err := l.client.Connect(ctx, &paho.Connect{
		ClientID: c.ClientID, KeepAlive: uint16(c.KeepAlive / time.Second), CleanStart: false,
		Username: c.Username, UsernameFlag: c.Username != "",
		Password: []byte(c.Password), PasswordFlag: c.Password != "",
		Properties: &paho.ConnectProperties{
			SessionExpiryInterval: new(uint32(c.SessionExpiry / time.Second)),
			ReceiveMaximum:        new(uint16(c.Window)),
		},
	})
	if err != nil {
		conn.Close() //nolint:errcheck // the refusal counts
		if ack != nil && ack.ReasonCode >= 0x80 {
			return opened{}, connackError(ack.ReasonCode, ack.Properties)
		}
		return opened{}, err
	}
	return opened{link: l, resumed: ack.SessionPresent}, nil
}

func connackError(code byte, p *paho.ConnackProperties) error {
	text := (&packets.Connack{ReasonCode: code}).Reason()
	if p != nil && p.ReasonString != "" {
		text = p.ReasonString
	}
	switch code {
	case packets.ConnackUnsupportedProtocolVersion:
		return errVersion
	case packets.ConnackBadUsernameOrPassword, packets.ConnackNotAuthorized:
		return record.Errorf(record.Denied, "refused with reason 0x%02x: %s", code, text).
			WithHint("check username and password of the source, and the broker's access list")
	}
	return record.Errorf(record.Unavailable, "refused with reason 0x%02x: %s", code, text)
}

// ack sends an acknowledgement, unless the connection that it belongs to is gone: its packet identifier could mean
// another message on the next.
func (l *link5) ack(state session.SessionManager, p *packets.Publish) error {
	select {
	case <-l.done():
		return net.ErrClosed
	case <-l.client.Done():
		return net.ErrClosed
	default:
		return state.Ack(p)
	}
}

func (l *link5) subscribe(ctx context.Context, subs []ingest.Subscription) ([]byte, error) {
	s := &paho.Subscribe{}
	for _, sub := range subs {
		s.Subscriptions = append(s.Subscriptions, paho.SubscribeOptions{Topic: sub.Filter, QoS: sub.QoS})
	}
	ack, err := l.client.Subscribe(ctx, s)
	if ack != nil && len(ack.Reasons) == len(subs) {
		return ack.Reasons, nil // paho counts one refused filter as an error
	}
	if err == nil {
		err = errors.New("the broker answered with another number of reason codes")
	}
	return nil, err
}

func (l *link5) close() {
	l.client.Disconnect(&paho.Disconnect{}) //nolint:errcheck // the connection may be gone
	<-l.client.Done()
	l.end(nil)
}

// link3 speaks MQTT 3.1.1.
type link3 struct {
	ending
	client v3.Client
}

func open3(ctx context.Context, c *SourceConfig, conn net.Conn, deliver func(delivery)) (opened, error) {
	l := &link3{ending: newEnding()}
	o := v3.NewClientOptions().AddBroker(c.URL).SetClientID(c.ClientID).SetCleanSession(false).SetProtocolVersion(4).
		SetUsername(c.Username).SetPassword(c.Password).SetKeepAlive(c.KeepAlive).SetPingTimeout(c.ConnectTimeout).
		SetConnectTimeout(c.ConnectTimeout).SetWriteTimeout(c.ConnectTimeout).
		SetAutoReconnect(false).SetConnectRetry(false).SetAutoAckDisabled(true).SetOrderMatters(true).
		SetMessageChannelDepth(0).
		SetConnectionLostHandler(func(_ v3.Client, err error) { l.end(err) }).
		SetCustomOpenConnectionFn(func(*url.URL, v3.ClientOptions) (net.Conn, error) { return conn, nil }).
		SetDefaultPublishHandler(func(_ v3.Client, m v3.Message) {
			d := delivery{topic: m.Topic(), payload: m.Payload(), qos: m.Qos(), retain: m.Retained(), dup: m.Duplicate(), id: m.MessageID()}
			if d.qos > 0 {
				d.ack = func() error { return l.ack(m) }
			}
			deliver(d)
		})
	l.client = v3.NewClient(o)
	token, ok := l.client.Connect().(*v3.ConnectToken)
	if !ok {
		conn.Close() //nolint:errcheck // never opened
		return opened{}, errors.New("unexpected kind of connect token")
	}
	select {
	case <-token.Done():
	case <-ctx.Done():
		conn.Close() //nolint:errcheck // that ends the attempt
		<-token.Done()
		return opened{}, ctx.Err()
	}
	if err := token.Error(); err != nil {
		conn.Close() //nolint:errcheck // the refusal counts
		if code := token.ReturnCode(); code == 4 || code == 5 {
			return opened{}, record.Errorf(record.Denied, "refused with return code %d: %w", code, err).
				WithHint("check username and password of the source, and the broker's access list")
		}
		return opened{}, err
	}
	return opened{link: l, resumed: token.SessionPresent()}, nil
}

func (l *link3) ack(m v3.Message) error {
	if !l.client.IsConnectionOpen() {
		return net.ErrClosed
	}
	m.Ack()
	return nil
}

func (l *link3) subscribe(ctx context.Context, subs []ingest.Subscription) ([]byte, error) {
	filters := map[string]byte{}
	for _, s := range subs {
		filters[s.Filter] = s.QoS
	}
	token, ok := l.client.SubscribeMultiple(filters, nil).(*v3.SubscribeToken)
	if !ok {
		return nil, errors.New("unexpected kind of subscribe token")
	}
	select {
	case <-token.Done():
	case <-l.done():
		return nil, l.cause()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	codes := token.Result()
	out := make([]byte, len(subs))
	for i, s := range subs {
		code, ok := codes[s.Filter]
		if !ok {
			if err := token.Error(); err != nil {
				return nil, err
			}
			code = 0x80
		}
		out[i] = code
	}
	return out, nil
}

func (l *link3) close() {
	l.client.Disconnect(uint(50)) // milliseconds that paho takes to send what waits
	l.end(nil)
}
