package forward

import (
	"slices"
	"strings"

	"github.com/leat-io/leat/internal/awsclient"
	"github.com/leat-io/leat/internal/record"
)

// The kinds of targets, as Spec.Kind and Destination.Kind have them.
const (
	KindKinesis      = "kinesis"
	KindHTTP         = "http"
	KindSiteWise     = "sitewise"
	KindIoTAnalytics = "iotanalytics"
	KindS3           = "s3"
)

// Destination says where the exports that it matches go, instead of AWS with the credentials of the environment.
// Exports of kind http go to the address in their own definition, whatever matches.
type Destination struct {
	// Stream, Export and Kind are patterns (* and ?) for the stream's name, the export's identifier and its kind, which
	// is kinesis, sitewise, iotanalytics or s3. Empty matches all.
	Stream string `yaml:"stream"`
	Export string `yaml:"export"`
	Kind   string `yaml:"kind"`

	// Config has endpoint, region and credentials. An endpoint is used as it is: "data." is not put before its host.
	awsclient.Config `yaml:",inline"`

	// PathStyle puts the bucket into the path instead of the host name. Nil: yes when Endpoint is set.
	PathStyle *bool `yaml:"path_style"`
	// Aggregate packs messages into records of the Kinesis Producer Library's format: fewer records, for consumers that
	// take them apart again, as the Kinesis Client Library does.
	Aggregate bool `yaml:"aggregate"`
}

// Validate names, as an Invalid error, the first setting that cannot work. Keys are given without the place of the
// destination in the configuration: callers put that in front.
func (d *Destination) Validate() error {
	kinds := []string{KindKinesis, KindSiteWise, KindIoTAnalytics, KindS3}
	if !slices.ContainsFunc(kinds, d.forKind) {
		err := record.Errorf(record.Invalid, "kind: %q matches none that has a destination", d.Kind)
		if d.forKind(KindHTTP) {
			return err.WithHint("exports of kind http go to the uri of their own definition: remove this destination")
		}
		return err.WithHint("use one of %s, or a pattern", strings.Join(kinds, ", "))
	}
	if d.Aggregate && !d.forKind(KindKinesis) {
		return record.Errorf(record.Invalid, "aggregate: has no meaning for kind %q", d.Kind).WithHint("remove it, or set kind to kinesis")
	}
	if d.PathStyle != nil && !d.forKind(KindS3) {
		return record.Errorf(record.Invalid, "path_style: has no meaning for kind %q", d.Kind).WithHint("remove it, or set kind to s3")
	}
	return d.Config.Validate()
}

func (d *Destination) forKind(kind string) bool { return matches(d.Kind, kind) }

// Destination is the first of the configuration's that matches an export, or the zero Destination: AWS with the
// credentials of the environment.
func (c Config) Destination(streamName, export, kind string) Destination {
	for _, d := range c.Destinations {
		if matches(d.Stream, streamName) && matches(d.Export, export) && d.forKind(kind) {
			return d
		}
	}
	return Destination{}
}

// matches reports whether s fits a pattern, in which * is any text and ? any one byte; an empty pattern fits all. It
// takes time in proportion to both lengths: a failed match only ever goes back to the last *.
func matches(pattern, s string) bool {
	if pattern == "" {
		return true
	}
	p, i, star, from := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
