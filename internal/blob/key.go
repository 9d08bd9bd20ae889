package blob

import (
	"strings"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/record"
)

// MaxKey is the longest key and MaxKeyElement the longest part of one between slashes, in bytes: what S3 and the usual
// file systems allow.
const (
	MaxKey        = 1024
	MaxKeyElement = 255
)

// WorkDir is the first element that no key may have: blob/file keeps unfinished objects there.
const WorkDir = ".tmp"

// ValidateKey reports, as an Invalid error, why a key could not be stored in every store: both a file system and S3
// must be able to hold it, and no key may lead out of the store.
func ValidateKey(key string) error {
	switch {
	case key == "":
		return record.Errorf(record.Invalid, "object key is empty")
	case len(key) > MaxKey:
		return record.Errorf(record.Invalid, "object key of %d bytes: at most %d", len(key), MaxKey)
	case !utf8.ValidString(key):
		return record.Errorf(record.Invalid, "object key %q is not UTF-8", key)
	case strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }):
		return record.Errorf(record.Invalid, "object key %q has a control character or a backslash", key)
	}
	first := true
	for element := range strings.SplitSeq(key, "/") {
		switch {
		case element == "":
			return record.Errorf(record.Invalid, "object key %q has an empty element", key)
		case element == "." || element == "..":
			return record.Errorf(record.Invalid, "object key %q has an element %q", key, element)
		case len(element) > MaxKeyElement:
			return record.Errorf(record.Invalid, "object key %q has an element of %d bytes: at most %d",
				key, len(element), MaxKeyElement)
		case first && element == WorkDir:
			return record.Errorf(record.Invalid, "object key %q: %s is reserved", key, WorkDir)
		}
		first = false
	}
	return nil
}
