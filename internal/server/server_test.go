package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/server"
	"github.com/leat-io/leat/internal/sim"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// settings are the defaults on a directory and free ports.
func settings(t *testing.T, dir string, flags map[string]string) config.Config {
	t.Helper()
	all := map[string]string{"data_dir": dir, "mqtt.listen": "127.0.0.1:0", "http.listen": "127.0.0.1:0",
		"stream_manager.listen": "127.0.0.1:0", "ingest.period": "1h"}
	for k, v := range flags {
		all[k] = v
	}
	l, err := config.Load(config.Source{Flags: all})
	if err != nil {
		t.Fatal(err)
	}
	return l.Config
}

// node is a running server.
type node struct {
	*server.Server
	stop   func()
	ended  chan error
	client *api.Client
	log    *logBuffer
}

type logBuffer struct{ testenv.Output }

func start(t *testing.T, o server.Options) *node {
	t.Helper()
	n := &node{ended: make(chan error, 1), log: new(logBuffer)}
	o.Version, o.Log = "test", slog.New(slog.NewTextHandler(n.log, nil))
	var err error
	if n.Server, err = server.Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	ready := make(chan struct{})
	go func() { n.ended <- n.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-n.ended:
		t.Fatal(err)
	}
	n.client = api.NewClient(o.Config.DataDir)
	t.Cleanup(func() { n.end(t) })
	return n
}

// end stops the node and returns what Run returned; a second call does nothing.
func (n *node) end(t *testing.T) error {
	t.Helper()
	if n.stop == nil {
		return nil
	}
	n.stop()
	n.stop = nil
	err := <-n.ended
	n.client.Close()
	if cerr := n.Close(); cerr != nil {
		t.Errorf("close: %v", cerr)
	}
	return err
}

func (n *node) address(door string) string {
	for _, l := range n.Status().Listeners {
		if l.Door == door {
			_, addr, found := strings.Cut(l.Address, "://")
			if !found {
				addr = l.Address
			}
			return addr
		}
	}
	return ""
}

func load(t *testing.T, n *node, first, count int) sim.LoadResult {
	t.Helper()
	res, err := sim.Load(t.Context(), sim.LoadConfig{Addr: n.address("mqtt"), First: first, Messages: count, Connections: 2})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestWhatWasAcknowledgedIsInTheLakeOnceOverARestart(t *testing.T) {
	dir := t.TempDir()
	cfg := settings(t, dir, nil)
	n := start(t, server.Options{Config: cfg})
	load(t, n, 0, 1000)
	began := time.Now()
	if err := n.end(t); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("a clean stop took %s", took)
	}

	n = start(t, server.Options{Config: cfg})
	load(t, n, 1000, 500)
	if err := n.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := n.client.Files(t.Context(), "samples")
	if err != nil {
		t.Fatal(err)
	}
	var rows int64
	for _, f := range files {
		rows += f.Rows
		if _, err := os.Stat(filepath.Join(dir, "lake", f.Key)); err != nil || f.Place != "store" {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if const3 := int64(3 * 1500); rows != const3 { // three values in each message
		t.Errorf("%d rows, want %d", rows, const3)
	}
	for _, want := range []string{"disk budget", "first message", "period closed", "uploaded", "listening"} {
		if !strings.Contains(n.log.String(), want) {
			t.Errorf("no line %q in\n%s", want, n.log)
		}
	}
}

func TestMetricsTellWhatHappened(t *testing.T) {
	n := start(t, server.Options{Config: settings(t, t.TempDir(), nil)})
	load(t, n, 0, 100)
	tr := &http.Transport{DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.address("http")+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`leat_ingest_messages_total{rule="default",table="samples"} 100`, `leat_log_records_total{lane="short"} 100`,
		`leat_stream_records{stream="ingest/default"} 100`, "leat_mqtt_messages_total 100", "leat_export_backlog_records",
		`leat_ready{node="` + n.Status().Node + `",version="test"} 1`, "leat_query_answered_total 0", "process_resident_memory_bytes",
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
}

func TestTwoNodesCannotShareADirectory(t *testing.T) {
	cfg := settings(t, t.TempDir(), nil)
	start(t, server.Options{Config: cfg})
	_, err := server.Open(t.Context(), server.Options{Config: cfg, Log: slog.New(slog.DiscardHandler)})
	if record.KindOf(err) != record.Conflict || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", os.Getpid())) ||
		!strings.Contains(record.HintOf(err), "--data-dir") {
		t.Fatalf("%v, hint %q", err, record.HintOf(err))
	}
}

func TestAFailedOpenGivesEverythingBack(t *testing.T) {
	dir := t.TempDir()
	taken := start(t, server.Options{Config: settings(t, t.TempDir(), nil)})
	bad := settings(t, dir, map[string]string{"mqtt.listen": taken.address("mqtt")})
	if _, err := server.Open(t.Context(), server.Options{Config: bad, Log: slog.New(slog.DiscardHandler)}); record.KindOf(err) != record.Conflict {
		t.Fatalf("got %v, want a conflict about the port", err)
	}
	start(t, server.Options{Config: settings(t, dir, nil)}) // fails if a lock or a socket was left
}

func TestAFailedSyncEndsTheNodeAndAcknowledgesNothing(t *testing.T) {
	var broken atomic.Bool
	cfg := settings(t, t.TempDir(), nil)
	n := start(t, server.Options{Config: cfg, Hook: func(op vfs.Op) error {
		if broken.Load() && op.Kind == vfs.OpSync && strings.HasPrefix(op.Name, "log/") {
			return syscall.EIO
		}
		return nil
	}})
	before := load(t, n, 0, 100)
	broken.Store(true)
	res, err := sim.Load(t.Context(), sim.LoadConfig{Addr: n.address("mqtt"), First: 100, Messages: 100, Connections: 1})
	if err == nil || res.Acked.Len() != 0 {
		t.Errorf("%d messages acknowledged after the sync failed, err %v", res.Acked.Len(), err)
	}
	runErr := <-n.ended
	if !errors.Is(runErr, syscall.EIO) || record.HintOf(runErr) == "" {
		t.Errorf("Run returned %v, hint %q; want EIO and what to do", runErr, record.HintOf(runErr))
	}
	n.stop()
	n.stop = nil
	n.client.Close()
	if err := n.Close(); err != nil {
		t.Logf("close after the failure: %v", err)
	}
	broken.Store(false)
	again := start(t, server.Options{Config: cfg})
	list, err := again.client.Streams(t.Context(), "ingest/")
	if err != nil || len(list) != 1 || int64(list[0].Next) < before.Acked.Len() {
		t.Errorf("%+v, %v: want at least the %d acknowledged records", list, err, before.Acked.Len())
	}
}

func TestADamagedCatalogIsRestoredFromTheStore(t *testing.T) {
	dir := t.TempDir()
	cfg := settings(t, dir, nil)
	n := start(t, server.Options{Config: cfg})
	load(t, n, 0, 100)
	if err := n.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.end(t)
	if err := os.WriteFile(filepath.Join(dir, "meta.db"), bytes.Repeat([]byte("x"), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	n = start(t, server.Options{Config: cfg})
	testenv.Wait(t, 20*time.Second, func() bool {
		files, err := n.client.Files(t.Context(), "")
		return err == nil && len(files) == 1 && files[0].Rows == 300
	}, "the file to be back in the catalog")
}

// What a query had on the disk when the power went is no room that others take: it goes before the budget is measured.
func TestLeftoversOfQueriesGoBeforeTheRoomIsMeasured(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "query/x/scratch"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "query/x/scratch/result.parquet"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	gone := false
	var once sync.Once
	n := start(t, server.Options{Config: settings(t, dir, nil), Hook: func(op vfs.Op) error {
		if op.Name == "node" || strings.HasPrefix(op.Name, "log/") { // what follows the measuring
			once.Do(func() {
				_, err := os.Stat(filepath.Join(dir, "query/x"))
				gone = errors.Is(err, os.ErrNotExist)
			})
		}
		return nil
	}})
	n.end(t)
	if !gone {
		t.Error("the leftovers were still there")
	}
}

// A manifest names a file that was lost on the way to the store; the note beside it says so, and no query may look for it.
func TestFilesNotedAsLostAreNotRestored(t *testing.T) {
	dir := t.TempDir()
	cfg := settings(t, dir, nil)
	n := start(t, server.Options{Config: cfg})
	for i := range 2 {
		load(t, n, i*100, 100)
		if err := n.client.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	files, err := n.client.Files(t.Context(), "")
	if err != nil || len(files) != 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	lost, kept := files[0], files[1]
	n.end(t)
	manifests, err := filepath.Glob(filepath.Join(dir, "lake/_manifests/*/*.json"))
	if err != nil || len(manifests) != 2 {
		t.Fatalf("manifests %v, %v", manifests, err)
	}
	note := fmt.Sprintf(`{"version": 1, "damaged": [{"key": %q, "sha256": "%064d"}]}`, lost.Key, 0)
	for name, err := range map[string]error{
		"write the note": os.WriteFile(strings.TrimSuffix(manifests[0], ".json")+"-damaged-00000000.json", []byte(note), 0o600),
		"lose the file":  os.Remove(filepath.Join(dir, "lake", lost.Key)),
		"lose meta.db":   os.Remove(filepath.Join(dir, "meta.db")),
	} {
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	n = start(t, server.Options{Config: cfg})
	testenv.Wait(t, 20*time.Second, func() bool { return strings.Contains(n.log.String(), "catalog restored") }, "the catalog to be restored")
	files, err = n.client.Files(t.Context(), "")
	if err != nil || len(files) != 1 || files[0].Key != kept.Key {
		t.Errorf("files %+v, %v; want %s alone", files, err, kept.Key)
	}
	if strings.Contains(n.log.String(), "manifest passed over") {
		t.Error("the note was taken for a manifest")
	}
}

// A manifest that does not fit the tables as they are now keeps no other file out of the catalog.
func TestAManifestThatDoesNotFitIsReportedAndPassedOver(t *testing.T) {
	dir := t.TempDir()
	cfg := settings(t, dir, nil)
	n := start(t, server.Options{Config: cfg})
	load(t, n, 0, 100)
	if err := n.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.end(t)
	manifests, err := filepath.Glob(filepath.Join(dir, "lake/_manifests/*/*.json"))
	if err != nil || len(manifests) != 1 {
		t.Fatalf("manifests %v, %v", manifests, err)
	}
	text, err := os.ReadFile(manifests[0])
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.ReplaceAll(text, []byte(`"type": "double"`), []byte(`"type": "text"`))
	if err := os.WriteFile(filepath.Join(filepath.Dir(manifests[0]), "0.json"), other, 0o600); err != nil || bytes.Equal(text, other) {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "meta.db")); err != nil {
		t.Fatal(err)
	}
	n = start(t, server.Options{Config: cfg})
	testenv.Wait(t, 20*time.Second, func() bool {
		files, err := n.client.Files(t.Context(), "")
		return err == nil && len(files) == 1
	}, "the file to be back in the catalog")
	testenv.Wait(t, 20*time.Second, func() bool {
		d := n.Status().Degraded
		return len(d) == 1 && d[0].What == "catalog" && strings.Contains(d[0].Why, "0.json")
	}, "the manifest to be reported")
}

func TestALostCatalogIsRestoredByALaterStartWhenTheStoreIsAwayAtFirst(t *testing.T) {
	dir, lakeDir := t.TempDir(), filepath.Join(t.TempDir(), "lake")
	flags := map[string]string{"store.dir": lakeDir, "export.retry_min": "10ms", "export.retry_max": "20ms"}
	cfg := settings(t, dir, flags)
	n := start(t, server.Options{Config: cfg})
	load(t, n, 0, 100)
	if err := n.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.end(t)
	if err := os.Remove(filepath.Join(dir, "meta.db")); err != nil {
		t.Fatal(err)
	}

	away := settings(t, dir, map[string]string{
		"store.s3.bucket": "b", "store.s3.endpoint": "http://" + testenv.Addr(t), "store.s3.access_key": "a", "store.s3.secret_key": "s",
		"export.retry_min": "10ms", "export.retry_max": "20ms",
	})
	n = start(t, server.Options{Config: away})
	testenv.Wait(t, 20*time.Second, func() bool {
		for _, d := range n.Status().Degraded {
			if d.What == "catalog" {
				return true
			}
		}
		return false
	}, "the missing files to show as degraded")
	n.end(t)
	if lines := strings.Count(n.log.String(), "catalog not restored yet"); lines != 1 {
		t.Errorf("%d lines about one and the same failure, want 1:\n%s", lines, n.log)
	}

	n = start(t, server.Options{Config: cfg})
	testenv.Wait(t, 20*time.Second, func() bool {
		files, err := n.client.Files(t.Context(), "")
		return err == nil && len(files) == 1 && files[0].Rows == 300 && len(n.Status().Degraded) == 0
	}, "the file to be back in the catalog")
}

func TestABacklogLeavesBeforeItFillsTheLog(t *testing.T) {
	n := start(t, server.Options{Config: settings(t, t.TempDir(), map[string]string{"disk.budget": "64MiB", "export.poll": "10ms"})})
	// More than the log may hold (25.6 MiB), in a period of an hour: what is there must leave meanwhile.
	const messages = 600_000
	res, err := sim.Load(t.Context(), sim.LoadConfig{
		Addr: n.address("mqtt"), Messages: messages, Connections: 2, Reconnect: time.Minute, Prefix: strings.Repeat("long-prefix/", 4),
		Resend: true, // where encoding is slow, as under the race detector, some are refused first
	})
	if err != nil || res.Acked.Len() != messages {
		t.Fatalf("%d messages acknowledged, %v", res.Acked.Len(), err)
	}
}

func TestWhatARemovedRuleHasLeftIsAskedForAndExported(t *testing.T) {
	dir := t.TempDir()
	n := start(t, server.Options{Config: settings(t, dir, nil)}) // the rule "default"
	load(t, n, 0, 100)
	n.end(t)

	cfg := settings(t, dir, nil)
	cfg.Ingest.Rules = []ingest.Rule{{Name: "other", Topics: []string{"other/#"}, Table: "other"}}
	n = start(t, server.Options{Config: cfg})
	load(t, n, 100, 10) // no rule wants these any more
	if err := n.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := n.client.Files(t.Context(), "samples")
	if err != nil || len(files) != 1 || files[0].Rows != 300 || files[0].Place != "store" {
		t.Errorf("files %+v, %v; want the 300 rows of before", files, err)
	}
	if !strings.Contains(n.log.String(), "still exported") {
		t.Errorf("not a word about it in\n%s", n.log)
	}
	n.end(t)

	n = start(t, server.Options{Config: cfg}) // now there is nothing left to speak of
	if strings.Contains(n.log.String(), "no longer configured") {
		t.Errorf("an empty stream is worth no line:\n%s", n.log)
	}
}

func TestWhatARemovedRuleHasLeftStaysWhenItsTableIsAnotherOne(t *testing.T) {
	dir := t.TempDir()
	n := start(t, server.Options{Config: settings(t, dir, nil)})
	load(t, n, 0, 100)
	n.end(t)

	cfg := settings(t, dir, nil)
	cfg.Ingest.Rules = []ingest.Rule{{Name: "other", Topics: []string{"other/#"}, Table: "other"}}
	cfg.Store.TablePrefix = false // all keys belong to one table
	n = start(t, server.Options{Config: cfg})
	if got := n.log.String(); !strings.Contains(got, "no longer configured") || !strings.Contains(got, "records=100") {
		t.Errorf("no warning in\n%s", got)
	}
	n.end(t)
	n = start(t, server.Options{Config: settings(t, dir, nil)})
	if err := n.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if files, err := n.client.Files(t.Context(), "samples"); err != nil || len(files) != 1 || files[0].Rows != 300 {
		t.Errorf("files %+v, %v", files, err)
	}
}

func TestAStoreThatIsAwayShowsAsDegradedAndNotAsAFailure(t *testing.T) {
	n := start(t, server.Options{Config: settings(t, t.TempDir(), map[string]string{
		"store.s3.bucket": "b", "store.s3.endpoint": "http://" + testenv.Addr(t), "store.s3.access_key": "a", "store.s3.secret_key": "s",
		"export.retry_min": "10ms", "export.retry_max": "20ms", "ingest.period": "1s",
	})})
	load(t, n, 0, 10)
	testenv.Wait(t, 30*time.Second, func() bool {
		st := n.Status()
		return st.Ready && len(st.Degraded) > 0 && strings.Contains(st.Degraded[0].What, "export")
	}, "the export to show as degraded")
}

func TestLogFilesStayBelowTheirLimit(t *testing.T) {
	dir := t.TempDir()
	log, closer, err := server.NewLogger(config.Logging{Level: "info", Format: "json", File: "logs/leat.log", DiskLimit: 64 << 10}, dir, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5000 {
		log.Info("line", "number", i)
	}
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	var sum int64
	files, err := filepath.Glob(filepath.Join(dir, "logs/*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("files %q, %v; want the file and its predecessor", files, err)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		sum += st.Size()
	}
	if sum > 64<<10 || sum < 32<<10 {
		t.Errorf("%d bytes in %q, want at most 64 KiB and more than half of it", sum, files)
	}
	newest, err := os.ReadFile(filepath.Join(dir, "logs/leat.log"))
	if err != nil || !bytes.Contains(newest, []byte(`"number":4999`)) {
		t.Errorf("the newest line is not in the newest file: %v", err)
	}
}
