package s3

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leat-io/leat/internal/awsclient"
)

// maxBackoff bounds the pause between the SDK's few attempts.
const maxBackoff = 2 * time.Second

// newClient makes an SDK client from nothing but the configuration and, for credentials and region only, the AWS
// environment. It uses s3.New, not s3.NewFromConfig: the latter takes endpoints from environment and files.
func newClient(ctx context.Context, cfg *Config, httpClient aws.HTTPClient) (*s3.Client, error) {
	service := cfg.service()
	region, creds, err := service.Identity(ctx, httpClient, cfg.Attempts)
	if err != nil {
		return nil, err
	}
	o := s3.Options{
		Region:      region,
		Credentials: creds,
		HTTPClient:  httpClient,
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = cfg.Attempts
			o.MaxBackoff = maxBackoff
		}),
		UsePathStyle:               cfg.Endpoint != "",
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		// Session credentials of S3 Express need rights and requests that other stores do not have.
		DisableS3ExpressSessionAuth: new(true),
		// The SDK would log to standard error when an object has no checksum.
		DisableLogOutputChecksumValidationSkipped: true,
	}
	if cfg.Endpoint != "" {
		o.BaseEndpoint = &cfg.Endpoint
	}
	if cfg.PathStyle != nil {
		o.UsePathStyle = *cfg.PathStyle
	}
	if cfg.Checksums == ChecksumsWhenSupported {
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
	}
	return s3.New(o), nil
}

// newHTTPClient makes the connections of a store. The function it returns closes idle ones.
func newHTTPClient(cfg *Config) (client aws.HTTPClient, closeIdle func()) {
	c := awsclient.NewHTTPClient(awsclient.HTTPOptions{
		ConnectTimeout: cfg.ConnectTimeout, StallTimeout: cfg.StallTimeout, IdleConns: cfg.Concurrency + 2, FollowRedirects: true,
	})
	return c, c.CloseIdleConnections
}
