package lake

import (
	"cmp"
	"slices"
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
		Compression:   "better",
	}
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	d := DefaultConfig()
	c.RowGroupBytes = cmp.Or(c.RowGroupBytes, d.RowGroupBytes)
	c.FileBytes = cmp.Or(c.FileBytes, d.FileBytes)
	c.OpenFiles = cmp.Or(c.OpenFiles, d.OpenFiles)
	c.Pattern = cmp.Or(c.Pattern, d.Pattern)
	c.Compression = cmp.Or(c.Compression, d.Compression)
	return c
}

// MemoryCeiling is the most heap, in bytes, that one build of a table of so many columns takes at its peak, whatever it
// encodes, beyond what its decoder needs: see the package comment for what it is made of.
func (c Config) MemoryCeiling(columns int) int64 {
	return 6*c.withDefaults().RowGroupBytes + 48<<20 + int64(columns)*(48<<10)
}

// Validate says which key cannot be, and what to write instead.
func (c Config) Validate() error {
	c = c.withDefaults()
	bad := func(key string, value any, hint string) error {
		return record.Errorf(record.Invalid, "lake.%s: %v", key, value).WithHint("%s", hint)
	}
	switch {
	case len(c.NodeID) > 32 || strings.ContainsFunc(c.NodeID, notKeyRune):
		return bad("node_id", c.NodeID, "use letters, digits and underscores only, at most 32")
	case c.RowGroupBytes < 1<<20 || c.RowGroupBytes > 1<<30:
		return bad("row_group_bytes", c.RowGroupBytes, "use 1048576 (1 MiB) to 1073741824 (1 GiB)")
	case c.FileBytes < 1<<20:
		return bad("file_bytes", c.FileBytes, "use at least 1048576 (1 MiB)")
	case c.OpenFiles < 1 || c.OpenFiles > 1000:
		return bad("open_files", c.OpenFiles, "use 1 to 1000")
	case c.TimeUnit > Nano:
		return bad("time_unit", c.TimeUnit, "use auto, ms, us or ns")
	case !slices.Contains([]string{"fastest", "default", "better", "best"}, c.Compression):
		return bad("compression", c.Compression, "use fastest, default, better or best")
	}
	return validatePattern(c.Pattern)
}

func notKeyRune(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}
