package lake_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// rewrite makes the golden files of the format that this program writes. Those of a released format are never
// rewritten: they prove that it is still read.
var rewrite = flag.Bool("rewrite", false, "rewrite golden files")

// goldenRows are what testdata/v1 holds: both layouts, late rows, labels, _extra, a rejected record.
func goldenRows(layout lake.Layout) ([][]payload.Row, int) {
	labels := fields("site", text("A"), "line", text("7"))
	var rows [][]payload.Row
	for i := range 20 {
		r := row(day1.Add(time.Duration(i)*time.Second), fmt.Sprintf("signal-%d", i%3), float64(i)/8)
		r.Labels = labels
		if i == 5 {
			r.Time -= int64(48 * time.Hour)
		}
		if layout == lake.Columns {
			r.Signal = nil
			r.Fields = fields("temp", float(float64(i)/8), "count", integer(1<<60+int64(i)), "state", text("on"))
			if i == 6 {
				r.Fields[0].Value = text("broken")
			}
		} else if i == 7 {
			r.Value = integer(1<<53 + 1)
		}
		rows = append(rows, []payload.Row{r})
	}
	rows[9] = nil
	return rows, len(rows)
}

// buildGolden fills dir with a spool, a catalog and what they say of two tables.
func buildGolden(t *testing.T) *bench {
	b := newBench(t)
	cfg := lake.DefaultConfig()
	cfg.Provenance = true
	for layout, name := range map[lake.Layout]string{lake.Portable: "samples", lake.Columns: "messages"} {
		rows, n := goldenRows(layout)
		rng := testRange(0, record.Offset(n))
		rng.Stream += record.StreamID(layout)
		res := b.build(cfg, lake.TableSpec{Name: name, Layout: layout}, rng, fixed(rows), numbered(n, day1))
		if err := b.cat.AddFiles(name, rng, res.Files); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// describe prints a data directory: the catalog, and all rows of all files by the paths of their keys.
func describe(t *testing.T, b *bench) string {
	t.Helper()
	v := must2(b.cat.View())
	v.Version = 0
	for i := range v.Tables {
		for j := range v.Tables[i].Files {
			v.Tables[i].Files[j].SHA256 = lake.Digest{} // of the library's version, like the size
			v.Tables[i].Files[j].Size = 0
		}
		for j := range v.Tables[i].Rejected {
			v.Tables[i].Rejected[j].SHA256, v.Tables[i].Rejected[j].Size = lake.Digest{}, 0
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", " ")
	if err := enc.Encode(v.Tables); err != nil {
		t.Fatal(err)
	}
	for _, tab := range must2(b.cat.View()).Tables {
		for _, f := range append(tab.Files, tab.Rejected...) {
			fmt.Fprintf(&out, "\n%s\n%s\n", f.Key, b.open(f.File).Schema())
			for _, rg := range b.open(f.File).Metadata().RowGroups {
				fmt.Fprintf(&out, "sorted by %v\n", rg.SortingColumns)
			}
			for _, r := range b.read(f.File) {
				if err := json.NewEncoder(&out).Encode(r); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return out.String()
}

func TestGoldenFormat(t *testing.T) {
	b := buildGolden(t)
	if err := b.db.Close(); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "v1")
	if *rewrite {
		if err := os.RemoveAll(golden); err != nil {
			t.Fatal(err)
		}
		copyTree(t, b.dir.Path(), golden)
	}
	// What an earlier program wrote reads, from a copy, as it did then.
	old := &bench{t: t, dir: must2(vfs.OpenDir(t.TempDir(), nil))}
	copyTree(t, golden, old.dir.Path())
	old.spool = must2(old.dir.Sub("spool"))
	old.db = must2(meta.Open(old.dir, meta.Options{Log: slog.New(slog.DiscardHandler)}))
	t.Cleanup(func() { old.db.Close(); old.spool.Close(); old.dir.Close() })
	old.cat = lake.NewCatalog(old.db, slog.New(slog.DiscardHandler))
	got := describe(t, old)
	if *rewrite {
		if err := os.WriteFile(filepath.Join("testdata", "v1.txt"), []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := string(must2(os.ReadFile(filepath.Join("testdata", "v1.txt"))))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("golden directory reads differently (-want +got):\n%s", diff)
	}
	// What this program writes says the same, and its manifests are the same bytes but for sizes and checksums.
	now := buildGolden(t)
	if diff := cmp.Diff(want, describe(t, now)); diff != "" {
		t.Errorf("this program writes something else (-want +got):\n%s", diff)
	}
	for _, name := range spoolNames(t, now.spool) {
		if strings.HasSuffix(name, ".json") {
			want, got := maskManifest(must2(old.spool.ReadFile(name))), maskManifest(must2(now.spool.ReadFile(name)))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("manifest %s (-want +got):\n%s", name, diff)
			}
		}
	}
}

func maskManifest(data []byte) string {
	var out strings.Builder
	for line := range strings.Lines(string(data)) {
		if !strings.Contains(line, `"size"`) && !strings.Contains(line, `"sha256"`) {
			out.WriteString(line)
		}
	}
	return out.String()
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := must2(filepath.Rel(from, path))
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.Create(filepath.Join(to, rel))
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
}

func FuzzDecodeManifest(f *testing.F) {
	for _, name := range must2(filepath.Glob("testdata/v1/spool/*.json")) {
		f.Add(must2(os.ReadFile(name)))
	}
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := lake.DecodeManifest(data)
		if err != nil {
			if k := record.KindOf(err); k != record.Corrupt && k != record.Invalid {
				t.Errorf("kind %v", k)
			}
			return
		}
		again := must2(lake.DecodeManifest(must2(m.Encode())))
		if diff := cmp.Diff(m, again); diff != "" {
			t.Errorf("(-decoded +encoded and decoded):\n%s", diff)
		}
		if len(m.FileList()) != len(m.Files) || m.Range().From > m.Range().To {
			t.Errorf("manifest %+v", m)
		}
	})
}

func TestConfigNamesWhatCannotBe(t *testing.T) {
	if err := lake.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	if err := (lake.Config{}).Validate(); err != nil {
		t.Error(err)
	}
	cases := map[string]lake.Config{
		"lake.node_id":         {NodeID: "a/b"},
		"lake.row_group_bytes": {RowGroupBytes: 1},
		"lake.file_bytes":      {FileBytes: 1},
		"lake.open_files":      {OpenFiles: -1},
		"lake.time_unit":       {TimeUnit: 9},
		"lake.compression":     {Compression: "gzip"},
		"lake.pattern":         {Pattern: "day={day}/{hour}"},
		"in a directory":       {Pattern: "year={year}/month={month}/day={day}/hour={hour}/x"},
		"empty, . or ..":       {Pattern: "../{year}/{month}/{day}/"},
		"unknown {…}":          {Pattern: "{year}/{month}/{day}/{hr}_"},
	}
	for want, cfg := range cases {
		err := cfg.Validate()
		if record.KindOf(err) != record.Invalid || !strings.Contains(fmt.Sprint(err), want) || record.HintOf(err) == "" {
			t.Errorf("%s: error %v, hint %q", want, err, record.HintOf(err))
		}
	}
}
