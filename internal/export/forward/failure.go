package forward

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/leat-io/leat/internal/awsclient"
	"github.com/leat-io/leat/internal/record"
)

// place is what a target delivers to, in words, for errors and their hints.
type place struct {
	service  string // "Kinesis"
	action   string // the permission that delivering needs: "kinesis:PutRecords"
	resource string // "stream readings"; "" when the request names none
	endpoint string // the configured one, "" for AWS
	region   string // "" until it is known
}

func (p place) String() string {
	s := p.service
	if p.resource != "" {
		s += " " + p.resource
	}
	return s + " at " + p.where()
}

// where is the endpoint, or AWS and the region.
func (p place) where() string {
	switch {
	case p.endpoint != "":
		return p.endpoint
	case p.region != "":
		return "AWS in " + p.region
	default:
		return "AWS"
	}
}

// answer is an error in which a service said what it does not like.
type answer struct {
	status        int
	code, message string // as the service gives them; may be empty
	after         time.Duration
}

func (a *answer) Error() string {
	if text := awsclient.Answer(a.status, a.code, a.message); text != "" {
		return text
	}
	return "no reason given"
}

// answerOf finds what a service said in an error of the SDK or of call.
func answerOf(err error) *answer {
	if a, ok := errors.AsType[*answer](err); ok {
		return a
	}
	status := awsclient.StatusOf(err)
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok && (status == 0 || status < 300) {
		return nil
	}
	a := &answer{status: status}
	if ok {
		a.code, a.message = api.ErrorCode(), api.ErrorMessage()
	}
	if r, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && r.Response != nil {
		a.after = retryAfter(r.Response.Header)
	}
	return a
}

// fail gives an error of a delivery its kind, its words and its hint.
func (p place) fail(err error) error {
	if e, ok := errors.AsType[*record.Error](err); ok {
		return e // of the limiter, or of the set-up: it says all
	}
	if errors.Is(err, context.Canceled) {
		return record.Errorf(record.Unavailable, "deliver to %s: %w", p, context.Canceled)
	}
	if a := answerOf(err); a != nil {
		kind := kindOf(a.status, a.code)
		return paused(record.Errorf(kind, "deliver to %s: %w", p, a).WithHint("%s", p.hint(kind, a)), a.after)
	}
	kind, hint := record.Unavailable, ""
	switch awsclient.TroubleOf(err) {
	case awsclient.NoCredentials:
		kind, hint = record.Denied, "no credentials were found: give this machine a role, or the destination access_key and secret_key"
	case awsclient.Untrusted:
		hint = "the server's certificate is not trusted here: install its CA (SSL_CERT_FILE or the system's store)"
	case awsclient.Unreachable:
		hint = "check the network, the name and that a server is running at " + p.where() + "; leat tries again"
	case awsclient.Hanging:
		hint = p.where() + " was reached but does not answer within exports.timeout; leat tries again"
	case awsclient.Foreign:
		hint = "check that " + p.where() + " is the API of " + p.service
	case awsclient.Broken:
		hint = "the connection to " + p.where() + " broke; leat tries again"
	}
	return record.Errorf(kind, "deliver to %s: %w", p, awsclient.Described{Err: err}).WithHint("%s", hint)
}

// foreign is the answer of something that says 2xx and is not the service: a captive portal, a web console, a proxy.
// What it swallowed must not count as delivered.
func (p place) foreign(why string) error {
	return record.Errorf(record.Unavailable, "deliver to %s: the answer is not one of %s: %s", p, p.service, why).
		WithHint("check that %s is the API of %s and not, for example, a web console or a proxy's page", p.where(), p.service)
}

// codes are the error codes of AWS services, without "Exception" at their end, that mean more than their status.
func codes() map[string]record.Kind {
	return map[string]record.Kind{
		"ProvisionedThroughputExceeded": record.Throttled, "Throttling": record.Throttled, "Throttled": record.Throttled,
		"LimitExceeded": record.Throttled, "TooManyRequests": record.Throttled, "RequestLimitExceeded": record.Throttled,
		"RequestThrottled": record.Throttled, "KMSThrottling": record.Throttled, "SlowDown": record.Throttled,

		"ResourceNotFound": record.NotFound,

		"AccessDenied": record.Denied, "Unauthorized": record.Denied, "NotAuthorized": record.Denied,
		"UnrecognizedClient": record.Denied, "InvalidSignature": record.Denied, "SignatureDoesNotMatch": record.Denied,
		"IncompleteSignature": record.Denied, "MissingAuthenticationToken": record.Denied, "InvalidClientTokenId": record.Denied,
		"InvalidAccessKeyId": record.Denied, "ExpiredToken": record.Denied, "OptInRequired": record.Denied,
		"KMSAccessDenied": record.Denied, "KMSDisabled": record.Denied, "KMSInvalidState": record.Denied,
		"KMSNotFound": record.Denied, "KMSOptInRequired": record.Denied,

		"InternalFailure": record.Unavailable, "InternalServerError": record.Unavailable, "ServiceUnavailable": record.Unavailable,
		"RequestExpired": record.Unavailable, "RequestTimeTooSkewed": record.Unavailable,

		"InvalidArgument": record.Invalid, "InvalidRequest": record.Invalid, "Validation": record.Invalid,
		"Serialization": record.Invalid, "UnknownOperation": record.Invalid,
	}
}

// shortCode is an error code without its namespace before and its "Exception" behind.
func shortCode(code string) string {
	code, _, _ = strings.Cut(code, ":")
	return strings.TrimSuffix(code[strings.LastIndexByte(code, '#')+1:], "Exception")
}

// kindOf judges what a service said. Nothing a service says makes a batch be given up: Invalid, Denied and NotFound are
// tried again like the rest, but show that somebody has to repair something.
func kindOf(status int, code string) record.Kind {
	if kind, ok := codes()[shortCode(code)]; ok {
		return kind
	}
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusProxyAuthRequired:
		return record.Denied
	case status == http.StatusNotFound, status == http.StatusGone:
		return record.NotFound
	case status == http.StatusTooManyRequests:
		return record.Throttled
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == 0, status >= 500:
		return record.Unavailable
	default:
		return record.Invalid
	}
}

// hint says what to do about an answer.
func (p place) hint(kind record.Kind, a *answer) string {
	code := shortCode(a.code)
	skewed := strings.Contains(strings.ToLower(a.message), "signature expired") || strings.Contains(a.message, "not yet current")
	switch {
	case code == "RequestExpired" || code == "RequestTimeTooSkewed" || skewed:
		return "the clock of this machine and the server's differ by too much: set the clock (NTP)"
	case strings.HasPrefix(code, "KMS") && kind == record.Denied:
		return "repair the KMS key of " + p.resource + " or the right to use it"
	case kind == record.Denied && (code == "AccessDenied" || a.code == ""):
		return fmt.Sprintf("the credentials need %s on %s", p.action, p.needs())
	case kind == record.Denied:
		return "check the credentials: " + p.where() + " does not know them, or they do not match or have expired"
	case kind == record.NotFound:
		return fmt.Sprintf("create %s at %s, or correct its name, region or endpoint", p.needs(), p.where())
	case kind == record.Throttled:
		return p.service + " asks for less at once; leat slows down and tries again"
	case kind == record.Unavailable:
		return p.service + " has a problem of its own; leat tries again"
	default:
		return "somebody has to repair the export or its destination: leat sends the same again until it is taken"
	}
}

func (p place) needs() string {
	if p.resource == "" {
		return "what the messages name"
	}
	return p.resource
}

// pause is an error for which the destination said how long to wait.
type pause struct {
	error
	after time.Duration
}

// Unwrap is the error, so that its kind and hint are found.
func (p *pause) Unwrap() error { return p.error }

func paused(err error, after time.Duration) error {
	if after <= 0 {
		return err
	}
	return &pause{err, after}
}

// RetryAfter is how long the destination asked to be left alone in an error of Deliver, 0 when it did not. The runner's
// next pause is at least that, and at most Config.RetryMax.
func RetryAfter(err error) time.Duration {
	if p, ok := errors.AsType[*pause](err); ok {
		return p.after
	}
	return 0
}

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(h http.Header) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0
	}
	const most = 24 * time.Hour // keeps the arithmetic from overflowing; the runner has a lower bound
	if s, err := strconv.ParseInt(v, 10, 64); err == nil {
		return time.Duration(min(max(s, 0), int64(most/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(time.Until(at), 0), most)
	}
	return 0
}

// hostOf is scheme and host of an address: what may be shown of one whose path, query or user may be secret.
func hostOf(u *url.URL) string { return u.Scheme + "://" + u.Host }
