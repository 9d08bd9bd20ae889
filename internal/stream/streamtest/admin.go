package streamtest

import (
	"errors"
	"strings"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

func adminCases() []testCase {
	return []testCase{
		{name: "create, lookup and list", run: adminCreate},
		{name: "create refuses bad names, taken names and taken ids", run: adminCreateRefuses},
		{name: "a change that is none or two is Invalid", run: adminMalformed},
		{name: "changes of unknown streams are NotFound", run: adminUnknown},
		{name: "alter changes the policy but never the lane", run: adminAlter},
		{name: "one commit is in one lane", run: adminLanes},
		{name: "ensure creates once, alters after, and keeps the lane", run: adminEnsure},
		{name: "sealed: appends are Invalid, readers reach the end", run: sealEnds},
		{name: "seal comes after every append admitted before", run: sealOrder},
		{name: "seal ends a reader that waits", run: sealWakes},
		{name: "a sealed and truncated stream is a gap and then the end", run: sealTruncated},
		{name: "a parent is sealed and children created in one commit", run: commitSplit},
		{name: "one bad change, and none is applied", run: commitAtomic},
		{name: "delete forgets records and cursors, and ends readers", run: deleteForgets},
		{name: "a name created again is another stream", run: deleteRecreate},
	}
}

func create(name record.StreamName, p stream.Policy) stream.Change {
	return stream.Change{Create: &stream.Create{Name: name, Policy: p}}
}

func seal(id record.StreamID) stream.Change { return stream.Change{Seal: &stream.Seal{ID: id}} }

func remove(id record.StreamID) stream.Change { return stream.Change{Delete: &stream.Delete{ID: id}} }

func truncate(id record.StreamID, before record.Offset) stream.Change {
	return stream.Change{Truncate: &stream.Truncate{ID: id, Before: before}}
}

func alter(id record.StreamID, p stream.Policy) stream.Change {
	return stream.Change{Alter: &stream.Alter{ID: id, Policy: p}}
}

func (w *world) lookup(name record.StreamName) stream.Info {
	w.Helper()
	info, err := w.e.Lookup(name)
	if err != nil {
		w.Fatalf("lookup %s: %v", name, err)
	}
	return info
}

func (w *world) wantNames(prefix string, want ...record.StreamName) {
	w.Helper()
	var got []record.StreamName
	for _, info := range w.e.List(prefix) {
		got = append(got, info.Name)
	}
	if len(got) != len(want) {
		w.Fatalf("list %q: %v, want %v", prefix, got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			w.Fatalf("list %q: %v, want %v", prefix, got, want)
		}
	}
}

func adminCreate(w *world) {
	p := stream.Policy{Durability: stream.OS, OnFull: stream.DropOldest, Lane: stream.Short, MaxBytes: 1 << 30}
	ids := w.commit(create("mqtt/b", p), create("mqtt/a", stream.Policy{}), create("sm/My stream", stream.Policy{}))
	if len(ids) != 3 || ids[0] == ids[1] || ids[1] == ids[2] || ids[0] == ids[2] {
		w.Fatalf("ids %v", ids)
	}
	info := w.lookup("mqtt/b")
	if info.ID != ids[0] || info.Name != "mqtt/b" || info.Policy != p || info.Bounds != (stream.Bounds{}) {
		w.Fatalf("lookup mqtt/b: %+v", info)
	}
	w.wantNames("", "mqtt/a", "mqtt/b", "sm/My stream")
	w.wantNames("mqtt/", "mqtt/a", "mqtt/b")
	w.wantNames("kinesis/")
	_, err := w.e.Lookup("mqtt/c")
	w.wantKind("lookup", err, record.NotFound)
	given := w.commit(stream.Change{Create: &stream.Create{Name: "mqtt/c", ID: 4711}})
	if len(given) != 1 || given[0] != 4711 || w.lookup("mqtt/c").ID != 4711 {
		w.Fatalf("stream with an id of its own: %v", given)
	}
	w.append(ids[1], text("one"))
	if b := w.e.List("mqtt/a")[0].Bounds; b.Next != 1 {
		w.Fatalf("listed bounds %+v", b)
	}
}

func adminCreateRefuses(w *world) {
	id := w.create("test/taken", stream.Policy{})
	w.commitFails(record.Conflict, create("test/taken", stream.Policy{}))
	w.commitFails(record.Conflict, create("test/new", stream.Policy{}), create("test/new", stream.Policy{}))
	w.commitFails(record.Conflict, stream.Change{Create: &stream.Create{Name: "test/new", ID: id}})
	for _, name := range []record.StreamName{"", "x", "/x", "x/", "a/\x00", record.StreamName("a/" + strings.Repeat("x", record.MaxStreamName))} {
		w.commitFails(record.Invalid, create(name, stream.Policy{}))
	}
	w.wantNames("", "test/taken")
}

func adminMalformed(w *world) {
	id := w.create("test/a", stream.Policy{})
	w.commitFails(record.Invalid, stream.Change{})
	w.commitFails(record.Invalid, stream.Change{Seal: &stream.Seal{ID: id}, Delete: &stream.Delete{ID: id}})
	if w.bounds(id).Sealed {
		w.Fatal("a malformed change was applied")
	}
}

func adminUnknown(w *world) {
	for _, c := range []stream.Change{seal(77), remove(77), truncate(77, 0), alter(77, stream.Policy{})} {
		w.commitFails(record.NotFound, c)
	}
}

func adminAlter(w *world) {
	id := w.create("test/a", stream.Policy{Lane: stream.Long})
	p := stream.Policy{Durability: stream.OS, OnFull: stream.DropOldest, Lane: stream.Long, MaxBytes: 1 << 20, DropBytes: 1 << 16, UntilExported: true}
	w.commit(alter(id, p))
	if got := w.lookup("test/a").Policy; got != p {
		w.Fatalf("policy %+v, want %+v", got, p)
	}
	q := p
	q.Lane = stream.Short
	w.commitFails(record.Invalid, alter(id, q))
	if got := w.lookup("test/a").Policy; got != p {
		w.Fatalf("policy %+v after a refused change", got)
	}
}

func adminLanes(w *world) {
	short := w.create("test/short", stream.Policy{Lane: stream.Short})
	long := w.create("test/long", stream.Policy{Lane: stream.Long})
	w.commitFails(record.Invalid, seal(short), seal(long))
	w.commitFails(record.Invalid, seal(short), create("test/child", stream.Policy{Lane: stream.Long}))
	w.append(short, text("x"))
	w.append(long, text("y"))
	w.wantRecords(short, 0, []record.Record{text("x")})
	w.wantRecords(long, 0, []record.Record{text("y")})
	w.wantNames("", "test/long", "test/short")
}

func adminEnsure(w *world) {
	info, err := stream.Ensure(w.soon(), w.e, "test/e", stream.Policy{Lane: stream.Long})
	if err != nil {
		w.Fatal(err)
	}
	w.append(info.ID, text("x"))
	again, err := stream.Ensure(w.soon(), w.e, "test/e", stream.Policy{Lane: stream.Short, OnFull: stream.DropOldest})
	if err != nil || again.ID != info.ID {
		w.Fatalf("ensure again: %+v, %v", again, err)
	}
	if got, want := w.lookup("test/e").Policy, (stream.Policy{Lane: stream.Long, OnFull: stream.DropOldest}); got != want {
		w.Fatalf("policy %+v, want %+v", got, want)
	}
	w.wantRecords(info.ID, 0, []record.Record{text("x")})
}

func (w *world) wantEnd(id record.StreamID, at record.Offset) {
	w.Helper()
	if err := w.e.Read(w.soon(), id, at, 1<<16, new(stream.Chunk)); !errors.Is(err, stream.ErrEnd) {
		w.Fatalf("read at the end of a sealed stream: %v", err)
	}
}

func sealEnds(w *world) {
	id := w.create("test/sealed", stream.Policy{})
	want := numbered("s", 0, 10, 10)
	w.append(id, want...)
	w.commit(seal(id))
	w.commit(seal(id))
	if b := w.bounds(id); !b.Sealed || b.Next != 10 || b.Readable != 10 {
		w.Fatalf("bounds %+v", b)
	}
	w.appendFails(record.Invalid, id, text("late"))
	w.wantRecords(id, 0, want)
	w.wantEnd(id, 10)
	w.wantBounds(id, 0, 10)
	empty := w.create("test/empty", stream.Policy{})
	w.commit(seal(empty))
	w.wantEnd(empty, 0)
}

func sealOrder(w *world) {
	for _, level := range []stream.Durability{stream.Disk, stream.OS} {
		id := w.create([]record.StreamName{"test/disk", "test/os"}[level], stream.Policy{Durability: level})
		var acks []<-chan outcome
		for i := range 200 {
			acks = append(acks, w.appendAsync(w.soon(), id, numbered("s", i, 1, 10)))
		}
		w.commit(seal(id))
		for i, ack := range acks {
			if o := await(w, ack, "acknowledgement"); o.err != nil || o.first != record.Offset(i) {
				w.Fatalf("append %d admitted before the seal: offset %d, %v", i, o.first, o.err)
			}
		}
		w.settle(id)
		w.wantRecords(id, 0, numbered("s", 0, 200, 10))
		w.wantEnd(id, 200)
	}
}

func sealWakes(w *world) {
	id := w.create("test/sealed", stream.Policy{})
	w.append(id, text("x"))
	result := w.readAsync(w.soon(), id, 1, new(stream.Chunk))
	w.commit(seal(id))
	if err := await(w, result, "end of the read"); !errors.Is(err, stream.ErrEnd) {
		w.Fatalf("read while the stream is sealed: %v", err)
	}
}

func sealTruncated(w *world) {
	id := w.create("test/sealed", stream.Policy{})
	w.append(id, numbered("s", 0, 10, 10)...)
	w.commit(seal(id), truncate(id, 10))
	_, gaps := w.read(id, 0, 10, 1<<16)
	if len(gaps) != 1 || gaps[0] != (stream.Gap{From: 0, To: 10, Reason: stream.Dropped}) {
		w.Fatalf("gaps %v", gaps)
	}
	w.wantEnd(id, 10)
}

func commitSplit(w *world) {
	parent := w.create("kinesis/s/0", stream.Policy{})
	w.append(parent, text("x"))
	ids := w.commit(seal(parent), create("kinesis/s/1", stream.Policy{}), create("kinesis/s/2", stream.Policy{}))
	if len(ids) != 2 || w.lookup("kinesis/s/1").ID != ids[0] || w.lookup("kinesis/s/2").ID != ids[1] {
		w.Fatalf("children %v", ids)
	}
	w.wantEnd(parent, 1)
	w.append(ids[0], text("left"))
	w.append(ids[1], text("right"))
	w.wantRecords(ids[0], 0, []record.Record{text("left")})
}

func commitAtomic(w *world) {
	parent := w.create("test/parent", stream.Policy{})
	other := w.create("test/other", stream.Policy{})
	w.append(parent, text("x"), text("y"))
	good := []stream.Change{
		seal(parent), truncate(parent, 1), remove(other), create("test/child", stream.Policy{}),
		alter(parent, stream.Policy{MaxBytes: 1}),
	}
	bad := map[record.Kind]stream.Change{
		record.Conflict: create("test/parent", stream.Policy{}),
		record.NotFound: seal(4242),
		record.Invalid:  truncate(parent, 3),
	}
	for kind, change := range bad {
		w.commitFails(kind, append(good[:len(good):len(good)], change)...)
		w.commitFails(kind, append([]stream.Change{change}, good...)...)
	}
	w.wantNames("", "test/other", "test/parent")
	info := w.lookup("test/parent")
	if info.Policy != (stream.Policy{}) || info.Bounds.Sealed || info.Bounds.First != 0 {
		w.Fatalf("a failed commit left %+v", info)
	}
	if first := w.append(parent, text("z")); first != 2 {
		w.Fatalf("append after failed commits at offset %d", first)
	}
	w.append(other, text("z"))
}

func deleteForgets(w *world) {
	id := w.create("test/gone", stream.Policy{})
	w.append(id, text("x"))
	w.store(id, "reader", stream.Cursor{Offset: 1})
	result := w.readAsync(w.soon(), id, 1, new(stream.Chunk))
	w.commit(remove(id))
	w.wantKind("read of a stream that is deleted meanwhile", await(w, result, "end of the read"), record.NotFound)
	w.wantGone(id)
	_, err := w.e.Lookup("test/gone")
	w.wantKind("lookup", err, record.NotFound)
	w.wantNames("")
}

// wantGone holds that no operation knows the id.
func (w *world) wantGone(id record.StreamID) {
	w.Helper()
	w.appendFails(record.NotFound, id, text("x"))
	w.wantKind("read", w.e.Read(w.soon(), id, 0, 1, new(stream.Chunk)), record.NotFound)
	_, err := w.e.Bounds(id)
	w.wantKind("bounds", err, record.NotFound)
	w.commitFails(record.NotFound, seal(id))
	w.commitFails(record.NotFound, remove(id))
	_, err = w.e.LoadCursor(id, "reader")
	w.wantKind("load cursor", err, record.NotFound)
	_, err = w.e.ListCursors(id)
	w.wantKind("list cursors", err, record.NotFound)
	w.wantKind("store cursor", w.e.StoreCursor(w.soon(), id, "reader", stream.Cursor{}), record.NotFound)
}

func deleteRecreate(w *world) {
	old := w.create("test/again", stream.Policy{})
	w.append(old, numbered("old", 0, 10, 10)...)
	w.store(old, "reader", stream.Cursor{Offset: 5})
	w.commit(remove(old))
	id := w.create("test/again", stream.Policy{})
	if id == old {
		w.Fatal("the new stream has the old one's id")
	}
	if info := w.lookup("test/again"); info.ID != id || info.Bounds != (stream.Bounds{}) {
		w.Fatalf("new stream %+v", info)
	}
	w.wantGone(old)
	_, err := w.e.LoadCursor(id, "reader")
	w.wantKind("load cursor", err, record.NotFound)
	if first := w.append(id, text("new")); first != 0 {
		w.Fatalf("first offset %d", first)
	}
	w.wantRecords(id, 0, []record.Record{text("new")})
	w.wantGone(old)
}
