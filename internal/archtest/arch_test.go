package archtest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/leat-io/leat/"

// edges lists, for each package, which packages of this module it may import, each with the reason. An import that is
// not here is an architectural decision: add it with its reason, or do without. Levels are those of section 3 of
// docs/architecture.md; an edge must lead to a lower level, or from an implementation to its parent's contract.
var edges = map[string]map[string]string{
	// level 0
	"record":    {},
	"clock":     {},
	"lifecycle": {},
	"vfs":       {},
	// level 1
	"stream":            {"record": "vocabulary"},
	"stream/memory":     {"stream": "contract", "record": "vocabulary", "clock": "age"},
	"stream/segment":    {"stream": "contract", "record": "vocabulary", "clock": "when and how trusted", "vfs": "files"},
	"stream/streamtest": {"stream": "contract under test", "record": "vocabulary", "clock": "fake time"},
	"blob":              {"record": "error kinds"},
	"blob/file":         {"blob": "contract", "record": "error kinds", "vfs": "files"},
	"blob/s3": {
		"awsclient": "credentials and connections", "blob": "contract", "record": "error kinds", "vfs": "state of multipart uploads",
	},
	"blob/blobtest":      {"blob": "contract under test", "record": "error kinds", "testenv": "finds the S3 server"},
	"meta":               {"record": "error kinds", "vfs": "quarantine"},
	"payload":            {"record": "what is parsed"},
	"auth":               {"record": "error kinds"},
	"awsclient":          {"record": "error kinds"},
	"listen":             {"record": "error kinds"},
	"query/wire":         {},
	"streammanager/wire": {"record": "error kinds and their statuses"},
	"query/result":       {"record": "error kinds"},
	"testenv":            {},
	// level 2
	"lake": {
		"meta": "schemas and the file registry", "payload": "rows", "record": "vocabulary", "stream": "chunks that are encoded",
		"vfs": "spool",
	},
	"export": {
		"blob": "where files go", "clock": "period grid and trust", "lake": "the lake sink", "payload": "decoders", "record": "vocabulary",
		"stream": "what is exported", "vfs": "spool",
	},
	"export/forward": {
		"awsclient": "credentials and connections", "blob": "uploads of S3 tasks", "blob/s3": "uploads of S3 tasks", "clock": "lag",
		"record": "vocabulary", "stream": "what is exported", "vfs": "files of S3 tasks, state of their uploads",
	},
	"query": {
		"blob": "objects that are cached", "lake": "tables and tail chunks", "payload": "decoders", "query/result": "formats of answers",
		"query/wire": "the worker's protocol", "record": "error kinds", "stream": "rows not yet exported", "vfs": "snapshots",
	},
	"sqlworker": {"query/result": "formats of answers", "query/wire": "the protocol with its parent"},
	// level 3
	"ingest": {"payload": "decoders of rules", "record": "vocabulary", "stream": "where messages go"},
	// level 4
	"streammanager": {
		"export/forward": "exports of its streams", "listen": "sockets", "meta": "definitions", "record": "vocabulary",
		"stream": "where messages go", "streammanager/wire": "the protocol",
	},
	"streammanager/client": {"record": "error kinds", "streammanager/wire": "the protocol"},
	"mqtt":                 {"auth": "who may", "ingest": "the message it hands over", "listen": "sockets", "record": "error kinds"},
	"api":                  {"listen": "sockets", "record": "error kinds", "stream": "what is shown of streams"},
	"sim":                  {},
	// level 5
	"config": {
		"api": "its Config", "auth": "its Config", "blob/s3": "its Config", "export": "its Config", "export/forward": "its Config",
		"ingest": "its Config", "streammanager": "its Config",
		"lake": "its Config", "mqtt": "its Config", "query": "its Config", "record": "error kinds",
	},
	"docgen": nil, // reads every Config
	"server": nil, // knows every concrete type; see anything
	// programs
	"cmd/leat":     nil,
	"cmd/leat-sql": {"sqlworker": "all it does"},
}

// owners lists heavy dependencies and the only packages that may import them.
var owners = map[string][]string{
	"github.com/duckdb/":             {"sqlworker"},
	"github.com/aws/":                {"blob/s3", "awsclient", "export/forward"},
	"github.com/parquet-go/":         {"lake", "query", "export"},
	"github.com/fxamacker/cbor":      {"streammanager/wire"},
	"golang.org/x/time":              {"export/forward"},
	"go.etcd.io/bbolt":               {"meta"},
	"github.com/mochi-mqtt/":         {"mqtt"},
	"github.com/eclipse/":            {"mqtt", "sim"},
	"github.com/prometheus/":         {"server", "api"},
	"github.com/alecthomas/kong":     {"cmd/leat", "docgen"},
	"go.yaml.in/yaml":                {"config", "auth", "server", "docgen"},
	"golang.org/x/crypto":            {"auth"},
	"github.com/go-json-experiment/": {"payload", "lake"},
	"github.com/klauspost/compress/": {"lake"},
}

type goPackage struct {
	ImportPath string
	Dir        string
	Imports    []string
	GoFiles    []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func short(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "internal/")
}

func TestImportsFollowTheNamedEdges(t *testing.T) {
	for _, p := range packages(t) {
		name := short(p.ImportPath)
		allowed, known := edges[name]
		if !known && len(p.GoFiles) > 0 && name != "archtest" && !strings.HasPrefix(name, "test/") {
			t.Errorf("package %s has no entry in edges: give it one, and a line in docs/architecture.md", name)
			continue
		}
		for _, imp := range p.Imports {
			if to, ours := strings.CutPrefix(imp, module+"internal/"); ours && allowed != nil && allowed[to] == "" {
				t.Errorf("%s imports %s: no such edge", name, to)
			}
			for prefix, only := range owners {
				if strings.HasPrefix(imp, prefix) && !slices.Contains(only, name) {
					t.Errorf("%s imports %s: only %v may", name, imp, only)
				}
			}
		}
	}
}

func TestEveryPackageHasOnePackageComment(t *testing.T) {
	for _, p := range packages(t) {
		var with []string
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc != nil && !strings.HasPrefix(file.Doc.Text(), "Code generated") {
				with = append(with, f)
			}
		}
		if len(p.GoFiles) > 0 && len(with) != 1 {
			t.Errorf("%s: package comments in %v, want exactly one", short(p.ImportPath), with)
		}
	}
}

// The limits on the tail. A function is measured without its signature's line and closing brace.
const (
	maxFileLines     = 800
	maxFunctionLines = 50
	maxMethods       = 5
	maxPackageLines  = 5000
)

func TestNoLongTail(t *testing.T) {
	for _, p := range packages(t) {
		total := 0
		for _, f := range p.GoFiles {
			path := filepath.Join(p.Dir, f)
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := bytes.Count(src, []byte("\n"))
			total += lines
			if lines > maxFileLines {
				t.Errorf("%s: %d lines, at most %d", path, lines, maxFileLines)
			}
			for _, long := range longParts(t, path, src) {
				t.Error(long)
			}
		}
		if total > maxPackageLines {
			t.Errorf("%s: %d lines, at most %d", short(p.ImportPath), total, maxPackageLines)
		}
	}
}

func longParts(t *testing.T, path string, src []byte) (found []string) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	lines := func(n ast.Node) int { return fset.Position(n.End()).Line - fset.Position(n.Pos()).Line - 1 }
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Body != nil && lines(n.Body) > maxFunctionLines {
				found = append(found, fmt.Sprintf("%s: function %s has %d lines, at most %d", fset.Position(n.Pos()), n.Name.Name, lines(n.Body), maxFunctionLines))
			}
		case *ast.InterfaceType:
			if n.Methods.NumFields() > maxMethods {
				found = append(found, fmt.Sprintf("%s: interface of %d methods, at most %d", fset.Position(n.Pos()), n.Methods.NumFields(), maxMethods))
			}
		}
		return true
	})
	return found
}

func TestDuckDBStaysPinned(t *testing.T) {
	// Later releases of the module need library modules that cannot be had everywhere: `go get -u` would break the build.
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(mod, []byte("github.com/duckdb/duckdb-go/v2 v2.10505.0")) {
		t.Error("go.mod: github.com/duckdb/duckdb-go/v2 must stay at v2.10505.0 (DuckDB 1.5.5)")
	}
}
