package lake_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/vfs"
)

func row(t time.Time, signal string, v float64) payload.Row {
	return payload.Row{Time: t.UnixNano(), HasTime: true, Signal: []byte(signal), Value: float(v)}
}

func keys(files []lake.File) (k []string) {
	for _, f := range files {
		k = append(k, f.Key)
	}
	return k
}

func TestLateRowsGoToThePartitionOfTheirTime(t *testing.T) {
	b := newBench(t)
	_, res := b.encode(lake.DefaultConfig(), lake.TableSpec{Name: "samples"},
		row(day1, "b", 1), row(day1.AddDate(0, 0, -400), "a", 2), row(day1.Add(24*time.Hour), "a", 3), row(day1, "a", 4))
	name := "0105_a1b2c3d4e5f6-0123456789abcdef-000000000000-000000000004.parquet"
	want := []string{
		"samples/year=2025/month=10/day=17/" + name, "samples/year=2026/month=11/day=21/" + name,
		"samples/year=2026/month=11/day=22/" + name, "_manifests/a1b2c3d4e5f6/0123456789abcdef-000000000000-000000000004.json",
	}
	if diff := cmp.Diff(want, keys(res.Files)); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if res.Files[1].Rows != 2 || res.Files[1].Partition != "year=2026/month=11/day=21" || !res.Files[3].Manifest {
		t.Errorf("files %+v", res.Files)
	}
}

func TestPatternAndPrefixAreSettings(t *testing.T) {
	b := newBench(t)
	cfg := lake.DefaultConfig()
	cfg.Pattern = "year={yy}/month={month}/day={day}/{hour}{minute}_"
	_, res := b.encode(cfg, lake.TableSpec{Name: "samples", Prefix: "raw/plant-"}, row(day1, "a", 1))
	want := "raw/plant-year=26/month=11/day=21/0105_a1b2c3d4e5f6-0123456789abcdef-000000000000-000000000001.parquet"
	if res.Files[0].Key != want {
		t.Errorf("key %s", res.Files[0].Key)
	}
}

func TestRejectedRecordsAreKeptWithTheirReason(t *testing.T) {
	b := newBench(t)
	c := chunkOf(7,
		record.Record{Time: day1.UnixNano(), Key: []byte("plant/a"), Payload: []byte("0")},
		record.Record{Time: day1.UnixNano() + 1000, Key: []byte("plant/b"), Payload: []byte("\xff\x00garbage")},
		record.Record{Time: day1.UnixNano(), Key: []byte("plant/c"), Payload: []byte("1")},
	)
	rows := [][]payload.Row{{row(day1, "a", 1)}, {row(day1, "a", 1), row(time.Unix(-1, 0), "a", 2)}}
	res := b.build(lake.DefaultConfig(), lake.TableSpec{Name: "samples"}, testRange(7, 10), fixed(rows), c)
	if res.Rows != 1 || res.Rejected != 2 || res.Reject != "not a row" {
		t.Errorf("result %+v", res)
	}
	var rejected lake.File
	for _, f := range res.Files {
		if f.Rejected {
			rejected = f
		}
	}
	want := []map[string]any{
		{"ts": day1.UnixMicro() + 1, "topic": "plant/b", "reason": "not a row", "payload": "\xff\x00garbage", "_seq": int64(8)},
		{"ts": day1.UnixMicro(), "topic": "plant/c", "reason": "time before 1970", "payload": "1", "_seq": int64(9)},
	}
	if diff := cmp.Diff(want, b.read(rejected)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if want := "_rejected/samples/year=2026/month=11/day=21/0105_a1b2c3d4e5f6-0123456789abcdef-000000000007-000000000010.parquet"; rejected.Key != want {
		t.Errorf("key %s", rejected.Key)
	}
}

func TestADecoderThatPanicsRejectsTheRecord(t *testing.T) {
	b := newBench(t)
	dec := decodeFunc(func(rec *record.Record, dst []payload.Row) ([]payload.Row, error) {
		if string(rec.Payload) == "1" {
			panic("index out of range")
		}
		return append(dst, row(day1, "a", 1)), nil
	})
	res := b.build(lake.DefaultConfig(), lake.TableSpec{Name: "samples"}, testRange(0, 3), dec, numbered(3, day1))
	if res.Rows != 2 || res.Rejected != 1 || res.Reject != "defect of the parser: index out of range" {
		t.Errorf("result %+v", res)
	}
}

func TestNothingToWriteMakesNoFile(t *testing.T) {
	b := newBench(t)
	none := decodeFunc(func(_ *record.Record, dst []payload.Row) ([]payload.Row, error) { return dst, nil })
	for _, chunks := range [][]*stream.Chunk{nil, {numbered(3, day1)}} {
		res := b.build(lake.DefaultConfig(), lake.TableSpec{Name: "samples"}, testRange(0, 3), none, chunks...)
		if len(res.Files) != 0 || res.Rows != 0 {
			t.Errorf("result %+v", res)
		}
	}
	if names := spoolNames(t, b.spool); len(names) != 0 {
		t.Errorf("spool holds %v", names)
	}
}

func spoolNames(t testing.TB, dir *vfs.Dir) (names []string) {
	t.Helper()
	for _, e := range must2(dir.ReadDir(".")) {
		names = append(names, e.Name())
	}
	return names
}

func TestRecordsOutsideTheRangeAreSkipped(t *testing.T) {
	b := newBench(t)
	rows := make([][]payload.Row, 10)
	for i := range rows {
		rows[i] = []payload.Row{row(day1, "s", float64(i))}
	}
	res := b.build(lake.DefaultConfig(), lake.TableSpec{Name: "samples"}, testRange(3, 6), fixed(rows), numbered(10, day1))
	var got []float64
	for _, r := range b.read(res.Files[0]) {
		got = append(got, r["value"].(float64))
	}
	if diff := cmp.Diff([]float64{3, 4, 5}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestManifestNamesWhatTheLogNoLongerHad(t *testing.T) {
	b := newBench(t)
	dropped := &stream.Chunk{First: 5, Gaps: []stream.Gap{{From: 0, To: 5, Reason: stream.Dropped}}, Next: 5}
	res := b.build(lake.Config{}, lake.TableSpec{Name: "samples"}, testRange(0, 5), fixed(nil), dropped)
	if len(res.Files) != 1 || !res.Files[0].Manifest {
		t.Fatalf("files %+v", res.Files)
	}
	m := must2(lake.DecodeManifest(must2(b.spool.ReadFile(res.Files[0].Spool))))
	if len(m.Gaps) != 1 || m.Gaps[0].From != 0 || m.Gaps[0].To != 5 || m.Rows != 0 {
		t.Errorf("manifest %+v", m)
	}
}

func TestUntrustedClocksAreRestamped(t *testing.T) {
	b := newBench(t)
	c := numbered(3, time.Unix(60, 0))
	c.Origins = []stream.Origin{
		{First: 0, Count: 1, Mono: 1, Wall: 60e9},
		{First: 1, Count: 1, Mono: 2, Wall: 61e9},
		{First: 2, Count: 1, Mono: 3, Wall: day1.UnixNano(), Trusted: true},
	}
	c.Records[2].Time = day1.UnixNano()
	plain := payload.Row{Signal: []byte("s"), Value: float(1)}
	restamp := func(o stream.Origin, rec int64) int64 {
		if o.Mono == 1 {
			return day1.UnixNano() - 5e9
		}
		return rec
	}
	bld := lake.NewBuilder(b.spool, lake.Config{}, lake.TableSpec{Name: "samples"}, b.cat, testRange(0, 3),
		fixed([][]payload.Row{{plain}, {plain}, {plain}}), restamp)
	if err := bld.Add(c); err != nil {
		t.Fatal(err)
	}
	res := must2(bld.Finish())
	if want := (lake.ClockState{Trusted: 1, Restamped: 1, Untrusted: 1}); res.Clock != want {
		t.Errorf("clock %+v", res.Clock)
	}
	if len(res.Files) != 3 || res.Files[0].Partition != "year=1970/month=01/day=01" ||
		res.Files[1].MinTime != day1.UnixNano()-5e9 {
		t.Errorf("files %+v", res.Files)
	}
	data := must2(b.spool.ReadFile(res.Files[2].Spool))
	if m := must2(lake.DecodeManifest(data)); m.Clock != res.Clock {
		t.Errorf("manifest says %+v", m.Clock)
	}
}

// TestEveryRowArrivesOnceSorted builds random rows over random days with budgets so small that row groups, open files
// and file sizes overflow, and checks each row, the order in each row group and the keys.
func TestEveryRowArrivesOnceSorted(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(t)
		n := rapid.IntRange(1, 150).Draw(rt, "rows")
		days := rapid.IntRange(1, 6).Draw(rt, "days")
		cfg := lake.DefaultConfig()
		cfg.RowGroupBytes = rapid.Int64Range(6000, 40000).Draw(rt, "budget")
		cfg.OpenFiles = rapid.IntRange(1, 4).Draw(rt, "open")
		cfg.FileBytes = rapid.Int64Range(2000, 20000).Draw(rt, "file")
		rng := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(rt, "seed")))
		rows := make([]payload.Row, n)
		sum := 0.0
		for i := range rows {
			at := day1.Add(time.Duration(rng.IntN(days*24*60)) * time.Minute)
			rows[i] = row(at, "s"+strconv.Itoa(rng.IntN(5)), float64(i))
			if rng.IntN(3) == 0 {
				rows[i].Value = text(strconv.Itoa(i))
			}
			rows[i].Labels = fields("l"+strconv.Itoa(rng.IntN(1+i/50)), text("x"))
			sum += float64(i)
		}
		seen := map[string]bool{}
		_, res := b.encode(cfg, lake.TableSpec{Name: "samples"}, rows...)
		for _, f := range res.Files {
			if f.Manifest {
				continue
			}
			if seen[f.Key] {
				rt.Fatalf("key %s twice", f.Key)
			}
			seen[f.Key] = true
			pf := b.open(f)
			for _, rg := range pf.RowGroups() {
				last := ""
				for _, r := range readGroup(t, pf, rg) {
					if v, ok := r["value"].(float64); ok {
						sum -= v
					} else {
						i, _ := strconv.Atoi(r["text"].(string))
						sum -= float64(i)
					}
					ts := r["ts"].(int64)
					at := fmt.Sprintf("%s %020d", r["signal"], ts)
					if at < last {
						rt.Fatalf("%s after %s", at, last)
					}
					last = at
					if day := time.UnixMilli(ts).UTC().Format("year=2006/month=01/day=02"); f.Partition != day ||
						!strings.HasPrefix(f.Key, "samples/"+day+"/0105_") {
						rt.Fatalf("row of %s in %s", day, f.Key)
					}
				}
			}
		}
		if sum != 0 || res.Rows != int64(n) {
			rt.Fatalf("values are missing or double by %v; %d rows of %d", sum, res.Rows, n)
		}
	})
}

// TestEveryDiskErrorIsReported makes each disk operation of a build fail in turn: Add or Finish must say so, and Abort
// must leave nothing behind.
func TestEveryDiskErrorIsReported(t *testing.T) {
	boom := errors.New("boom")
	for fail := 0; ; fail++ {
		n, armed := 0, false
		dir := must2(vfs.OpenDir(t.TempDir(), func(op vfs.Op) error {
			if armed && op.Kind != vfs.OpRemove {
				if n++; n == fail+1 {
					return boom
				}
			}
			return nil
		}))
		b := newBench(t)
		rows := make([][]payload.Row, 20)
		for i := range rows {
			rows[i] = []payload.Row{row(day1.AddDate(0, 0, i%3), "s", 1)}
		}
		rows[7] = nil
		bld := lake.NewBuilder(dir, lake.Config{RowGroupBytes: 4000, OpenFiles: 1}, lake.TableSpec{Name: "samples"}, b.cat,
			testRange(0, 20), fixed(rows), nil)
		armed = true
		err := bld.Add(numbered(20, day1))
		if err == nil {
			_, err = bld.Finish()
		}
		armed = false
		if err == nil {
			if fail < 10 {
				t.Errorf("only %d disk operations", fail)
			}
			dir.Close()
			return
		}
		if !errors.Is(err, boom) {
			t.Errorf("operation %d: %v", fail, err)
		}
		if err := errors.Join(bld.Abort(), bld.Abort()); err != nil {
			t.Errorf("operation %d: abort: %v", fail, err)
		}
		if names := spoolNames(t, dir); len(names) != 0 {
			t.Errorf("operation %d left %v", fail, names)
		}
		dir.Close()
	}
}

func TestARepeatedBuildReplacesWhatTheFirstLeft(t *testing.T) {
	b := newBench(t)
	rows := [][]payload.Row{{row(day1, "s", 1)}, {row(day1, "s", 2)}}
	first := lake.NewBuilder(b.spool, lake.Config{}, lake.TableSpec{Name: "samples"}, b.cat, testRange(0, 2), fixed(rows), nil)
	if err := first.Add(numbered(2, day1)); err != nil {
		t.Fatal(err)
	}
	left := must2(first.Finish()) // … and then the process died, before anything was recorded
	if err := os.WriteFile(filepath.Join(b.spool.Path(), left.Files[0].Spool), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := b.build(lake.Config{}, lake.TableSpec{Name: "samples"}, testRange(0, 2), fixed(rows), numbered(2, day1))
	if diff := cmp.Diff(left, again); diff != "" {
		t.Errorf("the second build differs:\n%s", diff)
	}
	if n := len(b.read(again.Files[0])); n != 2 {
		t.Errorf("%d rows", n)
	}
}
