package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/vfs"
)

// Tail is what queries need to read rows that are still in streams. The server wires it.
type Tail interface {
	// Feeds lists the streams that feed tables now.
	Feeds() []Feed
	// Read and Bounds are stream.Reader's.
	Read(ctx context.Context, id record.StreamID, from record.Offset, maxBytes int, c *stream.Chunk) error
	Bounds(id record.StreamID) (stream.Bounds, error)
	// Builder returns a builder of the feed's rows, as an export would use, that writes below dir.
	Builder(dir *vfs.Dir, f Feed, rng lake.Range) (Builder, error)
}

// Feed is a stream whose records become rows of a table.
type Feed struct {
	Table  lake.TableSpec
	Stream record.StreamID
	// Decoder makes a decoder of the feed's rule; Restamp gives the time of records whose clock was not trusted.
	Decoder func() payload.Decoder
	Restamp func(o stream.Origin, recTime int64) int64
}

// Builder is lake.Builder.
type Builder interface {
	Add(c *stream.Chunk) error
	Finish() (lake.Result, error)
	Abort() error
}

// readBytes is about how much of a stream is read at a time.
const readBytes = 1 << 20

// tail keeps streams' newest rows as files: for each feed a row of chunks [from, to) that follow one another. All but
// the last end on the grid and are never encoded again.
type tail struct {
	data    *vfs.Dir
	src     Tail
	cfg     Config
	log     *slog.Logger
	encoded atomic.Int64

	mu    sync.Mutex // guards feeds
	feeds map[feedKey]*feedTail
}

type feedKey struct {
	table  string
	stream record.StreamID
}

// feedTail is the chunks of one feed.
type feedTail struct {
	mu     sync.Mutex // held while chunks are encoded and linked: queries that come together encode once
	chunks []chunk
	serial int
}

// chunk is an encoded range.
type chunk struct {
	from, to record.Offset
	dir      string // below the data directory
	files    []lake.File
}

func newTail(opt Options) *tail {
	return &tail{data: opt.Data, src: opt.Tail, cfg: opt.Config, log: opt.Log, feeds: map[feedKey]*feedTail{}}
}

// link brings the tail of every feed that the statement may name up to date and links it into the snapshot: what lies
// behind the offset that the view covers, up to what is readable now.
//
// Records that lie behind that offset and have left the stream are a reason to begin again with a newer view; lenient
// accepts it, with a warning, when newer views do not help.
func (t *tail) link(
	ctx context.Context, sql string, view lake.View, snap *snapshot, sum *Summary, lenient bool,
) error {
	covered := map[feedKey]record.Offset{}
	for _, table := range view.Tables {
		for id, to := range table.Covered {
			covered[feedKey{table.Table, id}] = to
		}
	}
	feeds := t.src.Feeds()
	t.forget(feeds)
	for _, f := range feeds {
		if !mayName(sql, f.Table.Name) {
			continue
		}
		key := feedKey{f.Table.Name, f.Stream}
		if err := t.feed(key).link(ctx, t, f, covered[key], snap, sum, lenient); err != nil {
			return fmt.Errorf("read stream %s for table %s: %w", f.Stream, f.Table.Name, err)
		}
	}
	return nil
}

// mayName reports whether a statement can read a table. It has to hold the name; only functions that run a text as SQL
// can put the name together.
func mayName(sql, table string) bool {
	sql = strings.ToLower(sql)
	for _, s := range []string{strings.ToLower(table), "query", "json_execute"} {
		if strings.Contains(sql, s) {
			return true
		}
	}
	return strings.ContainsRune(table, '"')
}

func (t *tail) feed(key feedKey) *feedTail {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.feeds[key]
	if f == nil {
		f = &feedTail{}
		t.feeds[key] = f
	}
	return f
}

// forget drops feeds that are gone, with their files.
func (t *tail) forget(feeds []Feed) {
	live := map[feedKey]bool{}
	for _, f := range feeds {
		live[feedKey{f.Table.Name, f.Stream}] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, key := range slices.Collect(maps.Keys(t.feeds)) {
		f := t.feeds[key]
		if live[key] || !f.mu.TryLock() {
			continue
		}
		f.drop(t, len(f.chunks))
		f.mu.Unlock()
		delete(t.feeds, key)
	}
}

func (f *feedTail) link(
	ctx context.Context, t *tail, feed Feed, from record.Offset, snap *snapshot, sum *Summary, lenient bool,
) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := t.src.Bounds(feed.Stream)
	if err != nil {
		if record.KindOf(err) == record.NotFound {
			return nil // deleted meanwhile; its tail went with it
		}
		return err
	}
	if b.First > from {
		// Exported and trimmed since the view was taken, or dropped unexported because the stream was full.
		if !lenient {
			return errStale
		}
		sum.Warnings = append(sum.Warnings, fmt.Sprintf("table %s: %d records are in no file and no longer in the stream",
			feed.Table.Name, b.First-from))
		from = b.First
	}
	to := b.Readable
	if limit := from + record.Offset(t.cfg.TailRecords); to > limit {
		sum.Warnings = append(sum.Warnings, fmt.Sprintf("table %s: the newest %d records wait in the stream for export and are not shown",
			feed.Table.Name, to-limit))
		to = limit
	}
	if from >= to {
		return nil
	}
	if err := f.extend(ctx, t, feed, from, to); err != nil {
		return err
	}
	for _, c := range f.chunks {
		for _, file := range c.files {
			if err := snap.linkAs(c.dir+"/"+file.Spool, file, snap.place(file)); err != nil {
				return err
			}
		}
	}
	sum.Tail += int64(to - from)
	return nil
}

// extend makes the chunks cover exactly [from, to).
func (f *feedTail) extend(ctx context.Context, t *tail, feed Feed, from, to record.Offset) error {
	// Chunks before from are exported. One that from cuts through is of no use either: the export's file has part of it.
	keep := 0
	for keep < len(f.chunks) && f.chunks[keep].from < from {
		keep++
	}
	f.drop(t, keep)
	if len(f.chunks) > 0 && f.chunks[0].from != from {
		// The head is missing: it belongs to a chunk that was cut through. Encode it up to where the chunks begin.
		head := f.chunks
		f.chunks = nil
		if err := f.encode(ctx, t, feed, from, min(head[0].from, to)); err != nil {
			f.chunks = append(f.chunks, head...)
			f.drop(t, len(f.chunks))
			return err
		}
		f.chunks = append(f.chunks, head...)
	}
	grid := record.Offset(t.cfg.TailChunk)
	for i, c := range f.chunks {
		if c.to > to || c.to < to && c.to%grid != 0 && i == len(f.chunks)-1 {
			// Beyond the end (a view of an older query reads less), or the partial last one, that has to grow.
			f.dropFrom(t, i)
			break
		}
	}
	next := from
	if n := len(f.chunks); n > 0 {
		next = f.chunks[n-1].to
	}
	for next < to {
		end := min((next/grid+1)*grid, to)
		if err := f.encode(ctx, t, feed, next, end); err != nil {
			return err
		}
		next = end
	}
	return nil
}

// encode appends a chunk.
func (f *feedTail) encode(ctx context.Context, t *tail, feed Feed, from, to record.Offset) (err error) {
	f.serial++
	name := path.Join(tailDir, tableDir(feed.Table.Name), fmt.Sprintf("%s-%d", feed.Stream, f.serial))
	dir, err := t.data.Sub(name)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, dir.Close())
		if err != nil {
			err = errors.Join(err, t.data.RemoveAll(name))
		}
	}()
	b, err := t.src.Builder(dir, feed, lake.Range{Stream: feed.Stream, From: from, To: to, Cut: time.Now().UTC()})
	if err != nil {
		return err
	}
	if err := t.read(ctx, b, feed.Stream, from, to); err != nil {
		return errors.Join(err, b.Abort())
	}
	res, err := b.Finish()
	if err != nil {
		return errors.Join(err, b.Abort())
	}
	c := chunk{from: from, to: to, dir: name}
	for _, file := range res.Files {
		if !file.Rejected && !file.Manifest {
			c.files = append(c.files, file)
		}
	}
	f.chunks = append(f.chunks, c)
	t.encoded.Add(int64(to - from))
	return nil
}

// read hands the records of [from, to) to the builder.
func (t *tail) read(ctx context.Context, b Builder, id record.StreamID, from, to record.Offset) error {
	var c stream.Chunk
	for from < to {
		if err := t.src.Read(ctx, id, from, readBytes, &c); err != nil {
			return err
		}
		for _, g := range c.Gaps {
			if g.Reason == stream.Dropped && g.From < to {
				return errStale
			}
		}
		if err := b.Add(&c); err != nil {
			return err
		}
		if c.Next <= from {
			return record.Errorf(record.Internal, "stream %s did not advance at %d", id, from)
		}
		from = c.Next
	}
	return nil
}

// drop removes the first n chunks.
func (f *feedTail) drop(t *tail, n int) {
	for _, c := range f.chunks[:n] {
		t.discard(c)
	}
	f.chunks = slices.Delete(f.chunks, 0, n)
}

// dropFrom removes the chunks from the i-th on.
func (f *feedTail) dropFrom(t *tail, i int) {
	for _, c := range f.chunks[i:] {
		t.discard(c)
	}
	f.chunks = f.chunks[:i]
}

// discard removes a chunk's files; queries that run keep theirs through their own links.
func (t *tail) discard(c chunk) {
	if err := t.data.RemoveAll(c.dir); err != nil {
		t.log.Warn("query cache not removed", "dir", c.dir, "error", err)
	}
}
