package streammanager

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-io/leat/internal/export/forward"
	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// enginePrefix is what the names of this door's streams begin with in the engines.
const enginePrefix = "sm/"

// EngineName is what the engines call the stream that clients call name.
func EngineName(name string) record.StreamName { return record.StreamName(enginePrefix + name) }

// ClientName is what clients call the stream of the engines; ok is false when it is of another door.
func ClientName(n record.StreamName) (name string, ok bool) {
	return strings.CutPrefix(string(n), enginePrefix)
}

// Exports runs the exports of streams; *forward.Supervisor is one.
type Exports interface {
	// Set starts an export, or gives a running one its new settings. The cursor of a new one is durable when Set returns,
	// so that a stream that gives space back once exported keeps what the export still wants.
	Set(ctx context.Context, spec forward.Spec) error
	// Remove ends an export, tells its target of what will not be delivered, and deletes its cursor. An unknown one is
	// no error.
	Remove(ctx context.Context, id record.StreamID, identifier, why string) error
	// Status lists the exports of a stream, in any order.
	Status(id record.StreamID) []forward.Status
}

// Targets makes the destinations of exports.
type Targets interface {
	// New makes the target of export e of a stream. The error says, as Invalid, what of the export cannot be. What the
	// target reports goes to status, Manager.AppendStatus; it may be called as soon as the export is set, so before Open
	// has returned.
	New(streamName string, kind wire.ExportKind, e *wire.ExportConfig, status Status) (forward.Target, error)
}

// Status appends a status message to a stream; see Manager.AppendStatus.
type Status = func(ctx context.Context, streamName string, payload []byte) error

// Options are what Open needs. All but Now are required.
type Options struct {
	Disk    stream.Engine // for persistence File
	Memory  stream.Engine // for persistence Memory
	Meta    *meta.DB      // definitions
	Exports Exports
	Targets Targets
	Log     *slog.Logger
	Now     func() time.Time // time of ingest; nil means time.Now
	// ReclaimExported are patterns (* and ?) of the names of streams whose messages are dropped once all exports have
	// delivered them. A stream without exports keeps everything, and a disabled export holds what it has not delivered.
	ReclaimExported []string
	// Linger is how long messages wait for more where an export has neither batch size nor interval.
	Linger time.Duration

	// step is called before each durable step of an operation; tests crash there.
	step func(name string)
}

// Manager is what a client of the Stream Manager talks to: streams with definitions, and their exports. Its methods are
// safe for concurrent use and fail with a *wire.Error or a record.Error, see wire.StatusOf. It starts no goroutine; the
// engines, the metadata and the exports are their owners' to close, after the Manager.
type Manager struct {
	opt Options

	// admin holds one token: who changes definitions has it. A channel, so that waiting for it ends with the context.
	admin chan struct{}
	half  map[string]*managed // streams whose deletion has begun and failed; guarded by admin

	mu      sync.RWMutex        // guards streams and closed
	streams map[string]*managed // by the clients' name; those being deleted are not here
	closed  bool

	statusMu sync.Mutex          // guards unheard
	unheard  map[string]struct{} // status streams whose absence was logged
	dropped  atomic.Uint64       // status messages for them
}

var _ Service = (*Manager)(nil)

// managed is a stream.
type managed struct {
	name   string // as clients call it
	id     record.StreamID
	engine stream.Engine
	def    atomic.Pointer[wire.MessageStreamDefinition] // resolved; what it points to is never changed

	messages, bytes atomic.Uint64 // acknowledged since the process started
}

// Create makes a stream. A name that exists is InvalidRequest, whatever its definition, with "already exists" in the
// text: programs look for that.
func (m *Manager) Create(ctx context.Context, d *wire.MessageStreamDefinition) error {
	if d == nil {
		return record.Errorf(record.Invalid, "create a stream: the definition is missing")
	}
	if err := d.Validate(); err != nil {
		return err
	}
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.leave()
	if _, err := m.find(d.Name); err == nil {
		return record.Errorf(record.Conflict, "stream %q already exists", d.Name).
			WithHint("update it, or delete it first")
	}
	if err := m.finishDelete(ctx, d.Name); err != nil {
		return err
	}
	return m.create(ctx, d.Resolve())
}

// Update replaces a stream's definition. Exports are matched by identifier: those that stay keep their place.
func (m *Manager) Update(ctx context.Context, d *wire.MessageStreamDefinition) error {
	if d == nil {
		return record.Errorf(record.Invalid, "update a stream: the definition is missing")
	}
	if err := d.Validate(); err != nil {
		return err
	}
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.leave()
	s, err := m.find(d.Name)
	if err != nil {
		return err
	}
	return m.update(ctx, s, d.Resolve())
}

// Delete removes a stream with all that it holds and its exports. An append that races with it is acknowledged before the
// data goes, or refused with ResourceNotFound.
func (m *Manager) Delete(ctx context.Context, name string) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.leave()
	s, err := m.find(name)
	if err != nil {
		if m.half[name] == nil {
			return err
		}
		return m.finishDelete(ctx, name)
	}
	return m.remove(ctx, s)
}

// List returns the names of all streams, sorted.
func (m *Manager) List() []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	names := make([]string, 0, len(m.streams))
	for name := range m.streams {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Describe tells a stream's definition with its effective values, its extent and where its exports stand.
func (m *Manager) Describe(name string) (*wire.MessageStreamInfo, error) {
	s, err := m.find(name)
	if err != nil {
		return nil, err
	}
	b, err := s.engine.Bounds(s.id)
	if err != nil {
		return nil, s.failed("describe", err)
	}
	def := s.def.Load()
	info := &wire.MessageStreamInfo{
		Definition: def,
		// One that never held anything has 0, -1; one that was emptied next, next-1: newest-oldest+1 is the count.
		StorageStatus: wire.StorageStatus{
			OldestSequenceNumber: int64(b.First), NewestSequenceNumber: int64(b.Next) - 1, TotalBytes: b.Bytes,
		},
	}
	if b.First == b.Next {
		info.StorageStatus.TotalBytes = 0 // an upper bound, see stream.Bounds
	}
	info.ExportStatuses = exportStatuses(def, m.opt.Exports.Status(s.id))
	return info, nil
}

// Stat is what a stream has taken in since the process started.
type Stat struct {
	Name            string
	Messages, Bytes uint64
}

// Stats lists what each stream has taken in, sorted by name.
func (m *Manager) Stats() []Stat {
	m.mu.RLock()
	defer m.mu.RUnlock()
	stats := make([]Stat, 0, len(m.streams))
	for _, s := range m.streams {
		stats = append(stats, Stat{s.name, s.messages.Load(), s.bytes.Load()})
	}
	slices.SortFunc(stats, func(a, b Stat) int { return strings.Compare(a.Name, b.Name) })
	return stats
}

// Close lets nothing in any more. It does not wait: what runs ends with its context or its engine. It is idempotent.
func (m *Manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// find returns the stream that clients call name.
func (m *Manager) find(name string) (*managed, error) {
	m.mu.RLock()
	s, closed := m.streams[name], m.closed
	m.mu.RUnlock()
	switch {
	case closed:
		return nil, record.Errorf(record.Unavailable, "the server is shutting down")
	case s == nil:
		return nil, notFound(name)
	}
	return s, nil
}

func notFound(name string) error {
	return record.Errorf(record.NotFound, "stream %.300q does not exist", name).WithHint("create it first")
}

// failed says what was being done with the stream when an engine failed.
func (s *managed) failed(what string, err error) error {
	if record.KindOf(err) == record.NotFound {
		return notFound(s.name) // deleted meanwhile; clients do not know the engine's id
	}
	return record.Errorf(record.KindOf(err), "%s stream %q: %w", what, s.name, err)
}

func (m *Manager) enter(ctx context.Context) error {
	select {
	case m.admin <- struct{}{}:
		return nil
	case <-ctx.Done():
		return record.Errorf(record.Unavailable, "wait for other changes of streams: %w", ctx.Err())
	}
}

func (m *Manager) leave() { <-m.admin }

func (m *Manager) publish(s *managed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.streams[s.name] = s
}

func (m *Manager) hide(s *managed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.streams, s.name)
}
