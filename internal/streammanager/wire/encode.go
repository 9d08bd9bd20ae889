package wire

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// Body is what a frame carries: a pointer to one of this package's requests and responses.
type Body interface {
	// appendTo appends the body as one CBOR map of definite length: text keys, no tags, no null, no number above
	// MaxNumber (section 4.2).
	appendTo(dst []byte) ([]byte, error)
}

// encoding writes what is not on the path of a message: definitions and all around them. The keys are sorted, so that
// what is stored is canonical.
var encoding = func() cbor.UserBufferEncMode {
	mode, err := cbor.EncOptions{
		Sort: cbor.SortCoreDeterministic, TagsMd: cbor.TagsForbidden, NilContainers: cbor.NilContainerAsEmpty,
	}.UserBufferEncMode()
	if err != nil {
		panic(err) // the options above are constants
	}
	return mode
}()

func appendAny(dst []byte, v any) ([]byte, error) {
	buf := bytes.NewBuffer(dst)
	if err := encoding.MarshalToBuffer(v, buf); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// The major types of CBOR (RFC 8949, section 3.1), in the upper three bits of an item's first byte.
const (
	majorUint   = 0
	majorNint   = 1
	majorBytes  = 2
	majorText   = 3
	majorArray  = 4
	majorMap    = 5
	majorTag    = 6
	majorSimple = 7
)

// appendHead appends the shortest head.
func appendHead(dst []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n < 1<<8:
		return append(dst, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), n)
}

func appendText(dst []byte, s string) []byte {
	return append(appendHead(dst, majorText, uint64(len(s))), s...)
}

func appendBytes(dst, b []byte) []byte {
	return append(appendHead(dst, majorBytes, uint64(len(b))), b...)
}

func appendInt(dst []byte, v int64) []byte {
	if v = clamp(v); v < 0 {
		return appendHead(dst, majorNint, uint64(-1-v))
	}
	return appendHead(dst, majorUint, uint64(v))
}

func appendTextField(dst []byte, key, value string) []byte {
	return appendText(appendText(dst, key), value)
}

func appendIntField(dst []byte, key string, v int64) []byte {
	return appendInt(appendText(dst, key), v)
}

// appendHeader appends the head of a map of the response's own keys and more others, and the former. A response that
// failed has no others: callers look at failed first.
func (r *Response) appendHeader(dst []byte, more uint64) []byte {
	status := r.Status.known()
	n := 2 + more
	if status != Success {
		n++
	}
	dst = appendHead(dst, majorMap, n)
	dst = appendTextField(dst, "requestId", r.RequestID)
	dst = appendIntField(dst, "status", int64(status))
	if status != Success {
		text := r.ErrorMessage
		if text == "" {
			text = status.String()
		}
		dst = appendTextField(dst, "errorMessage", bounded(text))
	}
	return dst
}

func (r *Response) failed() bool { return r.Status != Success }

func (r *Response) appendTo(dst []byte) ([]byte, error) { return r.appendHeader(dst, 0), nil }

func (r *AppendResponse) appendTo(dst []byte) ([]byte, error) {
	if r.failed() {
		return r.appendHeader(dst, 0), nil
	}
	return appendIntField(r.appendHeader(dst, 1), "sequenceNumber", r.SequenceNumber), nil
}

// messageOverhead is what a message of a ReadResponse takes beside its stream's name and its payload, at most.
const messageOverhead = 80

// EncodedSize is the most that the message takes in a ReadResponse, in bytes: sums of it tell what fits into MaxFrame.
func (m *Message) EncodedSize() int { return messageOverhead + len(m.StreamName) + len(m.Payload) }

func (r *ReadResponse) appendTo(dst []byte) ([]byte, error) {
	if r.failed() {
		return r.appendHeader(dst, 0), nil
	}
	size := messageOverhead + len(r.RequestID)
	for i := range r.Messages {
		size += r.Messages[i].EncodedSize()
	}
	dst = slices.Grow(dst, min(size, MaxFrame))
	dst = appendHead(appendText(r.appendHeader(dst, 1), "messages"), majorArray, uint64(len(r.Messages)))
	for i := range r.Messages {
		m := &r.Messages[i]
		dst = appendHead(dst, majorMap, 4)
		dst = appendTextField(dst, "streamName", m.StreamName)
		dst = appendIntField(dst, "sequenceNumber", m.SequenceNumber)
		dst = appendIntField(dst, "ingestTime", m.IngestTime)
		dst = appendBytes(appendText(dst, "payload"), m.Payload)
	}
	return dst, nil
}

func (r *ListResponse) appendTo(dst []byte) ([]byte, error) {
	if r.failed() {
		return r.appendHeader(dst, 0), nil
	}
	return appendTexts(appendText(r.appendHeader(dst, 1), "streams"), r.Streams), nil
}

func appendTexts(dst []byte, list []string) []byte {
	dst = appendHead(dst, majorArray, uint64(len(list)))
	for _, s := range list {
		dst = appendText(dst, s)
	}
	return dst
}

func (r *ConnectResponse) appendTo(dst []byte) ([]byte, error) {
	more := uint64(4)
	if r.Extensions != nil {
		more++
	}
	dst = appendTextField(r.appendHeader(dst, more), "protocolVersion", r.ProtocolVersion)
	dst = appendTexts(appendText(dst, "supportedProtocolVersions"), r.SupportedProtocolVersions)
	dst = appendTextField(dst, "serverVersion", r.ServerVersion)
	dst = appendTextField(dst, "clientIdentifier", r.ClientIdentifier)
	if r.Extensions != nil {
		dst = appendTexts(appendText(dst, "extensions"), r.Extensions)
	}
	return dst, nil
}

func (r *DescribeResponse) appendTo(dst []byte) ([]byte, error) {
	if r.failed() || r.Info == nil {
		return r.appendHeader(dst, 0), nil
	}
	info := *r.Info
	info.StorageStatus.clamp()
	info.ExportStatuses = slices.Clone(info.ExportStatuses)
	for i := range info.ExportStatuses {
		info.ExportStatuses[i].clamp()
	}
	return appendAny(appendText(r.appendHeader(dst, 1), "messageStreamInfo"), &info)
}

func (s *StorageStatus) clamp() {
	for _, v := range []*int64{&s.OldestSequenceNumber, &s.NewestSequenceNumber, &s.TotalBytes} {
		*v = clamp(*v)
	}
}

func (s *ExportStatus) clamp() {
	for _, v := range []*int64{&s.LastExportedSequenceNumber, &s.LastExportTime, &s.ExportedBytesFromStream, &s.ExportedMessagesCount} {
		*v = clamp(*v)
	}
	s.ErrorMessage = bounded(s.ErrorMessage)
}

// appendRequest appends the head of a map of requestId and more others, and the id.
func appendRequest(dst []byte, id string, more uint64) []byte {
	return appendTextField(appendHead(dst, majorMap, 1+more), "requestId", id)
}

func (r *AppendRequest) appendTo(dst []byte) ([]byte, error) {
	dst = appendTextField(appendRequest(dst, r.RequestID, 2), "name", r.Name)
	return appendBytes(appendText(dst, "payload"), r.Payload), nil
}

func (r *AppendBatchRequest) appendTo(dst []byte) ([]byte, error) {
	dst = appendTextField(appendRequest(dst, r.RequestID, 2), "name", r.Name)
	dst = appendHead(appendText(dst, "payloads"), majorArray, uint64(len(r.Payloads)))
	for _, p := range r.Payloads {
		dst = appendBytes(dst, p)
	}
	return dst, nil
}

func (r *ListRequest) appendTo(dst []byte) ([]byte, error) {
	return appendRequest(dst, r.RequestID, 0), nil
}

func (r *DeleteRequest) appendTo(dst []byte) ([]byte, error) {
	return appendTextField(appendRequest(dst, r.RequestID, 1), "name", r.Name), nil
}

func (r *DescribeRequest) appendTo(dst []byte) ([]byte, error) {
	return appendTextField(appendRequest(dst, r.RequestID, 1), "name", r.Name), nil
}

func (r *Connect) appendTo(dst []byte) ([]byte, error)       { return appendAny(dst, r) }
func (r *CreateRequest) appendTo(dst []byte) ([]byte, error) { return appendAny(dst, r) }
func (r *UpdateRequest) appendTo(dst []byte) ([]byte, error) { return appendAny(dst, r) }
func (r *ReadRequest) appendTo(dst []byte) ([]byte, error)   { return appendAny(dst, r) }
