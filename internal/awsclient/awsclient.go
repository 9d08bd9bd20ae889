// Package awsclient finds region and credentials for clients of AWS-compatible services and makes their connections.
package awsclient

// Secret is a string that does not show itself in logs, errors or printed configurations.
type Secret string

// Config is what a person sets about a service.
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
