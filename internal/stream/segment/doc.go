// Package segment is the embedded stream engine: one segmented log per lane, group commit, and recovery that tells a
// torn tail from damage.
//
// # Files
//
// A Log lives in one directory. Each lane (short, long) has a directory with segments (*.seg), indexes of sealed
// segments (*.idx, rebuilt when missing), the floor file and a quarantine directory. docs/format/log.md describes them
// byte by byte.
//
// # Commit
//
// Append encodes its records into the lane's queue as one frame (several above 1 MiB) and returns. The committer, one
// goroutine per lane, takes the whole queue: it hands out offsets, writes all frames with one write, the control steps
// with another, calls fdatasync once when anybody waits for it, shows the new offsets to readers and runs the
// acknowledgements. What arrives meanwhile is the next commit. Offsets are handed out by the committer and not by
// Append: a write that fails (disk full) then leaves no hole behind.
//
// A failed write cuts the file back and fails the commit only. A failed fdatasync fails the log for good, see
// Log.Failed: the kernel may have dropped the pages, so no later success proves anything.
//
// # Control state
//
// Streams, policies, extents and cursors change by steps (op) that are logged in control frames. Each segment begins
// with a checkpoint: the steps that lead to the state at that point. Opening applies the newest checkpoint and replays
// one segment, whatever is stored. Steps that only give space back (truncation by policy) are applied at once and
// logged before the next commit: losing one brings old records back and nothing else.
//
// # Reading
//
// A stream's extents tell the segment of an offset, the segment's groups (in memory for the active segment, in the
// index file for sealed ones) tell the position. One read takes the group, which is at most 64 KiB and a frame long,
// and neighbouring groups up to what was asked for. Readers see only what an fdatasync has covered.
//
// # Cleaning
//
// Segments to which no extent points are deleted. When more than a quarter of a lane is garbage, the live frames of
// the emptiest segment are copied forward by the committer, durably, before the segment is dropped: a slow stream pins
// nothing.
//
// # Goroutines and locks
//
// Per lane: the committer (run) and maintenance (maintain); Close waits for both. lane.mu guards the lane's state and
// is taken before Log.mu and the caches' mutexes. Files are written by the committer only.
//
// # Not here
//
// Replication, compression and encryption of frames: the header has room for both of the latter (codec, key id), and
// frames with a value this program does not know are reported as damage, never misread.
package segment
