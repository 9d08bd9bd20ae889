package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// readyAnswer is the body of /readyz.
type readyAnswer struct {
	Ready    bool       `json:"ready"`
	Degraded []Degraded `json:"degraded"`
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	st := s.node.Status()
	code := http.StatusOK
	if !st.Ready {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, readyAnswer{Ready: st.Ready, Degraded: st.Degraded})
}

func (s *Server) listStreams(w http.ResponseWriter, r *http.Request) {
	infos := s.node.Streams.List(r.URL.Query().Get("prefix"))
	out := make([]Stream, 0, len(infos))
	for _, info := range infos {
		cursors, err := s.node.Streams.ListCursors(info.ID)
		if err != nil && record.KindOf(err) != record.NotFound { // deleted since it was listed
			writeError(w, fmt.Errorf("list cursors of %s: %w", info.Name, err))
			return
		}
		st := streamOf(info, cursors)
		if s.node.Exports != nil {
			st.Exports = s.node.Exports(info.Name)
		}
		out = append(out, st)
	}
	writeJSON(w, http.StatusOK, out)
}

func streamOf(i stream.Info, cursors map[string]record.Offset) Stream {
	p := Policy{
		Durability: "disk", OnFull: "reject", Lane: "short", MaxBytes: i.Policy.MaxBytes, DropBytes: i.Policy.DropBytes,
		UntilExported: i.Policy.UntilExported,
	}
	if i.Policy.Durability == stream.OS {
		p.Durability = "os"
	}
	if i.Policy.OnFull == stream.DropOldest {
		p.OnFull = "drop_oldest"
	}
	if i.Policy.Lane == stream.Long {
		p.Lane = "long"
	}
	if i.Policy.MaxAge > 0 {
		p.MaxAge = i.Policy.MaxAge.String()
	}
	return Stream{
		Name: string(i.Name), ID: i.ID.String(), First: i.Bounds.First, Readable: i.Bounds.Readable, Next: i.Bounds.Next,
		Bytes: i.Bounds.Bytes, Sealed: i.Bounds.Sealed, Policy: p, Cursors: cursors,
	}
}

// recordsQuery is what /api/v1/streams/records was asked for.
type recordsQuery struct {
	name   record.StreamName
	id     record.StreamID
	from   record.Offset
	limit  int64 // records; 0 = no limit
	follow bool
}

func (s *Server) parseRecords(r *http.Request) (recordsQuery, error) {
	v := r.URL.Query()
	info, err := s.synced(r.Context(), record.StreamName(v.Get("name")))
	if err != nil {
		return recordsQuery{}, err
	}
	q := recordsQuery{name: info.Name, id: info.ID, from: info.Bounds.First, follow: v.Get("follow") == "1"}
	if text := v.Get("limit"); text != "" {
		if q.limit, err = strconv.ParseInt(text, 10, 64); err != nil || q.limit < 0 {
			return q, record.Errorf(record.Invalid, "limit=%s: want a number of records", text)
		}
	}
	switch text := v.Get("from"); text {
	case "", "first":
	case "end":
		q.from = info.Bounds.Readable
	case "last":
		q.from = max(info.Bounds.First, info.Bounds.Readable-min(info.Bounds.Readable, record.Offset(q.limit)))
	default:
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return q, record.Errorf(record.Invalid, "from=%s: want an offset, first, last or end", text)
		}
		q.from = record.Offset(n)
	}
	return q, nil
}

// synced finds a stream all of whose acknowledged records are readable: who asks may have put one just now.
func (s *Server) synced(ctx context.Context, name record.StreamName) (stream.Info, error) {
	info, err := s.node.Streams.Lookup(name)
	if err != nil {
		return info, err
	}
	if err := s.node.Streams.Sync(ctx, info.ID); err != nil {
		return info, err
	}
	return s.node.Streams.Lookup(name)
}

// records streams records as JSON lines. Without follow it ends at what is readable now.
func (s *Server) records(w http.ResponseWriter, r *http.Request) {
	q, err := s.parseRecords(r)
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	ctl := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	var c stream.Chunk
	for sent := int64(0); q.limit == 0 || sent < q.limit; {
		if !q.follow && s.atEnd(q) {
			return
		}
		err := s.node.Streams.Read(r.Context(), q.id, q.from, 256<<10, &c)
		if err != nil {
			if !errors.Is(err, stream.ErrEnd) && r.Context().Err() == nil {
				_ = enc.Encode(failureOf(err)) // the status is out already: the last line tells
			}
			return
		}
		_ = ctl.SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout))
		n, err := encodeChunk(enc, &c, q.limit-sent)
		if err != nil || ctl.Flush() != nil {
			return
		}
		sent += n
		q.from = c.Next
	}
}

func (s *Server) atEnd(q recordsQuery) bool {
	info, err := s.node.Streams.Lookup(q.name)
	return err != nil || info.ID != q.id || q.from >= info.Bounds.Readable
}

// encodeChunk writes a chunk's gaps and records; limit ≤ 0 is none. It returns how many records it wrote.
func encodeChunk(enc *json.Encoder, c *stream.Chunk, limit int64) (int64, error) {
	for _, g := range c.Gaps {
		why := "dropped by policy or request"
		if g.Reason == stream.Damaged {
			why = "damaged: once stored, no longer readable"
		}
		if err := enc.Encode(Record{Offset: g.To, Gap: fmt.Sprintf("offsets %d to %d %s", g.From, g.To-1, why)}); err != nil {
			return 0, err
		}
	}
	var n int64
	for i, rec := range c.Records {
		if limit > 0 && n == limit {
			break
		}
		out := Record{Offset: c.First + record.Offset(i), Time: time.Unix(0, rec.Time).UTC(), Key: string(rec.Key)}
		if utf8.Valid(rec.Payload) {
			out.Payload = string(rec.Payload)
		} else {
			out.Base64 = rec.Payload
		}
		if err := enc.Encode(out); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func (s *Server) listFiles(w http.ResponseWriter, r *http.Request) {
	files, err := s.node.Lake.Files(r.URL.Query().Get("table"))
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, files)
}

func (s *Server) flush(w http.ResponseWriter, r *http.Request) {
	if err := s.node.Lake.Flush(r.Context()); err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "flushed"})
}

// query runs one statement. Without frames the rows follow the header at once, and an error after the first row breaks
// the connection off, so that no client takes a part for the whole.
func (s *Server) query(w http.ResponseWriter, r *http.Request) {
	q, err := s.readQuery(w, r)
	if err != nil {
		writeError(w, err)
		return
	}
	ctx := r.Context()
	if q.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, q.Timeout)
		defer cancel()
	}
	ctl := http.NewResponseController(w)
	if q.Frames {
		w.Header().Set("Content-Type", "application/vnd.leat.frames")
		f := &frameWriter{w: w, ctl: ctl, per: s.cfg.WriteTimeout}
		err := s.node.Query.Query(ctx, q, f, func(p QueryProgress) { _ = f.json(frameProgress, p) })
		if err != nil {
			_ = f.json(frameError, failureOf(err))
			return
		}
		_ = f.frame(frameDone, nil)
		return
	}
	w.Header().Set("Content-Type", contentType(q.Format))
	out := &deadlineWriter{w: w, ctl: ctl, per: s.cfg.WriteTimeout}
	err = s.node.Query.Query(ctx, q, out, func(p QueryProgress) {
		if p.Warning != "" { // known only after the rows
			w.Header().Add(http.TrailerPrefix+"Leat-Warning", p.Warning)
		}
	})
	switch {
	case err != nil && out.n == 0:
		writeError(w, err)
	case err != nil:
		panic(http.ErrAbortHandler) // the documented way to break the connection off
	}
}

func (s *Server) readQuery(w http.ResponseWriter, r *http.Request) (QueryRequest, error) {
	var q QueryRequest
	if s.node.Query == nil {
		return q, record.Errorf(record.Unavailable, "this node answers no queries")
	}
	ctl := http.NewResponseController(w)
	_ = ctl.SetReadDeadline(time.Now().Add(headerTimeout))
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil {
		return q, record.Errorf(record.Invalid, "decode request: %w", err).
			WithHint(`send a JSON object such as {"sql": "SELECT 1", "format": "csv"}, at most 1 MiB`)
	}
	// Drain to the end, so that the server watches the connection and a client that goes away cancels the statement.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return q, record.Errorf(record.Invalid, "read request: %w", err)
	}
	_ = ctl.SetReadDeadline(time.Time{})
	return q, nil
}

func contentType(format string) string {
	switch format {
	case "csv":
		return "text/csv; charset=utf-8"
	case "json":
		return "application/json"
	case "ndjson":
		return "application/x-ndjson"
	case "parquet":
		return "application/vnd.apache.parquet"
	default:
		return "text/plain; charset=utf-8"
	}
}

// deadlineWriter gives each write its time and sends it on at once.
type deadlineWriter struct {
	w   io.Writer
	ctl *http.ResponseController
	per time.Duration
	n   int64
}

func (d *deadlineWriter) Write(p []byte) (int, error) {
	_ = d.ctl.SetWriteDeadline(time.Now().Add(d.per))
	n, err := d.w.Write(p)
	d.n += int64(n)
	if err == nil {
		err = d.ctl.Flush()
	}
	return n, err
}
