package forward

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/leat-io/leat/internal/vfs"
)

// countingLog counts what a runner asks of its log.
type countingLog struct {
	Log
	calls atomic.Int64
}

func (l *countingLog) Read(ctx context.Context, id record.StreamID, from record.Offset, n int, c *stream.Chunk) error {
	l.calls.Add(1)
	return l.Log.Read(ctx, id, from, n, c)
}

func (l *countingLog) Bounds(id record.StreamID) (stream.Bounds, error) {
	l.calls.Add(1)
	return l.Log.Bounds(id)
}

// mortal is a process that dies at a point: from then on nothing it does has an effect.
type mortal struct {
	Log
	target  Target
	crashAt int

	mu    sync.Mutex // guards below
	calls int
	dead  bool
}

var errCrashed = errors.New("crashed")

// do runs fn unless the process is dead or dies now: odd points before fn, even ones after it, so that its effect is
// there and its caller never learns.
func (m *mortal) do(fn func() error) error {
	m.mu.Lock()
	m.calls++
	before := m.crashAt == m.calls
	m.calls++
	after := m.crashAt == m.calls
	m.dead = m.dead || before
	dead := m.dead
	m.mu.Unlock()
	if dead {
		return errCrashed
	}
	err := fn()
	if after {
		m.mu.Lock()
		m.dead = true
		m.mu.Unlock()
		return errCrashed
	}
	return err
}

func (m *mortal) StoreCursor(ctx context.Context, id record.StreamID, name string, c stream.Cursor) error {
	return m.do(func() error { return m.Log.StoreCursor(ctx, id, name, c) })
}

func (m *mortal) Deliver(ctx context.Context, b *Batch) error {
	return m.do(func() error { return m.target.Deliver(ctx, b) })
}

// TestCrashAtEachPointRepeatsOneBatchAtMost lets a target fail in part now and then, and a process die before and after
// each call that has an effect.
func TestCrashAtEachPointRepeatsOneBatchAtMost(t *testing.T) {
	const n, size = 40, 4
	calls := 0
	for crashAt := 0; crashAt == 0 || crashAt <= calls; crashAt++ {
		bubble(t, stream.Policy{UntilExported: true}, func(t *testing.T, w *world) {
			var f fakeTarget
			attempt := 0
			f.set(func(ctx context.Context, b *Batch) error {
				attempt++
				if attempt%3 == 1 { // the second and third message of a batch; then all
					for _, i := range b.Pending() {
						if i == 1 || i == 2 {
							b.Delivered(i)
						}
					}
					return errDown
				}
				return deliverAll(ctx, b)
			})
			m := &mortal{Log: w.engine, target: &f, crashAt: crashAt}
			live := func(m *mortal) {
				err := w.sup.Set(t.Context(), w.spec(m, func(s *Spec) { s.Log, s.BatchSize = m, size }))
				if err != nil && !errors.Is(err, errCrashed) {
					t.Fatal(err)
				}
				pass(time.Hour)
			}
			w.put(0, n)
			live(m)
			if crashAt == 0 {
				calls = m.calls
			}
			w.stop()
			w.start()
			live(&mortal{Log: w.engine, target: &f})
			wantAtLeastOnce(t, f.got(), n, size)
			s := w.status()
			if s.Next != n || s.Messages != n {
				t.Errorf("%+v", s)
			}
		})
		if t.Failed() {
			t.Fatalf("crash at point %d of %d", crashAt, calls)
		}
	}
	if calls < 30 {
		t.Errorf("only %d points", calls)
	}
}

// wantAtLeastOnce checks that all n messages arrived, and at most one batch's twice.
func wantAtLeastOnce(t *testing.T, got []string, n, size int) {
	t.Helper()
	seen := map[string]int{}
	twice := 0
	for _, p := range got {
		if seen[p]++; seen[p] > 1 {
			twice++
		}
	}
	for _, p := range numbers(0, n) {
		if seen[p] == 0 {
			t.Errorf("message %s is missing", p)
		}
	}
	if twice > size {
		t.Errorf("%d messages arrived twice", twice)
	}
}

// The kill test runs this test binary again as a child, which is killed with SIGKILL wherever it is.

const childEnv = "LEAT_FORWARD_TEST_CHILD"

// life is what a child does: it puts messages from First on and exports batches of 7 to a file, until it is killed.
type life struct {
	Dir, Out string
	First    int
}

func child() int {
	var l life
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &l); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := l.live(context.Background(), true); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// fileTarget is a destination that outlives the process: each batch is a line.
type fileTarget struct{ file *os.File }

func (f fileTarget) Deliver(ctx context.Context, b *Batch) error {
	var line bytes.Buffer
	for _, i := range b.Pending() {
		fmt.Fprintf(&line, "%s ", b.Messages[i].Payload)
	}
	line.WriteByte('\n')
	if _, err := f.file.Write(line.Bytes()); err != nil {
		return err
	}
	return deliverAll(ctx, b)
}

// live puts for ever; or, when not, waits until all is exported.
func (l life) live(ctx context.Context, put bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := vfs.OpenDir(l.Dir, nil)
	if err != nil {
		return err
	}
	defer dir.Close()
	log, err := segment.Open(segment.Options{Dir: dir, Clock: clock.NewSystem(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer log.Close()
	info, err := stream.Ensure(ctx, log, testStream, stream.Policy{Durability: stream.OS, UntilExported: true})
	if err != nil {
		return err
	}
	out, err := os.OpenFile(l.Out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	sup := New(Options{})
	spec := Spec{
		Log: log, ID: info.ID, Name: testStream, Stream: "test", Identifier: "out", Kind: "file", BatchSize: 7, Interval: time.Millisecond,
		Target: fileTarget{out},
	}
	if err := sup.Set(ctx, spec); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- sup.Run(ctx, func() {}) }()
	defer func() { <-ended }()
	defer cancel()
	for next := l.First; put; next++ {
		if _, err := stream.AppendWait(ctx, log, info.ID, record.Record{Time: time.Now().UnixNano(), Payload: []byte(strconv.Itoa(next))}); err != nil {
			return err
		}
		fmt.Println(next + 1)
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if b, err := log.Bounds(info.ID); err != nil || sup.Status(info.ID)[0].Next == b.Next {
			return err
		}
	}
	return errors.New("not all was exported within 20 seconds")
}

// run lives in a child until so many messages were acknowledged, then kills it. It returns where they end.
func (l life) run(t *testing.T, messages int) (acked int) {
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
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acked = l.First
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if acked, err = strconv.Atoi(lines.Text()); err != nil {
			t.Fatal(err)
		}
		if acked >= l.First+messages {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if !cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		t.Fatalf("child ended by itself: %s", errOut.String())
	}
	return acked
}

func TestKilledProcessesRepeatOneBatchEachAndMissNothing(t *testing.T) {
	l := life{Dir: t.TempDir(), Out: filepath.Join(t.TempDir(), "out")}
	const kills, most = 8, 7
	acked := map[int]bool{}
	for i := range kills {
		end := l.run(t, 20+37*i)
		for n := l.First; n < end; n++ {
			acked[n] = true
		}
		l.First = end + 10 // one more may be in the log without its acknowledgement
	}
	if err := l.live(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(l.Out)
	if err != nil {
		t.Fatal(err)
	}
	newest, twice, seen := -1, 0, map[int]bool{}
	for line := range strings.Lines(string(text)) {
		var batch []int
		for field := range strings.FieldsSeq(line) {
			n, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			batch = append(batch, n)
			if seen[n] {
				twice++
			} else if n < newest {
				t.Errorf("message %d came after %d", n, newest)
			}
			newest, seen[n] = max(newest, n), true
		}
		if !slices.IsSorted(batch) || len(batch) > most {
			t.Errorf("batch %v", batch)
		}
	}
	for n := range acked {
		if !seen[n] {
			t.Errorf("message %d was acknowledged and not exported", n)
		}
	}
	if twice > kills*most {
		t.Errorf("%d messages came twice in %d kills", twice, kills)
	}
	t.Logf("%d messages, %d twice", len(seen), twice)
}

func TestLogThatDoesNotTakeTheCursorDoesNotRepeatTheBatch(t *testing.T) {
	bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
		var f fakeTarget
		log := &fullLog{Log: w.engine}
		w.set(&f, func(s *Spec) { s.Log = log })
		log.full.Store(true)
		w.put(0, 10)
		pass(time.Hour)
		if s := w.status(); !s.Degraded || s.Next != 0 {
			t.Errorf("%+v", s)
		}
		log.full.Store(false)
		pass(5 * time.Minute)
		wantEqual(t, "calls", f.seen(), batches(0, 10, 10))
		if s := w.status(); s.Degraded || s.Next != 10 || s.Messages != 10 {
			t.Errorf("%+v", s)
		}
	})
}

// fullLog refuses cursors while full is set.
type fullLog struct {
	Log
	full atomic.Bool
}

func (l *fullLog) StoreCursor(ctx context.Context, id record.StreamID, name string, c stream.Cursor) error {
	if l.full.Load() {
		return record.Errorf(record.Unavailable, "no space left")
	}
	return l.Log.StoreCursor(ctx, id, name, c)
}
