// Package vfs is the one seam through which leat touches the disk: directories confined with os.Root, so that no name
// leads out of them, and a hook before every operation, so that tests can make any of them fail or slow.
//
// There is no in-memory file system: durability is what is tested, and only a real one has it.
package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Op is an operation on the disk, as a Hook sees it.
type Op struct {
	Kind Kind
	Name string // path below the directory that was opened first
	Size int    // bytes of a read or write
}

// Kind names a sort of operation.
type Kind string

// The operations a Hook sees.
const (
	OpOpen     Kind = "open"
	OpRead     Kind = "read"
	OpWrite    Kind = "write"
	OpSync     Kind = "sync"
	OpTruncate Kind = "truncate"
	OpRename   Kind = "rename"
	OpLink     Kind = "link"
	OpRemove   Kind = "remove"
	OpMkdir    Kind = "mkdir"
	OpReadDir  Kind = "readdir"
	OpSyncDir  Kind = "syncdir"
)

// Hook runs before each operation. An error it returns becomes the operation's result and the operation is not done;
// a *ShortWrite makes a write stop early. Hooks are called from many goroutines.
type Hook func(Op) error

// ShortWrite is a Hook's way to let N bytes of a write through before it fails with Err.
type ShortWrite struct {
	N   int
	Err error
}

func (s *ShortWrite) Error() string { return fmt.Sprintf("short write of %d bytes: %v", s.N, s.Err) }

func (s *ShortWrite) Unwrap() error { return s.Err }

// ErrLocked is what Lock returns when another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// Dir is an open directory. It is safe for concurrent use. Names are slash-separated and relative.
type Dir struct {
	root *os.Root
	path string // absolute or as given to OpenDir, for messages and for handing to other processes
	rel  string // path below the first directory opened, for hooks
	hook Hook
}

// OpenDir opens path, creating it and its parents (mode 0o700), durably, when missing. hook may be nil.
func OpenDir(path string, hook Hook) (*Dir, error) {
	if err := makeDurably(path); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &Dir{root: root, path: path, hook: hook}, nil
}

// makeDurably creates a directory and its parents and syncs what holds them: what is synced inside a directory whose own
// name is not durable is gone with it after a power cut.
func makeDurably(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	up := filepath.Dir(path)
	if up != path {
		if err := makeDurably(up); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.Open(up)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Sub opens the directory name below d, creating it, durably, when missing. It must be closed on its own.
func (d *Dir) Sub(name string) (*Dir, error) {
	if _, err := d.root.Stat(name); errors.Is(err, fs.ErrNotExist) {
		if err := d.MkdirAll(name); err != nil {
			return nil, err
		}
		for up := name; up != "."; up = parent(up) {
			if err := d.SyncDir(parent(up)); err != nil {
				return nil, err
			}
		}
	}
	root, err := d.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	return &Dir{root: root, path: filepath.Join(d.path, name), rel: d.at(name), hook: d.hook}, nil
}

// Path is where the directory lies, for messages and other processes.
func (d *Dir) Path() string { return d.path }

// Close releases the directory. Files opened from it stay open.
func (d *Dir) Close() error { return d.root.Close() }

func (d *Dir) at(name string) string {
	if d.rel == "" {
		return name
	}
	return d.rel + "/" + name
}

func (d *Dir) before(kind Kind, name string, size int) error {
	if d.hook == nil {
		return nil
	}
	if err := d.hook(Op{Kind: kind, Name: d.at(name), Size: size}); err != nil {
		return &fs.PathError{Op: string(kind), Path: filepath.Join(d.path, name), Err: err}
	}
	return nil
}

// Open opens name for reading.
func (d *Dir) Open(name string) (*File, error) { return d.OpenFile(name, os.O_RDONLY) }

// Create creates name, which must not exist, for reading and writing.
func (d *Dir) Create(name string) (*File, error) {
	return d.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

// OpenFile opens name with the flags of os.OpenFile; new files have mode 0o600.
func (d *Dir) OpenFile(name string, flag int) (*File, error) {
	if err := d.before(OpOpen, name, 0); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return &File{f: f, dir: d, name: name}, nil
}

// MkdirAll creates the directory name and its parents (mode 0o700).
func (d *Dir) MkdirAll(name string) error {
	if err := d.before(OpMkdir, name, 0); err != nil {
		return err
	}
	return d.root.MkdirAll(name, 0o700)
}

// Rename moves oldname to newname, replacing it.
func (d *Dir) Rename(oldname, newname string) error {
	if err := d.before(OpRename, oldname, 0); err != nil {
		return err
	}
	return d.root.Rename(oldname, newname)
}

// Link makes newname another name of the file oldname.
func (d *Dir) Link(oldname, newname string) error {
	if err := d.before(OpLink, oldname, 0); err != nil {
		return err
	}
	return d.root.Link(oldname, newname)
}

// Remove removes the file or empty directory name.
func (d *Dir) Remove(name string) error {
	if err := d.before(OpRemove, name, 0); err != nil {
		return err
	}
	return d.root.Remove(name)
}

// RemoveAll removes name and everything below it; a missing one is no error.
func (d *Dir) RemoveAll(name string) error {
	if err := d.before(OpRemove, name, 0); err != nil {
		return err
	}
	return d.root.RemoveAll(name)
}

// ReadDir lists the directory name ("." for d itself), sorted by name.
func (d *Dir) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := d.before(OpReadDir, name, 0); err != nil {
		return nil, err
	}
	return fs.ReadDir(d.root.FS(), name)
}

// Stat describes the file name.
func (d *Dir) Stat(name string) (fs.FileInfo, error) { return d.root.Stat(name) }

// ReadFile reads the whole file name.
func (d *Dir) ReadFile(name string) ([]byte, error) {
	if err := d.before(OpRead, name, 0); err != nil {
		return nil, err
	}
	return d.root.ReadFile(name)
}

// WriteFile replaces name by data so that after a crash it holds either the old content or the new: temporary file,
// fsync, rename, fsync of the directory.
func (d *Dir) WriteFile(name string, data []byte) (err error) {
	tmp := name + ".tmp"
	f, err := d.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = d.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, d.discard(tmp))
	}
	return d.SyncDir(parent(name))
}

func (d *Dir) discard(name string) error {
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func parent(name string) string {
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		return name[:i]
	}
	return "."
}

// SyncDir makes the names in the directory name durable ("." for d itself).
func (d *Dir) SyncDir(name string) error {
	if err := d.before(OpSyncDir, name, 0); err != nil {
		return err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Space is the room on the disk that holds a directory, in bytes.
type Space struct {
	Total int64
	Free  int64 // available to this process's user
}

// File is an open file. Reads and writes at a position are safe for concurrent use.
type File struct {
	f    *os.File
	dir  *Dir
	name string
}

// Name is the file's name below its directory.
func (f *File) Name() string { return f.name }

// Read reads from the current position.
func (f *File) Read(p []byte) (int, error) {
	if err := f.dir.before(OpRead, f.name, len(p)); err != nil {
		return 0, err
	}
	return f.f.Read(p)
}

// ReadAt reads at off.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if err := f.dir.before(OpRead, f.name, len(p)); err != nil {
		return 0, err
	}
	return f.f.ReadAt(p, off)
}

// Seek moves the current position.
func (f *File) Seek(offset int64, whence int) (int64, error) { return f.f.Seek(offset, whence) }

// Write writes at the current position.
func (f *File) Write(p []byte) (int, error) {
	return f.write(p, func(p []byte) (int, error) { return f.f.Write(p) })
}

// WriteAt writes at off.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	return f.write(p, func(p []byte) (int, error) { return f.f.WriteAt(p, off) })
}

func (f *File) write(p []byte, do func([]byte) (int, error)) (int, error) {
	if err := f.dir.before(OpWrite, f.name, len(p)); err != nil {
		if s, ok := errors.AsType[*ShortWrite](err); ok {
			n, werr := do(p[:min(s.N, len(p))])
			return n, errors.Join(werr, err)
		}
		return 0, err
	}
	return do(p)
}

// Sync makes content and metadata durable (fsync).
func (f *File) Sync() error {
	if err := f.dir.before(OpSync, f.name, 0); err != nil {
		return err
	}
	return f.f.Sync()
}

// SyncData makes content durable, and of the metadata what is needed to read it back (fdatasync).
func (f *File) SyncData() error {
	if err := f.dir.before(OpSync, f.name, 0); err != nil {
		return err
	}
	return syncData(f.f)
}

// Truncate sets the file's length.
func (f *File) Truncate(size int64) error {
	if err := f.dir.before(OpTruncate, f.name, 0); err != nil {
		return err
	}
	return f.f.Truncate(size)
}

// Size is the file's length in bytes.
func (f *File) Size() (int64, error) {
	st, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }
