package export

import (
	"time"

	"github.com/leat-io/leat/internal/record"
)

// Stats are counters since the process started; Supervisor.Stats adds those of all runners up.
type Stats struct {
	Steps          uint64 // encoded
	Records        uint64 // in them, gaps included
	Rows           uint64
	Rejected       uint64 // records that did not parse
	Files          uint64 // encoded
	Bytes          uint64 // in them
	UploadedFiles  uint64
	UploadedBytes  uint64
	Retries        uint64 // failures that were followed by a pause
	DroppedRecords uint64 // gaps: truncated by policy before they were exported
	DamagedRecords uint64 // gaps: the log lost them
	DamagedFiles   uint64 // spool files found damaged
	LostRows       uint64 // in them
	Restamped      uint64 // records whose time was corrected
	UnknownTime    uint64 // records that keep the time of a clock that was never set

	// Gauges.
	SpoolBytes     int64
	PendingSteps   int
	BacklogRecords uint64 // readable, not committed
	BacklogBytes   int64  // of the log, estimated, of what is not yet encoded
	Lag            time.Duration
	Degraded       int // runners whose Status is Degraded
}

func (s *Stats) add(o Stats) {
	s.Steps += o.Steps
	s.Records += o.Records
	s.Rows += o.Rows
	s.Rejected += o.Rejected
	s.Files += o.Files
	s.Bytes += o.Bytes
	s.UploadedFiles += o.UploadedFiles
	s.UploadedBytes += o.UploadedBytes
	s.Retries += o.Retries
	s.DroppedRecords += o.DroppedRecords
	s.DamagedRecords += o.DamagedRecords
	s.DamagedFiles += o.DamagedFiles
	s.LostRows += o.LostRows
	s.Restamped += o.Restamped
	s.UnknownTime += o.UnknownTime
	s.PendingSteps += o.PendingSteps
	s.BacklogRecords += o.BacklogRecords
	s.BacklogBytes += o.BacklogBytes
	s.Lag = max(s.Lag, o.Lag)
	s.Degraded += o.Degraded
}

// Last is the last batch that came so far.
type Last struct {
	At    time.Time
	Key   string
	Rows  int64
	Bytes int64
}

// Status is where one export stands.
type Status struct {
	Stream   record.StreamID
	Name     record.StreamName
	Table    string
	Closed   Last // encoded into the spool
	Uploaded Last // in the store

	Next           record.Offset // the first record that is not committed
	BacklogRecords uint64        // readable, not committed
	BacklogBytes   int64         // of the log, estimated, of what is not yet encoded
	Lag            time.Duration // age of the oldest record that is not committed
	Pending        int           // steps planned and not committed
	First          State         // of the first of them

	Waiting    string    // why a backlog is not cut; "" when it only waits for its period
	Retries    int       // failures in a row; 0 when all is well
	NextRetry  time.Time // zero when not pausing
	LastError  string    // of the failures in a row
	Hint       string
	NeedsHuman bool // time alone will not mend it: wrong credentials, missing bucket, a key taken by other content
	Degraded   bool // to be shown in health
	Stats      Stats
}

// degradedAfter is how many failures in a row make an export degraded when a person is not needed at once.
const degradedAfter = 3

// trouble is a series of failures.
type trouble struct {
	inRow int
	err   error
	next  time.Time
}

// add notes a failure and reports whether it is worth a log line: the first, a new text, and every tenth.
func (t *trouble) add(err error, next time.Time) (loud bool) {
	loud = t.err == nil || t.err.Error() != err.Error() || t.inRow%10 == 9
	t.inRow++
	t.err, t.next = err, next
	return loud
}

func (t *trouble) needsHuman() bool {
	if t.err == nil {
		return false
	}
	switch record.KindOf(t.err) {
	case record.Denied, record.NotFound, record.Conflict, record.Invalid:
		return true
	}
	return false
}

// Status tells where the export stands.
func (r *Runner) Status() Status {
	bounds, err := r.log.Bounds(r.spec.Stream)
	now := r.clock.Read().Wall
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{
		Stream: r.spec.Stream, Name: r.spec.Name, Table: r.spec.Table,
		Closed: r.closed, Uploaded: r.uploaded, Pending: len(r.pos.steps), Waiting: r.reason, Stats: r.totals,
	}
	if err == nil && r.loaded {
		s.Next = r.committed()
		s.BacklogRecords, _ = backlog(bounds, r.committed())
		_, s.BacklogBytes = backlog(bounds, r.pos.encoded)
	}
	oldest := r.oldest
	if len(r.pos.steps) > 0 {
		s.First = r.pos.steps[0].State
		oldest = r.pos.steps[0].Oldest
	}
	if oldest != 0 && s.BacklogRecords > 0 {
		s.Lag = max(0, time.Duration(now-oldest))
	}
	s.trouble(r.delivering, r.cutting, r.ended)
	s.Degraded = s.NeedsHuman || s.Retries >= degradedAfter || s.Waiting != ""
	s.Stats.PendingSteps, s.Stats.BacklogRecords, s.Stats.BacklogBytes = s.Pending, s.BacklogRecords, s.BacklogBytes
	s.Stats.Lag = s.Lag
	if s.Degraded {
		s.Stats.Degraded = 1
	}
	return s
}

// trouble fills in the first trouble there is.
func (s *Status) trouble(delivering, cutting trouble, ended error) {
	t := delivering
	if t.inRow == 0 {
		t = cutting
	}
	if ended != nil {
		t = trouble{inRow: max(1, t.inRow), err: ended}
	}
	if t.inRow == 0 {
		return
	}
	s.Retries, s.NextRetry, s.LastError, s.Hint = t.inRow, t.next, t.err.Error(), record.HintOf(t.err)
	s.NeedsHuman = t.needsHuman() || ended != nil
}
