//go:build linux

// Package e2e_test runs the real programs, as processes, and treats them as the world does: kill -9, power cuts, stores
// and brokers that go away, clients that misbehave. What was acknowledged is compared with what the Parquet files hold,
// read without leat.
package e2e_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/sim"
	"github.com/leat-io/leat/internal/testenv"
)

func TestMain(m *testing.M) {
	if addr := os.Getenv(idleAddr); addr != "" {
		os.Exit(holdIdle(addr))
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what should take moments: the machine may be busy with something else.
const patience = 60 * time.Second

// node is a `leat serve` process with a data directory that outlives it.
type node struct {
	t      *testing.T
	dir    string // data directory
	mqtt   string // address of the broker
	config string
	env    []string
	client *api.Client

	faults bool // the test breaks the disk: errors in the log are right

	cmd  *exec.Cmd
	out  *output // of all its lives
	ends chan error
}

// newNode prepares a node below dir with a configuration in YAML; nothing runs yet. Files are cut every second and
// retries are quick, unless the configuration says otherwise.
func newNode(t *testing.T, dir, yaml string) *node {
	t.Helper()
	n := &node{t: t, dir: filepath.Join(dir, "data"), mqtt: testenv.Addr(t), config: filepath.Join(t.TempDir(), "leat.yaml"), out: &output{}}
	if err := os.WriteFile(n.config, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	n.env = append(os.Environ(), "LEAT_MQTT_LISTEN="+n.mqtt, "LEAT_HTTP_LISTEN=", "LEAT_STREAM_MANAGER_LISTEN=127.0.0.1:0",
		"LEAT_INGEST_PERIOD=1s", "LEAT_EXPORT_POLL=50ms",
		"LEAT_EXPORT_RETRY_MIN=50ms", "LEAT_EXPORT_RETRY_MAX=300ms")
	n.client = api.NewClient(n.dir)
	t.Cleanup(func() {
		n.kill()
		n.client.Close()
		n.checkOutput()
	})
	return n
}

// withSQL makes queries possible.
func (n *node) withSQL() *node {
	n.env = append(n.env, "LEAT_SQL_BINARY="+testenv.Binary(n.t, "./cmd/leat-sql"))
	return n
}

// start starts the process and waits until it is ready.
func (n *node) start() *node {
	n.t.Helper()
	n.cmd = exec.Command(testenv.Binary(n.t, "./cmd/leat"), "serve", "-c", n.config, "--data-dir", n.dir)
	n.cmd.Env = n.env
	n.cmd.Stdout, n.cmd.Stderr = n.out, n.out
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.ends = make(chan error, 1)
	go func() { n.ends <- n.cmd.Wait() }() // ends with the process, which kill or stop waits for
	testenv.Wait(n.t, patience, func() bool {
		select {
		case err := <-n.ends:
			n.cmd = nil
			n.t.Fatalf("leat serve ended: %v\n%s", err, n.out)
		default:
		}
		st, err := n.client.Status(n.t.Context())
		return err == nil && st.Ready
	}, "leat serve to be ready")
	return n
}

// kill ends the process without any warning.
func (n *node) kill() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill() // it may have ended by itself
	<-n.ends
	n.cmd = nil
}

// stop asks the process to end, as an operator does, and returns how long that took. It must succeed.
func (n *node) stop(sig os.Signal) time.Duration {
	n.t.Helper()
	began := time.Now()
	if err := n.cmd.Process.Signal(sig); err != nil {
		n.t.Fatal(err)
	}
	select {
	case err := <-n.ends:
		n.cmd = nil
		if err != nil {
			n.t.Errorf("leat serve ended with %v after %v\n%s", err, sig, n.out.tail())
		}
	case <-time.After(patience):
		n.t.Fatalf("leat serve did not end after %v\n%s", sig, n.out.tail())
	}
	return time.Since(began)
}

// flush puts everything that is there into the store.
func (n *node) flush() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	if err := n.client.Flush(ctx); err != nil {
		n.t.Fatalf("flush: %v\n%s", err, n.out.tail())
	}
}

// leat runs another command of the program against the node and returns what it printed.
func (n *node) leat(args ...string) (string, error) {
	cmd := exec.CommandContext(n.t.Context(), testenv.Binary(n.t, "./cmd/leat"), args...)
	cmd.Env = append(os.Environ(), "LEAT_DATA_DIR="+n.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		n.t.Logf("leat %q: %v\n%s", args, err, &errs)
	}
	return out.String(), err
}

// load publishes numbered messages to the node's own broker.
func (n *node) load(ctx context.Context, cfg sim.LoadConfig) (sim.LoadResult, error) {
	cfg.Addr = n.mqtt
	return sim.Load(ctx, cfg)
}

// status is what the node says of itself; the zero status when it does not answer.
func (n *node) status() api.Status {
	st, err := n.client.Status(n.t.Context())
	if err != nil {
		return api.Status{}
	}
	return st
}

// rss is the resident memory of the process, in bytes.
func (n *node) rss() int64 {
	n.t.Helper()
	rss, err := sim.ResidentBytes(n.cmd.Process.Pid)
	if err != nil {
		n.t.Fatal(err)
	}
	return rss
}

// checkOutput fails the test when the program panicked, and shows its last lines when the test failed.
func (n *node) checkOutput() {
	s := n.out.String()
	for _, bad := range []string{"panic:", "fatal error:", "DATA RACE", "level=ERROR"} {
		if i := strings.Index(s, bad); i >= 0 && (bad != "level=ERROR" || !n.faults) {
			n.t.Errorf("leat said: %.2000s", s[i:])
		}
	}
	if n.t.Failed() {
		n.t.Logf("leat's last lines:\n%s", n.out.tail())
	}
}

// output is what processes print, read while they run.
type output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (o *output) contains(text string) bool { return strings.Contains(o.String(), text) }

func (o *output) tail() string {
	s := o.String()
	return s[max(0, len(s)-4000):]
}

// background runs a load until it ends; wait for it with the function that it returns.
func background(run func() (sim.LoadResult, error)) (wait func(t *testing.T) sim.LoadResult) {
	var (
		res  sim.LoadResult
		err  error
		done = make(chan struct{})
	)
	go func() {
		defer close(done)
		res, err = run()
	}()
	return func(t *testing.T) sim.LoadResult {
		t.Helper()
		<-done
		if err != nil {
			t.Fatalf("load: %v after %d of %d acknowledged", err, res.Acked.Len(), res.Sent)
		}
		return res
	}
}
