// Package sqlworker is the inside of the program leat-sql: one query by DuckDB, in a process that may do nothing else.
//
// Main confines the process, executes the program again, and serves one request of the protocol in query/wire. It is
// the only package that links DuckDB (and with it cgo); only cmd/leat-sql imports it.
//
// What holds, in the order in which it is established:
//
//   - The kernel grants the process a directory to read, a scratch directory to write, a share of memory, processor time
//     and file size; no sockets, no other programs, no capabilities, an empty environment (Landlock, seccomp, rlimits,
//     no_new_privs). Where the kernel has no Landlock the worker refuses to run unless told otherwise.
//   - DuckDB has its own walls inside these: no access outside the two directories, no extensions, a memory limit below
//     the kernel's, a locked configuration.
//   - The statement must be exactly one SELECT, found by parsing, before anything of it is bound; binding executes nothing.
//   - The answer is streamed: rows are formatted as DuckDB produces them.
//
// The process ends with the request, or when its standard input does, so that a worker never survives its parent. It
// does not enforce a deadline: the parent does, with SIGKILL.
//
// Goroutines: one runs the query, one waits for the end of standard input, one reports progress. Frames are written
// under a lock.
package sqlworker

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"github.com/leat-io/leat/internal/query/result"
	"github.com/leat-io/leat/internal/query/wire"
)

// Exit codes of leat-sql.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitSandbox = 3
)

// framesFD is the descriptor that frames are written to: standard output is DuckDB's, which prints there when a
// statement calls enable_profiling() or enable_logging().
const framesFD = 3

// progressEvery is how often the worker says how far it is.
const progressEvery = 250 * time.Millisecond

// EngineVersion is DuckDB's own version.
func EngineVersion() string { return duckdb.LibraryVersion() }

// Main runs leat-sql with the arguments after the program's name and returns its exit code.
func Main(args []string) int {
	var l limits
	fs := flag.NewFlagSet("leat-sql", flag.ContinueOnError)
	version := fs.Bool("version", false, "print versions and exit")
	l.flags(fs)
	if err := fs.Parse(args); err != nil {
		return exitUsage
	}
	if *version {
		fmt.Printf("leat-sql protocol %d, DuckDB %s, Landlock ABI %d\n", wire.Version, EngineVersion(), LandlockABI())
		return exitOK
	}
	if err := l.validate(); err != nil {
		fmt.Fprintln(os.Stderr, "leat-sql:", err)
		return exitUsage
	}
	frames := &frames{w: os.NewFile(framesFD, "frames")}
	if err := start(l); err != nil {
		_ = frames.json(wire.TypeFailure, sandboxFailure(err))
		return exitSandbox
	}
	if err := serve(l, os.Stdin, frames); err != nil {
		_ = frames.json(wire.TypeFailure, failureOf(err))
		return exitFailed
	}
	return exitOK
}

// start confines the process. In the first execution it returns only when it failed, or may run unconfined.
func start(l limits) error {
	if !second() {
		if err := confine(l); !l.unconfined {
			return err
		}
		return nil
	}
	if err := seal(); err != nil && !l.unconfined {
		return &sandboxError{err}
	}
	if err := confined(l); err != nil && !l.unconfined {
		return &sandboxError{err}
	}
	return nil
}

func sandboxFailure(err error) wire.Failure {
	return wire.Failure{
		Kind: wire.KindSandbox, Message: err.Error(), Position: -1,
		Hint: "queries run confined by Landlock (Linux 5.13 or later); sql.unconfined: true runs them without, " +
			"for people you trust with every file that leat can read",
	}
}

func failureOf(err error) wire.Failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.Failure
	}
	return wire.Failure{Kind: wire.KindInternal, Message: err.Error(), Position: -1}
}

// frames writes frames; safe for concurrent use.
type frames struct {
	mu sync.Mutex // serialises writes
	w  io.Writer
}

func (f *frames) json(t wire.Type, v any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return wire.WriteJSON(f.w, t, v)
}

func (f *frames) data(b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return wire.Write(f.w, wire.TypeData, b)
}

// serve answers one request.
func serve(l limits, in io.Reader, out *frames) error {
	hello := wire.Hello{
		Version: wire.Version, Engine: "DuckDB " + EngineVersion(), Landlock: LandlockABI(), Confined: confined(l) == nil,
	}
	if err := out.json(wire.TypeHello, hello); err != nil {
		return err
	}
	var req wire.Request
	if err := wire.ReadJSON(in, wire.TypeRequest, &req); err != nil {
		return err
	}
	d, err := openDuck(req.Memory, req.Threads)
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.configure(&req, l); err != nil {
		return err
	}
	q := &query{duck: d, req: &req, limits: l, out: out}
	if err := q.plan(); err != nil {
		return err
	}
	var begin wire.Go
	if err := wire.ReadJSON(in, wire.TypeGo, &begin); err != nil {
		return err
	}
	// From here on nothing is expected: the end of input means that the parent has gone.
	go func() {
		_, _ = io.Copy(io.Discard, in)
		os.Exit(exitFailed)
	}()
	return q.run(begin)
}

// query is one request in the worker.
type query struct {
	duck   *duck
	req    *wire.Request
	limits limits
	out    *frames
}

// plan proves that the statement is one SELECT that binds against the tables' columns, and tells the parent what it
// reads. The tables are empty so far.
func (q *query) plan() error {
	tree, err := q.duck.parse(q.req.SQL)
	if err != nil {
		return err
	}
	if err := q.duck.exec("BEGIN"); err != nil {
		return err
	}
	for _, t := range q.req.Tables {
		if err := q.duck.exec(emptyView(t, q.req.Hive)); err != nil {
			return err
		}
	}
	s, err := q.duck.prepare(q.req.SQL)
	if err != nil {
		return err
	}
	s.close()
	p := newPlanner(q.req)
	if err := p.read(tree); err != nil {
		return err
	}
	known, err := q.duck.evaluate(p.values)
	if err != nil {
		return err
	}
	if q.duck.exec("SELECT 1") != nil {
		// A constant has spoiled the transaction: its now() is not the statement's, so nothing is known.
		known = make([]*constantValue, len(known))
		if err := q.restart(); err != nil {
			return err
		}
	}
	return q.out.json(wire.TypePlan, p.plan(known))
}

func (q *query) restart() error {
	for _, s := range []string{"ROLLBACK", "BEGIN"} {
		if err := q.duck.exec(s); err != nil {
			return err
		}
	}
	for _, t := range q.req.Tables {
		if err := q.duck.exec(emptyView(t, q.req.Hive)); err != nil {
			return err
		}
	}
	return nil
}

// run answers with the rows.
func (q *query) run(begin wire.Go) error {
	filled := map[string]bool{}
	for _, name := range begin.Filled {
		filled[name] = true
	}
	for _, t := range q.req.Tables {
		if !filled[t.Name] {
			continue
		}
		if err := q.fullView(t); err != nil {
			return err
		}
	}
	s, err := q.duck.prepare(q.req.SQL)
	if err != nil {
		return err
	}
	defer func() { s.close() }()
	schema := wire.Schema{Columns: []wire.Column{}}
	for _, c := range s.columns {
		schema.Columns = append(schema.Columns, wire.Column{Name: c.name, Type: c.typ})
	}
	if err := q.out.json(wire.TypeSchema, schema); err != nil {
		return err
	}
	stop := q.report()
	defer stop()
	var done wire.Done
	if result.Format(q.req.Format) == result.FormatParquet {
		done, err = q.parquet(s)
	} else {
		done, err = q.rows(s)
	}
	if err != nil {
		return err
	}
	stop()
	return q.out.json(wire.TypeDone, done)
}

// report sends progress until the returned function is called, which waits for the last one. It may be called twice.
func (q *query) report() (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				_ = q.out.json(wire.TypeProgress, wire.Progress{Percent: q.duck.progress()})
			}
		}
	})
	return sync.OnceFunc(func() {
		close(quit)
		wg.Wait()
	})
}

// emptyView declares a table without rows, but with its columns and their types.
func emptyView(t wire.Table, hive []wire.Hive) string {
	var cols []string
	for _, c := range t.Columns {
		cols = append(cols, fmt.Sprintf("NULL::%s AS %s", c.Type, identifier(c.Name)))
	}
	for _, h := range hive {
		cols = append(cols, fmt.Sprintf("NULL::%s AS %s", h.Type, identifier(h.Name)))
	}
	return fmt.Sprintf("CREATE OR REPLACE VIEW %s AS SELECT %s WHERE false", identifier(t.Name), strings.Join(cols, ", "))
}
