package wire

import "github.com/leat-io/leat/internal/record"

// Reply is a response that a client can decode: a pointer to one of this package's response types.
type Reply interface {
	// header is the part that all responses have.
	header() *Response
	// field takes the value of a key of its own, or reports that it has no such key.
	field(d *decoder, key []byte) bool
}

// DecodeResponse decodes a response into r, as leat's own client needs it. A status other than Success is returned as an
// *Error; a payload that cannot be decoded as an Internal error. Payloads of messages alias payload.
func DecodeResponse(payload []byte, r Reply) error {
	err := wellFormed(payload)
	if err == nil {
		d := &decoder{data: payload}
		for c := d.enterMap(); ; {
			key, ok := d.field(&c)
			if !ok {
				break
			}
			if !r.header().field(d, key) && !r.field(d, key) {
				d.skip(maxNesting)
			}
		}
		err = d.err
	}
	if err != nil {
		return record.Errorf(record.Internal, "decode a response: %w", err)
	}
	return r.header().Err()
}

// Err is the failure that the response reports, an *Error; nil of a success.
func (r *Response) Err() error {
	if r.Status == Success {
		return nil
	}
	return &Error{Status: r.Status, Message: r.ErrorMessage}
}

func (r *Response) header() *Response { return r }

func (r *Response) field(d *decoder, key []byte) bool {
	switch string(key) {
	case "requestId":
		d.text(&r.RequestID)
	case "status":
		var v int64
		d.int64(&v)
		r.Status = Status(v)
	case "errorMessage":
		d.text(&r.ErrorMessage)
	default:
		return false
	}
	return true
}

func (r *AppendResponse) field(d *decoder, key []byte) bool {
	if string(key) != "sequenceNumber" {
		return false
	}
	d.int64(&r.SequenceNumber)
	return true
}

func (r *ListResponse) field(d *decoder, key []byte) bool {
	if string(key) != "streams" {
		return false
	}
	d.texts(&r.Streams, 1<<24)
	return true
}

func (r *ConnectResponse) field(d *decoder, key []byte) bool {
	switch string(key) {
	case "protocolVersion":
		d.text(&r.ProtocolVersion)
	case "supportedProtocolVersions":
		d.texts(&r.SupportedProtocolVersions, maxVersions)
	case "serverVersion":
		d.text(&r.ServerVersion)
	case "clientIdentifier":
		d.text(&r.ClientIdentifier)
	case "extensions":
		d.texts(&r.Extensions, 1<<10)
	default:
		return false
	}
	return true
}

func (r *ReadResponse) field(d *decoder, key []byte) bool {
	if string(key) != "messages" {
		return false
	}
	r.Messages = nil
	if d.null() {
		return true
	}
	for c := d.enter(majorArray, "an array of messages"); d.element(&c, 1<<24); {
		var m Message
		if len(r.Messages) > 0 {
			m.StreamName = r.Messages[0].StreamName // which is all messages' and need not be made again
		}
		m.decode(d)
		r.Messages = append(r.Messages, m)
	}
	return true
}

func (m *Message) decode(d *decoder) {
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			return
		}
		switch string(key) {
		case "streamName":
			d.text(&m.StreamName)
		case "sequenceNumber":
			d.int64(&m.SequenceNumber)
		case "ingestTime":
			d.int64(&m.IngestTime)
		case "payload":
			d.bytes(&m.Payload)
		default:
			d.skip(maxNesting)
		}
	}
}

func (r *DescribeResponse) field(d *decoder, key []byte) bool {
	if string(key) != "messageStreamInfo" {
		return false
	}
	if r.Info = nil; !d.null() {
		r.Info = &MessageStreamInfo{}
		r.Info.decode(d)
	}
	return true
}

func (i *MessageStreamInfo) decode(d *decoder) {
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			return
		}
		switch string(key) {
		case "definition":
			d.definition(&i.Definition)
		case "storageStatus":
			i.StorageStatus.decode(d)
		case "exportStatuses":
			i.ExportStatuses = nil
			if d.null() {
				continue
			}
			for c := d.enter(majorArray, "an array of maps"); d.element(&c, 1<<10); {
				var s ExportStatus
				s.decode(d)
				i.ExportStatuses = append(i.ExportStatuses, s)
			}
		default:
			d.skip(maxNesting)
		}
	}
}

func (s *StorageStatus) decode(d *decoder) {
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			return
		}
		switch string(key) {
		case "oldestSequenceNumber":
			d.int64(&s.OldestSequenceNumber)
		case "newestSequenceNumber":
			d.int64(&s.NewestSequenceNumber)
		case "totalBytes":
			d.int64(&s.TotalBytes)
		default:
			d.skip(maxNesting)
		}
	}
}

func (s *ExportStatus) decode(d *decoder) {
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			return
		}
		switch string(key) {
		case "exportConfigIdentifier":
			d.text(&s.ExportConfigIdentifier)
		case "lastExportedSequenceNumber":
			d.int64(&s.LastExportedSequenceNumber)
		case "lastExportTime":
			d.int64(&s.LastExportTime)
		case "errorMessage":
			d.text(&s.ErrorMessage)
		case "exportedBytesFromStream":
			d.int64(&s.ExportedBytesFromStream)
		case "exportedMessagesCount":
			d.int64(&s.ExportedMessagesCount)
		default:
			d.skip(maxNesting)
		}
	}
}
