package streamtest

import (
	"bytes"
	"maps"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

func cursorCases() []testCase {
	return []testCase{
		{name: "store, load, replace, go back, delete", run: cursorLife},
		{name: "state of up to 64 KiB", run: cursorState},
		{name: "an offset beyond the readable one is Invalid", run: cursorBeyond},
		{name: "list names and offsets", run: cursorList},
		{name: "an unknown stream is NotFound", run: cursorUnknown},
		{name: "a sealed stream keeps cursors", run: cursorSealed},
	}
}

func (w *world) store(id record.StreamID, name string, c stream.Cursor) {
	w.Helper()
	if err := w.e.StoreCursor(w.soon(), id, name, c); err != nil {
		w.Fatalf("store cursor %s: %v", name, err)
	}
}

func (w *world) wantCursor(id record.StreamID, name string, want stream.Cursor) {
	w.Helper()
	got, err := w.e.LoadCursor(id, name)
	if err != nil {
		w.Fatalf("load cursor %s: %v", name, err)
	}
	if got.Offset != want.Offset || !bytes.Equal(got.State, want.State) {
		w.Fatalf("cursor %s is {%d %.40q}, want {%d %.40q}", name, got.Offset, got.State, want.Offset, want.State)
	}
}

func (w *world) wantNoCursor(id record.StreamID, name string) {
	w.Helper()
	_, err := w.e.LoadCursor(id, name)
	w.wantKind("load cursor", err, record.NotFound)
}

func cursorLife(w *world) {
	id := w.create("test/cursor", stream.Policy{})
	w.append(id, numbered("c", 0, 10, 10)...)
	w.wantNoCursor(id, "a")
	state := []byte("where I was")
	w.store(id, "a", stream.Cursor{Offset: 3, State: state})
	clear(state)
	w.wantCursor(id, "a", stream.Cursor{Offset: 3, State: []byte("where I was")})
	loaded, err := w.e.LoadCursor(id, "a")
	if err != nil {
		w.Fatal(err)
	}
	clear(loaded.State)
	w.wantCursor(id, "a", stream.Cursor{Offset: 3, State: []byte("where I was")})
	w.store(id, "a", stream.Cursor{Offset: 10})
	w.store(id, "a/b c", stream.Cursor{Offset: 0, State: []byte{0}})
	w.wantCursor(id, "a", stream.Cursor{Offset: 10})
	w.store(id, "a", stream.Cursor{Offset: 2, State: []byte("back")})
	w.wantCursor(id, "a", stream.Cursor{Offset: 2, State: []byte("back")})
	for range 2 { // a missing one is no error
		if err := w.e.DeleteCursor(w.soon(), id, "a"); err != nil {
			w.Fatal(err)
		}
	}
	w.wantNoCursor(id, "a")
	w.wantCursor(id, "a/b c", stream.Cursor{State: []byte{0}})
}

func cursorState(w *world) {
	id := w.create("test/cursor", stream.Policy{})
	state := bytes.Repeat([]byte("0123456789abcdef"), stream.MaxCursorState/16)
	w.store(id, "big", stream.Cursor{State: state})
	w.wantCursor(id, "big", stream.Cursor{State: state})
	err := w.e.StoreCursor(w.soon(), id, "big", stream.Cursor{State: append(state, 'x')})
	w.wantKind("store a state above the limit", err, record.Invalid)
	w.wantCursor(id, "big", stream.Cursor{State: state})
}

func cursorBeyond(w *world) {
	id := w.create("test/cursor", stream.Policy{})
	w.append(id, numbered("c", 0, 10, 10)...)
	w.store(id, "a", stream.Cursor{Offset: 10})
	err := w.e.StoreCursor(w.soon(), id, "a", stream.Cursor{Offset: 11})
	w.wantKind("store beyond the end", err, record.Invalid)
	w.wantCursor(id, "a", stream.Cursor{Offset: 10})
}

func cursorList(w *world) {
	id := w.create("test/cursor", stream.Policy{})
	other := w.create("test/other", stream.Policy{})
	w.append(id, numbered("c", 0, 10, 10)...)
	want := map[string]record.Offset{"a": 1, "export/b": 2, "c": 10}
	for name, at := range want {
		w.store(id, name, stream.Cursor{Offset: at, State: []byte(name)})
	}
	got, err := w.e.ListCursors(id)
	if err != nil || !maps.Equal(got, want) {
		w.Fatalf("cursors %v, %v; want %v", got, err, want)
	}
	if got, err = w.e.ListCursors(other); err != nil || len(got) != 0 {
		w.Fatalf("cursors of a stream without: %v, %v", got, err)
	}
}

func cursorUnknown(w *world) {
	_, err := w.e.LoadCursor(5, "a")
	w.wantKind("load", err, record.NotFound)
	_, err = w.e.ListCursors(5)
	w.wantKind("list", err, record.NotFound)
	w.wantKind("store", w.e.StoreCursor(w.soon(), 5, "a", stream.Cursor{}), record.NotFound)
	w.wantKind("delete", w.e.DeleteCursor(w.soon(), 5, "a"), record.NotFound)
}

func cursorSealed(w *world) {
	id := w.create("test/cursor", stream.Policy{})
	w.append(id, numbered("c", 0, 10, 10)...)
	w.commit(seal(id))
	w.store(id, "a", stream.Cursor{Offset: 10})
	w.wantCursor(id, "a", stream.Cursor{Offset: 10})
}
