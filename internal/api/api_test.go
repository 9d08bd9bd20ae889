package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/memory"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeQuery is a Querier that tests script.
type fakeQuery func(ctx context.Context, q api.QueryRequest, out io.Writer, progress func(api.QueryProgress)) error

func (f fakeQuery) Query(ctx context.Context, q api.QueryRequest, out io.Writer, p func(api.QueryProgress)) error {
	return f(ctx, q, out, p)
}

// fakeLake is a Lake that tests script.
type fakeLake struct {
	files []api.File
	flush error
}

func (f fakeLake) Files(table string) ([]api.File, error) {
	if table == "missing" {
		return nil, record.Errorf(record.NotFound, "no table %q", table)
	}
	return f.files, nil
}

func (f fakeLake) Flush(context.Context) error { return f.flush }

// serve runs a server of node until the test ends and returns its data directory and TCP address.
func serve(t *testing.T, node api.Node, change func(*api.Config)) (dataDir, addr string) {
	t.Helper()
	if node.Status == nil {
		node.Status = func() api.Status { return api.Status{Ready: true} }
	}
	cfg := api.DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	dataDir = t.TempDir()
	socket, err := api.ListenSocket(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.New(cfg, node, slog.New(slog.DiscardHandler)).Serve(ctx, socket, tcp) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return dataDir, tcp.Addr().String()
}

func client(t *testing.T, dataDir string) *api.Client {
	t.Helper()
	c := api.NewClient(dataDir)
	t.Cleanup(c.Close)
	return c
}

// engine is a memory engine with one stream of n records.
func engine(t *testing.T, name record.StreamName, n int) stream.Engine {
	t.Helper()
	e := memory.Open(memory.Options{})
	t.Cleanup(func() { e.Close() })
	info, err := stream.Ensure(t.Context(), e, name, stream.Policy{UntilExported: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		add(t, e, info.ID, i)
	}
	return e
}

func add(t *testing.T, e stream.Engine, id record.StreamID, i int) {
	t.Helper()
	rec := record.Record{Time: int64(i), Key: []byte("plant/a"), Payload: fmt.Appendf(nil, "%d", i)}
	if _, err := stream.AppendWait(t.Context(), e, id, rec); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, url, host string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestReadyTellsWhatIsDegradedAndStaysReady(t *testing.T) {
	st := api.Status{Ready: true, Degraded: []api.Degraded{{What: "store", Why: "bucket is gone"}}}
	var mu sync.Mutex
	_, addr := serve(t, api.Node{Status: func() api.Status { mu.Lock(); defer mu.Unlock(); return st }}, nil)
	if code, body := get(t, "http://"+addr+"/readyz", ""); code != 200 || !strings.Contains(body, "bucket is gone") {
		t.Errorf("%d %s", code, body)
	}
	mu.Lock()
	st.Ready = false
	mu.Unlock()
	if code, _ := get(t, "http://"+addr+"/readyz", ""); code != 503 {
		t.Errorf("not ready: %d, want 503", code)
	}
	if code, _ := get(t, "http://"+addr+"/healthz", ""); code != 200 {
		t.Errorf("healthz: %d, want 200 while not ready", code)
	}
}

func TestHostsThatAWebPageCouldChooseAreRefused(t *testing.T) {
	_, addr := serve(t, api.Node{}, func(c *api.Config) { c.AllowedHosts = []string{"box.plant"} })
	for host, want := range map[string]int{
		"localhost:8080": 200, "127.0.0.1": 200, "[::1]:8080": 200, "192.168.1.5:8080": 200, "box.plant": 200, "BOX.plant:8080": 200,
		"evil.example": 403, "localhost.evil.example": 403, "127.0.0.1.nip.io": 403, "box.plant.evil": 403,
	} {
		if code, body := get(t, "http://"+addr+"/healthz", host); code != want {
			t.Errorf("host %s: %d %s, want %d", host, code, body, want)
		}
	}
}

func TestWritingRequestsFromOtherOriginsAreRefused(t *testing.T) {
	e := engine(t, "a/b", 0)
	ran := false
	_, addr := serve(t, api.Node{
		Streams: e, Owner: &fakeOwner{Engine: e},
		Query: fakeQuery(func(context.Context, api.QueryRequest, io.Writer, func(api.QueryProgress)) error {
			ran = true
			return nil
		}),
	}, nil)
	for _, x := range []struct{ method, path, body string }{
		{http.MethodPost, "/api/v1/query", `{"sql":"SELECT 1"}`},
		{http.MethodPost, "/api/v1/streams/records?name=a/b", "x"},
		{http.MethodDelete, "/api/v1/streams?name=a/b&force=1", ""},
	} {
		for header, value := range map[string]string{"Origin": "https://evil.example", "Host": "evil.example"} {
			req, err := http.NewRequestWithContext(t.Context(), x.method, "http://"+addr+x.path, strings.NewReader(x.body))
			if err != nil {
				t.Fatal(err)
			}
			if header == "Host" {
				req.Host = value
			} else {
				req.Header.Set(header, value)
			}
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 403 {
				t.Errorf("%s %s with %s %s: %d, want 403", x.method, x.path, header, value, resp.StatusCode)
			}
		}
	}
	if info, err := e.Lookup("a/b"); err != nil || info.Bounds.Next != 0 || ran {
		t.Errorf("a refused request was carried out: %+v, %v, query ran %v", info, err, ran)
	}
}

func TestStreamsAreListedWithPolicyAndCursors(t *testing.T) {
	e := engine(t, "ingest/default", 3)
	info, err := e.Lookup("ingest/default")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.StoreCursor(t.Context(), info.ID, "export/lake", stream.Cursor{Offset: 2}); err != nil {
		t.Fatal(err)
	}
	dir, _ := serve(t, api.Node{Streams: e}, nil)
	got, err := client(t, dir).Streams(t.Context(), "ingest/")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Next != 3 || !got[0].Policy.UntilExported || got[0].Policy.Durability != "disk" || got[0].Cursors["export/lake"] != 2 {
		t.Fatalf("%+v", got)
	}
}

func TestTailEndsAtWhatIsReadableOrFollows(t *testing.T) {
	e := engine(t, "ingest/default", 10)
	info, err := e.Lookup("ingest/default")
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := serve(t, api.Node{Streams: e}, nil)
	c := client(t, dir)
	for _, x := range []struct {
		o    api.TailOptions
		want string
	}{
		{api.TailOptions{From: "first"}, "0123456789"},
		{api.TailOptions{From: "7"}, "789"},
		{api.TailOptions{From: "first", Limit: 2}, "01"},
		{api.TailOptions{From: "last", Limit: 4}, "6789"},
		{api.TailOptions{From: "end"}, ""},
	} {
		var got string
		err := c.Tail(t.Context(), "ingest/default", x.o, func(r api.Record) error { got += r.Payload; return nil })
		if err != nil || got != x.want {
			t.Errorf("%+v: %q, %v; want %q", x.o, got, err, x.want)
		}
	}
	enough := errors.New("enough")
	got := ""
	err = c.Tail(t.Context(), "ingest/default", api.TailOptions{From: "8", Follow: true}, func(r api.Record) error {
		if got += r.Payload; r.Payload == "9" {
			add(t, e, info.ID, 10)
		}
		if r.Payload == "10" {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || got != "8910" {
		t.Errorf("%q, %v", got, err)
	}
}

// fakeOwner keeps what it is given; gate, when it is set, holds puts up.
type fakeOwner struct {
	stream.Engine
	gate    chan struct{}
	entered chan struct{}
	removed []record.StreamName
}

func (f *fakeOwner) Put(ctx context.Context, name record.StreamName, records []record.Record) (record.Offset, error) {
	if f.gate != nil {
		f.entered <- struct{}{}
		select {
		case <-f.gate:
		case <-ctx.Done():
		}
	}
	info, err := f.Lookup(name)
	if err != nil {
		return 0, err
	}
	return stream.AppendWait(ctx, f.Engine, info.ID, records...)
}

func (f *fakeOwner) Remove(ctx context.Context, name record.StreamName) error {
	info, err := f.Lookup(name)
	if err != nil {
		return err
	}
	f.removed = append(f.removed, name)
	_, err = f.Commit(ctx, stream.Change{Delete: &stream.Delete{ID: info.ID}})
	return err
}

func TestPutAppendsOneRecordOrOnePerLine(t *testing.T) {
	e := engine(t, "a/b", 0)
	dir, _ := serve(t, api.Node{Streams: e, Owner: &fakeOwner{Engine: e}}, nil)
	c := client(t, dir)
	var want []string
	for _, x := range []struct {
		body  string
		lines bool
		want  []string
	}{
		{"one\ntwo\n", false, []string{"one\ntwo\n"}},
		{"one\ntwo\n", true, []string{"one", "two"}},
		{"no end", true, []string{"no end"}},
		{"a\n\nb\r\n", true, []string{"a", "", "b\r"}},
		{"", false, []string{""}},
	} {
		p, err := c.Put(t.Context(), "a/b", "plant/a", []byte(x.body), x.lines)
		if err != nil || int(p.First) != len(want) || p.Count != len(x.want) {
			t.Errorf("%q: %+v, %v; want %d at %d", x.body, p, err, len(x.want), len(want))
		}
		want = append(want, x.want...)
	}
	var got []string
	err := c.Tail(t.Context(), "a/b", api.TailOptions{From: "first"}, func(r api.Record) error {
		if r.Key != "plant/a" {
			t.Errorf("key %q", r.Key)
		}
		got = append(got, r.Payload)
		return nil
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestPutRefusesWhatIsTooLarge(t *testing.T) {
	e := engine(t, "a/b", 0)
	dir, _ := serve(t, api.Node{Streams: e, Owner: &fakeOwner{Engine: e}}, nil)
	c := client(t, dir)
	largest := bytes.Repeat([]byte("x"), record.MaxPayload)
	if _, err := c.Put(t.Context(), "a/b", "", largest, false); err != nil {
		t.Errorf("the largest record: %v", err)
	}
	for what, x := range map[string]struct {
		name, key string
		body      []byte
		lines     bool
		want      record.Kind
	}{
		"body":   {"a/b", "", append(largest, 'x'), false, record.Invalid},
		"lines":  {"a/b", "", bytes.Repeat([]byte("\n"), 1<<16+1), true, record.Invalid},
		"stream": {"a/c", "", []byte("x"), false, record.NotFound},
	} {
		if _, err := c.Put(t.Context(), x.name, x.key, x.body, x.lines); err == nil || record.KindOf(err) != x.want {
			t.Errorf("%s: %v, want kind %v", what, err, x.want)
		}
	}
	if info, err := e.Lookup("a/b"); err != nil || info.Bounds.Next != 1 {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestPutsAtOnceAreBounded(t *testing.T) {
	const puts, atOnce = 10, 4
	e := engine(t, "a/b", 0)
	o := &fakeOwner{Engine: e, gate: make(chan struct{}), entered: make(chan struct{}, puts)}
	dir, _ := serve(t, api.Node{Streams: e, Owner: o}, nil)
	var running sync.WaitGroup
	for range puts {
		c := client(t, dir)
		running.Go(func() {
			if _, err := c.Put(t.Context(), "a/b", "", []byte("x"), false); err != nil {
				t.Error(err)
			}
		})
	}
	for range atOnce {
		<-o.entered
	}
	select {
	case <-o.entered:
		t.Errorf("more than %d puts at once", atOnce)
	case <-time.After(50 * time.Millisecond): // long enough to see a bound that is not there
	}
	close(o.gate)
	running.Wait()
}

func TestRemoveKeepsWhatHoldsRecordsUnlessForced(t *testing.T) {
	e := engine(t, "a/b", 3)
	if _, err := stream.Ensure(t.Context(), e, "a/empty", stream.Policy{}); err != nil {
		t.Fatal(err)
	}
	o := &fakeOwner{Engine: e}
	dir, _ := serve(t, api.Node{Streams: e, Owner: o}, nil)
	c := client(t, dir)
	if err := c.Remove(t.Context(), "a/empty", false); err != nil {
		t.Error(err)
	}
	err := c.Remove(t.Context(), "a/b", false)
	if record.KindOf(err) != record.Conflict || !strings.Contains(record.HintOf(err), "--yes") {
		t.Errorf("%v, hint %q", err, record.HintOf(err))
	}
	if err := c.Remove(t.Context(), "a/b", true); err != nil {
		t.Error(err)
	}
	if err := c.Remove(t.Context(), "a/b", true); record.KindOf(err) != record.NotFound {
		t.Errorf("removed twice: %v", err)
	}
	if want := []record.StreamName{"a/empty", "a/b"}; !slices.Equal(o.removed, want) {
		t.Errorf("removed %v, want %v", o.removed, want)
	}
}

func TestANodeWithoutAnOwnerChangesNoStreams(t *testing.T) {
	dir, _ := serve(t, api.Node{Streams: engine(t, "a/b", 1)}, nil)
	c := client(t, dir)
	if _, err := c.Put(t.Context(), "a/b", "", []byte("x"), false); record.KindOf(err) != record.Unavailable {
		t.Errorf("put: %v", err)
	}
	if err := c.Remove(t.Context(), "a/b", true); record.KindOf(err) != record.Unavailable {
		t.Errorf("remove: %v", err)
	}
}

// lateEngine shows records only once it was asked to sync, as the log does at level OS.
type lateEngine struct {
	stream.Engine
	synced atomic.Bool
}

func (l *lateEngine) Sync(context.Context, record.StreamID) error { l.synced.Store(true); return nil }

func (l *lateEngine) Lookup(name record.StreamName) (stream.Info, error) {
	info, err := l.Engine.Lookup(name)
	if !l.synced.Load() {
		info.Bounds.Readable = 0
	}
	return info, err
}

func TestTailShowsWhatWasAcknowledged(t *testing.T) {
	e := &lateEngine{Engine: engine(t, "a/b", 3)}
	dir, _ := serve(t, api.Node{Streams: e}, nil)
	var got string
	err := client(t, dir).Tail(t.Context(), "a/b", api.TailOptions{From: "last", Limit: 2}, func(r api.Record) error {
		got += r.Payload
		return nil
	})
	if err != nil || got != "12" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestStreamsTellOfTheirExports(t *testing.T) {
	want := api.Export{
		Identifier: "cloud", Kind: "kinesis", Next: 2, LagRecords: 1, LagBytes: 10, LagSeconds: 1.5, Delivered: 7, Skipped: 1, Dropped: 3,
		Retries: 2, LastError: "no such stream", Hint: "create it",
	}
	dir, _ := serve(t, api.Node{Streams: engine(t, "a/b", 3), Exports: func(name record.StreamName) []api.Export {
		if name != "a/b" {
			t.Errorf("asked for exports of %s", name)
		}
		return []api.Export{want}
	}}, nil)
	got, err := client(t, dir).Streams(t.Context(), "a/")
	if err != nil || len(got) != 1 || !slices.Equal(got[0].Exports, []api.Export{want}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestErrorsCrossWithKindAndHint(t *testing.T) {
	dir, _ := serve(t, api.Node{
		Streams: engine(t, "a/b", 0), Lake: fakeLake{flush: record.Errorf(record.Unavailable, "store is away").WithHint("wait")},
		Query: fakeQuery(func(context.Context, api.QueryRequest, io.Writer, func(api.QueryProgress)) error {
			return record.Errorf(record.Invalid, "no such column").WithHint("look at the columns")
		}),
	}, nil)
	c := client(t, dir)
	_, missing := c.Files(t.Context(), "missing")
	for name, x := range map[string]struct {
		err  error
		kind record.Kind
		hint string
	}{
		"stream": {c.Tail(t.Context(), "no/such", api.TailOptions{}, nil), record.NotFound, ""},
		"table":  {missing, record.NotFound, ""},
		"flush":  {c.Flush(t.Context()), record.Unavailable, "wait"},
		"query":  {c.Query(t.Context(), api.QueryRequest{SQL: "x"}, io.Discard, nil), record.Invalid, "look at the columns"},
	} {
		if record.KindOf(x.err) != x.kind || record.HintOf(x.err) != x.hint {
			t.Errorf("%s: %v (%v, %q); want %v, %q", name, x.err, record.KindOf(x.err), record.HintOf(x.err), x.kind, x.hint)
		}
	}
}

func TestQueryStreamsRowsAndProgress(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789"), 300_000)
	dir, addr := serve(t, api.Node{Query: fakeQuery(func(_ context.Context, q api.QueryRequest, out io.Writer, p func(api.QueryProgress)) error {
		p(api.QueryProgress{Stage: "scan", Percent: 50})
		if _, err := out.Write(big); err != nil {
			return err
		}
		if q.SQL == "fail" {
			return record.Errorf(record.Internal, "worker died")
		}
		return nil
	})}, nil)
	var got bytes.Buffer
	var stages []string
	err := client(t, dir).Query(t.Context(), api.QueryRequest{SQL: "x"}, &got, func(p api.QueryProgress) { stages = append(stages, p.Stage) })
	if err != nil || !bytes.Equal(got.Bytes(), big) || len(stages) != 1 || stages[0] != "scan" {
		t.Fatalf("%v, %d bytes, stages %q", err, got.Len(), stages)
	}
	err = client(t, dir).Query(t.Context(), api.QueryRequest{SQL: "fail"}, io.Discard, nil)
	if err == nil || !strings.Contains(err.Error(), "worker died") {
		t.Errorf("framed failure: %v", err)
	}
	resp, err := http.Post("http://"+addr+"/api/v1/query", "application/json", strings.NewReader(`{"sql":"fail","format":"csv"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("a failure after the first row must not look like a complete result")
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestWarningsOfAPlainAnswerAreInItsTrailer(t *testing.T) {
	_, addr := serve(t, api.Node{Query: fakeQuery(func(_ context.Context, _ api.QueryRequest, out io.Writer, p func(api.QueryProgress)) error {
		_, err := io.WriteString(out, "n\r\n1\r\n")
		p(api.QueryProgress{Warning: "one"})
		p(api.QueryProgress{Warning: "two"})
		return err
	})}, nil)
	resp, err := http.Post("http://"+addr+"/api/v1/query", "application/json", strings.NewReader(`{"sql":"x","format":"csv"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if got := resp.Trailer["Leat-Warning"]; err != nil || string(body) != "n\r\n1\r\n" || len(got) != 2 || got[1] != "two" {
		t.Errorf("%q, %v, warnings %q", body, err, got)
	}
}

func TestAClientThatGoesAwayCancelsItsQuery(t *testing.T) {
	started, ended := make(chan struct{}), make(chan error, 1)
	dir, _ := serve(t, api.Node{Query: fakeQuery(func(ctx context.Context, _ api.QueryRequest, _ io.Writer, _ func(api.QueryProgress)) error {
		close(started)
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	})}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	if err := client(t, dir).Query(ctx, api.QueryRequest{SQL: "x"}, io.Discard, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the query went on")
	}
}

func TestStopEndsTailsAndQueriesSoon(t *testing.T) {
	e := engine(t, "a/b", 1)
	dataDir := t.TempDir()
	socket, err := api.ListenSocket(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- api.New(api.DefaultConfig(), api.Node{Streams: e}, slog.New(slog.DiscardHandler)).Serve(ctx, socket, nil)
	}()
	c := client(t, dataDir)
	first := make(chan struct{})
	tail := make(chan error, 1)
	go func() {
		tail <- c.Tail(t.Context(), "a/b", api.TailOptions{From: "first", Follow: true}, func(api.Record) error { close(first); return nil })
	}()
	<-first
	began := time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 900*time.Millisecond {
		t.Errorf("stop took %s", took)
	}
	<-tail
}

func TestBadRequestsAreRefused(t *testing.T) {
	_, addr := serve(t, api.Node{Streams: engine(t, "a/b", 1), Query: fakeQuery(nil)}, nil)
	for body, want := range map[string]int{
		"": 400, "{": 400, `{"sq":"x"}`: 400, `{"sql":"` + strings.Repeat("x", 2<<20) + `"}`: 400,
	} {
		resp, err := http.Post("http://"+addr+"/api/v1/query", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%.20q: %d, want %d", body, resp.StatusCode, want)
		}
	}
	for path, want := range map[string]int{"/api/v1/streams/records?name=a/b&from=x": 400, "/api/v1/streams/records?name=a/b&limit=-1": 400, "/nowhere": 404} {
		if code, body := get(t, "http://"+addr+path, ""); code != want || !strings.Contains(body, `"message"`) {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestNobodyHomeIsSaidWithARemedy(t *testing.T) {
	_, err := client(t, t.TempDir()).Status(t.Context())
	if record.KindOf(err) != record.Unavailable || !strings.Contains(record.HintOf(err), "leat serve") {
		t.Fatalf("%v, hint %q", err, record.HintOf(err))
	}
}

func TestSocketWorksBelowALongPathAndReplacesAStaleOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time the first one's file is there
		l, err := api.ListenSocket(dir)
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"node":"n"}`) }))
		srv.Listener.Close()
		srv.Listener = l
		srv.Start()
		c := api.NewClient(dir)
		st, err := c.Status(t.Context())
		c.Close()
		srv.Close()
		if err != nil || st.Node != "n" {
			t.Fatalf("%+v, %v", st, err)
		}
	}
}

func TestMoreConnectionsThanAllowedWait(t *testing.T) {
	_, addr := serve(t, api.Node{}, func(c *api.Config) { c.MaxConnections = 1 })
	held, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(held, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := held.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	go func() { defer close(answered); get(t, "http://"+addr+"/healthz", "") }()
	held.Close()
	select {
	case <-answered:
	case <-time.After(testTimeout):
		t.Fatal("the second connection was never served")
	}
}

const testTimeout = 20 * time.Second

func TestConfigIsChecked(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*api.Config)
		ok     bool
	}{
		"default":             {func(*api.Config) {}, true},
		"off":                 {func(c *api.Config) { c.Listen = "" }, true},
		"no port":             {func(c *api.Config) { c.Listen = "localhost" }, false},
		"open to all":         {func(c *api.Config) { c.Listen = "0.0.0.0:8080" }, false},
		"open to a network":   {func(c *api.Config) { c.Listen, c.AllowPlain = "0.0.0.0:8080", prefixes("10.0.0.0/24") }, true},
		"no connections":      {func(c *api.Config) { c.MaxConnections = 0 }, false},
		"no time for a write": {func(c *api.Config) { c.WriteTimeout = 0 }, false},
	} {
		cfg := api.DefaultConfig()
		c.change(&cfg)
		if err := cfg.Validate(); (err == nil) != c.ok || (err != nil && record.HintOf(err) == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func prefixes(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
