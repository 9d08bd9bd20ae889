package mqtt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/leat-io/leat/internal/auth"
	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/record"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// hook is where mochi asks us. Its methods run in the connection's read loop, except OnClientExpired, delayed wills and
// OnACLCheck for deliveries.
type hook struct {
	mochi.HookBase
	b *Broker
}

// maxKeepAlive is the longest keep-alive, in seconds, whose one and a half fold mochi computes without overflow.
const maxKeepAlive = 43_690

// maxClientID is the longest client identifier, in bytes.
const maxClientID = 1024

// errLogged marks a refusal that was logged where its reason was known.
var errLogged = errors.New("refused")

// ID names the hook in mochi's log.
func (h *hook) ID() string { return "leat" }

// Provides lists the events below.
func (h *hook) Provides(e byte) bool {
	switch e {
	case mochi.OnConnect, mochi.OnConnectAuthenticate, mochi.OnACLCheck, mochi.OnSessionEstablish, mochi.OnDisconnect,
		mochi.OnPacketRead, mochi.OnPacketEncode, mochi.OnSubscribe, mochi.OnPublish, mochi.OnPublishDropped,
		mochi.OnWillSent, mochi.OnClientExpired:
		return true
	}
	return false
}

// OnConnect checks what a client asks for.
func (h *hook) OnConnect(cl *mochi.Client, pk packets.Packet) error {
	v5 := cl.Properties.ProtocolVersion == 5
	if top := uint16(h.b.cfg.MaxKeepAlive / time.Second); v5 && (cl.State.Keepalive == 0 || cl.State.Keepalive > top) {
		cl.State.Keepalive, cl.State.ServerKeepalive = top, true // [MQTT-3.1.2-21]
	}
	cl.State.Keepalive = min(cl.State.Keepalive, maxKeepAlive)
	if v5 && !cl.Properties.Props.SessionExpiryIntervalFlag {
		cl.Properties.Will.WillDelayInterval = 0 // the session, and with it the will, ends with the connection
	}
	h.ownWindow(cl)
	_, known := h.b.server.Clients.Get(cl.ID)
	switch {
	case len(cl.ID) > maxClientID:
		return h.refuse(cl, packets.ErrClientIdentifierNotValid, fmt.Errorf("client id of %d bytes", len(cl.ID)))
	case !known && h.b.server.Clients.Len() >= h.b.cfg.MaxSessions:
		return h.refuse(cl, packets.ErrServerBusy, errors.New("as many sessions as mqtt.max_sessions allows"))
	case pk.Connect.WillFlag && (isSys(pk.Connect.WillTopic) || !mochi.IsValidFilter(pk.Connect.WillTopic, true)):
		return h.refuse(cl, packets.ErrTopicNameInvalid, fmt.Errorf("will topic %q", pk.Connect.WillTopic))
	}
	return nil
}

// ownWindow takes flow control towards the client out of mochi's hands, and topic aliases too: a message that is dropped
// or waits must not take the meaning of an alias with it.
func (h *hook) ownWindow(cl *mochi.Client) {
	props := &cl.Properties.Props
	if c, ok := cl.Net.Conn.(*conn); ok && cl.Properties.ProtocolVersion == 5 && props.ReceiveMaximum > 0 {
		c.window = window{limit: int(props.ReceiveMaximum), open: map[uint16]struct{}{}}
	}
	props.ReceiveMaximum, props.TopicAliasMaximum = 0, 0
	cl.State.Inflight.ResetSendQuota(0)
}

func (h *hook) refuse(cl *mochi.Client, code packets.Code, why error) error {
	h.b.refuse("connect", cl.Net.Remote, why)
	if cl.Properties.ProtocolVersion < 5 { // which has five words only
		code = packets.ErrServerUnavailable
	}
	_ = h.b.server.SendConnack(cl, code, false, nil) // the client is gone either way
	return fmt.Errorf("%w: %w", errLogged, code)
}

// OnConnectAuthenticate finds out who the client is.
func (h *hook) OnConnectAuthenticate(cl *mochi.Client, pk packets.Packet) bool {
	c, ok := cl.Net.Conn.(*conn)
	if !ok {
		return false
	}
	p, err := h.b.identify(c, pk)
	if err == nil && !p.Allowed(auth.MQTTConnect, "client/"+cl.ID, cl.ID) {
		err = record.Errorf(record.Denied, "the policies of %q do not allow mqtt:Connect on client/%s", p.Name, cl.ID)
	}
	if err == nil && pk.Connect.WillFlag && !p.Allowed(auth.MQTTPublish, "topic/"+pk.Connect.WillTopic, cl.ID) {
		err = record.Errorf(record.Denied, "the policies of %q do not allow the will's topic %s", p.Name, pk.Connect.WillTopic)
	}
	if err != nil {
		h.b.refuse("login", cl.Net.Remote, fmt.Errorf("client %q, user %q: %w", cl.ID, pk.Connect.Username, err))
		c.refused = true
		return false
	}
	c.principal = p
	return true
}

// OnACLCheck is asked for publishes, subscriptions and every delivery.
func (h *hook) OnACLCheck(cl *mochi.Client, topic string, write bool) bool {
	c, ok := cl.Net.Conn.(*conn)
	if !ok || c.principal == nil {
		return false
	}
	if c.principal.Unrestricted() || write && topic == "" {
		return true // with a topic alias, the topic is known in OnPublish
	}
	action := auth.MQTTSubscribe
	if write {
		action = auth.MQTTPublish
	} else if mochi.IsSharedFilter(topic) {
		parts := strings.SplitN(topic, "/", 3)
		topic = parts[len(parts)-1]
	}
	return c.principal.Allowed(action, "topic/"+topic, cl.ID)
}

// OnSessionEstablish prepares the way for publishes.
func (h *hook) OnSessionEstablish(cl *mochi.Client, pk packets.Packet) {
	if pk.Connect.Clean {
		h.b.once.forget(cl.ID)
	}
	if c, ok := cl.Net.Conn.(*conn); ok {
		c.flow = &flow{b: h.b, cl: cl, conn: c}
	}
}

// OnDisconnect ends it.
func (h *hook) OnDisconnect(cl *mochi.Client, _ error, expire bool) {
	if c, ok := cl.Net.Conn.(*conn); ok && c.flow != nil {
		c.flow.end()
	}
	if expire && !cl.IsTakenOver() {
		h.b.once.forget(cl.ID)
	}
}

// OnClientExpired forgets a session.
func (h *hook) OnClientExpired(cl *mochi.Client) { h.b.once.forget(cl.ID) }

// OnPublishDropped counts what a slow subscriber did not get.
func (h *hook) OnPublishDropped(*mochi.Client, packets.Packet) { h.b.counters.dropped.Add(1) }

// OnPacketRead sees packets before mochi acts on them.
func (h *hook) OnPacketRead(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	switch pk.FixedHeader.Type {
	case packets.Puback, packets.Pubcomp, packets.Pubrec:
		if c, ok := cl.Net.Conn.(*conn); ok && (pk.FixedHeader.Type != packets.Pubrec || pk.ReasonCode >= 0x80) {
			return pk, c.acknowledged(pk.PacketID)
		}
	case packets.Pubrel:
		h.b.once.release(cl.ID, pk.PacketID)
	case packets.Subscribe:
		if cl.State.Subscriptions.Len()+len(pk.Filters) > h.b.cfg.MaxSubscriptions {
			return pk, h.b.server.DisconnectClient(cl, packets.ErrQuotaExceeded)
		}
	case packets.Publish:
		if isSys(pk.TopicName) && pk.FixedHeader.Qos > 0 { // mochi would neither forward nor answer
			return pk, h.deny(cl, &pk, packets.ErrTopicNameInvalid)
		}
	}
	return pk, nil
}

// OnPacketEncode completes what mochi leaves out.
func (h *hook) OnPacketEncode(_ *mochi.Client, pk packets.Packet) packets.Packet {
	switch pk.FixedHeader.Type {
	case packets.Connack:
		pk.Properties.MaximumPacketSize = uint32(h.b.cfg.MaxPacketSize)
		pk.Properties.TopicAliasMaximum = uint16(h.b.cfg.MaxTopicAliases)
	case packets.Pubrec:
		if pk.ReasonCode == packets.ErrPacketIdentifierInUse.Code { // a repeated PUBLISH is no failure [MQTT-4.3.3-10]
			pk.ReasonCode, pk.Properties.ReasonString = 0, ""
		}
	}
	return pk
}

// OnSubscribe makes malformed filters such that mochi answers 0x8F to them.
func (h *hook) OnSubscribe(_ *mochi.Client, pk packets.Packet) packets.Packet {
	for i := range pk.Filters {
		if ingest.CheckFilter(pk.Filters[i].Filter) != nil {
			pk.Filters[i].Filter = ""
		}
	}
	return pk
}

// OnPublish takes every message out of mochi's hands: QoS 0 and 1 into the flow, QoS 2 here and now.
func (h *hook) OnPublish(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if cl.Net.Inline {
		pk.Origin = pk.Connect.ClientIdentifier // for No Local [MQTT-3.8.3-3]
		pk.Connect.ClientIdentifier = ""
		return pk, nil
	}
	c, ok := cl.Net.Conn.(*conn)
	if !ok || h.b.stopping.Load() {
		return handled(pk), nil
	}
	if pk.TopicName == "" {
		_ = h.b.server.DisconnectClient(cl, packets.ErrTopicAliasInvalid) // the client is gone either way
		return handled(pk), nil
	}
	if pk.Properties.TopicAliasFlag && !h.OnACLCheck(cl, pk.TopicName, true) {
		_ = h.deny(cl, &pk, packets.ErrNotAuthorized) // a failed write ends the connection
		return handled(pk), nil
	}
	m := h.b.message(cl, &pk)
	if pk.FixedHeader.Qos < 2 {
		c.flow.add(&pk, m)
		return handled(pk), nil
	}
	c.flow.submit() // what came before goes first
	return h.takeOnce(cl, pk, m)
}

// handled tells mochi that there is nothing left to do for a packet. Its error for that purpose would log, and so copy,
// every packet.
func handled(pk packets.Packet) packets.Packet {
	pk.Ignore, pk.FixedHeader.Qos = true, 0
	return pk
}

// takeOnce waits until a QoS 2 message is durable; mochi then sends the PUBREC and keeps the rest of the exchange.
func (h *hook) takeOnce(cl *mochi.Client, pk packets.Packet, m ingest.Message) (packets.Packet, error) {
	t, fresh := h.b.once.take(cl.ID, pk.PacketID, pk.FixedHeader.Dup)
	if fresh {
		h.b.underway.Add(1)
		h.b.accept([]ingest.Message{m}, func(err error) {
			t.err = err
			close(t.done)
			h.b.underway.Add(-1)
		})
	}
	select {
	case <-t.done:
	case <-h.b.abandon:
		return handled(pk), nil
	}
	if t.err != nil {
		h.b.once.release(cl.ID, pk.PacketID)
		h.b.refused(cl, []ingest.Message{m}, t.err)
		_ = h.deny(cl, &pk, reasonCode(t.err)) // a failed write ends the connection
		return handled(pk), nil
	}
	if fresh {
		p := publish{id: pk.PacketID, expiry: pk.Expiry}
		if cl.Properties.ProtocolVersion == 5 {
			p.properties = new(pk.Properties)
		}
		h.b.fanOut(cl, &m, &p)
	}
	return pk, packets.CodeSuccessIgnore
}

// deny answers a publish with a reason (MQTT 5) or the end of the connection.
func (h *hook) deny(cl *mochi.Client, pk *packets.Packet, code packets.Code) error {
	if pk.FixedHeader.Qos == 0 {
		return nil
	}
	if cl.Properties.ProtocolVersion < 5 {
		cl.Stop(code)
		return code
	}
	kind := packets.Puback
	if pk.FixedHeader.Qos == 2 {
		kind = packets.Pubrec
	}
	return cl.WritePacket(packets.Packet{
		FixedHeader: packets.FixedHeader{Type: kind}, PacketID: pk.PacketID, ReasonCode: code.Code,
	})
}

// OnWillSent ingests a will: it is a message like any other.
func (h *hook) OnWillSent(cl *mochi.Client, pk packets.Packet) {
	if h.b.stopping.Load() {
		return // we left, not the device
	}
	m := h.b.message(cl, &pk)
	h.b.accept([]ingest.Message{m}, func(err error) {
		if err != nil {
			h.b.counters.lost.Add(1)
		}
	})
}

// message makes the record's raw material.
func (b *Broker) message(cl *mochi.Client, pk *packets.Packet) ingest.Message {
	b.arrived(len(pk.Payload))
	return ingest.Message{
		Topic: pk.TopicName, Payload: pk.Payload, QoS: pk.FixedHeader.Qos, Retain: pk.FixedHeader.Retain,
		Source: ingest.BrokerSource, Client: cl.ID, Received: time.Now().UnixNano(),
	}
}

// identify returns the principal of a connection: its certificate's, its password's, or the anonymous one.
func (b *Broker) identify(c *conn, pk packets.Packet) (*auth.Principal, error) {
	if cert := c.certificate(); cert != nil {
		return b.who.Certificate(cert)
	}
	if pk.Connect.UsernameFlag && b.who.Configured() {
		ctx, cancel := context.WithTimeout(context.Background(), b.cfg.ConnectTimeout)
		defer cancel()
		return b.who.Authenticate(ctx, string(pk.Connect.Username), pk.Connect.Password)
	}
	if within(c.RemoteAddr(), b.cfg.AllowAnonymous) || !b.who.Configured() && isLoopback(c.RemoteAddr()) {
		return b.who.Anonymous(), nil
	}
	return nil, record.Errorf(record.Denied, "no user name").
		WithHint("give the client a user name and password, or add its network to mqtt.allow_anonymous")
}
