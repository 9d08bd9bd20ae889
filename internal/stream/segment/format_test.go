package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

var unexported = cmp.AllowUnexported(op{}, extent{}, group{}, streamGroups{}, header{})

func TestFrameHeaderIsValidOnlyInItsPlace(t *testing.T) {
	h := header{
		kind: kindData, flags: flagTrusted | flagRelocated, bodyLen: 77, bodyCRC: 3, stream: 9, first: 1 << 40, count: 7, epoch: 2,
		minTime: -5, maxTime: 1 << 60, boot: 8, mono: 12, wall: 13, producer: 14, producerSeq: 15, synced: 16, logical: 70,
	}
	var b [frameHeaderSize]byte
	h.put(b[:], 99, 4096)
	got, err := parseHeader(b[:], 99, 4096)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(h, got, unexported); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if _, err := parseHeader(b[:], 98, 4096); !errors.Is(err, errNoFrame) {
		t.Errorf("accepted with another segment's salt: %v", err)
	}
	if _, err := parseHeader(b[:], 99, 4104); !errors.Is(err, errNoFrame) {
		t.Errorf("accepted at another position: %v", err)
	}
	for bit := range frameHeaderSize * 8 {
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := parseHeader(b[:], 99, 4096); !errors.Is(err, errNoFrame) {
			t.Fatalf("accepted with bit %d flipped: %v", bit, err)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

func TestFrameOfANewerVersionIsTold(t *testing.T) {
	for name, change := range map[string]func(b []byte){
		"version": func(b []byte) { b[3] = formatVersion + 1 },
		"codec":   func(b []byte) { b[5] = 1 },
		"key":     func(b []byte) { b[104] = 1 },
	} {
		var b [frameHeaderSize]byte
		h := header{kind: kindData, bodyLen: 8}
		h.put(b[:], 1, 64)
		change(b[:])
		binary.LittleEndian.PutUint32(b[116:], headerCRC(b[:], 1, 64))
		if got, err := parseHeader(b[:], 1, 64); !errors.Is(err, errFrameVersion) || got.bodyLen != 8 {
			t.Errorf("%s: %v, body %d", name, err, got.bodyLen)
		}
	}
}

var someOps = []op{
	{kind: opSegment, segment: 3, salt: 1 << 63, bytes: 64 << 20},
	{kind: opCreate, id: 5, name: "ingest/default", policy: stream.Policy{
		Durability: stream.OS, OnFull: stream.DropOldest, Lane: stream.Long, MaxBytes: 1 << 33, MaxAge: time.Hour, UntilExported: true,
	}},
	{kind: opBounds, id: 5, offset: 17, next: 1 << 50},
	{kind: opExtent, id: 5, extent: extent{first: 17, next: 1 << 50, segment: 3, physical: 9, logical: 8, maxTime: -1}},
	{kind: opCursor, id: 5, name: "export/lake", offset: 18, state: []byte("{}")},
	{kind: opAlter, id: 5}, {kind: opAlter, id: 5, policy: stream.Policy{MaxBytes: 9, MaxAge: 8, DropBytes: 1 << 40}}, {kind: opSeal, id: 5}, {kind: opTruncate, id: 5, offset: 20, bytes: 3},
	{kind: opCursorDelete, id: 5, name: "export/lake"}, {kind: opSkip, id: 5, offset: 1 << 51},
	{kind: opDelete, id: 5}, {kind: opDropSegment, segment: 3},
}

func TestControlStepsSurviveEncoding(t *testing.T) {
	r := opReader{b: appendOps(nil, someOps...)}
	var got []op
	for o, ok := r.next(); ok; o, ok = r.next() {
		got = append(got, o)
	}
	if diff := cmp.Diff(someOps, got, unexported, cmpopts.EquateEmpty()); diff != "" || r.bad {
		t.Errorf("bad %v, steps (-want +got):\n%s", r.bad, diff)
	}
}

func TestPolicyFlagThatIsNotKnownIsMalformed(t *testing.T) {
	b := appendPolicy(nil, &stream.Policy{UntilExported: true, DropBytes: 7})
	for flags, bad := range map[byte]bool{0: false, 1: false, 3: false, 4: true, 0xff: true} {
		b[3] = flags
		r := opReader{b: b}
		if p := r.policy(); r.bad != bad || p.UntilExported != (flags&1 != 0) {
			t.Errorf("flags %#x: bad %v, %+v", flags, r.bad, p)
		}
	}
}

func TestIndexSurvivesEncodingAndRefusesDamage(t *testing.T) {
	want := []streamGroups{
		{id: 2, groups: []group{{first: 0, maxTime: 5, pos: 64, span: 300, count: 2, logical: 20}, {first: 2, pos: 70000, span: 8, count: 1}}},
		{id: 7, groups: []group{{first: 9, maxTime: -1, pos: 400, span: 128, count: 1, logical: 1}}},
	}
	b := encodeIndex(4, 44, want)
	got, err := decodeIndex(b, 4, 44)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, unexported); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
	for i := range b {
		b[i] ^= 1
		if _, err := decodeIndex(b, 4, 44); err == nil && !(i >= 32 && i < 36) && !(i >= indexHeaderSize && (i-indexHeaderSize)%indexEntrySize >= 20 && i < indexHeaderSize+2*indexEntrySize) {
			t.Errorf("accepted with byte %d changed", i)
		}
		b[i] ^= 1
	}
}

func FuzzRecords(f *testing.F) {
	var body []byte
	body = appendRecord(body, &record.Record{Time: 1 << 60, Key: []byte("topic"), Payload: []byte("21.5")}, 0)
	body = appendRecord(body, &record.Record{Time: 5, Attributes: record.Attributes("").Append("a", "b")}, 1<<60)
	f.Add(body, 2)
	f.Fuzz(func(t *testing.T, body []byte, count int) {
		records, err := decodeRecords(body, min(count, 1000), 0, nil)
		if err != nil || count < 0 {
			return
		}
		var again []byte
		var prev int64
		for i := range records {
			again = appendRecord(again, &records[i], prev)
			prev = records[i].Time
		}
		same, err := decodeRecords(again, len(records), 0, nil)
		if err != nil || !cmp.Equal(records, same, cmpopts.EquateEmpty()) {
			t.Errorf("records change when written again: %v", err)
		}
	})
}

func FuzzOps(f *testing.F) {
	f.Add(appendOps(nil, someOps...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := opReader{b: b}
		for o, ok := r.next(); ok; o, ok = r.next() {
			again := opReader{b: appendOp(nil, &o)}
			if same, ok := again.next(); !ok || !cmp.Equal(o, same, unexported, cmpopts.EquateEmpty()) {
				t.Errorf("step changes when written again: %+v, %+v", o, same)
			}
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add(encodeIndex(1, 2, []streamGroups{{id: 2, groups: make([]group, 3)}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		index, err := decodeIndex(b, 1, 2)
		if err == nil && len(index) > len(b) {
			t.Error("more streams than bytes")
		}
	})
}

// FuzzScan feeds the scanner a segment of good frames with arbitrary bytes written over it: it must end, and pieces
// must cover the file without overlap.
func FuzzScan(f *testing.F) {
	segment := bytes.Repeat([]byte{0}, segmentHeaderSize)
	for i := range 5 {
		body := appendRecord(nil, &record.Record{Payload: bytes.Repeat([]byte{byte(i)}, 100)}, 0)
		h := header{kind: kindData, stream: 1, first: record.Offset(i), count: 1, bodyLen: uint32(len(body)), bodyCRC: crc32.Checksum(body, castagnoli)}
		var head [frameHeaderSize]byte
		h.put(head[:], 7, int64(len(segment)))
		segment = append(append(segment, head[:]...), body...)
		segment = append(segment, make([]byte, align(int64(len(segment)))-int64(len(segment)))...)
	}
	f.Add([]byte("LeF\x01"), 300)
	f.Add(segment[64:200], 64)
	f.Fuzz(func(t *testing.T, over []byte, at int) {
		b := bytes.Clone(segment)
		copy(b[max(0, min(at, len(b))):], over)
		sc := newScanner(bytes.NewReader(b), int64(len(b)), 7)
		for end := int64(segmentHeaderSize); ; {
			p, err := sc.next()
			if errors.Is(err, io.EOF) {
				if end != int64(len(b)) {
					t.Errorf("pieces end at %d of %d", end, len(b))
				}
				return
			}
			if err != nil || p.pos != end || p.end <= p.pos {
				t.Fatalf("piece [%d, %d) after %d, %v", p.pos, p.end, end, err)
			}
			end = p.end
		}
	})
}
