package sqlworker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"github.com/leat-io/leat/internal/query/result"
	"github.com/leat-io/leat/internal/query/wire"
)

// data collects what is written into Data frames.
type data struct {
	out *frames
	buf []byte
}

func (w *data) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), wire.MaxData-len(w.buf))
		w.buf = append(w.buf, p[:k]...)
		p = p[k:]
		if len(w.buf) == wire.MaxData {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (w *data) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	err := w.out.data(w.buf)
	w.buf = w.buf[:0]
	return err
}

// wrap returns the statement as it is executed: as it stands, or, when columns have types that are not decoded here,
// with these cast to text: JSON documents for nested types where the format is JSON, else as DuckDB prints them.
func (q *query) wrap(s *statement) (run *statement, kinds []result.Kind, err error) {
	nested := func(c column) bool {
		return strings.HasSuffix(c.typ, "]") || strings.HasPrefix(c.typ, "STRUCT(") || strings.HasPrefix(c.typ, "MAP(")
	}
	isJSON := result.Format(q.req.Format) == result.FormatJSON || result.Format(q.req.Format) == result.FormatNDJSON
	kinds = make([]result.Kind, len(s.columns))
	cols := make([]string, len(s.columns))
	same := true
	for i, c := range s.columns {
		cols[i] = fmt.Sprintf("#%d AS %s", i+1, identifier(c.name))
		switch {
		case isJSON && c.json:
			kinds[i] = result.JSON
		case direct(c.id):
		case isJSON && nested(c):
			kinds[i], same = result.JSON, false
			cols[i] = fmt.Sprintf("to_json(#%d)::VARCHAR AS %s", i+1, identifier(c.name))
		default:
			same = false
			cols[i] = fmt.Sprintf("CAST(#%d AS VARCHAR) AS %s", i+1, identifier(c.name))
		}
	}
	if same {
		return s, kinds, nil
	}
	run, err = q.duck.prepare("SELECT " + strings.Join(cols, ", ") + " FROM query(" + literal(q.req.SQL) + ")")
	return run, kinds, err
}

// rows streams the answer through a writer of the format asked for.
func (q *query) rows(s *statement) (wire.Done, error) {
	var done wire.Done
	run, kinds, err := q.wrap(s)
	if err != nil {
		return done, err
	}
	if run != s {
		defer run.close()
	}
	out := &data{out: q.out}
	w, err := result.New(result.Format(q.req.Format), out, q.req.Width)
	if err != nil {
		return done, failf(wire.KindInvalid, "%v", err)
	}
	var columns []result.Column
	for _, c := range s.columns {
		columns = append(columns, result.Column{Name: c.name, Type: c.typ})
	}
	if err := w.Start(columns); err != nil {
		return done, err
	}
	var res duckdb.Result
	defer duckdb.DestroyResult(&res)
	if duckdb.ExecutePreparedStreaming(run.prepared, &res) == duckdb.StateError {
		return done, engineError(duckdb.ResultError(&res))
	}
	for !done.Truncated {
		more, err := q.chunk(&res, w, kinds, &done)
		if err != nil {
			return done, err
		}
		if !more {
			break
		}
	}
	return done, errors.Join(w.End(done.Truncated), out.flush())
}

// chunk writes the next rows, about two thousand; more is false at the end.
func (q *query) chunk(res *duckdb.Result, w result.Writer, kinds []result.Kind, done *wire.Done) (more bool, err error) {
	c := duckdb.FetchChunk(*res)
	if c.Ptr == nil {
		if text := duckdb.ResultError(res); text != "" {
			return false, engineError(text)
		}
		return false, nil
	}
	defer duckdb.DestroyDataChunk(&c)
	vectors := make([]vector, duckdb.DataChunkGetColumnCount(c))
	for i := range vectors {
		vectors[i] = newVector(duckdb.DataChunkGetVector(c, duckdb.IdxT(i)))
	}
	row := make([]result.Value, len(vectors))
	for r := range int(duckdb.DataChunkGetSize(c)) {
		if q.req.MaxRows > 0 && done.Rows == q.req.MaxRows {
			done.Truncated = true
			return false, nil
		}
		for i, v := range vectors {
			row[i] = v.value(r)
			if kinds[i] == result.JSON && row[i].Kind != result.Null {
				row[i].Kind = result.JSON
			}
		}
		if err := w.Row(row); err != nil {
			return false, err
		}
		done.Rows++
	}
	return true, nil
}

// parquet lets DuckDB write the answer to the scratch directory and sends that file.
func (q *query) parquet(s *statement) (wire.Done, error) {
	var done wire.Done
	path := filepath.Join(q.limits.scratch, "result.parquet")
	from := "query(" + literal(s.sql) + ")"
	if q.req.MaxRows > 0 {
		from += fmt.Sprintf(" LIMIT %d", q.req.MaxRows)
	}
	var err error
	done.Rows, err = q.duck.copied(fmt.Sprintf("COPY (FROM %s) TO %s (FORMAT parquet, COMPRESSION zstd)", from, literal(path)))
	if err != nil {
		return done, err
	}
	// Whether LIMIT cut anything off is not known without running the statement again; a full answer says so.
	done.Truncated = q.req.MaxRows > 0 && done.Rows == q.req.MaxRows
	f, err := os.Open(path)
	if err != nil {
		return done, err
	}
	defer f.Close()
	out := &data{out: q.out}
	if _, err := io.Copy(out, f); err != nil {
		return done, err
	}
	return done, out.flush()
}
