package sqlworker

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"github.com/leat-io/leat/internal/query/wire"
)

// duck is one in-memory DuckDB with one connection. Except progress it is used by one goroutine.
type duck struct {
	db   duckdb.Database
	conn duckdb.Connection
}

// failure is an error that the parent is told as it is.
type failure struct{ wire.Failure }

func (f *failure) Error() string { return f.Message }

func failf(kind, format string, args ...any) *failure {
	return &failure{wire.Failure{Kind: kind, Message: fmt.Sprintf(format, args...), Position: -1}}
}

// openDuck opens an empty database. Memory and threads are set before: otherwise DuckDB looks for the machine's in
// /proc, where a confined process may not, and ends.
func openDuck(memory int64, threads int) (*duck, error) {
	var cfg duckdb.Config
	if duckdb.CreateConfig(&cfg) == duckdb.StateError {
		return nil, errors.New("create DuckDB configuration")
	}
	defer duckdb.DestroyConfig(&cfg)
	for name, value := range map[string]string{
		"memory_limit": fmt.Sprintf("%dB", memory),
		"threads":      strconv.Itoa(max(threads, 1)),
	} {
		if duckdb.SetConfig(cfg, name, value) == duckdb.StateError {
			return nil, fmt.Errorf("set %s to %s", name, value)
		}
	}
	d := &duck{}
	var msg string
	if duckdb.OpenExt(":memory:", &d.db, cfg, &msg) == duckdb.StateError {
		return nil, fmt.Errorf("open DuckDB: %s", msg)
	}
	if duckdb.Connect(d.db, &d.conn) == duckdb.StateError {
		duckdb.Close(&d.db)
		return nil, errors.New("connect to DuckDB")
	}
	return d, nil
}

func (d *duck) close() {
	duckdb.Disconnect(&d.conn)
	duckdb.Close(&d.db)
}

// configure sets what a statement may use, and locks it. The order matters: directories before external access is
// switched off, the lock last.
func (d *duck) configure(req *wire.Request, l limits) error {
	spill, spillSize := "", "0GB"
	if req.Spill > 0 {
		spill, spillSize = filepath.Join(l.scratch, "spill"), fmt.Sprintf("%dB", req.Spill)
	}
	settings := []string{
		"SET errors_as_json = true",
		fmt.Sprintf("SET allowed_directories = [%s, %s]", literal(l.snapshot), literal(l.scratch)),
		"SET temp_directory = " + literal(spill),
		"SET max_temp_directory_size = " + literal(spillSize),
		"SET enable_external_access = false",
		"SET autoinstall_known_extensions = false",
		"SET autoload_known_extensions = false",
		"SET allow_community_extensions = false",
		"SET allow_persistent_secrets = false",
		"SET TimeZone = 'UTC'",
		"SET Calendar = 'gregorian'",
		"SET parquet_metadata_cache = true",
		"SET enable_progress_bar = true",
		"SET enable_progress_bar_print = false",
		"SET lock_configuration = true",
	}
	for _, s := range settings {
		if err := d.exec(s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// exec runs one statement of the worker's own and drops its result.
func (d *duck) exec(sql string) error {
	var res duckdb.Result
	defer duckdb.DestroyResult(&res)
	if duckdb.Query(d.conn, sql, &res) == duckdb.StateError {
		return engineError(duckdb.ResultError(&res))
	}
	return nil
}

// copied runs a COPY of the worker's own and returns how many rows it wrote.
func (d *duck) copied(sql string) (int64, error) {
	var res duckdb.Result
	defer duckdb.DestroyResult(&res)
	if duckdb.Query(d.conn, sql, &res) == duckdb.StateError {
		return 0, engineError(duckdb.ResultError(&res))
	}
	chunk := duckdb.FetchChunk(res)
	if chunk.Ptr == nil {
		return 0, fmt.Errorf("%s gave no count", sql)
	}
	defer duckdb.DestroyDataChunk(&chunk)
	return newVector(duckdb.DataChunkGetVector(chunk, 0)).value(0).I, nil
}

// texts runs one statement of the worker's own, whose columns are all VARCHAR, with VARCHAR parameters, and returns its
// first row; NULL is nil.
func (d *duck) texts(sql string, args ...string) ([]*string, error) {
	var stmt duckdb.PreparedStatement
	defer duckdb.DestroyPrepare(&stmt)
	if duckdb.Prepare(d.conn, sql, &stmt) == duckdb.StateError {
		return nil, engineError(duckdb.PrepareError(stmt))
	}
	for i, a := range args {
		if duckdb.BindVarchar(stmt, duckdb.IdxT(i+1), a) == duckdb.StateError {
			return nil, fmt.Errorf("bind parameter %d of %s", i+1, sql)
		}
	}
	var res duckdb.Result
	defer duckdb.DestroyResult(&res)
	if duckdb.ExecutePrepared(stmt, &res) == duckdb.StateError {
		return nil, engineError(duckdb.ResultError(&res))
	}
	chunk := duckdb.FetchChunk(res)
	if chunk.Ptr == nil {
		return nil, fmt.Errorf("%s gave no row", sql)
	}
	defer duckdb.DestroyDataChunk(&chunk)
	row := make([]*string, duckdb.DataChunkGetColumnCount(chunk))
	for i := range row {
		v := newVector(duckdb.DataChunkGetVector(chunk, duckdb.IdxT(i)))
		if v.valid(0) {
			row[i] = new(string(v.bytes(0)))
		}
	}
	return row, nil
}

// progress is the share of the work done, in percent; negative when not known. Safe for concurrent use.
func (d *duck) progress() float64 {
	p := duckdb.QueryProgress(d.conn)
	percent, _, _ := duckdb.QueryProgressTypeMembers(&p)
	return percent
}

// statement is a user's SELECT that has passed the gate.
type statement struct {
	sql      string
	prepared duckdb.PreparedStatement
	columns  []column
}

type column struct {
	name  string
	typ   string // as SQL writes it
	id    duckdb.Type
	width int // digits after the point of a DECIMAL
	json  bool
}

func (s *statement) close() { duckdb.DestroyPrepare(&s.prepared) }

// prepare binds one statement that was extracted from sql, which must hold exactly one. Nothing of it is executed:
// not by extracting, not by preparing. (DuckDB's own drivers execute all statements but the last when they prepare.)
func (d *duck) prepare(sql string) (*statement, error) {
	var extracted duckdb.ExtractedStatements
	n := duckdb.ExtractStatements(d.conn, sql, &extracted)
	defer duckdb.DestroyExtracted(&extracted)
	switch {
	case n == 0 && duckdb.ExtractStatementsError(extracted) != "":
		return nil, engineError(duckdb.ExtractStatementsError(extracted))
	case n == 0:
		return nil, failf(wire.KindInvalid, "the statement is empty")
	case n != 1:
		return nil, oneSelect("this is %d statements", n)
	}
	s := &statement{sql: sql}
	if duckdb.PrepareExtractedStatement(d.conn, extracted, 0, &s.prepared) == duckdb.StateError {
		defer s.close()
		return nil, engineError(duckdb.PrepareError(s.prepared))
	}
	if t := duckdb.PreparedStatementType(s.prepared); t != duckdb.StatementTypeSelect {
		s.close()
		return nil, oneSelect("this is a statement of another kind")
	}
	if duckdb.NParams(s.prepared) != 0 {
		s.close()
		return nil, failf(wire.KindInvalid, "the statement has parameters; write the values into it")
	}
	for i := range duckdb.PreparedStatementColumnCount(s.prepared) {
		s.columns = append(s.columns, describe(s.prepared, i))
	}
	return s, nil
}

func oneSelect(format string, args ...any) *failure {
	f := failf(wire.KindDenied, "a query is exactly one SELECT statement; "+format, args...)
	f.Hint = "send statements one by one; leat's tables cannot be changed by SQL"
	return f
}

// parse returns the statement's syntax tree as JSON, without binding or executing anything. It fails for whatever is
// not a SELECT.
func (d *duck) parse(sql string) (json.RawMessage, error) {
	row, err := d.texts("SELECT json_serialize_sql(?::VARCHAR)::VARCHAR", sql)
	if err != nil {
		return nil, err
	}
	if row[0] == nil {
		return nil, failf(wire.KindInvalid, "the statement is empty")
	}
	var tree struct {
		Error      bool              `json:"error"`
		Type       string            `json:"error_type"`
		Message    string            `json:"error_message"`
		Position   string            `json:"position"`
		Statements []json.RawMessage `json:"statements"`
	}
	if err := json.Unmarshal([]byte(*row[0]), &tree); err != nil {
		return nil, fmt.Errorf("decode syntax tree: %w", err)
	}
	switch {
	case tree.Error && tree.Type == "not implemented":
		return nil, oneSelect("this is a statement of another kind")
	case tree.Error:
		f := failf(wire.KindInvalid, "%s", tree.Message)
		if _, err := fmt.Sscan(tree.Position, &f.Position); err != nil {
			f.Position = -1
		}
		return nil, f
	case len(tree.Statements) == 0:
		return nil, failf(wire.KindInvalid, "the statement is empty")
	case len(tree.Statements) != 1:
		return nil, oneSelect("this is %d statements", len(tree.Statements))
	}
	return tree.Statements[0], nil
}

// engineError turns DuckDB's error, which is JSON (errors_as_json), into a failure with kind and position.
func engineError(text string) error {
	prefix, object, ok := strings.Cut(text, "{")
	var e struct {
		Type     string `json:"exception_type"`
		Message  string `json:"exception_message"`
		Position string `json:"position"`
	}
	if !ok || json.Unmarshal([]byte("{"+object), &e) != nil {
		kind := wire.KindInvalid
		if strings.Contains(text, "bad_alloc") {
			kind = wire.KindMemory
		}
		return failf(kind, "%s", text)
	}
	_ = prefix // "Parser Error: ", which the exception type repeats
	// What DuckDB advises about settings is of no use here: they are leat's and locked.
	message, _, _ := strings.Cut(e.Message, "\n\nPossible solutions:")
	message, _, _ = strings.Cut(message, "\nThis limit was set by")
	f := failf(kindOf(e.Type), "%s: %s", strings.ToLower(e.Type), message)
	if _, err := fmt.Sscan(e.Position, &f.Position); err != nil {
		f.Position = -1
	}
	return f
}

func kindOf(exception string) string {
	switch exception {
	case "Permission":
		return wire.KindDenied
	case "Out of Memory":
		return wire.KindMemory
	case "INTERNAL", "FATAL":
		return wire.KindInternal
	}
	return wire.KindInvalid
}

// literal is s as an SQL string.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// identifier is s as an SQL name.
func identifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
