package wire

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/record"
)

// Status is how a request ended. A client dies of a status above UnknownOperation.
type Status int

// The statuses. Those from UnsupportedConnectVersion to FailedToConnect are for the handshake only.
const (
	Success                    Status = 0
	UnknownFailure             Status = 1
	Unauthorized               Status = 2
	InvalidRequest             Status = 3
	RequestPayloadTooLarge     Status = 4
	ResourceNotFound           Status = 5
	ServerTimeout              Status = 6
	ResponsePayloadTooLarge    Status = 7
	UnsupportedConnectVersion  Status = 8
	UnexpectedOperation        Status = 9
	UnsupportedProtocolVersion Status = 10
	InvalidProtocolVersion     Status = 11
	FailedToConnect            Status = 12
	NotEnoughMessages          Status = 13
	MessageStoreReadError      Status = 14
	OutOfMemory                Status = 15
	UpdateFailed               Status = 16
	UpdateNotAllowed           Status = 17
	UnknownOperation           Status = 18
)

var statusNames = [...]string{
	"Success", "UnknownFailure", "Unauthorized", "InvalidRequest", "RequestPayloadTooLarge", "ResourceNotFound", "ServerTimeout",
	"ResponsePayloadTooLarge", "UnsupportedConnectVersion", "UnexpectedOperation", "UnsupportedProtocolVersion",
	"InvalidProtocolVersion", "FailedToConnect", "NotEnoughMessages", "MessageStoreReadError", "OutOfMemory", "UpdateFailed",
	"UpdateNotAllowed", "UnknownOperation",
}

// String is the protocol's name of the status.
func (s Status) String() string {
	if s >= 0 && int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", int(s))
}

// known is s, or UnknownFailure when no client would know s.
func (s Status) known() Status {
	if s < Success || s > UnknownOperation {
		return UnknownFailure
	}
	return s
}

// Error is a failure with the protocol's own status. Errors without one get theirs from their record.Kind, see StatusOf.
type Error struct {
	Status  Status
	Message string
}

// Errorf makes an Error.
func Errorf(s Status, format string, args ...any) *Error {
	return &Error{Status: s, Message: fmt.Sprintf(format, args...)}
}

// Error is the message.
func (e *Error) Error() string { return e.Message }

// kindStatuses is what an error without a status of its own becomes.
var kindStatuses = map[record.Kind]Status{
	record.Internal:    UnknownFailure,
	record.NotFound:    ResourceNotFound,
	record.Invalid:     InvalidRequest,
	record.Conflict:    InvalidRequest,
	record.Full:        InvalidRequest,
	record.Denied:      Unauthorized,
	record.Throttled:   ServerTimeout,
	record.Unavailable: UnknownFailure,
	record.Corrupt:     MessageStoreReadError,
}

// MaxErrorMessage is the most bytes of an error message on the wire.
const MaxErrorMessage = 4 << 10

// StatusOf is the status and the message that an error becomes on the wire. An Error in the chain decides; then an
// exceeded deadline, which is ServerTimeout; then the record.Kind. The hint is part of the message, since the message is
// all that a client's program sees. A nil error is Success.
func StatusOf(err error) (Status, string) {
	if err == nil {
		return Success, ""
	}
	status := UnknownFailure
	if e, ok := errors.AsType[*Error](err); ok {
		if status = e.Status.known(); status == Success {
			status = UnknownFailure // an error is never a success
		}
	} else if errors.Is(err, context.DeadlineExceeded) {
		status = ServerTimeout
	} else if s, ok := kindStatuses[record.KindOf(err)]; ok {
		status = s
	}
	text := err.Error()
	if hint := record.HintOf(err); hint != "" {
		text += " (" + hint + ")"
	}
	return status, bounded(text)
}

// Failure is the response to request id that failed with err.
func Failure(id string, err error) Response {
	status, text := StatusOf(err)
	return Response{RequestID: id, Status: status, ErrorMessage: text}
}

// bounded is text as it may be sent: valid UTF-8, since clients refuse a whole response for one bad byte, and not longer
// than MaxErrorMessage.
func bounded(text string) string {
	if len(text) > MaxErrorMessage {
		const more = "…"
		cut := MaxErrorMessage - len(more)
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut] + more
	}
	return strings.ToValidUTF8(text, "?") // never longer: "?" stands for a byte or more
}
