package forward

import (
	"context"
	"log/slog"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Target is a destination. A runner calls Deliver from one goroutine at a time.
type Target interface {
	// Deliver settles the pending messages of b, in order as far as the destination knows order. It returns nil when
	// none is pending any more. After an error what is pending is delivered again, after a pause, for ever: the
	// record.Kind says whether a person is needed (Denied, NotFound, Invalid). It waits for the node's bandwidth
	// before it sends (see Limiter), and returns promptly when ctx ends: whoever replaces or removes the export waits.
	Deliver(ctx context.Context, b *Batch) error
}

// Canceler is a Target that must be told of messages that will not be delivered because their stream or export has gone.
// It is called by Supervisor.Remove, never while Deliver runs. An error is logged, and the message not told of again.
type Canceler interface {
	Cancel(ctx context.Context, streamName string, m Message, why string) error
}

// Dropper is a Target that must be told of messages that the stream lost (age, overwriting) before they were delivered:
// those of [from, to). It may be told twice when the process dies in between. An error is logged, and the export goes on:
// what is lost must not stop what is not.
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
	// BatchSize is the most messages of a batch, at least 1. A batch waits until so many are there, or MaxBatchBytes of
	// payloads, or until the oldest has waited for Interval. Interval 0 means without limit when WaitFull is set, else
	// Config.Linger.
	BatchSize int
	WaitFull  bool
	Interval  time.Duration
	// MaxBatchBytes is the most bytes of payloads in a batch, one message at least. 0: DefaultBatchBytes.
	MaxBatchBytes int
	Priority      int           // 1 is the highest, 10 the lowest, which 0 means too
	Start         record.Offset // where a new export begins; messages before it are never delivered
	Disabled      bool          // keeps its place and delivers nothing
	Target        Target        // nil only when Disabled
}

// DefaultBatchBytes is the most bytes of payloads in a batch of an export that does not say.
const DefaultBatchBytes = 4 << 20

// validate says what the caller got wrong, and fills in defaults.
func (s *Spec) validate() error {
	if s.MaxBatchBytes == 0 {
		s.MaxBatchBytes = DefaultBatchBytes
	}
	if s.Priority == 0 {
		s.Priority = lowestPriority
	}
	switch {
	case s.Log == nil || s.ID == 0 || s.Identifier == "":
		return record.Errorf(record.Invalid, "export %q of stream %s: log, stream and identifier must be given", s.Identifier, s.Name)
	case s.BatchSize < 1 || s.MaxBatchBytes < 0 || s.Interval < 0:
		return record.Errorf(record.Invalid, "export %s of stream %s: batch size %d, bytes %d, interval %v", s.Identifier, s.Name,
			s.BatchSize, s.MaxBatchBytes, s.Interval).WithHint("the batch size is at least 1, nothing is negative")
	case s.Priority < 1 || s.Priority > lowestPriority:
		return record.Errorf(record.Invalid, "export %s of stream %s: priority %d", s.Identifier, s.Name, s.Priority).
			WithHint("1 is the highest, 10 the lowest")
	case s.Target == nil && !s.Disabled:
		return record.Errorf(record.Invalid, "export %s of stream %s has no target", s.Identifier, s.Name)
	}
	return nil
}

// Options are the surroundings of a Supervisor.
type Options struct {
	Config  Config
	Log     *slog.Logger // nil: discarded
	Limiter *Limiter     // shared with the targets, which do the waiting
	Clock   clock.Clock  // nil: the machine's
}
