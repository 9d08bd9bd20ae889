package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"

	"github.com/leat-io/leat/internal/record"
)

// Owner changes streams for an operator. It knows which door a stream belongs to, and what else goes with it.
type Owner interface {
	// Put appends the records as one unit, in the form that the stream's door gives its records, at the time of the node's
	// clock. It returns the first record's offset once they are acknowledged. Errors: those of stream.Appender. The
	// records are not used after it has returned.
	Put(ctx context.Context, name record.StreamName, records []record.Record) (record.Offset, error)
	// Remove deletes a stream with its records, cursors and exports. NotFound: there is none. Conflict: the
	// configuration would make it again; the hint says what to take out of it first.
	Remove(ctx context.Context, name record.StreamName) error
}

// The limits of one put.
const (
	maxPut        = record.MaxPayload // bytes of the body
	maxPutRecords = 1 << 16           // a record costs more memory than the line break that makes it
	maxPuts       = 4                 // at once, over all connections; more wait
	putTimeout    = time.Minute       // to send the body
)

// Put is what putting records into a stream has come to.
type Put struct {
	First record.Offset `json:"first"` // of the first record
	Count int           `json:"count"`
}

// put appends the body to a stream: as one record, or with lines=1 as one record for each line.
func (s *Server) put(w http.ResponseWriter, r *http.Request) {
	if s.node.Owner == nil {
		writeError(w, record.Errorf(record.Unavailable, "this node takes no records here"))
		return
	}
	select {
	case s.puts <- struct{}{}:
		defer func() { <-s.puts }()
	case <-r.Context().Done():
		return
	}
	v := r.URL.Query()
	records, err := readPut(w, r, v.Get("key"), v.Get("lines") == "1")
	if err != nil {
		writeError(w, err)
		return
	}
	first, err := s.node.Owner.Put(r.Context(), record.StreamName(v.Get("name")), records)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, Put{First: first, Count: len(records)})
}

func readPut(w http.ResponseWriter, r *http.Request, key string, lines bool) ([]record.Record, error) {
	if len(key) > record.MaxKey {
		return nil, record.Errorf(record.Invalid, "key of %d bytes: at most %d", len(key), record.MaxKey)
	}
	ctl := http.NewResponseController(w)
	_ = ctl.SetReadDeadline(time.Now().Add(putTimeout)) // fails only where there is no connection to wait for
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPut))
	if err != nil {
		return nil, record.Errorf(record.Invalid, "read records: %w", err).WithHint("send at most %d bytes at once", maxPut)
	}
	_ = ctl.SetReadDeadline(time.Time{})
	if !lines {
		return []record.Record{{Key: []byte(key), Payload: body}}, nil
	}
	body = bytes.TrimSuffix(body, []byte("\n"))
	if n := bytes.Count(body, []byte("\n")) + 1; n > maxPutRecords {
		return nil, record.Errorf(record.Invalid, "%d lines: at most %d at once", n, maxPutRecords).WithHint("send them in parts")
	}
	var records []record.Record
	for line := range bytes.SplitSeq(body, []byte("\n")) {
		records = append(records, record.Record{Key: []byte(key), Payload: line})
	}
	return records, nil
}

// remove deletes a stream. One that holds records goes only with force=1: they cannot be brought back.
func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	if s.node.Owner == nil {
		writeError(w, record.Errorf(record.Unavailable, "this node removes no streams"))
		return
	}
	v := r.URL.Query()
	name := record.StreamName(v.Get("name"))
	info, err := s.node.Streams.Lookup(name)
	if err != nil {
		writeError(w, err)
		return
	}
	if kept := info.Bounds.Next - info.Bounds.First; kept > 0 && v.Get("force") != "1" {
		writeError(w, record.Errorf(record.Conflict, "stream %s holds %d records", name, kept).
			WithHint("to lose them, say so: leat streams rm --yes, or force=1"))
		return
	}
	if err := s.node.Owner.Remove(r.Context(), name); err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "removed"})
}
