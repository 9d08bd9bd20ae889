package export_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/blob/file"
	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/export"
	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/leat-io/leat/internal/vfs"
)

// stack is a node without doors: log, catalog, spool, store and the export between them.
type stack struct {
	log    *segment.Log
	db     *meta.DB
	cat    *lake.Catalog
	spool  *export.Spool
	dirs   []*vfs.Dir
	id     record.StreamID
	sup    *export.Supervisor
	runner *export.Runner
	logged *logBuffer

	running bool
	cancel  context.CancelFunc
	ended   chan error
}

// options of a stack.
type options struct {
	dir    string // data directory
	node   string
	store  blob.Store // nil: the directory lake
	lake   string
	period time.Duration
	config export.Config
	hook   vfs.Hook
	// spoolHook is on the spool and what is opened after it, instead of hook.
	spoolHook vfs.Hook
	file      lake.Config
	table     lake.TableSpec
	decode    payload.Decoder
	policy    stream.Policy
	logMax    int64
	wrap      wrapper
}

// wrapper lets a test put itself between the parts.
type wrapper interface {
	log(export.Log) export.Log
	sink(export.Sink) export.Sink
	store(blob.Store) blob.Store
}

type noWrapper struct{}

func (noWrapper) log(l export.Log) export.Log    { return l }
func (noWrapper) sink(s export.Sink) export.Sink { return s }
func (noWrapper) store(s blob.Store) blob.Store  { return s }

// quick retries fast enough for a test.
func quick() export.Config {
	return export.Config{RetryMin: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond, Poll: 10 * time.Millisecond, TargetBytes: 1 << 10}
}

func openStack(o options) (_ *stack, err error) {
	s := &stack{ended: make(chan error, 1), cancel: func() {}, logged: &logBuffer{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	sl := slog.New(slog.NewTextHandler(s.logged, nil))
	dir := func(path string) *vfs.Dir {
		if err != nil {
			return nil
		}
		var d *vfs.Dir
		if d, err = vfs.OpenDir(path, o.hook); err == nil {
			s.dirs = append(s.dirs, d)
		}
		return d
	}
	data, logDir := dir(o.dir), dir(filepath.Join(o.dir, "log"))
	if o.spoolHook != nil {
		o.hook = o.spoolHook
	}
	spoolDir := dir(filepath.Join(o.dir, "spool"))
	if err != nil {
		return nil, err
	}
	c := clock.NewSystem()
	if s.log, err = segment.Open(segment.Options{Dir: logDir, Clock: c, Logger: sl, MaxBytes: o.logMax}); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if s.db, err = meta.Open(data, meta.Options{Log: sl}); err != nil {
		return nil, err
	}
	s.cat = lake.NewCatalog(s.db, sl)
	if s.spool, err = export.OpenSpool(spoolDir, sl); err != nil {
		return nil, err
	}
	if o.store == nil {
		lakeDir := dir(o.lake)
		if err != nil {
			return nil, err
		}
		if o.store, err = file.Open(lakeDir, sl); err != nil {
			return nil, err
		}
	}
	if o.wrap == nil {
		o.wrap = noWrapper{}
	}
	if o.table.Name == "" {
		o.table.Name = "samples"
	}
	if o.decode == nil {
		o.decode = numbers{}
	}
	o.policy.UntilExported = true
	info, err := stream.Ensure(context.Background(), s.log, "ingest/default", o.policy)
	if err != nil {
		return nil, err
	}
	s.id = info.ID
	s.sup = export.New(o.config, o.wrap.log(s.log), c, s.spool.Bytes, sl)
	sink := export.NewLake(export.LakeOptions{
		Stream: s.id, Node: o.node, Spool: s.spool, Store: o.wrap.store(o.store), Config: o.file, Table: o.table,
		Catalog: s.cat, Decoder: o.decode, Log: sl,
	})
	s.runner, err = s.sup.Add(export.Spec{
		Stream: s.id, Name: info.Name, Table: o.table.Name, Period: o.period, Revision: 1, Sink: o.wrap.sink(sink),
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// run starts the exports and returns when they are recovered.
func (s *stack) run() error {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.running = cancel, true
	ready := make(chan struct{})
	go func() { s.ended <- s.sup.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
		return nil
	case err := <-s.ended:
		s.ended <- err
		return err
	}
}

// close stops and closes everything; it is what a clean stop does.
func (s *stack) close() error {
	s.cancel()
	var errs []error
	if s.running {
		s.running = false
		if err := <-s.ended; err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	for _, d := range s.dirs {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

func mustStack(t *testing.T, o options) *stack {
	t.Helper()
	if o.node == "" {
		o.node = "nodea"
	}
	if o.period == 0 {
		o.period = time.Hour
	}
	s, err := openStack(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *stack) stop(t *testing.T) {
	t.Helper()
	if s.sup == nil {
		return
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	s.sup, s.log, s.db, s.dirs = nil, nil, nil, nil
}

// put appends records with the ids [from, to).
func (s *stack) put(t *testing.T, from, to int) {
	t.Helper()
	if _, err := stream.AppendWait(t.Context(), s.log, s.id, batch(from, to)...); err != nil {
		t.Fatal(err)
	}
}

func (s *stack) flush(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.sup.Flush(ctx); err != nil {
		t.Fatalf("flush: %v\n%+v\n%s", err, s.runner.Status(), s.logged.String())
	}
}

// batch makes records whose payload is their id. Every tenth lies in another day, so that steps have several files.
func batch(from, to int) []record.Record {
	var rs []record.Record
	now := time.Now().UnixNano()
	for i := from; i < to; i++ {
		rs = append(rs, record.Record{Time: now, Key: []byte("plant/1/temperature"), Payload: fmt.Appendf(nil, "%d", i)})
	}
	return rs
}

// numbers decodes what batch makes.
type numbers struct{}

func (numbers) Decode(rec *record.Record, dst []payload.Row) ([]payload.Row, error) {
	var id int64
	if _, err := fmt.Sscan(string(rec.Payload), &id); err != nil {
		return dst, errors.New("not a number")
	}
	row := payload.Row{Topic: rec.Key, Signal: []byte("temperature"), Value: payload.Value{Kind: payload.Int, I: id}}
	if id%10 == 9 {
		row.Time, row.HasTime = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).UnixNano(), true
	}
	return append(dst, row), nil
}

// rowsIn reads the ids of all rows of the Parquet files below dir, and how often each is there.
func rowsIn(t *testing.T, dir string) map[int]int {
	t.Helper()
	type row struct {
		Value *float64 `parquet:"value,optional"`
	}
	seen := map[int]int{}
	for _, name := range parquetFiles(t, dir) {
		rows, err := parquet.ReadFile[row](name)
		if err != nil {
			t.Fatalf("read %s: %v", name, err)
		}
		for _, r := range rows {
			if r.Value == nil {
				t.Fatalf("%s: a row without a value", name)
			}
			seen[int(*r.Value)]++
		}
	}
	return seen
}

func parquetFiles(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".parquet") && !strings.Contains(path, "_rejected") {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// wantOnce fails unless every id of [from, to) is there once, and nothing else.
func wantOnce(t *testing.T, seen map[int]int, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if seen[i] != 1 {
			t.Errorf("row %d is in the lake %d times", i, seen[i])
		}
	}
	if len(seen) != to-from {
		t.Errorf("%d different rows in the lake, want %d", len(seen), to-from)
	}
}

// wantTrueManifests fails when a manifest names what is not in the store.
func wantTrueManifests(t *testing.T, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, lake.ManifestPrefix, "*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m, err := lake.DecodeManifest(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, f := range m.Files {
			if _, err := os.Stat(filepath.Join(dir, f.Key)); err != nil {
				t.Errorf("%s names what is not there: %v", name, err)
			}
		}
	}
}

// wantTidy fails unless spool, catalog, manifests and store agree that all is delivered.
func (s *stack) wantTidy(t *testing.T, dir string) {
	t.Helper()
	wantTrueManifests(t, dir)
	if n := s.spool.Bytes(); n != 0 {
		t.Errorf("%d bytes left in the spool", n)
	}
	v, err := s.cat.View()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, tab := range v.Tables {
		for _, f := range append(tab.Files, tab.Rejected...) {
			if f.Place != lake.Store {
				t.Errorf("the catalog has %s in the spool", f.Key)
			}
			known[f.Key] = true
		}
	}
	for _, name := range parquetFiles(t, dir) {
		key, err := filepath.Rel(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		if !known[key] && strings.Contains(key, s.id.String()) {
			t.Errorf("the catalog does not know %s", key)
		}
		delete(known, key)
	}
	for key := range known {
		if !strings.HasPrefix(key, "_rejected/") {
			t.Errorf("the catalog knows %s, the store does not", key)
		}
	}
}

func TestFlushCoversWhatWasAcknowledgedAndIsNotSyncedYet(t *testing.T) {
	dir := t.TempDir()
	lakeDir := filepath.Join(dir, "lake")
	s := mustStack(t, options{dir: dir, lake: lakeDir, config: quick(), policy: stream.Policy{Durability: stream.OS}})
	for i := range 5 {
		s.put(t, 10*i, 10*i+10) // readable only with the next sync, up to 100 ms from here
		s.flush(t)
		wantOnce(t, rowsIn(t, lakeDir), 0, 10*i+10)
	}
}
