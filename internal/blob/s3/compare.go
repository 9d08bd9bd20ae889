package s3

import (
	"context"
	"crypto/md5" //nolint:gosec // S3's ETags are MD5
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/record"
)

// existing is what can be learned about an object without reading it.
type existing struct {
	blob.Object
	sha256 string // hexadecimal; "" when the object does not say
	listed bool   // the rights allow listing only
}

// errAbsent is settle's way to say that there is no such object.
var errAbsent = errors.New("no such object")

// look describes an object with HEAD, which needs s3:GetObject, or from a listing. The error of a missing one is of
// kind NotFound.
func (s *Store) look(ctx context.Context, key string) (existing, error) {
	in := &s3.HeadObjectInput{Bucket: s.bucket(), Key: s.key(key)}
	if s.cfg.Checksums == ChecksumsWhenSupported {
		in.ChecksumMode = types.ChecksumModeEnabled
	}
	out, err := s.client.HeadObject(ctx, in)
	if err == nil && out.ETag == nil {
		err = notS3()
	}
	if err != nil {
		if kind, _ := classify(err); kind == record.Denied {
			return s.lookInList(ctx, key)
		}
		return existing{}, err
	}
	e := existing{
		Object: blob.Object{
			Key: key, Size: aws.ToInt64(out.ContentLength), ETag: trimETag(out.ETag), Modified: aws.ToTime(out.LastModified),
		},
		sha256: out.Metadata[shaMetadata],
	}
	if e.sha256 == "" && out.ChecksumType != types.ChecksumTypeComposite {
		if sum, err := base64.StdEncoding.DecodeString(aws.ToString(out.ChecksumSHA256)); err == nil {
			e.sha256 = hex.EncodeToString(sum)
		}
	}
	return e, nil
}

// lookInList is look with the right to list and no other. The first key that starts with a key is that key.
func (s *Store) lookInList(ctx context.Context, key string) (existing, error) {
	page, err := s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
		Bucket: s.bucket(), Prefix: s.key(key), MaxKeys: aws.Int32(10),
	})
	if err == nil && !isListing(page) {
		err = notS3()
	}
	if err != nil {
		return existing{}, err
	}
	s.stats.lists.Add(1)
	for i := range page.Contents {
		if o := &page.Contents[i]; aws.ToString(o.Key) == *s.key(key) {
			return existing{
				Object: blob.Object{
					Key: key, Size: aws.ToInt64(o.Size), ETag: trimETag(o.ETag), Modified: aws.ToTime(o.LastModified),
				},
				listed: true,
			}, nil
		}
	}
	return existing{}, record.Errorf(record.NotFound, "no such object")
}

// settle returns nil when the key holds the upload's content, a Conflict when it holds another, and errAbsent when it
// holds nothing.
func (s *Store) settle(ctx context.Context, u blob.Upload) error {
	e, err := s.look(ctx, u.Key)
	if err != nil {
		if kind, _ := classify(err); kind == record.NotFound && !isCode(err, "NoSuchBucket") {
			return errAbsent
		}
		return err
	}
	same, err := s.same(ctx, u, e)
	if err != nil {
		return err
	}
	if !same {
		s.stats.conflicts.Add(1)
		return record.Errorf(record.Conflict, "another object of that key exists, of %d bytes", e.Size).
			WithHint("move the object away if it is not wanted")
	}
	s.stats.existing.Add(1)
	return nil
}

// settleExisting is settle after the store said that the key exists.
func (s *Store) settleExisting(ctx context.Context, u blob.Upload) error {
	err := s.settle(ctx, u)
	if errors.Is(err, errAbsent) {
		return record.Errorf(record.Unavailable, "the store says that the key exists, and then that it does not")
	}
	return err
}

// same compares an object with the upload, by what is cheapest and certain: size, the SHA-256 that our objects carry,
// the ETag where it is an MD5, and at last the content.
//
// With rights to list only (the profile "ingest"), size and ETag are all there is. A different ETag then proves a
// different object only where ETags are known to be MD5: with KMS encryption, for example, they look alike and are
// not. Where they are not known to be, the same size must do: keys name node, stream and range, so two contents for
// one key are a defect, not a coincidence.
func (s *Store) same(ctx context.Context, u blob.Upload, e existing) (bool, error) {
	if e.Size != u.Size {
		return false, nil
	}
	if e.sha256 != "" {
		return strings.EqualFold(e.sha256, hex.EncodeToString(u.SHA256[:])), nil
	}
	etag, err := etagLike(e.ETag, u, s.partSize(u.Size))
	if err != nil {
		return false, err
	}
	switch {
	case etag != "" && etag == e.ETag:
		return true, nil
	case !e.listed:
		return s.sameContent(ctx, u)
	case isMD5(e.ETag) && s.md5ETags.Load():
		return false, nil
	default:
		s.log.Warn("object exists and was compared by its size only: the credentials may not read it",
			"key", s.cfg.Prefix+u.Key, "bytes", e.Size)
		return true, nil
	}
}

// sameContent reads the object.
func (s *Store) sameContent(ctx context.Context, u blob.Upload) (bool, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: s.bucket(), Key: s.key(u.Key)})
	if err != nil {
		return false, err
	}
	sum := sha256.New()
	_, err = io.Copy(sum, out.Body)
	if err := errors.Join(err, out.Body.Close()); err != nil {
		return false, err
	}
	return [32]byte(sum.Sum(nil)) == u.SHA256, nil
}

// etagLike computes the ETag that the upload would have in a store that uses MD5, in the form of etag: the MD5 of the
// content, or of the parts' MD5s with their number. It is "" for other forms.
func etagLike(etag string, u blob.Upload, partSize int64) (string, error) {
	if isMD5(etag) {
		sum, err := md5Of(u, 0, u.Size)
		return hex.EncodeToString(sum), err
	}
	digest, _, ok := strings.Cut(etag, "-")
	if !ok || !isMD5(digest) {
		return "", nil
	}
	all, n := md5.New(), 0 //nolint:gosec // see import
	for at := int64(0); at < u.Size; at += partSize {
		sum, err := md5Of(u, at, min(partSize, u.Size-at))
		if err != nil {
			return "", err
		}
		all.Write(sum)
		n++
	}
	return fmt.Sprintf("%x-%d", all.Sum(nil), n), nil
}

func md5Of(u blob.Upload, at, n int64) ([]byte, error) {
	sum := md5.New() //nolint:gosec // see import
	_, err := io.Copy(sum, io.NewSectionReader(u.Body, at, n))
	return sum.Sum(nil), err
}

func isMD5(etag string) bool {
	_, err := hex.DecodeString(etag)
	return err == nil && len(etag) == 2*md5.Size
}
