package server

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/vfs"
)

// Queries link a lake that lies below the data directory, and read any other through the cache: a link that leads out
// of the data directory cannot be followed from there.
func TestWhereTheLakeLies(t *testing.T) {
	elsewhere := t.TempDir()
	for name, c := range map[string]struct {
		dir, link string // store.dir; where the data directory's entry "lake" leads
		want      string
	}{
		"below the data directory":         {"lake", "", "lake"},
		"deeper":                           {"a/lake", "", "a/lake"},
		"elsewhere":                        {elsewhere, "", ""},
		"elsewhere, by a symbolic link":    {"lake", elsewhere, ""},
		"below it, but by a symbolic link": {"lake", "real", "real"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "data")
			data, err := vfs.OpenDir(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer data.Close()
			if err := data.MkdirAll("real"); err != nil {
				t.Fatal(err)
			}
			if c.link != "" {
				if err := os.Symlink(c.link, filepath.Join(path, "lake")); err != nil {
					t.Fatal(err)
				}
			}
			s := &Server{cfg: config.Default(), data: data, log: slog.New(slog.DiscardHandler)}
			s.cfg.Store.Dir = c.dir
			_, got, err := s.openStore(t.Context())
			if err != nil || got != c.want {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
