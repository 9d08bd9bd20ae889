package segment_test

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/leat-io/leat/internal/stream/streamtest"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

func openSmall(t *testing.T, dir *vfs.Dir, clk clock.Clock) *segment.Log {
	t.Helper()
	l, err := segment.Open(segment.Options{
		Dir: dir, Clock: clk, Logger: slog.New(slog.DiscardHandler), SegmentBytes: 64 << 10, MaintainInterval: 5 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestSlowStreamPinsNoSegments(t *testing.T) {
	dir, err := vfs.OpenDir(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	l := openSmall(t, dir, clock.NewFake(streamtest.Now()))
	ids, err := l.Commit(t.Context(),
		stream.Change{Create: &stream.Create{Name: "test/slow"}},
		stream.Change{Create: &stream.Create{Name: "test/busy", Policy: stream.Policy{MaxBytes: 256 << 10, OnFull: stream.DropOldest, Durability: stream.OS}}})
	if err != nil {
		t.Fatal(err)
	}
	// One small record of the slow stream in each of many segments that the busy stream fills and outgrows.
	const segments = 60
	for i := range segments {
		if _, err := stream.AppendWait(t.Context(), l, ids[0], record.Record{Payload: []byte{byte(i)}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.AppendWait(t.Context(), l, ids[1], record.Record{Payload: bytes.Repeat([]byte{1}, 60<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	physical := func() int64 { return l.Stats()[stream.Short].Physical }
	testenv.Wait(t, 30*time.Second, func() bool { return physical() < 1<<20 }, "at most 1 MiB on disk after 3.6 MiB written")
	if st := l.Stats()[stream.Short]; st.DamagedRanges != 0 || st.CleanedSegments == 0 {
		t.Errorf("%+v", st)
	}
	check := func() {
		t.Helper()
		var c stream.Chunk
		next := record.Offset(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for next < segments {
			if err := l.Read(ctx, ids[0], next, 1<<20, &c); err != nil || len(c.Gaps) > 0 {
				t.Fatalf("%v, gaps %v", err, c.Gaps)
			}
			for i, r := range c.Records {
				if want := byte(int(c.First) + i); len(r.Payload) != 1 || r.Payload[0] != want {
					t.Fatalf("record %d: %x", want, r.Payload)
				}
			}
			next = c.Next
		}
	}
	check()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openSmall(t, dir, clock.NewFake(streamtest.Now()))
	check()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAClockThatJumpsNeitherReordersNorLoses(t *testing.T) {
	dir, err := vfs.OpenDir(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	now := streamtest.Now()
	readings := []clock.Reading{
		now,
		{Wall: 60e9, Mono: 1, Boot: 8, Trusted: false},                                          // after a reboot, 1970
		{Wall: now.Wall - int64(time.Hour), Mono: 2, Boot: 8, Trusted: true},                    // an hour back
		{Wall: now.Wall + int64(1000*24*time.Hour), Mono: 3, Boot: 8, Trusted: true},            // far ahead
		{Wall: now.Wall + int64(time.Minute), Mono: int64(time.Minute), Boot: 9, Trusted: true}, // corrected
	}
	var id record.StreamID
	for i, r := range readings {
		l := openSmall(t, dir, clock.NewFake(r))
		if i == 0 {
			ids, err := l.Commit(t.Context(), stream.Change{Create: &stream.Create{Name: "test/clock"}})
			if err != nil {
				t.Fatal(err)
			}
			id = ids[0]
		}
		first, err := stream.AppendWait(t.Context(), l, id, record.Record{Time: r.Wall, Payload: []byte{byte(i)}})
		if err != nil || first != record.Offset(i) {
			t.Fatalf("offset %d, %v", first, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l := openSmall(t, dir, clock.NewFake(now))
	defer l.Close()
	var c stream.Chunk
	if err := l.Read(t.Context(), id, 0, 1<<20, &c); err != nil || len(c.Records) != len(readings) {
		t.Fatalf("%d records, %v", len(c.Records), err)
	}
	for i, o := range c.Origins {
		r := readings[i]
		if c.Records[i].Payload[0] != byte(i) || o.Boot != r.Boot || o.Mono != r.Mono || o.Wall != r.Wall || o.Trusted != r.Trusted {
			t.Errorf("record %d: payload %x, origin %+v, want %+v", i, c.Records[i].Payload, o, r)
		}
	}
	if at, err := l.Seek(t.Context(), id, time.Unix(0, now.Wall)); err != nil || at != 0 {
		t.Errorf("seek: %d, %v", at, err)
	}
}
