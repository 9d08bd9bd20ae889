package export

import (
	"time"

	"github.com/leat-io/leat/internal/record"
)

// Config is how exports run. Durations and sizes of 0 mean the default.
type Config struct {
	// TargetBytes is how much of the log, in bytes, a step takes while an earlier one still waits for the store: a long
	// outage makes few larger files. It grows with the number of steps that wait (see target).
	TargetBytes int64 `yaml:"target_bytes"`
	// MaxStepBytes is the most log a step takes. A backlog of that size is cut without waiting for the period's end.
	MaxStepBytes int64 `yaml:"max_step_bytes"`
	// MaxSpoolBytes stops cutting while the spool of the node holds more: then the log fills instead, and each stream's
	// policy for "full" decides. 0 means no limit.
	MaxSpoolBytes int64 `yaml:"max_spool_bytes"`
	// RetryMin and RetryMax bound the back-off after a failure; each pause is drawn from its upper half.
	RetryMin time.Duration `yaml:"retry_min"`
	RetryMax time.Duration `yaml:"retry_max"`
	// ClockWait is how long cuts wait for a clock that can be believed.
	ClockWait time.Duration `yaml:"clock_wait"`
	// Poll is how often the backlog is looked at between the instants of the period grid.
	Poll time.Duration `yaml:"poll"`
	// Encodes and Uploads are how many of each run at the same time on the node.
	Encodes int `yaml:"encodes"`
	Uploads int `yaml:"uploads"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		TargetBytes:  32 << 20,
		MaxStepBytes: 1 << 30,
		RetryMin:     time.Second,
		RetryMax:     5 * time.Minute,
		ClockWait:    10 * time.Minute,
		Poll:         time.Second,
		Encodes:      1,
		Uploads:      4,
	}
}

func (c Config) withDefaults() Config {
	d := DefaultConfig()
	fill(&c.TargetBytes, d.TargetBytes)
	fill(&c.MaxStepBytes, d.MaxStepBytes)
	fill(&c.RetryMin, d.RetryMin)
	fill(&c.RetryMax, max(d.RetryMax, c.RetryMin))
	fill(&c.ClockWait, d.ClockWait)
	fill(&c.Poll, d.Poll)
	fill(&c.Encodes, d.Encodes)
	fill(&c.Uploads, d.Uploads)
	return c
}

func fill[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Validate says which key cannot be, and what to write instead.
func (c Config) Validate() error {
	switch {
	case c.TargetBytes < 0 || c.MaxStepBytes < 0 || c.MaxSpoolBytes < 0:
		return record.Errorf(record.Invalid, "export: target_bytes, max_step_bytes and max_spool_bytes cannot be negative").
			WithHint("leave them out for the defaults (32 MiB, 1 GiB, no limit)")
	case c.RetryMin < 0 || c.RetryMax < 0 || c.ClockWait < 0 || c.Poll < 0:
		return record.Errorf(record.Invalid, "export: retry_min, retry_max, clock_wait and poll cannot be negative").
			WithHint("leave them out for the defaults (1s, 5m, 10m, 1s)")
	case c.RetryMax > 0 && c.RetryMax < c.RetryMin:
		return record.Errorf(record.Invalid, "export.retry_max: %v is shorter than export.retry_min: %v", c.RetryMax, c.RetryMin).
			WithHint("set export.retry_max to at least %v", c.RetryMin)
	case c.Encodes < 0 || c.Uploads < 0:
		return record.Errorf(record.Invalid, "export: encodes and uploads cannot be negative").
			WithHint("leave them out for the defaults (1 and 4)")
	}
	return nil
}
