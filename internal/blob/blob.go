// Package blob is the contract of the object store: where files of the lake end up. blob/file keeps objects in a
// directory, blob/s3 in any S3-compatible store; both pass the suite in blobtest.
//
// Objects of the lake are immutable once put: keys contain what makes them unique (node, stream, range), so a second put
// of a key is the same bytes again after a crash, and Store.Put says so instead of overwriting. Uploads that other
// programs ask for under keys of their own choice overwrite, as such programs expect (Upload.Overwrite).
package blob

import (
	"context"
	"io"
	"iter"
	"time"
)

// Object is an object as Stat and List tell it.
type Object struct {
	Key      string // slash-separated, no leading slash
	Size     int64
	ETag     string // opaque; equal ETags of one key mean equal content
	Modified time.Time
}

// Upload is an object to be put.
type Upload struct {
	Key  string
	Size int64
	// SHA256 of the content; implementations send and verify a checksum and compare it when the key exists already.
	SHA256 [32]byte
	// Body is read from the start, possibly several times and in parts.
	Body io.ReaderAt
	// Resume, when not empty, names this upload for resuming after a restart: implementations may keep the state of a
	// multipart upload under it (see s3.Options.State). It is unique per key and content.
	Resume string

	// Overwrite replaces whatever the key holds instead of comparing with it. An upload that was done and whose answer
	// was lost is done again.
	Overwrite bool
	// Metadata is kept with an object that is written, where the store can: S3's user metadata, names without the
	// prefix x-amz-meta-. blob/file cannot and ignores it. It plays no part in comparing.
	Metadata map[string]string
	// MultipartAbove is the size, in bytes, above which a store that knows parts sends the object in parts; 0: where
	// the store finds it best.
	MultipartAbove int64
	// Pace, when not nil, is called before n more bytes of the content are sent over a network, and may wait. Its error
	// ends the Put. It is called from several goroutines at a time.
	Pace func(ctx context.Context, n int) error
}

// Store puts objects and reads them back. Errors have a record.Kind: Unavailable (try again later), Denied (wrong
// credentials or rights), NotFound (no such bucket, directory or key), Conflict (the key exists with other content),
// Invalid (the key is not allowed). Implementations do not retry for long themselves: callers do.
type Store interface {
	// Put stores the object durably. When the key exists with the same content it succeeds without writing, unless
	// Overwrite is set.
	Put(ctx context.Context, u Upload) error
	// Open reads an object; the caller closes it. Size is -1 when not known.
	Open(ctx context.Context, key string) (body io.ReadCloser, o Object, err error)
	// Stat describes an object.
	Stat(ctx context.Context, key string) (Object, error)
	// List yields the objects whose keys start with prefix, in key order. It ends after the first error.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]
	// Delete removes an object; a missing one is no error.
	Delete(ctx context.Context, key string) error
}
