// Package forward runs the exports that deliver messages straight from the log: to Kinesis, HTTP, SiteWise, IoT
// Analytics, and as S3 upload tasks. (Package export, above it in the tree, makes files for the lake: it spools what it
// has encoded and is exact by key; here delivery is at least once, in order. See docs/adr/0008-forwarding.md.)
//
// A Supervisor runs a runner for each export of a stream: cursor → batch → Target. A Target, one file for each kind,
// delivers one Batch at a time.
//
// # When a batch goes out
//
// As soon as Spec.BatchSize messages, or MaxBatchBytes of payloads, are there; else when the oldest has waited for the
// interval (see Spec). What is together then stays together through retries. Ages are measured with the monotonic clock
// wherever the record tells its own, and a wait never exceeds the interval: a step of the wall clock hangs nothing.
//
// A batch is read only once it has one of Config.Threads slots, so batches take at most Threads × MaxBatchBytes of
// memory; one that failed as a whole is read again for the next attempt. Only a batch that was delivered in part stays in
// memory between attempts. Of those that wait for a slot, the highest priority is first, then the longest waiting. The
// order is strict: while exports of higher priority keep all slots busy, a lower one waits; a pause after a failure holds
// no slot.
//
// # Guarantees
//
//   - Every message from Spec.Start on is delivered at least once, or skipped with a reason, or lost by its stream; the
//     last two are counted, logged and shown. Order is kept as far as the destination knows order.
//   - The cursor passes a message only when it is settled, durably, with the counters in the cursor's state
//     (docs/format/export-state.md). A crash repeats at most the batch in flight; a stop repeats nothing that a target had
//     settled in front.
//   - Nothing is given up: a failed batch is tried again for ever, with jittered back-off, until it is settled or its
//     export removed.
//   - Supervisor.Set returns when the export's place is durable: from then on a stream with Policy.UntilExported keeps
//     what the export has not delivered.
//
// # Duties of the caller
//
// One Supervisor per log. Remove exports before their stream is deleted: a runner whose stream goes away ends quietly,
// and nobody tells its target about the messages. Cursors of exports that are no longer defined (a crash between a change
// of the definition and Remove) are the caller's to delete.
//
// # Goroutines and locks
//
// Supervisor.Run owns one goroutine for each export that is not disabled, and waits for all. An idle one sleeps in
// Log.Read: no timer, no polling, no buffer. Supervisor.changing lets one Set or Remove happen at a time;
// Supervisor.mu and runner.mu guard what is listed and shown, and are never held over I/O.
//
// # What it does not do
//
// It knows no destination and no credentials; it does not order messages between exports; it does not limit memory that
// targets need for their own.
package forward
