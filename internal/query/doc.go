// Package query answers SQL over the lake. Engine runs one SELECT in a leat-sql process and streams the answer.
//
// # What a query sees
//
// One version of the catalog: every file of the tables it names that can hold rows it wants, linked (hard links) into a
// directory of its own, so that neither export nor upload nor eviction takes a file away from under it; and, behind what
// the catalog covers, the rows that are still in the streams (the tail), encoded by the lake's own Builder. Rows of a
// record appear exactly once.
//
// # How it runs
//
//  1. A slot is taken: Config.Workers queries run at a time, Config.Queue more wait, beyond that Throttled.
//  2. The tail is brought up to date: streams are cut into chunks on a grid of Config.TailChunk records. A full chunk is
//     encoded once and kept until an export covers it; only the last, partial one is encoded again when records came.
//  3. A worker starts, confines itself to the snapshot directory (see package sqlworker), proves that the statement is
//     one SELECT, and tells which tables it reads and what holds for their partition columns and ts.
//  4. The files that can matter are linked, fetched before through the object cache where the lake is remote.
//  5. The worker runs the statement and streams the answer.
//
// When a file vanished between 2 and 4 because an upload finished, or the log was trimmed by an export, everything
// starts again from the newer catalog, a few times at most.
//
// # Limits
//
// A worker is killed (SIGKILL, its process group) when the context ends, the deadline passes, or it takes more memory
// than it may. Each query has a process of its own: nothing a statement does outlives it, and ingest goes on. Scratch
// and snapshots are removed when a query ends and when the engine opens.
//
// # Goroutines and locks
//
// Query runs on its caller's goroutine and starts a few that end before it returns. The engine has none of its own. Each
// feed and the object cache have a lock; none is held while a worker runs.
//
// It does not change anything in the lake, and does not see files that other nodes put into a shared store.
package query
