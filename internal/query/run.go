package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/query/result"
	"github.com/leat-io/leat/internal/query/wire"
	"github.com/leat-io/leat/internal/record"
)

// maxStale is how often a query starts again because the catalog moved on; from the lenientAt-th time on it takes
// records that are neither in a file nor in the stream for dropped.
const (
	maxStale  = 8
	lenientAt = 6
)

// run is one query.
type run struct {
	*Engine
	req      Request
	binary   string
	out      io.Writer
	progress func(Progress)
	sum      Summary
	fetching bool // the store's answers are waited for
}

func (r *run) do(ctx context.Context) (Summary, error) {
	limit := r.cfg.Timeout
	if r.req.Timeout > 0 {
		limit = min(limit, r.req.Timeout)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		r.sum = Summary{}
		err := r.once(ctx, attempt >= lenientAt)
		if err == nil || !errors.Is(err, errStale) || ctx.Err() != nil {
			return r.sum, r.explain(ctx, err, limit)
		}
		if attempt == maxStale {
			return r.sum, record.Errorf(record.Unavailable, "run query: %w", err).WithHint("try again")
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(attempt) * 10 * time.Millisecond):
		}
	}
}

// errTimeout is the cause of a context that the query's own deadline ended.
var errTimeout = errors.New("deadline")

// explain turns the end of the context into its reason.
func (r *run) explain(ctx context.Context, err error, limit time.Duration) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	// The caller's own deadline is the same thing, seen from further out.
	if cause := context.Cause(ctx); errors.Is(cause, errTimeout) || errors.Is(cause, context.DeadlineExceeded) {
		hint := "narrow it by year, month, day or ts, or allow it more time (--timeout, sql.timeout)"
		if r.fetching {
			return record.Errorf(record.Unavailable, "query took longer than %s and was ended while it waited for files from the store", limit).
				WithHint("see whether the store answers (leat health); or %s", hint)
		}
		return record.Errorf(record.Unavailable, "query took longer than %s and was ended", limit).WithHint("%s", hint)
	}
	return ctx.Err()
}

// once runs the query against the catalog as it is now.
func (r *run) once(ctx context.Context, lenient bool) (err error) {
	snap, err := newSnapshot(r.opt.Data)
	if err != nil {
		return fmt.Errorf("make snapshot: %w", err)
	}
	defer func() {
		if rerr := snap.remove(); rerr != nil && err == nil {
			err = fmt.Errorf("remove snapshot: %w", rerr)
		}
	}()
	view, err := r.opt.Catalog.View()
	if err != nil {
		return err
	}
	if r.tail != nil && !r.req.NoTail {
		r.progress(Progress{Stage: "reading streams", Percent: -1})
		if err := r.tail.link(ctx, r.req.SQL, view, snap, &r.sum, lenient); err != nil {
			return err
		}
		// Encoding may have made tables and columns; files and what they cover stay those of the first view.
		if err := r.refresh(&view); err != nil {
			return err
		}
	}
	r.sum.Version = view.Version
	return r.converse(ctx, view, snap)
}

// refresh takes over the columns of newer schemas.
func (r *run) refresh(view *lake.View) error {
	newer, err := r.opt.Catalog.View()
	if err != nil {
		return err
	}
	old := map[string]lake.Table{}
	for _, t := range view.Tables {
		old[t.Table] = t
	}
	var tables []lake.Table
	for _, t := range newer.Tables {
		t.Files = old[t.Table].Files
		tables = append(tables, t)
	}
	view.Tables = tables
	return nil
}

// converse starts a worker and goes through the protocol with it.
func (r *run) converse(ctx context.Context, view lake.View, snap *snapshot) (err error) {
	r.progress(Progress{Stage: "planning", Percent: -1})
	p, err := startProcess(ctx, r.binary, snap, r.opt, func() { r.stats.killed.Add(1) })
	if err != nil {
		return err
	}
	defer func() { err = p.finish(err) }()
	if err := p.hello(r.cfg.Unconfined); err != nil {
		return err
	}
	if err := p.send(wire.TypeRequest, r.request(view)); err != nil {
		return err
	}
	var plan wire.Plan
	if err := p.expect(wire.TypePlan, &plan, r.req.SQL); err != nil {
		return err
	}
	if err := r.fill(ctx, view, plan, snap); err != nil {
		return err
	}
	if err := p.send(wire.TypeGo, wire.Go{Filled: snap.filled()}); err != nil {
		return err
	}
	return r.receive(p)
}

// maxRows is the lower of the two limits; 0 is none.
func (r *run) maxRows() int64 {
	if r.cfg.MaxRows > 0 && (r.req.MaxRows <= 0 || r.req.MaxRows > r.cfg.MaxRows) {
		return r.cfg.MaxRows
	}
	return max(r.req.MaxRows, 0)
}

func (r *run) request(view lake.View) wire.Request {
	req := wire.Request{
		SQL: r.req.SQL, Hive: r.hive, Format: string(r.req.Format), Width: r.req.Width, MaxRows: r.maxRows(),
		Memory: r.cfg.MemoryBytes, Spill: r.cfg.SpillBytes, Threads: r.cfg.Threads,
	}
	for _, t := range view.Tables {
		req.Tables = append(req.Tables, wireTable(t))
	}
	return req
}

// fill links the files the plan asks for.
func (r *run) fill(ctx context.Context, view lake.View, plan wire.Plan, snap *snapshot) error {
	var remote []wanted
	var gone []lake.File
	for _, tp := range plan.Tables {
		for _, t := range view.Tables {
			if t.Table != tp.Name {
				continue
			}
			for _, f := range t.Files {
				if !tp.Filter.May(extent(f)) {
					continue
				}
				r.sum.Files++
				done, err := r.linkLocal(snap, f)
				switch {
				case errors.Is(err, errGone):
					gone = append(gone, f.File)
				case err != nil:
					return err
				case !done:
					remote = append(remote, wanted{f.File, snap.place(f.File)})
				}
			}
		}
	}
	if len(remote) > 0 {
		missing, err := r.fetch(ctx, snap, remote)
		if err != nil {
			return err
		}
		gone = append(gone, missing...)
	}
	return r.leaveOut(gone)
}

// fetch links files that only the remote store has, and returns those that it has no more.
func (r *run) fetch(ctx context.Context, snap *snapshot, remote []wanted) (gone []lake.File, err error) {
	for _, w := range remote {
		if err := snap.ensure(path.Dir(w.to)); err != nil {
			return nil, err
		}
	}
	r.fetching = true
	fetched, gone, err := r.cache.link(ctx, remote, func(done int) {
		r.progress(Progress{Stage: "fetching", Percent: 100 * float64(done) / float64(len(remote))})
	})
	r.fetching = err != nil
	r.sum.Fetched += fetched
	for _, w := range remote {
		if !slices.ContainsFunc(gone, func(f lake.File) bool { return f.Key == w.file.Key }) {
			snap.tables[w.file.Table] = true
		}
	}
	return gone, err
}

// leaveOut reports files that somebody deleted from the store: leat itself never does. When nothing at all is left, the
// store is more likely not mounted, or another one.
func (r *run) leaveOut(gone []lake.File) error {
	if len(gone) == 0 {
		return nil
	}
	slices.SortFunc(gone, func(a, b lake.File) int { return strings.Compare(a.Key, b.Key) })
	if len(gone) == r.sum.Files {
		return record.Errorf(record.NotFound, "none of the %d files that the query needs is in the store any more: the first is %s",
			len(gone), gone[0].Key).WithHint("see whether the lake's directory is mounted, or the bucket the right one")
	}
	r.sum.Warnings = append(r.sum.Warnings, fmt.Sprintf("%d of %d files are no longer in the store and their rows not in the answer: the first is %s",
		len(gone), r.sum.Files, gone[0].Key))
	r.sum.Files -= len(gone)
	return nil
}

// errGone says that a file was deleted from the store.
var errGone = errors.New("no longer in the store")

// linkLocal links a file that lies on this disk. done is false when only the remote store has it.
//
// A file leaves the spool when the store has it, under the same key and with the same bytes: so one that has gone from
// the spool since the view was taken is in the store, whatever the view says.
func (r *run) linkLocal(snap *snapshot, f lake.TableFile) (done bool, err error) {
	places := []string{}
	if f.Spool != "" {
		places = append(places, r.opt.Spool+"/"+f.Spool)
	}
	if r.opt.Lake != "" {
		places = append(places, r.opt.Lake+"/"+f.Key)
	}
	for _, place := range places {
		if err := snap.link(place, f.File); !errors.Is(err, fs.ErrNotExist) {
			return err == nil, err
		}
	}
	switch {
	case r.cache != nil:
		return false, nil
	case f.Place == lake.Store:
		return false, errGone
	}
	return false, fmt.Errorf("link %s: %w", f.Key, errStale)
}

// receive copies the answer until it is complete.
func (r *run) receive(p *process) error {
	for {
		t, payload, err := p.read(r.req.SQL)
		if err != nil {
			return err
		}
		switch t {
		case wire.TypeSchema:
			var s wire.Schema
			if err := p.decode(t, payload, &s); err != nil {
				return err
			}
			for _, c := range s.Columns {
				r.sum.Columns = append(r.sum.Columns, result.Column{Name: c.Name, Type: c.Type})
			}
		case wire.TypeData:
			if r.sum.Bytes += int64(len(payload)); r.sum.Bytes > r.cfg.ResultBytes {
				return record.Errorf(record.Unavailable, "answer is larger than %d bytes", r.cfg.ResultBytes).
					WithHint("ask for less, or raise sql.result_bytes")
			}
			if _, err := r.out.Write(payload); err != nil {
				return fmt.Errorf("write answer: %w", err)
			}
		case wire.TypeProgress:
			var pr wire.Progress
			if err := p.decode(t, payload, &pr); err != nil {
				return err
			}
			r.progress(Progress{Stage: "running", Percent: pr.Percent, Rows: pr.Rows, Bytes: r.sum.Bytes})
		case wire.TypeDone:
			var d wire.Done
			err := p.decode(t, payload, &d)
			r.sum.Rows, r.sum.Truncated = d.Rows, d.Truncated
			return err
		default:
			return p.unexpected(t)
		}
	}
}

// abs is where a name below the data directory lies, for another process.
func abs(base, name string) (string, error) { return filepath.Abs(filepath.Join(base, name)) }
