package file

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/leat-io/leat/internal/blob"
)

// maxDurable bounds the memory of durable directories; when it is reached they are forgotten and synced anew.
const maxDurable = 10_000

// lostFound is a directory that ext4 puts at the root of a disk and only root can read.
const lostFound = "lost+found"

// ensureDir makes a directory and its parents, each durable in its own parent.
func (s *Store) ensureDir(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.durable[dir]; ok {
		return nil
	}
	if len(s.durable) >= maxDurable {
		s.durable = map[string]struct{}{".": {}}
	}
	for i := 0; i <= len(dir); i++ {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		level := dir[:i]
		if _, ok := s.durable[level]; ok {
			continue
		}
		if err := s.dir.MkdirAll(level); err != nil {
			return err
		}
		if err := s.dir.SyncDir(path.Dir(level)); err != nil {
			return err
		}
		s.durable[level] = struct{}{}
	}
	return nil
}

// forgetDirs makes the next ensureDir look at a directory and its parents again.
func (s *Store) forgetDirs(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; dir != "."; dir = path.Dir(dir) {
		delete(s.durable, dir)
	}
}

// Delete removes an object, and the directories above it that are empty then.
func (s *Store) Delete(_ context.Context, key string) error {
	if err := blob.ValidateKey(key); err != nil {
		return err
	}
	if _, err := s.stat(key); errors.Is(err, fs.ErrNotExist) {
		return nil // a directory is no object either
	}
	err := s.dir.Remove(key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return s.fail("delete", key, err)
	}
	s.stats.deletes.Add(1)
	dir, err := s.prune(path.Dir(key))
	if err == nil {
		err = s.dir.SyncDir(dir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.fail("delete", key, err)
	}
	return nil
}

// prune removes dir and its parents as far as they are empty and returns the first that stays.
func (s *Store) prune(dir string) (stays string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; dir != "."; dir = path.Dir(dir) {
		err := s.dir.Remove(dir)
		switch {
		case isNotEmpty(err):
			return dir, nil
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return dir, err
		}
		delete(s.durable, dir)
	}
	return dir, nil
}

// List yields the objects whose keys start with prefix, in key order. Files that come or go meanwhile may be missed or
// seen; what is neither a regular file nor a directory is not an object.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		err := s.walk(ctx, "", prefix, func(o blob.Object) bool { return yield(o, nil) })
		if err != nil && !errors.Is(err, errStop) {
			yield(blob.Object{}, s.fail("list", prefix, err))
		}
	}
}

// errStop ends a walk whose consumer wants no more.
var errStop = errors.New("stop")

// walk visits the objects below the directory at ("" or ending in a slash) in key order.
func (s *Store) walk(ctx context.Context, at, prefix string, visit func(blob.Object) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := s.dir.ReadDir(path.Clean(at))
	if errors.Is(err, fs.ErrNotExist) && at != "" {
		return nil // pruned meanwhile
	}
	if err != nil {
		return err
	}
	for _, e := range inKeyOrder(entries) {
		key := at + e.Name()
		switch {
		case at == "" && (e.Name() == blob.WorkDir || e.Name() == lostFound):
		case e.IsDir():
			if below := key + "/"; strings.HasPrefix(below, prefix) || strings.HasPrefix(prefix, below) {
				if err := s.walk(ctx, below, prefix, visit); err != nil {
					return err
				}
			}
		case e.Type().IsRegular() && strings.HasPrefix(key, prefix):
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			if !visit(object(key, info)) {
				return errStop
			}
		}
	}
	return nil
}

// inKeyOrder sorts a directory's entries as their keys sort: a directory's keys continue with a slash, so "a.b" comes
// before "a/b" although "a" comes before "a.b".
func inKeyOrder(entries []fs.DirEntry) []fs.DirEntry {
	name := func(e fs.DirEntry) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(name(a), name(b)) })
	return entries
}
