package forward

import (
	"testing"
	"time"

	"github.com/leat-io/leat/internal/record"
)

func TestConfigSaysWhatCannotBe(t *testing.T) {
	for name, c := range map[string]Config{
		"negative threads":        {Threads: -1},
		"too many threads":        {Threads: maxThreads + 1},
		"negative bandwidth":      {MaxBandwidth: -1},
		"negative linger":         {Linger: -1},
		"negative retry":          {RetryMin: -1},
		"negative timeout":        {Timeout: -1},
		"retries the wrong way":   {RetryMin: time.Minute, RetryMax: time.Second},
		"parts below S3's":        {S3PartSize: MinS3PartSize - 1},
		"a directory, relative":   {S3Directories: []string{"/data", "outbox"}},
		"a directory, left empty": {S3Directories: []string{""}},
	} {
		if err := c.Validate(); record.KindOf(err) != record.Invalid || record.HintOf(err) == "" {
			t.Errorf("%s: %v (hint %q)", name, err, record.HintOf(err))
		}
	}
	for name, c := range map[string]Config{"zero": {}, "default": DefaultConfig(), "directories": {S3Directories: []string{"/data"}}} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c := (Config{RetryMin: time.Hour}).withDefaults(); c.RetryMax != time.Hour {
		t.Errorf("retry_max %v", c.RetryMax)
	}
}

func TestBackoffGrowsWithinItsBoundsAndDiffers(t *testing.T) {
	b := backoff{low: time.Second, high: 5 * time.Minute}
	want, seen := time.Second, map[time.Duration]bool{}
	for range 30 {
		d := b.next()
		if d < want/2 || d > want {
			t.Errorf("pause %v, want %v to %v", d, want/2, want)
		}
		seen[d] = true
		want = min(2*want, b.high)
	}
	if len(seen) < 20 {
		t.Errorf("only %d different pauses", len(seen))
	}
	b.reset()
	if d := b.next(); d > time.Second {
		t.Errorf("after a success: %v", d)
	}
}
