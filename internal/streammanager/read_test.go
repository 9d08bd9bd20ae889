package streammanager

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// TestReadsAgreeWithAModel compares reads that do not wait with a slice of what was appended and not truncated.
func TestReadsAgreeWithAModel(t *testing.T) {
	n := newNode(t)
	m := n.open()
	number := 0
	rapid.Check(t, func(rt *rapid.T) {
		number++
		name := fmt.Sprintf("s%d", number)
		place := rapid.SampledFrom([][]func(*wire.MessageStreamDefinition){nil, {inMemory}}).Draw(rt, "place")
		ok(t, m.Create(t.Context(), define(name, place...)))
		s, err := m.find(name)
		ok(t, err)
		var model []string
		oldest := 0
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				batch := rapid.SliceOfN(rapid.StringN(1, 20, -1), 1, 5).Draw(rt, "batch")
				if first := must[int64](t)(appendTo(m, name, batch...)); first != int64(len(model)) {
					rt.Fatalf("first is %d, want %d", first, len(model))
				}
				model = append(model, batch...)
			},
			"truncate": func(rt *rapid.T) {
				ok(t, s.engine.Sync(t.Context(), s.id))
				oldest = rapid.IntRange(oldest, len(model)).Draw(rt, "before")
				_, err := s.engine.Commit(t.Context(), stream.Change{Truncate: &stream.Truncate{ID: s.id, Before: record.Offset(oldest)}})
				ok(t, err)
			},
			"read": func(rt *rapid.T) {
				start := rapid.IntRange(0, len(model)+2).Draw(rt, "start")
				least := rapid.IntRange(1, 6).Draw(rt, "min")
				most := least + rapid.IntRange(0, 6).Draw(rt, "more")
				from := max(start, oldest)
				want := model[min(from, len(model)):min(from+most, len(model))]
				got, err := read(m, name, int64(start), int64(least), int64(most), 0)
				if len(want) < least {
					if status, _ := wire.StatusOf(err); status != wire.NotEnoughMessages {
						rt.Fatalf("%d of %d: %v", len(want), least, err)
					}
					return
				}
				ok(t, err)
				if len(got) != len(want) {
					rt.Fatalf("%d messages, want %d", len(got), len(want))
				}
				for i, g := range got {
					if g.SequenceNumber != int64(from+i) || string(g.Payload) != want[i] {
						rt.Fatalf("message %d: %d %q, want %q", i, g.SequenceNumber, g.Payload, want[i])
					}
				}
			},
		})
	})
}

func TestReadSeesWhatWasAcknowledgedAndIsNotSyncedYet(t *testing.T) {
	n := newNode(t)
	n.stop()
	n.sync = time.Hour
	n.start()
	m := n.open()
	ok(t, m.Create(t.Context(), define("s")))
	for i := range int64(3) {
		must[int64](t)(appendTo(m, "s", "x"))
		if msgs := must[[]wire.Message](t)(read(m, "s", i, 1, 1, 0)); msgs[0].SequenceNumber != i {
			t.Errorf("%+v", msgs)
		}
	}
}

func TestReadWaitsForMessages(t *testing.T) {
	m := newNode(t).open()
	for name, change := range map[string][]func(*wire.MessageStreamDefinition){"file": nil, "memory": {inMemory}} {
		t.Run(name, func(t *testing.T) {
			ok(t, m.Create(t.Context(), define(name, change...)))
			done := make(chan []wire.Message)
			go func() {
				msgs, err := read(m, name, 2, 2, 9, 60_000) // begins beyond the end
				if err != nil {
					t.Error(err)
				}
				done <- msgs
			}()
			for i := range 4 {
				must[int64](t)(appendTo(m, name, fmt.Sprint(i)))
			}
			if msgs := <-done; len(msgs) < 2 || msgs[0].SequenceNumber != 2 {
				t.Errorf("%+v", msgs)
			}
		})
	}
}

func TestReadAnswersBeforeItsTimeoutAndWhenItsContextEnds(t *testing.T) {
	m := newNode(t).open()
	ok(t, m.Create(t.Context(), define("s")))
	start := time.Now()
	_, err := read(m, "s", 0, 1, 1, 400)
	status, text := wire.StatusOf(err)
	if took := time.Since(start); status != wire.NotEnoughMessages || took < 350*time.Millisecond || !strings.Contains(text, "readTimeoutMillis") {
		t.Errorf("%v after %v: %s", status, took, text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = m.Read(ctx, "s", &wire.ReadMessagesOptions{ReadTimeoutMillis: i(1 << 40)})
	if status, _ := wire.StatusOf(err); status != wire.NotEnoughMessages {
		t.Errorf("%v: %v", status, err)
	}
}

func TestResponsesAreBounded(t *testing.T) {
	m := newNode(t).open()
	ok(t, m.Create(t.Context(), define("s", inMemory)))
	for range 70 {
		must[int64](t)(appendTo(m, "s", strings.Repeat("x", 1<<20)))
	}
	if msgs := must[[]wire.Message](t)(read(m, "s", 0, 1, 70, 0)); len(msgs) < 1 || len(msgs) > 2 {
		t.Errorf("%d messages of 1 MiB where one is enough", len(msgs))
	}
	if msgs := must[[]wire.Message](t)(read(m, "s", 0, 10, 70, 0)); len(msgs) != 10 {
		t.Errorf("%d messages, want the 10 asked for", len(msgs))
	}
	_, err := read(m, "s", 0, 70, 70, 0)
	if status, text := wire.StatusOf(err); status != wire.ResponsePayloadTooLarge || !strings.Contains(text, "minMessageCount") {
		t.Errorf("%v: %s", status, text)
	}
}

func TestReadPassesOverDamage(t *testing.T) {
	n := newNode(t)
	m := n.open()
	ok(t, m.Create(t.Context(), define("s", inMemory)))
	for range 4 {
		must[int64](t)(appendTo(m, "s", "x"))
	}
	s := m.streams["s"]
	s.engine = damaged{s.engine, 2}
	if msgs := must[[]wire.Message](t)(read(m, "s", 0, 2, 4, 0)); len(msgs) != 2 || msgs[0].SequenceNumber != 2 {
		t.Errorf("%+v", msgs)
	}
	s.engine = damaged{s.engine, 4}
	_, err := read(m, "s", 0, 1, 4, 0)
	if status, text := wire.StatusOf(err); status != wire.MessageStoreReadError || !strings.Contains(text, "read on from 4") {
		t.Errorf("%v: %s", status, text)
	}
}

// damaged is an engine whose records before the offset to do not read.
type damaged struct {
	stream.Engine
	to record.Offset
}

func (d damaged) Read(ctx context.Context, id record.StreamID, from record.Offset, most int, c *stream.Chunk) error {
	if from >= d.to {
		return d.Engine.Read(ctx, id, from, most, c)
	}
	*c = stream.Chunk{First: d.to, Next: d.to, Gaps: []stream.Gap{{From: from, To: d.to, Reason: stream.Damaged}}}
	return nil
}
