package awsclient

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/leat-io/leat/internal/record"
)

// Trouble is what kept a request from being answered in the service's protocol.
type Trouble uint8

// The troubles.
const (
	Broken        Trouble = iota // the connection broke, or none of the others
	NoCredentials                // none were found, so nothing was sent
	Untrusted                    // the server's certificate
	Unreachable                  // name not found, refused, no route
	Hanging                      // connected, and no answer in time
	Foreign                      // an answer that is not one of the protocol
)

// TroubleOf judges an error of an SDK client or of net/http for which the service gave no error code.
func TroubleOf(err error) Trouble {
	if _, ok := errors.AsType[*v4.SigningError](err); ok || isNoCredentials(err) {
		return NoCredentials
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return Untrusted
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return Untrusted
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok || errors.Is(err, syscall.ECONNREFUSED) {
		return Unreachable
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return Unreachable
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return Hanging
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return Hanging
	}
	if _, ok := errors.AsType[*smithy.DeserializationError](err); ok {
		return Foreign
	}
	return Broken
}

// isNoCredentials recognises the failure to find any credentials, which the SDK wraps in its own way.
func isNoCredentials(err error) bool {
	if _, ok := errors.AsType[*smithy.CanceledError](err); ok {
		return false
	}
	op, ok := errors.AsType[*smithy.OperationError](err)
	if !ok {
		return false
	}
	_, sent := errors.AsType[*smithyhttp.RequestSendError](err)
	_, answered := errors.AsType[*smithyhttp.ResponseError](err)
	return !sent && !answered && strings.Contains(op.Err.Error(), "get identity")
}

// StatusOf is the HTTP status of the answer in an SDK error, 0 when there was none.
func StatusOf(err error) int {
	if r, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && r.Response != nil {
		return r.HTTPStatusCode()
	}
	return 0
}

// Described is an error of the SDK or of net/http in the words a person needs: without operation and URL, which the
// text around it says, and without request ids and local ports, which differ each time and would make every retry look
// like news.
type Described struct{ Err error }

// Unwrap is the error as it came.
func (d Described) Unwrap() error { return d.Err }

// Error is the service's answer, or what the network said.
func (d Described) Error() string {
	if e, ok := errors.AsType[*record.Error](d.Err); ok {
		return e.Error()
	}
	status := StatusOf(d.Err)
	if api, ok := errors.AsType[smithy.APIError](d.Err); ok {
		return Answer(status, api.ErrorCode(), api.ErrorMessage())
	}
	if op, ok := errors.AsType[*net.OpError](d.Err); ok {
		if errors.Is(op, syscall.ECONNRESET) || errors.Is(op, syscall.EPIPE) {
			return fmt.Sprintf("connection to %s: reset by the other side", op.Addr) // seen by the read or the write, as it happens
		}
		if op.Addr == nil {
			return fmt.Sprintf("%s: %v", op.Op, op.Err)
		}
		return fmt.Sprintf("%s %s: %v", op.Op, op.Addr, op.Err)
	}
	if u, ok := errors.AsType[*url.Error](d.Err); ok {
		return u.Err.Error()
	}
	if status != 0 {
		return Answer(status, "", "")
	}
	if op, ok := errors.AsType[*smithy.OperationError](d.Err); ok {
		return op.Err.Error()
	}
	return d.Err.Error()
}

// maxMessage is the most bytes of a server's message that are repeated.
const maxMessage = 400

// Answer is a service's error in words; status 0 and empty texts are left out. Of the message only the first line
// counts: AWS answers a wrong signature with the whole signed request below it, session token included.
func Answer(status int, code, message string) string {
	text := code
	switch {
	case code == "" && status != 0:
		text = strings.TrimSpace(fmt.Sprintf("the server answered %d %s", status, http.StatusText(status)))
	case status != 0:
		text = fmt.Sprintf("%s (%d)", code, status)
	}
	if m := FirstLine(message, maxMessage); m != "" && m != code {
		text += ": " + m
	}
	return text
}

// FirstLine is the first line of what a server said, at most n bytes of valid UTF-8 without control characters.
func FirstLine(s string, n int) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return -1
		}
		return r
	}, s)
	if len(s) <= n {
		return strings.TrimSpace(s)
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.TrimSpace(s[:n]) + "…"
}
