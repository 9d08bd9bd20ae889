// Package forward runs the exports that deliver messages straight from the log: to Kinesis, HTTP, SiteWise, IoT
// Analytics, and as S3 upload tasks. (Package export, above it in the tree, makes files for the lake: it spools what it
// has encoded and is exact by key; here delivery is at least once, in order.)
//
// A Supervisor runs a Runner for each export of a stream; a Target, one file for each kind, delivers one Batch at a time.
package forward

import (
	"context"
	"log/slog"
	"time"

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

// Batch is what a Target delivers at once. The Runner keeps it through retries, with what was settled before: a target
// delivers what is pending and nothing else.
type Batch struct {
	Stream   string // as its clients call it
	Messages []Message
	// State is what the target wants to find again after a restart; see Save. At most MaxTargetState bytes.
	State []byte

	settled []settlement
	left    int
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
	return &Batch{Stream: streamName, Messages: messages, State: state, settled: make([]settlement, len(messages)), left: len(messages), save: save}
}

// Pending yields the indices of the messages that are neither delivered nor skipped, in order.
func (b *Batch) Pending() []int {
	var list []int
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
func (b *Batch) Skip(i int, reason string) { b.settle(i, reason) }

func (b *Batch) settle(i int, reason string) {
	if !b.settled[i].done {
		b.settled[i] = settlement{true, reason}
		b.left--
	}
}

// Save makes state durable with the export's place; after a restart the next Batch, which begins with the same message,
// has it as State. When the batch is settled the state is forgotten.
func (b *Batch) Save(ctx context.Context, state []byte) error {
	b.State = state
	if b.save == nil {
		return nil
	}
	return b.save(ctx, state)
}

// Target is a destination. A Runner calls Deliver from one goroutine at a time.
type Target interface {
	// Deliver settles the pending messages of b, in order as far as the destination knows order. It returns nil when
	// none is pending any more. After an error what is pending is delivered again, after a pause, for ever: the
	// record.Kind says whether a person is needed (Denied, NotFound, Invalid). It waits for the node's bandwidth
	// before it sends (see Limiter).
	Deliver(ctx context.Context, b *Batch) error
}

// Canceler is a Target that must be told of messages that will not be delivered because their stream or export has gone.
type Canceler interface {
	Cancel(ctx context.Context, streamName string, m Message, why string) error
}

// Dropper is a Target that must be told of messages that the stream lost (age, overwriting) before they were delivered.
type Dropper interface {
	Drop(ctx context.Context, streamName string, from, to record.Offset, why string) error
}

// Log is what forwarding needs of a stream engine.
type Log interface {
	Read(ctx context.Context, id record.StreamID, from record.Offset, maxBytes int, c *stream.Chunk) error
	Bounds(id record.StreamID) (stream.Bounds, error)
	LoadCursor(id record.StreamID, name string) (stream.Cursor, error)
	StoreCursor(ctx context.Context, id record.StreamID, name string, c stream.Cursor) error
	DeleteCursor(ctx context.Context, id record.StreamID, name string) error
}

// CursorPrefix is what the names of this package's cursors begin with; the export's identifier follows.
const CursorPrefix = stream.ExportCursor + "forward/"

// Spec is one export.
type Spec struct {
	Log        Log
	ID         record.StreamID
	Name       record.StreamName // of the stream, for logs and metrics
	Stream     string            // as its clients call it
	Identifier string            // unique in the stream
	Kind       string            // of the target, for logs and metrics
	// BatchSize is the most messages of a batch. With WaitFull a batch waits until so many are there, or until the
	// oldest has waited for Interval (0: without limit). Without WaitFull it waits for Interval at most.
	BatchSize int
	WaitFull  bool
	Interval  time.Duration
	// MaxBatchBytes is the most bytes of payloads in a batch, one message at least. 0: 4 MiB.
	MaxBatchBytes int
	Priority      int           // 1 is the highest, 10 the lowest
	Start         record.Offset // where a new export begins; messages before it are never delivered
	Disabled      bool          // keeps its place and delivers nothing
	Target        Target        // nil only when Disabled
}

// Status is where an export stands.
type Status struct {
	ID         record.StreamID
	Name       record.StreamName
	Stream     string
	Identifier string
	Kind       string
	Disabled   bool
	// Next is the sequence number of the first message that is not settled: Next-1 is the last exported one.
	Next           record.Offset
	Messages       uint64 // delivered since the export was made; durable
	Bytes          uint64 // their payloads; durable
	Skipped        uint64 // never deliverable; durable
	Dropped        uint64 // lost by the stream before they were delivered; durable
	LastAttempt    time.Time
	LastDelivered  time.Time
	LastError      string // of the last failed attempt or skipped message; stays until a batch went through whole
	Hint           string
	Retries        uint64 // failed attempts since the process started
	InRow          int    // of them, in a row now
	NextRetry      time.Time
	Degraded       bool          // to be shown in health
	BacklogRecords uint64        // readable and not settled
	BacklogBytes   int64         // of them, estimated
	Lag            time.Duration // age of the oldest of them
}

// Config is how forwarding runs. Values of 0 mean the default.
type Config struct {
	// Threads is how many batches are delivered at a time on the node; streams of higher priority come first.
	Threads int `yaml:"threads"`
	// MaxBandwidth is the average of what exports send, in kilobits per second. 0 means no limit.
	MaxBandwidth int64 `yaml:"max_bandwidth"`
	// Linger is how long messages wait for more where an export has neither batch size nor interval.
	Linger time.Duration `yaml:"linger"`
	// RetryMin and RetryMax bound the back-off after a failure; each pause is drawn from its upper half.
	RetryMin time.Duration `yaml:"retry_min"`
	RetryMax time.Duration `yaml:"retry_max"`
	// Timeout is how long one request to a destination may take.
	Timeout time.Duration `yaml:"timeout"`
	// S3Directories are the directories whose files S3 tasks may upload, links that lead out of them excepted. Without
	// any, every task fails with a status that says so.
	S3Directories []string `yaml:"s3_directories"`
	// S3PartSize is the size of the parts of multipart uploads, in bytes.
	S3PartSize int64 `yaml:"s3_part_size"`
	// Destinations say where exports go other than to AWS with the credentials of the environment. The first that
	// matches counts.
	Destinations []Destination `yaml:"destinations"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Threads: 5, Linger: 2 * time.Second, RetryMin: time.Second, RetryMax: 5 * time.Minute, Timeout: 30 * time.Second, S3PartSize: 5 << 20,
	}
}

// Options are the surroundings of a Supervisor and its targets.
type Options struct {
	Config  Config
	Log     *slog.Logger
	Limiter *Limiter // shared with the targets
}
