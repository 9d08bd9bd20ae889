package export

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// Spool is the directory of encoded batches that wait for the store:
//
//	<stream id>/<from>-<to>/…   the files of one step, of which step.json names and checks all others
//	quarantine/…                what was found damaged, or belongs to no stream
//
// A directory that no step in a cursor names is what a crash left, and is removed; one whose stream is not in the log
// any more may be all that is left of it, and is set aside.
type Spool struct {
	dir  *vfs.Dir
	slog *slog.Logger

	mu    sync.Mutex // guards sizes and total
	sizes map[string]int64
	total int64
}

const quarantine = "quarantine"

// OpenSpool opens the spool in dir, which stays the caller's, and sums up what it holds.
func OpenSpool(dir *vfs.Dir, sl *slog.Logger) (*Spool, error) {
	s := &Spool{dir: dir, slog: sl, sizes: make(map[string]int64)}
	entries, err := dir.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	for _, e := range entries {
		if err := s.countAll(e.Name()); err != nil {
			return nil, fmt.Errorf("read spool: %w", err)
		}
	}
	return s, nil
}

// countAll counts the entries of a top directory, which are the units that come and go.
func (s *Spool) countAll(top string) error {
	entries, err := s.dir.ReadDir(top)
	if err != nil { // a stray file, set aside by Sweep
		return nil
	}
	for _, e := range entries {
		if err := s.count(top + "/" + e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// Bytes is what the spool holds, without batches that are being encoded: part of the node's disk budget.
func (s *Spool) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// count takes the present size of name into the sum.
func (s *Spool) count(name string) error {
	n, err := s.size(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total += n - s.sizes[name]
	if s.sizes[name] = n; n == 0 {
		delete(s.sizes, name)
	}
	return nil
}

// Sweep sets the directories of streams that are not in known aside. Call it once, before the exports run.
func (s *Spool) Sweep(known []record.StreamID) error {
	entries, err := s.dir.ReadDir(".")
	if err != nil {
		return fmt.Errorf("sweep spool: %w", err)
	}
	for _, e := range entries {
		if e.Name() == quarantine {
			continue
		}
		id, err := strconv.ParseUint(e.Name(), 16, 64)
		if err == nil && slices.Contains(known, record.StreamID(id)) {
			continue
		}
		empty, err := s.isEmpty(e)
		if err != nil {
			return fmt.Errorf("sweep spool: %w", err)
		}
		if empty {
			err = s.dir.Remove(e.Name())
		} else {
			var to string
			to, err = s.setAside(e.Name())
			s.slog.Error("spool of a stream that the log does not know set aside", "name", e.Name(), "to", to,
				"hint", "its Parquet files were not uploaded; copy them into the lake by hand if they are missed")
		}
		if err != nil {
			return fmt.Errorf("sweep spool: %w", err)
		}
	}
	return nil
}

func (s *Spool) isEmpty(e fs.DirEntry) (bool, error) {
	if !e.IsDir() {
		return false, nil
	}
	inside, err := s.dir.ReadDir(e.Name())
	return len(inside) == 0, err
}

// setAside moves a file or directory below quarantine and returns where it is now.
func (s *Spool) setAside(name string) (string, error) {
	if err := s.dir.MkdirAll(quarantine); err != nil {
		return "", err
	}
	base := quarantine + "/" + strings.ReplaceAll(name, "/", "_")
	to := base
	for n := 2; ; n++ {
		if _, err := s.dir.Stat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = base + "." + strconv.Itoa(n)
	}
	if err := s.dir.Rename(name, to); err != nil {
		return "", err
	}
	if err := s.dir.SyncDir(quarantine); err != nil {
		return to, err
	}
	return to, errors.Join(s.count(to), s.recount(name))
}

// recount counts the units that name is, holds or lies in.
func (s *Spool) recount(name string) error {
	s.mu.Lock()
	units := slices.Collect(maps.Keys(s.sizes))
	s.mu.Unlock()
	for _, u := range units {
		if u == name || strings.HasPrefix(u, name+"/") || strings.HasPrefix(name, u+"/") {
			if err := s.count(u); err != nil {
				return err
			}
		}
	}
	return nil
}

// stepDir is the directory of a step.
func stepDir(id record.StreamID, s Step) string {
	return fmt.Sprintf("%s/%d-%d", id, s.From, s.To)
}

// keep removes all directories of the stream but those named.
func (s *Spool) keep(id record.StreamID, names []string) error {
	parent := id.String()
	entries, err := s.dir.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := parent + "/" + e.Name()
		if slices.Contains(names, name) {
			continue
		}
		if err := s.remove(name); err != nil {
			return err
		}
		s.slog.Info("leftover of an interrupted export removed", "name", name)
	}
	return nil
}

// create makes an empty directory for a step.
func (s *Spool) create(name string) (*vfs.Dir, error) {
	if err := s.remove(name); err != nil {
		return nil, err
	}
	return s.dir.Sub(name)
}

// added counts and makes durable the directory name and the files in it; the files themselves are synced already.
func (s *Spool) added(name string) error {
	for d := name; ; d = path.Dir(d) {
		if err := s.dir.SyncDir(d); err != nil {
			return err
		}
		if d == "." {
			break
		}
	}
	return s.count(name)
}

// remove removes a step's directory; a missing one is no error.
func (s *Spool) remove(name string) error {
	if err := s.dir.RemoveAll(name); err != nil {
		return err
	}
	return s.count(name)
}

// size sums up the files below name.
func (s *Spool) size(name string) (int64, error) {
	info, err := s.dir.Stat(name)
	if err != nil {
		return 0, err
	}
	if !info.IsDir() {
		return info.Size(), nil
	}
	entries, err := s.dir.ReadDir(name)
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for _, e := range entries {
		n, err := s.size(path.Join(name, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}
