package export_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/blob/blobtest"
	"github.com/leat-io/leat/internal/blob/s3"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

// TestAStoreThatFailsAndComesBack lets a real S3 server fail in every way an operator meets, restarts the node in the
// middle of it, and mends the server: everything waits, drains, and is there once.
func TestAStoreThatFailsAndComesBack(t *testing.T) {
	g := blobtest.StartGateway(t)
	right := g.SecretKey
	restart := func(secret string) {
		g.Stop()
		g.SecretKey = secret
		g.Start()
	}
	type outage struct {
		name   string
		human  bool
		bucket string // "" is the gateway's
		fail   func(p *blobtest.Proxy)
		mend   func(p *blobtest.Proxy)
	}
	pass := func(p *blobtest.Proxy) { p.Set(blobtest.Pass, nil) }
	to := func(m blobtest.Mode) func(p *blobtest.Proxy) {
		return func(p *blobtest.Proxy) { p.Set(m, nil) }
	}
	outages := []outage{
		{name: "stopped", fail: func(*blobtest.Proxy) { g.Stop() }, mend: func(*blobtest.Proxy) { g.Start() }},
		{name: "refusing", fail: to(blobtest.Refuse), mend: pass},
		{name: "answering 503", fail: to(blobtest.Fail503), mend: pass},
		{name: "hanging", fail: to(blobtest.Hang), mend: pass},
		{name: "answers lost", fail: to(blobtest.Lose), mend: pass},
		{
			name: "wrong credentials", human: true,
			fail: func(*blobtest.Proxy) { restart("another-secret") }, mend: func(*blobtest.Proxy) { restart(right) },
		},
		{
			name: "missing bucket", human: true, bucket: "later",
			fail: func(*blobtest.Proxy) {}, mend: func(*blobtest.Proxy) { g.CreateBucket("later") },
		},
	}
	for i, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			p := blobtest.NewProxy(t, g.Endpoint)
			prefix := string(rune('a'+i)) + "/"
			bucket, first := g.Bucket, 0
			if o.bucket != "" {
				bucket = o.bucket
			}
			lakeDir := filepath.Join(filepath.Dir(g.Path("")), bucket, prefix)
			if o.bucket == "" {
				lakeDir = g.Path(prefix)
			}
			state, err := vfs.OpenDir(t.TempDir(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer state.Close()
			store, err := s3.Open(t.Context(), s3.Options{State: state, Log: discard, Config: s3.Config{
				Endpoint: p.URL, Region: g.Region, Bucket: bucket, Prefix: prefix, AccessKey: g.AccessKey,
				SecretKey: s3.Secret(right), Checksums: s3.ChecksumsWhenRequired, PartSize: 5 << 20, Concurrency: 1,
				ConnectTimeout: time.Second, StallTimeout: 300 * time.Millisecond, Attempts: 1,
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			opt := options{dir: t.TempDir(), store: store, config: quick(), period: 50 * time.Millisecond}
			opt.config.TargetBytes = 1 // a step for each period
			s := mustStack(t, opt)
			if o.bucket == "" {
				s.put(t, 0, 20)
				s.flush(t)
				first = 20
			}
			o.fail(p)
			s.put(t, first, 40)
			s.wantFailing(t, 2, o.human)
			s.put(t, 40, 60)
			testenv.Wait(t, 10*time.Second, func() bool { return s.runner.Status().Pending >= 2 }, "a second step to wait")
			if st := s.runner.Status(); st.BacklogRecords != uint64(60-first) || st.Lag <= 0 {
				t.Errorf("backlog of %d records, lag %v", st.BacklogRecords, st.Lag)
			}
			if n := s.spool.Bytes(); n == 0 {
				t.Error("nothing in the spool")
			}

			begin := time.Now()
			s.stop(t)
			if d := time.Since(begin); d > 3*time.Second { // a second is the promise; the machine may be busy
				t.Errorf("a clean stop took %v", d)
			}
			s = mustStack(t, opt)
			s.wantFailing(t, 1, o.human)
			s.put(t, 60, 80)
			o.mend(p)
			s.flush(t)
			wantOnce(t, rowsIn(t, lakeDir), 0, 80)
			s.wantTidy(t, lakeDir)
			if st := s.runner.Status(); st.Degraded || st.LastError != "" || st.BacklogRecords != 0 || st.Uploaded.Key == "" {
				t.Errorf("status afterwards: %+v", st)
			}
			if t.Failed() {
				t.Logf("%s", s.logged.String())
			}
			s.stop(t)
		})
	}
}

func (s *stack) wantFailing(t *testing.T, times int, human bool) {
	t.Helper()
	testenv.Wait(t, 20*time.Second, func() bool { return s.runner.Status().Retries >= times }, "the upload to fail")
	st := s.runner.Status()
	if st.LastError == "" || st.NeedsHuman != human {
		t.Errorf("failing: %q (%s), needs a person: %v", st.LastError, st.Hint, st.NeedsHuman)
	}
	if human && (!st.Degraded || st.Hint == "") {
		t.Errorf("degraded %v, hint %q", st.Degraded, st.Hint)
	}
}

// TestALogThatIsFullDrains fills the log to its limit while the store is away: the export must be able to store its
// state all the same, or nothing would ever make room.
func TestALogThatIsFullDrains(t *testing.T) {
	lakeDir := t.TempDir()
	d := newDoor(t, lakeDir)
	d.set(errDown, 0)
	opt := options{dir: t.TempDir(), store: d, config: quick(), period: 20 * time.Millisecond, logMax: 1 << 20}
	opt.config.MaxSpoolBytes = 1
	s := mustStack(t, opt)
	full, next := false, 0
	for ; !full && next < 1_000_000; next += 500 {
		_, err := stream.AppendWait(t.Context(), s.log, s.id, batch(next, next+500)...)
		if full = err != nil; full && record.KindOf(err) != record.Full {
			t.Fatal(err)
		}
	}
	if !full {
		t.Fatal("the log took everything")
	}
	next -= 500
	d.set(nil, 0)
	s.flush(t)
	wantOnce(t, rowsIn(t, lakeDir), 0, next)
	s.put(t, next, next+20)
	s.flush(t)
	wantOnce(t, rowsIn(t, lakeDir), 0, next+20)
	s.wantTidy(t, lakeDir)
}
