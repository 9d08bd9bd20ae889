package forward

import "github.com/leat-io/leat/internal/awsclient"

// Destination says where the exports that it matches go, instead of AWS with the credentials of the environment.
type Destination struct {
	// Stream, Export and Kind are patterns (* and ?) for the stream's name, the export's identifier and its kind. Empty
	// matches all.
	Stream string `yaml:"stream"`
	Export string `yaml:"export"`
	Kind   string `yaml:"kind"`

	awsclient.Config `yaml:",inline"`

	// PathStyle puts the bucket into the path instead of the host name. Nil: yes when Endpoint is set.
	PathStyle *bool `yaml:"path_style"`
	// Aggregate packs messages into records of the Kinesis Producer Library's format.
	Aggregate bool `yaml:"aggregate"`
}
