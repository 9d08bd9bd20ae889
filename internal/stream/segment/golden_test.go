package segment_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/leat-io/leat/internal/stream/streamtest"
	"github.com/leat-io/leat/internal/vfs"
)

var newGolden = flag.String("new-golden", "", "write a golden log to this directory: once for each format version, never again")

// goldenRecord is what the golden logs hold.
func goldenRecord(i int) record.Record {
	return record.Record{
		Time: streamtest.Now().Wall + int64(i)*int64(time.Millisecond), Key: fmt.Appendf(nil, "plant/line%d/temp", i%3),
		Payload: fmt.Appendf(nil, `{"n":%d}`, i), Attributes: record.Attributes(nil).Append("retain", "1"),
	}
}

func openGolden(t *testing.T, path string) *segment.Log {
	t.Helper()
	dir, err := vfs.OpenDir(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := segment.Open(segment.Options{
		Dir: dir, Clock: clock.NewFake(streamtest.Now()), Logger: slog.New(slog.DiscardHandler), SegmentBytes: 4 << 10, MaintainInterval: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestWriteGolden(t *testing.T) {
	if *newGolden == "" {
		return // only on request: a golden log of a released format is never written again
	}
	l := openGolden(t, *newGolden)
	ids, err := l.Commit(t.Context(),
		stream.Change{Create: &stream.Create{Name: "ingest/default", ID: 0x1122334455667788, Policy: stream.Policy{UntilExported: true}}},
		stream.Change{Create: &stream.Create{Name: "sm/closed", ID: 0x99, Policy: goldenPolicy(1 << 16)}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		if _, err := stream.AppendWait(t.Context(), l, ids[i%2], goldenRecord(i/2)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Commit(t.Context(), stream.Change{Seal: &stream.Seal{ID: ids[1]}}, stream.Change{Truncate: &stream.Truncate{ID: ids[1], Before: 3}}); err != nil {
		t.Fatal(err)
	}
	if err := l.StoreCursor(t.Context(), ids[0], "export/lake", stream.Cursor{Offset: 4, State: []byte("golden")}); err != nil {
		t.Fatal(err)
	}
}

// goldenPolicy is that of the sealed stream of a golden log.
func goldenPolicy(dropBytes int64) stream.Policy {
	return stream.Policy{MaxBytes: 1 << 20, OnFull: stream.DropOldest, MaxAge: 24 * time.Hour, DropBytes: dropBytes}
}

// TestGolden reads a log of each format version, and of each addition to it: what a release wrote stays readable
// (guarantee 9).
func TestGolden(t *testing.T) {
	for dir, dropBytes := range map[string]int64{"v1": 0, "v1-drop-bytes": 1 << 16} {
		t.Run(dir, func(t *testing.T) {
			path := t.TempDir()
			if err := os.CopyFS(path, os.DirFS("testdata/"+dir)); err != nil {
				t.Fatal(err)
			}
			l := openGolden(t, path)
			open, err := l.Lookup("ingest/default")
			if err != nil || open.ID != 0x1122334455667788 || open.Bounds.First != 4 || open.Bounds.Next != 30 || open.Bounds.Sealed {
				t.Fatalf("%+v, %v", open, err)
			}
			closed, err := l.Lookup("sm/closed")
			if err != nil || closed.ID != 0x99 || closed.Bounds.First != 3 || closed.Bounds.Next != 30 || !closed.Bounds.Sealed ||
				closed.Policy != goldenPolicy(dropBytes) {
				t.Fatalf("%+v, %v", closed, err)
			}
			if c, err := l.LoadCursor(open.ID, "export/lake"); err != nil || c.Offset != 4 || string(c.State) != "golden" {
				t.Fatalf("%+v, %v", c, err)
			}
			for _, info := range []stream.Info{open, closed} {
				wantGolden(t, l, info)
			}
			for _, st := range l.Stats() {
				if st.DamagedRanges != 0 || st.TornTailBytes != 0 || st.IndexRebuilds != 0 {
					t.Errorf("%+v", st)
				}
			}
		})
	}
}

// The tools read a golden log as the engine does, and change nothing in it.
func TestToolsReadGoldenLogs(t *testing.T) {
	for _, name := range []string{"v1", "v1-drop-bytes"} {
		path := t.TempDir()
		if err := os.CopyFS(path, os.DirFS("testdata/"+name)); err != nil {
			t.Fatal(err)
		}
		dir, err := vfs.OpenDir(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := segment.Inspect(dir, &out, true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range []string{"sm/closed: offsets [3, 30)", "ingest/default: offsets [4, 30)", "cursor export/lake: offset 4"} {
			if !bytes.Contains(out.Bytes(), []byte(want)) {
				t.Errorf("%s: inspect does not tell %q:\n%s", name, want, out.String())
			}
		}
		rep, err := segment.Verify(dir)
		if err != nil || len(rep.Damaged) > 0 || rep.Tail != 0 || len(rep.Indexes) > 0 {
			t.Errorf("%s: %+v, %v", name, rep, err)
		}
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	}
}

func wantGolden(t *testing.T, l *segment.Log, info stream.Info) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var c stream.Chunk
	for from := info.Bounds.First; from < info.Bounds.Next; from = c.Next {
		if err := l.Read(ctx, info.ID, from, 500, &c); err != nil {
			t.Fatal(err)
		}
		for i, got := range c.Records {
			want := goldenRecord(int(c.First) + i)
			if got.Time != want.Time || !bytes.Equal(got.Key, want.Key) || !bytes.Equal(got.Payload, want.Payload) || !bytes.Equal(got.Attributes, want.Attributes) {
				t.Fatalf("%s record %d: %+v, want %+v", info.Name, int(c.First)+i, got, want)
			}
		}
	}
}
