package streamtest

import (
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

func policyCases() []testCase {
	return []testCase{
		{name: "reject: a full stream refuses and keeps, until truncated", run: policyReject},
		{name: "drop oldest: a full stream makes room", run: policyDropOldest},
		{name: "drop oldest: drop bytes go at once", run: policyDropBytes},
		{name: "drop oldest: drop bytes never take the newest record", run: policyDropBytesNewest},
		{name: "max age drops what is older", run: policyMaxAge},
		{name: "max age waits for a clock that can be believed", run: policyMaxAgeUntrusted},
		{name: "until exported: without an export cursor everything stays", run: policyExportNone},
		{name: "until exported: the slowest export decides", run: policyExportSlowest},
		{name: "until exported: switched on later it drops what was exported", run: policyExportLater},
		{name: "node full: reject refuses until space is free", limits: Limits{MaxBytes: 4 << 20}, run: nodeReject},
		{name: "node full: drop oldest goes on", limits: Limits{MaxBytes: 4 << 20}, run: nodeDropOldest},
		{name: "node full: drop oldest keeps no other stream out", limits: Limits{MaxBytes: 4 << 20}, run: nodeDropOldestOthers},
	}
}

func policyReject(w *world) {
	id := w.create("test/reject", stream.Policy{MaxBytes: 10_500})
	var kept []record.Record
	for i := 0; ; i++ {
		r := numbered("r", i, 1, 900)
		if _, err := stream.AppendWait(w.soon(), w.e, id, r...); err != nil {
			w.wantKind("append to a full stream", err, record.Full)
			break
		}
		if kept = append(kept, r...); len(kept) > 20 {
			w.Fatal("never full")
		}
	}
	if b := w.bounds(id); len(kept) < 8 || b.Bytes > 10_500 {
		w.Fatalf("%d records kept, bounds %+v", len(kept), b)
	}
	w.wantRecords(id, 0, kept)
	w.append(id, text("a small one still fits"))
	w.commit(truncate(id, 5))
	w.append(id, numbered("r", 100, 3, 900)...)
	w.wantRecords(id, 5, kept[5:])
	w.appendFails(record.Full, id, numbered("r", 0, 20, 900)...)
}

func policyDropOldest(w *world) {
	id := w.create("test/drop", stream.Policy{MaxBytes: 50_000, OnFull: stream.DropOldest})
	all := numbered("d", 0, 500, 1000)
	for i := range all {
		if first := w.append(id, all[i]); first != record.Offset(i) {
			w.Fatalf("record %d at offset %d", i, first)
		}
		if b := w.bounds(id); b.Bytes > 50_000+1100 {
			w.Fatalf("%d bytes after record %d", b.Bytes, i)
		}
	}
	w.eventually("at most MaxBytes kept", func() bool { return w.bounds(id).Bytes <= 50_000 })
	b := w.bounds(id)
	if b.First == 0 || b.First > 490 || b.Next != 500 {
		w.Fatalf("bounds %+v", b)
	}
	got, gaps := w.read(id, 0, 500, 1<<20)
	if len(gaps) != 1 || gaps[0] != (stream.Gap{From: 0, To: b.First, Reason: stream.Dropped}) {
		w.Fatalf("gaps %v, first kept %d", gaps, b.First)
	}
	w.sameRecords(b.First, got, all[b.First:])
}

func policyDropBytes(w *world) {
	id := w.create("test/drop", stream.Policy{MaxBytes: 50_000, DropBytes: 20_000, OnFull: stream.DropOldest})
	all := numbered("d", 0, 500, 1000)
	var first record.Offset
	steps := 0
	for i := range all {
		w.append(id, all[i])
		w.eventually("at most MaxBytes kept", func() bool { return w.bounds(id).Bytes <= 50_000 })
		b := w.bounds(id)
		if b.First == first {
			continue
		}
		var dropped int64
		for _, r := range all[first:b.First] {
			dropped += int64(r.Size())
		}
		if dropped < 20_000 || dropped > 22_000 {
			w.Fatalf("%d bytes dropped at once, to offset %d", dropped, b.First)
		}
		first = b.First
		steps++
	}
	if steps < 20 || steps > 25 {
		w.Fatalf("%d steps", steps)
	}
	w.wantRecords(id, first, all[first:])
}

func policyDropBytesNewest(w *world) {
	id := w.create("test/drop", stream.Policy{})
	all := numbered("d", 0, 20, 1000)
	w.append(id, all[:10]...)
	for i := 10; i < 13; i++ {
		w.append(id, all[i])
	}
	w.commit(alter(id, stream.Policy{MaxBytes: 5000, DropBytes: 1 << 40, OnFull: stream.DropOldest}))
	w.eventually("all but the newest is dropped", func() bool { return w.bounds(id).First == 12 })
	for i := 13; i < 20; i++ {
		w.append(id, all[i])
	}
	w.eventually("all but the newest is dropped", func() bool { return w.bounds(id).First >= 16 })
	w.wantRecords(id, 19, all[19:])
}

func policyMaxAge(w *world) {
	id := w.create("test/age", stream.Policy{MaxAge: time.Hour})
	start := w.h.Clock.Read().Wall
	for i := range 10 {
		r := text("x")
		r.Time = start + int64(i)*int64(time.Minute)
		w.append(id, r)
	}
	w.h.Clock.Advance(30 * time.Minute)
	w.append(id, record.Record{Time: w.h.Clock.Read().Wall})
	w.wantBounds(id, 0, 11)
	w.h.Clock.Advance(35*time.Minute + time.Second) // 65 minutes after the start: the first six are over an hour old
	w.eventually("records older than an hour are dropped", func() bool { return w.bounds(id).First == 6 })
	_, gaps := w.read(id, 0, 11, 1<<16)
	if len(gaps) != 1 || gaps[0] != (stream.Gap{From: 0, To: 6, Reason: stream.Dropped}) {
		w.Fatalf("gaps %v", gaps)
	}
	w.h.Clock.Advance(24 * time.Hour)
	w.eventually("all records are dropped", func() bool { return w.bounds(id).First == 11 })
	if first := w.append(id, record.Record{Time: w.h.Clock.Read().Wall}); first != 11 {
		w.Fatalf("next offset %d", first)
	}
}

func policyMaxAgeUntrusted(w *world) {
	id := w.create("test/age", stream.Policy{MaxAge: time.Hour})
	probe := w.create("test/probe", stream.Policy{MaxAge: time.Hour})
	now := w.h.Clock.Read()
	w.append(id, record.Record{Time: now.Wall - int64(time.Minute)})
	w.append(probe, record.Record{Time: now.Wall - int64(2*time.Hour)})
	w.eventually("the old record is dropped", func() bool { return w.bounds(probe).First == 1 })
	wrong := now
	wrong.Wall, wrong.Trusted = now.Wall+int64(1000*time.Hour), false
	w.h.Clock.Set(wrong)
	w.append(id, record.Record{Time: wrong.Wall})
	w.h.Clock.Set(now)
	w.append(probe, record.Record{Time: now.Wall - int64(2*time.Hour)})
	w.eventually("the old record is dropped", func() bool { return w.bounds(probe).First == 2 })
	w.wantBounds(id, 0, 2)
}

func policyExportNone(w *world) {
	id := w.create("test/export", stream.Policy{UntilExported: true})
	want := numbered("e", 0, 100, 10)
	w.append(id, want...)
	w.store(id, "reader", stream.Cursor{Offset: 100}) // not an export
	w.wantBounds(id, 0, 100)
	w.wantRecords(id, 0, want)
}

func policyExportSlowest(w *world) {
	id := w.create("test/export", stream.Policy{UntilExported: true})
	want := numbered("e", 0, 100, 10)
	w.append(id, want[:50]...)
	w.append(id, want[50:]...)
	first := func(want record.Offset) {
		w.Helper()
		w.eventually("what all exports have passed is dropped", func() bool { return w.bounds(id).First == want })
	}
	w.store(id, "export/slow", stream.Cursor{Offset: 0})
	w.store(id, "export/fast", stream.Cursor{Offset: 100})
	w.store(id, "export/slow", stream.Cursor{Offset: 20})
	first(20)
	w.wantRecords(id, 20, want[20:])
	w.store(id, "export/slow", stream.Cursor{Offset: 70})
	first(70)
	_, gaps := w.read(id, 0, 100, 1<<20)
	if len(gaps) != 1 || gaps[0] != (stream.Gap{From: 0, To: 70, Reason: stream.Dropped}) {
		w.Fatalf("gaps %v", gaps)
	}
	if err := w.e.DeleteCursor(w.soon(), id, "export/slow"); err != nil {
		w.Fatal(err)
	}
	first(100)
}

func policyExportLater(w *world) {
	id := w.create("test/export", stream.Policy{})
	w.append(id, numbered("e", 0, 10, 10)...)
	w.store(id, "export/a", stream.Cursor{Offset: 4})
	w.wantBounds(id, 0, 10)
	w.commit(alter(id, stream.Policy{UntilExported: true}))
	w.eventually("what was exported is dropped", func() bool { return w.bounds(id).First == 4 })
	w.wantRecords(id, 4, numbered("e", 4, 6, 10))
}

func nodeReject(w *world) {
	id := w.create("test/node", stream.Policy{})
	batch := numbered("n", 0, 16, 4000)
	n := 0
	for ; ; n++ {
		if _, err := stream.AppendWait(w.soon(), w.e, id, batch...); err != nil {
			w.wantKind("append to a full node", err, record.Full)
			break
		}
		if int64(n)*64_000 > 2*w.limits.MaxBytes {
			w.Fatal("never full")
		}
	}
	w.wantRecords(id, record.Offset((n-1)*len(batch)), batch)
	w.commit(truncate(id, w.bounds(id).Next))
	w.eventually("appends succeed again", func() bool {
		_, err := stream.AppendWait(w.soon(), w.e, id, batch...)
		return err == nil
	})
}

func nodeDropOldest(w *world) {
	id := w.create("test/node", stream.Policy{OnFull: stream.DropOldest})
	batch := numbered("n", 0, 16, 4000)
	for i := range 200 { // 13 MB
		if first := w.append(id, batch...); first != record.Offset(i*len(batch)) {
			w.Fatalf("batch %d at offset %d", i, first)
		}
	}
	b := w.bounds(id)
	if b.First == 0 || b.Bytes > w.limits.MaxBytes || b.Bytes < w.limits.MaxBytes/8 {
		w.Fatalf("bounds %+v", b)
	}
	w.wantRecords(id, b.Next-16, batch)
}

func nodeDropOldestOthers(w *world) {
	first := w.create("test/first", stream.Policy{OnFull: stream.DropOldest})
	late := w.create("test/late", stream.Policy{OnFull: stream.DropOldest})
	batch := numbered("n", 0, 16, 4000)
	for _, id := range []record.StreamID{first, late, first} {
		for range 100 { // 6.5 MB
			w.append(id, batch...)
		}
		w.wantRecords(id, w.bounds(id).Next-16, batch)
	}
}
