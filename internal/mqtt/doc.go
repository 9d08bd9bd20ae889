// Package mqtt is the MQTT door: an embedded broker (Broker) for devices that have none, and a client (Source) that
// takes messages from a broker that is there already. Both hand what arrives to an Acceptor and know nothing of
// streams, rules or files.
//
// Guarantee: a QoS 1 message is acknowledged (PUBACK) and a QoS 2 message received (PUBREC) only after the Acceptor's
// done(nil), in the order of arrival per connection. The broker's subscribers see a message after that too. A QoS 2
// message is accepted once per packet identifier while its session lasts and this process lives. What the Acceptor
// refuses is not acknowledged as a success: MQTT 5 clients get a PUBACK or PUBREC with a reason code and stay
// connected, 3.1.1 clients, which have no word for it, lose their connection and send again.
//
// Limits: everything that a client can send is bounded by BrokerConfig (packet size, connections, sessions,
// subscriptions, retained messages, aliases, time to CONNECT). Full queues: a publisher is no longer read (TCP
// back-pressure); a slow subscriber loses messages beyond max_queued, counted; an external broker is left
// unacknowledged.
//
// The broker's sessions, subscriptions and retained messages live in memory: a restart forgets them, and clients are
// told so (session present = 0). What leat promises to keep is what it ingested.
//
// Goroutines: Broker.Run owns the listeners, two goroutines per connection and one more for a connection that
// publishes; Source.Run owns one loop and, per connection to the external broker, a batcher and an acknowledger. All
// have ended when Run returns.
//
// Algorithm of the broker: mochi-mqtt parses packets and keeps sessions. The hook in hook.go takes each PUBLISH out of
// its hands and appends it to the connection's batch; when the socket has no more parsed bytes to give (conn.Read), the
// batch goes to Accept, and a goroutine per connection waits for the outcomes in order, fans out, and answers with all
// PUBACKs in one write. Blocking the read loop instead is simpler and was measured: one message per fsync and
// connection.
package mqtt
