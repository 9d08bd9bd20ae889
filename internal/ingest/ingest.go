// Package ingest is the domain of rules: which message goes into which stream, and how its records become rows.
//
// The main types are Config and Rule (what the operator writes), Message (what a door hands over), Router (messages to
// streams) and the decoder that NewDecoder makes of a rule (records to rows, when the stream is exported).
//
// # Guarantees
//
//   - A message is acknowledged when it is durable in the stream of every rule that matches it. What matches no rule
//     is acknowledged at once and counted.
//   - The messages of one Accept keep their order in each stream, and so do those of Accepts that follow each other.
//   - A message that cannot be appended to one of its streams fails the batch, and the sender sends it again. What can be
//     foreseen (a message too large, a stream at its limit) fails it before anything is appended; otherwise streams
//     that had it already have it twice. At least once, as MQTT has it.
//   - Memory is bounded: what is known of topics is forgotten at 65,536 topics or 8 MiB of names, and learned anew.
//
// # Duties of the caller
//
// Doors hand over topics that are valid by MQTT and set Message.Received. Each rule's records are raw: key = topic,
// payload = payload, time = time of arrival; the attribute "retain" marks a retained message, and "source" names the
// source unless it is the embedded broker.
//
// # Goroutines and locks
//
// Accept runs on the caller's goroutine, done on the one that commits. Router.Run, the only goroutine, looks for silent
// sources. source.mu guards what is known of topics; counters are atomic.
//
// # What it does not do
//
// Parse when a message arrives: a parser that is corrected later must not have lost anything, and an acknowledgement
// must not wait for one. docs/guide/ingest-rules.md is the same for users.
package ingest

import (
	"github.com/leat-io/leat/internal/record"
)

// Names of the attributes of a record, and the value of the first.
const (
	AttrRetain = "retain" // "1": the message was retained, or is to be
	AttrSource = "source" // name of an external source
)

// Message is what a door hands over. The payload may be reused when Accept has returned.
type Message struct {
	Topic    string
	Payload  []byte
	QoS      byte
	Retain   bool
	Source   string // BrokerSource, or the external source's name
	Client   string
	Received int64 // nanoseconds since 1970 UTC, by the wall clock
}

// Check reports, as an Invalid error, a message that no stream can take.
func (m *Message) Check() error {
	switch {
	case len(m.Topic) > record.MaxKey:
		return record.Errorf(record.Invalid, "topic of %d bytes", len(m.Topic)).
			WithHint("topics have at most %d bytes", record.MaxKey)
	case len(m.Payload) > record.MaxPayload:
		return record.Errorf(record.Invalid, "message of %d bytes on topic %.80q", len(m.Payload), m.Topic).
			WithHint("payloads have at most %d bytes: send it in parts", record.MaxPayload)
	}
	return nil
}
