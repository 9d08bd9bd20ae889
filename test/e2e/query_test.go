//go:build linux

package e2e_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/sim"
	"github.com/leat-io/leat/internal/testenv"
)

// TestQueryWhileExporting asks the same question again and again while messages arrive and files are cut, spooled and
// stored: every answer has each message once, nothing that was acknowledged before the question is left out, and no
// answer has less than the one before.
func TestQueryWhileExporting(t *testing.T) {
	const messages, rate = 40_000, 5_000
	n := newNode(t, t.TempDir(), "").withSQL().start()
	acked := sim.NewSet(messages)
	wait := background(func() (sim.LoadResult, error) {
		return n.load(t.Context(), sim.LoadConfig{Messages: messages, Rate: rate, Acked: acked})
	})
	testenv.Wait(t, patience, func() bool { return acked.Len() > 0 }, "the first acknowledgement")
	var before answer
	asked := 0
	for acked.Len() < messages {
		atLeast := acked.Len()
		got := ask(t, n)
		switch {
		case got.rows != got.messages:
			t.Errorf("%d rows for %d messages: some are in the answer twice", got.rows, got.messages)
		case got.messages < atLeast:
			t.Errorf("%d messages in the answer, %d were acknowledged before the question", got.messages, atLeast)
		case got.messages < before.messages:
			t.Errorf("%d messages in the answer, %d in the one before", got.messages, before.messages)
		}
		before = got
		asked++
		if t.Failed() {
			return
		}
	}
	wait(t)
	if got := ask(t, n); got.messages != messages || got.rows != messages {
		t.Errorf("%d rows of %d messages in the end, want %d", got.rows, got.messages, messages)
	}
	files := n.status().Files
	if asked < 3 || files < 3 {
		t.Errorf("%d questions during %d exports prove little", asked, files)
	}
	n.stop(syscall.SIGTERM)
	t.Logf("%d questions while %d files were stored", asked, files)
}

type answer struct{ rows, messages int64 }

func ask(t *testing.T, n *node) (a answer) {
	t.Helper()
	out, err := n.leat("query", "-f", "csv", "SELECT count(*), count(DISTINCT value) FROM samples WHERE signal = 'n'")
	if err == nil {
		_, err = fmt.Sscanf(lastLine(out), "%d,%d", &a.rows, &a.messages)
	}
	if err != nil {
		t.Fatalf("query: %v\n%s", err, out)
	}
	return a
}

// TestLifeOfAMessage follows one message through the hops of docs/life-of-a-message.md, and checks after each what the
// page says is true there.
func TestLifeOfAMessage(t *testing.T) {
	g := startStore(t)
	g.Stop() // so that the message can be watched in the spool
	n := newNode(t, t.TempDir(), onBucket(g)).withSQL()
	n.env = append(n.env, "LEAT_INGEST_PERIOD=1h") // nothing is cut but by flush
	n.start()
	since := time.Now()

	// 1 to 4: the door, the rules, admission, the commit. The PUBACK is what ends the load.
	res, err := n.load(t.Context(), sim.LoadConfig{Messages: 1, Connections: 1, Start: since})
	if err != nil || res.Acked.Len() != 1 {
		t.Fatalf("%d acknowledged: %v", res.Acked.Len(), err)
	}
	n.kill() // acknowledged: kill -9 does not lose it any more
	n.start()
	out, err := n.leat("streams", "tail", "ingest/default", "--from", "first", "--json")
	payload := string(sim.AppendLoadPayload(nil, 0, since))
	if err != nil || strings.Count(out, "\n") != 1 || !strings.Contains(out, `"key":"load/000"`) ||
		!strings.Contains(out, strings.ReplaceAll(payload, `"`, `\"`)) {
		t.Errorf("the stream holds %s, want key load/000 and payload %s: %v", out, payload, err)
	}
	wantRows(t, n, "in the stream")

	// 5 and 6: the plan and the rows: ENCODED, in the spool, and the log may drop the record.
	go func() { _ = n.client.Flush(t.Context()) }() // waits for the store; ends with the test at the latest
	testenv.Wait(t, patience, func() bool {
		files, err := n.client.Files(t.Context(), "")
		return err == nil && len(files) == 1
	}, "the message's file to be there")
	spooled, err := filepath.Glob(filepath.Join(n.dir, "spool", "*", "*", "*.parquet"))
	if err != nil || len(spooled) != 1 {
		t.Errorf("spool: %v %v", spooled, err)
	}
	wantFile(t, n, "spool")
	wantRows(t, n, "in the spool")
	n.kill() // and it goes on from ENCODED, with the same bytes
	n.start()
	wantRows(t, n, "in the spool, after a kill")

	// 7 and 8: the store, the end.
	g.Start()
	n.flush()
	wantFile(t, n, "store")
	wantRows(t, n, "in the store")
	if left, _ := filepath.Glob(filepath.Join(n.dir, "spool", "*", "*", "*.parquet")); len(left) != 0 {
		t.Errorf("still in the spool: %v", left)
	}
	n.stop(syscall.SIGTERM)
	all := readLake(t, g.Path(""), 1)
	all.check(t, res.Acked, nil)
	manifests, err := filepath.Glob(g.Path("_manifests/*/*-000000000000-000000000001.json"))
	if err != nil || len(manifests) != 1 {
		t.Errorf("manifests: %v %v", manifests, err)
	}
}

func wantRows(t *testing.T, n *node, where string) {
	t.Helper()
	out, err := n.leat("query", "-f", "csv", "SELECT signal, value FROM samples WHERE signal = 'n'")
	if err != nil || lastLine(out) != "n,0.0" && lastLine(out) != "n,0" || len(strings.Fields(out)) != 2 {
		t.Errorf("%s SQL finds %q, want the row of n once: %v", where, out, err)
	}
}

func wantFile(t *testing.T, n *node, place string) {
	t.Helper()
	files, err := n.client.Files(t.Context(), "samples")
	if err != nil || len(files) != 1 || files[0].Place != place || files[0].Rows != perMessage {
		t.Errorf("files %+v, want one of %d rows in place %s: %v", files, perMessage, place, err)
	}
}

// The page names functions; when one is renamed, the page must follow.
func TestLifeOfAMessageNamesWhatExists(t *testing.T) {
	root := testenv.ModuleRoot(t)
	page, err := os.ReadFile(filepath.Join(root, "docs/life-of-a-message.md"))
	if err != nil {
		t.Fatal(err)
	}
	source := map[string]bool{} // "Type.Method"
	declared := regexp.MustCompile(`(?m)^func \(\w+ \*?(\w+)(?:\[\w+\])?\) (\w+)\(`)
	err = filepath.WalkDir(filepath.Join(root, "internal"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
			source[m[1]+"."+m[2]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\(\*(?:\w+\.)?(\w+)\)\.(\w+)`).FindAllStringSubmatch(string(page), -1)
	for _, m := range named {
		if !source[m[1]+"."+m[2]] {
			t.Errorf("the page names %s, which does not exist", m[0])
		}
	}
	if len(named) < 10 {
		t.Errorf("the page names %d methods only", len(named))
	}
}
