package lake_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
)

func TestCatalogRegistersFilesOnce(t *testing.T) {
	b := newBench(t)
	spec := lake.TableSpec{Name: "samples"}
	_, res := b.encode(lake.DefaultConfig(), spec, row(day1, "s", 1), row(day1.AddDate(0, 0, 1), "s", 1), row(day1, "s", 2))
	before := must2(b.cat.View())
	rng := testRange(0, 3)
	for range 2 {
		if err := b.cat.AddFiles("samples", rng, res.Files); err != nil {
			t.Fatal(err)
		}
	}
	v := must2(b.cat.View())
	if v.Version != before.Version+1 {
		t.Errorf("version went from %d to %d, want one change", before.Version, v.Version)
	}
	tab := v.Tables[0]
	if len(tab.Files) != 2 || tab.Covered[rng.Stream] != 3 || tab.Prefix != "samples/" {
		t.Fatalf("table %+v", tab)
	}
	if diff := cmp.Diff(res.Files[:2], []lake.File{tab.Files[0].File, tab.Files[1].File}); diff != "" {
		t.Errorf("files (-added +viewed):\n%s", diff)
	}
	if err := errors.Join(b.cat.SetStored(res.Files[:1]), b.cat.AddFiles("samples", rng, res.Files)); err != nil {
		t.Fatal(err)
	}
	v = must2(b.cat.View())
	if f := v.Tables[0].Files; f[0].Place != lake.Store || f[1].Place != lake.Spool {
		t.Errorf("places %v, %v: a repeated AddFiles must not undo SetStored", f[0].Place, f[1].Place)
	}
	spooled := must2(b.cat.View(lake.Select{Place: new(lake.Spool)})).Tables[0].Files
	if len(spooled) != 1 || spooled[0].Key != res.Files[1].Key {
		t.Errorf("in the spool: %+v", spooled)
	}
	if err := b.cat.RemoveFiles(res.Files); err != nil {
		t.Fatal(err)
	}
	if v = must2(b.cat.View()); len(v.Tables[0].Files) != 0 || v.Tables[0].Covered[rng.Stream] != 3 {
		t.Errorf("after removal: %+v", v.Tables[0])
	}
}

func TestViewSelectsByTime(t *testing.T) {
	b := newBench(t)
	var rows []payload.Row
	for i := range 5 {
		rows = append(rows, row(day1.AddDate(0, 0, i), "s", 1))
	}
	_, res := b.encode(lake.DefaultConfig(), lake.TableSpec{Name: "samples"}, rows...)
	if err := b.cat.AddFiles("samples", testRange(0, 5), res.Files); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name     string
		from, to time.Time
		want     string
	}{
		{"all", time.Time{}, time.Time{}, "21 22 23 24 25"},
		{"from a row's instant", day1.AddDate(0, 0, 3), time.Time{}, "24 25"},
		{"from just behind it", day1.AddDate(0, 0, 3).Add(1), time.Time{}, "25"},
		{"until a row's instant", time.Time{}, day1.AddDate(0, 0, 1), "21"},
		{"until just behind it", time.Time{}, day1.AddDate(0, 0, 1).Add(1), "21 22"},
		{"between", day1.Add(time.Hour), day1.AddDate(0, 0, 2), "22"},
	}
	for _, c := range cases {
		var days []string
		for _, f := range must2(b.cat.View(lake.Select{Table: "samples", From: c.from, To: c.to})).Tables[0].Files {
			days = append(days, time.Unix(0, f.MinTime).UTC().Format("02"))
		}
		if got := strings.Join(days, " "); got != c.want {
			t.Errorf("%s: days %s, want %s", c.name, got, c.want)
		}
	}
	if v := must2(b.cat.View(lake.Select{Table: "samp"})); len(v.Tables) != 0 {
		t.Errorf("a prefix of a name selects %d tables", len(v.Tables))
	}
}

func TestTwoBuildersWidenOneTable(t *testing.T) {
	b := newBench(t)
	spec := lake.TableSpec{Name: "m", Layout: lake.Columns}
	var wg sync.WaitGroup
	results := make([]lake.Result, 4)
	for i := range results {
		wg.Go(func() {
			rows := make([][]payload.Row, 20)
			for j := range rows {
				rows[j] = []payload.Row{{Time: day1.UnixNano(), HasTime: true, Fields: fields(
					fmt.Sprintf("own_%d_%d", i, j), float(1), fmt.Sprintf("shared_%d", j), float(2))}}
			}
			rng := testRange(0, 20)
			rng.Stream += record.StreamID(i)
			bld := lake.NewBuilder(b.spool, lake.Config{}, spec, b.cat, rng, fixed(rows), nil)
			if err := bld.Add(numbered(20, day1)); err != nil {
				t.Error(err)
				return
			}
			var err error
			if results[i], err = bld.Finish(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s := must2(b.cat.Schema("m")); len(s.Columns) != 2+20+80 {
		t.Errorf("%d columns, want 102", len(s.Columns))
	}
	for i, res := range results {
		for j, r := range b.read(res.Files[0]) {
			if len(r) != 4 {
				t.Errorf("builder %d, row %d: %v", i, j, r)
			}
		}
	}
}

func TestCatalogIsRestoredFromManifests(t *testing.T) {
	for _, prefix := range []string{"", "raw/", lake.NoPrefix} {
		t.Run("prefix "+prefix, func(t *testing.T) { testRestore(t, prefix) })
	}
}

func testRestore(t *testing.T, prefix string) {
	b := newBench(t)
	spec := lake.TableSpec{Name: "m", Layout: lake.Columns, Prefix: prefix}
	r := payload.Row{Fields: fields("a", float(1), "b b", text("x")), Labels: fields("site", text("A"))}
	_, res := b.encode(lake.DefaultConfig(), spec, r, payload.Row{Fields: fields("a", text("no"))})
	if err := errors.Join(b.cat.AddFiles("m", testRange(0, 2), res.Files), b.cat.SetStored(res.Files)); err != nil {
		t.Fatal(err)
	}
	m := must2(lake.DecodeManifest(must2(b.spool.ReadFile(res.Files[len(res.Files)-1].Spool))))
	if diff := cmp.Diff(res.Files[:len(res.Files)-1], m.FileList()); diff != "" {
		t.Errorf("files of the manifest (-built +read):\n%s", diff)
	}
	fresh := newBench(t)
	for range 2 {
		if err := fresh.cat.Restore(m, lake.Store); err != nil {
			t.Fatal(err)
		}
	}
	want, got := must2(b.cat.View()), must2(fresh.cat.View())
	want.Version, got.Version = 0, 0
	for i := range got.Tables[0].Columns {
		got.Tables[0].Columns[i].Declared = false // its type is now fixed by the manifest
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-lost +restored):\n%s", diff)
	}
}

func TestCatalogSurvivesReopening(t *testing.T) {
	b := newBench(t)
	_, res := b.encode(lake.DefaultConfig(), lake.TableSpec{Name: "samples"}, row(day1, "s", 1))
	if err := b.cat.AddFiles("samples", testRange(0, 1), res.Files); err != nil {
		t.Fatal(err)
	}
	want := must2(b.cat.View())
	if err := b.db.Close(); err != nil {
		t.Fatal(err)
	}
	db := must2(meta.Open(b.dir, meta.Options{Log: slog.New(slog.DiscardHandler)}))
	defer db.Close()
	if diff := cmp.Diff(want, must2(lake.NewCatalog(db, slog.New(slog.DiscardHandler)).View())); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

func TestTableNamesThatCannotBe(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"", "_x", "-x", "A", "a/b", "a b", "a.b", "ä", strings.Repeat("x", 129)} {
		err := b.cat.EnsureTable(lake.TableSpec{Name: name}, lake.Config{})
		if record.KindOf(err) != record.Invalid || record.HintOf(err) == "" {
			t.Errorf("name %q: %v", name, err)
		}
	}
	for _, prefix := range []string{"/x", "_rejected/", "a/../b"} {
		if err := b.cat.EnsureTable(lake.TableSpec{Name: "x", Prefix: prefix}, lake.Config{}); record.KindOf(err) != record.Invalid {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
}

func BenchmarkView(b *testing.B) {
	bench := newBench(b)
	const n = 10_000
	var files []lake.File
	for i := range n {
		at := day1.Add(time.Duration(i) * time.Minute).UnixNano()
		files = append(files, lake.File{
			Key: fmt.Sprintf("samples/year=2026/month=11/day=21/%06d.parquet", i), Table: "samples", MinTime: at, MaxTime: at + 59e9,
			Spool: fmt.Sprintf("0123456789abcdef-%012d-%012d.1.parquet", i, i+1), Size: 1 << 20, Rows: 100_000,
		})
	}
	if err := errors.Join(bench.cat.EnsureTable(lake.TableSpec{Name: "samples"}, lake.Config{}),
		bench.cat.AddFiles("samples", testRange(0, n), files)); err != nil {
		b.Fatal(err)
	}
	for name, sel := range map[string]lake.Select{"all": {}, "hour": {From: day1.AddDate(0, 0, 3), To: day1.AddDate(0, 0, 3).Add(time.Hour)}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				must2(bench.cat.View(sel))
			}
		})
	}
}
