package blobtest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/testenv"
)

// startTimeout is how long a starting server may take to answer, on a busy machine.
const startTimeout = 30 * time.Second

// Gateway is a versitygw process: a real S3 server over a directory of the test. It keeps its port and its objects
// when it is stopped, killed and started again. Its methods belong to the test's goroutine.
type Gateway struct {
	Endpoint  string // http://127.0.0.1:port
	Region    string
	Bucket    string // exists
	AccessKey string // of the administrator
	SecretKey string

	t    testing.TB
	bin  string
	dir  string
	port int
	cmd  *exec.Cmd
	log  *testenv.Output
}

// StartGateway starts a server with one bucket, and stops it when the test ends. The program comes from .tools/bin of
// the module (make test installs it there) or from PATH.
func StartGateway(t testing.TB) *Gateway {
	t.Helper()
	g := &Gateway{
		Region: "us-east-1", Bucket: "lake", AccessKey: "leat-admin", SecretKey: "a-secret-of-the-test",
		t: t, dir: t.TempDir(), port: testenv.Port(t), log: &testenv.Output{},
	}
	g.bin = testenv.Need(t, filepath.Join(testenv.ModuleRoot(t), ".tools", "bin", "versitygw"), "versitygw")
	g.Endpoint = fmt.Sprintf("http://127.0.0.1:%d", g.port)
	for _, d := range []string{"objects", "users", "attributes"} {
		if err := os.Mkdir(filepath.Join(g.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		g.Kill()
		if t.Failed() {
			t.Logf("versitygw said:\n%s", g.log)
		}
	})
	g.Start()
	g.CreateBucket(g.Bucket)
	return g
}

// Start starts the server unless it runs, and waits until it answers.
func (g *Gateway) Start() {
	g.t.Helper()
	if g.cmd != nil {
		return
	}
	args := []string{
		"--port", fmt.Sprintf("127.0.0.1:%d", g.port), "--region", g.Region, "--health", "/health", "--quiet",
		"--iam-dir", filepath.Join(g.dir, "users"), "--iam-cache-disable", "posix",
	}
	if !hasAttributes(g.dir) {
		args = append(args, "--sidecar", filepath.Join(g.dir, "attributes"))
	}
	cmd := exec.Command(g.bin, append(args, filepath.Join(g.dir, "objects"))...)
	// Nothing of the environment but this: the test may have set AWS variables that mislead the server.
	cmd.Env = []string{
		"ROOT_ACCESS_KEY=" + g.AccessKey, "ROOT_SECRET_KEY=" + g.SecretKey, "HOME=" + g.dir, "PATH=" + os.Getenv("PATH"),
	}
	cmd.Stdout, cmd.Stderr = g.log, g.log
	cmd.SysProcAttr = dieWithTest()
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.cmd = cmd
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	testenv.Wait(g.t, startTimeout, func() bool {
		res, err := client.Get(g.Endpoint + "/health")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	}, "versitygw to answer on "+g.Endpoint)
}

// Stop ends the server as an operator would. Connections are refused afterwards.
func (g *Gateway) Stop() { g.end(syscall.SIGTERM) }

// Kill ends the server in the middle of whatever it does.
func (g *Gateway) Kill() { g.end(syscall.SIGKILL) }

func (g *Gateway) end(sig syscall.Signal) {
	if g.cmd == nil {
		return
	}
	cmd := g.cmd
	g.cmd = nil
	_ = cmd.Process.Signal(sig) // it may have ended by itself
	timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait() // "signal: killed" is what was asked for
	// Idle connections of clients may keep the port from answering "refused" for an instant.
	testenv.Wait(g.t, 10*time.Second, func() bool {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", g.port), time.Second)
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, "versitygw's port to close")
}

// CreateBucket makes a bucket that the administrator owns.
func (g *Gateway) CreateBucket(name string) {
	g.t.Helper()
	g.admin("create-bucket", "--bucket", name, "--owner", g.AccessKey)
}

// AddUser makes a user without any rights; a bucket policy gives them.
func (g *Gateway) AddUser(accessKey, secretKey string) {
	g.t.Helper()
	g.admin("create-user", "--access", accessKey, "--secret", secretKey, "--role", "user")
}

// Path is where the server keeps an object of its bucket as a file.
func (g *Gateway) Path(key string) string { return filepath.Join(g.dir, "objects", g.Bucket, key) }

func (g *Gateway) admin(args ...string) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), startTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, g.bin, append([]string{
		"admin", "--access", g.AccessKey, "--secret", g.SecretKey, "--region", g.Region, "--endpoint-url", g.Endpoint,
	}, args...)...)
	cmd.Env = []string{"HOME=" + g.dir, "PATH=" + os.Getenv("PATH")}
	if out, err := cmd.CombinedOutput(); err != nil {
		g.t.Fatalf("versitygw admin %s: %v\n%s", args[0], err, out)
	}
}
