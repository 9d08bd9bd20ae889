package forward

import (
	"bytes"
	"flag"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// A golden file of a released version is never written again: add one for a new version instead.
var update = flag.Bool("update", false, "write golden files")

var cmpProgress = cmp.AllowUnexported(progress{}, note{})

func goldenProgress() progress {
	at := time.Date(2026, 11, 25, 12, 34, 56, 0, time.UTC)
	return progress{
		next: 5000, messages: 4900, bytes: 1 << 40, skipped: 1, dropped: 99,
		attempt: at.UnixNano(), delivered: at.Add(-time.Minute).UnixNano(),
		trouble: note{at: at.UnixNano(), loss: true, text: "message 12 skipped: too large — 1.5 MiB", hint: "append corrected ones"},
		target:  []byte{0, 1, 2, 0xff},
	}
}

func TestProgressReadsTheGoldenFileOfEachVersion(t *testing.T) {
	const name = "testdata/forward-v1.bin"
	want := goldenProgress()
	cur := want.encode()
	if *update {
		if err := os.WriteFile(name, cur.State, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(golden, cur.State) {
		t.Errorf("this program writes\n%x\nthe golden file has\n%x", cur.State, golden)
	}
	got, err := decodeProgress(stream.Cursor{Offset: 5000, State: golden})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpProgress); d != "" {
		t.Error(d)
	}
}

func TestProgressOfAnotherVersionIsRefusedWithTheRemedy(t *testing.T) {
	for _, v := range []byte{0, 2, 255} {
		_, err := decodeProgress(stream.Cursor{Offset: 1, State: []byte{v, 0, 0, 0}})
		if record.KindOf(err) != record.Invalid || !strings.Contains(record.HintOf(err), "leat version") {
			t.Errorf("version %d: %v (hint %q)", v, err, record.HintOf(err))
		}
	}
}

func TestProgressThatDoesNotReadIsCorrupt(t *testing.T) {
	good := goldenProgress()
	state := good.encode().State
	zero := (&progress{}).encode().State
	const flagsAt, textAt = 8, 9 // of zero
	change := func(at int, with ...byte) []byte {
		return append(append(bytes.Clone(zero[:at]), with...), zero[at+1:]...)
	}
	cases := map[string][]byte{
		"trailing bytes":         append(bytes.Clone(state), 0),
		"an unknown flag":        change(flagsAt, 2),
		"a text that is cut off": change(textAt, 200, 1),
		"a text of 2^63 bytes":   change(textAt, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
		"a text that is too long": append(append(bytes.Clone(zero[:textAt]), 0xe9, 7),
			append(make([]byte, maxNoteText+1), 0, 0)...),
		"a varint that never ends": {1, 0x80, 0x80},
	}
	for n := range state {
		if n > 0 {
			cases["cut off"] = state[:n]
			if _, err := decodeProgress(stream.Cursor{State: state[:n]}); record.KindOf(err) != record.Corrupt {
				t.Errorf("cut off at %d: %v", n, err)
			}
		}
	}
	for name, b := range cases {
		if _, err := decodeProgress(stream.Cursor{Offset: 1, State: b}); record.KindOf(err) != record.Corrupt {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := decodeProgress(stream.Cursor{Offset: 1, State: zero}); err != nil {
		t.Errorf("the one they are made of: %v", err)
	}
}

func TestProgressOfTheLargestValuesFitsIntoACursor(t *testing.T) {
	long := strings.Repeat("ü", maxNoteText)
	p := progress{
		next: 1 << 60, messages: math.MaxUint64, bytes: math.MaxUint64, skipped: math.MaxUint64, dropped: math.MaxUint64,
		attempt: math.MinInt64, delivered: math.MinInt64, trouble: note{at: math.MinInt64, text: "x" + long, hint: "\xff\xfe" + long},
		target: make([]byte, MaxTargetState),
	}
	cur := p.encode()
	if len(cur.State) > stream.MaxCursorState {
		t.Fatalf("%d bytes", len(cur.State))
	}
	got, err := decodeProgress(cur)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix("x"+long, got.trouble.text) || len(got.trouble.text) < maxNoteText-3 || strings.ContainsRune(got.trouble.hint, '\ufffd') {
		t.Errorf("texts %q, %q", got.trouble.text, got.trouble.hint)
	}
	p.trouble.text, p.trouble.hint = got.trouble.text, got.trouble.hint
	if d := cmp.Diff(p, got, cmpProgress); d != "" {
		t.Error(d)
	}
}

func FuzzDecodeProgress(f *testing.F) {
	p := goldenProgress()
	f.Add(uint64(p.next), p.encode().State)
	f.Add(uint64(0), (&progress{}).encode().State)
	f.Fuzz(func(t *testing.T, offset uint64, state []byte) {
		p, err := decodeProgress(stream.Cursor{Offset: record.Offset(offset), State: state})
		if err != nil || len(state) == 0 {
			return
		}
		p.trouble.text, p.trouble.hint = clip(p.trouble.text), clip(p.trouble.hint) // foreign bytes are dropped in writing
		again, err := decodeProgress(p.encode())
		if err != nil {
			t.Fatalf("encoded, but does not decode: %v", err)
		}
		if d := cmp.Diff(p, again, cmpProgress); d != "" {
			t.Fatal(d)
		}
	})
}
