package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/memory"
)

// memoryOwner puts records as they are, and lets every stream go but one.
type memoryOwner struct{ stream.Engine }

func (o memoryOwner) Put(ctx context.Context, name record.StreamName, records []record.Record) (record.Offset, error) {
	info, err := o.Lookup(name)
	if err != nil {
		return 0, err
	}
	return stream.AppendWait(ctx, o.Engine, info.ID, records...)
}

func (o memoryOwner) Remove(ctx context.Context, name record.StreamName) error {
	info, err := o.Lookup(name)
	if err != nil {
		return err
	}
	if name == "ingest/default" {
		return record.Errorf(record.Conflict, "an ingest rule writes to %s", name).WithHint("take the rule out of the configuration")
	}
	_, err = o.Commit(ctx, stream.Change{Delete: &stream.Delete{ID: info.ID}})
	return err
}

// serveStreams serves the API of an engine with the streams and returns the data directory.
func serveStreams(t *testing.T, exports []api.Export, streams ...record.StreamName) string {
	t.Helper()
	e := memory.Open(memory.Options{})
	for _, name := range streams {
		if _, err := stream.Ensure(t.Context(), e, name, stream.Policy{}); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	socket, err := api.ListenSocket(dir)
	if err != nil {
		t.Fatal(err)
	}
	node := api.Node{
		Streams: e, Owner: memoryOwner{e}, Status: func() api.Status { return api.Status{} },
		Exports: func(record.StreamName) []api.Export { return exports },
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- api.New(api.DefaultConfig(), node, slog.New(slog.DiscardHandler)).Serve(ctx, socket, nil)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// leatStreams runs a command of `leat streams` and returns what it printed and its exit code.
func leatStreams(t *testing.T, dir string, in io.Reader, args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	code = run(ctx, terminal{args: slices.Concat([]string{"streams"}, args, []string{"--data-dir", dir}), in: in, out: &o, err: &e})
	return o.String(), e.String(), code
}

func TestPutPrintsTheOffsetOfEachRecord(t *testing.T) {
	dir := serveStreams(t, nil, "sm/My stream")
	var many, numbers strings.Builder
	for i := range 2500 { // more than one batch
		many.WriteString("line\n")
		fmt.Fprintln(&numbers, 4+i)
	}
	for _, x := range []struct {
		name string
		in   string
		args []string
		want string
	}{
		{"arguments", "", []string{"one", "two\nlines"}, "0\n1\n"},
		{"standard input", "a\nb", []string{"-"}, "2\n3\n"},
		{"much of it", many.String(), []string{"-"}, numbers.String()},
		{"nothing", "", []string{"-"}, ""},
	} {
		out, errs, code := leatStreams(t, dir, strings.NewReader(x.in), append([]string{"put", "sm/My stream", "--key", "plant/a"}, x.args...)...)
		if code != 0 || out != x.want {
			t.Errorf("%s: exit %d, %s\n%.100q, want %.100q", x.name, code, errs, out, x.want)
		}
	}
	out, errs, code := leatStreams(t, dir, nil, "tail", "sm/My stream", "--from", "first")
	if code != 0 || !strings.Contains(out, "  plant/a  two lines\n") || strings.Count(out, "\n") != 2504 {
		t.Errorf("exit %d, %s\n%.300s", code, errs, out)
	}
}

// A line that is typed is put before the next one comes.
func TestPutDoesNotWaitForMoreLines(t *testing.T) {
	dir := serveStreams(t, nil, "a/b")
	in, typed := io.Pipe()
	printed, out := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		code := run(t.Context(), terminal{args: []string{"streams", "put", "a/b", "-", "--data-dir", dir}, in: in, out: out, err: io.Discard})
		out.Close()
		ended <- code
	}()
	for _, want := range []string{"0\n", "1\n"} {
		if _, err := io.WriteString(typed, "x\n"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 2)
		if _, err := io.ReadFull(printed, got); err != nil || string(got) != want {
			t.Fatalf("%q, %v; want %q", got, err, want)
		}
	}
	typed.Close()
	if code := <-ended; code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestPutRefusesALineThatIsTooLong(t *testing.T) {
	dir := serveStreams(t, nil, "a/b")
	_, errs, code := leatStreams(t, dir, io.LimitReader(endless{}, 2*record.MaxPayload), "put", "a/b", "-")
	if code != 2 || !strings.Contains(errs, "longer than") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

// endless is a line without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestRmNeedsYesForRecordsAndNamesTheRemedy(t *testing.T) {
	dir := serveStreams(t, nil, "sm/empty", "sm/full", "ingest/default")
	if _, errs, code := leatStreams(t, dir, nil, "put", "sm/full", "x"); code != 0 {
		t.Fatal(errs)
	}
	for _, x := range []struct {
		args []string
		code int
		out  string
		errs string
	}{
		{[]string{"rm", "sm/empty"}, 0, "removed sm/empty\n", ""},
		{[]string{"rm", "sm/full"}, 4, "", "--yes"},
		{[]string{"rm", "sm/full", "--yes"}, 0, "removed sm/full\n", ""},
		{[]string{"rm", "sm/full", "--yes"}, 3, "", "does not exist"},
		{[]string{"rm", "ingest/default"}, 4, "", "take the rule out of the configuration"},
	} {
		out, errs, code := leatStreams(t, dir, nil, x.args...)
		if code != x.code || out != x.out || !strings.Contains(errs, x.errs) {
			t.Errorf("%v: exit %d, %q, %q; want %d, %q, %q", x.args, code, out, errs, x.code, x.out, x.errs)
		}
	}
}

func TestLsAndDescribeTellOfExports(t *testing.T) {
	for want, exports := range map[string][]api.Export{
		"-":               nil,
		"2 ok":            {{Identifier: "a"}, {Identifier: "b"}},
		"1 of 3 failing":  {{Identifier: "a", Retries: 3, LastError: "away"}, {Identifier: "b"}, {Identifier: "c", Disabled: true}},
		"1 of 2 disabled": {{Identifier: "a"}, {Identifier: "b", Disabled: true}},
	} {
		dir := serveStreams(t, exports, "sm/a")
		out, errs, code := leatStreams(t, dir, nil, "ls")
		if code != 0 || !strings.Contains(out, " "+want+" ") {
			t.Errorf("want %q; exit %d, %s\n%s", want, code, errs, out)
		}
		out, _, _ = leatStreams(t, dir, nil, "describe", "sm/a")
		if strings.Contains(out, `"last_error": "away"`) != strings.Contains(want, "failing") {
			t.Errorf("%s: %s", want, out)
		}
	}
}
