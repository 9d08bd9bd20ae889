package query

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/query/result"
	"github.com/leat-io/leat/internal/query/wire"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// Directories below the data directory.
const (
	queryDir = "query"         // one directory for each running query
	tailDir  = "cache/tail"    // encoded chunks of streams
	blobDir  = "cache/objects" // objects of a remote lake
)

// Catalog is the part of lake.Catalog that queries read.
type Catalog interface {
	View(sel ...lake.Select) (lake.View, error)
}

// Options are what an Engine works with.
type Options struct {
	Config Config
	// Data is the data directory. Spool is the spool's place below it; Lake that of the store, when the store is a
	// directory on the same file system, else "".
	Data  *vfs.Dir
	Spool string
	Lake  string
	// Store is read through the object cache when Lake is "".
	Store blob.Store
	// Catalog knows tables and files; Pattern is lake.Config.Pattern, which names the partition columns.
	Catalog Catalog
	Pattern string
	// Tail gives the rows still in streams; nil hides them.
	Tail Tail
	// MinFree is how many bytes of the disk stay free: below it, queries that write on it are ended.
	MinFree int64
	Log     *slog.Logger
}

// Engine runs queries. It is safe for concurrent use.
type Engine struct {
	opt   Options
	cfg   Config
	hive  []wire.Hive
	tail  *tail
	cache *cache
	slots chan struct{} // one token for each running query
	stats counters

	mu      sync.Mutex // guards waiting and closed
	waiting int
	closed  bool
	running sync.WaitGroup
}

// Stats are counts since the engine opened, and what it holds now.
type Stats struct {
	Queries   int64 // answered
	Failed    int64 // ended with an error, cancelled ones included
	Refused   int64 // because the queue was full
	Killed    int64 // workers ended by force: deadline, cancel, memory
	Rows      int64 // of answers
	Running   int64 // queries now
	Waiting   int64 // queries now
	Encoded   int64 // tail records encoded, counted again each time a partial chunk is encoded again
	Fetched   int64 // objects from a remote store
	FetchedB  int64 // their bytes
	CacheHits int64 // objects found in the cache
	CacheB    int64 // bytes in the cache now
}

type counters struct {
	queries, failed, refused, killed, rows, running atomic.Int64
}

// Clear removes what queries of an earlier process left below the data directory: after a power cut that can be
// gigabytes of intermediate results. Call it before the room on the disk is measured, and before Open.
func Clear(data *vfs.Dir) error {
	for _, dir := range []string{queryDir, tailDir} {
		if err := data.RemoveAll(dir); err != nil {
			return fmt.Errorf("clear %s: %w", dir, err)
		}
	}
	return nil
}

// Open prepares the engine's directories below opt.Data, emptying them as Clear does. It does not need leat-sql: that is
// looked for by each query.
func Open(opt Options) (*Engine, error) {
	if err := Clear(opt.Data); err != nil {
		return nil, err
	}
	for _, dir := range []string{queryDir, tailDir} {
		if err := opt.Data.MkdirAll(dir); err != nil {
			return nil, fmt.Errorf("make %s: %w", dir, err)
		}
	}
	e := &Engine{
		opt: opt, cfg: opt.Config, hive: hiveColumns(opt.Pattern), slots: make(chan struct{}, opt.Config.Workers),
	}
	if opt.Tail != nil {
		e.tail = newTail(opt)
	}
	if opt.Lake == "" && opt.Store != nil {
		var err error
		if e.cache, err = openCache(opt.Data, opt.Store, opt.Config); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// Close waits for running queries, whose contexts the caller ends, and refuses new ones. It is idempotent.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.running.Wait()
	return nil
}

// Stats returns the counts.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	waiting := e.waiting
	e.mu.Unlock()
	s := Stats{
		Queries: e.stats.queries.Load(), Failed: e.stats.failed.Load(), Refused: e.stats.refused.Load(),
		Killed: e.stats.killed.Load(), Rows: e.stats.rows.Load(), Running: e.stats.running.Load(), Waiting: int64(waiting),
	}
	if e.tail != nil {
		s.Encoded = e.tail.encoded.Load()
	}
	if e.cache != nil {
		s.Fetched, s.FetchedB, s.CacheHits, s.CacheB = e.cache.stats()
	}
	return s
}

// Request is a statement and how its answer is wanted.
type Request struct {
	SQL     string
	Format  result.Format // "" means table
	Width   int           // of the terminal, for tables; 0 = as wide as needed
	MaxRows int64         // 0, or more than Config.MaxRows, means that
	NoTail  bool          // leave out rows that are still in streams
	Timeout time.Duration // 0, or longer than Config.Timeout, means that
}

// Summary is what is known of an answer once it is complete.
type Summary struct {
	Columns   []result.Column
	Rows      int64
	Bytes     int64
	Truncated bool // MaxRows cut the answer
	Version   uint64
	Files     int   // in the snapshot
	Tail      int64 // records seen that were still in streams
	Fetched   int   // objects fetched from a remote store
	Elapsed   time.Duration
	Warnings  []string
}

// Progress is how far a query is.
type Progress struct {
	Stage   string  // waiting, reading streams, planning, fetching, running
	Percent float64 // of the stage; negative when not known
	Rows    int64
	Bytes   int64 // of the answer so far
}

// Query writes the answer to w. progress may be nil; it is never called twice at once, nor after Query has
// returned, and must not block long.
// When an error is returned, part of the answer may have been written. Errors have a kind: Invalid for statements that
// cannot succeed (with a *StatementError inside), Denied for what a query may not do, Throttled when too many wait,
// Unavailable for a deadline, a memory limit, or a missing leat-sql; the context's error when it ended.
func (e *Engine) Query(ctx context.Context, req Request, w io.Writer, progress func(Progress)) (Summary, error) {
	began := time.Now()
	if progress == nil {
		progress = func(Progress) {}
	}
	if req.Format == "" {
		req.Format = result.FormatTable
	}
	if err := req.Format.Validate(); err != nil {
		return Summary{}, err
	}
	binary, err := Locate(e.cfg.Binary)
	if err != nil {
		return Summary{}, err
	}
	release, err := e.admit(ctx, progress)
	if err != nil {
		return Summary{}, err
	}
	defer release()
	run := &run{Engine: e, req: req, binary: binary, out: w, progress: progress}
	sum, err := run.do(ctx)
	sum.Elapsed = time.Since(began)
	if err != nil {
		e.stats.failed.Add(1)
		return sum, err
	}
	e.stats.queries.Add(1)
	e.stats.rows.Add(sum.Rows)
	return sum, nil
}

// admit waits for a slot. The returned function gives it back.
func (e *Engine) admit(ctx context.Context, progress func(Progress)) (release func(), err error) {
	wait, err := e.enter()
	if err != nil {
		return nil, err
	}
	if wait {
		progress(Progress{Stage: "waiting", Percent: -1})
		select {
		case e.slots <- struct{}{}:
		case <-ctx.Done():
			if err = ctx.Err(); errors.Is(err, context.DeadlineExceeded) {
				err = record.Errorf(record.Throttled, "query waited for a free worker until its time was over").
					WithHint("try again later, allow it more time, or raise sql.workers")
			}
		}
		e.mu.Lock()
		e.waiting--
		e.mu.Unlock()
	}
	if err != nil {
		e.running.Done()
		return nil, err
	}
	e.stats.running.Add(1)
	return func() {
		e.stats.running.Add(-1)
		<-e.slots
		e.running.Done()
	}, nil
}

// enter takes a free slot, or a place in the queue for one.
func (e *Engine) enter() (wait bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false, record.Errorf(record.Unavailable, "queries are closed: leat is stopping")
	}
	select {
	case e.slots <- struct{}{}:
		e.running.Add(1)
		return false, nil
	default:
	}
	if e.waiting >= e.cfg.Queue {
		e.stats.refused.Add(1)
		return false, record.Errorf(record.Throttled, "%d queries are waiting already", e.waiting).
			WithHint("try again, or raise sql.queue or sql.workers")
	}
	e.waiting++
	e.running.Add(1)
	return true, nil
}

// errStale says that the view of the catalog a query began with is no longer good.
var errStale = errors.New("catalog changed meanwhile")

func randomName() string { return rand.Text() }
