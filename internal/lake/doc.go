// Package lake turns records into the files of the lake: rows → sorted Parquet → Hive partitions by event time.
//
// A Builder takes the chunks of one Range of a stream, decodes them into rows (payload.Decoder) and writes the files of
// that range to the spool: data files, files of rejected records, and a Manifest that names them. The Catalog keeps,
// durably, each table's schema and which files exist, and gives readers a consistent View. LoadNode finds the id that
// keeps the keys of one box apart from those of all others. Uploading is package export's work.
//
// # Guarantees
//
//   - Every row of a record is in exactly one data file, in the partition of its event day (UTC), or the whole record
//     is in a rejected file with its topic, the reason and its payload. A time before 1970 is such a reason.
//   - No value changes: what the type of its column does not hold exactly is in the column text (portable layout) or,
//     as JSON, in _extra (column layout). Only times finer than the table's unit are cut, and counted.
//   - Keys follow from the Range alone, and no two ranges, streams or nodes share one.
//   - A table's schema is durable before a file uses it and only widens.
//   - When Finish has returned, all files are on disk (fsync), and so are their names.
//   - One build takes at most Config.MemoryCeiling bytes of heap, however many rows and days it encodes: six times
//     RowGroupBytes (the buffers, their growth, and what the garbage collector has not yet taken of them), 48 MiB (the
//     compressor, the pages of a row group, the footers of open files, rejected records) and 48 KiB for each column.
//     A single record larger than that comes on top, three times.
//
// # Duties of the caller
//
// Two builds of one Range must not run at a time. A Builder that fails is to be given up with Abort. Files become
// visible to readers with Catalog.AddFiles, after the caller has made the step durable.
//
// A Builder belongs to one goroutine and starts none. A Catalog is safe for concurrent use.
//
// # Algorithm
//
//  1. Each row goes into the buffer of its day: one slice of words per column, strings as numbers from an interner that
//     all buffers share, so that a row costs no allocation.
//  2. When the buffers exceed the budget, the largest becomes a row group: rows are put in order by counting sorts over
//     the key columns (few distinct values) and, where they are not in order of time already, by time.
//  3. A day's row groups follow one another in one file until it has reached FileBytes, until more than OpenFiles days
//     are open, or until rows come that need a column the file lacks: then the day goes on in file "-2".
//
// What lies where, byte by byte and field by field, is in docs/format/lake.md; why, in docs/adr/0004-lake-layout.md.
// The package does not merge files, delete from the store, or read Parquet.
package lake
