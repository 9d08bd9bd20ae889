package forward

import (
	"context"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Message is a record on its way out.
type Message struct {
	Sequence record.Offset
	Time     int64 // record.Record.Time: nanoseconds since 1970 UTC
	Key      []byte
	Payload  []byte
}

// messageOf is the i-th record of c. It shares c's memory.
func messageOf(c *stream.Chunk, i int) Message {
	rec := &c.Records[i]
	return Message{Sequence: c.First + record.Offset(i), Time: rec.Time, Key: rec.Key, Payload: rec.Payload}
}

// Batch is what a Target delivers at once: messages with consecutive sequence numbers, at least one. It belongs to the
// goroutine that calls Deliver. A batch that was settled in part is delivered again with what was settled before: a
// target delivers what is pending and nothing else. One of which nothing was settled is made anew for the next attempt.
type Batch struct {
	Stream   string // as its clients call it
	Messages []Message
	// State is what the target wants to find again after a restart; see Save. At most MaxTargetState bytes.
	State []byte

	settled []settlement
	left    int // of settled, not done
	passed  int // of settled, at the head: the cursor is behind them
	save    func(ctx context.Context, state []byte) error
}

// MaxTargetState is the most bytes of Batch.State.
const MaxTargetState = 32 << 10

// settlement is what became of a message.
type settlement struct {
	done   bool
	reason string // "" when delivered, else why it never will be
}

// NewBatch makes a batch of pending messages; save stores its State durably (nil in tests that do not care).
func NewBatch(streamName string, messages []Message, state []byte, save func(context.Context, []byte) error) *Batch {
	return &Batch{
		Stream: streamName, Messages: messages, State: state, settled: make([]settlement, len(messages)), left: len(messages), save: save,
	}
}

// Pending yields the indices of the messages that are neither delivered nor skipped, in order.
func (b *Batch) Pending() []int {
	list := make([]int, 0, b.left)
	for i := range b.settled {
		if !b.settled[i].done {
			list = append(list, i)
		}
	}
	return list
}

// Delivered notes that message i is durable at the destination.
func (b *Batch) Delivered(i int) { b.settle(i, "") }

// Skip notes that message i can never be delivered, and why. It is counted, logged and shown in the export's status.
func (b *Batch) Skip(i int, reason string) {
	if reason == "" {
		reason = "the destination can never take it"
	}
	b.settle(i, reason)
}

// settle notes the first thing that is said of message i: what was delivered is not skipped later.
func (b *Batch) settle(i int, reason string) {
	if !b.settled[i].done {
		b.settled[i] = settlement{true, reason}
		b.left--
	}
}

// Save makes state durable with the export's place, which moves past the messages that are settled at the batch's head:
// after a restart the next Batch begins with the first that is pending now and has state as its State. The state is
// forgotten when that message is settled, skipped or lost. More than MaxTargetState bytes are Invalid.
func (b *Batch) Save(ctx context.Context, state []byte) error {
	if len(state) > MaxTargetState {
		return record.Errorf(record.Invalid, "state of %d bytes for a batch of stream %s: at most %d", len(state), b.Stream, MaxTargetState)
	}
	if b.save != nil {
		if err := b.save(ctx, state); err != nil {
			return err
		}
	}
	b.State = state
	return nil
}

// head is how many messages at the beginning are settled.
func (b *Batch) head() int {
	n := b.passed
	for n < len(b.settled) && b.settled[n].done {
		n++
	}
	return n
}
