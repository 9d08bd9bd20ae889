package query

import (
	"time"

	"github.com/leat-io/leat/internal/record"
)

// Config is the `sql` section.
type Config struct {
	// Binary is the path of leat-sql; empty: beside the running program, then in PATH.
	Binary string `yaml:"binary"`
	// Workers is how many queries run at the same time; Queue how many more wait before others are refused.
	Workers int `yaml:"workers"`
	Queue   int `yaml:"queue"`
	// Timeout is how long a query may run, waiting for its turn not counted.
	Timeout time.Duration `yaml:"timeout"`
	// MemoryBytes is the memory the SQL engine plans with; the kernel grants its process HeadroomBytes more.
	MemoryBytes   int64 `yaml:"memory_bytes"`
	HeadroomBytes int64 `yaml:"headroom_bytes"`
	// SpillBytes is how much of intermediate results a query may put on disk; 0 forbids it.
	SpillBytes int64 `yaml:"spill_bytes"`
	// ResultBytes is the largest answer.
	ResultBytes int64 `yaml:"result_bytes"`
	// MaxRows is the most rows of an answer; the rest is cut off, and the answer says so. 0 means no limit.
	MaxRows int64 `yaml:"max_rows"`
	// Threads is how many threads a query computes with.
	Threads int `yaml:"threads"`
	// CacheBytes is how much of a remote lake is kept on this disk.
	CacheBytes int64 `yaml:"cache_bytes"`
	// Fetches is how many objects of a remote lake a query fetches at the same time.
	Fetches int `yaml:"fetches"`
	// TailChunk is the grid, in records, on which rows still in a stream are encoded; TailRecords how many of them a
	// query sees per stream. Those beyond appear once they are exported, and the answer says so.
	TailChunk   int64 `yaml:"tail_chunk"`
	TailRecords int64 `yaml:"tail_records"`
	// Unconfined lets queries run where the kernel cannot confine them: then SQL can read what leat can.
	Unconfined bool `yaml:"unconfined"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Workers:       2,
		Queue:         16,
		Timeout:       time.Minute,
		MemoryBytes:   512 << 20,
		HeadroomBytes: 384 << 20,
		SpillBytes:    2 << 30,
		ResultBytes:   4 << 30,
		Threads:       2,
		CacheBytes:    1 << 30,
		Fetches:       4,
		TailChunk:     32 << 10,
		TailRecords:   4 << 20,
	}
}

// Validate says which key cannot be, and what to write instead.
func (c *Config) Validate() error {
	for _, k := range []struct {
		key    string
		value  int64
		lowest int64
	}{
		{"workers", int64(c.Workers), 1},
		{"queue", int64(c.Queue), 0},
		{"timeout", int64(c.Timeout), int64(time.Millisecond)},
		{"memory_bytes", c.MemoryBytes, 64 << 20},
		{"headroom_bytes", c.HeadroomBytes, 64 << 20},
		{"spill_bytes", c.SpillBytes, 0},
		{"result_bytes", c.ResultBytes, 1 << 10},
		{"max_rows", c.MaxRows, 0},
		{"threads", int64(c.Threads), 1},
		{"cache_bytes", c.CacheBytes, 1 << 20},
		{"fetches", int64(c.Fetches), 1},
		{"tail_chunk", c.TailChunk, 1},
		{"tail_records", c.TailRecords, 0},
	} {
		if k.value < k.lowest {
			shown, lowest := any(k.value), any(k.lowest)
			if k.key == "timeout" {
				shown, lowest = c.Timeout, time.Millisecond
			}
			return record.Errorf(record.Invalid, "sql.%s: %v", k.key, shown).WithHint("use at least %v", lowest)
		}
	}
	return nil
}
