// Package testenv is what tests ask of the machine they run on: external programs, root rights, free ports, built
// binaries, and a way to wait for something observable without sleeping blindly.
//
// The rule it holds: what is missing skips a test with the name of the missing part on a developer's machine, and fails
// it where the environment says CI=true, so that nothing is silently untested there.
package testenv

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// CI reports whether this run must not skip anything: the environment says CI=true.
func CI() bool { return os.Getenv("CI") == "true" }

// Missing skips the test and says what is missing; with CI=true it fails it instead.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	what := fmt.Sprintf(format, args...)
	if CI() {
		t.Fatalf("missing with CI=true: %s", what)
	}
	t.Skipf("missing: %s", what)
}

// Need returns the path of the first of the programs that is installed, and calls Missing when none is. Names may be
// absolute paths. Directories where Debian keeps daemons (/usr/sbin, /sbin) count even when they are not in PATH.
func Need(t testing.TB, programs ...string) string {
	t.Helper()
	for _, name := range programs {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
		for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil && !filepath.IsAbs(name) {
				return path
			}
		}
	}
	Missing(t, "program %s (make test installs it)", strings.Join(programs, " or "))
	return ""
}

// Root calls Missing unless the test runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root rights")
	}
}

// Soak is how long a long test may run: the duration in the environment variable SOAK, or short when it is not set.
func Soak(t testing.TB, short time.Duration) time.Duration {
	t.Helper()
	s := os.Getenv("SOAK")
	if s == "" {
		return short
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("SOAK=%s: want a duration such as 10m", s)
	}
	return d
}

// Port returns a TCP port that was free on the loopback a moment ago. It comes from below the range that the kernel
// gives to outgoing connections, where nothing else takes it meanwhile; two test processes draw different ones unless
// chance is against them.
func Port(t testing.TB) int {
	t.Helper()
	const lowest, count = 20000, 12000
	for range count {
		p := lowest + rand.IntN(count)
		if !ports.add(p) {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err == nil {
			l.Close()
			return p
		}
	}
	t.Fatal("no free loopback port")
	return 0
}

// Addr is "127.0.0.1:" and a free port.
func Addr(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", Port(t))
}

// Wait polls cond every few milliseconds until it holds, and fails the test, naming what it waited for, when it does
// not within the timeout.
func Wait(t testing.TB, timeout time.Duration, cond func() bool, what string) {
	t.Helper()
	for deadline := time.Now().Add(timeout); ; {
		if cond() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain: %s", timeout, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ModuleRoot is the directory that holds go.mod.
func ModuleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the working directory")
		}
	}
}

// Binary builds the program of a package ("./cmd/leat", relative to the module) once per test process and returns its
// path. Programs other than leat-sql are built without cgo, as they are released. Extra arguments go to go build.
// LEAT_TEST_BIN_DIR names a directory of programs to use instead of building.
func Binary(t testing.TB, pkg string, args ...string) string {
	t.Helper()
	name := filepath.Base(pkg)
	if dir := os.Getenv("LEAT_TEST_BIN_DIR"); dir != "" && len(args) == 0 {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	path, err := binaries.get(ModuleRoot(t), pkg, args)
	if err != nil {
		t.Fatalf("build %s: %v", pkg, err)
	}
	return path
}

// numbers remembers what was handed out; it is safe for concurrent use.
type numbers struct {
	mu   sync.Mutex // guards used
	used map[int]bool
}

// add reports whether n is new.
func (u *numbers) add(n int) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.used[n] {
		return false
	}
	u.used[n] = true
	return true
}

// builds remembers what was built in this process.
type builds struct {
	mu   sync.Mutex // guards done, and is held while building: two tests asking for one program build it once
	done map[string]string
}

// Process-wide on purpose: "once per test process" is the contract of Binary and of Port.
var (
	ports    = numbers{used: map[int]bool{}}
	binaries = builds{done: map[string]string{}}
)

func (b *builds) get(root, pkg string, args []string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := pkg + "\x00" + strings.Join(args, "\x00")
	if path, ok := b.done[key]; ok {
		return path, nil
	}
	sum := sha256.Sum256([]byte(root + "\x00" + key))
	// A stable place, so that the next run only relinks when something changed and nothing piles up in the temporary
	// directory. The process id keeps two test processes from writing one file; rename makes it whole.
	dir := filepath.Join(os.TempDir(), "leat-test-"+hex.EncodeToString(sum[:6]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	cmd := exec.Command("go", append(append([]string{"build", "-o", tmp}, args...), pkg)...)
	cmd.Dir = root
	cmd.Env = os.Environ()
	if filepath.Base(pkg) != "leat-sql" {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	if err := os.Rename(tmp, path); err != nil {
		return "", err
	}
	b.done[key] = path
	return path, nil
}
