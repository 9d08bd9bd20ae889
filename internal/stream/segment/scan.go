package segment

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"

	"github.com/leat-io/leat/internal/record"
)

// scanner walks the frames of a segment file in order and never gives up: what is no frame is reported as a range, and
// the walk goes on at the next frame.
type scanner struct {
	r    io.ReaderAt
	size int64
	salt uint64
	pos  int64

	buf []byte // holds the file from bufAt on
	at  int64
	err error // the disk is away; see readOrZero
}

// scanWindow is how much is read at once.
const scanWindow = 1 << 20

// piece is what the scanner found: a frame, a frame whose body or version cannot be read (unreadable), or bytes that
// are no frame (kind 0).
type piece struct {
	header
	pos, end   int64
	body       []byte // valid until the next call
	unreadable bool
}

func newScanner(r io.ReaderAt, size int64, salt uint64) *scanner {
	return &scanner{r: r, size: size, salt: salt, pos: segmentHeaderSize}
}

// next returns the next piece, io.EOF, or the error of a disk that gives nothing.
func (s *scanner) next() (piece, error) {
	if s.pos >= s.size {
		return piece{}, io.EOF
	}
	p, ok := s.frameAt(s.pos)
	if !ok {
		p = piece{pos: s.pos, end: s.search(s.pos + frameAlign)}
	}
	if s.err != nil {
		return piece{}, s.err
	}
	s.pos = p.end
	return p, nil
}

// frameAt reads the frame at pos; ok is false when there is no valid header.
func (s *scanner) frameAt(pos int64) (p piece, ok bool) {
	h, err := parseHeader(s.bytes(pos, frameHeaderSize), s.salt, pos)
	if errors.Is(err, errNoFrame) {
		return p, false
	}
	p = piece{header: h, pos: pos, end: min(pos+h.size(), s.size)}
	p.body = s.bytes(pos+frameHeaderSize, int(h.bodyLen))
	// The padding counts: a frame without it would put the next one where nobody looks.
	p.unreadable = err != nil || pos+h.size() > s.size || crc32.Checksum(p.body, castagnoli) != h.bodyCRC
	return p, true
}

// search returns the position of the next valid frame header from pos on, or the size of the file.
func (s *scanner) search(pos int64) int64 {
	for pos < s.size {
		w := s.bytes(pos, scanWindow)
		if len(w) < frameHeaderSize {
			return s.size
		}
		i := bytes.Index(w[:len(w)-frameHeaderSize+len(frameMagic)], frameMagic[:])
		if i < 0 {
			pos = align(pos + int64(len(w)-frameHeaderSize) + 1)
			continue
		}
		at := pos + int64(i)
		if at%frameAlign == 0 {
			if _, err := parseHeader(s.bytes(at, frameHeaderSize), s.salt, at); !errors.Is(err, errNoFrame) {
				return at
			}
		}
		pos = at + 1
	}
	return s.size
}

// bytes returns up to n bytes from pos on, fewer only at the end of the file. Blocks that the disk does not give are
// zeros: the checksums will tell.
func (s *scanner) bytes(pos int64, n int) []byte {
	n = int(max(0, min(int64(n), s.size-pos)))
	if from := pos - s.at; from >= 0 && from+int64(n) <= int64(len(s.buf)) {
		return s.buf[from : from+int64(n)]
	}
	want := int(min(int64(max(n, scanWindow)), s.size-pos))
	if cap(s.buf) < want {
		s.buf = make([]byte, want)
	}
	s.buf, s.at = s.buf[:want], pos
	if err := readOrZero(s.r, s.buf, pos); err != nil && s.err == nil {
		s.err = err
	}
	return s.buf[:n]
}

// readOrZero fills b from r, block by block when the whole does not read: what the disk does not give is zeros, for the
// checksums to find. When it does not even give the head of the file, the error is returned: then the disk is away
// rather than damaged, and to call that damage would have readers and cleaning pass over what may be back tomorrow.
func readOrZero(r io.ReaderAt, b []byte, pos int64) error {
	if n, err := r.ReadAt(b, pos); n == len(b) || errors.Is(err, io.EOF) {
		clear(b[n:])
		return nil
	}
	const block = 4096
	failed := false
	for at := 0; at < len(b); at += block {
		part := b[at:min(at+block, len(b))]
		n, err := r.ReadAt(part, pos+int64(at))
		clear(part[n:])
		failed = failed || err != nil && !errors.Is(err, io.EOF)
	}
	if failed {
		var head [1]byte
		if _, err := r.ReadAt(head[:], 0); err != nil {
			return record.Errorf(record.Unavailable, "read segment: %w", err).WithHint("check the disk and its cable")
		}
	}
	return nil
}
