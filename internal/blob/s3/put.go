package s3

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"strings"

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
	if err := blob.ValidateKey(u.Key); err != nil {
		return err
	}
	if err := verify(ctx, u); err != nil {
		return s.fail("put", u.Key, err)
	}
	put := s.putWhole
	if u.Size > s.cfg.PartSize {
		put = s.putParts
	}
	if err := put(ctx, u); err != nil {
		return s.fail("put", u.Key, err)
	}
	return nil
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
		Metadata: map[string]string{shaMetadata: hex.EncodeToString(u.SHA256[:])},
		Body:     io.NewSectionReader(u.Body, 0, u.Size),
	}
	if s.cfg.Checksums == ChecksumsWhenSupported {
		in.ChecksumSHA256 = encode(u.SHA256)
	}
	if s.unconditional.Load() {
		if err := s.settle(ctx, u); !errors.Is(err, errAbsent) {
			return err
		}
	} else {
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
		s.learn(u, trimETag(out.ETag))
		return nil
	case isExists(err):
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
