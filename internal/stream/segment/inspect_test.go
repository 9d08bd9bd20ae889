package segment_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/leat-io/leat/internal/stream/streamtest"
	"github.com/leat-io/leat/internal/vfs"
)

// logOf makes a closed log of several segments with two streams and a cursor.
func logOf(t *testing.T) *vfs.Dir {
	t.Helper()
	dir, err := vfs.OpenDir(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := segment.Open(segment.Options{
		Dir: dir, Clock: clock.NewFake(streamtest.Now()), Logger: slog.New(slog.DiscardHandler), SegmentBytes: 8 << 10,
		MaintainInterval: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	ids, err := l.Commit(t.Context(),
		stream.Change{Create: &stream.Create{Name: "test/a"}}, stream.Change{Create: &stream.Create{Name: "test/b"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		r := record.Record{Time: int64(i), Key: []byte("key"), Payload: bytes.Repeat([]byte{byte(i)}, 1000)}
		if _, err := stream.AppendWait(t.Context(), l, ids[i%2], r); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.StoreCursor(t.Context(), ids[0], "export/lake", stream.Cursor{Offset: 7, State: []byte("state")}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestInspectTellsWhatIsThereAndChangesNothing(t *testing.T) {
	dir := logOf(t)
	before := contents(t, dir)
	var out strings.Builder
	if err := segment.Inspect(dir, &out, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"lane short", "lane long", "test/a: offsets [0, 20)", "test/b: offsets [0, 20)", "cursor export/lake: offset 7, 5 bytes",
		"checkpoint", "data  stream",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out.String())
		}
	}
	if after := contents(t, dir); after != before {
		t.Errorf("inspecting changed the log:\n%s\n%s", before, after)
	}
}

func TestVerifyFindsEachDamageAndRepairEndsIt(t *testing.T) {
	dir := logOf(t)
	rep, err := segment.Verify(dir)
	if err != nil || len(rep.Damaged) != 0 || len(rep.Indexes) != 0 || rep.Records != 40 {
		t.Fatalf("healthy log: %+v, %v", rep, err)
	}
	segs, err := filepath.Glob(filepath.Join(dir.Path(), "short", "*.seg"))
	if err != nil || len(segs) < 3 {
		t.Fatalf("segments %v, %v", segs, err)
	}
	flip(t, segs[1], 3000)
	idx := strings.TrimSuffix(segs[0], ".seg") + ".idx"
	if err := os.Remove(idx); err != nil {
		t.Fatal(err)
	}
	if rep, err = segment.Verify(dir); err != nil || len(rep.Damaged) != 1 || len(rep.Indexes) != 1 {
		t.Fatalf("damaged log: %+v, %v", rep, err)
	}
	if err := segment.Repair(dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if rep, err = segment.Verify(dir); err != nil || len(rep.Indexes) != 0 || len(rep.Damaged) != 0 || rep.Records != 39 {
		t.Fatalf("repaired log: %+v, %v", rep, err)
	}
	if saved, err := filepath.Glob(filepath.Join(dir.Path(), "short", "quarantine", "*.bin")); err != nil || len(saved) != 1 {
		t.Fatalf("quarantine %v, %v", saved, err)
	}
}

func TestVerifyTellsACutTailFromATornOne(t *testing.T) {
	dir := logOf(t)
	segs, err := filepath.Glob(filepath.Join(dir.Path(), "short", "*.seg"))
	if err != nil || len(segs) == 0 {
		t.Fatal(err)
	}
	newest := segs[len(segs)-1]
	st, err := os.Stat(newest)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(newest, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Repeat([]byte{7}, 100)); err != nil { // written, never synced
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if rep, err := segment.Verify(dir); err != nil || len(rep.Damaged) != 0 || rep.Tail != 100 {
		t.Errorf("a torn tail: %+v, %v; want 100 bytes of tail and no damage", rep, err)
	}
	if err := os.Truncate(newest, st.Size()-10); err != nil { // the log was closed: all of this was durable
		t.Fatal(err)
	}
	before := contents(t, dir)
	rep, err := segment.Verify(dir)
	if err != nil || len(rep.Damaged) == 0 || rep.Tail != 0 || !strings.Contains(strings.Join(rep.Damaged, "\n"), "durable") {
		t.Errorf("a tail cut off: %+v, %v; want damage", rep, err)
	}
	if after := contents(t, dir); after != before {
		t.Errorf("verifying changed the log:\n%s\n%s", before, after)
	}
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, dir *vfs.Dir) string {
	t.Helper()
	var out strings.Builder
	err := filepath.Walk(dir.Path(), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(&out, "%s %d %x\n", path, len(b), b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}
