package api

import (
	"bytes"
	"io"
	"testing"

	"github.com/leat-io/leat/internal/record"
)

// FuzzReadFrames holds that no answer makes a client panic, hang, or take a part for the whole.
func FuzzReadFrames(f *testing.F) {
	f.Add([]byte{frameData, 0, 0, 0, 1, 'x', frameDone, 0, 0, 0, 0})
	f.Add([]byte{frameProgress, 0, 0, 0, 2, '{', '}', frameDone, 0, 0, 0, 0})
	f.Add([]byte{frameError, 0, 0, 0, 2, '{', '}'})
	f.Add([]byte{frameData, 255, 255, 255, 255})
	f.Add([]byte("D"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		var out bytes.Buffer
		err := readFrames(bytes.NewReader(answer), &out, func(QueryProgress) {})
		if err == nil && !bytes.Contains(answer, []byte{frameDone, 0, 0, 0}) {
			t.Fatalf("%q counts as complete", answer)
		}
		if out.Len() > len(answer) {
			t.Fatalf("%d bytes out of %d", out.Len(), len(answer))
		}
	})
}

func TestAnAnswerThatWasCutOffIsAnError(t *testing.T) {
	whole := []byte{frameData, 0, 0, 0, 3, 'a', 'b', 'c', frameDone, 0, 0, 0, 0}
	for n := range len(whole) {
		if err := readFrames(bytes.NewReader(whole[:n]), io.Discard, nil); err == nil {
			t.Errorf("%d bytes of %d count as complete", n, len(whole))
		}
	}
	if err := readFrames(bytes.NewReader(whole), io.Discard, nil); err != nil {
		t.Error(err)
	}
}

func TestFailuresKeepTheirKind(t *testing.T) {
	for k := record.Internal; k <= record.Corrupt; k++ {
		err := failureOf(record.Errorf(k, "x").WithHint("y")).err()
		if record.KindOf(err) != k || record.HintOf(err) != "y" || err.Error() != "x" {
			t.Errorf("%v became %v (%v)", k, err, record.KindOf(err))
		}
	}
}
