package export_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/blob/file"
	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

// door is a store with a switch.
type door struct {
	blob.Store
	mu  sync.Mutex
	err error
	// after lets that many puts through before err.
	after int
	tries int
}

// tried is how many puts were asked for.
func (d *door) tried() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tries
}

func (d *door) set(err error, after int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.after = err, after
}

func (d *door) Put(ctx context.Context, u blob.Upload) error {
	d.mu.Lock()
	d.tries++
	err := d.err
	if err != nil && d.after > 0 {
		d.after--
		err = nil
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return d.Store.Put(ctx, u)
}

var errDown = record.Errorf(record.Unavailable, "down")

func newDoor(t *testing.T, dir string) *door {
	t.Helper()
	d, err := vfs.OpenDir(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	s, err := file.Open(d, discard)
	if err != nil {
		t.Fatal(err)
	}
	return &door{Store: s}
}

// spoolFiles are the names of what waits in the spool, without quarantine, by ending.
func spoolFiles(t *testing.T, dir, ending string) []string {
	t.Helper()
	var names []string
	root := filepath.Join(dir, "spool")
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ending) && !strings.Contains(path, "quarantine") {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func flip(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func quarantined(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "spool", "quarantine"))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestADamagedSpoolFileIsReportedAndTheRestGoesOn(t *testing.T) {
	cases := []struct {
		name    string
		damage  func(t *testing.T, dir string)
		lost    uint64 // rows
		damaged uint64 // files
		kept    bool   // in quarantine
		note    bool   // beside the manifest
	}{
		{"a flipped bit", func(t *testing.T, dir string) { flip(t, spoolFiles(t, dir, ".parquet")[0]) }, 0, 1, true, true},
		{"cut off", func(t *testing.T, dir string) {
			if err := os.Truncate(spoolFiles(t, dir, ".parquet")[1], 10); err != nil {
				t.Fatal(err)
			}
		}, 0, 1, true, true},
		{"a missing file", func(t *testing.T, dir string) {
			if err := os.Remove(spoolFiles(t, dir, ".parquet")[0]); err != nil {
				t.Fatal(err)
			}
		}, 0, 1, false, true},
		{"a damaged step file", func(t *testing.T, dir string) { flip(t, spoolFiles(t, dir, "step.json")[0]) }, 0, 0, false, false},
		{"a damaged step file and manifest", func(t *testing.T, dir string) {
			step := spoolFiles(t, dir, "step.json")[0]
			for _, name := range append(spoolFiles(t, filepath.Join(dir), ".json"), step) {
				if filepath.Dir(name) == filepath.Dir(step) {
					if err := os.Truncate(name, 5); err != nil {
						t.Fatal(err)
					}
				}
			}
		}, 20, 1, true, false},
		{"a damaged manifest", func(t *testing.T, dir string) {
			for _, name := range spoolFiles(t, dir, ".json") {
				if !strings.HasSuffix(name, "step.json") {
					flip(t, name)
					return
				}
			}
			t.Fatal("no manifest")
		}, 0, 1, true, false},
	}
	for _, c := range cases {
		for _, restart := range []bool{false, true} {
			t.Run(c.name+map[bool]string{true: ", then a restart"}[restart], func(t *testing.T) {
				lakeDir := t.TempDir()
				d := newDoor(t, lakeDir)
				d.set(errDown, 0)
				opt := options{dir: t.TempDir(), store: d, config: quick(), period: 20 * time.Millisecond}
				opt.config.TargetBytes = 1
				s := mustStack(t, opt)
				s.put(t, 0, 20)
				testenv.Wait(t, 10*time.Second, func() bool { return s.spool.Bytes() > 0 && s.runner.Status().Retries > 0 }, "a step to wait")
				s.put(t, 20, 40)
				testenv.Wait(t, 10*time.Second, func() bool { return s.runner.Status().Pending > 1 }, "a second step to wait")
				if restart {
					s.stop(t)
				}
				c.damage(t, opt.dir)
				if restart {
					s = mustStack(t, opt)
				}
				// A delivery that was underway has ended when the second put from now on is asked for.
				n := d.tried()
				testenv.Wait(t, 10*time.Second, func() bool { return d.tried() >= n+2 }, "another try")
				d.set(nil, 0)
				s.flush(t)

				seen, st := rowsIn(t, lakeDir), s.sup.Stats()
				for id := 20; id < 40; id++ {
					if seen[id] != 1 {
						t.Errorf("row %d of the undamaged step: %d times", id, seen[id])
					}
				}
				for id, n := range seen {
					if n != 1 {
						t.Errorf("row %d: %d times", id, n)
					}
				}
				missing := uint64(40 - len(seen))
				if c.note && (missing == 0 || missing >= 20) || !c.note && missing != c.lost {
					t.Errorf("%d rows missing", missing)
				}
				if st.DamagedFiles != c.damaged || c.note && st.LostRows != missing {
					t.Errorf("counted %d files, %d rows", st.DamagedFiles, st.LostRows)
				}
				if got := quarantined(t, opt.dir); (len(got) == 1) != c.kept {
					t.Errorf("quarantine: %v", got)
				}
				if c.damaged > 0 && !strings.Contains(s.logged.String(), "damaged and set aside") {
					t.Error("nothing in the log")
				}
				notes := 0
				for o, err := range d.List(t.Context(), lake.ManifestPrefix) {
					if err != nil {
						t.Fatal(err)
					}
					if strings.Contains(o.Key, "-damaged-") {
						notes++
					}
				}
				if (notes == 1) != c.note {
					t.Errorf("%d notes of damage in the store", notes)
				}
				s.wantCatalogHasOnlyWhatIsThere(t, lakeDir)
				s.stop(t)
				s = mustStack(t, opt) // a last start finds nothing to do
				if st := s.runner.Status(); st.Pending != 0 || st.BacklogRecords != 0 {
					t.Errorf("after a restart: %+v", st)
				}
				s.stop(t)
			})
		}
	}
}

func (s *stack) wantCatalogHasOnlyWhatIsThere(t *testing.T, lakeDir string) {
	t.Helper()
	v, err := s.cat.View()
	if err != nil {
		t.Fatal(err)
	}
	for _, tab := range v.Tables {
		for _, f := range tab.Files {
			if _, err := os.Stat(filepath.Join(lakeDir, f.Key)); err != nil && f.Place == lake.Store {
				t.Errorf("the catalog knows %s: %v", f.Key, err)
			}
		}
	}
}

func TestAFileDamagedAfterItReachedTheStoreIsNoLoss(t *testing.T) {
	lakeDir := t.TempDir()
	d := newDoor(t, lakeDir)
	d.set(errDown, 1) // the first data file gets through, the second does not
	opt := options{dir: t.TempDir(), store: d, config: quick(), period: 20 * time.Millisecond}
	s := mustStack(t, opt)
	s.put(t, 0, 20)
	testenv.Wait(t, 10*time.Second, func() bool { return s.runner.Status().Retries > 0 }, "a step to wait")
	s.stop(t)
	there := parquetFiles(t, lakeDir)
	if len(there) != 1 {
		t.Fatalf("in the store: %v", there)
	}
	flip(t, spoolFiles(t, opt.dir, ".parquet")[0])
	s = mustStack(t, opt)
	d.set(nil, 0)
	s.flush(t)
	wantOnce(t, rowsIn(t, lakeDir), 0, 20)
	if st := s.sup.Stats(); st.DamagedFiles != 0 {
		t.Errorf("counted %d damaged files", st.DamagedFiles)
	}
}

func TestStartRemovesLeftoversAndKeepsWhatHasLostItsStream(t *testing.T) {
	lakeDir := t.TempDir()
	opt := options{dir: t.TempDir(), lake: lakeDir, config: quick()}
	s := mustStack(t, opt)
	s.put(t, 0, 10)
	s.flush(t)
	id := s.id
	s.stop(t)
	write := func(name string) {
		t.Helper()
		path := filepath.Join(opt.dir, "spool", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("leftover"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(id.String() + "/10-20/x.parquet")  // an encode that was interrupted
	write("00000000deadbeef/0-10/x.parquet") // of a stream that the log does not know
	write("stray")                           // nobody's
	s = mustStack(t, opt)
	if err := s.spool.Sweep([]record.StreamID{id}); err != nil {
		t.Fatal(err)
	}
	if got := spoolFiles(t, opt.dir, ""); len(got) != 2 { // the spool itself and the stream's empty directory
		t.Errorf("in the spool: %v", got)
	}
	if got := quarantined(t, opt.dir); !slices.Equal(got, []string{"00000000deadbeef", "stray"}) {
		t.Errorf("quarantine: %v", got)
	}
	if s.spool.Bytes() != 16 {
		t.Errorf("the spool counts %d bytes", s.spool.Bytes())
	}
}

func TestALostCatalogIsFilledAgainFromTheSpool(t *testing.T) {
	lakeDir := t.TempDir()
	d := newDoor(t, lakeDir)
	d.set(errDown, 0)
	opt := options{dir: t.TempDir(), store: d, config: quick(), period: 20 * time.Millisecond}
	s := mustStack(t, opt)
	s.put(t, 0, 20)
	testenv.Wait(t, 10*time.Second, func() bool { return s.runner.Status().Retries > 0 }, "a step to wait")
	s.stop(t)
	if err := os.Remove(filepath.Join(opt.dir, "meta.db")); err != nil {
		t.Fatal(err)
	}
	s = mustStack(t, opt)
	v, err := s.cat.View()
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Tables) != 1 || len(v.Tables[0].Files) != 2 || v.Tables[0].Covered[s.id] != 20 {
		t.Errorf("catalog: %+v", v)
	}
	for _, f := range v.Tables[0].Files {
		if _, err := os.Stat(filepath.Join(opt.dir, "spool", f.Spool)); err != nil {
			t.Error(err)
		}
	}
	d.set(nil, 0)
	s.flush(t)
	s.wantTidy(t, lakeDir)
}

func TestGapsAndRejectedRecordsAreInTheManifest(t *testing.T) {
	lakeDir := t.TempDir()
	s := mustStack(t, options{dir: t.TempDir(), lake: lakeDir, config: quick()})
	s.put(t, 0, 1)
	s.flush(t)
	s.put(t, 1, 10)
	if _, err := s.log.Commit(t.Context(), stream.Change{Truncate: &stream.Truncate{ID: s.id, Before: 4}}); err != nil {
		t.Fatal(err)
	}
	bad := []record.Record{{Time: time.Now().UnixNano(), Key: []byte("bad"), Payload: []byte("not a number")}}
	if _, err := stream.AppendWait(t.Context(), s.log, s.id, bad...); err != nil {
		t.Fatal(err)
	}
	s.flush(t)
	st := s.sup.Stats()
	if st.DroppedRecords != 3 || st.Rejected != 1 || st.Rows != 7 {
		t.Errorf("stats: %+v", st)
	}
	files, err := filepath.Glob(filepath.Join(lakeDir, lake.ManifestPrefix, "nodea", "*.json"))
	if err != nil || len(files) != 2 {
		t.Fatalf("manifests: %v, %v", files, err)
	}
	slices.Sort(files)
	text, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Rejected int64
		Gaps     []struct {
			From, To uint64
			Reason   string
		}
	}
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	if m.Rejected != 1 || len(m.Gaps) != 1 || m.Gaps[0].From != 1 || m.Gaps[0].To != 4 || m.Gaps[0].Reason != "dropped" {
		t.Errorf("manifest: %s", text)
	}
	rejected, err := filepath.Glob(filepath.Join(lakeDir, lake.RejectedPrefix, "samples", "*", "*", "*", "*.parquet"))
	if err != nil || len(rejected) != 1 {
		t.Errorf("rejected files: %v, %v", rejected, err)
	}
}

func TestAFullSpoolDirectoryHoldsCutsBackAndLosesNothing(t *testing.T) {
	lakeDir := t.TempDir()
	d := newDoor(t, lakeDir)
	d.set(errDown, 0)
	opt := options{dir: t.TempDir(), store: d, config: quick(), period: 20 * time.Millisecond}
	opt.config.TargetBytes, opt.config.MaxSpoolBytes = 1, 1
	s := mustStack(t, opt)
	s.put(t, 0, 20)
	testenv.Wait(t, 10*time.Second, func() bool { return s.runner.Status().Pending == 1 }, "a step to wait")
	s.put(t, 20, 40)
	testenv.Wait(t, 10*time.Second, func() bool { return strings.Contains(s.runner.Status().Waiting, "spool") }, "cuts to stop")
	if st := s.runner.Status(); st.Pending != 1 || !st.Degraded {
		t.Errorf("status: %+v", st)
	}
	d.set(nil, 0)
	s.flush(t)
	wantOnce(t, rowsIn(t, lakeDir), 0, 40)
	s.wantTidy(t, lakeDir)
}

// fault is a hook that fails some operations while it is on.
type fault struct {
	mu    sync.Mutex
	fails func(vfs.Op) error
}

func (f *fault) set(fails func(vfs.Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails = fails
}

func (f *fault) hook(op vfs.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails == nil {
		return nil
	}
	return f.fails(op)
}

func TestADiskThatFailsTheSpoolHoldsTheExportAndLosesNothing(t *testing.T) {
	parquet := func(op vfs.Op) bool { return strings.HasSuffix(op.Name, ".parquet") }
	cases := map[string]func(vfs.Op) error{
		"no space": func(op vfs.Op) error {
			if op.Kind == vfs.OpWrite && parquet(op) {
				return &vfs.ShortWrite{N: 3, Err: syscall.ENOSPC}
			}
			return nil
		},
		"fsync fails": func(op vfs.Op) error {
			if op.Kind == vfs.OpSync && parquet(op) {
				return syscall.EIO
			}
			return nil
		},
		"no directory can be made": func(op vfs.Op) error {
			if op.Kind == vfs.OpMkdir {
				return syscall.ENOSPC
			}
			return nil
		},
		"the step file cannot be written": func(op vfs.Op) error {
			if op.Kind == vfs.OpRename && strings.Contains(op.Name, "step.json") {
				return syscall.EIO
			}
			return nil
		},
	}
	for name, fails := range cases {
		t.Run(name, func(t *testing.T) {
			lakeDir := t.TempDir()
			f := &fault{}
			opt := options{dir: t.TempDir(), store: newDoor(t, lakeDir), config: quick(), period: 20 * time.Millisecond, hook: f.hook}
			s := mustStack(t, opt)
			s.put(t, 0, 20)
			s.flush(t)
			f.set(fails)
			s.put(t, 20, 40)
			testenv.Wait(t, 10*time.Second, func() bool { return s.runner.Status().Retries >= 3 }, "the encode to fail")
			if st := s.runner.Status(); !st.Degraded || st.LastError == "" || st.BacklogRecords != 20 {
				t.Errorf("status: %+v", st)
			}
			f.set(nil)
			s.flush(t)
			wantOnce(t, rowsIn(t, lakeDir), 0, 40)
			s.wantTidy(t, lakeDir)
		})
	}
}

func TestAReadErrorOfTheSpoolThatPassesIsNoDamage(t *testing.T) {
	lakeDir := t.TempDir()
	f := &fault{}
	opt := options{dir: t.TempDir(), store: newDoor(t, lakeDir), config: quick(), hook: f.hook}
	s := mustStack(t, opt)
	fails := 2
	f.set(func(op vfs.Op) error {
		if op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".parquet") && fails > 0 {
			fails--
			return syscall.EIO
		}
		return nil
	})
	s.put(t, 0, 20)
	s.flush(t)
	wantOnce(t, rowsIn(t, lakeDir), 0, 20)
	if st := s.sup.Stats(); st.DamagedFiles != 0 || st.Retries == 0 {
		t.Errorf("stats: %+v", st)
	}
}

func TestWhatAnOperatorChecksIsLogged(t *testing.T) {
	s := mustStack(t, options{dir: t.TempDir(), lake: t.TempDir(), config: quick()})
	s.put(t, 0, 20)
	s.flush(t)
	log := s.logged.String()
	for _, want := range []string{
		`msg="period closed" stream=ingest/default table=samples rows=20 bytes=`, `key="samples/year=`,
		`msg=uploaded key="samples/year=2026/month=11/day=01/`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("%s is not in the log:\n%s", want, log)
		}
	}
	st := s.runner.Status()
	if st.Closed.Rows != 20 || st.Uploaded.Rows != 20 || st.Uploaded.Bytes <= 0 || st.Stats.UploadedFiles != 2 {
		t.Errorf("status: %+v", st)
	}
}
