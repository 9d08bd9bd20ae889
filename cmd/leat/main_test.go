package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the test program a leat when a script calls it so.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"leat": func() { main() }})
}

// TestScripts runs the real program, as a process of its own, through testdata/script. Beside testscript's own commands
// there are:
//
//	ports NAME...         free loopback addresses in variables
//	until PATTERN CMD...  repeats a command until its output matches the pattern, at most 30 s
//	stop NAME             ends a background command started with &NAME& by SIGTERM; it has a second and must succeed
//	kill9 NAME            ends one with SIGKILL
//	immutable DIR         makes a directory unwritable, also for root, until the script ends
//	listen NAME           holds a loopback port and puts its address into a variable
//	damage DIR            flips a bit in the middle of each segment file below a directory
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("LEAT_TEST_PID", fmt.Sprint(os.Getpid()))
			e.Setenv("LEAT_STREAM_MANAGER_LISTEN", "127.0.0.1:0") // scripts run beside one another
			e.Setenv("LEAT_SQL_BINARY", filepath.Join(os.Getenv("LEAT_TEST_BIN_DIR"), "leat-sql"))
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "leat-sql":
				_, err := os.Stat(filepath.Join(os.Getenv("LEAT_TEST_BIN_DIR"), "leat-sql"))
				if os.Getenv("LEAT_TEST_BIN_DIR") == "" || err != nil {
					return false, needed("leat-sql in LEAT_TEST_BIN_DIR (make test builds it)")
				}
				return true, nil
			case "root":
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"ports":     func(ts *testscript.TestScript, _ bool, args []string) { setPorts(t, ts, args) },
			"until":     until,
			"stop":      stopCommand,
			"kill9":     killCommand,
			"immutable": immutable,
			"listen":    holdPort,
			"damage":    damageLog,
		},
	})
}

// needed is an error where nothing may be skipped, and nil elsewhere.
func needed(what string) error {
	if testenv.CI() {
		return fmt.Errorf("missing with CI=true: %s", what)
	}
	return nil
}

func setPorts(t *testing.T, ts *testscript.TestScript, names []string) {
	for _, name := range names {
		ts.Setenv(name, testenv.Addr(t))
	}
}

// until is how scripts wait: for something that a person could see, never for a time.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: until PATTERN COMMAND ARG...")
	}
	last := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		cmd := exec.Command(lookPath(ts, args[1]), args[2:]...)
		cmd.Dir, cmd.Env = ts.MkAbs("."), environ(ts)
		out, err := cmd.CombinedOutput()
		last = fmt.Sprintf("%s(%v)", out, err)
		if err == nil && strings.Contains(string(out), args[0]) {
			return
		}
	}
	ts.Fatalf("never saw %q; last: %s", args[0], last)
}

func lookPath(ts *testscript.TestScript, name string) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	ts.Fatalf("%s is not in PATH", name)
	return ""
}

func environ(ts *testscript.TestScript) []string {
	env := []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME"), "TMPDIR=" + ts.Getenv("TMPDIR")}
	for _, name := range []string{"LEAT_DATA_DIR", "MQTT", "HTTP"} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// pidOf is the process that holds the lock of the data directory called name.
func pidOf(ts *testscript.TestScript, name string) int {
	pid := 0
	if _, err := fmt.Sscan(ts.ReadFile(ts.MkAbs(filepath.Join(name, "lock"))), &pid); err != nil || pid <= 1 {
		ts.Fatalf("no process id in %s/lock: %v", name, err)
	}
	return pid
}

func stopCommand(ts *testscript.TestScript, neg bool, args []string) {
	pid := pidOf(ts, args[0])
	began := time.Now()
	ts.Check(syscall.Kill(pid, syscall.SIGTERM))
	waitEnd(ts, pid)
	// The promise is a second; the rest is for a machine that tests other things at the same time.
	if took := time.Since(began); took > 3*time.Second {
		ts.Fatalf("stopping took %s", took)
	}
}

func killCommand(ts *testscript.TestScript, neg bool, args []string) {
	pid := pidOf(ts, args[0])
	ts.Check(syscall.Kill(pid, syscall.SIGKILL))
	waitEnd(ts, pid)
}

// waitEnd polls until a process that is no child of this one has ended.
func waitEnd(ts *testscript.TestScript, pid int) {
	for deadline := time.Now().Add(10 * time.Second); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("process %d still runs after 10 s", pid)
		}
	}
}

// alive reports whether a process runs; one that has ended and was not waited for counts as ended.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(after, "Z")
}

func immutable(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[0])
	if os.Geteuid() != 0 {
		ts.Check(os.Chmod(dir, 0o500))
		ts.Defer(func() { os.Chmod(dir, 0o700) })
		return
	}
	if out, err := exec.Command("chattr", "+i", dir).CombinedOutput(); err != nil {
		ts.Fatalf("chattr +i: %v %s", err, out)
	}
	ts.Defer(func() { exec.Command("chattr", "-i", dir).Run() })
}

func damageLog(ts *testscript.TestScript, _ bool, args []string) {
	n := 0
	err := filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".seg") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) < 1000 {
			return err
		}
		// A payload of the load: damage in the middle of what was acknowledged.
		at := bytes.Index(b, []byte(`,"n":50,`))
		if at < 0 {
			return nil
		}
		b[at+5] ^= 1
		n++
		return os.WriteFile(path, b, 0o600)
	})
	if err != nil || n == 0 {
		ts.Fatalf("damaged %d segments: %v", n, err)
	}
}

func holdPort(ts *testscript.TestScript, neg bool, args []string) {
	l, err := (&netListener{}).listen()
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}

func TestExitCodesAreDistinct(t *testing.T) {
	seen := map[int]bool{}
	for k := range 9 {
		seen[exitCode(kindOf(k))] = true
	}
	if len(seen) != 9 {
		t.Fatalf("%d exit codes for 9 kinds of error", len(seen))
	}
}

func TestHelpWorksForEveryCommand(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"serve", "--help"}, {"demo", "--help"}, {"sim", "load", "--help"}, {"query", "--help"}} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), terminal{args: args, out: &out, err: &errs}); code != 0 || !strings.Contains(out.String(), "Usage: leat") {
			t.Errorf("%q: exit %d, %s%s", args, code, &out, &errs)
		}
	}
}

func TestUsageErrorsNameTheHelpPage(t *testing.T) {
	var out, errs bytes.Buffer
	code := run(t.Context(), terminal{args: []string{"serve", "--no-such-flag"}, out: &out, err: &errs})
	if code != 2 || !strings.Contains(errs.String(), "leat serve --help") {
		t.Errorf("exit %d: %s", code, &errs)
	}
}

func TestDemoStopsSoonAndSaysWhatIsWhere(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := signal.NotifyContext(t.Context(), syscall.SIGUSR2)
	defer cancel()
	out, errs := new(syncBuffer), new(syncBuffer)
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, terminal{args: []string{"demo", "--data-dir", dir, "--period", "1s"}, out: out, err: errs})
	}()
	testenv.Wait(t, 60*time.Second, func() bool { return strings.Contains(out.String(), "The first file is there.") }, "the first file")
	if s := out.String(); strings.Contains(s, "leat-sql, which is not installed") == strings.Contains(s, "--data-dir "+dir) {
		t.Errorf("want the command with its data directory, or what to install:\n%s", s)
	}
	began := time.Now()
	cancel()
	code := <-done
	if took := time.Since(began); code != 0 || took > 3*time.Second {
		t.Errorf("exit %d after %s: %s", code, took, errs)
	}
	if s := out.String(); !strings.Contains(s, "Stopped in") || !strings.Contains(s, "B/sample") || !strings.Contains(s, "backlog") {
		t.Errorf("%s", s)
	}
	files, err := filepath.Glob(filepath.Join(dir, "lake/samples/year=*/month=*/day=*/*.parquet"))
	if err != nil || len(files) == 0 {
		t.Errorf("no Parquet below %s: %v", dir, err)
	}
}

func TestInterruptedIsSaid(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var errs bytes.Buffer
	if code := (terminal{err: &errs}).fail(ctx, fmt.Errorf("wait: %w", context.Canceled)); code != exitInterrupted {
		t.Errorf("exit %d", code)
	}
	if code := (terminal{err: &errs}).fail(t.Context(), errors.New("x")); code != 1 {
		t.Errorf("exit %d", code)
	}
}

func TestDemoTakesAnotherPortWhenTheUsualOneIsTaken(t *testing.T) {
	l, err := (&netListener{}).listen()
	if err != nil {
		t.Fatal(err)
	}
	taken := l.Addr().String()
	if got := freeAddress(t.Context(), taken); got != "127.0.0.1:0" {
		t.Errorf("%s is in use, and the demo would listen on %s", taken, got)
	}
	l.Close()
	if got := freeAddress(t.Context(), taken); got != taken {
		t.Errorf("%s is free, and the demo would listen on %s", taken, got)
	}
}
