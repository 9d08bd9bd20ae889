package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/leat-io/leat/internal/record"
)

// The layout of segments and frames, byte by byte, is in docs/format/log.md. All integers are little-endian.
const (
	formatVersion = 1

	segmentHeaderSize = 64
	frameHeaderSize   = 120
	frameAlign        = 8

	// maxSegmentBytes is where a segment ends at the latest, but for the frames of one commit: groups hold positions in
	// 32 bits.
	maxSegmentBytes = 1 << 30

	// maxFrameBody is the body of a frame that holds more than one record.
	maxFrameBody = 1 << 20
	// maxBody is the body of any frame: one record of the largest size with its framing.
	maxBody = 16<<20 + 128<<10
)

var (
	segmentMagic = [8]byte{'L', 'E', 'A', 'T', 'S', 'E', 'G', 0}
	frameMagic   = [3]byte{'L', 'e', 'F'}
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

var (
	errNoFrame      = errors.New("no frame here")
	errFrameVersion = errors.New("frame of a newer version")
)

type frameKind uint8

const (
	kindData       frameKind = 1
	kindControl    frameKind = 2
	kindCheckpoint frameKind = 3
	kindVoid       frameKind = 4 // encoded, then refused: its stream was sealed or deleted before the commit
)

const (
	flagTrusted   = 1 << 0 // the wall clock was believed at the append
	flagRelocated = 1 << 1 // copied forward from an older segment by cleaning
	flagLast      = 1 << 2 // last part of a checkpoint
)

// header is the header of a frame. Position and salt are not part of it but of its checksum: a frame is valid only
// where it was written, so neither a payload that contains a frame nor a stale block can pass for one.
type header struct {
	kind        frameKind
	codec       uint8
	flags       uint16
	bodyLen     uint32
	bodyCRC     uint32
	stream      record.StreamID
	first       record.Offset
	count       uint32
	epoch       uint32
	minTime     int64
	maxTime     int64
	boot        uint64
	mono        int64
	wall        int64
	producer    uint64
	producerSeq uint64
	synced      uint64 // position in this segment below which everything was durable when the frame was written
	keyID       uint32
	logical     uint32 // record.Size summed
}

func (h *header) size() int64 { return align(frameHeaderSize + int64(h.bodyLen)) }

func (h *header) next() record.Offset { return h.first + record.Offset(h.count) }

func align(n int64) int64 { return (n + frameAlign - 1) &^ (frameAlign - 1) }

// put writes the header into b, which holds frameHeaderSize bytes.
func (h *header) put(b []byte, salt uint64, pos int64) {
	le := binary.LittleEndian
	copy(b, frameMagic[:])
	b[3] = formatVersion
	b[4] = byte(h.kind)
	b[5] = h.codec
	le.PutUint16(b[6:], h.flags)
	le.PutUint32(b[8:], h.bodyLen)
	le.PutUint32(b[12:], h.bodyCRC)
	le.PutUint64(b[16:], uint64(h.stream))
	le.PutUint64(b[24:], uint64(h.first))
	le.PutUint32(b[32:], h.count)
	le.PutUint32(b[36:], h.epoch)
	le.PutUint64(b[40:], uint64(h.minTime))
	le.PutUint64(b[48:], uint64(h.maxTime))
	le.PutUint64(b[56:], h.boot)
	le.PutUint64(b[64:], uint64(h.mono))
	le.PutUint64(b[72:], uint64(h.wall))
	le.PutUint64(b[80:], h.producer)
	le.PutUint64(b[88:], h.producerSeq)
	le.PutUint64(b[96:], h.synced)
	le.PutUint32(b[104:], h.keyID)
	le.PutUint32(b[108:], h.logical)
	le.PutUint32(b[112:], 0)
	le.PutUint32(b[116:], headerCRC(b, salt, pos))
}

func headerCRC(b []byte, salt uint64, pos int64) uint32 {
	var seed [16]byte
	binary.LittleEndian.PutUint64(seed[:], salt)
	binary.LittleEndian.PutUint64(seed[8:], uint64(pos))
	return crc32.Update(crc32.Checksum(seed[:], castagnoli), castagnoli, b[:116])
}

// parseHeader reads the frame header at the start of b. It gives errNoFrame when there is none, and errFrameVersion,
// with the header's length fields filled, when a valid header is of a version or codec this program does not know.
func parseHeader(b []byte, salt uint64, pos int64) (h header, err error) {
	if len(b) < frameHeaderSize || [3]byte(b) != frameMagic {
		return h, errNoFrame
	}
	le := binary.LittleEndian
	if le.Uint32(b[116:]) != headerCRC(b, salt, pos) {
		return h, errNoFrame
	}
	h = header{
		kind:        frameKind(b[4]),
		codec:       b[5],
		flags:       le.Uint16(b[6:]),
		bodyLen:     le.Uint32(b[8:]),
		bodyCRC:     le.Uint32(b[12:]),
		stream:      record.StreamID(le.Uint64(b[16:])),
		first:       record.Offset(le.Uint64(b[24:])),
		count:       le.Uint32(b[32:]),
		epoch:       le.Uint32(b[36:]),
		minTime:     int64(le.Uint64(b[40:])),
		maxTime:     int64(le.Uint64(b[48:])),
		boot:        le.Uint64(b[56:]),
		mono:        int64(le.Uint64(b[64:])),
		wall:        int64(le.Uint64(b[72:])),
		producer:    le.Uint64(b[80:]),
		producerSeq: le.Uint64(b[88:]),
		synced:      le.Uint64(b[96:]),
		keyID:       le.Uint32(b[104:]),
		logical:     le.Uint32(b[108:]),
	}
	if h.bodyLen > maxBody {
		return h, errNoFrame
	}
	if b[3] != formatVersion || h.codec != 0 || h.keyID != 0 {
		return h, errFrameVersion
	}
	return h, nil
}

// segmentHeader is the first segmentHeaderSize bytes of a segment file. Number and salt are in the file's name too, so
// that the frames of a segment whose header is damaged can still be checked.
type segmentHeader struct {
	lane    uint8
	number  uint64
	salt    uint64
	log     uint64 // id of the log directory
	created int64
	epoch   uint32
}

func (h *segmentHeader) encode() []byte {
	b := make([]byte, segmentHeaderSize)
	le := binary.LittleEndian
	copy(b, segmentMagic[:])
	le.PutUint16(b[8:], formatVersion)
	b[10] = h.lane
	le.PutUint64(b[16:], h.number)
	le.PutUint64(b[24:], h.salt)
	le.PutUint64(b[32:], h.log)
	le.PutUint64(b[40:], uint64(h.created))
	le.PutUint32(b[48:], h.epoch)
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

// parseSegmentHeader reads a segment's header. A valid header of a newer version is an Invalid error with the remedy:
// the directory belongs to a newer leat and must not be touched.
func parseSegmentHeader(b []byte) (h segmentHeader, err error) {
	le := binary.LittleEndian
	if len(b) < segmentHeaderSize || [8]byte(b) != segmentMagic || le.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return h, record.Errorf(record.Corrupt, "segment header is damaged")
	}
	if v := le.Uint16(b[8:]); v > formatVersion {
		return h, record.Errorf(record.Invalid, "log format %d is newer than this program's %d", v, formatVersion).
			WithHint("run the leat release that wrote this data directory, or a newer one")
	}
	return segmentHeader{
		lane:    b[10],
		number:  le.Uint64(b[16:]),
		salt:    le.Uint64(b[24:]),
		log:     le.Uint64(b[32:]),
		created: int64(le.Uint64(b[40:])),
		epoch:   le.Uint32(b[48:]),
	}, nil
}

const (
	segmentExt = ".seg"
	indexExt   = ".idx"
)

// fileName is a segment's or index's name without directory: number and salt in hexadecimal.
func fileName(number, salt uint64, ext string) string {
	return fmt.Sprintf("%016x-%016x%s", number, salt, ext)
}

func parseFileName(name string) (number, salt uint64, ext string, ok bool) {
	if len(name) != 16+1+16+4 || name[16] != '-' {
		return 0, 0, "", false
	}
	number, err1 := strconv.ParseUint(name[:16], 16, 64)
	salt, err2 := strconv.ParseUint(name[17:33], 16, 64)
	ext = name[33:]
	ok = err1 == nil && err2 == nil && (ext == segmentExt || ext == indexExt) && strings.ToLower(name) == name
	return number, salt, ext, ok
}

// appendRecord adds one record to a frame's body; prev is the time of the record before it in the frame, or 0.
func appendRecord(b []byte, r *record.Record, prev int64) []byte {
	b = binary.AppendVarint(b, r.Time-prev)
	b = binary.AppendUvarint(b, uint64(len(r.Key)))
	b = append(b, r.Key...)
	b = binary.AppendUvarint(b, uint64(len(r.Attributes)))
	b = append(b, r.Attributes...)
	b = binary.AppendUvarint(b, uint64(len(r.Payload)))
	return append(b, r.Payload...)
}

// decodeRecords reads the count records of a frame's body and appends those from number skip on to dst. The records
// alias body.
func decodeRecords(body []byte, count, skip int, dst []record.Record) ([]record.Record, error) {
	var when int64
	for i := range count {
		delta, n := binary.Varint(body)
		if n <= 0 {
			return dst, record.Errorf(record.Corrupt, "record %d of %d in frame: bad time", i, count)
		}
		body = body[n:]
		when += delta
		var key, attributes, payload []byte
		ok := true
		for _, field := range []*[]byte{&key, &attributes, &payload} {
			if *field, body, ok = cutField(body); !ok {
				return dst, record.Errorf(record.Corrupt, "record %d of %d in frame: bad length", i, count)
			}
		}
		if i >= skip {
			dst = append(dst, record.Record{Time: when, Key: key, Attributes: attributes, Payload: payload})
		}
	}
	if len(body) != 0 {
		return dst, record.Errorf(record.Corrupt, "frame of %d records: %d bytes too many", count, len(body))
	}
	return dst, nil
}

func cutField(b []byte) (field, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return nil, nil, false
	}
	end := used + int(n)
	return b[used:end:end], b[end:], true
}
