package s3_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/blob/blobtest"
	"github.com/leat-io/leat/internal/blob/s3"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

// TestMain is also the process that TestProcessKilledInTheMiddle kills.
func TestMain(m *testing.M) {
	if env := os.Getenv(childEnv); env != "" {
		if err := child(env); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// partSize is the smallest that S3 allows.
const partSize = 5 << 20

// settings are those for a gateway, with timeouts that tests can wait for.
func settings(g *blobtest.Gateway) s3.Config {
	c := s3.DefaultConfig()
	c.Endpoint, c.Region, c.Bucket = g.Endpoint, g.Region, g.Bucket
	c.AccessKey, c.SecretKey = g.AccessKey, s3.Secret(g.SecretKey)
	c.PartSize, c.ConnectTimeout, c.StallTimeout, c.Attempts = partSize, 2*time.Second, 10*time.Second, 1
	return c
}

// logBuffer keeps what was logged.
type logBuffer struct{ testenv.Output }

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func open(t testing.TB, c s3.Config, state *vfs.Dir) *s3.Store {
	t.Helper()
	return openLogged(t, c, state, slog.New(slog.DiscardHandler))
}

func openLogged(t testing.TB, c s3.Config, state *vfs.Dir, log *slog.Logger) *s3.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), s3.Options{Config: c, State: state, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func stateDir(t testing.TB) *vfs.Dir {
	t.Helper()
	dir, err := vfs.OpenDir(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// Each store of the suite is a prefix of its own in one bucket, which covers prefixes too.
func TestConformance(t *testing.T) {
	g := blobtest.StartGateway(t)
	for _, checksums := range []s3.Checksums{s3.ChecksumsWhenRequired, s3.ChecksumsWhenSupported} {
		t.Run(string(checksums), func(t *testing.T) {
			n := 0
			blobtest.Run(t, func(t *testing.T) blob.Store {
				n++
				c := settings(g)
				c.Checksums = checksums
				c.Prefix = string(checksums) + "/" + string(rune('a'+n)) + " =+/"
				return open(t, c, stateDir(t))
			}, blobtest.Sizes{Large: partSize + 1, Many: 1_203}) // S3 lists a thousand at a time
		})
	}
}
