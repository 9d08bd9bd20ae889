package server_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/server"
	"github.com/parquet-go/parquet-go"
)

func TestATableIsPinnedToASchemaFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "load.json")
	cfg := settings(t, dir, nil)
	cfg.Ingest.Rules = []ingest.Rule{{Name: "load", Topics: []string{"load/#"}, Layout: ingest.Columns, SchemaFile: "load.json"}}

	for name, text := range map[string]string{
		"no file":           "",
		"no JSON":           "columns: []",
		"an unknown key":    `{"table": "load", "layout": "columns", "colums": []}`,
		"no columns":        `{"table": "load", "layout": "columns", "columns": []}`,
		"an unknown type":   `{"table": "load", "layout": "columns", "columns": [{"name": "v", "type": "float"}]}`,
		"of another table":  `{"table": "other", "layout": "columns", "columns": [{"name": "v", "type": "double"}]}`,
		"of another layout": `{"table": "load", "layout": "portable", "columns": [{"name": "v", "type": "double"}]}`,
	} {
		if text != "" {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := server.Open(t.Context(), server.Options{Config: cfg, Log: slog.New(slog.DiscardHandler)})
		if record.KindOf(err) != record.Invalid || !strings.Contains(err.Error(), "rule load") {
			t.Errorf("%s: %v, want invalid, with the rule's name", name, err)
		}
		_ = os.Remove(file)
	}

	pinned := `{"table": "load", "layout": "columns", "columns": [{"name": "v", "type": "double"}]}`
	if err := os.WriteFile(file, []byte(pinned), 0o600); err != nil {
		t.Fatal(err)
	}
	n := start(t, server.Options{Config: cfg})
	load(t, n, 0, 10)
	if err := n.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := n.client.Files(t.Context(), "load")
	if err != nil || len(files) != 1 || files[0].Rows != 10 {
		t.Fatalf("files %+v, %v", files, err)
	}
	f, err := os.Open(filepath.Join(dir, "lake", files[0].Key))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pf, err := parquet.OpenFile(f, files[0].Size)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, field := range pf.Schema().Fields() {
		names = append(names, field.Name())
	}
	if got := strings.Join(names, " "); !strings.Contains(got, "v") || !strings.Contains(got, "_extra") || strings.Contains(" "+got+" ", " n ") {
		t.Errorf("columns %q, want v and _extra, without a column for the member n", got)
	}
}
