//go:build linux

// Package clients_test runs the unmodified Stream Manager SDKs, as their registries deliver them, against a real
// `leat serve`: what a component written for the original sees. The SDKs are driven by small programs (client.py,
// client.js), so that each test is written once and every SDK has to pass it.
package clients_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what should take moments: the machine may be busy with something else.
const patience = 60 * time.Second

// node is a `leat serve` process with a data directory that outlives it.
type node struct {
	t      *testing.T
	dir    string // data directory
	addr   string // of the Stream Manager
	config string
	env    []string
	client *api.Client

	cmd  *exec.Cmd
	out  *testenv.Output // of all its lives
	ends chan error
}

// newNode prepares a node with a configuration in YAML; nothing runs yet. Exports retry quickly.
func newNode(t *testing.T, yaml string) *node {
	t.Helper()
	return newNodeIn(t, filepath.Join(t.TempDir(), "data"), yaml)
}

// newNodeIn prepares a node with a data directory that may exist already.
func newNodeIn(t *testing.T, dir, yaml string) *node {
	t.Helper()
	n := &node{t: t, dir: dir, addr: testenv.Addr(t), config: filepath.Join(t.TempDir(), "leat.yaml"), out: &testenv.Output{}}
	if err := os.WriteFile(n.config, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	n.env = append(cleanEnv(), "LEAT_MQTT_LISTEN=", "LEAT_HTTP_LISTEN=", "LEAT_STREAM_MANAGER_LISTEN="+n.addr,
		"LEAT_STREAM_MANAGER_EXPORTS_RETRY_MIN=50ms", "LEAT_STREAM_MANAGER_EXPORTS_RETRY_MAX=300ms",
		"LEAT_STREAM_MANAGER_EXPORTS_LINGER=50ms")
	n.client = api.NewClient(n.dir)
	t.Cleanup(func() {
		n.kill()
		n.client.Close()
		if s := n.out.String(); strings.Contains(s, "panic:") || strings.Contains(s, "fatal error:") || strings.Contains(s, "level=ERROR") {
			t.Errorf("leat said:\n%.4000s", s)
		} else if t.Failed() {
			t.Logf("leat's last lines:\n%s", s[max(0, len(s)-4000):])
		}
	})
	return n
}

// cleanEnv is the environment without what would point leat or an SDK somewhere else.
func cleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "AWS_") && !strings.HasPrefix(e, "STREAM_MANAGER_") && !strings.HasPrefix(e, "LEAT_") {
			env = append(env, e)
		}
	}
	return append(env, "AWS_EC2_METADATA_DISABLED=true", "HOME=/nonexistent")
}

// start starts the process and waits until it is ready.
func (n *node) start() *node {
	n.t.Helper()
	n.run(exec.Command(testenv.Binary(n.t, "./cmd/leat"), "serve", "-c", n.config, "--data-dir", n.dir))
	return n
}

// run starts the process of a command and waits until leat is ready in it.
func (n *node) run(cmd *exec.Cmd) {
	n.t.Helper()
	n.cmd, cmd.Env, cmd.Stdout, cmd.Stderr = cmd, n.env, n.out, n.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.ends = make(chan error, 1)
	go func() { n.ends <- cmd.Wait() }() // ends with the process, which kill or stop waits for
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

// stop asks the process to end, as an operator does. It must succeed.
func (n *node) stop() {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	select {
	case err := <-n.ends:
		n.cmd = nil
		if err != nil {
			n.t.Errorf("leat serve ended with %v\n%s", err, n.out)
		}
	case <-time.After(patience):
		n.t.Fatalf("leat serve did not end\n%s", n.out)
	}
}

// clientEnv is the environment of a component that shall find the node.
func (n *node) clientEnv() []string {
	_, port, err := net.SplitHostPort(n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	return append(cleanEnv(), "STREAM_MANAGER_SERVER_PORT="+port)
}

// python is the interpreter of one of the virtual environments that scripts/test-tools makes.
func python(t *testing.T, venv string) string {
	t.Helper()
	path := filepath.Join(testenv.ModuleRoot(t), ".tools", venv, "bin", "python")
	if _, err := os.Stat(path); err != nil {
		testenv.Missing(t, "the Python SDK: %s does not exist; run make tools", path)
	}
	return path
}

// sdk is one published client.
type sdk struct {
	name    string
	command func(t *testing.T) []string
	js      bool
}

func sdks() []sdk {
	py := func(venv, module string) func(t *testing.T) []string {
		return func(t *testing.T) []string { return []string{python(t, venv), "client.py", module} }
	}
	return []sdk{
		{"python-1.1.1", py("clients", "stream_manager"), false},
		{"python-1.1.2", py("clients-newest", "stream_manager"), false},
		{"greengrasssdk-1.6.1", py("clients", "greengrasssdk.stream_manager"), false},
		{"js-1.7.0", func(t *testing.T) []string {
			if _, err := os.Stat("node_modules/aws-greengrass-core-sdk"); err != nil {
				testenv.Missing(t, "the JavaScript SDK: test/clients/node_modules does not exist; run make tools")
			}
			return []string{testenv.Need(t, "node"), "client.js"}
		}, true},
	}
}

// eachSDK runs a test for every SDK, each with a node of its own.
func eachSDK(t *testing.T, yaml string, test func(t *testing.T, n *node, c *client)) {
	for _, s := range sdks() {
		t.Run(s.name, func(t *testing.T) {
			n := newNode(t, yaml).start()
			test(t, n, newClient(t, n, s))
		})
	}
}

// mustf fails the test when ok is false.
func mustf(t *testing.T, ok bool, format string, args ...any) {
	t.Helper()
	if !ok {
		t.Fatal(fmt.Sprintf(format, args...))
	}
}
