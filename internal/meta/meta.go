// Package meta keeps facts that are no records and refer to no offsets, in one bbolt file.
package meta

import (
	"log/slog"
	"time"

	"go.etcd.io/bbolt"

	"github.com/leat-io/leat/internal/vfs"
)

// DB is the open file.
type DB struct {
	b *bbolt.DB
}

// Options are the settings of Open.
type Options struct {
	Log         *slog.Logger
	LockTimeout time.Duration // how long to wait for another process that has the file open; default 2 s
}

// Open opens meta.db in dir, creating it when missing.
func Open(dir *vfs.Dir, opt Options) (*DB, error) { return &DB{}, nil }

// Close closes the file. It is idempotent.
func (d *DB) Close() error { return nil }
