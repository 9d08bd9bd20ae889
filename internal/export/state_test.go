package export

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// A golden file of a released version is never written again: add one for a new version instead.
var update = flag.Bool("update", false, "write golden files")

func goldenPosition() position {
	cut := time.Date(2026, 11, 21, 12, 34, 0, 0, time.UTC)
	return position{
		encoded: 5000,
		lastCut: cut.Add(3 * time.Minute).UnixNano(),
		anchors: []clock.Anchor{{Boot: 0x1122334455667788, Offset: 1_795_000_000_000_000_000}, {Boot: 7, Offset: -5}},
		steps: []Step{
			{State: Uploaded, From: 0, To: 1200, Cut: cut, Revision: 3, Oldest: cut.Add(-time.Minute).UnixNano(),
				LogBytes: 72_000, Detail: bytes.Repeat([]byte{0xab}, 32)},
			{State: Encoded, From: 1200, To: 5000, Cut: cut.Add(time.Minute), Revision: 3,
				LogBytes: 240_000, Detail: bytes.Repeat([]byte{0xcd}, 32)},
			{State: Planned, From: 5000, To: 5001, Cut: cut.Add(2 * time.Minute), Revision: 1 << 60, Untrusted: true,
				Oldest: -1, Parser: []byte("parser")},
		},
	}
}

func TestStateReadsTheGoldenFileOfEachVersion(t *testing.T) {
	const name = "testdata/state-v1.bin"
	want := goldenPosition()
	cur, err := encodeState(&want)
	if err != nil {
		t.Fatal(err)
	}
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
	got, err := decodeState(stream.Cursor{Offset: 5000, State: golden})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(position{})); d != "" {
		t.Error(d)
	}
}

func TestStateOfAnotherVersionIsRefusedWithTheRemedy(t *testing.T) {
	for _, v := range []byte{0, 2, 255} {
		_, err := decodeState(stream.Cursor{Offset: 1, State: []byte{v, 0, 0, 0}})
		if record.KindOf(err) != record.Invalid || !strings.Contains(record.HintOf(err), "leat version") {
			t.Errorf("version %d: %v (hint %q)", v, err, record.HintOf(err))
		}
	}
}

func TestStateThatDoesNotReadIsCorrupt(t *testing.T) {
	good := goldenPosition()
	cur, err := encodeState(&good)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]stream.Cursor{
		"cut off":                    {Offset: 5000, State: cur.State[:len(cur.State)-1]},
		"trailing bytes":             {Offset: 5000, State: append(bytes.Clone(cur.State), 0)},
		"encoded beyond the offset":  {Offset: 4999, State: cur.State},
		"planned below the offset":   {Offset: 5001, State: cur.State},
		"more steps than there may":  {Offset: 1, State: []byte{1, 0, 0, 0xff, 0x7f}},
		"an anchor count of 2^63":    {Offset: 1, State: []byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}},
		"only the version":           {Offset: 1, State: []byte{1}},
		"a varint that never ends":   {Offset: 1, State: []byte{1, 0x80, 0x80, 0x80}},
		"a step of an unknown state": {Offset: 10, State: []byte{1, 0, 0, 1, 9, 0, 0, 1, 0, 0, 0, 0, 0, 0}},
	}
	for name, c := range cases {
		if _, err := decodeState(c); record.KindOf(err) != record.Corrupt {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStateOfTheMostStepsFitsIntoACursor(t *testing.T) {
	p := position{encoded: 1 << 60}
	for i := range maxPending {
		p.steps = append(p.steps, Step{
			State: Encoded, From: record.Offset(1<<50 + i), To: record.Offset(1<<50 + i + 1), Cut: time.Unix(0, 1<<62).UTC(),
			Revision: 1<<64 - 1, Oldest: 1 << 62, LogBytes: 1 << 40, Detail: make([]byte, MaxDetail),
		})
	}
	for i := range maxAnchors {
		p.remember(clock.Anchor{Boot: uint64(i + 1), Offset: 1 << 62})
	}
	cur, err := encodeState(&p)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeState(cur)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(p, got, cmp.AllowUnexported(position{})); d != "" {
		t.Error(d)
	}
}

func TestStateSurvivesEncodingAndDecoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := position{lastCut: rapid.Int64().Draw(t, "cut")}
		for range rapid.IntRange(0, maxAnchors).Draw(t, "anchors") {
			p.anchors = append(p.anchors, clock.Anchor{Boot: rapid.Uint64().Draw(t, "boot"), Offset: rapid.Int64().Draw(t, "offset")})
		}
		at := record.Offset(rapid.Uint64Max(1<<40).Draw(t, "at"))
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			s := Step{
				State: rapid.SampledFrom([]State{Encoded, Uploaded}).Draw(t, "state"), From: at,
				To: at + record.Offset(rapid.Uint64Range(1, 1<<40).Draw(t, "n")), Cut: time.Unix(0, rapid.Int64().Draw(t, "cut")).UTC(),
				Revision: rapid.Uint64().Draw(t, "rev"), Untrusted: rapid.Bool().Draw(t, "untrusted"),
				Oldest: rapid.Int64().Draw(t, "oldest"), LogBytes: rapid.Int64Min(0).Draw(t, "bytes"),
			}
			if d := rapid.SliceOfN(rapid.Byte(), 0, MaxDetail).Draw(t, "detail"); len(d) > 0 {
				s.Detail = d
			}
			at = s.To
			p.steps = append(p.steps, s)
		}
		p.encoded = at
		cur, err := encodeState(&p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeState(cur)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(p, got, cmp.AllowUnexported(position{})); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	p := goldenPosition()
	cur, err := encodeState(&p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint64(cur.Offset), cur.State)
	f.Add(uint64(0), []byte{1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, offset uint64, state []byte) {
		p, err := decodeState(stream.Cursor{Offset: record.Offset(offset), State: state})
		if err != nil || len(state) == 0 {
			return
		}
		cur, err := encodeState(&p)
		if err != nil {
			t.Fatalf("decoded, but does not encode: %v", err)
		}
		again, err := decodeState(cur)
		if err != nil {
			t.Fatalf("encoded, but does not decode: %v", err)
		}
		if d := cmp.Diff(p, again, cmp.AllowUnexported(position{})); d != "" {
			t.Fatal(d)
		}
	})
}
