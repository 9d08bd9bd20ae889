package query_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/query"
	"github.com/leat-io/leat/internal/query/result"
	"github.com/leat-io/leat/internal/record"
)

const secret = "TOP-SECRET-9f3a"

// jail is a node with a secret on the disk, one in the environment, and a listener that nobody must reach.
func jail(t *testing.T) (n *node, victim, address string, reached func() bool) {
	n = newNode(t)
	id := n.table("samples", lake.Portable)
	n.put(id, noon, "a", "1")
	n.upload(n.export(id))
	victim = filepath.Join(t.TempDir(), "secret.csv")
	if err := os.WriteFile(victim, []byte("x\n"+secret+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	hit := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
			select {
			case hit <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return n, victim, l.Addr().String(), func() bool { return len(hit) > 0 }
}

// tree lists all files below a directory, with sizes.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && !d.IsDir() {
			fmt.Fprintln(&b, path, info.Size())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestEscapes(t *testing.T) {
	n, victim, address, reached := jail(t)
	outside := filepath.Dir(victim)
	link := filepath.Join(outside, "link.csv")
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	before := tree(t, filepath.Join(n.dir, "lake"))
	q := func(format string, args ...any) string { return fmt.Sprintf(format, args...) }
	for name, sql := range map[string]string{
		"copy to file":               q("COPY (SELECT 1) TO '%s/out.csv'", outside),
		"copy to file of the lake":   q("COPY (SELECT 1) TO '%s/lake/out.parquet'", n.dir),
		"copy from":                  q("COPY samples FROM '%s'", victim),
		"attach":                     q("ATTACH '%s/lake/x.db'", n.dir),
		"attach outside":             q("ATTACH '%s/x.db'", outside),
		"detach":                     "DETACH memory",
		"export database":            q("EXPORT DATABASE '%s/lake/dump'", n.dir),
		"import database":            q("IMPORT DATABASE '%s'", outside),
		"enable_profiling":           "PRAGMA enable_profiling",
		"pragma that reads":          "PRAGMA show_tables",
		"two statements":             q("COPY (SELECT 1) TO '%s/two.csv'; SELECT 1", outside),
		"two selects":                "SELECT 1; SELECT 2",
		"create table":               "CREATE TABLE t AS SELECT 1",
		"create macro":               "CREATE MACRO f() AS 1",
		"drop view":                  "DROP VIEW samples",
		"insert":                     "INSERT INTO samples VALUES (1)",
		"set":                        "SET memory_limit = '10GB'",
		"set in two":                 "SET enable_external_access = true; SELECT 1",
		"reset":                      "RESET lock_configuration",
		"install":                    "INSTALL httpfs",
		"load":                       "LOAD httpfs",
		"load a file":                q("LOAD '%s'", victim),
		"secret":                     "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
		"explain analyze":            "EXPLAIN ANALYZE SELECT 1",
		"call":                       "CALL enable_logging()",
		"prepare":                    "PREPARE p AS SELECT 1",
		"checkpoint":                 "CHECKPOINT",
		"begin":                      "BEGIN",
		"vacuum":                     "VACUUM",
		"read_text":                  q("SELECT * FROM read_text('%s')", victim),
		"read_blob":                  q("SELECT * FROM read_blob('%s')", victim),
		"read_csv":                   q("SELECT * FROM read_csv('%s')", victim),
		"read_json":                  q("SELECT * FROM read_json('%s')", victim),
		"read_parquet outside":       q("SELECT * FROM read_parquet('%s')", victim),
		"replacement scan":           q("SELECT * FROM '%s'", victim),
		"home":                       "SELECT * FROM '~/.bashrc.csv'",
		"sniff_csv":                  q("SELECT * FROM sniff_csv('%s')", victim),
		"glob outside":               q("SELECT * FROM glob('%s/*')", outside),
		"glob root":                  "SELECT * FROM glob('/*')",
		"dots":                       q("SELECT * FROM read_text('%s/query/../../../../../..%s')", n.dir, victim),
		"symlink":                    q("SELECT * FROM read_csv('%s')", link),
		"meta.db":                    q("SELECT * FROM read_blob('%s/meta.db')", n.dir),
		"the lake itself":            q("SELECT * FROM read_parquet('%s/lake/**/*.parquet')", n.dir),
		"proc environ":               "SELECT * FROM read_text('/proc/self/environ')",
		"proc of the parent":         q("SELECT * FROM read_text('/proc/%d/environ')", os.Getpid()),
		"passwd":                     "SELECT * FROM read_csv('/etc/passwd')",
		"http":                       q("SELECT * FROM read_csv('http://%s/x.csv')", address),
		"s3":                         "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
		"getenv":                     "SELECT getenv('AWS_SECRET_ACCESS_KEY')",
		"query function":             q("SELECT * FROM query('SELECT * FROM read_text(''%s'')')", victim),
		"query function that writes": q("SELECT * FROM query('COPY (SELECT 1) TO ''%s/q.csv''')", outside),
		"serialized statement": q(`SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM read_text(''%s'')'))`,
			victim),
		"duckdb file":   q("SELECT * FROM '%s/x.db'", outside),
		"unknown table": "SELECT * FROM nothing",
		"stdin":         "SELECT * FROM read_csv('/dev/stdin')",
		"descriptor":    "SELECT * FROM read_text('/proc/self/fd/3')",
		"write_blob":    q("SELECT write_blob('%s/w', 'x')", outside),
	} {
		t.Run(name, func(t *testing.T) {
			out, _, err := n.ask(sql)
			if err == nil {
				t.Errorf("it worked:\n%s", out)
			}
			if kind := record.KindOf(err); kind != record.Denied && kind != record.Invalid {
				t.Errorf("%s error: %v", kind, err)
			}
			if strings.Contains(out, secret) {
				t.Errorf("the secret came out: %v", out)
			}
		})
	}
	if after := tree(t, filepath.Join(n.dir, "lake")); after != before {
		t.Errorf("the lake changed:\n%s\nwas:\n%s", after, before)
	}
	if got := tree(t, outside); strings.Count(got, "\n") != 2 {
		t.Errorf("files were written outside:\n%s", got)
	}
	if reached() {
		t.Error("a socket was opened")
	}
	if got := n.csv("SELECT value FROM samples"); got != "value\n1\n" {
		t.Errorf("afterwards: %q", got)
	}
}

// The functions that print, in spite of the locked configuration, print where no frames are.
func TestFunctionsThatPrintDoNotDisturbTheAnswer(t *testing.T) {
	n := newNode(t)
	for _, sql := range []string{
		"SELECT count(*) AS n FROM enable_profiling()",
		"SELECT count(*) AS n FROM enable_logging(storage := 'stdout', level := 'trace')",
	} {
		if out, _, err := n.ask(sql); err == nil && out != "n\n0\n" {
			t.Errorf("%s: %q", sql, out)
		} else if err != nil && record.KindOf(err) == record.Internal {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestSnapshotIsReadOnlyEvenForTheEngine(t *testing.T) {
	// COPY TO is refused by the gate; this asks the walls behind it, with the one statement that writes a file on
	// behalf of a SELECT: spilling, and a profile.
	n := newNode(t)
	if out, _, err := n.ask("SELECT count(*) FROM enable_profiling(save_location := '/tmp/leat-escape.json')"); err == nil {
		_ = out
	}
	if _, err := os.Stat("/tmp/leat-escape.json"); err == nil {
		os.Remove("/tmp/leat-escape.json")
		t.Error("a profile was written outside")
	}
}

func TestHungryStatements(t *testing.T) {
	n := newNode(t, func(o *nodeOptions) {
		o.config = func(c *query.Config) {
			c.MemoryBytes, c.HeadroomBytes, c.SpillBytes, c.ResultBytes = 128<<20, 256<<20, 64<<20, 8<<20
			c.Timeout = 20 * time.Second
		}
	})
	for name, sql := range map[string]string{
		"group by with millions of groups": "SELECT range, count(*), list(range) FROM range(6000000) GROUP BY range ORDER BY 2",
		"a list of everything":             "SELECT list(range::VARCHAR || 'xxxxxxxxxxxxxxxxxxxxxxxxxxx') FROM range(20000000)",
		"one enormous text":                "SELECT repeat('x', 2000000000)",
		"enormous texts":                   "SELECT length(repeat('x', 400000000) || repeat('y', 400000000) || repeat('z', 400000000))",
		"sort with spilling":               "SELECT * FROM range(20000000) t(i) ORDER BY hash(i) OFFSET 19999999",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := n.ask(sql)
			if err != nil && record.KindOf(err) != record.Unavailable {
				t.Errorf("%s error: %v", record.KindOf(err), err)
			}
			if err == nil && name != "enormous texts" {
				t.Error("it worked")
			}
			t.Logf("%v", err)
		})
	}
	_, _, err := n.askAs(query.Request{SQL: "SELECT * FROM range(100000000)", Format: result.FormatCSV})
	if record.KindOf(err) != record.Unavailable || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("huge answer: %v", err)
	}
	if got := n.csv("SELECT 1 AS x"); got != "x\n1\n" {
		t.Errorf("afterwards: %q", got)
	}
	if left := n.leftovers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A large answer is streamed: the worker's memory does not grow with it.
func TestLargeAnswerWithLittleMemory(t *testing.T) {
	n := newNode(t, func(o *nodeOptions) {
		o.config = func(c *query.Config) { c.MemoryBytes, c.HeadroomBytes, c.SpillBytes = 64<<20, 128<<20, 0 }
	})
	var w counter
	sum, err := n.engine.Query(t.Context(), query.Request{
		SQL: "SELECT i, repeat('abcdefgh', 20) AS s FROM range(500000) t(i)", Format: result.FormatCSV,
	}, &w, nil)
	if err != nil || sum.Rows != 500000 || w.n != sum.Bytes || w.n < 80e6 {
		t.Errorf("%v: %+v, %d bytes", err, sum, w.n)
	}
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func TestWorkerThatCrashes(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "leat-sql")
	for name, body := range map[string]string{
		"at once":              "exit 7",
		"with garbage":         "printf 'garbage that is no frame' >&3",
		"with a huge frame":    `printf 'H\377\377\377\377' >&3; sleep 5`,
		"in mid frame":         `printf 'H\000\000\000\100{' >&3`,
		"by a signal":          "kill -SEGV $$",
		"another protocol":     `printf 'H\000\000\000\015{"version":9}' >&3; sleep 5`,
		"unconfined":           `printf 'H\000\000\000\015{"version":1}' >&3; sleep 5`,
		"with words on stderr": "echo it hurts >&2; exit 1",
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(script, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			n := newNode(t, func(o *nodeOptions) {
				o.noSQL = true
				o.config = func(c *query.Config) { c.Binary = script }
			})
			var out bytes.Buffer
			began := time.Now()
			_, err := n.engine.Query(t.Context(), query.Request{SQL: "SELECT 1"}, &out, nil)
			if err == nil || time.Since(began) > 4*time.Second {
				t.Errorf("error %v after %s", err, time.Since(began))
			}
			if name == "with words on stderr" && !strings.Contains(err.Error(), "it hurts") {
				t.Errorf("error %v", err)
			}
			if left := n.leftovers(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
