package s3

import (
	"strings"
	"time"

	"github.com/leat-io/leat/internal/awsclient"
	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/record"
)

// Limits of the S3 protocol.
const (
	minPartSize = 5 << 20
	maxPartSize = 5 << 30
	maxParts    = 10_000
)

// Checksums says how much an upload carries beside its signature, which covers the content's SHA-256 anyway.
type Checksums string

// The settings of Config.Checksums.
const (
	// ChecksumsWhenRequired sends none: every S3-compatible store accepts that.
	ChecksumsWhenRequired Checksums = "when_required"
	// ChecksumsWhenSupported sends x-amz-checksum-sha256, which the store verifies and keeps with the object. It is
	// always a header, never an aws-chunked trailer, which many stores refuse.
	ChecksumsWhenSupported Checksums = "when_supported"
)

// Secret is a string that does not show itself in logs, errors or printed configurations.
type Secret = awsclient.Secret

// Config is what a person sets about an S3-compatible store.
type Config struct {
	// Endpoint is the store's URL; empty means AWS in Region. Environment variables such as AWS_ENDPOINT_URL and the
	// endpoints of AWS configuration files never count: they may point at leat itself.
	Endpoint string `yaml:"endpoint"`
	// Region is the bucket's region. Empty: what the AWS environment or configuration file says, else us-east-1 when
	// Endpoint is set.
	Region string `yaml:"region"`
	// Bucket must exist: leat does not create it.
	Bucket string `yaml:"bucket"`
	// Prefix is put before every key, as it is; usually it ends in a slash.
	Prefix string `yaml:"prefix"`
	// PathStyle puts the bucket into the path instead of the host name. Nil: yes when Endpoint is set.
	PathStyle *bool `yaml:"path_style"`

	// AccessKey, SecretKey and SessionToken are static credentials. Without them the default chain of the AWS SDKs
	// finds some: environment, configuration files (Profile), web identity, container, instance.
	AccessKey    string `yaml:"access_key"`
	SecretKey    Secret `yaml:"secret_key"`
	SessionToken Secret `yaml:"session_token"`
	Profile      string `yaml:"profile"`

	Checksums Checksums `yaml:"checksums"`
	// PartSize, in bytes, is the size of a part of a multipart upload and the size above which uploads are multipart.
	PartSize int64 `yaml:"part_size"`
	// Concurrency is how many parts of one object are on their way at a time.
	Concurrency int `yaml:"concurrency"`

	// ConnectTimeout limits making a connection, TLS included.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// StallTimeout limits how long no byte moves on a connection in use. It is what ends a request to a store that
	// hangs; a slow one may take as long as it needs.
	StallTimeout time.Duration `yaml:"stall_timeout"`
	// Attempts is how often a request is sent before its error is returned. Small, because exports retry for ever.
	Attempts int `yaml:"attempts"`
}

// DefaultConfig is a store on AWS; Bucket is left to set.
func DefaultConfig() Config {
	return Config{
		Checksums: ChecksumsWhenRequired, PartSize: 8 << 20, Concurrency: 2,
		ConnectTimeout: 10 * time.Second, StallTimeout: 30 * time.Second, Attempts: 2,
	}
}

// Validate names, as an Invalid error, the first setting that cannot work. Keys are given without the place of the
// store in the configuration: callers put that in front.
func (c *Config) Validate() error {
	if c.Bucket == "" {
		return invalid("bucket", "is empty").WithHint("set bucket to the name of an existing bucket")
	}
	if strings.ContainsAny(c.Bucket, "/ ?#\\") {
		return invalid("bucket", "%q is not a bucket's name", c.Bucket).
			WithHint("give the name alone; what follows a slash belongs in prefix")
	}
	service := c.service()
	if err := service.Validate(); err != nil {
		return err
	}
	if c.Prefix != "" {
		if err := blob.ValidateKey(c.Prefix + "x"); err != nil {
			return record.Errorf(record.Invalid, "prefix: %w", err).WithHint("for example plant-7/, without a leading slash")
		}
	}
	return c.validateTransfer()
}

// service is what the store has in common with other services. (Config does not embed it: its keys would be told in
// another order, and its literals would have to name it.)
func (c *Config) service() awsclient.Config {
	return awsclient.Config{
		Endpoint: c.Endpoint, Region: c.Region, AccessKey: c.AccessKey, SecretKey: c.SecretKey, SessionToken: c.SessionToken,
		Profile: c.Profile,
	}
}

func (c *Config) validateTransfer() error {
	switch {
	case c.Checksums != ChecksumsWhenRequired && c.Checksums != ChecksumsWhenSupported:
		return invalid("checksums", "%q is unknown", string(c.Checksums)).
			WithHint("use %s or %s", ChecksumsWhenRequired, ChecksumsWhenSupported)
	case c.PartSize < minPartSize || c.PartSize > maxPartSize:
		return invalid("part_size", "%d bytes: S3 wants %d to %d", c.PartSize, int64(minPartSize), int64(maxPartSize))
	case c.Concurrency < 1 || c.Concurrency > 64:
		return invalid("concurrency", "%d: want 1 to 64", c.Concurrency)
	case c.Attempts < 1 || c.Attempts > 10:
		return invalid("attempts", "%d: want 1 to 10", c.Attempts)
	case c.ConnectTimeout <= 0:
		return invalid("connect_timeout", "%s: want more than 0", c.ConnectTimeout)
	case c.StallTimeout <= 0:
		return invalid("stall_timeout", "%s: want more than 0", c.StallTimeout)
	}
	return nil
}

func invalid(key, format string, args ...any) *record.Error {
	return record.Errorf(record.Invalid, key+": "+format, args...)
}
