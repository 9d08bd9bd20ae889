package record

import (
	"errors"
	"fmt"
)

// Kind says what sort of failure an error is. The list is closed and only grows at its end: doors translate kinds to
// MQTT reason codes, AWS error names, HTTP statuses and exit codes.
type Kind uint8

// The kinds of error.
const (
	Internal    Kind = iota // a defect of ours; what an error without a kind counts as
	NotFound                // the thing named does not exist
	Invalid                 // the request can never succeed as it is
	Conflict                // it exists already, or changed meanwhile
	Denied                  // the caller may not
	Throttled               // too much at once: try again later
	Full                    // a limit on stored bytes is reached; policy says reject
	Unavailable             // cannot be served now; nothing was changed
	Corrupt                 // bytes that were once durable do not read
)

var kindNames = [...]string{
	"internal", "not found", "invalid", "conflict", "denied", "throttled", "full", "unavailable", "corrupt",
}

// String is the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error is an error with a kind and, for people, a hint: what to do next.
type Error struct {
	Kind Kind
	Hint string
	err  error
}

// Errorf makes an error of a kind. The format follows fmt.Errorf, %w included.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, err: fmt.Errorf(format, args...)}
}

// WithHint returns e with a hint for the operator.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Error is the message without the hint.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap is the error below, so that errors.Is sees what was wrapped with %w.
func (e *Error) Unwrap() error { return errors.Unwrap(e.err) }

// KindOf is the kind of the outermost Error in err's chain; Internal when there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// HintOf is the first hint in err's chain, or "".
func HintOf(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Unwrap()
	}
	return ""
}
