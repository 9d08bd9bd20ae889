package export_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/export"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

// The crash tests run this test binary again as a child, which kills itself with SIGKILL at a given point.

const childEnv = "LEAT_EXPORT_TEST_CHILD"

var discard = slog.New(slog.DiscardHandler)

// logBuffer collects what is logged.
type logBuffer struct{ testenv.Output }

// life is what a child does.
type life struct {
	Dir, Lake string
	First     int // id of the first record
	Load      bool
	KillCall  int64 // die at this call of a durable step; 0 never
	KillOp    int64 // die at this operation on the disk; 0 never
}

// killer counts, and dies in time.
type killer struct {
	call, op         atomic.Int64
	killCall, killOp int64
}

func die() {
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {}
}

func (k *killer) around(fn func() error) error {
	if k.call.Add(1) == k.killCall {
		die()
	}
	err := fn()
	if k.call.Add(1) == k.killCall {
		die()
	}
	return err
}

func (k *killer) hook(vfs.Op) error {
	if k.op.Add(1) == k.killOp {
		die()
	}
	return nil
}

func (k *killer) log(l export.Log) export.Log    { return &killLog{l, k} }
func (k *killer) sink(s export.Sink) export.Sink { return &killSink{s, k} }
func (k *killer) store(s blob.Store) blob.Store  { return &killStore{s, k} }

type killLog struct {
	export.Log
	k *killer
}

func (l *killLog) StoreCursor(ctx context.Context, id record.StreamID, name string, c stream.Cursor) error {
	return l.k.around(func() error { return l.Log.StoreCursor(ctx, id, name, c) })
}

type killSink struct {
	export.Sink
	k *killer
}

func (s *killSink) Recover(ctx context.Context, steps []export.Step) error {
	return s.k.around(func() error { return s.Sink.Recover(ctx, steps) })
}

func (s *killSink) Begin(st export.Step, r export.Restamp) (b export.Batch, err error) {
	err = s.k.around(func() error {
		b, err = s.Sink.Begin(st, r)
		return err
	})
	return &killBatch{b, s.k}, err
}

func (s *killSink) Reached(ctx context.Context, st export.Step) error {
	return s.k.around(func() error { return s.Sink.Reached(ctx, st) })
}

type killBatch struct {
	export.Batch
	k *killer
}

func (b *killBatch) Finish(n export.Notes) (s export.Summary, err error) {
	err = b.k.around(func() error {
		s, err = b.Batch.Finish(n)
		return err
	})
	return s, err
}

type killStore struct {
	blob.Store
	k *killer
}

func (s *killStore) Put(ctx context.Context, u blob.Upload) error {
	return s.k.around(func() error { return s.Store.Put(ctx, u) })
}

// child lives a life and returns the exit code. Each line "acked N" says that the records below N are acknowledged.
func child() int {
	var l life
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &l); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := l.live(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (l life) live() error {
	k := &killer{killCall: l.KillCall, killOp: l.KillOp}
	s, err := openStack(options{
		dir: l.Dir, lake: l.Lake, node: "nodea", period: 20 * time.Millisecond, config: quick(), hook: k.hook, wrap: k,
	})
	if err != nil {
		return err
	}
	if err := s.run(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	next := l.First
	for i := 0; i < 2 || l.Load && ctx.Err() == nil; i++ {
		if _, err := stream.AppendWait(ctx, s.log, s.id, batch(next, next+20)...); err != nil {
			return err
		}
		next += 20
		fmt.Printf("acked %d\n", next)
		if !l.Load {
			if err := s.sup.Flush(ctx); err != nil {
				return err
			}
		}
	}
	fmt.Printf("calls %d\n", k.call.Load())
	return s.close()
}

// run lives the life in a child; acked is where its acknowledged records end, calls how many it made when it was not
// killed.
func (l life) run(t *testing.T) (acked int, calls int64) {
	t.Helper()
	text, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	acked = l.First
	lines := bufio.NewScanner(&out)
	for lines.Scan() {
		var n int
		if _, err := fmt.Sscanf(lines.Text(), "acked %d", &n); err == nil {
			acked = n
		}
		if _, err := fmt.Sscanf(lines.Text(), "calls %d", &n); err == nil {
			calls = int64(n)
		}
	}
	killed := cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled()
	if err != nil && !killed || calls == 0 && !killed {
		t.Fatalf("child: %v\n%s", err, errOut.String())
	}
	return acked, calls
}

// settle lets a last process without faults finish, and checks that every acknowledged record is in the lake once, and
// no record twice.
func settle(t *testing.T, dir, lakeDir string, acked map[int]bool) {
	t.Helper()
	wantTrueManifests(t, lakeDir)
	s := mustStack(t, options{dir: dir, lake: lakeDir, config: quick()})
	s.flush(t)
	seen := rowsIn(t, lakeDir)
	for id := range acked {
		if seen[id] == 0 {
			t.Errorf("row %d was acknowledged and is not in the lake", id)
		}
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("row %d is in the lake %d times", id, n)
		}
	}
	s.wantTidy(t, lakeDir)
	if t.Failed() {
		t.Logf("%s", s.logged.String())
	}
	s.stop(t)
}

func mark(acked map[int]bool, from, to int) {
	for i := from; i < to; i++ {
		acked[i] = true
	}
}

// TestKillAtEveryStateTransition kills a process before and after each durable step of two exports in turn.
func TestKillAtEveryStateTransition(t *testing.T) {
	_, calls := life{Dir: t.TempDir(), Lake: t.TempDir()}.run(t)
	if calls < 40 {
		t.Fatalf("only %d calls", calls)
	}
	for call := int64(1); call <= calls; call++ {
		dir, lakeDir := t.TempDir(), t.TempDir()
		acked := map[int]bool{}
		end, _ := life{Dir: dir, Lake: lakeDir, KillCall: call}.run(t)
		mark(acked, 0, end)
		settle(t, dir, lakeDir, acked)
		if t.Failed() {
			t.Fatalf("kill at call %d of %d", call, calls)
		}
	}
	t.Logf("%d kills", calls)
}

// TestKillUnderLoad kills processes on one data directory, one after the other, at random operations on the disk.
func TestKillUnderLoad(t *testing.T) {
	end := time.Now().Add(testenv.Soak(t, 4*time.Second))
	dir, lakeDir := t.TempDir(), t.TempDir()
	acked := map[int]bool{}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	kills, first := 0, 0
	for kills < 3 || time.Now().Before(end) {
		l := life{Dir: dir, Lake: lakeDir, First: first, Load: true, KillOp: 10 + rng.Int64N(2500)}
		to, _ := l.run(t)
		mark(acked, first, to)
		first = to + 20 // a batch may be durable without its acknowledgement
		kills++
	}
	settle(t, dir, lakeDir, acked)
	t.Logf("%d kills, %d records acknowledged, seed %d", kills, len(acked), seed)
}

func TestTwoNodesAndAWipedDirectoryOnOnePrefixNeverCollide(t *testing.T) {
	lakeDir := t.TempDir()
	dirA, dirB := t.TempDir(), t.TempDir()
	lives := []options{
		{dir: dirA, node: "nodea"}, {dir: dirB, node: "nodeb"},
		{dir: dirA, node: "nodea"},        // after a wipe
		{dir: t.TempDir(), node: "nodea"}, // a clone that kept the node's id
	}
	for i, o := range lives {
		if i == 2 {
			if err := os.RemoveAll(dirA); err != nil {
				t.Fatal(err)
			}
		}
		o.lake, o.config = lakeDir, quick()
		s := mustStack(t, o)
		s.put(t, 100*i, 100*i+50)
		s.flush(t)
		s.put(t, 100*i+50, 100*i+100)
		s.flush(t)
		s.stop(t)
	}
	wantOnce(t, rowsIn(t, lakeDir), 0, 400)
	names := parquetFiles(t, lakeDir)
	if len(names) != 16 { // 4 lives, 2 steps each, 2 days each
		t.Errorf("%d files: %s", len(names), strings.Join(names, "\n"))
	}
}
