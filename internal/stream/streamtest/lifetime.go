package streamtest

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

func closeCases() []testCase {
	return []testCase{
		{name: "is idempotent, and everything after it is Unavailable", run: closeRefuses},
		{name: "ends readers that wait", run: closeWakes},
		{name: "tells every append its fate exactly once", run: closeUnderLoad},
	}
}

func closeRefuses(w *world) {
	id := w.create("test/closed", stream.Policy{})
	w.append(id, text("x"))
	w.close()
	if err := w.e.Close(); err != nil {
		w.Fatalf("second close: %v", err)
	}
	w.appendFails(record.Unavailable, id, text("y"))
	_, err := w.e.Commit(w.soon(), seal(id))
	w.wantKind("commit", err, record.Unavailable)
	w.wantKind("store cursor", w.e.StoreCursor(w.soon(), id, "a", stream.Cursor{}), record.Unavailable)
	w.wantKind("sync", w.e.Sync(w.soon(), id), record.Unavailable)
	w.wantKind("read", w.e.Read(w.soon(), id, 0, 1, new(stream.Chunk)), record.Unavailable)
}

func closeWakes(w *world) {
	id := w.create("test/closed", stream.Policy{})
	result := w.readAsync(w.soon(), id, 0, new(stream.Chunk))
	w.close()
	w.wantKind("read while the engine closes", await(w, result, "end of the read"), record.Unavailable)
}

func closeUnderLoad(w *world) {
	id := w.create("test/closed", stream.Policy{})
	var (
		running  sync.WaitGroup
		appends  atomic.Int64
		answered atomic.Int64
	)
	for range 8 {
		running.Go(func() {
			for refused := new(atomic.Bool); !refused.Load(); {
				appends.Add(1)
				w.e.Append(w.soon(), id, []record.Record{text("x")}, func(_ record.Offset, err error) {
					answered.Add(1)
					if err == nil {
						return
					}
					refused.Store(true)
					if record.KindOf(err) != record.Unavailable {
						w.Errorf("append while the engine closes: %v", err)
					}
				})
			}
		})
	}
	w.eventually("some records", func() bool { return w.bounds(id).Next > 100 })
	w.close()
	running.Wait()
	w.eventually("an answer to every append", func() bool { return appends.Load() == answered.Load() })
}

func volatileCases() []testCase {
	return []testCase{{name: "close loses everything, by design", run: func(w *world) {
		id := w.create("test/volatile", stream.Policy{})
		w.append(id, text("x"))
		w.reopen()
		w.wantNames("")
		w.wantGone(id)
	}}}
}

func durableCases() []testCase {
	cases := []testCase{
		{name: "a crash loses nothing that was exposed, and no offset comes to mean something else", run: crashExposed},
		{name: "crash after crash", run: crashTwice},
	}
	for _, end := range []struct {
		name string
		run  func(*world)
	}{
		{"reopen", (*world).reopen},
		{"kill", func(w *world) { w.crash(Kill) }},
		{"power cut", func(w *world) { w.crash(Power) }},
	} {
		cases = append(cases,
			testCase{name: end.name + " keeps records and offsets", run: func(w *world) { keepsRecords(w, end.run) }},
			testCase{name: end.name + " keeps streams, policies, seals and deletions", run: func(w *world) { keepsControl(w, end.run) }},
			testCase{name: end.name + " keeps cursors and truncation", run: func(w *world) { keepsCursors(w, end.run) }},
			testCase{name: end.name + " keeps many segments' worth", run: func(w *world) { keepsMuch(w, end.run) }},
		)
	}
	return cases
}

func keepsRecords(w *world, end func(*world)) {
	ids := []record.StreamID{w.create("test/a", stream.Policy{}), w.create("test/b", stream.Policy{Lane: stream.Long})}
	var want [2][]record.Record
	for round := range 3 {
		for s, id := range ids {
			for i := range 20 {
				batch := numbered("k", len(want[s]), 1+(i+s)%4, 30)
				if first := w.append(id, batch...); first != record.Offset(len(want[s])) {
					w.Fatalf("round %d: offset %d, want %d", round, first, len(want[s]))
				}
				want[s] = append(want[s], batch...)
			}
		}
		end(w)
		for s, id := range ids {
			w.wantBounds(id, 0, record.Offset(len(want[s])))
			w.wantRecords(id, 0, want[s])
		}
		w.wantSeek(ids[0], want[0][17].Time, 17)
	}
}

func keepsControl(w *world, end func(*world)) {
	p := stream.Policy{Durability: stream.OS, OnFull: stream.DropOldest, MaxBytes: 12345, DropBytes: 1234, MaxAge: 99 * time.Hour, UntilExported: true}
	ids := w.commit(create("test/altered", stream.Policy{}), create("test/sealed", stream.Policy{}),
		create("test/deleted", stream.Policy{}), create("test/again", stream.Policy{}))
	for _, id := range ids {
		w.append(id, text("x"))
	}
	w.commit(alter(ids[0], p), seal(ids[1]), remove(ids[2]), remove(ids[3]))
	again := w.create("test/again", stream.Policy{})
	w.append(again, text("new"))
	end(w)
	w.wantNames("", "test/again", "test/altered", "test/sealed")
	if info := w.lookup("test/altered"); info.Policy != p || info.ID != ids[0] {
		w.Fatalf("altered stream %+v", info)
	}
	w.appendFails(record.Invalid, ids[1], text("late"))
	w.wantRecords(ids[1], 0, []record.Record{text("x")})
	w.wantEnd(ids[1], 1)
	w.wantGone(ids[2])
	w.wantGone(ids[3])
	w.wantRecords(again, 0, []record.Record{text("new")})
	w.commitFails(record.Conflict, create("test/again", stream.Policy{}))
}

func keepsCursors(w *world, end func(*world)) {
	id := w.create("test/cursors", stream.Policy{})
	want := numbered("c", 0, 100, 100)
	w.append(id, want...)
	big := make([]byte, stream.MaxCursorState)
	for i := range big {
		big[i] = byte(i >> 3)
	}
	w.store(id, "a", stream.Cursor{Offset: 1, State: []byte("old")})
	w.store(id, "a", stream.Cursor{Offset: 42, State: []byte("new")})
	w.store(id, "b", stream.Cursor{Offset: 7, State: big})
	w.store(id, "c", stream.Cursor{Offset: 3})
	if err := w.e.DeleteCursor(w.soon(), id, "c"); err != nil {
		w.Fatal(err)
	}
	w.commit(truncate(id, 30))
	for range 2 {
		end(w)
		w.wantCursor(id, "a", stream.Cursor{Offset: 42, State: []byte("new")})
		w.wantCursor(id, "b", stream.Cursor{Offset: 7, State: big})
		w.wantBounds(id, 30, 100)
		w.wantRecords(id, 30, want[30:])
		_, gaps := w.read(id, 0, 100, 1<<20)
		if len(gaps) != 1 || gaps[0] != (stream.Gap{From: 0, To: 30, Reason: stream.Dropped}) {
			w.Fatalf("gaps %v", gaps)
		}
	}
	if names, err := w.e.ListCursors(id); err != nil || len(names) > 3 {
		w.Fatalf("cursors %v, %v", names, err)
	}
}

func keepsMuch(w *world, end func(*world)) {
	id := w.create("test/much", stream.Policy{})
	small := w.create("test/small", stream.Policy{})
	w.append(small, text("at the beginning"))
	const batches, per = 100, 50
	for i := range batches { // about 5 MB
		w.append(id, numbered("m", i*per, per, 1000)...)
	}
	end(w)
	w.wantBounds(id, 0, batches*per)
	w.wantRecords(id, 0, numbered("m", 0, batches*per, 1000))
	w.wantRecords(small, 0, []record.Record{text("at the beginning")})
	w.commit(truncate(id, batches*per-10))
	end(w)
	w.wantRecords(id, batches*per-10, numbered("m", batches*per-10, 10, 1000))
	w.wantRecords(small, 0, []record.Record{text("at the beginning")})
}

// crashExposed appends at level OS, whose last records a power cut may take, with a reader at the head: what the reader
// has seen must be there afterwards, unchanged.
func crashExposed(w *world) {
	id := w.create("test/os", stream.Policy{Durability: stream.OS})
	var seen []record.Record
	for round := range 5 {
		for i := range 50 {
			w.append(id, numbered("x", round*1000+i, 1, 40)...)
		}
		b := w.bounds(id)
		if b.Readable > record.Offset(len(seen)) {
			more, _ := w.read(id, record.Offset(len(seen)), b.Readable, 1<<20)
			seen = append(seen, more...)
		}
		w.crash(Power)
		if after := w.bounds(id); after.Next < record.Offset(len(seen)) || after.Next > b.Next || after.Readable != after.Next {
			w.Fatalf("round %d: bounds %+v after the cut, before it %+v", round, after, b)
		}
		w.wantRecords(id, 0, seen)
		after, _ := w.read(id, record.Offset(len(seen)), w.bounds(id).Next, 1<<20)
		seen = append(seen, after...)
	}
}

func crashTwice(w *world) {
	id := w.create("test/twice", stream.Policy{})
	want := numbered("t", 0, 10, 100)
	w.append(id, want...)
	for range 4 {
		w.crash(Power)
		w.crash(Kill)
	}
	w.wantRecords(id, 0, want)
	if first := w.append(id, text("next")); first != 10 {
		w.Fatalf("offset %d, want 10", first)
	}
}
