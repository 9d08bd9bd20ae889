package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/vfs"
)

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// NewLogger makes the program's logger: to w and, when the configuration names one, to a file. Close the closer.
func NewLogger(c config.Logging, dataDir string, w io.Writer) (*slog.Logger, io.Closer, error) {
	level, err := c.SlogLevel()
	if err != nil {
		return nil, nil, fmt.Errorf("logging.level: %w", err)
	}
	handler := func(w io.Writer) slog.Handler {
		opts := &slog.HandlerOptions{Level: level}
		if c.Format == "json" {
			return slog.NewJSONHandler(w, opts)
		}
		return slog.NewTextHandler(w, opts)
	}
	if c.File == "" {
		return slog.New(handler(w)), io.NopCloser(nil), nil
	}
	path := c.File
	if !filepath.IsAbs(path) {
		path = filepath.Join(dataDir, path)
	}
	f, err := openRotating(path, c.DiskLimit)
	if err != nil {
		return nil, nil, pathError("log file", path, err)
	}
	return slog.New(slog.NewMultiHandler(handler(w), handler(f))), f, nil
}

// rotating is a log file of bounded size: when the file has half of the limit it becomes <name>.1, replacing the one
// before. A line that cannot be written is lost: there is nowhere left to report it but standard error, which has it.
type rotating struct {
	mu   sync.Mutex // guards what follows
	dir  *vfs.Dir
	name string
	half int64
	file *vfs.File
	size int64
}

func openRotating(path string, limit int64) (*rotating, error) {
	dir, err := vfs.OpenDir(filepath.Dir(path), nil)
	if err != nil {
		return nil, err
	}
	r := &rotating{dir: dir, name: filepath.Base(path), half: limit / 2}
	if err := r.open(); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return r, nil
}

func (r *rotating) open() error {
	f, err := r.dir.OpenFile(r.name, os.O_WRONLY|os.O_CREATE|os.O_APPEND)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.file, r.size = f, size
	return nil
}

// Write appends one line.
func (r *rotating) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return 0, fs.ErrClosed
	}
	if r.size > 0 && r.size+int64(len(p)) > r.half {
		if err := r.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := r.file.Write(p)
	r.size += int64(n)
	return n, err
}

func (r *rotating) rotate() error {
	err := errors.Join(r.file.Close(), r.dir.Rename(r.name, r.name+".1"))
	r.file = nil
	return errors.Join(err, r.open())
}

// Close closes the file.
func (r *rotating) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	err := errors.Join(r.file.Close(), r.dir.Close())
	r.file = nil
	return err
}
