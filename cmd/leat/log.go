package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/leat-io/leat/internal/vfs"
)

type logCmd struct {
	Inspect logInspectCmd `cmd:"" help:"Show what the log holds: lanes, segments, streams, cursors."`
	Verify  logVerifyCmd  `cmd:"" help:"Read every byte and check it; change nothing."`
	Repair  logRepairCmd  `cmd:"" help:"Cut torn tails, set damage aside and rebuild indexes now instead of at the next start."`
}

// logDir is the log of a data directory, opened without the program that owns it.
type logDir struct {
	DataDir string `help:"Data directory." default:"./leat-data" env:"LEAT_DATA_DIR" type:"path" placeholder:"DIR"`
}

// open opens the log's directory. With alone it also takes the data directory's lock, so that no leat starts meanwhile.
func (l logDir) open(alone bool) (dir *vfs.Dir, done func() error, err error) {
	if _, err := os.Stat(filepath.Join(l.DataDir, "log")); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, record.Errorf(record.NotFound, "%s holds no log", l.DataDir).
			WithHint("name the data directory of a leat with --data-dir")
	}
	data, err := vfs.OpenDir(l.DataDir, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("open data directory: %w", err)
	}
	closers := []func() error{data.Close}
	done = func() error {
		var errs []error
		for i := len(closers) - 1; i >= 0; i-- {
			errs = append(errs, closers[i]())
		}
		return errors.Join(errs...)
	}
	if alone {
		lock, err := data.Lock("lock")
		if errors.Is(err, vfs.ErrLocked) {
			err = record.Errorf(record.Conflict, "a leat runs on %s", l.DataDir).WithHint("stop it first")
		}
		if err != nil {
			return nil, nil, errors.Join(err, done())
		}
		closers = append(closers, lock.Close)
	}
	dir, err = data.Sub("log")
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	closers = append(closers, dir.Close)
	return dir, done, nil
}

type logInspectCmd struct {
	logDir
	Frames bool `help:"Every frame, too."`
}

// Run prints what the log holds.
func (c logInspectCmd) Run(t terminal) (err error) {
	dir, done, err := c.open(false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	return segment.Inspect(dir, t.out, c.Frames)
}

type logVerifyCmd struct {
	logDir
}

// Run reads everything and reports; damage is an error, so that scripts see it.
func (c logVerifyCmd) Run(t terminal) (err error) {
	dir, done, err := c.open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	r, err := segment.Verify(dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(t.out, "%s, %s, %s, %s\n", plural(int64(r.Segments), "segment"), config.FormatSize(r.Bytes),
		plural(int64(r.Frames), "frame"), plural(r.Records, "record"))
	if r.Tail > 0 {
		fmt.Fprintf(t.out, "tail: %s behind the last whole frame; the next start cuts them off and says so\n", plural(r.Tail, "byte"))
	}
	for _, name := range r.Indexes {
		fmt.Fprintf(t.out, "index: %s; it is rebuilt when it is needed\n", name)
	}
	for _, d := range r.Damaged {
		fmt.Fprintf(t.out, "damaged: %s\n", d)
	}
	if len(r.Damaged) > 0 {
		return record.Errorf(record.Corrupt, "%s damaged", plural(int64(len(r.Damaged)), "range")).
			WithHint("leat starts all the same: it sets them aside and reads what follows; leat log repair does so now")
	}
	return nil
}

type logRepairCmd struct {
	logDir
}

// Run repairs; what it does is told in log lines on standard error.
func (c logRepairCmd) Run(_ context.Context, t terminal) (err error) {
	dir, done, err := c.open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := segment.Repair(dir, slog.New(slog.NewTextHandler(t.err, nil))); err != nil {
		return err
	}
	_, err = fmt.Fprintln(t.out, "done: what reads can be read; what does not lies in the quarantine directory of its lane")
	return err
}
