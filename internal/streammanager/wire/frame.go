package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"

	"github.com/leat-io/leat/internal/record"
)

// ConnectVersion is the byte with which each side begins, before its first frame (section 2.2 of the protocol). It must be
// part of the write of that frame: append it to the buffer before AppendFrame.
const ConnectVersion byte = 0x01

// HeaderSize is the bytes of a frame before its payload: the length as int32, big-endian, and the operation.
const HeaderSize = 5

// MaxFrame is the largest length that a frame may declare, in bytes: operation and payload.
const MaxFrame = 1 << 30

// prefixSize is how much of a frame above the limit is read, so that its request can be named: all clients send the id
// first, and none has an id of more than 36 bytes.
const prefixSize = 4 << 10

// firstRead is the most that is allocated for a frame before any of its payload has arrived. A length is a claim: memory
// follows the bytes that came.
const firstRead = 64 << 10

// TooLargeError is a frame above the caller's limit. What follows it can be read after Skip.
type TooLargeError struct {
	Size int64 // what the frame declares, in bytes
	Rest int64 // how much of it has not been read yet
}

// Error says how large the frame is.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("a frame of %d bytes is too large", e.Size)
}

// Skip reads the rest of the frame from r and forgets it.
func (e *TooLargeError) Skip(r io.Reader) error {
	n, err := io.CopyN(io.Discard, r, e.Rest)
	e.Rest -= n
	if err != nil {
		return unavailable("skip a frame", err)
	}
	return nil
}

// ParseHeader reads a header: header must have HeaderSize bytes. size is that of the payload, in bytes. A length that the
// protocol does not allow is an Invalid error; no frame can be found behind it.
func ParseHeader(header []byte) (op Operation, size int, err error) {
	length := int32(binary.BigEndian.Uint32(header))
	if length < 1 || length > MaxFrame {
		return 0, 0, record.Errorf(record.Invalid, "a frame of %d bytes: want 1 to %d; this is not the Stream Manager's protocol", length, MaxFrame)
	}
	return Operation(header[4]), int(length) - 1, nil
}

// ReadFrame reads one frame from r. The payload lies in buf when it fits, else in a larger buffer, which the caller may
// hand in the next time; it is the caller's.
//
// limit is the largest payload in bytes. Of a larger frame, the first few KiB are the payload and the error is a
// *TooLargeError: the caller answers (see RequestID) and calls Skip. The error is io.EOF when r ends between frames,
// Invalid when the length is none, else Unavailable; but for a TooLargeError, nothing more can be read from r.
func ReadFrame(r io.Reader, buf []byte, limit int) (op Operation, payload []byte, err error) {
	if cap(buf) < HeaderSize {
		buf = make([]byte, 0, 512)
	}
	header := buf[:HeaderSize]
	if _, err := io.ReadFull(r, header); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, nil, io.EOF
		}
		return 0, nil, unavailable("read a frame's header", err)
	}
	op, size, err := ParseHeader(header)
	if err != nil {
		return 0, nil, err
	}
	if size <= limit {
		payload, err = readPayload(r, buf[:0], size)
		return op, payload, err
	}
	prefix := min(size, prefixSize)
	if payload, err = readPayload(r, buf[:0], prefix); err != nil {
		return op, nil, err
	}
	return op, payload, &TooLargeError{Size: int64(size) + 1, Rest: int64(size - prefix)}
}

// readPayload reads size bytes into buf, which grows as they arrive.
func readPayload(r io.Reader, buf []byte, size int) ([]byte, error) {
	for len(buf) < size {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, min(size-len(buf), max(len(buf), firstRead)))
		}
		have := len(buf)
		buf = buf[:min(size, cap(buf))]
		if _, err := io.ReadFull(r, buf[have:]); err != nil {
			return nil, unavailable("read a frame's payload", err)
		}
	}
	return buf, nil
}

func unavailable(what string, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return record.Errorf(record.Unavailable, "%s: %w", what, err)
}

// AppendFrame appends a whole frame to dst, so that it can leave in one write (section 2.4: the Python client does not
// survive a header that arrives apart). When it fails dst is returned as it was.
func AppendFrame(dst []byte, op Operation, body Body) ([]byte, error) {
	start := len(dst)
	out := append(dst, 0, 0, 0, 0, byte(op))
	out, err := body.appendTo(out)
	if err != nil {
		return dst, record.Errorf(record.Internal, "encode an operation %d: %w", op, err)
	}
	length := len(out) - start - 4
	if length > MaxFrame {
		return dst, Errorf(ResponsePayloadTooLarge, "a frame of %d bytes is above the protocol's limit of %d: ask for fewer messages", length, MaxFrame)
	}
	binary.BigEndian.PutUint32(out[start:], uint32(length))
	return out, nil
}

// Response is the operation that answers op: OpUnknownError for what is no request.
func (op Operation) Response() Operation {
	switch op {
	case OpConnect, OpCreate, OpDelete, OpAppend, OpRead:
		return op + 5
	case OpList, OpDescribe, OpUpdate, OpAppendBatch:
		return op + 1
	}
	return OpUnknownError
}

// ProtocolVersions are those that leat speaks, the newest first. 1.0.0 lacks Update, S3, SiteWise and disabled exports; a
// client that asks for less than it can do is not refused more.
var ProtocolVersions = []string{"1.1.0", "1.0.0"}

var versionForm = regexp.MustCompile(`^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$`)

// Negotiate chooses the version of a connection: the client's own if leat speaks it, else the first of its others. The
// error is an *Error: InvalidProtocolVersion when its own is none, UnsupportedProtocolVersion when leat speaks none.
func Negotiate(c *Connect) (string, error) {
	if !versionForm.MatchString(c.ProtocolVersion) {
		return "", Errorf(InvalidProtocolVersion, "protocolVersion %.64q is no version: want three numbers, as in %s", c.ProtocolVersion, ProtocolVersions[0])
	}
	if slices.Contains(ProtocolVersions, c.ProtocolVersion) {
		return c.ProtocolVersion, nil
	}
	for _, v := range c.OtherSupportedProtocolVersions {
		if slices.Contains(ProtocolVersions, v) {
			return v, nil
		}
	}
	return "", Errorf(UnsupportedProtocolVersion, "protocol version %s and %d others are not supported: use an SDK that speaks one of %v",
		c.ProtocolVersion, len(c.OtherSupportedProtocolVersions), ProtocolVersions)
}
