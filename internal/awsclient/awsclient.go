// Package awsclient finds region and credentials for clients of AWS-compatible services, makes their connections, and
// says what kept a request from being answered.
//
// # Guarantees
//
//   - The endpoint is Config.Endpoint, or AWS. AWS_ENDPOINT_URL and its like never count, for a service nor for the STS
//     calls of the credential chain: they may point at leat itself.
//   - A connection of NewHTTPClient on which nothing moves for the stall timeout is given up; a slow one never is.
//   - A Secret does not show itself, and Describe never repeats a URL.
//
// # Duties of the caller
//
// Make service clients with their New(Options), not NewFromConfig, which takes endpoints from the environment. Bound a
// request as a whole with its context: a server that sends a byte now and then does not stall.
//
// The package has no state and no goroutines beyond those of net/http, which end when the idle connections are closed.
package awsclient

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/leat-io/leat/internal/record"
)

// Secret is a string that does not show itself in logs, errors or printed configurations.
type Secret string

const redacted = "***"

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// LogValue hides the secret from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the secret from encoders such as JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML hides the secret from YAML.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// Config is what a person sets about a service. It is comparable: equal Configs may share a client.
type Config struct {
	// Endpoint is the service's URL; empty means AWS in Region. Environment variables such as AWS_ENDPOINT_URL and the
	// endpoints of AWS configuration files never count: they may point at leat itself.
	Endpoint string `yaml:"endpoint"`
	// Region, empty: what the AWS environment or configuration file says, else us-east-1 when Endpoint is set.
	Region string `yaml:"region"`
	// AccessKey, SecretKey and SessionToken are static credentials. Without them the default chain of the AWS SDKs
	// finds some: environment, configuration files (Profile), web identity, container, instance.
	AccessKey    string `yaml:"access_key"`
	SecretKey    Secret `yaml:"secret_key"`
	SessionToken Secret `yaml:"session_token"`
	Profile      string `yaml:"profile"`
}

// Validate names, as an Invalid error, the first setting that cannot work. Keys are given without the place of the
// service in the configuration: callers put that in front.
func (c *Config) Validate() error {
	if err := c.validateEndpoint(); err != nil {
		return err
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		return invalid("access_key", "and secret_key must be given together or not at all").
			WithHint("without both, the credentials of the AWS environment are used")
	}
	if c.SessionToken != "" && c.AccessKey == "" {
		return invalid("session_token", "needs access_key and secret_key")
	}
	if c.Profile != "" && c.AccessKey != "" {
		return invalid("profile", "and access_key exclude one another").WithHint("remove one of them")
	}
	return nil
}

// validateEndpoint keeps the endpoint out of its messages where it may hold a password.
func (c *Config) validateEndpoint() error {
	const example = "for example https://s3.example.com:9000"
	if c.Endpoint == "" {
		return nil
	}
	u, err := url.Parse(c.Endpoint)
	switch {
	case err != nil:
		return invalid("endpoint", "is not a URL").WithHint(example)
	case u.User != nil:
		return invalid("endpoint", "has a user or password in it").WithHint("use access_key and secret_key")
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return invalid("endpoint", "%q is not an http or https URL", c.Endpoint).WithHint(example)
	case u.RawQuery != "" || u.Fragment != "":
		return invalid("endpoint", "%q has a query or fragment", c.Endpoint)
	}
	return nil
}

func invalid(key, format string, args ...any) *record.Error {
	return record.Errorf(record.Invalid, key+": "+format, args...)
}

// Identity finds region and credentials: c's own, else those of the AWS environment and configuration files, which it
// reads. It talks to nobody; the provider it returns does, through httpClient, with attempts tries per request. Errors
// are Invalid: somebody has to repair the set-up.
func (c *Config) Identity(ctx context.Context, httpClient aws.HTTPClient, attempts int) (string, aws.CredentialsProvider, error) {
	region := c.Region
	var creds aws.CredentialsProvider
	if c.AccessKey != "" {
		creds = credentials.NewStaticCredentialsProvider(c.AccessKey, string(c.SecretKey), string(c.SessionToken))
	}
	if creds == nil || (region == "" && c.Endpoint == "") {
		found, err := c.load(ctx, httpClient, attempts)
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
	if region == "" && c.Endpoint == "" {
		return "", nil, record.Errorf(record.Invalid, "region: is empty and AWS_REGION is not set").
			WithHint("set region to where the bucket or stream is, for example eu-central-1")
	}
	if region == "" {
		region = "us-east-1"
	}
	return region, creds, nil
}

// load runs the SDK's default chain. Role credentials come from STS, whose client takes endpoints from the environment
// like any other: they are taken out again.
func (c *Config) load(ctx context.Context, httpClient aws.HTTPClient, attempts int) (aws.Config, error) {
	opts := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithHTTPClient(httpClient),
		awsconfig.WithRetryMaxAttempts(attempts),
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
	if c.Region != "" {
		opts = append(opts, awsconfig.WithRegion(c.Region))
	}
	if c.Profile != "" {
		opts = append(opts, awsconfig.WithSharedConfigProfile(c.Profile))
	}
	return awsconfig.LoadDefaultConfig(ctx, opts...)
}

func withoutEndpoint(c *sts.Client) *sts.Client {
	o := c.Options()
	o.BaseEndpoint = nil
	return sts.New(o)
}
