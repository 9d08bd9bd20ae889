package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/testenv"
)

// DuckDB stays at 1.5.5: the library modules of later releases are not on the module proxy for every platform, and
// `go get -u` would go there. Whoever moves the pin reads docs/adr/0006-sql-worker.md first.
func TestDuckDBIsPinned(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(testenv.ModuleRoot(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, line := range regexp.MustCompile(`(?m)^.*github\.com/duckdb/\S+ v\S+`).FindAllString(string(mod), -1) {
		fields := strings.Fields(line)
		path, version := fields[len(fields)-2], fields[len(fields)-1]
		want := "v0.10505.0"
		if path == "github.com/duckdb/duckdb-go/v2" {
			want = "v2.10505.0"
		}
		if version != want {
			t.Errorf("%s is %s, want %s", path, version, want)
		}
		found++
	}
	if found == 0 {
		t.Error("go.mod does not name DuckDB")
	}
}

func TestVersionAndUsage(t *testing.T) {
	testenv.Need(t, "gcc")
	testenv.Need(t, "g++")
	binary := testenv.Binary(t, "./cmd/leat-sql")
	out, err := exec.CommandContext(t.Context(), binary, "-version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "DuckDB v1.5.5") {
		t.Errorf("%v: %s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), binary).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "leat query") {
		t.Errorf("%v: %s", err, out)
	}
}

// The program as it is released is linked statically: nothing but itself is needed, and granted, to execute.
func TestStaticBinaryServes(t *testing.T) {
	testenv.Need(t, "gcc")
	testenv.Need(t, "g++")
	binary := testenv.Binary(t, "./cmd/leat-sql", "-tags", "netgo,osusergo",
		"-ldflags", `-s -w -linkmode external -extldflags "-static"`)
	snapshot, scratch := t.TempDir(), t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.CommandContext(t.Context(), binary, "-snapshot", snapshot, "-scratch", scratch)
	cmd.Env, cmd.ExtraFiles, cmd.Stdin = []string{}, []*os.File{w}, strings.NewReader("")
	out, err := cmd.CombinedOutput()
	w.Close()
	frame := make([]byte, 4096)
	n, _ := r.Read(frame)
	if !strings.Contains(string(frame[:n]), `"confined":true`) {
		t.Errorf("hello %q, %v, %s", frame[:n], err, out)
	}
}
