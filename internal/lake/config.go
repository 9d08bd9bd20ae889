package lake

import (
	"strings"

	"github.com/leat-io/leat/internal/record"
)

// Config is how files are made. The zero value of a field means its default.
type Config struct {
	// NodeID is part of every key. Empty: derived once and kept in the data directory (see LoadNode).
	NodeID string `yaml:"node_id"`
	// RowGroupBytes is the budget, in bytes, that the buffers of all open partitions share; when it is used up the
	// largest becomes a row group.
	RowGroupBytes int64 `yaml:"row_group_bytes"`
	// FileBytes is the size at which a file is closed and the partition continues in another ("-2").
	FileBytes int64 `yaml:"file_bytes"`
	// OpenFiles caps how many Parquet files one build keeps open; beyond it the one idle longest is closed and its
	// partition continues in another file.
	OpenFiles int `yaml:"open_files"`
	// Pattern is the key of a file below its table's prefix, without the suffix that makes it unique. {year}, {yy},
	// {month}, {day} are the event day, {hour} and {minute} the time of the cut.
	Pattern string `yaml:"pattern"`
	// TimeUnit is the resolution of timestamps: auto, ms, us or ns.
	TimeUnit TimeUnit `yaml:"time_unit"`
	// Provenance adds the columns _node, _seq and _received.
	Provenance bool `yaml:"provenance"`
	// Compression is the zstd level: fastest, default, better or best.
	Compression string `yaml:"compression"`
}

// DefaultPattern is the documents' layout with a four-digit year.
const DefaultPattern = "year={year}/month={month}/day={day}/{hour}{minute}_"

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		RowGroupBytes: 16 << 20,
		FileBytes:     256 << 20,
		OpenFiles:     8,
		Pattern:       DefaultPattern,
		TimeUnit:      Auto,
		Compression:   "default",
	}
}

// Validate says which key cannot be, and what to write instead.
func (c Config) Validate() error {
	if c.NodeID != "" && strings.ContainsFunc(c.NodeID, notKeyRune) {
		return record.Errorf(record.Invalid, "lake.node_id: %q", c.NodeID).
			WithHint("use letters, digits and underscores only, at most 32")
	}
	return nil
}

func notKeyRune(r rune) bool {
	return !(r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
}
