package s3

import (
	"errors"

	"github.com/aws/smithy-go"

	"github.com/leat-io/leat/internal/record"
)

// Permanent reports whether an error of Put says that the store will not take this object, however often it is sent:
// its bucket, its key, its size, or what the credentials allow. Everything else may go away without anybody touching
// the object: outages, and credentials or a clock of this machine that are wrong.
func Permanent(err error) bool {
	api, answered := errors.AsType[smithy.APIError](err)
	// What the SDK makes of an answer without an S3 error in it: a proxy's, mostly.
	if answered && (api.ErrorCode() == "" || api.ErrorCode() == "UnknownError") {
		return false
	}
	switch record.KindOf(err) {
	case record.Invalid:
		return answered || record.HintOf(err) != hintNotS3
	case record.NotFound:
		return isCode(err, "NoSuchBucket")
	case record.Denied:
		return answered && record.HintOf(err) == hintRights
	default:
		return false
	}
}
