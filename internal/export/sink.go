package export

import (
	"context"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Sink is where the batches of one stream go. A Runner calls Recover first, then the others; Deliver runs beside the
// methods that belong to encoding, each of them never twice at the same time.
type Sink interface {
	// Recover is told the steps that the cursor holds and removes what earlier processes left and no step names. It
	// must be able to follow any crash.
	Recover(ctx context.Context, steps []Step) error
	// Begin starts the batch of a planned step. restamp gives the time of a record whose clock was not trusted.
	Begin(s Step, restamp Restamp) (Batch, error)
	// Reached is called when the step has durably reached its State, and again after a crash: it must be idempotent.
	// ENCODED: the batch may be shown to queries. UPLOADED: it is in the store. COMMITTED: the spool may forget it.
	Reached(ctx context.Context, s Step) error
	// Deliver brings an encoded step out and returns when all of it is durable there. It may have run before, to any
	// point. Errors are retried for ever; their record.Kind says whether a person is needed.
	Deliver(ctx context.Context, s Step) (Summary, error)
}

// Restamp gives the true time, in nanoseconds since 1970 UTC, of a record that was appended at o with time t.
type Restamp func(o stream.Origin, t int64) int64

// Batch is a step that is being encoded. It belongs to one goroutine.
type Batch interface {
	// Add takes the next records, and the gaps before them.
	Add(c *stream.Chunk) error
	// Finish makes the batch durable in the spool. After an error only Abort is of use.
	Finish(n Notes) (Summary, error)
	// Abort removes what was written; it is idempotent.
	Abort() error
}

// Notes is what is remarkable about a step.
type Notes struct {
	// Dropped and Damaged count the records that the log no longer had.
	Dropped uint64
	Damaged uint64
	Gaps    []stream.Gap // the first maxGaps of them
	// Untrusted: the step was cut by a clock that could not be believed.
	Untrusted bool
	// Restamped counts records whose time was corrected, Unknown those that kept the recorded time of a clock that
	// was never set.
	Restamped int64
	Unknown   int64
}

// maxGaps is how many gaps Notes names one by one.
const maxGaps = 100

func (n *Notes) gap(g stream.Gap) {
	records := uint64(g.To - g.From)
	if g.Reason == stream.Damaged {
		n.Damaged += records
	} else {
		n.Dropped += records
	}
	if len(n.Gaps) < maxGaps {
		n.Gaps = append(n.Gaps, g)
	}
}

// Summary is what a batch came to.
type Summary struct {
	Detail   []byte // what the sink needs to find the batch again; at most MaxDetail bytes
	Key      string // of the largest file, for people
	Files    int
	Rows     int64
	Rejected int64  // records that did not parse
	Reject   string // the reason of the first of them
	Bytes    int64
	Damaged  int   // files found damaged at delivery and left out
	Lost     int64 // rows in them
}

// Log is what exports need of the stream engine.
type Log interface {
	Read(ctx context.Context, id record.StreamID, from record.Offset, maxBytes int, c *stream.Chunk) error
	Bounds(id record.StreamID) (stream.Bounds, error)
	LoadCursor(id record.StreamID, name string) (stream.Cursor, error)
	StoreCursor(ctx context.Context, id record.StreamID, name string, c stream.Cursor) error
}
