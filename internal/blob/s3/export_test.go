package s3

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leat-io/leat/internal/blob"
)

// Client is the SDK's client, for what tests do to a bucket beside the store.
func (s *Store) Client() *s3.Client { return s.client }

// Without network: where clients that this configuration makes would send their requests.
func NewClientOver(ctx context.Context, c Config, h aws.HTTPClient) (*s3.Client, error) {
	return newClient(ctx, &c, h)
}

// KeptUpload is the state file's content as the store would use it.
func KeptUpload(l *Store, u blob.Upload) (parts int32, last int64, ok bool) {
	up, ok := l.state.load(l.state.id(&l.cfg, u), u)
	if !ok {
		return 0, 0, false
	}
	return up.count(), up.sizeOf(up.count()), true
}

// StateFile is the name of the state file of an upload.
func StateFile(l *Store, u blob.Upload) string { return l.state.id(&l.cfg, u) + ".json" }
