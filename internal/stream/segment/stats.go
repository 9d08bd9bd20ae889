package segment

import (
	"github.com/leat-io/leat/internal/stream"
)

// Stats is a snapshot of one lane. Counters count from Open.
type Stats struct {
	Lane     stream.Lane
	Streams  int
	Segments int
	Logical  int64 // bytes of key, payload and attributes kept
	Physical int64 // bytes of segment and index files
	Garbage  int64 // bytes of sealed segments that no stream needs

	Appends         int64 // acknowledged
	Records         int64 // acknowledged
	Bytes           int64 // acknowledged, logical
	WrittenBytes    int64 // to segments: frames, checkpoints, copies
	Commits         int64
	Syncs           int64 // fdatasync calls
	SyncNanos       int64 // spent in them
	RejectedAppends int64 // Full
	DroppedRecords  int64 // by MaxBytes with DropOldest, by MaxAge, by the node's budget
	DroppedBytes    int64
	DamagedRanges   int64 // once durable, no longer readable
	DamagedBytes    int64
	TornTailBytes   int64 // cut off at Open: never acknowledged at level disk
	IndexRebuilds   int64
	CleanedSegments int64
	CopiedBytes     int64 // by cleaning
	WriteErrors     int64
}

// Stats returns a snapshot of each lane.
func (l *Log) Stats() []Stats {
	all := make([]Stats, 0, len(l.lanes))
	for _, la := range l.lanes {
		all = append(all, la.snapshot())
	}
	return all
}

func (l *lane) snapshot() Stats {
	c := &l.stats
	st := Stats{
		Lane: l.kind, Physical: l.physical.Load(),
		Appends: c.appends.Load(), Records: c.records.Load(), Bytes: c.bytes.Load(), WrittenBytes: c.writtenBytes.Load(),
		Commits: c.commits.Load(), Syncs: c.syncs.Load(), SyncNanos: c.syncNanos.Load(),
		RejectedAppends: c.rejected.Load(), DroppedRecords: c.droppedRecords.Load(), DroppedBytes: c.droppedBytes.Load(),
		DamagedRanges: c.damagedRanges.Load(), DamagedBytes: c.damagedBytes.Load(), TornTailBytes: c.tailBytes.Load(),
		IndexRebuilds: c.indexRebuilds.Load(), CleanedSegments: c.cleanedSegments.Load(), CopiedBytes: c.copiedBytes.Load(),
		WriteErrors: c.writeErrors.Load(),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	st.Streams, st.Segments = len(l.streams), len(l.segments)
	for _, s := range l.streams {
		st.Logical += s.bytes
	}
	for _, seg := range l.segments {
		if seg != l.active {
			st.Garbage += max(0, seg.size-seg.live)
		}
	}
	return st
}
