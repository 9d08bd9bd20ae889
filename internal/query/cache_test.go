package query_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/query"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/testenv"
)

// remote is a node whose lake is behind a counting store, with one object for each of the first ten days of May, and
// hours 0 to 23 of each as rows.
func remote(t *testing.T, config func(*query.Config)) (*node, *counting) {
	store := &counting{}
	n := newNode(t, func(o *nodeOptions) {
		o.config = config
		o.store = func(n *node) blob.Store { store.Store = n.store; return store }
	})
	id := n.table("samples", lake.Portable)
	for day := range 10 {
		for hour := range 24 {
			n.put(id, noon.AddDate(0, 0, day).Add(time.Duration(hour-12)*time.Hour), "t", number(float64(day+1)))
		}
		n.upload(n.export(id))
	}
	return n, store
}

func TestOnlyNeededPartitionsAreFetched(t *testing.T) {
	n, store := remote(t, nil)
	all := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for where, want := range map[string][]int{
		"FROM samples WHERE year = 2026 AND month = 5 AND day = 3":                                            {3},
		"FROM samples WHERE day IN (2, '04')":                                                                 {2, 4},
		"FROM samples WHERE year = 2025":                                                                      {},
		"FROM samples WHERE ts >= TIMESTAMP '2026-05-09'":                                                     {9, 10},
		"FROM samples WHERE ts >= '2026-05-09 23:30:00'":                                                      {10},
		"FROM samples WHERE ts > TIMESTAMPTZ '2026-05-10 00:00:00+00' - INTERVAL 2 DAY AND day < 9":           {8},
		"FROM samples WHERE ts BETWEEN '2026-05-02' AND '2026-05-03 01:00:00'":                                {2, 3},
		"FROM samples WHERE CAST(ts AS DATE) = DATE '2026-05-06'":                                             {6},
		"FROM samples WHERE ts::DATE IN (DATE '2026-05-06', DATE '2026-05-07')":                               {6, 7},
		"FROM samples WHERE ts > now()":                                                                       {},
		"FROM samples WHERE 3 >= day":                                                                         {1, 2, 3},
		"FROM samples WHERE day = 1 OR (day = 2 AND value > 0)":                                               {1, 2},
		"FROM samples WHERE day = 1 OR value = 5":                                                             all,
		"FROM samples WHERE NOT (day = 1)":                                                                    all,
		"FROM samples WHERE day + 0 = 1":                                                                      all,
		"FROM samples WHERE day = (SELECT 1)":                                                                 all,
		"FROM samples s WHERE s.day = 5":                                                                      {5},
		"FROM samples a JOIN samples b USING (ts) WHERE a.day = 1 AND b.day = 1":                              {1},
		"FROM samples a JOIN samples b USING (ts) WHERE a.day = 1":                                            all,
		"FROM samples a LEFT JOIN samples b ON a.ts = b.ts AND b.day = 2 WHERE a.day = 2 AND b.day < 3":       {1, 2},
		"FROM samples a ASOF JOIN samples b ON a.ts >= b.ts WHERE a.day = 1 AND b.day = 1":                    all,
		"FROM (SELECT * FROM samples WHERE day = 4)":                                                          {4},
		"FROM (SELECT * FROM samples) WHERE day = 4":                                                          all,
		"FROM samples WHERE day = 4 AND value > (SELECT avg(value) FROM samples WHERE day = 6)":               {4, 6},
		"FROM samples WHERE day = 4 AND EXISTS (FROM samples)":                                                all,
		"FROM (FROM samples WHERE day = 1 UNION ALL FROM samples WHERE day = 2)":                              {1, 2},
		"FROM samples TABLESAMPLE 100% WHERE day = 1":                                                         all,
		"FROM samples AS s(a, b, c, d, e, day) WHERE day = 2026":                                              all,
		"FROM SAMPLES WHERE DAY = 7":                                                                          {7},
		"FROM main.samples WHERE day = 7":                                                                     {7},
		"FROM query('SELECT * FROM samples') WHERE day = 1":                                                   all,
		"FROM (SELECT 1 AS x) WHERE x = 1":                                                                    {},
		"FROM samples s, (SELECT 1 AS day) d WHERE d.day = 1":                                                 all,
		"FROM samples WHERE date_trunc('day', ts) = '2026-05-01'":                                             all,
		"FROM samples WHERE day = 2.5":                                                                        {},
		"FROM samples WHERE day < 1.5":                                                                        {1},
		"FROM samples WHERE day = NULL":                                                                       all,
		"FROM samples WHERE day BETWEEN 9 AND 9 + 1":                                                          {9, 10},
		"FROM (WITH samples AS (SELECT 1 AS day) SELECT * FROM samples WHERE day = 1)":                        {1},
		"FROM samples WHERE ts >= date_trunc('month', TIMESTAMP '2026-05-20') AND ts < make_date(2026, 5, 2)": {1, 2},
	} {
		t.Run(where, func(t *testing.T) {
			// An engine of its own, with an empty cache.
			if err := n.data.RemoveAll("cache"); err != nil {
				t.Fatal(err)
			}
			cfg := query.DefaultConfig()
			cfg.Binary = worker(t)
			e := must(query.Open(query.Options{
				Config: cfg, Data: n.data, Spool: "spool", Store: store, Catalog: n.cat, Pattern: n.cfg.Pattern,
			}))(t)
			defer e.Close()
			store.forget()
			sum, err := e.Query(t.Context(), query.Request{SQL: "SELECT count(*) AS n " + where}, &bytes.Buffer{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var days []int
			for _, key := range store.fetched() {
				i := strings.Index(key, "day=")
				days = append(days, int(key[i+4]-'0')*10+int(key[i+5]-'0'))
			}
			slices.Sort(days)
			if !slices.Equal(days, want) || sum.Fetched != len(want) {
				t.Errorf("fetched %v, want %v; the summary says %d", days, want, sum.Fetched)
			}
		})
	}
}

func TestPruningDoesNotChangeAnswers(t *testing.T) {
	n, _ := remote(t, nil)
	for _, where := range []string{
		"day = 3", "day IN (2, '04')", "ts >= TIMESTAMP '2026-05-09'", "ts BETWEEN '2026-05-02' AND '2026-05-03 01:00:00'",
		"CAST(ts AS DATE) = DATE '2026-05-06'", "3 >= day", "day = 1 OR (day = 2 AND value > 0)", "day < 1.5", "month = '05' AND day = '10'",
		"ts < '2026-05-02' AND ts > '2026-05-01 12:00'", "ts = TIMESTAMP '2026-05-05 05:00:00'",
	} {
		// OFFSET 0 keeps neither DuckDB nor the planner from evaluating the condition, but a subquery the latter.
		pruned := n.csv("SELECT ts, value FROM samples WHERE " + where + " ORDER BY ts")
		whole := n.csv("SELECT ts, value FROM (SELECT * FROM samples) WHERE " + where + " ORDER BY ts")
		if pruned != whole || strings.Count(whole, "\n") < 2 {
			t.Errorf("%s:\n%s\nwant:\n%s", where, pruned, whole)
		}
	}
}

func TestCacheKeepsObjectsAndSurvivesARestart(t *testing.T) {
	n, store := remote(t, nil)
	for range 3 {
		n.csv("SELECT count(*) FROM samples WHERE day <= 4")
	}
	if got := len(store.fetched()); got != 4 {
		t.Errorf("%d fetched", got)
	}
	if s := n.engine.Stats(); s.CacheHits != 8 || s.Fetched != 4 || s.CacheB == 0 {
		t.Errorf("stats %+v", s)
	}
	cfg := query.DefaultConfig()
	cfg.Binary = worker(t)
	again := must(query.Open(query.Options{
		Config: cfg, Data: n.data, Spool: "spool", Store: store, Catalog: n.cat, Pattern: n.cfg.Pattern,
	}))(t)
	defer again.Close()
	var out bytes.Buffer
	if _, err := again.Query(t.Context(), query.Request{SQL: "SELECT sum(value) AS s FROM samples WHERE day <= 5", Format: "csv"}, &out, nil); err != nil {
		t.Fatal(err)
	}
	if out.String() != "s\r\n360\r\n" || len(store.fetched()) != 5 {
		t.Errorf("%q with %d fetched", out.String(), len(store.fetched()))
	}
}

func TestCacheIsBounded(t *testing.T) {
	var size int64
	n, store := remote(t, func(c *query.Config) { c.CacheBytes = 1 << 20; c.Fetches = 1 })
	view := must(n.cat.View())(t)
	for _, f := range view.Tables[0].Files {
		size = max(size, f.Size)
	}
	// A cache for three objects, on the same directory.
	cfg := query.DefaultConfig()
	cfg.Binary, cfg.CacheBytes, cfg.Fetches = worker(t), 3*size, 1
	small := must(query.Open(query.Options{
		Config: cfg, Data: n.data, Spool: "spool", Store: store, Catalog: n.cat, Pattern: n.cfg.Pattern,
	}))(t)
	defer small.Close()
	ask := func(sql string) error {
		_, err := small.Query(t.Context(), query.Request{SQL: sql, Format: "csv"}, &bytes.Buffer{}, nil)
		return err
	}
	for _, day := range []string{"1", "2", "3", "1", "4", "1"} { // 4 pushes 2 out, not 1
		if err := ask("SELECT * FROM samples WHERE day = " + day); err != nil {
			t.Fatal(err)
		}
		if held := small.Stats().CacheB; held > cfg.CacheBytes {
			t.Errorf("%d bytes held, limit %d", held, cfg.CacheBytes)
		}
	}
	if got := len(store.fetched()); got != 4 {
		t.Errorf("%d fetched, want 4: the least recently used goes first", got)
	}
	err := ask("SELECT * FROM samples")
	if record.KindOf(err) != record.Unavailable || !strings.Contains(record.HintOf(err), "sql.cache_bytes") {
		t.Errorf("more than the cache holds: %v", err)
	}
}

func TestQueriesShareATransfer(t *testing.T) {
	n, store := remote(t, func(c *query.Config) { c.Workers = 4 })
	store.delay = make(chan struct{})
	var wg sync.WaitGroup
	errs := make([]error, 4)
	ctx, cancel := context.WithCancel(t.Context())
	for i := range errs {
		wg.Go(func() {
			c := t.Context()
			if i == 0 {
				c = ctx
			}
			_, errs[i] = n.engine.Query(c, query.Request{SQL: "SELECT sum(value) FROM samples WHERE day = 2"}, &bytes.Buffer{}, nil)
		})
	}
	testenv.Wait(t, 20*time.Second, func() bool { return len(store.fetched()) > 0 }, "the transfer to begin")
	cancel() // perhaps the one that transfers: another must take over
	close(store.delay)
	wg.Wait()
	for i, err := range errs {
		if err != nil && !(i == 0 && errors.Is(err, context.Canceled)) {
			t.Errorf("query %d: %v", i, err)
		}
	}
	if got := len(store.fetched()); got > 2 {
		t.Errorf("%d transfers", got)
	}
}

func TestDamagedTransferIsNotKept(t *testing.T) {
	n, store := remote(t, nil)
	store.damage = true
	_, _, err := n.ask("SELECT * FROM samples WHERE day = 2")
	if record.KindOf(err) != record.Corrupt {
		t.Errorf("error %v", err)
	}
	store.damage = false
	if got := n.csv("SELECT count(*) AS n FROM samples WHERE day = 2"); got != "n\n24\n" {
		t.Errorf("got %q", got)
	}
	var parts []string
	filepath.WalkDir(filepath.Join(n.dir, "cache"), func(path string, _ os.DirEntry, _ error) error {
		if strings.HasSuffix(path, ".part") {
			parts = append(parts, path)
		}
		return nil
	})
	if len(parts) > 0 {
		t.Errorf("left behind: %v", parts)
	}
}

func TestMissingObject(t *testing.T) {
	n, _ := remote(t, nil)
	view := must(n.cat.View())(t)
	if err := n.store.Delete(context.Background(), view.Tables[0].Files[0].Key); err != nil {
		t.Fatal(err)
	}
	_, _, err := n.ask("SELECT * FROM samples WHERE day = 1")
	if record.KindOf(err) != record.NotFound || !strings.Contains(err.Error(), "day=01") {
		t.Errorf("error %v", err)
	}
}

// People and lifecycle rules delete old files of a lake: the rest can be asked all the same, and the answer says so.
func TestFilesDeletedFromTheStoreAreLeftOutAndReported(t *testing.T) {
	for name, opts := range map[string][]func(*nodeOptions){
		"a directory": nil,
		"a remote store": {func(o *nodeOptions) {
			o.store = func(n *node) blob.Store { return n.store }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, opts...)
			id, other := n.table("samples", lake.Portable), n.table("others", lake.Portable)
			for day := range 3 {
				n.put(id, noon.AddDate(0, 0, day), "t", number(float64(day+1)))
				n.upload(n.export(id))
			}
			n.put(other, noon, "t", "7")
			n.upload(n.export(other))
			for _, table := range must(n.cat.View())(t).Tables {
				if err := n.store.Delete(t.Context(), table.Files[0].Key); err != nil {
					t.Fatal(err)
				}
			}
			out, sum, err := n.ask("SELECT count(*) AS n, sum(value) AS s FROM samples")
			if err != nil || out != "n,s\n2,5\n" || sum.Files != 2 || len(sum.Warnings) != 1 ||
				!strings.Contains(sum.Warnings[0], "day=01") {
				t.Errorf("%q, %d files, %v, warnings %q", out, sum.Files, err, sum.Warnings)
			}
			out, sum, err = n.ask("SELECT (SELECT count(*) FROM samples) AS a, (SELECT count(*) FROM others) AS b")
			if err != nil || out != "a,b\n2,0\n" || len(sum.Warnings) != 1 {
				t.Errorf("a table without any file: %q, %v, warnings %q", out, err, sum.Warnings)
			}
			// A store of which nothing is left is more likely one that is not mounted.
			_, _, err = n.ask("SELECT count(*) FROM others")
			if record.KindOf(err) != record.NotFound || !strings.Contains(err.Error(), "others/year=2026") {
				t.Errorf("nothing is left: %v", err)
			}
		})
	}
}
