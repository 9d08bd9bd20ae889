package ingest_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
)

// block is a fenced block of a page.
type block struct {
	kind, text string
	line       int
}

func blocks(t *testing.T, page string) []block {
	text, err := os.ReadFile("../../docs/guide/" + page)
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	open := false
	for i, line := range strings.SplitAfter(string(text), "\n") {
		kind, fence := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "```")
		switch {
		case fence && !open:
			all = append(all, block{kind: kind, line: i + 2})
			open = true
		case fence:
			open = false
		case open:
			all[len(all)-1].text += line
		}
	}
	return all
}

func strict(t *testing.T, b block, into any) {
	t.Helper()
	d := yaml.NewDecoder(strings.NewReader(b.text))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		t.Fatalf("line %d: %v", b.line, err)
	}
}

func TestExamplesOfRulesAreValid(t *testing.T) {
	checked := 0
	for _, b := range blocks(t, "ingest-rules.md") {
		if b.kind != "yaml" {
			continue
		}
		file := struct {
			Ingest ingest.Config `yaml:"ingest"`
		}{ingest.DefaultConfig()}
		strict(t, b, &file)
		if err := file.Ingest.Validate(); err != nil {
			t.Errorf("line %d: %v", b.line, err)
		}
		checked++
	}
	if checked == 0 {
		t.Error("the page has no example")
	}
}

// TestExamplesOfParsers runs the page: yaml is the rule for what follows, json and hex are payloads, text is what they
// give.
func TestExamplesOfParsers(t *testing.T) {
	var rec *record.Record
	var d payload.Decoder
	checked := 0
	for _, b := range blocks(t, "parsers.md") {
		switch b.kind {
		case "yaml":
			var rule ingest.Rule
			strict(t, b, &rule)
			d = decoder(t, rule)
		case "json":
			rec = &record.Record{Key: []byte("t"), Payload: []byte(strings.TrimSuffix(b.text, "\n"))}
		case "hex":
			raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(b.text), " ", ""))
			if err != nil {
				t.Fatalf("line %d: %v", b.line, err)
			}
			rec = &record.Record{Key: []byte("t"), Payload: raw}
		case "text":
			rows, err := d.Decode(rec, nil)
			got := render(rows)
			if err != nil {
				got = "rejected: " + err.Error() + "\n"
			}
			if got != b.text {
				t.Errorf("line %d: the page says\n%sbut it is\n%s", b.line, b.text, got)
			}
			checked++
		}
	}
	if checked < 10 {
		t.Errorf("only %d examples", checked)
	}
}

func render(rows []payload.Row) string {
	var b strings.Builder
	for _, r := range rows {
		if r.HasTime {
			b.WriteString(time.Unix(0, r.Time).UTC().Format(time.RFC3339Nano) + " ")
		}
		if r.Fields == nil {
			fmt.Fprintf(&b, "%s = %s", r.Signal, renderValue(r.Value))
		}
		for i, f := range r.Fields {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%s = %s", f.Name, renderValue(f.Value))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func renderValue(v payload.Value) string {
	switch v.Kind {
	case payload.Null:
		return "null"
	case payload.Bool:
		return fmt.Sprint(v.I == 1)
	case payload.Int:
		return fmt.Sprint(v.I)
	case payload.Float:
		return fmt.Sprint(v.F)
	case payload.Text:
		return fmt.Sprintf("%q", v.S)
	}
	return string(v.S)
}
