package s3

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/record"
)

// shaMetadata is the user metadata in which every object of ours carries its SHA-256, in hexadecimal digits.
const shaMetadata = "leat-sha256"

// ifAbsent is the condition under which objects are put.
const ifAbsent = "*"

// Put stores the object, or finds that it is there.
func (s *Store) Put(ctx context.Context, u blob.Upload) error {
	if err := s.validKey(u.Key); err != nil {
		return err
	}
	if err := verify(ctx, u); err != nil {
		return s.fail("put", u.Key, err)
	}
	put := s.putWhole
	if u.Size > s.wholeLimit(u) {
		put = s.putParts
	}
	if err := put(ctx, u); err != nil {
		return s.fail("put", u.Key, err)
	}
	return nil
}

// validKey reports, as an Invalid error, why a key is not allowed.
func (s *Store) validKey(key string) error {
	if !s.anyKey {
		return blob.ValidateKey(key)
	}
	switch {
	case key == "", len(s.cfg.Prefix)+len(key) > blob.MaxKey:
		return record.Errorf(record.Invalid, "object key of %d bytes: want 1 to %d", len(s.cfg.Prefix)+len(key), blob.MaxKey)
	case !utf8.ValidString(key), strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return record.Errorf(record.Invalid, "object key %q has a control character or is not UTF-8", key)
	}
	for element := range strings.SplitSeq(key, "/") {
		if element == "." || element == ".." {
			return record.Errorf(record.Invalid, "object key %q has an element %q", key, element)
		}
	}
	return nil
}

// wholeLimit is the size up to which an upload is one request.
func (s *Store) wholeLimit(u blob.Upload) int64 {
	if u.MultipartAbove > 0 {
		return min(u.MultipartAbove, maxPartSize) // a request takes no more than a part does
	}
	return s.cfg.PartSize
}

// verify reads the whole content once before anything is sent, so that no damaged file gets under a good key.
func verify(ctx context.Context, u blob.Upload) error {
	sum := sha256.New()
	n, err := io.Copy(sum, &ctxReader{ctx, io.NewSectionReader(u.Body, 0, u.Size)})
	if err != nil {
		return err
	}
	if n != u.Size || [32]byte(sum.Sum(nil)) != u.SHA256 {
		return record.Errorf(record.Corrupt, "content of %d bytes is not what its SHA-256 says", n)
	}
	return nil
}

func (s *Store) putWhole(ctx context.Context, u blob.Upload) error {
	in := &s3.PutObjectInput{
		Bucket: s.bucket(), Key: s.key(u.Key), ContentLength: &u.Size, ContentType: contentType(u.Key),
		Metadata: metadata(u), Body: paced(ctx, u, io.NewSectionReader(u.Body, 0, u.Size)),
	}
	if s.cfg.Checksums == ChecksumsWhenSupported {
		in.ChecksumSHA256 = encode(u.SHA256)
	}
	switch {
	case u.Overwrite:
	case s.unconditional.Load():
		if err := s.settle(ctx, u); !errors.Is(err, errAbsent) {
			return err
		}
	default:
		in.IfNoneMatch = aws.String(ifAbsent)
	}
	out, err := s.client.PutObject(ctx, in, withPayloadHash(u.SHA256))
	if err == nil && out.ETag == nil {
		err = notS3()
	}
	switch {
	case err == nil:
		s.stats.puts.Add(1)
		s.stats.putBytes.Add(u.Size)
		if !u.Overwrite { // whose ETags nobody compares
			s.learn(u, trimETag(out.ETag))
		}
		return nil
	case isExists(err) && in.IfNoneMatch != nil:
		return s.settleExisting(ctx, u)
	case in.IfNoneMatch != nil && isNoConditions(err):
		s.forgetConditions()
		return s.putWhole(ctx, u)
	default:
		return err
	}
}

// forgetConditions puts without If-None-Match from now on, looking first. Two writers of one key at the same instant
// could then overwrite one another; keys that name node, stream and range do not have two writers.
func (s *Store) forgetConditions() {
	if !s.unconditional.Swap(true) {
		s.log.Warn("object store does not know If-None-Match: looking before each put instead", "bucket", s.cfg.Bucket)
	}
}

// metadata is what an object carries: what its upload says and, for comparing, the SHA-256. An object that overwrites is
// never compared and carries what its owner asked for alone.
func metadata(u blob.Upload) map[string]string {
	m := make(map[string]string, len(u.Metadata)+1)
	maps.Copy(m, u.Metadata)
	if !u.Overwrite {
		m[shaMetadata] = hex.EncodeToString(u.SHA256[:])
	}
	return m
}

// learn finds out whether the store's ETags are MD5: compare needs to know when rights allow it only a listing.
func (s *Store) learn(u blob.Upload, etag string) {
	if s.md5ETags.Load() || !isMD5(etag) {
		return
	}
	// The object is stored: that the file cannot be read again would not be this call's concern.
	if sum, err := md5Of(u, 0, u.Size); err == nil && hex.EncodeToString(sum) == etag {
		s.md5ETags.Store(true)
	}
}

// withPayloadHash spares the SDK hashing what we hashed already.
func withPayloadHash(sum [32]byte) func(*s3.Options) {
	hash := hex.EncodeToString(sum[:])
	set := middleware.FinalizeMiddlewareFunc("LeatPayloadHash", func(
		ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		return next.HandleFinalize(v4.SetPayloadHash(ctx, hash), in)
	})
	return s3.WithAPIOptions(func(stack *middleware.Stack) error {
		return stack.Finalize.Insert(set, "ComputePayloadHash", middleware.Before)
	})
}

func encode(sum [32]byte) *string { return aws.String(base64.StdEncoding.EncodeToString(sum[:])) }

// contentType is for people who click on an object in a browser; nil leaves it to the store.
func contentType(key string) *string {
	switch {
	case strings.HasSuffix(key, ".parquet"):
		return aws.String("application/vnd.apache.parquet")
	case strings.HasSuffix(key, ".json"):
		return aws.String("application/json")
	default:
		return nil
	}
}

// paceChunk is how many bytes Upload.Pace is asked for at a time: few, so that a request on which a slow pace lets bytes
// through is never taken for one that hangs.
const paceChunk = 8 << 10

// paced is a body whose bytes wait for the upload's pace.
func paced(ctx context.Context, u blob.Upload, body *io.SectionReader) io.ReadSeeker {
	if u.Pace == nil {
		return body
	}
	return &pacedBody{ctx, body, u.Pace}
}

type pacedBody struct {
	ctx  context.Context //nolint:containedctx // lives as long as one call
	body *io.SectionReader
	pace func(context.Context, int) error
}

func (b *pacedBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p[:min(len(p), paceChunk)])
	if n > 0 {
		if perr := b.pace(b.ctx, n); perr != nil {
			return 0, perr
		}
	}
	return n, err
}

func (b *pacedBody) Seek(offset int64, whence int) (int64, error) { return b.body.Seek(offset, whence) }

// ctxReader ends a long local read with the context.
type ctxReader struct {
	ctx context.Context //nolint:containedctx // lives as long as one call
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
