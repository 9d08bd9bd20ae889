// Package stream is the contract of the durable stream, the middle of leat: everything that arrives is appended to a
// stream, everything that leaves is read from one.
//
// Two engines implement it: stream/segment, the log on disk, and stream/memory. Package streamtest holds the suite that
// both pass. An engine is split into four small interfaces because no caller needs all of it: doors append, exports
// read and keep cursors, the server administers.
//
// # Guarantees
//
//   - A record is acknowledged (done called with a nil error) once it is durable at its stream's level.
//   - Offsets are dense from 0 in each incarnation of a stream and are never reused. Readers and cursors see only what
//     an fdatasync has covered, so that what was once exposed cannot come to mean something else after a power cut.
//   - Order in a stream is the order of Append calls.
//   - Bytes that were once durable and no longer read are never skipped silently: readers get a Gap.
//
// # Duties of the caller
//
//   - done must not block and must not call back into the engine's Append synchronously waiting for its result: it runs
//     on the goroutine that commits.
//   - Slices handed to Append may be reused once Append has returned. Slices in a Chunk are valid until its next Read.
package stream

import (
	"context"
	"errors"
	"time"

	"github.com/leat-io/leat/internal/record"
)

// Durability is what "acknowledged" means for a stream.
type Durability uint8

// The levels of durability.
const (
	Disk Durability = iota // fdatasync has returned; the default of every door
	OS                     // the operating system has the bytes; fdatasync follows within Options.SyncInterval (100 ms)
)

// OnFull is what happens when a stream has reached its MaxBytes or the node its disk budget.
type OnFull uint8

// The policies for a full stream.
const (
	Reject     OnFull = iota // the append fails with a record.Full error
	DropOldest               // the oldest records are truncated, counted, and readers get a Gap
)

// Lane groups streams that keep data about equally long, so that short-lived data does not pin long-lived segments.
type Lane uint8

// The lanes.
const (
	Short Lane = iota // buffers that are exported within hours
	Long              // retention of days
)

// Policy is how a stream keeps its records. The zero value keeps everything, on disk, until the node is full.
type Policy struct {
	Durability Durability
	OnFull     OnFull
	Lane       Lane  // fixed at creation
	MaxBytes   int64 // of key + payload + attributes; 0 = no limit but the node's
	// DropBytes is the least that DropOldest drops at once when MaxBytes is exceeded, so that the first offset moves
	// rarely and by much: at least the surplus, about this many bytes, never the newest record. 0 = the surplus alone.
	DropBytes int64
	MaxAge    time.Duration // by record time; 0 = no limit
	// UntilExported keeps records until every cursor whose name starts with "export/" has passed them, and truncates
	// them then. A stream without such a cursor keeps everything.
	UntilExported bool
}

// ExportCursor is the prefix of cursor names that Policy.UntilExported waits for.
const ExportCursor = "export/"

// ErrEnd is returned by Read at the end of a sealed stream: nothing will follow.
var ErrEnd = errors.New("end of sealed stream")

// Appender takes records in.
type Appender interface {
	// Append adds records to the stream as one unit: all or none are acknowledged, with consecutive offsets.
	//
	// It blocks only for admission: while the engine's queue holds its limit of bytes, until ctx ends. It then copies
	// the records and returns. done is called exactly once, in order per stream, with the first record's offset or
	// the error: NotFound (no such stream), Invalid (a record or the batch is too large, or the stream is sealed),
	// Full, Unavailable (not admitted before ctx ended, closed, or the disk failed). An empty batch is acknowledged
	// with the next offset after everything before it is. done must not block.
	Append(ctx context.Context, id record.StreamID, records []record.Record, done func(first record.Offset, err error))
}

// MaxBatch is the most bytes (record.Size plus 32 for each record) one Append takes.
const MaxBatch = 32 << 20

// Gap is a range of offsets that a reader will not get, [From, To).
type Gap struct {
	From, To record.Offset
	Reason   GapReason
}

// GapReason says why records are missing.
type GapReason uint8

// The reasons for a gap.
const (
	Dropped GapReason = iota + 1 // truncated by policy or request before this reader came
	Damaged                      // once durable, no longer readable; quarantined, counted and logged by the engine
)

// Origin describes a run of records in a Chunk that were appended together: when, by the box's own clocks.
type Origin struct {
	First   record.Offset
	Count   int
	Boot    uint64 // clock.Reading of the append
	Mono    int64
	Wall    int64
	Trusted bool
}

// Chunk is what Read fills: records with consecutive offsets from First, or gaps before them. Reuse one Chunk for many
// reads: it keeps its buffers.
type Chunk struct {
	First   record.Offset // offset of Records[0]
	Records []record.Record
	Origins []Origin // in order, covering Records (the first may begin before First)
	Gaps    []Gap    // what lies between the offset asked for and First; or, without records, up to Next
	Next    record.Offset
	Buf     []byte // backing of Records, owned by the engine
}

// Reader gives records out.
type Reader interface {
	// Read fills c with records from offset from on: at least one when any is there, then at most about maxBytes.
	// At the head it blocks until a record is readable or ctx ends (the context's error), or returns ErrEnd when the
	// stream is sealed. When records from `from` on are gone, c tells so in Gaps and goes on behind them. A stream that
	// is deleted while Read waits, or never existed, gives NotFound; from beyond the next offset gives Invalid.
	Read(ctx context.Context, id record.StreamID, from record.Offset, maxBytes int, c *Chunk) error
	// Seek returns the lowest readable offset whose record has a Time of at least t, or the next offset when none has.
	Seek(ctx context.Context, id record.StreamID, t time.Time) (record.Offset, error)
	// Bounds tells where the stream begins and ends.
	Bounds(id record.StreamID) (Bounds, error)
	// Sync returns once everything that was acknowledged before the call is readable, at level OS too: for readers that
	// must see what another process was just told is there. It costs an fdatasync at most, and callers share it. It
	// fails with NotFound, or Unavailable when ctx ends or the engine has failed or is closed.
	Sync(ctx context.Context, id record.StreamID) error
}

// Bounds is the extent of a stream.
type Bounds struct {
	First    record.Offset // lowest offset that is kept
	Readable record.Offset // readers see offsets below this: what fdatasync has covered
	Next     record.Offset // offset of the next record appended
	Bytes    int64         // record.Size summed over [First, Next); after truncation within a frame an upper bound
	Sealed   bool
}

// Info is a stream as Admin lists it.
type Info struct {
	ID     record.StreamID
	Name   record.StreamName
	Policy Policy
	Bounds Bounds
}

// Change is one step of a control commit. Exactly one of the pointers is set.
type Change struct {
	Create   *Create
	Alter    *Alter
	Seal     *Seal
	Delete   *Delete
	Truncate *Truncate
}

// The changes.
type (
	// Create makes a stream: Conflict when the name exists. ID 0 lets the engine choose; Commit tells it. An ID that a
	// stream had, even a deleted one, must never be given to another.
	Create struct {
		Name   record.StreamName
		ID     record.StreamID
		Policy Policy
	}
	// Alter replaces the policy; the lane cannot change (Invalid).
	Alter struct {
		ID     record.StreamID
		Policy Policy
	}
	// Seal ends the stream: appends admitted later fail with Invalid, readers reach ErrEnd. Sealing twice is no error.
	Seal struct{ ID record.StreamID }
	// Delete removes the stream, its records and cursors. The name is free again at once, with a new ID.
	Delete struct{ ID record.StreamID }
	// Truncate drops records before Before; beyond the readable offset is Invalid, below the first is no error.
	Truncate struct {
		ID     record.StreamID
		Before record.Offset
	}
)

// Admin creates, changes and lists streams.
type Admin interface {
	// Commit applies the changes, all or none, durably, after every append that was admitted before. All streams of
	// one commit must be in one lane. It returns the IDs of created streams, in order.
	Commit(ctx context.Context, changes ...Change) ([]record.StreamID, error)
	// Lookup finds a stream by name: NotFound when there is none.
	Lookup(name record.StreamName) (Info, error)
	// List returns the streams whose names start with prefix, sorted by name.
	List(prefix string) []Info
}

// MaxCursorState is the most bytes of state a cursor carries.
const MaxCursorState = 64 << 10

// Cursor is a reader's durable place: the next offset it wants, and state of its own.
type Cursor struct {
	Offset record.Offset
	State  []byte
}

// Cursors keeps the places of readers. A cursor is part of its stream and goes with it.
type Cursors interface {
	// LoadCursor returns the cursor, or NotFound when it was never stored.
	LoadCursor(id record.StreamID, name string) (Cursor, error)
	// StoreCursor makes the cursor durable; when it has returned, LoadCursor gives it after any crash. An offset
	// beyond the readable one is Invalid, and so is a state above MaxCursorState.
	StoreCursor(ctx context.Context, id record.StreamID, name string, c Cursor) error
	// DeleteCursor forgets the cursor; a missing one is no error.
	DeleteCursor(ctx context.Context, id record.StreamID, name string) error
	// ListCursors returns the names of the stream's cursors with their offsets.
	ListCursors(id record.StreamID) (map[string]record.Offset, error)
}

// Engine is all of it. Callers ask for the part they need; wiring and conformance tests hold the whole.
type Engine interface {
	Appender
	Reader
	Admin
	Cursors
	// Close makes everything durable and ends; it is idempotent. Appends not acknowledged by then get Unavailable.
	Close() error
}

// Ensure returns the stream called name, creating it with policy p when it does not exist. An existing stream keeps its
// lane; when the rest of its policy differs it is altered.
func Ensure(ctx context.Context, a Admin, name record.StreamName, p Policy) (Info, error) {
	info, err := a.Lookup(name)
	if err == nil {
		p.Lane = info.Policy.Lane
		if info.Policy == p {
			return info, nil
		}
		_, err = a.Commit(ctx, Change{Alter: &Alter{ID: info.ID, Policy: p}})
		info.Policy = p
		return info, err
	}
	if record.KindOf(err) != record.NotFound {
		return Info{}, err
	}
	if _, err = a.Commit(ctx, Change{Create: &Create{Name: name, Policy: p}}); err != nil {
		return Info{}, err
	}
	return a.Lookup(name)
}

// AppendWait appends and waits for the acknowledgement: for tests, tools and callers with nothing else to do.
func AppendWait(ctx context.Context, a Appender, id record.StreamID, records ...record.Record) (record.Offset, error) {
	type result struct {
		first record.Offset
		err   error
	}
	ch := make(chan result, 1)
	a.Append(ctx, id, records, func(first record.Offset, err error) { ch <- result{first, err} })
	r := <-ch
	return r.first, r.err
}
