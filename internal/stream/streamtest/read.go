package streamtest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

func readCases() []testCase {
	return []testCase{
		{name: "at least one record, then at most about maxBytes", run: readLimit},
		{name: "blocks at the head until a record comes", run: readTail},
		{name: "waiting at the head can be cancelled", run: readCancel},
		{name: "beyond the next offset is Invalid", run: readBeyond},
		{name: "an unknown stream is NotFound", run: readUnknown},
		{name: "a chunk stays as it is until the next read", run: readStable},
		{name: "truncated records are a gap", run: readTruncated},
		{name: "a stream truncated to its end is a gap and then blocks", run: readEmptied},
		{name: "a reader that waits survives truncation", run: readWaitTruncate},
		{name: "seek finds the lowest offset at or after a time", run: seekOrdered},
		{name: "seek copes with times that go backwards", run: seekDisordered},
		{name: "seek looks at kept records only", run: seekTruncated},
		{name: "seek in a long stream", run: seekLong},
		{name: "bounds tell extent and bytes", run: boundsBytes},
		{name: "sync makes what is acknowledged readable", run: syncReads},
		{name: "sync is shared by many callers while others append", run: syncShared},
		{name: "sync of an unknown or deleted stream is NotFound", run: syncUnknown},
	}
}

func (w *world) sync(id record.StreamID) {
	w.Helper()
	if err := w.e.Sync(w.soon(), id); err != nil {
		w.Fatalf("sync: %v", err)
	}
}

func syncReads(w *world) {
	for _, level := range []stream.Durability{stream.Disk, stream.OS} {
		id := w.create([]record.StreamName{"test/disk", "test/os"}[level], stream.Policy{Durability: level})
		w.sync(id) // an empty stream has nothing to wait for
		want := numbered("s", 0, 50, 10)
		for i := range want {
			w.append(id, want[i])
			w.sync(id)
			if b := w.bounds(id); b.Readable != record.Offset(i+1) {
				w.Fatalf("after the sync of %d records: bounds %+v", i+1, b)
			}
		}
		w.commit(seal(id))
		w.sync(id)
		w.wantRecords(id, 0, want)
	}
}

func syncShared(w *world) {
	id := w.create("test/os", stream.Policy{Durability: stream.OS})
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for range 50 {
				at, err := stream.AppendWait(w.soon(), w.e, id, text("x"))
				if err == nil {
					err = w.e.Sync(w.soon(), id)
				}
				b, berr := w.e.Bounds(id)
				if err != nil || berr != nil || b.Readable <= at {
					w.Errorf("offset %d is not readable after Sync: %+v, %v, %v", at, b, err, berr)
					return
				}
			}
		})
	}
	running.Wait()
	w.wantBounds(id, 0, 400)
}

func syncUnknown(w *world) {
	w.wantKind("sync", w.e.Sync(w.soon(), 12345), record.NotFound)
	id := w.create("test/os", stream.Policy{Durability: stream.OS})
	w.append(id, text("x"))
	w.commit(remove(id))
	w.wantKind("sync", w.e.Sync(w.soon(), id), record.NotFound)
}

func readLimit(w *world) {
	id := w.create("test/limit", stream.Policy{})
	want := numbered("limit", 0, 300, 1000)
	w.append(id, want[:100]...)
	for i := 100; i < len(want); i++ {
		w.append(id, want[i])
	}
	for _, maxBytes := range []int{0, 1, 1500, 10_000, 1 << 20} {
		var c stream.Chunk
		for from := record.Offset(0); from < 300; from = c.Next {
			if err := w.e.Read(w.soon(), id, from, maxBytes, &c); err != nil {
				w.Fatal(err)
			}
			w.checkChunk(&c, from)
			size := 0
			for i := range c.Records[:len(c.Records)-1] {
				size += c.Records[i].Size()
			}
			if size > maxBytes {
				w.Fatalf("read of at most %d bytes: %d bytes before the last of %d records", maxBytes, size, len(c.Records))
			}
			w.sameRecords(from, c.Records, want[from:c.Next])
		}
	}
}

func readTail(w *world) {
	for _, level := range []stream.Durability{stream.Disk, stream.OS} {
		id := w.create([]record.StreamName{"test/disk", "test/os"}[level], stream.Policy{Durability: level})
		want := numbered("tail", 0, 200, 10)
		got := make(chan record.Record)
		go func() {
			defer close(got)
			var c stream.Chunk
			for from := record.Offset(0); from < record.Offset(len(want)); from = c.Next {
				if err := w.e.Read(w.soon(), id, from, 1<<16, &c); err != nil {
					w.Errorf("read at the head: %v", err)
					return
				}
				for i := range c.Records {
					got <- clone(&c.Records[i])
				}
			}
		}()
		for i := range want {
			w.append(id, want[i])
			r := await(w, got, "record at the head") // the reader waits at the head for most of them
			w.sameRecords(record.Offset(i), []record.Record{r}, want[i:i+1])
		}
	}
}

// readAsync reads from `from` in the background.
func (w *world) readAsync(ctx context.Context, id record.StreamID, from record.Offset, c *stream.Chunk) <-chan error {
	result := make(chan error, 1)
	go func() { result <- w.e.Read(ctx, id, from, 1<<16, c) }()
	return result
}

func readCancel(w *world) {
	id := w.create("test/cancel", stream.Policy{})
	w.append(id, text("x"))
	ctx, cancel := context.WithCancel(context.Background())
	result := w.readAsync(ctx, id, 1, new(stream.Chunk))
	cancel()
	if err := await(w, result, "end of the read"); !errors.Is(err, context.Canceled) {
		w.Fatalf("cancelled read: %v", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := w.e.Read(ctx, id, 1, 1<<16, new(stream.Chunk)); !errors.Is(err, context.DeadlineExceeded) {
		w.Fatalf("read with a deadline: %v", err)
	}
	w.append(id, text("y"))
	w.wantRecords(id, 1, []record.Record{text("y")})
}

func readBeyond(w *world) {
	id := w.create("test/beyond", stream.Policy{})
	w.wantKind("read", w.e.Read(w.soon(), id, 1, 1, new(stream.Chunk)), record.Invalid)
	w.append(id, text("x"), text("y"))
	w.wantKind("read", w.e.Read(w.soon(), id, 3, 1, new(stream.Chunk)), record.Invalid)
}

func readUnknown(w *world) {
	w.wantKind("read", w.e.Read(w.soon(), 99, 0, 1, new(stream.Chunk)), record.NotFound)
	_, err := w.e.Bounds(99)
	w.wantKind("bounds", err, record.NotFound)
	_, err = w.e.Seek(w.soon(), 99, time.Now())
	w.wantKind("seek", err, record.NotFound)
}

func readStable(w *world) {
	id := w.create("test/stable", stream.Policy{})
	want := numbered("stable", 0, 50, 100)
	w.append(id, want...)
	var c, other stream.Chunk
	if err := w.e.Read(w.soon(), id, 0, 1<<20, &c); err != nil {
		w.Fatal(err)
	}
	for i := range 50 {
		w.append(id, numbered("later", i, 100, 100)...)
	}
	w.commit(stream.Change{Truncate: &stream.Truncate{ID: id, Before: 4000}})
	if err := w.e.Read(w.soon(), id, 4000, 1<<20, &other); err != nil {
		w.Fatal(err)
	}
	w.sameRecords(0, c.Records, want)
}

func readTruncated(w *world) {
	id := w.create("test/truncated", stream.Policy{})
	want := numbered("t", 0, 100, 10)
	w.append(id, want[:60]...)
	w.append(id, want[60:]...)
	truncate := func(before record.Offset) {
		w.commit(stream.Change{Truncate: &stream.Truncate{ID: id, Before: before}})
	}
	for _, before := range []record.Offset{30, 60, 99} {
		truncate(before)
		w.wantBounds(id, before, 100)
		for _, from := range []record.Offset{0, before - 1} {
			got, gaps := w.read(id, from, 100, 1<<20)
			if len(gaps) != 1 || gaps[0] != (stream.Gap{From: from, To: before, Reason: stream.Dropped}) {
				w.Fatalf("read from %d after truncation to %d: gaps %v", from, before, gaps)
			}
			w.sameRecords(before, got, want[before:])
		}
		w.wantRecords(id, before, want[before:])
	}
	truncate(5)
	w.wantBounds(id, 99, 100)
	w.commitFails(record.Invalid, stream.Change{Truncate: &stream.Truncate{ID: id, Before: 101}})
	w.wantBounds(id, 99, 100)
}

func readEmptied(w *world) {
	id := w.create("test/emptied", stream.Policy{})
	w.append(id, numbered("t", 0, 10, 10)...)
	w.commit(stream.Change{Truncate: &stream.Truncate{ID: id, Before: 10}})
	w.wantBounds(id, 10, 10)
	if b := w.bounds(id); b.Bytes != 0 {
		w.Fatalf("an empty stream has %d bytes", b.Bytes)
	}
	_, gaps := w.read(id, 4, 10, 1<<20)
	if len(gaps) != 1 || gaps[0] != (stream.Gap{From: 4, To: 10, Reason: stream.Dropped}) {
		w.Fatalf("gaps %v", gaps)
	}
	var c stream.Chunk
	result := w.readAsync(w.soon(), id, 10, &c)
	if first := w.append(id, text("next")); first != 10 {
		w.Fatalf("offset %d after truncation to the end, want 10", first)
	}
	if err := await(w, result, "record at the head"); err != nil {
		w.Fatal(err)
	}
	w.sameRecords(10, c.Records, []record.Record{text("next")})
}

func readWaitTruncate(w *world) {
	id := w.create("test/wait", stream.Policy{})
	w.append(id, numbered("t", 0, 10, 10)...)
	var c stream.Chunk
	result := w.readAsync(w.soon(), id, 10, &c)
	w.commit(stream.Change{Truncate: &stream.Truncate{ID: id, Before: 10}})
	w.append(id, text("next"))
	if err := await(w, result, "record at the head"); err != nil {
		w.Fatal(err)
	}
	w.checkChunk(&c, 10)
	w.sameRecords(10, c.Records, []record.Record{text("next")})
}

func (w *world) wantSeek(id record.StreamID, t int64, want record.Offset) {
	w.Helper()
	got, err := w.e.Seek(w.soon(), id, time.Unix(0, t))
	if err != nil || got != want {
		w.Fatalf("seek %d: offset %d, %v; want %d", t, got, err, want)
	}
}

func timed(times ...int64) []record.Record {
	records := make([]record.Record, len(times))
	for i, t := range times {
		records[i] = record.Record{Time: t, Payload: []byte("x")}
	}
	return records
}

func seekOrdered(w *world) {
	id := w.create("test/seek", stream.Policy{})
	w.wantSeek(id, 0, 0)
	w.append(id, timed(10, 20, 20, 30)...)
	w.append(id, timed(40)...)
	for t, want := range map[int64]record.Offset{-5: 0, 10: 0, 11: 1, 20: 1, 21: 3, 30: 3, 31: 4, 40: 4, 41: 5, 1 << 60: 5} {
		w.wantSeek(id, t, want)
	}
}

func seekDisordered(w *world) {
	id := w.create("test/seek", stream.Policy{})
	w.append(id, timed(10, 50)...)
	w.append(id, timed(20, 40)...)
	w.append(id, timed(60, 5)...)
	for t, want := range map[int64]record.Offset{0: 0, 10: 0, 11: 1, 30: 1, 50: 1, 51: 4, 60: 4, 61: 6} {
		w.wantSeek(id, t, want)
	}
}

func seekTruncated(w *world) {
	id := w.create("test/seek", stream.Policy{})
	w.append(id, timed(10, 50, 20, 40, 60)...)
	w.commit(stream.Change{Truncate: &stream.Truncate{ID: id, Before: 2}})
	for t, want := range map[int64]record.Offset{0: 2, 20: 2, 30: 3, 50: 4, 61: 5} {
		w.wantSeek(id, t, want)
	}
}

func seekLong(w *world) {
	id := w.create("test/seek", stream.Policy{})
	const n = 20_000
	for i := 0; i < n; i += 500 {
		batch := make([]record.Record, 500)
		for j := range batch {
			batch[j] = record.Record{Time: int64(i+j) * 10, Payload: make([]byte, 100)}
		}
		w.append(id, batch...)
	}
	for i := 0; i < n; i += 997 {
		w.wantSeek(id, int64(i)*10, record.Offset(i))
		w.wantSeek(id, int64(i)*10-9, record.Offset(i))
	}
}

func boundsBytes(w *world) {
	id := w.create("test/bounds", stream.Policy{})
	if b := w.bounds(id); b != (stream.Bounds{}) {
		w.Fatalf("bounds of an empty stream: %+v", b)
	}
	records := numbered("b", 0, 100, 50)
	var bytes int64
	for i := range records {
		bytes += int64(records[i].Size())
	}
	w.append(id, records...)
	w.append(id, records...)
	if b := w.bounds(id); b != (stream.Bounds{Readable: 200, Next: 200, Bytes: 2 * bytes}) {
		w.Fatalf("bounds %+v, want 200 records of %d bytes", b, 2*bytes)
	}
	w.commit(stream.Change{Truncate: &stream.Truncate{ID: id, Before: 100}})
	if b := w.bounds(id); b != (stream.Bounds{First: 100, Readable: 200, Next: 200, Bytes: bytes}) {
		w.Fatalf("bounds after truncation %+v, want 100 records of %d bytes", b, bytes)
	}
	w.commit(stream.Change{Truncate: &stream.Truncate{ID: id, Before: 150}}, stream.Change{Seal: &stream.Seal{ID: id}})
	b := w.bounds(id)
	if b.First != 150 || !b.Sealed || b.Bytes > bytes || b.Bytes < bytes/3 {
		w.Fatalf("bounds after truncation within a frame and sealing: %+v, want sealed, about %d bytes", b, bytes/2)
	}
}
