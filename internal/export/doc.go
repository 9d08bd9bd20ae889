// Package export moves records out of streams: cursor → plan → batch → sink. A Runner does it for one stream, a
// Supervisor runs them all with a bounded number of encodes and uploads at once, and a Sink is where batches go: Lake
// (lake.go) makes Parquet files of them and puts those into an object store.
//
// # States of a step
//
// A Step is a range of a stream on its way. It is durable, in the cursor "export/lake" of the stream, at each state:
//
//	PLANNED    the range, the instant of the cut, the configuration's revision
//	ENCODED    the batch lies in the spool, synced; its checksum is in the state. The cursor's offset moves past the
//	           range: from here on the log may drop the records
//	UPLOADED   every object of the step is in the store
//	COMMITTED  the catalog says so too; the step leaves the cursor, then the spool
//
// # Guarantees
//
//   - Each readable record is in exactly one step, and each step's objects have keys that follow from node, stream and
//     range. A batch is encoded anew only as long as the step is PLANNED; later the same bytes are sent again. So each
//     row is in the lake once, by key, whenever the process dies.
//   - Steps are planned, encoded and uploaded in the order of the stream.
//   - Nothing is given up: a store that does not take a step is asked again for ever, with jittered back-off. Spooled
//     bytes that no longer read are set aside, counted, reported and listed in the store; the rest goes on.
//   - Records that the log lost (gaps) are counted, reported, listed in the manifest, and never block.
//
// # Duties of the caller
//
// One Supervisor per data directory, one Runner per stream and sink name. Sink.Deliver must be safe to repeat.
//
// # Goroutines and locks
//
// Supervisor.Run starts two goroutines per stream and waits for them: the cutter plans and encodes, the deliverer
// uploads, so that a store that hangs does not stop cutting. Both change the steps through Runner.update, which holds
// Runner.saving while the cursor is stored; Runner.mu guards what Status reads and is never held over I/O.
//
// # What it does not do
//
// It neither retries inside a put (the store's client does, shortly) nor merges files. An encode needs room for one
// batch in the spool beside the log.
//
// The cursor's bytes are described in docs/format/export-state.md, the choice of states in
// docs/adr/0005-export-states.md.
package export
