package server

import (
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// budget is how the room on the disk is divided.
//
// The parts are fixed shares of one total, because each owner can hold its own limit without asking the others. The
// spool gets most: during an outage of the store it holds what the log held, encoded, at a fraction of the size.
type budget struct {
	Total   int64 // bytes that the log, the spool and the caches may hold together
	MinFree int64 // bytes of the disk that stay free: the log rejects below it, whoever took the room
	Log     int64
	Spool   int64
	Cache   int64
}

// The shares of the total, in hundredths; what is left is slack for files that are being replaced.
const (
	logShare   = 40
	spoolShare = 45
	cacheShare = 10
	leastFree  = 1 << 30 // with a tenth of the disk, whichever is more: what the defaults leave free
	leastTotal = 64 << 20
)

// newBudget divides what c gives, or what the disk has.
func newBudget(c config.Disk, dir *vfs.Dir) (budget, error) {
	space, err := dir.Space()
	if err != nil {
		return budget{}, fmt.Errorf("measure disk: %w", err)
	}
	used, err := usage(dir.Path(), "log", "spool", "cache")
	if err != nil {
		return budget{}, fmt.Errorf("measure data directory: %w", err)
	}
	b := divide(c, space, used)
	if c.Budget == 0 && b.Total < leastTotal {
		if used > 0 { // it ran before: what is stored must be able to leave, and can be asked for
			b.Total = leastTotal
			b.share()
			return b, nil
		}
		return budget{}, record.Errorf(record.Full, "%s has %s free: too little to leave %s free and work in the rest",
			dir.Path(), config.FormatSize(space.Free), config.FormatSize(b.MinFree)).
			WithHint("make room (at least %s beyond disk.min_free), choose another --data-dir, or set disk.budget", config.FormatSize(leastTotal))
	}
	return b, nil
}

func divide(c config.Disk, space vfs.Space, used int64) budget {
	b := budget{Total: c.Budget, MinFree: c.MinFree}
	if b.MinFree == 0 {
		b.MinFree = max(leastFree, space.Total/10)
		if c.Budget > 0 {
			// Whoever names a budget has thought about the disk; the guard is only against its being full.
			b.MinFree = min(b.MinFree, 64<<20)
		}
	}
	if b.Total == 0 {
		b.Total = used + space.Free - b.MinFree
	}
	b.share()
	return b
}

func (b *budget) share() {
	b.Log, b.Spool, b.Cache = b.Total/100*logShare, b.Total/100*spoolShare, b.Total/100*cacheShare
}

// usage sums the sizes of files below some subdirectories of root.
func usage(root string, subs ...string) (int64, error) {
	var sum int64
	for _, sub := range subs {
		err := filepath.WalkDir(filepath.Join(root, sub), func(_ string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return ignoreMissing(err)
			}
			info, err := e.Info()
			if err != nil {
				return ignoreMissing(err)
			}
			sum += info.Size()
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return sum, nil
}
