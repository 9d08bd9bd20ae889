package server

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/query"
	"github.com/leat-io/leat/internal/query/result"
	"github.com/leat-io/leat/internal/record"
)

// apiNode is the server as leat's own interface shows it.
func (s *Server) apiNode() api.Node {
	return api.Node{
		Streams: s.all, Owner: (*owner)(s), Exports: s.exportsOf, Lake: (*lakeView)(s), Query: (*querier)(s), Status: s.Status, Metrics: s.metrics.handler(),
	}
}

// Status tells what the node is doing.
func (s *Server) Status() api.Status {
	in, out := s.router.Stats(), s.exports.Stats()
	st := api.Status{
		Version: s.version, Node: s.node, PID: os.Getpid(), Started: s.started, DataDir: s.data.Path(),
		Ready: s.ready.Load(), Degraded: s.degraded(), Listeners: s.listeners(), Store: s.storePlace(),
		Messages: in.Unmatched, Rejected: in.Failed + int64(out.Rejected),
		Rows: int64(out.Rows), Files: int64(out.UploadedFiles), FileBytes: int64(out.UploadedBytes),
		Backlog: out.BacklogBytes, Waiting: out.SpoolBytes, Budget: s.budget.Total,
	}
	for _, r := range in.Rules {
		st.Messages += r.Messages
		st.Rejected += r.Failed
	}
	var newest time.Time
	for _, e := range s.exports.Status() {
		if e.Uploaded.At.After(newest) {
			newest, st.LastFile = e.Uploaded.At, e.Uploaded.Key
		}
	}
	st.DiskUsed = out.SpoolBytes + s.queries.Stats().CacheB
	for _, l := range s.streams.Stats() {
		st.DiskUsed += l.Physical
	}
	return st
}

// degraded lists what does not work as it should. None of it is a reason to restart the process.
func (s *Server) degraded() []api.Degraded {
	list := []api.Degraded{}
	for _, src := range s.sources {
		st := src.Status()
		for _, why := range st.Degraded() {
			list = append(list, api.Degraded{What: "mqtt source " + st.Name, Why: why})
		}
	}
	for _, why := range s.router.Degraded() {
		list = append(list, api.Degraded{What: "ingest", Why: why})
	}
	for _, e := range s.exports.Status() {
		if !e.Degraded {
			continue
		}
		why := e.LastError
		if why == "" {
			why = e.Waiting
		}
		if e.Hint != "" {
			why += " (" + e.Hint + ")"
		}
		list = append(list, api.Degraded{What: "export of " + string(e.Name), Why: why})
	}
	list = append(list, s.degradedForward()...)
	if !s.clock.Read().Trusted {
		list = append(list, api.Degraded{What: "clock", Why: "it was never set: files are not cut until it is, or export.clock_wait has passed"})
	}
	if err := s.unrestored.Load(); err != nil {
		list = append(list, api.Degraded{What: "catalog", Why: "queries miss files that are in the store: " + withHint(*err)})
	}
	rejected := s.router.Stats().Full
	for _, l := range s.streams.Stats() {
		if l.DamagedRanges > 0 {
			list = append(list, api.Degraded{What: "log", Why: "stored bytes no longer read; see leat log verify"})
		}
		rejected += l.RejectedAppends
	}
	if s.full.recent(rejected, time.Now()) {
		list = append(list, api.Degraded{What: "log", Why: "full: messages are refused (raise disk.budget, make room on the disk, or see why the exports do not catch up)"})
	}
	return list
}

func withHint(err error) string {
	if hint := record.HintOf(err); hint != "" {
		return fmt.Sprintf("%v (%s)", err, hint)
	}
	return err.Error()
}

// rejections remembers when the log last refused something for want of room.
type rejections struct {
	mu    sync.Mutex
	count int64
	at    time.Time
}

// stillFull is how long after a refusal the log counts as full: longer than clients wait before they try again.
const stillFull = time.Minute

// recent takes the number of refusals so far, and reports whether the last change of it is a short while ago.
func (r *rejections) recent(count int64, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if count != r.count {
		r.count, r.at = count, now
	}
	return r.count > 0 && now.Sub(r.at) < stillFull
}

func (s *Server) listeners() []api.Listener {
	list := []api.Listener{{Door: "socket", Address: filepath.Join(s.data.Path(), api.SocketName)}}
	if s.http != nil {
		list = append(list, api.Listener{Door: "http", Address: s.http.Addr().String()})
	}
	if s.broker != nil {
		for _, a := range s.broker.Addrs() {
			list = append(list, api.Listener{Door: "mqtt", Address: a.URL})
		}
	}
	if s.door != nil {
		list = append(list, api.Listener{Door: "stream manager", Address: s.door.Addr().String()})
	}
	return list
}

// lakeView is the server as api.Lake.
type lakeView Server

// Files is part of api.Lake.
func (l *lakeView) Files(table string) ([]api.File, error) {
	view, err := l.catalog.View(lake.Select{Table: table})
	if err != nil {
		return nil, err
	}
	if table != "" && len(view.Tables) == 0 {
		return nil, record.Errorf(record.NotFound, "there is no table %q", table).WithHint("leat lake ls lists all files")
	}
	files := []api.File{}
	for _, t := range view.Tables {
		for _, f := range t.Files {
			place := "store"
			if f.Place == lake.Spool {
				place = "spool"
			}
			files = append(files, api.File{
				Table: t.Table, Key: f.Key, Size: f.Size, Rows: f.Rows, Place: place,
				Min: time.Unix(0, f.MinTime).UTC(), Max: time.Unix(0, f.MaxTime).UTC(),
			})
		}
	}
	return files, nil
}

// Flush is part of api.Lake.
func (l *lakeView) Flush(ctx context.Context) error { return l.exports.Flush(ctx) }

// querier is the server as api.Querier.
type querier Server

// Query is part of api.Querier.
func (q *querier) Query(ctx context.Context, r api.QueryRequest, out io.Writer, progress func(api.QueryProgress)) error {
	req := query.Request{
		SQL: r.SQL, Format: result.Format(r.Format), Width: r.Width, MaxRows: r.MaxRows, Timeout: r.Timeout, NoTail: r.NoTail,
	}
	sum, err := q.queries.Query(ctx, req, out, func(p query.Progress) {
		progress(api.QueryProgress{Stage: p.Stage, Percent: p.Percent, Rows: p.Rows})
	})
	if err != nil {
		return err
	}
	for _, w := range sum.Warnings {
		progress(api.QueryProgress{Warning: w})
	}
	if sum.Truncated {
		progress(api.QueryProgress{Warning: "the answer was cut: there are more rows"})
	}
	return nil
}
