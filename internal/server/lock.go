package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// lockName is the file in the data directory that says whose it is: locked while the process lives, with its id inside.
const lockName = "lock"

// openDataDir opens the data directory, making it when it is missing, and takes its lock.
func openDataDir(path string, hook vfs.Hook) (dir *vfs.Dir, lock *vfs.File, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, fmt.Errorf("find data directory: %w", err)
	}
	dir, err = vfs.OpenDir(abs, hook)
	if err != nil {
		return nil, nil, pathError("data directory", abs, err)
	}
	lock, err = dir.Lock(lockName)
	switch {
	case errors.Is(err, vfs.ErrLocked):
		err = record.Errorf(record.Conflict, "data directory %s is in use by %s", abs, holder(dir)).
			WithHint("stop that one, or give this one a directory of its own with --data-dir")
	case err != nil:
		err = pathError("data directory", abs, err)
	default:
		err = sign(lock)
		if err == nil {
			return dir, lock, nil
		}
		err = errors.Join(pathError("data directory", abs, err), lock.Close())
	}
	return nil, nil, errors.Join(err, dir.Close())
}

// sign writes this process's id into the lock file, for the message that another process gives.
func sign(lock *vfs.File) error {
	if err := lock.Truncate(0); err != nil {
		return err
	}
	_, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func holder(dir *vfs.Dir) string {
	b, err := dir.ReadFile(lockName)
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || convErr != nil || pid <= 0 {
		return "another process"
	}
	name := "process"
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
		name = strings.TrimSpace(string(comm))
	}
	return fmt.Sprintf("%s (pid %d)", name, pid)
}

// pathError says what is wrong with a directory that leat needs, and what to do.
func pathError(what, path string, err error) error {
	e := record.Errorf(record.Unavailable, "%s %s: %w", what, path, err)
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EPERM):
		return e.WithHint("make it writable for the user that leat runs as, or choose another place")
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return e.WithHint("a file is in the way: choose another place, or move the file")
	case errors.Is(err, syscall.ENOSPC):
		return e.WithHint("the disk is full: make room, or choose a place on another disk")
	}
	return e.WithHint("see whether the path is right and its disk is there")
}
