package streammanager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/export/forward"
	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/memory"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/leat-io/leat/internal/streammanager/wire"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

// node is what a Manager stands on; managers come and go on it as processes would.
type node struct {
	t       testing.TB
	dir     *vfs.Dir
	disk    stream.Engine
	memory  stream.Engine
	meta    *meta.DB
	exports *forward.Supervisor
	targets fakeTargets
	log     testenv.Output
	reclaim []string
	step    func(string)
	sync    time.Duration // segment.Options.SyncInterval
}

// fakeTargets makes targets that deliver nothing; those of the stream "refused" cannot be made.
type fakeTargets struct {
	mu       sync.Mutex // guards canceled
	canceled []string   // "stream/sequence why"
}

type fakeTarget struct {
	f      *fakeTargets
	status Status
}

func (f *fakeTargets) New(name string, _ wire.ExportKind, _ *wire.ExportConfig, status Status) (forward.Target, error) {
	if name == "refused" {
		return nil, record.Errorf(record.Invalid, "no such host")
	}
	return fakeTarget{f, status}, nil
}

func (fakeTarget) Deliver(context.Context, *forward.Batch) error {
	return errors.New("not in this test")
}

func (t fakeTarget) Cancel(ctx context.Context, name string, m forward.Message, why string) error {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	t.f.canceled = append(t.f.canceled, fmt.Sprintf("%s/%d %s", name, m.Sequence, why))
	return t.status(ctx, "kept", []byte(why))
}

func newNode(t testing.TB) *node {
	dir, err := vfs.OpenDir(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir}
	n.start()
	t.Cleanup(n.stop)
	return n
}

// start opens the stores, as a process does.
func (n *node) start() {
	n.t.Helper()
	log := slog.New(slog.NewTextHandler(&n.log, nil))
	sub, err := n.dir.Sub("log")
	if err == nil {
		n.disk, err = segment.Open(segment.Options{Dir: sub, Clock: clock.NewSystem(), Logger: log, SegmentBytes: 1 << 20, SyncInterval: n.sync})
	}
	if err == nil {
		n.meta, err = meta.Open(n.dir, meta.Options{Log: log})
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.memory = memory.Open(memory.Options{})
	n.exports = forward.New(forward.Options{Log: log})
}

func (n *node) stop() {
	if err := errors.Join(n.disk.Close(), n.memory.Close(), n.meta.Close()); err != nil {
		n.t.Error(err)
	}
}

func (n *node) open() *Manager {
	n.t.Helper()
	m, err := Open(n.t.Context(), Options{
		Disk: n.disk, Memory: n.memory, Meta: n.meta, Exports: n.exports, Targets: &n.targets, Linger: time.Second,
		Log: slog.New(slog.NewTextHandler(&n.log, nil)), ReclaimExported: n.reclaim, step: n.step,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return m
}

func i(v int64) *wire.Int { return wire.NewInt(v) }

// define is a definition of persistence File that rejects when full.
func define(name string, change ...func(*wire.MessageStreamDefinition)) *wire.MessageStreamDefinition {
	d := &wire.MessageStreamDefinition{Name: name, StrategyOnFull: i(0)}
	for _, c := range change {
		c(d)
	}
	return d
}

func inMemory(d *wire.MessageStreamDefinition)  { d.Persistence = i(1) }
func overwrite(d *wire.MessageStreamDefinition) { d.StrategyOnFull = i(1) }

func sized(size, segment int64) func(*wire.MessageStreamDefinition) {
	return func(d *wire.MessageStreamDefinition) { d.MaxSize, d.StreamSegmentSize = i(size), i(segment) }
}

func exporting(identifiers ...string) func(*wire.MessageStreamDefinition) {
	return func(d *wire.MessageStreamDefinition) {
		d.ExportDefinition = &wire.ExportDefinition{}
		for _, id := range identifiers {
			d.ExportDefinition.HTTP = append(d.ExportDefinition.HTTP, wire.ExportConfig{Identifier: id, URI: "http://x"})
		}
	}
}

func appendTo(m *Manager, name string, payloads ...string) (int64, error) {
	var list [][]byte
	for _, p := range payloads {
		list = append(list, []byte(p))
	}
	type result struct {
		first int64
		err   error
	}
	ch := make(chan result, 1)
	m.Append(context.Background(), name, list, func(first int64, err error) { ch <- result{first, err} })
	r := <-ch
	return r.first, r.err
}

func read(m *Manager, name string, start, least, most, timeout int64) ([]wire.Message, error) {
	return m.Read(context.Background(), name, &wire.ReadMessagesOptions{
		DesiredStartSequenceNumber: i(start), MinMessageCount: i(least), MaxMessageCount: i(most), ReadTimeoutMillis: i(timeout),
	})
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEachFailureHasItsStatusAndSaysWhy(t *testing.T) {
	n := newNode(t)
	m := n.open()
	ctx := t.Context()
	ok(t, m.Create(ctx, define("s", sized(4096, 2048), exporting("e"))))
	ok(t, m.Create(ctx, define("full", sized(1024, 1024))))
	must[int64](t)(appendTo(m, "full", strings.Repeat("x", 1000)))
	ok(t, m.Create(ctx, define("held", sized(4096, 1024))))
	must[int64](t)(appendTo(m, "held", strings.Repeat("x", 1000), strings.Repeat("x", 1000)))
	ok(t, m.Create(ctx, define("wide", sized(1<<30, 1<<30))))
	do := func(_ any, err error) error { return err }
	update := func(change ...func(*wire.MessageStreamDefinition)) error {
		return m.Update(ctx, define("s", change...))
	}
	for name, c := range map[string]struct {
		err    error
		status wire.Status
		text   string
	}{
		"create what exists":          {m.Create(ctx, define("s")), wire.InvalidRequest, "already exists"},
		"create without a definition": {m.Create(ctx, nil), wire.InvalidRequest, "missing"},
		"create with an umlaut":       {m.Create(ctx, define("über")), wire.InvalidRequest, "not allowed"},
		"create with a slash":         {m.Create(ctx, define("a/b")), wire.InvalidRequest, "not allowed"},
		"create with 256 characters":  {m.Create(ctx, define(strings.Repeat("x", 256))), wire.InvalidRequest, "1 to 255"},
		"create ..":                   {m.Create(ctx, define("..")), wire.InvalidRequest, "not allowed"},
		"create with a negative size": {m.Create(ctx, define("n", sized(-1, 1024))), wire.InvalidRequest, "maxSize"},
		"create with a bad target":    {m.Create(ctx, define("refused", exporting("e"))), wire.InvalidRequest, "no such host"},
		"update what is not there":    {m.Update(ctx, define("none")), wire.ResourceNotFound, "does not exist"},
		"update the persistence":      {update(inMemory), wire.UpdateNotAllowed, "persistence"},
		"update below what is held":   {m.Update(ctx, define("held", sized(1999, 1024))), wire.InvalidRequest, "holds 2000 bytes"},
		"update to invalid":           {update(sized(10, 10)), wire.InvalidRequest, "maxSize"},
		"update start of a new export": {update(func(d *wire.MessageStreamDefinition) {
			exporting("new")(d)
			d.ExportDefinition.HTTP[0].StartSequenceNumber = i(5)
		}), wire.InvalidRequest, "startSequenceNumber"},
		"update an export's kind": {update(func(d *wire.MessageStreamDefinition) {
			d.ExportDefinition = &wire.ExportDefinition{Kinesis: []wire.ExportConfig{{Identifier: "e", KinesisStreamName: "k"}}}
		}), wire.UpdateNotAllowed, "identifier of its own"},
		"delete what is not there":    {m.Delete(ctx, "none"), wire.ResourceNotFound, "does not exist"},
		"describe what is not there":  {do(m.Describe("none")), wire.ResourceNotFound, "does not exist"},
		"read what is not there":      {do(read(m, "none", 0, 1, 1, 0)), wire.ResourceNotFound, "does not exist"},
		"append to what is not there": {do(appendTo(m, "none", "x")), wire.ResourceNotFound, "does not exist"},
		"append nothing":              {do(appendTo(m, "s")), wire.InvalidRequest, "no message"},
		"append an empty payload":     {do(appendTo(m, "s", "x", "")), wire.InvalidRequest, "empty"},
		"append more than a segment":  {do(appendTo(m, "s", strings.Repeat("x", 2049))), wire.RequestPayloadTooLarge, "2048"},
		"append more than leat takes": {do(appendTo(m, "wide", strings.Repeat("x", record.MaxPayload+1))), wire.RequestPayloadTooLarge, "at most"},
		"append a huge batch":         {do(appendTo(m, "wide", strings.Repeat("x", 12<<20), strings.Repeat("x", 12<<20), strings.Repeat("x", 12<<20))), wire.RequestPayloadTooLarge, "fewer"},
		"append to a full one":        {do(appendTo(m, "full", strings.Repeat("x", 1000))), wire.InvalidRequest, "full"},
		"read with min 0":             {do(read(m, "s", 0, 0, 1, 0)), wire.InvalidRequest, "minMessageCount"},
		"read with max below min":     {do(read(m, "s", 0, 2, 1, 0)), wire.InvalidRequest, "maxMessageCount"},
		"read from -1":                {do(read(m, "s", -1, 1, 1, 0)), wire.InvalidRequest, "desiredStartSequenceNumber"},
		"read an empty one":           {do(read(m, "s", 0, 1, 1, 0)), wire.NotEnoughMessages, "empty"},
		"read far beyond the end":     {do(read(m, "full", math.MaxInt64, 1, 1, 0)), wire.NotEnoughMessages, "0 to 0"},
	} {
		t.Run(name, func(t *testing.T) {
			status, text := wire.StatusOf(c.err)
			if status != c.status || !strings.Contains(text, c.text) {
				t.Errorf("%v %q, want %v and %q", status, text, c.status, c.text)
			}
		})
	}
}

func TestNamesAreKeptAsTheyAre(t *testing.T) {
	m := newNode(t).open()
	for _, name := range []string{"a", "...", "a,b c.d_e-F9", " lead and trail ", strings.Repeat("x", 255)} {
		ok(t, m.Create(t.Context(), define(name)))
		if first := must[int64](t)(appendTo(m, name, "1")); first != 0 {
			t.Errorf("%q begins at %d", name, first)
		}
		if msgs := must[[]wire.Message](t)(read(m, name, 0, 1, 1, 0)); msgs[0].StreamName != name || string(msgs[0].Payload) != "1" {
			t.Errorf("%q: %+v", name, msgs)
		}
	}
	if l := m.List(); len(l) != 5 || l[0] != " lead and trail " {
		t.Errorf("%q", l)
	}
}

func TestDescribeTellsExtentAndEffectiveDefinition(t *testing.T) {
	n := newNode(t)
	m := n.open()
	ok(t, m.Create(t.Context(), define("s", exporting("e"))))
	info := must[*wire.MessageStreamInfo](t)(m.Describe("s"))
	if info.StorageStatus != (wire.StorageStatus{OldestSequenceNumber: 0, NewestSequenceNumber: -1}) {
		t.Errorf("empty: %+v", info.StorageStatus)
	}
	if e := info.ExportStatuses; len(e) != 1 || e[0].ExportConfigIdentifier != "e" || e[0].LastExportedSequenceNumber != -1 {
		t.Errorf("%+v", e)
	}
	if *info.Definition.MaxSize != 256<<20 || *info.Definition.StreamSegmentSize != 16<<20 || *info.Definition.Persistence != 0 {
		t.Errorf("%+v", info.Definition)
	}
	must[int64](t)(appendTo(m, "s", "abc", "de"))
	must[[]wire.Message](t)(read(m, "s", 0, 2, 2, 0))
	if s := must[*wire.MessageStreamInfo](t)(m.Describe("s")).StorageStatus; s != (wire.StorageStatus{NewestSequenceNumber: 1, TotalBytes: 5}) {
		t.Errorf("%+v", s)
	}
	stored, err := n.disk.Lookup(EngineName("s"))
	ok(t, err)
	_, err = n.disk.Commit(t.Context(), stream.Change{Truncate: &stream.Truncate{ID: stored.ID, Before: 2}})
	ok(t, err)
	if s := must[*wire.MessageStreamInfo](t)(m.Describe("s")).StorageStatus; s != (wire.StorageStatus{OldestSequenceNumber: 2, NewestSequenceNumber: 1}) {
		t.Errorf("emptied: %+v", s)
	}
}

func TestOverwritingMovesTheOldestBySegments(t *testing.T) {
	m := newNode(t).open()
	ok(t, m.Create(t.Context(), define("s", inMemory, overwrite, sized(4000, 2000))))
	for range 41 {
		must[int64](t)(appendTo(m, "s", strings.Repeat("x", 100)))
	}
	s := must[*wire.MessageStreamInfo](t)(m.Describe("s")).StorageStatus
	if s.OldestSequenceNumber < 20 || s.NewestSequenceNumber != 40 {
		t.Errorf("%+v, want the oldest to be 20 at least", s)
	}
}

func TestUpdateMatchesExportsByIdentifier(t *testing.T) {
	n := newNode(t)
	m := n.open()
	ok(t, m.Create(t.Context(), define("s", exporting("stays", "goes"))))
	must[int64](t)(appendTo(m, "s", "1"))
	must[[]wire.Message](t)(read(m, "s", 0, 1, 1, 0)) // readable
	ok(t, m.Update(t.Context(), define("s", sized(2048, 1024), exporting("stays", "new"))))
	info := must[*wire.MessageStreamInfo](t)(m.Describe("s"))
	if e := info.ExportStatuses; len(e) != 2 || e[0].ExportConfigIdentifier != "stays" || e[1].ExportConfigIdentifier != "new" {
		t.Errorf("%+v", e)
	}
	if *info.Definition.MaxSize != 2048 {
		t.Errorf("%+v", info.Definition)
	}
	if c := n.targets.canceled; len(c) != 1 || c[0] != "s/0 "+leftDefinition {
		t.Errorf("%q", c)
	}
}

func TestDeletedStreamsRefuseAppendsAndBeginAgain(t *testing.T) {
	m := newNode(t).open()
	for _, change := range [][]func(*wire.MessageStreamDefinition){nil, {inMemory}} {
		ok(t, m.Create(t.Context(), define("s", change...)))
		var appenders sync.WaitGroup
		for range 4 {
			appenders.Go(func() {
				for {
					if _, err := appendTo(m, "s", "x"); err != nil {
						if s, text := wire.StatusOf(err); s != wire.ResourceNotFound {
							t.Errorf("%v %s", s, text)
						}
						return
					}
				}
			})
		}
		must[[]wire.Message](t)(read(m, "s", 0, 10, 10, 60_000))
		ok(t, m.Update(t.Context(), define("s", append(change, overwrite)...)))
		ok(t, m.Delete(t.Context(), "s"))
		appenders.Wait()
		ok(t, m.Create(t.Context(), define("s", change...)))
		if first := must[int64](t)(appendTo(m, "s", "x")); first != 0 {
			t.Errorf("begins at %d", first)
		}
		ok(t, m.Delete(t.Context(), "s"))
	}
}

func TestStatusOfAMissingStreamIsDroppedAndLoggedOnce(t *testing.T) {
	n := newNode(t)
	m := n.open()
	for range 3 {
		ok(t, m.AppendStatus(t.Context(), "none", []byte("{}")))
	}
	if m.DroppedStatuses() != 3 || strings.Count(n.log.String(), "status messages of exports are dropped") != 1 {
		t.Errorf("%d dropped: %s", m.DroppedStatuses(), n.log.String())
	}
	ok(t, m.Create(t.Context(), define("none")))
	ok(t, m.AppendStatus(t.Context(), "none", []byte("{}")))
	if m.DroppedStatuses() != 3 {
		t.Error("dropped although the stream is there")
	}
}

func TestBatchSettingsBecomeWaits(t *testing.T) {
	m := newNode(t).open()
	type want struct {
		size     int
		full     bool
		interval time.Duration
	}
	for name, c := range map[string]struct {
		kind wire.ExportKind
		e    wire.ExportConfig
		want want
	}{
		"neither":   {wire.KindKinesis, wire.ExportConfig{}, want{500, false, time.Second}},
		"size":      {wire.KindKinesis, wire.ExportConfig{BatchSize: i(10)}, want{10, true, 0}},
		"interval":  {wire.KindSiteWise, wire.ExportConfig{BatchIntervalMillis: i(60_000)}, want{10, false, time.Minute}},
		"both":      {wire.KindHTTP, wire.ExportConfig{BatchSize: i(7), BatchIntervalMillis: i(60_000)}, want{7, true, time.Minute}},
		"S3":        {wire.KindS3, wire.ExportConfig{}, want{1, false, 0}},
		"analytics": {wire.KindIoTAnalytics, wire.ExportConfig{}, want{100, false, time.Second}},
	} {
		s := m.spec(c.kind, &c.e)
		if got := (want{s.BatchSize, s.WaitFull, s.Interval}); got != c.want || s.Priority != 10 {
			t.Errorf("%s: %+v priority %d, want %+v", name, got, s.Priority, c.want)
		}
	}
}

func TestAppendAllocatesNothingOfItsOwn(t *testing.T) {
	n := newNode(t)
	m := n.open()
	ok(t, m.Create(t.Context(), define("s", overwrite)))
	m.streams["s"].engine = discard{n.disk}
	payloads, done := [][]byte{[]byte("x")}, func(int64, error) {}
	if a := testing.AllocsPerRun(1000, func() { m.Append(t.Context(), "s", payloads, done) }); a > 1 { // the race detector empties pools at random
		t.Errorf("%v allocations", a)
	}
}

// discard acknowledges and keeps nothing.
type discard struct{ stream.Engine }

func (discard) Append(_ context.Context, _ record.StreamID, _ []record.Record, done func(record.Offset, error)) {
	done(0, nil)
}
