package lake

import (
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/vfs"
)

// Builder encodes one Range. It belongs to one goroutine.
type Builder struct{}

// Result is what a build made.
type Result struct {
	Files        []File // data files, then rejected files, then the manifest; empty when there was nothing to write
	Rows         int64
	Rejected     int64  // records
	Bytes        int64  // of all Files
	TimesRounded int64  // event times finer than the table's time unit
	Reject       string // reason of the first rejected record, for the log
}

// NewBuilder returns a builder of rng's files below dir, the spool. It does no I/O. restamp gives the time of a record
// whose clock was not trusted when it was appended; nil leaves it as it is.
func NewBuilder(dir *vfs.Dir, cfg Config, spec TableSpec, cat *Catalog, rng Range, dec payload.Decoder,
	restamp func(o stream.Origin, recTime int64) int64) *Builder {
	return &Builder{}
}

// Add decodes and buffers a chunk's records. Records outside the range are skipped. After an error only Abort is of use.
func (b *Builder) Add(c *stream.Chunk) error { return nil }

// Finish writes what is buffered and makes all files durable.
func (b *Builder) Finish() (Result, error) { return Result{}, nil }

// Abort removes what was written. It may follow anything, also a failed Finish, and is idempotent.
func (b *Builder) Abort() error { return nil }
