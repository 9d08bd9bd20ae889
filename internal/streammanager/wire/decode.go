package wire

import (
	"github.com/fxamacker/cbor/v2"

	"github.com/leat-io/leat/internal/record"
)

// Request is a decoded request: a pointer to one of this package's request types.
type Request interface {
	// ID is the requestId, which the response repeats. It names nothing: one of the official clients uses the same for
	// all of its requests.
	ID() string
}

// ID is the requestId.
func (r *Connect) ID() string { return r.RequestID }

// ID is the requestId.
func (r *CreateRequest) ID() string { return r.RequestID }

// ID is the requestId.
func (r *UpdateRequest) ID() string { return r.RequestID }

// ID is the requestId.
func (r *DeleteRequest) ID() string { return r.RequestID }

// ID is the requestId.
func (r *DescribeRequest) ID() string { return r.RequestID }

// ID is the requestId.
func (r *ListRequest) ID() string { return r.RequestID }

// ID is the requestId.
func (r *AppendRequest) ID() string { return r.RequestID }

// ID is the requestId.
func (r *AppendBatchRequest) ID() string { return r.RequestID }

// ID is the requestId.
func (r *ReadRequest) ID() string { return r.RequestID }

// BadRequest is a request of which no more is known than whom to answer.
type BadRequest struct{ RequestID string }

// ID is the requestId.
func (r *BadRequest) ID() string { return r.RequestID }

// The limits on what a request may hold. The frame's limit bounds the bytes, these bound what is made of them.
const (
	MaxRequestID     = 255     // bytes; the clients' have 1 or 36
	MaxBatchMessages = 1 << 16 // messages of an AppendBatchRequest
	maxExports       = 64      // exports of each kind
	maxVersions      = 16      // protocol versions that a client offers
)

// Decode decodes the payload of a request. Keys that are not known are ignored, whatever they hold; null is as absent; of
// a key that comes twice the last counts. Byte strings alias payload.
//
// When something is wrong the request is a *BadRequest, which is to be answered with the error (see Failure and
// Operation.Response), or nil when not even the id can be had: such a request cannot be answered, and the connection is to
// be closed. The error names the field; it has the status UnknownOperation for a code that is no request's, else
// InvalidRequest. Values are checked for their form only: see Validate of the definition and of the options.
func Decode(op Operation, payload []byte) (Request, error) {
	req, err := decode(op, payload)
	if err == nil {
		return req, nil
	}
	id, ok := RequestID(payload)
	if !ok {
		return nil, record.Errorf(record.Invalid, "a request without a usable requestId: %w", err)
	}
	return &BadRequest{id}, err
}

func decode(op Operation, payload []byte) (Request, error) {
	if op.Response() == OpUnknownError {
		return nil, Errorf(UnknownOperation, "operation %d is not known to this server", op)
	}
	if err := wellFormed(payload); err != nil {
		return nil, err
	}
	d := decoder{data: payload}
	switch op {
	case OpAppend:
		r := &AppendRequest{}
		r.decode(&d)
		return r, d.err
	case OpAppendBatch:
		r := &AppendBatchRequest{}
		r.decode(&d)
		return r, d.err
	case OpRead:
		r := &ReadRequest{}
		r.decode(&d)
		return r, d.err
	case OpConnect:
		r := &Connect{}
		r.decode(&d)
		return r, d.err
	case OpList:
		r := &ListRequest{}
		r.decode(&d)
		return r, d.err
	}
	return decodeNamed(op, &d)
}

// decodeNamed decodes the requests that have an id and either a name or a definition.
func decodeNamed(op Operation, d *decoder) (Request, error) {
	var id, name string
	var def *MessageStreamDefinition
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			break
		}
		switch {
		case string(key) == "requestId":
			d.requestID(&id)
		case string(key) == "name" && (op == OpDelete || op == OpDescribe):
			d.text(&name)
		case string(key) == "definition" && (op == OpCreate || op == OpUpdate):
			d.definition(&def)
		default:
			d.skip(maxNesting)
		}
	}
	d.require(id != "", "requestId")
	switch op {
	case OpCreate, OpUpdate:
		d.require(def != nil, "definition")
	default:
		d.require(name != "", "name")
	}
	switch op {
	case OpCreate:
		return &CreateRequest{id, def}, d.err
	case OpUpdate:
		return &UpdateRequest{id, def}, d.err
	case OpDelete:
		return &DeleteRequest{id, name}, d.err
	}
	return &DescribeRequest{id, name}, d.err
}

// DecodeAppend is Decode for the request that matters most. It reuses *r: a name that is the same as in the request
// before costs no allocation. Fields that the payload does not have are zero.
func DecodeAppend(payload []byte, r *AppendRequest) error {
	if err := wellFormed(payload); err != nil {
		return err
	}
	d := decoder{data: payload}
	r.decode(&d)
	return d.err
}

// RequestID is the requestId of a payload of which anything else may be wrong or missing: it may be cut off behind the
// id, as that of a TooLargeError is. It is false when there is none that could be sent back.
func RequestID(payload []byte) (id string, ok bool) {
	d := decoder{data: payload}
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			return "", false
		}
		if string(key) == "requestId" {
			d.text(&id)
			return id, d.err == nil && id != "" && len(id) <= MaxRequestID
		}
		d.skip(maxNesting)
	}
}

// limits checks that a payload is one well-formed item. What it bounds is the work of that check; what is taken out of a
// payload has narrower limits.
var limits = func() cbor.DecMode {
	mode, err := cbor.DecOptions{MaxNestedLevels: maxNesting, MaxArrayElements: 1 << 24, MaxMapPairs: 1 << 16}.DecMode()
	if err != nil {
		panic(err) // the options above are constants
	}
	return mode
}()

func wellFormed(payload []byte) error {
	if err := limits.Wellformed(payload); err != nil {
		return record.Errorf(record.Invalid, "the payload is not one CBOR map (RFC 8949): %w", err)
	}
	return nil
}

func (d *decoder) enterMap() container { return d.enter(majorMap, "a map") }

// requestID takes an id: at least one character of letters, digits, underscore, space, comma, period, hyphen.
func (d *decoder) requestID(dst *string) {
	d.text(dst)
	if d.err == nil && !nameForm(*dst, MaxRequestID) {
		d.fail("want 1 to %d characters of A-Z a-z 0-9 _ space , . -", MaxRequestID)
	}
}

func (r *AppendRequest) decode(d *decoder) {
	name := r.Name
	*r = AppendRequest{}
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			break
		}
		switch string(key) {
		case "requestId":
			d.requestID(&r.RequestID)
		case "name":
			r.Name = name
			d.text(&r.Name)
		case "payload":
			d.bytes(&r.Payload)
		default:
			d.skip(maxNesting)
		}
	}
	d.require(r.RequestID != "", "requestId")
	d.require(r.Name != "", "name")
	d.require(len(r.Payload) > 0, "payload, of at least one byte,")
}

func (r *AppendBatchRequest) decode(d *decoder) {
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			break
		}
		switch string(key) {
		case "requestId":
			d.requestID(&r.RequestID)
		case "name":
			d.text(&r.Name)
		case "payloads":
			r.payloads(d)
		default:
			d.skip(maxNesting)
		}
	}
	d.require(r.RequestID != "", "requestId")
	d.require(r.Name != "", "name")
	d.require(len(r.Payloads) > 0, "payloads, of at least one,")
}

func (r *AppendBatchRequest) payloads(d *decoder) {
	r.Payloads = nil
	if d.null() {
		return
	}
	c := d.enter(majorArray, "an array of byte strings")
	if !c.open { // the payload is well-formed: there are as many
		r.Payloads = make([][]byte, 0, min(c.left, MaxBatchMessages, len(d.data)-d.at))
	}
	for d.element(&c, MaxBatchMessages) {
		var p []byte
		if d.bytes(&p); d.err == nil && len(p) == 0 {
			d.fail("want at least one byte")
		}
		r.Payloads = append(r.Payloads, p)
	}
}

func (r *ReadRequest) decode(d *decoder) {
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			break
		}
		switch string(key) {
		case "requestId":
			d.requestID(&r.RequestID)
		case "streamName":
			d.text(&r.StreamName)
		case "readMessagesOptions":
			if r.Options = nil; !d.null() {
				r.Options = &ReadMessagesOptions{}
				r.Options.decode(d)
			}
		default:
			d.skip(maxNesting)
		}
	}
	d.require(r.RequestID != "", "requestId")
	d.require(r.StreamName != "", "streamName")
}

func (o *ReadMessagesOptions) decode(d *decoder) {
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			break
		}
		switch string(key) {
		case "desiredStartSequenceNumber":
			d.int(&o.DesiredStartSequenceNumber)
		case "minMessageCount":
			d.int(&o.MinMessageCount)
		case "maxMessageCount":
			d.int(&o.MaxMessageCount)
		case "readTimeoutMillis":
			d.int(&o.ReadTimeoutMillis)
		default:
			d.skip(maxNesting)
		}
	}
}

func (r *Connect) decode(d *decoder) {
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			break
		}
		switch string(key) {
		case "requestId":
			d.requestID(&r.RequestID)
		case "protocolVersion":
			d.text(&r.ProtocolVersion)
		case "otherSupportedProtocolVersions":
			d.texts(&r.OtherSupportedProtocolVersions, maxVersions)
		case "sdkVersion":
			d.text(&r.SDKVersion)
		case "authToken":
			d.text(&r.AuthToken)
		default:
			d.skip(maxNesting)
		}
	}
	d.require(r.RequestID != "", "requestId")
}

func (r *ListRequest) decode(d *decoder) {
	for c := d.enterMap(); ; {
		key, ok := d.field(&c)
		if !ok {
			break
		}
		switch string(key) {
		case "requestId":
			d.requestID(&r.RequestID)
		default:
			d.skip(maxNesting)
		}
	}
	d.require(r.RequestID != "", "requestId")
}
