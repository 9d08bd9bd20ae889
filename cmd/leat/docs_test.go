package main

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/leat-io/leat/internal/docgen"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/server"
	"github.com/leat-io/leat/internal/testenv"
)

// TestReferencePagesAreFresh fails when docs/reference is not what the code says; -update writes the pages.
func TestReferencePagesAreFresh(t *testing.T) {
	root := testenv.ModuleRoot(t)
	parser, err := newParser(&cli{}, terminal{out: io.Discard, err: io.Discard}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	configPage, err := docgen.Config(root)
	if err != nil {
		t.Fatal(err)
	}
	var metrics []docgen.Metric
	for _, m := range server.Metrics() {
		metrics = append(metrics, docgen.Metric{Name: m.Name, Type: m.Type, Help: m.Help, Labels: m.Labels})
	}
	for name, want := range map[string]string{
		"cli.md": docgen.CLI(parser.Model, exitCodes()), "config.md": configPage, "metrics.md": docgen.Metrics(metrics),
	} {
		path := filepath.Join(root, "docs/reference", name)
		if *updatePages {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%s is stale (%v): run `make docs` (go test ./cmd/leat -run TestReferencePages -update)", path, err)
		}
	}
}

var updatePages = flag.Bool("update", false, "write docs/reference")

func exitCodes() []docgen.ExitCode {
	codes := []docgen.ExitCode{{Code: 0, Meaning: "done"}}
	for _, x := range []struct {
		kind    record.Kind
		meaning string
	}{
		{record.Internal, "a defect, or an error of no particular kind"},
		{record.Invalid, "a mistake in the command line, the configuration or the statement"},
		{record.NotFound, "the thing named does not exist"},
		{record.Conflict, "something is there already: an address in use, a data directory of another process"},
		{record.Denied, "not allowed"},
		{record.Throttled, "too much at once: try again later"},
		{record.Full, "no room"},
		{record.Unavailable, "cannot be done now: no leat is running, the store is away, leat-sql is not installed"},
		{record.Corrupt, "stored bytes do not read"},
	} {
		codes = append(codes, docgen.ExitCode{Code: exitCode(x.kind), Meaning: x.meaning})
	}
	return append(codes, docgen.ExitCode{Code: exitInterrupted, Meaning: "interrupted"})
}
