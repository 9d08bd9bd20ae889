package stream_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/memory"
	"github.com/leat-io/leat/internal/stream/streamtest"
)

// createsInSecond is two joined engines of which the second gets the streams, so that all work must find its way there.
type createsInSecond struct {
	stream.Joined
	second stream.Engine
}

func (c createsInSecond) Commit(ctx context.Context, changes ...stream.Change) ([]record.StreamID, error) {
	if !slices.ContainsFunc(changes, func(c stream.Change) bool { return c.Create == nil }) {
		return c.second.Commit(ctx, changes...)
	}
	return c.Joined.Commit(ctx, changes...)
}

func TestConformanceOfJoinedEngines(t *testing.T) {
	for name, join := range map[string]func(a, b stream.Engine) stream.Engine{
		"streams in the first":  func(a, b stream.Engine) stream.Engine { return stream.Join(a, b) },
		"streams in the second": func(a, b stream.Engine) stream.Engine { return createsInSecond{stream.Join(a, b), b} },
	} {
		t.Run(name, func(t *testing.T) {
			streamtest.Run(t, func(testing.TB) streamtest.Harness {
				c := clock.NewFake(streamtest.Now())
				open := func(l streamtest.Limits) stream.Engine {
					return memory.Open(memory.Options{
						Clock: c, QueueBytes: l.QueueBytes, MaxBytes: l.MaxBytes, ExpireEvery: 5 * time.Millisecond,
					})
				}
				return streamtest.Harness{
					Open:     func(l streamtest.Limits) (stream.Engine, error) { return join(open(l), open(l)), nil },
					Volatile: true,
					Clock:    c,
				}
			})
		})
	}
}

func create(name record.StreamName, id record.StreamID) stream.Change {
	return stream.Change{Create: &stream.Create{Name: name, ID: id}}
}

func TestJoinedShowsTheStreamsOfAll(t *testing.T) {
	a, b := memory.Open(memory.Options{}), memory.Open(memory.Options{})
	j := stream.Join(a, b)
	defer j.Close()
	for _, c := range []struct {
		e       stream.Engine
		changes []stream.Change
	}{
		{j, []stream.Change{create("test/b", 2)}},
		{b, []stream.Change{create("test/a", 1), create("test/c", 3), create("other/d", 4)}},
	} {
		if _, err := c.e.Commit(t.Context(), c.changes...); err != nil {
			t.Fatal(err)
		}
	}
	var names []record.StreamName
	for _, info := range j.List("test/") {
		names = append(names, info.Name)
	}
	if want := []record.StreamName{"test/a", "test/b", "test/c"}; !slices.Equal(names, want) {
		t.Errorf("listed %v, want %v", names, want)
	}
	if len(a.List("")) != 1 {
		t.Errorf("streams in the first engine: %v", a.List(""))
	}
	for id, name := range map[record.StreamID]record.StreamName{1: "test/a", 2: "test/b"} {
		if _, err := stream.AppendWait(t.Context(), j, id, record.Record{Payload: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		if info, err := j.Lookup(name); err != nil || info.ID != id || info.Bounds.Next != 1 {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
}

func TestJoinedRefusesWhatWouldMixEngines(t *testing.T) {
	a, b := memory.Open(memory.Options{}), memory.Open(memory.Options{})
	j := stream.Join(a, b)
	defer j.Close()
	for e, c := range map[stream.Engine]stream.Change{a: create("test/a", 1), b: create("test/b", 2)} {
		if _, err := e.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	seal := func(id record.StreamID) stream.Change { return stream.Change{Seal: &stream.Seal{ID: id}} }
	for what, c := range map[string]struct {
		changes []stream.Change
		want    record.Kind
	}{
		"a name that the second has":                               {[]stream.Change{create("test/b", 0)}, record.Conflict},
		"an id that the second has":                                {[]stream.Change{create("test/c", 2)}, record.Conflict},
		"a name that the first has, beside a change in the second": {[]stream.Change{seal(2), create("test/a", 0)}, record.Conflict},
		"streams of two engines":                                   {[]stream.Change{seal(1), seal(2)}, record.Invalid},
		"a stream that none has":                                   {[]stream.Change{seal(3)}, record.NotFound},
	} {
		if _, err := j.Commit(t.Context(), c.changes...); record.KindOf(err) != c.want || err == nil {
			t.Errorf("%s: %v, want kind %v", what, err, c.want)
		}
	}
	if bounds, err := j.Bounds(2); err != nil || bounds.Sealed {
		t.Errorf("a refused commit was applied: %+v, %v", bounds, err)
	}
}

// What is said of a stream that no engine has does not hide that one of them cannot tell.
func TestJoinedTellsThatAnEngineIsClosed(t *testing.T) {
	a, b := memory.Open(memory.Options{}), memory.Open(memory.Options{})
	j := stream.Join(a, b)
	defer j.Close()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Bounds(1); record.KindOf(err) != record.Unavailable {
		t.Errorf("bounds: %v", err)
	}
	if _, err := j.Lookup("test/a"); record.KindOf(err) != record.Unavailable {
		t.Errorf("lookup: %v", err)
	}
}
