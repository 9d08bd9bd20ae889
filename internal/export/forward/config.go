package forward

import (
	"path/filepath"
	"time"

	"github.com/leat-io/leat/internal/record"
)

// Config is how forwarding runs. Values of 0 mean the default.
type Config struct {
	// Threads is how many batches are delivered at a time on the node; streams of higher priority come first.
	Threads int `yaml:"threads"`
	// MaxBandwidth is the average of what exports send, in kilobits per second. 0 means no limit.
	MaxBandwidth int64 `yaml:"max_bandwidth"`
	// Linger is how long messages wait for more where an export has neither batch size nor interval.
	Linger time.Duration `yaml:"linger"`
	// RetryMin and RetryMax bound the back-off after a failure; each pause is drawn from its upper half.
	RetryMin time.Duration `yaml:"retry_min"`
	RetryMax time.Duration `yaml:"retry_max"`
	// Timeout is how long nothing may move in a request to a destination. A request of many bytes may take a second more for
	// each 8 KiB.
	Timeout time.Duration `yaml:"timeout"`
	// S3Directories are the directories whose files S3 tasks may upload, links that lead out of them excepted. Without
	// any, every task fails with a status that says so.
	S3Directories []string `yaml:"s3_directories"`
	// S3PartSize is the size of the parts of multipart uploads, in bytes.
	S3PartSize int64 `yaml:"s3_part_size"`
	// Destinations say where exports go other than to AWS with the credentials of the environment. The first that
	// matches counts.
	Destinations []Destination `yaml:"destinations"`
}

// MinS3PartSize is the smallest part S3 takes, in bytes (the last one of an upload excepted).
const MinS3PartSize = 5 << 20

// maxThreads keeps a slip of the pen from starting as many deliveries as there are exports.
const maxThreads = 1000

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Threads: 5, Linger: 2 * time.Second, RetryMin: time.Second, RetryMax: 5 * time.Minute, Timeout: 30 * time.Second,
		S3PartSize: MinS3PartSize,
	}
}

func (c Config) withDefaults() Config {
	d := DefaultConfig()
	orDefault(&c.Threads, d.Threads)
	orDefault(&c.Linger, d.Linger)
	orDefault(&c.RetryMin, d.RetryMin)
	orDefault(&c.RetryMax, max(d.RetryMax, c.RetryMin))
	orDefault(&c.Timeout, d.Timeout)
	orDefault(&c.S3PartSize, d.S3PartSize)
	return c
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Validate says which key cannot be, and what to write instead.
func (c Config) Validate() error {
	switch {
	case c.Threads < 0 || c.Threads > maxThreads:
		return record.Errorf(record.Invalid, "exports.threads: %d", c.Threads).
			WithHint("set it to 1..%d, or leave it out for 5", maxThreads)
	case c.MaxBandwidth < 0:
		return record.Errorf(record.Invalid, "exports.max_bandwidth: %d", c.MaxBandwidth).
			WithHint("set it to kilobits per second, or leave it out for no limit")
	case c.Linger < 0 || c.RetryMin < 0 || c.RetryMax < 0 || c.Timeout < 0:
		return record.Errorf(record.Invalid, "exports: linger, retry_min, retry_max and timeout cannot be negative").
			WithHint("leave them out for the defaults (2s, 1s, 5m, 30s)")
	case c.RetryMax > 0 && c.RetryMax < c.RetryMin:
		return record.Errorf(record.Invalid, "exports.retry_max: %v is shorter than exports.retry_min: %v", c.RetryMax, c.RetryMin).
			WithHint("set exports.retry_max to at least %v", c.RetryMin)
	case c.S3PartSize != 0 && c.S3PartSize < MinS3PartSize:
		return record.Errorf(record.Invalid, "exports.s3_part_size: %d bytes are less than S3 takes", c.S3PartSize).
			WithHint("set it to %d or more, or leave it out", MinS3PartSize)
	}
	for _, dir := range c.S3Directories {
		if !filepath.IsAbs(dir) {
			return record.Errorf(record.Invalid, "exports.s3_directories: %q is not an absolute path", dir).
				WithHint("write the whole path, for example /var/lib/app/outbox")
		}
	}
	for i := range c.Destinations {
		if err := c.Destinations[i].Validate(); err != nil {
			return record.Errorf(record.Invalid, "exports.destinations[%d].%w", i, err)
		}
	}
	return nil
}
