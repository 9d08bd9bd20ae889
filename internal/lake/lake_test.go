package lake_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/vfs"
)

// bench is a catalog and a spool in a temporary directory.
type bench struct {
	t     testing.TB
	dir   *vfs.Dir
	spool *vfs.Dir
	db    *meta.DB
	cat   *lake.Catalog
}

func newBench(t testing.TB) *bench {
	t.Helper()
	dir, err := vfs.OpenDir(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	spool, err := dir.Sub("spool")
	if err != nil {
		t.Fatal(err)
	}
	db, err := meta.Open(dir, meta.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(); spool.Close(); dir.Close() })
	return &bench{t: t, dir: dir, spool: spool, db: db, cat: lake.NewCatalog(db, slog.New(slog.DiscardHandler))}
}

// decodeFunc is a payload.Decoder.
type decodeFunc func(rec *record.Record, dst []payload.Row) ([]payload.Row, error)

func (f decodeFunc) Decode(rec *record.Record, dst []payload.Row) ([]payload.Row, error) {
	return f(rec, dst)
}

func testRange(from, to record.Offset) lake.Range {
	return lake.Range{
		Node: "a1b2c3d4e5f6", Stream: 0x0123456789abcdef, From: from, To: to,
		Cut: time.Date(2026, 11, 21, 1, 5, 0, 0, time.UTC), Revision: 3,
	}
}

// files below dir as the lake would have them: links to the spool under their keys.
func (b *bench) publish(t testing.TB, dir string, files []lake.File) {
	t.Helper()
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.Key))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(filepath.Join(b.spool.Path(), f.Spool), path); err != nil {
			t.Fatal(err)
		}
	}
}

func chunkOf(first record.Offset, recs ...record.Record) *stream.Chunk {
	return &stream.Chunk{
		First: first, Records: recs, Next: first + record.Offset(len(recs)),
		Origins: []stream.Origin{{First: first, Count: len(recs), Trusted: true}},
	}
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatalf("%v (hint: %s)", err, record.HintOf(err))
	}
	return v
}

func signalName(i int) []byte { return fmt.Appendf(nil, "signal-%03d", i) }
