package query_test

import (
	"strings"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/query"
	"github.com/leat-io/leat/internal/record"
)

func TestConfigValidateNamesTheKey(t *testing.T) {
	def := query.DefaultConfig()
	if err := def.Validate(); err != nil {
		t.Fatal(err)
	}
	for key, change := range map[string]func(*query.Config){
		"sql.workers":        func(c *query.Config) { c.Workers = 0 },
		"sql.queue":          func(c *query.Config) { c.Queue = -1 },
		"sql.timeout":        func(c *query.Config) { c.Timeout = time.Microsecond },
		"sql.memory_bytes":   func(c *query.Config) { c.MemoryBytes = 1 },
		"sql.headroom_bytes": func(c *query.Config) { c.HeadroomBytes = 1 },
		"sql.spill_bytes":    func(c *query.Config) { c.SpillBytes = -1 },
		"sql.result_bytes":   func(c *query.Config) { c.ResultBytes = 0 },
		"sql.max_rows":       func(c *query.Config) { c.MaxRows = -1 },
		"sql.threads":        func(c *query.Config) { c.Threads = 0 },
		"sql.cache_bytes":    func(c *query.Config) { c.CacheBytes = 0 },
		"sql.fetches":        func(c *query.Config) { c.Fetches = 0 },
		"sql.tail_chunk":     func(c *query.Config) { c.TailChunk = 0 },
		"sql.tail_records":   func(c *query.Config) { c.TailRecords = -1 },
	} {
		c := query.DefaultConfig()
		change(&c)
		err := c.Validate()
		if record.KindOf(err) != record.Invalid || !strings.Contains(err.Error(), key) || record.HintOf(err) == "" {
			t.Errorf("%s: %v", key, err)
		}
	}
}
