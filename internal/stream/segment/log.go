package segment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/vfs"
)

// Options are what Open needs. Dir, Clock and Logger are required; zero values of the rest mean the defaults.
type Options struct {
	Dir    *vfs.Dir
	Clock  clock.Clock
	Logger *slog.Logger

	SegmentBytes     int64         // size at which a segment is sealed; default 64 MiB, at most 1 GiB and an eighth of MaxBytes
	SyncInterval     time.Duration // longest time until data of level OS is synced; default 100 ms
	MaintainInterval time.Duration // how often retention by age and cleaning run; default 1 s
	QueueBytes       int64         // bytes of appends waiting for their commit, per lane; default 8 MiB
	MaxBytes         int64         // of all segments and indexes; 0 = no limit
	MinFree          int64         // bytes of the disk to leave free; 0 = no limit
	OpenFiles        int           // segments kept open for reading, per lane; default 12
}

func (o *Options) setDefaults() error {
	setDefault(&o.SegmentBytes, 64<<20)
	setDefault(&o.SyncInterval, 100*time.Millisecond)
	setDefault(&o.MaintainInterval, time.Second)
	setDefault(&o.QueueBytes, 8<<20)
	setDefault(&o.OpenFiles, 12)
	if o.MaxBytes > 0 {
		o.SegmentBytes = min(o.SegmentBytes, max(o.MaxBytes/8, 64<<10)) // only sealed segments give space back
	}
	if o.SegmentBytes > maxSegmentBytes {
		return record.Errorf(record.Invalid, "segment size of %d bytes: at most 1 GiB", o.SegmentBytes)
	}
	if o.Dir == nil || o.Clock == nil || o.Logger == nil {
		return errors.New("segment.Open: Dir, Clock and Logger are required")
	}
	return nil
}

func setDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Log is the engine. It implements stream.Engine and is safe for concurrent use.
type Log struct {
	opts  Options
	id    uint64
	lock  *vfs.File
	lanes [2]*lane

	mu     sync.RWMutex // guards byID, byName and space; taken after a lane's mutex
	byID   map[record.StreamID]*streamState
	byName map[record.StreamName]*streamState
	space  vfs.Space

	names sync.Mutex // held until a commit has ended, even when nobody waits for it, so that lanes agree on names

	failOnce  sync.Once
	failed    chan struct{}
	failure   error // set before failed is closed
	closeOnce sync.Once
	closeErr  error
}

var _ stream.Engine = (*Log)(nil)

// Open opens the log in opts.Dir, creating it when the directory is empty. Its cost does not depend on how much is
// stored. Close it.
func Open(opts Options) (*Log, error) {
	if err := opts.setDefaults(); err != nil {
		return nil, err
	}
	lock, err := opts.Dir.Lock("lock")
	if err != nil {
		if errors.Is(err, vfs.ErrLocked) {
			return nil, record.Errorf(record.Conflict, "log directory %s: %w", opts.Dir.Path(), err).
				WithHint("stop the other leat, or use another --data-dir")
		}
		return nil, fmt.Errorf("open log: %w", err)
	}
	l := &Log{
		opts: opts, lock: lock, id: newID(), failed: make(chan struct{}),
		byID: map[record.StreamID]*streamState{}, byName: map[record.StreamName]*streamState{},
	}
	for kind, name := range laneNames {
		if l.lanes[kind], err = l.openLane(stream.Lane(kind), name); err != nil {
			return nil, errors.Join(fmt.Errorf("open log: %w", err), l.abandon())
		}
	}
	// A name that went from one lane to the other was registered in the order of the lanes, not of events.
	for _, s := range l.byID {
		l.byName[s.name] = s
	}
	l.measureSpace()
	for _, la := range l.lanes {
		la.idle.Go(la.maintain)
	}
	return l, nil
}

// laneNames are the directories of the lanes.
var laneNames = [2]string{stream.Short: "short", stream.Long: "long"}

func (l *Log) openLane(kind stream.Lane, name string) (*lane, error) {
	dir, err := l.opts.Dir.Sub(name)
	if err != nil {
		return nil, err
	}
	if err := l.opts.Dir.SyncDir("."); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	la := &lane{
		log: l, kind: kind, dir: dir, logger: l.opts.Logger.With("lane", name),
		space:    semaphore.NewWeighted(l.opts.QueueBytes),
		streams:  map[record.StreamID]*streamState{},
		segments: map[uint64]*segmentState{},
		files:    newFileCache(dir, l.opts.OpenFiles),
		wakeup:   make(chan struct{}, 1),
		finished: make(chan struct{}),
		quit:     make(chan struct{}),
		reported: map[damageKey]struct{}{},
	}
	la.indexes = newIndexCache(la)
	if err := la.recover(); err != nil {
		return nil, errors.Join(err, la.discard())
	}
	go la.run() // stop waits for it
	return la, nil
}

// discard releases the files of a lane that did not open.
func (l *lane) discard() error {
	var errs []error
	if l.file != nil {
		errs = append(errs, l.file.Close())
	}
	if l.floor != nil {
		errs = append(errs, l.floor.close())
	}
	l.files.close()
	return errors.Join(append(errs, l.dir.Close())...)
}

// abandon undoes a failed Open.
func (l *Log) abandon() error {
	var errs []error
	for _, la := range l.lanes {
		if la != nil {
			la.stop()
			errs = append(errs, la.dir.Close())
		}
	}
	return errors.Join(append(errs, l.lock.Close())...)
}

// Close implements stream.Engine: what was admitted is made durable and acknowledged first.
func (l *Log) Close() error {
	l.closeOnce.Do(func() { l.closeErr = l.abandon() })
	return l.closeErr
}

// Failed is closed when an fdatasync has failed: what is durable is not known any more, and the process must end and
// start again. Err tells why.
func (l *Log) Failed() <-chan struct{} { return l.failed }

// Err is why the log has failed, or nil.
func (l *Log) Err() error {
	select {
	case <-l.failed:
		return l.failure
	default:
		return nil
	}
}

func (l *Log) fail(err error) {
	l.failOnce.Do(func() {
		l.failure = err
		close(l.failed)
		l.opts.Logger.Error("the log has failed; nothing is acknowledged any more", "error", err)
	})
}

func (l *Log) register(s *streamState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byID[s.id] = s
	l.byName[s.name] = s
}

func (l *Log) unregister(s *streamState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byID, s.id)
	if l.byName[s.name] == s {
		delete(l.byName, s.name)
	}
}

func (l *Log) stream(id record.StreamID) (*streamState, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if s := l.byID[id]; s != nil {
		return s, nil
	}
	return nil, notFound(id)
}

func notFound(id record.StreamID) error {
	return record.Errorf(record.NotFound, "stream with id %s does not exist", id)
}

// Append implements stream.Appender.
func (l *Log) Append(ctx context.Context, id record.StreamID, records []record.Record, done func(record.Offset, error)) {
	s, err := l.stream(id)
	var sum batchSize
	if err == nil {
		sum, err = measure(records, l.opts.QueueBytes)
	}
	if err == nil && s.lane.space.Acquire(ctx, sum.weight) != nil {
		err = record.Errorf(record.Unavailable, "append to %s: not admitted: %w", s.name, ctx.Err())
	}
	if err != nil {
		done(0, err)
		return
	}
	s.lane.append(s, records, sum, done)
}

// Bounds implements stream.Reader.
func (l *Log) Bounds(id record.StreamID) (stream.Bounds, error) {
	s, err := l.stream(id)
	if err != nil {
		return stream.Bounds{}, err
	}
	s.lane.mu.Lock()
	defer s.lane.mu.Unlock()
	return s.bounds(), nil
}

// Lookup implements stream.Admin.
func (l *Log) Lookup(name record.StreamName) (stream.Info, error) {
	l.mu.RLock()
	s := l.byName[name]
	l.mu.RUnlock()
	if s == nil {
		return stream.Info{}, record.Errorf(record.NotFound, "stream %s does not exist", name)
	}
	s.lane.mu.Lock()
	defer s.lane.mu.Unlock()
	return s.info(), nil
}

// List implements stream.Admin.
func (l *Log) List(prefix string) []stream.Info {
	var infos []stream.Info
	for _, la := range l.lanes {
		la.mu.Lock()
		for _, s := range la.streams {
			if strings.HasPrefix(string(s.name), prefix) {
				infos = append(infos, s.info())
			}
		}
		la.mu.Unlock()
	}
	slices.SortFunc(infos, func(a, b stream.Info) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return infos
}

// roomFor says why the node has no room for so many more bytes, or nil.
func (l *Log) roomFor(bytes int64) error {
	if l.overBudget()+bytes > 0 && l.opts.MaxBytes > 0 {
		return record.Errorf(record.Full, "the log holds its limit of %d bytes", l.opts.MaxBytes).
			WithHint("raise the disk budget, or let exports catch up")
	}
	l.mu.RLock()
	free := l.space.Free
	l.mu.RUnlock()
	if l.opts.MinFree > 0 && free-bytes < l.opts.MinFree {
		return record.Errorf(record.Full, "only %d bytes are free on the disk of %s: %d are kept free", free, l.opts.Dir.Path(), l.opts.MinFree).
			WithHint("free space on the disk, or lower the limit")
	}
	return nil
}

// overBudget is by how many bytes the log exceeds its budget; negative is room.
func (l *Log) overBudget() int64 {
	if l.opts.MaxBytes == 0 {
		return -1 << 62
	}
	return l.lanes[0].physical.Load() + l.lanes[1].physical.Load() - l.opts.MaxBytes
}

// measureSpace asks the disk how much is free; admission uses the answer until the next time.
func (l *Log) measureSpace() {
	space, err := l.opts.Dir.Space()
	if err != nil {
		l.opts.Logger.Warn("free space not known", "error", err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.space = space
}
