package s3

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/aws/smithy-go"

	"github.com/leat-io/leat/internal/awsclient"
	"github.com/leat-io/leat/internal/record"
)

// problem is what a failure means to callers and to people.
type problem struct {
	codes []string // error codes of the S3 protocol
	kind  record.Kind
	hint  string
}

const (
	hintCredentials = "check access_key and secret_key (or the AWS environment); the store does not know them or they do not match"
	hintRights      = "the credentials lack a right on this bucket or prefix; docs/guide/object-stores.md lists what is needed"
	hintBucket      = "create the bucket or correct bucket, region and endpoint: leat does not create buckets"
	hintClock       = "the clock of this machine and the store's differ by too much: set the clock (NTP)"
	hintRegion      = "the bucket is in another region: set region"
	hintBusy        = "the store asks for fewer requests; leat slows down and tries again"
	hintServer      = "the store has a problem of its own; leat tries again"
	hintFull        = "the store is full or over its quota"
	hintReach       = "check endpoint, network and that the store is running; leat tries again"
	hintHang        = "the store was reached but does not answer; leat tries again"
	hintNotS3       = "check that endpoint is an S3 API and not, for example, its web console"
	hintAbort       = "give s3:AbortMultipartUpload, or the bucket a lifecycle rule that removes unfinished uploads"
	hintTLS         = "the store's certificate is not trusted here: install its CA (SSL_CERT_FILE or the system's store)"
)

// notS3 is the answer of something that says 200 and is no S3 server: a captive portal, a web console, a proxy. Without
// a look at the ETag that every S3 answer carries, an object it swallowed would count as stored.
func notS3() *record.Error {
	return record.Errorf(record.Unavailable, "the endpoint answers, but not as an S3 server does").WithHint("%s", hintNotS3)
}

// problems is the table from S3 error codes, of AWS and of compatible stores, to kinds.
func problems() []problem {
	return []problem{
		{[]string{"NoSuchBucket"}, record.NotFound, hintBucket},
		{[]string{"NoSuchKey", "NotFound"}, record.NotFound, ""},
		{[]string{
			"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired",
			"InvalidSecurity", "InvalidClientTokenId", "UnrecognizedClientException", "NotSignedUp", "CredentialsNotSupported",
		}, record.Denied, hintCredentials},
		{[]string{
			"AccessDenied", "Forbidden", "AllAccessDisabled", "AccountProblem", "AccessForbidden", "Unauthorized",
			"UnauthorizedAccess", "MethodNotAllowed",
		}, record.Denied, hintRights},
		{[]string{"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"}, record.Unavailable, hintClock},
		{[]string{
			"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "BucketRegionError",
			"MovedPermanently",
		}, record.Invalid, hintRegion},
		{[]string{"SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException", "TooManyRequests",
			"RequestLimitExceeded", "Busy"}, record.Unavailable, hintBusy},
		{[]string{"XMinioStorageFull", "QuotaExceeded", "InsufficientStorage", "NoSpaceLeftOnDevice"},
			record.Unavailable, hintFull},
		{[]string{"PreconditionFailed", "ConditionalRequestConflict", "OperationAborted"}, record.Unavailable, ""},
		{[]string{"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "RequestTimeout", "NoSuchUpload"},
			record.Unavailable, ""},
		{[]string{
			"InvalidBucketName", "KeyTooLongError", "EntityTooLarge", "MetadataTooLarge", "InvalidRequest", "InvalidArgument", "NotImplemented",
			"ObjectParentIsFile",
		}, record.Invalid, ""},
	}
}

// fail gives an error its kind and hint and counts it. What is already of a kind keeps it.
func (s *Store) fail(verb, key string, err error) *record.Error {
	at := "s3://" + s.cfg.Bucket + "/" + s.cfg.Prefix + key
	kind, hint := classify(err)
	if kind != record.Conflict && (kind != record.NotFound || isCode(err, "NoSuchBucket")) {
		s.stats.errors.Add(1)
	}
	out := record.Errorf(kind, "%s %s: %w", verb, at, awsclient.Described{Err: err})
	if hint != "" {
		return out.WithHint("%s", hint)
	}
	return out
}

func classify(err error) (record.Kind, string) {
	if e, ok := errors.AsType[*record.Error](err); ok {
		return e.Kind, e.Hint
	}
	if errors.Is(err, context.Canceled) {
		return record.Unavailable, ""
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		for _, p := range problems() {
			if slices.Contains(p.codes, api.ErrorCode()) {
				return p.kind, p.hint
			}
		}
	}
	if status := awsclient.StatusOf(err); status != 0 {
		return classifyStatus(status)
	}
	return classifyNetwork(err)
}

// classifyStatus judges answers whose code says nothing: those to HEAD have no body, those of proxies another one.
func classifyStatus(status int) (record.Kind, string) {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return record.Denied, hintRights
	case status == http.StatusNotFound:
		return record.NotFound, ""
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return record.Unavailable, hintBusy
	case status == http.StatusInsufficientStorage:
		return record.Unavailable, hintFull
	case status == http.StatusMovedPermanently:
		return record.Invalid, hintRegion
	case status == http.StatusRequestTimeout, status == http.StatusConflict, status == http.StatusPreconditionFailed:
		return record.Unavailable, ""
	case status >= 500:
		return record.Unavailable, hintServer
	case status < 300:
		return record.Unavailable, hintNotS3 // an answer that could not be read
	default:
		return record.Invalid, hintNotS3
	}
}

func classifyNetwork(err error) (record.Kind, string) {
	switch awsclient.TroubleOf(err) {
	case awsclient.NoCredentials:
		return record.Denied, "set access_key and secret_key, or give this machine a role: no credentials were found"
	case awsclient.Untrusted:
		return record.Unavailable, hintTLS
	case awsclient.Hanging:
		return record.Unavailable, hintHang
	case awsclient.Foreign:
		return record.Unavailable, hintNotS3
	default:
		return record.Unavailable, hintReach
	}
}

func isCode(err error, codes ...string) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && slices.Contains(codes, api.ErrorCode())
}

func isExists(err error) bool {
	return isCode(err, "PreconditionFailed") || awsclient.StatusOf(err) == http.StatusPreconditionFailed
}

// isNoConditions reports that the store does not know If-None-Match on puts.
func isNoConditions(err error) bool {
	return isCode(err, "NotImplemented") || awsclient.StatusOf(err) == http.StatusNotImplemented
}
