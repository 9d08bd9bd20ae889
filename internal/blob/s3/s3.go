// Package s3 keeps objects in any S3-compatible store.
//
// Store implements blob.Store on aws-sdk-go-v2/service/s3. Options.Config is what a person sets; Options.State is a
// directory for the state of unfinished multipart uploads.
//
// # Guarantees
//
//   - When Put has returned nil, the store has acknowledged the whole object, after verifying its SHA-256 (which the
//     request's signature covers).
//   - An object is not overwritten unless its Upload asks for it: every other put carries If-None-Match: *. Where the
//     key exists already, Put compares and succeeds for the same content; a lost answer or a crash after the upload
//     therefore costs one request.
//   - A multipart upload goes on where it stopped, also after a restart: only parts that the store does not have are
//     sent.
//   - No call waits for ever: a connection on which nothing moves for Config.StallTimeout is given up.
//   - The endpoint is Config.Endpoint, or AWS. AWS_ENDPOINT_URL and its like never count, for S3 nor for the STS calls
//     of the credential chain.
//   - Errors and logs contain no secret.
//
// # Rights
//
// Put needs s3:PutObject alone. What it does beyond (comparing, listing parts, aborting) it does as far as the rights
// go; see compare.go and docs/guide/object-stores.md.
//
// # Duties of the caller
//
// Retry: errors of kind Unavailable go away by themselves, Denied and NotFound when somebody repairs the set-up; the
// SDK's own retries are few. One process uses a State directory. Close the store.
//
// # Algorithm of a multipart upload
//
//  1. Hash the content; look whether the key exists.
//  2. Read the upload id kept for Upload.Resume and list the parts the store has; without one, create an upload and
//     keep its id durably.
//  3. Send the missing parts, Config.Concurrency at a time, each with its SHA-256.
//  4. Complete with If-None-Match: * and forget the id. An id the store no longer knows starts at 2 again, by way of
//     the comparison of 1: the upload may have been completed by the request whose answer was lost.
//
// Store is safe for concurrent use. Goroutines run only inside Put and end before it returns. Nothing is buffered in
// memory: parts are read from the Upload's body.
package s3

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// Options are what Open needs.
type Options struct {
	Config
	// State keeps what is needed to resume multipart uploads after a restart; nil: they start anew. The caller keeps it
	// open until after Close.
	State *vfs.Dir
	Log   *slog.Logger // not nil
	// AnyKey allows every key that S3 itself does, where else blob.ValidateKey decides: for objects whose keys other
	// programs choose. "." and ".." stay forbidden as elements, since clients and proxies resolve them.
	AnyKey bool
}

// Store is a bucket, or what lies below a prefix in it.
type Store struct {
	cfg       Config
	client    *s3.Client
	state     uploads
	log       *slog.Logger
	closeIdle func()
	anyKey    bool

	// unconditional is set when the store turned out not to know If-None-Match.
	unconditional atomic.Bool
	// md5ETags is set when the store was seen to use the MD5 of the content as ETag.
	md5ETags atomic.Bool

	stats counters
}

var _ blob.Store = (*Store)(nil)

type counters struct {
	puts, putBytes, partsSent, partsKept, existing, conflicts, errors, gets, lists, deletes atomic.Int64
}

// Stats counts what the store did since Open.
type Stats struct {
	Puts      int64 // objects stored
	PutBytes  int64 // bytes of them
	PartsSent int64 // parts of multipart uploads sent
	PartsKept int64 // parts that an earlier attempt had sent and this one did not send again
	Existing  int64 // puts that found the same object there
	Conflicts int64 // puts that found another object there
	Errors    int64 // calls that failed, conflicts and missing keys left out
	Gets      int64 // objects opened
	Lists     int64 // pages listed
	Deletes   int64 // objects deleted
}

// Stats is a snapshot of the counters.
func (s *Store) Stats() Stats {
	c := &s.stats
	return Stats{
		Puts: c.puts.Load(), PutBytes: c.putBytes.Load(), PartsSent: c.partsSent.Load(), PartsKept: c.partsKept.Load(),
		Existing: c.existing.Load(), Conflicts: c.conflicts.Load(), Errors: c.errors.Load(), Gets: c.gets.Load(),
		Lists: c.lists.Load(), Deletes: c.deletes.Load(),
	}
}

// Open prepares the store. It reads AWS configuration files when there are no static credentials, and talks to nobody:
// a store that cannot be reached shows in the first call.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Store{cfg: o.Config, log: o.Log, anyKey: o.AnyKey}
	httpClient, closeIdle := newHTTPClient(&s.cfg)
	client, err := newClient(ctx, &s.cfg, httpClient)
	if err != nil {
		return nil, err
	}
	s.client, s.closeIdle = client, closeIdle
	if s.state, err = openUploads(o.State, o.Log); err != nil {
		return nil, record.Errorf(record.Unavailable, "read the state of uploads: %w", err)
	}
	return s, nil
}

// Close ends idle connections. Calls in progress go on.
func (s *Store) Close() error {
	s.closeIdle()
	return nil
}

func (s *Store) key(key string) *string { return aws.String(s.cfg.Prefix + key) }

func (s *Store) bucket() *string { return &s.cfg.Bucket }

// Open reads an object.
func (s *Store) Open(ctx context.Context, key string) (io.ReadCloser, blob.Object, error) {
	if err := s.validKey(key); err != nil {
		return nil, blob.Object{}, err
	}
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: s.bucket(), Key: s.key(key)})
	if err != nil {
		return nil, blob.Object{}, s.fail("open", key, err)
	}
	if out.ETag == nil {
		return nil, blob.Object{}, s.fail("open", key, errors.Join(notS3(), out.Body.Close()))
	}
	s.stats.gets.Add(1)
	o := blob.Object{Key: key, Size: -1, ETag: trimETag(out.ETag), Modified: aws.ToTime(out.LastModified)}
	if out.ContentLength != nil {
		o.Size = *out.ContentLength
	}
	return &body{ReadCloser: out.Body, s: s, key: key}, o, nil
}

// body gives the errors of a download their kinds.
type body struct {
	io.ReadCloser
	s   *Store
	key string
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.s.fail("read", b.key, err)
	}
	return n, err
}

// Stat describes an object: with HEAD, or from a listing where the rights allow only that.
func (s *Store) Stat(ctx context.Context, key string) (blob.Object, error) {
	if err := s.validKey(key); err != nil {
		return blob.Object{}, err
	}
	e, err := s.look(ctx, key)
	if err != nil {
		return blob.Object{}, s.fail("stat", key, err)
	}
	return e.Object, nil
}

// List yields the objects whose keys start with prefix, in the order in which the store lists them: S3's is key order.
// Keys that no Put could have made (directory markers, for example) are left out.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: s.bucket(), Prefix: s.key(prefix)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err == nil && !isListing(page) {
				err = notS3()
			}
			if err != nil {
				yield(blob.Object{}, s.fail("list", prefix, err))
				return
			}
			s.stats.lists.Add(1)
			for i := range page.Contents {
				e := &page.Contents[i]
				key, ok := strings.CutPrefix(aws.ToString(e.Key), s.cfg.Prefix)
				if !ok || s.validKey(key) != nil {
					continue
				}
				o := blob.Object{
					Key: key, Size: aws.ToInt64(e.Size), ETag: trimETag(e.ETag), Modified: aws.ToTime(e.LastModified),
				}
				if !yield(o, nil) {
					return
				}
			}
		}
	}
}

// isListing reports whether an answer is one to a listing: XML of any other kind reads as an empty one.
func isListing(page *s3.ListObjectsV2Output) bool {
	return page.Name != nil || page.MaxKeys != nil || page.KeyCount != nil || page.IsTruncated != nil
}

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.validKey(key); err != nil {
		return err
	}
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: s.bucket(), Key: s.key(key)})
	if err != nil {
		if err := s.fail("delete", key, err); record.KindOf(err) != record.NotFound || isCode(err, "NoSuchBucket") {
			return err
		}
		return nil
	}
	s.stats.deletes.Add(1)
	return nil
}

func trimETag(etag *string) string { return strings.Trim(aws.ToString(etag), `"`) }
