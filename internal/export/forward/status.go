package forward

import (
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Status is where an export stands.
type Status struct {
	ID         record.StreamID
	Name       record.StreamName
	Stream     string
	Identifier string
	Kind       string
	Disabled   bool
	// Next is the sequence number of the first message that is not settled: Next-1 is the last exported one.
	Next          record.Offset
	Messages      uint64    // delivered since the export was made; durable
	Bytes         uint64    // their payloads; durable
	Skipped       uint64    // never deliverable; durable
	Dropped       uint64    // lost by the stream (overwritten, expired, damaged) before they were delivered; durable
	LastAttempt   time.Time // zero: never
	LastDelivered time.Time // zero: never
	// LastError is that of the last failed attempt, which stays until a batch went through whole, or tells what was
	// skipped or lost, which stays for an hour more.
	LastError      string
	Hint           string        // what to do about it
	Retries        uint64        // failed attempts since the process started
	InRow          int           // of them, in a row now
	NextRetry      time.Time     // zero when not pausing
	Degraded       bool          // to be shown in health
	BacklogRecords uint64        // readable and not settled
	BacklogBytes   int64         // of them, estimated
	Lag            time.Duration // age of the oldest of them; 0 when it is not known (a disabled export)
}

// degradedAfter is how many failures in a row make an export degraded when a person is not needed at once.
const degradedAfter = 3

// keepLoss is how long a loss is shown although deliveries succeed.
const keepLoss = time.Hour

// needsHuman reports whether time alone will not mend the failure.
func needsHuman(err error) bool {
	switch record.KindOf(err) {
	case record.Denied, record.NotFound, record.Invalid:
		return true
	}
	return false
}

// stamp is when a record came, by all clocks that tell.
type stamp struct {
	sequence record.Offset
	known    bool
	time     int64 // of the record
	boot     uint64
	mono     int64
}

// stampOf is that of c's first record.
func stampOf(c *stream.Chunk) stamp {
	s := stamp{sequence: c.First, known: true, time: c.Records[0].Time}
	if len(c.Origins) > 0 {
		s.boot, s.mono = c.Origins[0].Boot, c.Origins[0].Mono
	}
	return s
}

// age is how long ago that was, at least 0: by the monotonic clock when the record came in this boot.
func (s *stamp) age(now clock.Reading) time.Duration {
	if s.boot != 0 && s.boot == now.Boot {
		return max(0, time.Duration(now.Mono-s.mono))
	}
	return max(0, time.Duration(now.Wall-s.time))
}

// status tells where the export stands.
func (r *runner) status() Status {
	bounds, err := r.spec.Log.Bounds(r.spec.ID)
	now := r.sh.clock.Read()
	r.mu.Lock()
	defer r.mu.Unlock()
	shown := r.shown()
	s := Status{
		ID: r.spec.ID, Name: r.spec.Name, Stream: r.spec.Stream, Identifier: r.spec.Identifier, Kind: r.spec.Kind,
		Disabled: r.spec.Disabled, Next: r.at.next, Messages: r.at.messages, Bytes: r.at.bytes, Skipped: r.at.skipped,
		Dropped: r.at.dropped, LastAttempt: wallTime(r.at.attempt), LastDelivered: wallTime(r.at.delivered),
		LastError: shown.text, Hint: shown.hint, Retries: r.retries, InRow: r.inRow, NextRetry: r.nextRetry,
		Degraded: r.human || r.inRow >= degradedAfter,
	}
	if err != nil { // the stream is gone
		return s
	}
	s.BacklogRecords, s.BacklogBytes = backlog(bounds, max(r.at.next, r.spec.Start))
	if s.BacklogRecords > 0 && r.oldest.known && r.oldest.sequence >= r.at.next {
		s.Lag = r.oldest.age(now)
	}
	return s
}

// backlog is how many records from next on are readable, and about how many bytes they have.
func backlog(b stream.Bounds, next record.Offset) (records uint64, bytes int64) {
	next = max(next, b.First)
	if next >= b.Readable {
		return 0, 0
	}
	records = uint64(b.Readable - next)
	return records, int64(float64(b.Bytes) * float64(records) / float64(b.Next-b.First))
}

func wallTime(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds).UTC()
}
