package s3

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/record"
)

// abortAttempts is how often an upload is aborted: stores answer 500 while a part that was broken off still arrives.
const abortAttempts = 5

// partSize is the size of the parts of an object of size bytes: the configured one unless that makes too many parts.
func (s *Store) partSize(size int64) int64 {
	return max(s.cfg.PartSize, (size+maxParts-1)/maxParts)
}

// putParts stores an object by a multipart upload, going on with an earlier one of the same content.
func (s *Store) putParts(ctx context.Context, u blob.Upload) error {
	if !u.Overwrite {
		if err := s.settleBefore(ctx, u); !errors.Is(err, errAbsent) {
			return err
		}
	}
	up, have, err := s.begin(ctx, u)
	if err != nil {
		return err
	}
	parts, err := s.send(ctx, u, up, have)
	if err == nil {
		err = s.complete(ctx, u, up, parts)
	}
	if err != nil {
		return s.broken(ctx, u, up, err)
	}
	s.state.forget(up)
	s.stats.puts.Add(1)
	s.stats.putBytes.Add(u.Size)
	return nil
}

// settleBefore is settle before anything is sent: where the rights do not allow to look, there is no object.
func (s *Store) settleBefore(ctx context.Context, u blob.Upload) error {
	err := s.settle(ctx, u)
	switch kind, _ := classify(err); {
	case err == nil, kind == record.Conflict:
		// The completion whose answer was lost, or somebody else: what is kept of an upload is superfluous.
		if up, ok := s.state.load(s.state.id(&s.cfg, u), u); ok {
			s.abort(ctx, up)
		}
		return err
	case kind == record.Denied:
		return errAbsent
	}
	return err
}

// broken says what becomes of an upload that ended in err: it is kept for the next attempt, or aborted.
func (s *Store) broken(ctx context.Context, u blob.Upload, up *upload, err error) error {
	switch {
	case isExists(err) && !u.Overwrite:
		// Put by somebody else meanwhile, or by ourselves when the answer was lost. Our upload is superfluous.
		err := s.settleExisting(ctx, u)
		if err == nil || record.KindOf(err) == record.Conflict {
			s.abort(ctx, up)
		}
		return err
	case isCode(err, "NoSuchUpload"):
		s.state.forget(up)
		if !u.Overwrite {
			if serr := s.settle(ctx, u); serr == nil || !errors.Is(serr, errAbsent) {
				return serr
			}
		}
		return record.Errorf(record.Unavailable, "the store dropped the unfinished upload: %w", err).
			WithHint("leat starts it again; check that no lifecycle rule ends uploads too early")
	case isCode(err, "InvalidPart", "InvalidPartOrder", "EntityTooSmall", "ConditionalRequestConflict"):
		s.abort(ctx, up)
		return record.Errorf(record.Unavailable, "the store did not put the parts together: %w", err).
			WithHint("leat starts the upload again")
	case !up.kept:
		s.abort(ctx, up) // nobody would go on with it
	}
	return err
}

// begin returns the upload to go on with and the parts it has, or a new one.
func (s *Store) begin(ctx context.Context, u blob.Upload) (*upload, map[int32]types.Part, error) {
	id := s.state.id(&s.cfg, u)
	if up, ok := s.state.load(id, u); ok {
		have, err := s.parts(ctx, u, up)
		if kind, _ := classify(err); err == nil || kind == record.Denied {
			return up, have, nil // without the right to list, all parts are sent again into the same upload
		}
		if !isCode(err, "NoSuchUpload") {
			return nil, nil, err
		}
		s.state.forget(up)
	}
	in := &s3.CreateMultipartUploadInput{
		Bucket: s.bucket(), Key: s.key(u.Key), ContentType: contentType(u.Key),
		Metadata: metadata(u),
	}
	up := newUpload(id, u, s.partSize(u.Size))
	if s.cfg.Checksums == ChecksumsWhenSupported {
		in.ChecksumAlgorithm, up.Checksums = types.ChecksumAlgorithmSha256, true
	}
	out, err := s.client.CreateMultipartUpload(ctx, in)
	if err == nil && out.UploadId == nil {
		err = notS3()
	}
	if err != nil {
		return nil, nil, err
	}
	up.UploadID = aws.ToString(out.UploadId)
	s.state.save(up)
	return up, nil, nil
}

// parts lists what the store has of an upload, leaving out parts of a wrong size.
func (s *Store) parts(ctx context.Context, u blob.Upload, up *upload) (map[int32]types.Part, error) {
	have := map[int32]types.Part{}
	pages := s3.NewListPartsPaginator(s.client, &s3.ListPartsInput{
		Bucket: s.bucket(), Key: s.key(u.Key), UploadId: &up.UploadID,
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range page.Parts {
			n := aws.ToInt32(p.PartNumber)
			if aws.ToInt64(p.Size) == up.sizeOf(n) && (!up.Checksums || p.ChecksumSHA256 != nil) {
				have[n] = p
			}
		}
	}
	return have, nil
}

// send uploads the parts that are missing and returns all of them in order.
func (s *Store) send(
	ctx context.Context, u blob.Upload, up *upload, have map[int32]types.Part,
) ([]types.CompletedPart, error) {
	var mu sync.Mutex // guards all
	all := make([]types.CompletedPart, up.count())
	group, sending := errgroup.WithContext(ctx)
	group.SetLimit(s.cfg.Concurrency)
	for n := int32(1); n <= up.count() && sending.Err() == nil; n++ {
		if p, ok := have[n]; ok {
			all[n-1] = types.CompletedPart{PartNumber: &n, ETag: p.ETag, ChecksumSHA256: p.ChecksumSHA256}
			s.stats.partsKept.Add(1)
			continue
		}
		group.Go(func() error {
			p, err := s.sendPart(sending, u, up, n)
			mu.Lock()
			defer mu.Unlock()
			all[n-1] = p
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return all, ctx.Err()
}

func (s *Store) sendPart(ctx context.Context, u blob.Upload, up *upload, n int32) (types.CompletedPart, error) {
	body := io.NewSectionReader(u.Body, int64(n-1)*up.PartSize, up.sizeOf(n))
	hash := sha256.New()
	if _, err := io.Copy(hash, &ctxReader{ctx, body}); err != nil {
		return types.CompletedPart{}, err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return types.CompletedPart{}, err
	}
	sum := [32]byte(hash.Sum(nil))
	in := &s3.UploadPartInput{
		Bucket: s.bucket(), Key: s.key(u.Key), UploadId: &up.UploadID, PartNumber: &n,
		Body: paced(ctx, u, body), ContentLength: aws.Int64(up.sizeOf(n)),
	}
	if up.Checksums {
		in.ChecksumSHA256 = encode(sum)
	}
	out, err := s.client.UploadPart(ctx, in, withPayloadHash(sum))
	if err == nil && out.ETag == nil {
		err = notS3()
	}
	if err != nil {
		return types.CompletedPart{}, err
	}
	s.stats.partsSent.Add(1)
	return types.CompletedPart{PartNumber: &n, ETag: out.ETag, ChecksumSHA256: in.ChecksumSHA256}, nil
}

func (s *Store) complete(ctx context.Context, u blob.Upload, up *upload, parts []types.CompletedPart) error {
	in := &s3.CompleteMultipartUploadInput{
		Bucket: s.bucket(), Key: s.key(u.Key), UploadId: &up.UploadID,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	}
	if !u.Overwrite && !s.unconditional.Load() {
		in.IfNoneMatch = aws.String(ifAbsent)
	}
	out, err := s.client.CompleteMultipartUpload(ctx, in)
	if err != nil && in.IfNoneMatch != nil && isNoConditions(err) {
		s.forgetConditions() // putParts looked whether the key exists
		in.IfNoneMatch = nil
		out, err = s.client.CompleteMultipartUpload(ctx, in)
	}
	if err == nil && out.ETag == nil {
		err = notS3()
	}
	return err
}

// Abort gives up the unfinished uploads that were begun under a Resume, and frees what the store holds of them. None is
// no error. After an error their parts stay in the bucket until a lifecycle rule removes them; they are not tried again.
func (s *Store) Abort(ctx context.Context, resume string) error {
	var errs []error
	for _, up := range s.state.begun(resume) {
		if err := s.tryAbort(ctx, up); err != nil && !isCode(err, "NoSuchUpload") {
			errs = append(errs, s.fail("abort the unfinished upload of", up.Key, err).WithHint("%s", hintAbort))
		}
	}
	return errors.Join(errs...)
}

// abort frees what the store holds of an upload, as far as the rights allow; what stays is for a lifecycle rule.
func (s *Store) abort(ctx context.Context, up *upload) {
	if err := s.tryAbort(ctx, up); err != nil {
		s.log.Debug("unfinished upload stays in the store", "key", s.cfg.Prefix+up.Key, "error", err)
	}
}

// tryAbort runs also when the caller's context has ended.
func (s *Store) tryAbort(ctx context.Context, up *upload) error {
	s.state.forget(up)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ConnectTimeout)
	defer cancel()
	_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
		Bucket: s.bucket(), Key: s.key(up.Key), UploadId: &up.UploadID,
	}, func(o *s3.Options) { o.RetryMaxAttempts = abortAttempts })
	return err
}
