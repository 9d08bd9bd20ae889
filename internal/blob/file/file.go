// Package file keeps objects as files in a directory: the lake of a single box, a mounted disk or a network share.
//
// Store implements blob.Store. A key is a path below the directory, so every program that reads Parquet from
// directories reads the lake.
//
// # Guarantees
//
//   - When Put has returned nil, the object and every directory above it survive a power cut.
//   - A reader sees an object whole or not at all, whatever happens meanwhile.
//   - An object is never overwritten unless its Upload asks for it: a second Put of a key succeeds when the content is the same and is a Conflict
//     otherwise, also when two processes put at the same time (link(2) decides). On file systems without hard links
//     (FAT, exFAT, some shares) that last point does not hold between processes.
//   - What a crash leaves unfinished is removed by the next Open. Files that another live process is writing stay.
//
// # Algorithm
//
// Put writes to .tmp/<random>, under a lock that tells other processes that it is alive, and calls fsync. It makes the
// missing directories, calling fsync on each parent, links the file to its key, removes the temporary name and calls
// fsync on the directory. A directory counts as durable once this process has synced its parent: one that a killed
// process made may exist and yet be lost in a power cut.
//
// Store is safe for concurrent use and starts no goroutine. It does not limit the space it uses.
package file

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"sync"
	"sync/atomic"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// chunk is how many bytes are copied or compared at a time, and how often a context is looked at.
const chunk = 256 << 10

// Store is a directory of objects.
type Store struct {
	dir *vfs.Dir
	log *slog.Logger

	mu      sync.Mutex          // guards durable and excludes Delete's pruning from Put's making of directories
	durable map[string]struct{} // directories whose name in their parent this process has synced

	stats struct{ puts, putBytes, existing, conflicts, deletes atomic.Int64 }
}

var _ blob.Store = (*Store)(nil)

// Stats counts what the store did since Open.
type Stats struct {
	Puts      int64 // objects written
	PutBytes  int64 // bytes of them
	Existing  int64 // puts that found the same object there
	Conflicts int64 // puts that found another object there
	Deletes   int64 // objects deleted
}

// Stats is a snapshot of the counters.
func (s *Store) Stats() Stats {
	return Stats{
		Puts: s.stats.puts.Load(), PutBytes: s.stats.putBytes.Load(), Existing: s.stats.existing.Load(),
		Conflicts: s.stats.conflicts.Load(), Deletes: s.stats.deletes.Load(),
	}
}

// Open opens the store in dir, which the caller keeps open until after Close, and removes what a crash left unfinished.
func Open(dir *vfs.Dir, log *slog.Logger) (*Store, error) {
	s := &Store{dir: dir, log: log, durable: map[string]struct{}{".": {}}}
	if err := s.clean(); err != nil {
		return nil, s.fail("open", "", err)
	}
	return s, nil
}

// Close removes the working directory when nothing is left in it. The store is not used afterwards.
func (s *Store) Close() error {
	err := s.dir.Remove(blob.WorkDir)
	if errors.Is(err, fs.ErrNotExist) || isNotEmpty(err) {
		return nil
	}
	return err
}

// clean removes the files in the working directory that no living process writes.
func (s *Store) clean() error {
	entries, err := s.dir.ReadDir(blob.WorkDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := blob.WorkDir + "/" + e.Name()
		f, err := s.dir.Lock(name)
		if errors.Is(err, vfs.ErrLocked) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(s.dir.Remove(name), f.Close()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.log.Info("removed unfinished object", "file", name)
	}
	return nil
}

// Put stores the object durably, or finds that it is there.
func (s *Store) Put(ctx context.Context, u blob.Upload) error {
	if err := blob.ValidateKey(u.Key); err != nil {
		return err
	}
	same, err := false, fs.ErrNotExist
	if !u.Overwrite {
		same, err = s.compare(ctx, u)
	}
	if errors.Is(err, fs.ErrNotExist) {
		same, err = s.write(ctx, u)
	}
	if err != nil {
		return s.fail("put", u.Key, err)
	}
	if !same {
		s.stats.conflicts.Add(1)
		return record.Errorf(record.Conflict, "put %s: another object of that key exists in %s", u.Key, s.dir.Path()).
			WithHint("move %s away if it is not wanted", path.Join(s.dir.Path(), u.Key))
	}
	return nil
}

// compare reports whether the key holds the upload's content and, when it does, makes sure that it is durable: whoever
// wrote it may have been killed before the last fsync. The error is fs.ErrNotExist when there is no such object.
func (s *Store) compare(ctx context.Context, u blob.Upload) (same bool, err error) {
	f, err := s.dir.Open(u.Key)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := s.dir.Stat(u.Key)
	if err != nil {
		return false, err
	}
	if info.IsDir() {
		return false, errIsDir
	}
	if info.Size() != u.Size {
		return false, nil
	}
	sum := sha256.New()
	if _, err := copyChunks(ctx, sum, f); err != nil {
		return false, err
	}
	if !bytes.Equal(sum.Sum(nil), u.SHA256[:]) {
		return false, nil
	}
	if err := s.ensureDir(path.Dir(u.Key)); err != nil {
		return false, err
	}
	if err := s.dir.SyncDir(path.Dir(u.Key)); err != nil {
		return false, err
	}
	s.stats.existing.Add(1)
	return true, nil
}

// write stores the object under a key that did not exist a moment ago, or that it overwrites.
func (s *Store) write(ctx context.Context, u blob.Upload) (same bool, err error) {
	tmp, f, err := s.temp()
	if err != nil {
		return false, err
	}
	// The lock lasts until the end: nobody cleans up what is being linked.
	defer func() {
		if rerr := s.dir.Remove(tmp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		err = errors.Join(err, f.Close())
	}()
	sum := sha256.New()
	n, err := copyChunks(ctx, io.MultiWriter(f, sum), io.NewSectionReader(u.Body, 0, u.Size))
	if err != nil {
		return false, err
	}
	if n != u.Size || !bytes.Equal(sum.Sum(nil), u.SHA256[:]) {
		return false, record.Errorf(record.Corrupt, "content of %d bytes is not what its SHA-256 says", n)
	}
	if err := f.Sync(); err != nil {
		return false, err
	}
	err = s.publish(tmp, u.Key, u.Overwrite)
	if errors.Is(err, fs.ErrExist) {
		return s.compare(ctx, u)
	}
	if err != nil {
		return false, err
	}
	s.stats.puts.Add(1)
	s.stats.putBytes.Add(u.Size)
	return true, nil
}

// temp creates a locked file in the working directory.
func (s *Store) temp() (name string, f *vfs.File, err error) {
	if err := s.dir.MkdirAll(blob.WorkDir); err != nil {
		return "", nil, err
	}
	var b [12]byte
	rand.Read(b[:])
	name = blob.WorkDir + "/" + hex.EncodeToString(b[:])
	f, err = s.dir.Lock(name)
	return name, f, err
}

// publish gives the file tmp the name key, durably. Without overwrite the error is fs.ErrExist when the key has an
// object.
func (s *Store) publish(tmp, key string, overwrite bool) error {
	dir := path.Dir(key)
	for attempt := 0; ; attempt++ {
		if err := s.ensureDir(dir); err != nil {
			return err
		}
		err := s.name(tmp, key, overwrite)
		switch {
		case err == nil:
			return s.dir.SyncDir(dir)
		case errors.Is(err, fs.ErrNotExist) && attempt < 3:
			s.forgetDirs(dir) // removed meanwhile, by Delete or by somebody else
		default:
			return err
		}
	}
}

func (s *Store) name(tmp, key string, overwrite bool) error {
	if overwrite {
		if info, err := s.dir.Stat(key); err == nil && info.IsDir() {
			return errIsDir
		}
		return s.dir.Rename(tmp, key)
	}
	err := s.dir.Link(tmp, key)
	if isNoLinks(err) {
		err = s.renameNew(tmp, key)
	}
	return err
}

// renameNew is publish for file systems without hard links.
func (s *Store) renameNew(tmp, key string) error {
	if _, err := s.dir.Stat(key); err == nil {
		return fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.dir.Rename(tmp, key)
}

// Open reads an object.
func (s *Store) Open(_ context.Context, key string) (io.ReadCloser, blob.Object, error) {
	if err := blob.ValidateKey(key); err != nil {
		return nil, blob.Object{}, err
	}
	f, err := s.dir.Open(key)
	if err != nil {
		return nil, blob.Object{}, s.fail("open", key, noFile(err))
	}
	o, err := s.stat(key)
	if err != nil {
		return nil, blob.Object{}, s.fail("open", key, errors.Join(err, f.Close()))
	}
	return f, o, nil
}

// Stat describes an object.
func (s *Store) Stat(_ context.Context, key string) (blob.Object, error) {
	if err := blob.ValidateKey(key); err != nil {
		return blob.Object{}, err
	}
	o, err := s.stat(key)
	if err != nil {
		return blob.Object{}, s.fail("stat", key, err)
	}
	return o, nil
}

func (s *Store) stat(key string) (blob.Object, error) {
	info, err := s.dir.Stat(key)
	if err != nil {
		return blob.Object{}, noFile(err)
	}
	if !info.Mode().IsRegular() {
		return blob.Object{}, fs.ErrNotExist
	}
	return object(key, info), nil
}

// noFile makes of "an element of the path is a file" what it is to a reader: there is no such object.
func noFile(err error) error {
	if isNotDir(err) {
		return fs.ErrNotExist
	}
	return err
}

// object describes a file. Its ETag is size and time: files are never written to once they have a key, so another
// content means another file.
func object(key string, info fs.FileInfo) blob.Object {
	return blob.Object{
		Key: key, Size: info.Size(), Modified: info.ModTime(),
		ETag: fmt.Sprintf("%x-%x", info.ModTime().UnixNano(), info.Size()),
	}
}

// copyChunks is io.Copy that ends with the context.
func copyChunks(ctx context.Context, w io.Writer, r io.Reader) (n int64, err error) {
	buf := make([]byte, chunk)
	for {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		got, rerr := r.Read(buf)
		if got > 0 {
			if _, err := w.Write(buf[:got]); err != nil {
				return n, err
			}
			n += int64(got)
		}
		if errors.Is(rerr, io.EOF) {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}

// errIsDir is what a key finds that is the directory of others.
var errIsDir = record.Errorf(record.Conflict, "the key is a directory of other objects")

// fail gives an error of the file system its kind.
func (s *Store) fail(verb, key string, err error) error {
	at := path.Join(s.dir.Path(), key)
	if e, ok := errors.AsType[*record.Error](err); ok {
		return record.Errorf(e.Kind, "%s %s: %w", verb, at, err)
	}
	kind, hint := kindOf(err)
	out := record.Errorf(kind, "%s %s: %w", verb, at, err)
	if hint != "" {
		return out.WithHint("%s", hint)
	}
	return out
}

func kindOf(err error) (kind record.Kind, hint string) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return record.NotFound, ""
	case errors.Is(err, fs.ErrPermission), isReadOnly(err):
		return record.Denied, "give the user that leat runs as the right to write there"
	case isNotDir(err):
		return record.Conflict, "a file stands where the key needs a directory, or the other way round"
	case isNoSpace(err):
		return record.Unavailable, "the disk is full: make room, leat goes on by itself"
	case errors.Is(err, os.ErrClosed):
		return record.Internal, ""
	default:
		return record.Unavailable, ""
	}
}
