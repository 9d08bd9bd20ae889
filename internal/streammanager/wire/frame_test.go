package wire_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

func mustFrame(t testing.TB, op wire.Operation, body wire.Body) []byte {
	t.Helper()
	b, err := wire.AppendFrame(nil, op, body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFramesAreReadOneAfterAnother(t *testing.T) {
	list := mustFrame(t, wire.OpList, &wire.ListRequest{RequestID: "1"})
	large := mustFrame(t, wire.OpAppend, &wire.AppendRequest{RequestID: "2", Name: "s", Payload: make([]byte, 300_000)})
	empty := []byte{0, 0, 0, 1, 11}
	all := bytes.Join([][]byte{list, large, empty, list}, nil)
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(all), "byte by byte": iotest.OneByteReader(bytes.NewReader(all))} {
		t.Run(name, func(t *testing.T) {
			var buf []byte
			for i, want := range [][]byte{list, large, empty, list} {
				op, payload, err := wire.ReadFrame(r, buf, 1<<20)
				if err != nil || byte(op) != want[4] || !bytes.Equal(payload, want[5:]) {
					t.Fatalf("frame %d: operation %d, %d bytes, %v", i, op, len(payload), err)
				}
				buf = payload
			}
			if _, _, err := wire.ReadFrame(r, buf, 1<<20); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %v", err)
			}
		})
	}
}

func TestFramesThatAreNone(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		kind record.Kind
	}{
		"length 0":           {"\x00\x00\x00\x00\x0b", record.Invalid},
		"negative length":    {"\xff\xff\xff\xff\x0b", record.Invalid},
		"above the limit":    {"\x40\x00\x00\x01\x0b", record.Invalid},
		"another protocol":   {"GET / HTTP/1.1\r\n\r\n", record.Invalid},
		"half a header":      {"\x00\x00", record.Unavailable},
		"half a payload":     {"\x00\x00\x00\x05\x0b\xa0", record.Unavailable},
		"no payload":         {"\x00\x00\x00\x05\x0b", record.Unavailable},
		"half of a too long": {"\x00\xff\x00\x05\x0b\xa0", record.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := wire.ReadFrame(strings.NewReader(c.in), nil, 1<<20)
			if err == nil || errors.Is(err, io.EOF) || record.KindOf(err) != c.kind {
				t.Errorf("%v, want kind %v", err, c.kind)
			}
		})
	}
}

func TestATooLargeFrameCanBeAnsweredAndSkipped(t *testing.T) {
	large := mustFrame(t, wire.OpAppend, &wire.AppendRequest{RequestID: "the id", Name: "s", Payload: make([]byte, 1<<20)})
	next := mustFrame(t, wire.OpList, &wire.ListRequest{RequestID: "next"})
	r := bytes.NewReader(append(large, next...))
	op, prefix, err := wire.ReadFrame(r, nil, 1000)
	tooLarge, ok := errors.AsType[*wire.TooLargeError](err)
	if !ok || op != wire.OpAppend || tooLarge.Size != int64(len(large)-4) {
		t.Fatalf("operation %d, %v", op, err)
	}
	if id, ok := wire.RequestID(prefix); id != "the id" || !ok {
		t.Errorf("id %q, %v", id, ok)
	}
	if err := tooLarge.Skip(r); err != nil {
		t.Fatal(err)
	}
	if _, payload, err := wire.ReadFrame(r, nil, 1000); err != nil || !bytes.Equal(payload, next[5:]) {
		t.Errorf("the frame behind it: %x, %v", payload, err)
	}
	cut := bytes.NewReader(large[:len(large)-1])
	_, _, err = wire.ReadFrame(cut, nil, 1000)
	if tooLarge, ok = errors.AsType[*wire.TooLargeError](err); !ok || record.KindOf(tooLarge.Skip(cut)) != record.Unavailable {
		t.Errorf("one that is cut off: %v", err)
	}
}

func TestALengthIsAClaimAndAllocatesNothing(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := wire.ReadFrame(strings.NewReader("\x40\x00\x00\x00\x04hello"), nil, wire.MaxFrame)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 || err == nil {
		t.Errorf("%d bytes for five, %v", n, err)
	}
}

func TestNegotiation(t *testing.T) {
	for name, c := range map[string]struct {
		version string
		others  []string
		want    string
		status  wire.Status
	}{
		"the newest":         {"1.1.0", []string{"1.0.0"}, "1.1.0", 0},
		"an old client":      {"1.0.0", nil, "1.0.0", 0},
		"a newer client":     {"1.2.0", []string{"9.9.9", "1.0.0", "1.1.0"}, "1.0.0", 0},
		"nothing in common":  {"2.0.0", []string{"2.1.0"}, "", wire.UnsupportedProtocolVersion},
		"others are ignored": {"one", []string{"1.1.0"}, "", wire.InvalidProtocolVersion},
		"empty":              {"", nil, "", wire.InvalidProtocolVersion},
		"two numbers":        {"1.1", nil, "", wire.InvalidProtocolVersion},
		"long":               {strings.Repeat("1", 1000) + ".1.1", nil, "", wire.InvalidProtocolVersion},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := wire.Negotiate(&wire.Connect{ProtocolVersion: c.version, OtherSupportedProtocolVersions: c.others})
			if status, _ := wire.StatusOf(err); got != c.want || status != c.status {
				t.Errorf("%q, %v, status %v", got, err, status)
			}
		})
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02\x0b\xa0\x00\x00\x00\x01\x0b"))
	f.Add([]byte("\x00\x01\x00\x02\x0b\xa0"))
	f.Add(mustFrame(f, wire.OpList, &wire.ListRequest{RequestID: "1"}))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		const limit = 64
		var buf []byte
		for taken := 0; ; {
			_, payload, err := wire.ReadFrame(r, buf, limit)
			if tooLarge, ok := errors.AsType[*wire.TooLargeError](err); ok {
				if wire.RequestID(payload); tooLarge.Skip(r) != nil {
					return
				}
				taken += 4 + int(tooLarge.Size)
			} else if err != nil {
				return
			} else {
				if len(payload) > limit {
					t.Fatalf("%d bytes, above the limit", len(payload))
				}
				taken += wire.HeaderSize + len(payload)
				buf = payload
			}
			if taken != len(in)-r.Len() {
				t.Fatalf("out of step: %d bytes in frames, %d read", taken, len(in)-r.Len())
			}
		}
	})
}
