// Package server is the only place that knows every concrete type: it opens the parts of a node in order, wires them,
// runs them, and stops them in reverse.
//
// Open does everything that can fail for reasons a person must hear of (the data directory is taken or cannot be
// written, the store's settings are wrong, a port is in use) before anything runs. Run then blocks until its context
// ends or a part fails; Close gives everything back.
//
// # Order
//
// The stream engine opens first and closes last; behind it the catalog, the spool and the store; then the exports run,
// then leat's own interface answers, and last the doors open. They are the first to close, so that what they took is
// appended, and what was appended is synced, before the log closes. A stop does not wait for exports: what is not
// exported lies in the log, durable, and goes on after the next start.
//
// # Failure
//
// When an fdatasync fails, the log refuses everything from then on; Run ends with that error, so that the process ends
// and a restart finds out what is durable. A store that is away is no failure: it shows as degraded.
//
// # Goroutines
//
// All are started by lifecycle.Run in Run and have ended when it returns.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/auth"
	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/export"
	"github.com/leat-io/leat/internal/export/forward"
	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/lifecycle"
	"github.com/leat-io/leat/internal/listen"
	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/mqtt"
	"github.com/leat-io/leat/internal/query"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/memory"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/leat-io/leat/internal/streammanager"
	"github.com/leat-io/leat/internal/vfs"
)

// Options are what Open needs.
type Options struct {
	Config  config.Config
	Version string
	Log     *slog.Logger
	Hook    vfs.Hook // before each operation on the data directory: faults in tests; else nil
}

// Server is one node.
type Server struct {
	cfg     config.Config
	version string
	log     *slog.Logger
	hook    vfs.Hook
	started time.Time
	ready   atomic.Bool
	rebuild bool // the catalog may lack what the store has
	full    rejections

	unrestored atomic.Pointer[error] // why the catalog is not rebuilt yet

	data    *vfs.Dir
	node    string
	budget  budget
	clock   *clock.System
	streams *segment.Log
	rules   *meta.DB // the ingest rules of the last start, see retired.go
	catalog *lake.Catalog
	spool   *export.Spool
	store   blob.Store
	lakeDir string         // of a store that is a directory on this node; "" = none
	memory  *memory.Engine // streams that their owners declared worthless after a restart
	all     stream.Joined  // both engines as one
	forward *forward.Supervisor
	targets targets
	manager *streammanager.Manager
	door    *streammanager.Server // nil when off
	exports *export.Supervisor
	feeds   []feed
	router  *ingest.Router
	broker  *mqtt.Broker // nil when only external sources are configured
	sources []*mqtt.Source
	queries *query.Engine
	socket  net.Listener
	http    net.Listener // nil when off
	metrics *collector

	closers []func() error // of what is open, in the order of opening
}

// Open opens the node. The caller must Close it.
func Open(ctx context.Context, o Options) (s *Server, err error) {
	s = &Server{cfg: o.Config, version: o.Version, log: o.Log, hook: o.Hook, started: time.Now(), clock: clock.NewSystem()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
			s = nil
		}
	}()
	for _, step := range []func(context.Context) error{
		s.openData, s.openLog, s.openLake, s.openIngest, s.openExports, s.openStreamManager, s.openQueries, s.openDoors,
	} {
		if err := step(ctx); err != nil {
			return s, err
		}
	}
	s.metrics = newCollector(s)
	return s, nil
}

func (s *Server) closeLater(f func() error) { s.closers = append(s.closers, f) }

// Close gives everything back, in reverse order of opening. It is idempotent.
func (s *Server) Close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

func (s *Server) openData(context.Context) error {
	data, lock, err := openDataDir(s.cfg.DataDir, s.hook)
	if err != nil {
		return err
	}
	s.data = data
	s.closeLater(func() error { return errors.Join(lock.Close(), data.Close()) })
	if err := query.Clear(data); err != nil { // it is nobody's any more, and must not make the budget smaller
		return err
	}
	if s.budget, err = newBudget(s.cfg.Disk, data); err != nil {
		return err
	}
	s.node, err = lake.LoadNode(data, s.cfg.Lake.NodeID, lake.ReadMachine(), s.log)
	if err != nil {
		return fmt.Errorf("load node id: %w", err)
	}
	s.cfg.Lake.NodeID = s.node
	return nil
}

func (s *Server) openLog(context.Context) error {
	dir, err := s.sub("log")
	if err != nil {
		return err
	}
	c := s.cfg.Log
	// A limit is kept by dropping or cleaning whole segments: several must fit.
	c.SegmentBytes = min(c.SegmentBytes, max(s.budget.Log/8, 1<<20))
	s.streams, err = segment.Open(segment.Options{
		Dir: dir, Clock: s.clock, Logger: s.log.With("part", "log"), SegmentBytes: c.SegmentBytes, SyncInterval: c.SyncInterval,
		MaintainInterval: c.MaintainInterval, QueueBytes: c.QueueBytes, MaxBytes: s.budget.Log, MinFree: s.budget.MinFree,
	})
	if err != nil {
		return fmt.Errorf("open log in %s: %w", dir.Path(), err)
	}
	s.closeLater(s.streams.Close)
	return nil
}

// sub opens a directory below the data directory, to be closed with the server.
func (s *Server) sub(name string) (*vfs.Dir, error) {
	dir, err := s.data.Sub(name)
	if err != nil {
		return nil, pathError("directory", filepath.Join(s.data.Path(), name), err)
	}
	s.closeLater(dir.Close)
	return dir, nil
}

func (s *Server) openLake(ctx context.Context) error {
	db, err := meta.Open(s.data, meta.Options{Log: s.log.With("part", "meta")})
	if err != nil {
		return err
	}
	s.closeLater(db.Close)
	s.catalog = lake.NewCatalog(db, s.log.With("part", "lake"))
	s.rules = db
	if db.Damage() != nil { // what still read of it was kept: that may look complete
		if err := s.catalog.SetComplete(false); err != nil {
			return err
		}
	}
	complete, err := s.catalog.Complete()
	if err != nil {
		return err
	}
	s.rebuild = !complete
	dir, err := s.sub("spool")
	if err != nil {
		return err
	}
	if s.spool, err = export.OpenSpool(dir, s.log.With("part", "spool")); err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	s.store, s.lakeDir, err = s.openStore(ctx)
	return err
}

func (s *Server) openIngest(ctx context.Context) error {
	var err error
	s.router, err = ingest.Open(ctx, s.cfg.Ingest, ingest.Options{
		Appender: s.streams, Admin: s.streams, Log: s.log.With("part", "ingest"), Sources: s.watchedSources(),
	})
	if err != nil {
		return err
	}
	s.closeLater(s.router.Close)
	return nil
}

// watchedSources are those whose silence is worth a warning: an external one from the start, the embedded broker once
// something has come, since it may well have no clients.
func (s *Server) watchedSources() []ingest.Source {
	var list []ingest.Source
	if s.cfg.HasBroker() {
		list = append(list, ingest.Source{Name: ingest.BrokerSource, Timeout: s.cfg.Ingest.MQTTTimeout})
	}
	for _, c := range s.cfg.MQTT.Sources {
		list = append(list, ingest.Source{Name: c.Name, Timeout: c.Timeout, Expected: true})
	}
	return list
}

func (s *Server) openQueries(context.Context) error {
	var err error
	cfg := s.cfg.SQL
	cfg.CacheBytes = min(cfg.CacheBytes, s.budget.Cache)
	s.queries, err = query.Open(query.Options{
		Config: cfg, Data: s.data, Spool: "spool", Lake: s.lakeDir, Store: s.store, Catalog: s.catalog,
		Pattern: s.cfg.Lake.Pattern, Tail: (*tail)(s), MinFree: s.budget.MinFree,
		Log: s.log.With("part", "query"),
	})
	if err != nil {
		return fmt.Errorf("prepare queries: %w", err)
	}
	s.closeLater(s.queries.Close)
	return nil
}

// openDoors binds every address and checks every external source: the last that can fail.
func (s *Server) openDoors(ctx context.Context) error {
	who, err := auth.Open(s.cfg.Auth)
	if err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	if s.cfg.HTTP.Listen != "" {
		if s.http, err = listen.TCP(ctx, s.cfg.HTTP.Listen, "http.listen", "--http-listen"); err != nil {
			return err
		}
		s.closeLater(func() error { return ignoreClosed(s.http.Close()) })
	}
	if s.socket, err = api.ListenSocket(s.data.Path()); err != nil {
		return err
	}
	s.closeLater(func() error { return ignoreClosed(s.socket.Close()) })
	if s.cfg.StreamManager.Listen != "" {
		if s.door, err = streammanager.OpenServer(ctx, s.cfg.StreamManager, s.manager, s.log.With("part", "streammanager")); err != nil {
			return err
		}
		s.closeLater(s.door.Close)
	}
	if s.cfg.HasBroker() {
		if s.broker, err = mqtt.Open(ctx, s.cfg.MQTT.BrokerConfig, who, s.log.With("part", "mqtt")); err != nil {
			return err
		}
		s.closeLater(func() error { s.broker.Close(); return nil })
	}
	for _, c := range s.cfg.MQTT.Sources {
		for _, sub := range s.cfg.Ingest.Subscriptions(c.Name) {
			c.Subscriptions = append(c.Subscriptions, mqtt.Subscription{Filter: sub.Filter, QoS: sub.QoS})
		}
		if c.ClientID == "" {
			c.ClientID = "leat-" + s.node + "-" + c.Name
		}
		src, err := mqtt.NewSource(c, s.router, s.log.With("part", "mqtt"))
		if err != nil {
			return err
		}
		s.sources = append(s.sources, src)
	}
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Run runs the node until ctx ends (nil) or a part fails. started is called once every door is open.
func (s *Server) Run(ctx context.Context, started func()) error {
	s.announce()
	return lifecycle.Run(ctx, s.parts(), func() {
		s.ready.Store(true)
		s.log.Info("ready", "started_in", time.Since(s.started).Round(time.Millisecond))
		started()
	})
}

// parts are in the order of starting: what takes data in comes last, and stops first.
func (s *Server) parts() []lifecycle.Part {
	parts := []lifecycle.Part{
		{Name: "log", Run: s.watchLog},
		{Name: "export", Run: s.exports.Run},
		{Name: "forward", Run: s.forward.Run},
		{Name: "catalog", Run: s.restoreCatalog},
		{Name: "http", Run: func(ctx context.Context, ready func()) error {
			ready()
			return api.New(s.cfg.HTTP, s.apiNode(), s.log.With("part", "http")).Serve(ctx, s.socket, s.http)
		}},
		{Name: "ingest", Run: func(ctx context.Context, ready func()) error {
			ready()
			return s.router.Run(ctx)
		}},
	}
	for _, src := range s.sources {
		parts = append(parts, lifecycle.Part{Name: "mqtt source " + src.Status().Name, Run: src.Run})
	}
	if s.broker != nil {
		parts = append(parts, lifecycle.Part{Name: "mqtt", Run: func(ctx context.Context, ready func()) error {
			return s.broker.Run(ctx, s.router, ready)
		}})
	}
	if s.door != nil {
		parts = append(parts, lifecycle.Part{Name: "stream manager", Run: s.door.Run})
	}
	return append(parts, lifecycle.Part{Name: "readiness", Run: func(ctx context.Context, ready func()) error {
		ready()
		<-ctx.Done()
		s.ready.Store(false) // first of all when stopping: nobody is sent here any more
		return nil
	}})
}

// watchLog ends with the log's error when an fdatasync fails.
func (s *Server) watchLog(ctx context.Context, ready func()) error {
	ready()
	select {
	case <-ctx.Done():
		return nil
	case <-s.streams.Failed():
		return record.Errorf(record.Unavailable, "the log could not be synced: %w", s.streams.Err()).
			WithHint("look at the disk (dmesg), then start leat again: it finds out what is durable")
	}
}

// announce says where everything is: what an operator wants to know first.
func (s *Server) announce() {
	s.log.Info("leat", "version", s.version, "node", s.node, "pid", os.Getpid())
	s.log.Info("data", "dir", s.data.Path(), "lake", s.storePlace())
	b := s.budget
	s.log.Info("disk budget", "total", config.FormatSize(b.Total), "log", config.FormatSize(b.Log), "spool", config.FormatSize(b.Spool),
		"cache", config.FormatSize(b.Cache), "stays_free", config.FormatSize(b.MinFree))
	if s.http != nil {
		s.log.Info("listening", "protocol", "http", "url", "http://"+s.http.Addr().String(), "setting", "http.listen")
	}
	s.log.Info("listening", "protocol", "http", "url", "unix:"+filepath.Join(s.data.Path(), api.SocketName))
}
