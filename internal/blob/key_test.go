package blob_test

import (
	"path"
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/record"
)

func TestValidateKey(t *testing.T) {
	good := []string{
		"a", "samples/year=2026/month=11/day=21/0100_n-1-0-9.parquet", "a b+c/ü=ß", "..a/b..", ".hidden/x",
		strings.Repeat("a", blob.MaxKeyElement), "a/" + blob.WorkDir,
	}
	for _, key := range good {
		if err := blob.ValidateKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	bad := map[string]string{
		"empty": "", "leading slash": "/a", "trailing slash": "a/", "empty element": "a//b", "dot": "a/./b",
		"dot dot": "a/../b", "only dots": "..", "zero byte": "a\x00b", "newline": "a\nb", "backslash": `a\b`,
		"not utf-8": "a\xff", "reserved": blob.WorkDir + "/x", "long": strings.Repeat("ab/", 400) + "x",
		"long element": strings.Repeat("a", blob.MaxKeyElement+1),
	}
	for name, key := range bad {
		if err := blob.ValidateKey(key); record.KindOf(err) != record.Invalid || err == nil {
			t.Errorf("%s: %q accepted, or of the wrong kind: %v", name, key, err)
		}
	}
}

// A key that passes stays below the directory it is joined to, and is one name for one object.
func FuzzValidateKey(f *testing.F) {
	for _, s := range []string{"a/b", "../a", "a/..", "a//b", "/", ".", "a/./b", "ü", "a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if blob.ValidateKey(key) != nil {
			return
		}
		if path.Clean(key) != key || strings.HasPrefix(key, "/") || strings.HasPrefix(key, "../") || key == ".." {
			t.Fatalf("key %q accepted but is not a clean relative path", key)
		}
	})
}
