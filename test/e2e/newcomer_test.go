//go:build linux

package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/sim"
	"github.com/leat-io/leat/internal/testenv"
)

// TestReadmeQuickStart runs the block of README.md behind <!-- quickstart -->, line by line as it stands there, in an
// empty directory, and compares the last command's output with the block that follows. Only two things differ from a
// newcomer's machine: `make` works in this checkout and puts the programs into the empty directory, and ports are free
// ones, since the usual ones may be in use.
func TestReadmeQuickStart(t *testing.T) {
	commands, want := quickStart(t)
	home, root, addr := t.TempDir(), testenv.ModuleRoot(t), testenv.Addr(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	sh := startShell(t, home, append(os.Environ(), "LEAT_MQTT_LISTEN="+addr, "LEAT_HTTP_LISTEN="+testenv.Addr(t), "LEAT_STREAM_MANAGER_LISTEN=127.0.0.1:0"))
	testenv.Need(t, "mosquitto_pub")
	sh.run(fmt.Sprintf(`make() { command make -s -C %q BIN="$PWD/bin" "$@"; }`, root))
	sh.run(fmt.Sprintf(`mosquitto_pub() { command mosquitto_pub -p %s "$@"; }`, port))
	client := api.NewClient(filepath.Join(home, "leat-data"))
	defer client.Close()
	var out string
	for _, line := range commands {
		out = sh.run(line)
		if strings.Contains(line, " & ") { // a machine under test is slower than the sleep of that line
			testenv.Wait(t, patience, func() bool {
				st, err := client.Status(t.Context())
				return err == nil && st.Ready
			}, "ready after "+line)
		}
	}
	if got := trimLines(out); got != want {
		t.Errorf("the last command printed\n%s\nREADME.md says\n%s", got, want)
	}
	sh.run("kill %1; wait %1")
}

// quickStart returns the commands of the README's quick start and what the last prints.
func quickStart(t *testing.T) (commands []string, output string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testenv.ModuleRoot(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "<!-- quickstart -->\n```sh\n")
	block, rest, closes := strings.Cut(rest, "```\n")
	_, rest, follows := strings.Cut(rest, "```\n")
	output, _, ends := strings.Cut(rest, "```\n")
	if !ok || !closes || !follows || !ends {
		t.Fatal("README.md has no <!-- quickstart --> with a block of commands and one of output")
	}
	for line := range strings.Lines(block) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			commands = append(commands, line)
		}
	}
	return commands, trimLines(output)
}

// trimLines removes spaces at the ends of lines: no reader sees them.
func trimLines(s string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimSpace(s)) {
		b.WriteString(strings.TrimRight(line, " \r\n") + "\n")
	}
	return b.String()
}

// shell is a bash that is given one command after the other.
type shell struct {
	t     *testing.T
	stdin io.WriteCloser
	lines chan string // of its output; closed at its end
	errs  *output
}

func startShell(t *testing.T, dir string, env []string) *shell {
	t.Helper()
	cmd := exec.Command(testenv.Need(t, "bash"))
	cmd.Dir = dir
	// The Go tool keeps its caches where they are: a newcomer's first build takes longer.
	cmd.Env = append(env, "GOPATH="+goEnv(t, "GOPATH"), "GOCACHE="+goEnv(t, "GOCACHE"), "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	s := &shell{t: t, lines: make(chan string, 1000), errs: &output{}}
	stdin, inErr := cmd.StdinPipe()
	stdout, outErr := cmd.StdoutPipe()
	cmd.Stderr = s.errs
	if inErr != nil || outErr != nil {
		t.Fatal(inErr, outErr)
	}
	s.stdin = stdin
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the shell and what it started
		defer close(s.lines)
		for sc := bufio.NewScanner(stdout); sc.Scan(); {
			s.lines <- sc.Text()
		}
	}()
	t.Cleanup(func() {
		s.stdin.Close()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with everything that is left of what it started
		for range s.lines {
		}
		_ = cmd.Wait() // killed
		if t.Failed() {
			t.Logf("standard error:\n%s", s.errs.tail())
		}
	})
	return s
}

// run executes one line and returns what it printed. The line must succeed.
func (s *shell) run(line string) string {
	s.t.Helper()
	const mark = "=== exit code"
	if _, err := fmt.Fprintf(s.stdin, "%s\necho '%s' $?\n", line, mark); err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	limit := time.After(10 * time.Minute) // a build without caches
	for {
		select {
		case <-limit:
			s.t.Fatalf("%s: no end\n%s", line, s.errs.tail())
		case l, ok := <-s.lines:
			code, ended := strings.CutPrefix(l, mark)
			switch {
			case !ok || ended && strings.TrimSpace(code) != "0":
				s.t.Fatalf("%s: exit code%s\n%s%s", line, code, &b, s.errs.tail())
			case ended:
				return b.String()
			}
			b.WriteString(l + "\n")
		}
	}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command(testenv.Need(t, "go"), "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestDemo does what a newcomer does with `leat demo`: watches the status, runs the query that it prints in a second
// process, presses Ctrl-C, and finds everything again that was acknowledged.
func TestDemo(t *testing.T) {
	dir, out := t.TempDir(), &output{}
	bin := filepath.Dir(testenv.Binary(t, "./cmd/leat"))
	sql := testenv.Binary(t, "./cmd/leat-sql")
	cmd := exec.Command(testenv.Binary(t, "./cmd/leat"), "demo", "--period", "2s")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+filepath.Dir(sql)+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended, unless the test failed
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("leat demo said:\n%s", out)
		}
	})
	command := regexp.MustCompile(`(?m)^  (\S*leat query .*)$`)
	status := regexp.MustCompile(`(?m)^[\d,]+ msg/s · .*\b\d+ files?\b.* · last \d{4}_\S+\.parquet`)
	testenv.Wait(t, patience, func() bool { return command.MatchString(out.String()) }, "the query to try")
	testenv.Wait(t, patience, func() bool { return status.MatchString(out.String()) }, "a status line with a file")
	for _, part := range []string{"on disk ", "B/sample", "backlog "} {
		if !out.contains(part) {
			t.Errorf("no %q in any status line", part)
		}
	}

	second := exec.Command("bash", "-c", command.FindStringSubmatch(out.String())[1])
	second.Dir, second.Env = dir, cmd.Env
	if answer, err := second.CombinedOutput(); err != nil || !strings.Contains(string(answer), "(10 rows)") {
		t.Errorf("the query that the demo prints: %v\n%s", err, answer)
	}

	began := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if took := time.Since(began); err != nil || took > 2*time.Second {
		t.Errorf("ended after %s with %v, want within a second (two on a busy machine)", took, err)
	}
	m := regexp.MustCompile(`Stopped in .* ([\d,]+) messages acknowledged and durable`).FindStringSubmatch(out.String())
	if m == nil {
		t.Fatal("no last line")
	}
	acked, err := strconv.Atoi(strings.ReplaceAll(m[1], ",", ""))
	if err != nil || acked < 125 {
		t.Fatalf("%d acknowledged: %v", acked, err)
	}
	rows := restart(t, dir)
	if rows < acked || rows > acked+len(sim.NewSignals(1).List()) {
		t.Errorf("%d rows after the next start; %d messages were acknowledged, one tick may have been underway", rows, acked)
	}
}

// restart starts a node on the data that a demo left, and counts the rows of the lake.
func restart(t *testing.T, dir string) int {
	t.Helper()
	n := newNode(t, t.TempDir(), "")
	n.client.Close()
	n.dir = filepath.Join(dir, "leat-data")
	n.client = api.NewClient(n.dir)
	n.start()
	n.flush()
	n.stop(os.Interrupt)
	return readLake(t, filepath.Join(n.dir, "lake"), 0).rows
}
