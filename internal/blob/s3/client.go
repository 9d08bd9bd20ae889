package s3

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/leat-io/leat/internal/record"
)

// maxBackoff bounds the pause between the SDK's few attempts.
const maxBackoff = 2 * time.Second

// newClient makes an SDK client from nothing but the configuration and, for credentials and region only, the AWS
// environment. It uses s3.New, not s3.NewFromConfig: the latter takes endpoints from environment and files.
func newClient(ctx context.Context, cfg *Config, httpClient aws.HTTPClient) (*s3.Client, error) {
	region, creds, err := identity(ctx, cfg, httpClient)
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

// identity finds region and credentials.
func identity(ctx context.Context, cfg *Config, httpClient aws.HTTPClient) (string, aws.CredentialsProvider, error) {
	region := cfg.Region
	var creds aws.CredentialsProvider
	if cfg.AccessKey != "" {
		creds = credentials.NewStaticCredentialsProvider(cfg.AccessKey, string(cfg.SecretKey), string(cfg.SessionToken))
	}
	if creds == nil || (region == "" && cfg.Endpoint == "") {
		found, err := loadAWS(ctx, cfg, httpClient)
		if err != nil {
			return "", nil, record.Errorf(record.Invalid, "read the AWS configuration: %w", err).
				WithHint("repair ~/.aws/config and the AWS_ variables, or set access_key and secret_key")
		}
		if creds == nil {
			creds = found.Credentials
		}
		if region == "" {
			region = found.Region
		}
	}
	if region == "" && cfg.Endpoint == "" {
		return "", nil, record.Errorf(record.Invalid, "region: is empty and AWS_REGION is not set").
			WithHint("set region to the bucket's region, for example eu-central-1")
	}
	if region == "" {
		region = "us-east-1"
	}
	return region, creds, nil
}

// loadAWS runs the SDK's default chain. Role credentials come from STS, whose client takes endpoints from the
// environment like any other: they are taken out again.
func loadAWS(ctx context.Context, cfg *Config, httpClient aws.HTTPClient) (aws.Config, error) {
	opts := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithHTTPClient(httpClient),
		awsconfig.WithRetryMaxAttempts(cfg.Attempts),
		awsconfig.WithAssumeRoleCredentialOptions(func(o *stscreds.AssumeRoleOptions) {
			if c, ok := o.Client.(*sts.Client); ok {
				o.Client = withoutEndpoint(c)
			}
		}),
		awsconfig.WithWebIdentityRoleCredentialOptions(func(o *stscreds.WebIdentityRoleOptions) {
			if c, ok := o.Client.(*sts.Client); ok {
				o.Client = withoutEndpoint(c)
			}
		}),
	}
	if cfg.Region != "" {
		opts = append(opts, awsconfig.WithRegion(cfg.Region))
	}
	if cfg.Profile != "" {
		opts = append(opts, awsconfig.WithSharedConfigProfile(cfg.Profile))
	}
	return awsconfig.LoadDefaultConfig(ctx, opts...)
}

func withoutEndpoint(c *sts.Client) *sts.Client {
	o := c.Options()
	o.BaseEndpoint = nil
	return sts.New(o)
}
