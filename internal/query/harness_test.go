package query_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/blob/file"
	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/query"
	"github.com/leat-io/leat/internal/query/result"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/memory"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a small leat without doors: a stream, an exporter that tests drive by hand, a catalog, a query engine.
type node struct {
	t      testing.TB
	dir    string
	data   *vfs.Dir
	cat    *lake.Catalog
	log    *memory.Engine
	store  *file.Store
	feeds  []query.Feed
	engine *query.Engine
	cfg    lake.Config
	reads  atomic.Int64 // records handed to tail builders
}

type nodeOptions struct {
	config  func(*query.Config)
	pattern string
	store   func(*node) blob.Store // a remote store, seen through the cache
	noSQL   bool
	minFree int64
}

func worker(t testing.TB) string {
	testenv.Need(t, "gcc")
	testenv.Need(t, "g++")
	return testenv.Binary(t, "./cmd/leat-sql")
}

func newNode(t testing.TB, opts ...func(*nodeOptions)) *node {
	t.Helper()
	var o nodeOptions
	for _, f := range opts {
		f(&o)
	}
	n := &node{t: t, dir: t.TempDir(), cfg: lake.DefaultConfig()}
	n.cfg.NodeID = "n1"
	if o.pattern != "" {
		n.cfg.Pattern = o.pattern
	}
	n.data = must(vfs.OpenDir(n.dir, nil))(t)
	db := must(meta.Open(n.data, meta.Options{Log: slog.New(slog.DiscardHandler)}))(t)
	lakeDir := must(n.data.Sub("lake"))(t)
	n.store = must(file.Open(lakeDir, slog.New(slog.DiscardHandler)))(t)
	n.cat = lake.NewCatalog(db, slog.New(slog.DiscardHandler))
	n.log = memory.Open(memory.Options{})
	qo := query.Options{
		Config: query.DefaultConfig(), Data: n.data, Spool: "spool", Lake: "lake", Catalog: n.cat, Pattern: n.cfg.Pattern,
		Tail: n, Log: slog.New(slog.DiscardHandler), MinFree: o.minFree,
	}
	if !o.noSQL {
		qo.Config.Binary = worker(t)
	}
	if o.config != nil {
		o.config(&qo.Config)
	}
	if err := qo.Config.Validate(); err != nil {
		t.Fatal(err)
	}
	if o.store != nil {
		qo.Lake, qo.Store = "", o.store(n)
	}
	n.engine = must(query.Open(qo))(t)
	t.Cleanup(func() {
		n.engine.Close()
		n.log.Close()
		db.Close()
		n.store.Close()
		lakeDir.Close()
		n.data.Close()
	})
	return n
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// table adds a stream that feeds a table; parser is auto.
func (n *node) table(name string, layout lake.Layout) record.StreamID {
	n.t.Helper()
	info := must(stream.Ensure(context.Background(), n.log, record.StreamName("ingest/"+name), stream.Policy{}))(n.t)
	n.feeds = append(n.feeds, query.Feed{
		Table: lake.TableSpec{Name: name, Layout: layout}, Stream: info.ID,
		Decoder: func() payload.Decoder {
			d, err := payload.New(payload.Config{Type: payload.Auto}, payload.TimeConfig{}, layout == lake.Columns)
			if err != nil {
				panic(err)
			}
			return d
		},
	})
	return info.ID
}

// put appends a message that arrived at the time.
func (n *node) put(id record.StreamID, at time.Time, topic, payload string) {
	n.t.Helper()
	n.putAll(id, record.Record{Time: at.UnixNano(), Key: []byte(topic), Payload: []byte(payload)})
}

func (n *node) putAll(id record.StreamID, recs ...record.Record) {
	n.t.Helper()
	if _, err := stream.AppendWait(context.Background(), n.log, id, recs...); err != nil {
		n.t.Fatal(err)
	}
}

// export encodes what a feed holds into the spool and registers it, as the lake export does at ENCODED.
func (n *node) export(id record.StreamID) []lake.File {
	n.t.Helper()
	feed := n.feed(id)
	spool := must(n.data.Sub("spool"))(n.t)
	defer spool.Close()
	b := must(n.log.Bounds(id))(n.t)
	rng := lake.Range{Node: "n1", Stream: id, From: b.First, To: b.Readable, Cut: time.Now()}
	builder := lake.NewBuilder(spool, n.cfg, feed.Table, n.cat, rng, feed.Decoder(), nil)
	for from := rng.From; from < rng.To; {
		var c stream.Chunk
		if err := n.log.Read(context.Background(), id, from, 1<<20, &c); err != nil {
			n.t.Fatal(err)
		}
		if err := builder.Add(&c); err != nil {
			n.t.Fatal(err)
		}
		from = c.Next
	}
	res := must(builder.Finish())(n.t)
	// The cursor moves first, and the log may forget at once: a query in between must cope.
	if _, err := n.log.Commit(context.Background(), stream.Change{Truncate: &stream.Truncate{ID: id, Before: rng.To}}); err != nil {
		n.t.Fatal(err)
	}
	if err := n.cat.AddFiles(feed.Table.Name, rng, res.Files); err != nil {
		n.t.Fatal(err)
	}
	return res.Files
}

// upload moves spooled files to the store, as the lake export does at COMMITTED.
func (n *node) upload(files []lake.File) {
	n.t.Helper()
	for _, f := range files {
		body := must(os.Open(filepath.Join(n.dir, "spool", f.Spool)))(n.t)
		err := n.store.Put(context.Background(), blob.Upload{Key: f.Key, Size: f.Size, SHA256: f.SHA256, Body: body})
		body.Close()
		if err != nil {
			n.t.Fatal(err)
		}
	}
	if err := n.cat.SetStored(files); err != nil {
		n.t.Fatal(err)
	}
	for _, f := range files {
		if err := os.Remove(filepath.Join(n.dir, "spool", f.Spool)); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) feed(id record.StreamID) query.Feed {
	for _, f := range n.feeds {
		if f.Stream == id {
			return f
		}
	}
	n.t.Fatalf("no feed of stream %s", id)
	return query.Feed{}
}

// What follows makes node a query.Tail.

func (n *node) Feeds() []query.Feed { return n.feeds }

func (n *node) Read(ctx context.Context, id record.StreamID, from record.Offset, maxBytes int, c *stream.Chunk) error {
	return n.log.Read(ctx, id, from, maxBytes, c)
}

func (n *node) Bounds(id record.StreamID) (stream.Bounds, error) { return n.log.Bounds(id) }

func (n *node) Builder(dir *vfs.Dir, f query.Feed, rng lake.Range) (query.Builder, error) {
	rng.Node = "n1"
	n.reads.Add(int64(rng.To - rng.From))
	return lake.NewBuilder(dir, n.cfg, f.Table, n.cat, rng, f.Decoder(), f.Restamp), nil
}

// csv runs a query and returns its answer with plain line ends.
func (n *node) csv(sql string) string {
	n.t.Helper()
	out, _, err := n.ask(sql)
	if err != nil {
		n.t.Fatalf("%s: %v", sql, err)
	}
	return out
}

func (n *node) ask(sql string) (string, query.Summary, error) {
	return n.askAs(query.Request{SQL: sql, Format: result.FormatCSV})
}

func (n *node) askAs(req query.Request) (string, query.Summary, error) {
	var out bytes.Buffer
	sum, err := n.engine.Query(n.t.Context(), req, &out, nil)
	return strings.ReplaceAll(out.String(), "\r\n", "\n"), sum, err
}

// leftovers lists what queries left on the disk.
func (n *node) leftovers() []string {
	n.t.Helper()
	entries := must(os.ReadDir(filepath.Join(n.dir, "query")))(n.t)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// counting is a remote store that counts what is fetched from it.
type counting struct {
	blob.Store
	mu     sync.Mutex // guards opened
	opened []string
	delay  chan struct{} // when not nil, Open waits for it to be closed
	damage bool
}

func (c *counting) Open(ctx context.Context, key string) (io.ReadCloser, blob.Object, error) {
	c.mu.Lock()
	c.opened = append(c.opened, key)
	delay := c.delay
	c.mu.Unlock()
	if delay != nil {
		select {
		case <-delay:
		case <-ctx.Done():
			return nil, blob.Object{}, ctx.Err()
		}
	}
	body, o, err := c.Store.Open(ctx, key)
	if err == nil && c.damage {
		all, rerr := io.ReadAll(body)
		body.Close()
		all[len(all)/2] ^= 1
		return io.NopCloser(bytes.NewReader(all)), o, rerr
	}
	return body, o, err
}

func (c *counting) fetched() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.opened...)
}

func (c *counting) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = nil
}

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func number(v float64) string { return fmt.Sprint(v) }
