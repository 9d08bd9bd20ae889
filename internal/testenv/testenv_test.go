package testenv_test

import (
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/testenv"
)

func TestPortsDifferAndAreFree(t *testing.T) {
	a, b := testenv.Addr(t), testenv.Addr(t)
	if a == b {
		t.Fatalf("the same address twice: %s", a)
	}
	for _, addr := range []string{a, b} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}

func TestNeedFindsTheFirstInstalled(t *testing.T) {
	want, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	if got := testenv.Need(t, "no-such-program-anywhere", "go"); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

func TestMissingFailsInCIAndSkipsElsewhere(t *testing.T) {
	for _, c := range []struct{ ci, want string }{{"true", "failed"}, {"", "skipped"}} {
		t.Setenv("CI", c.ci)
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() { defer close(done); testenv.Need(r, "no-such-program-anywhere") }()
		<-done
		if r.outcome != c.want {
			t.Errorf("CI=%q: %s, want %s", c.ci, r.outcome, c.want)
		}
	}
}

// recorder notes how a test would have ended.
type recorder struct {
	testing.TB
	outcome string
}

func (r *recorder) Fatalf(string, ...any) { r.end("failed") }
func (r *recorder) Skipf(string, ...any)  { r.end("skipped") }
func (r *recorder) Helper()               {}

func (r *recorder) end(outcome string) {
	if r.outcome == "" {
		r.outcome = outcome
	}
}

func TestWaitReturnsWhenTheConditionHolds(t *testing.T) {
	n := 0
	testenv.Wait(t, time.Minute, func() bool { n++; return n == 3 }, "third look")
	if n != 3 {
		t.Fatalf("looked %d times", n)
	}
}
