package server

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/export"
	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/query"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/vfs"
	"go.yaml.in/yaml/v3"
)

// feed is a rule with its stream and table: what an export and a query of it are made from.
type feed struct {
	rule  ingest.Rule
	id    record.StreamID
	table lake.TableSpec
}

// openExports makes an export for each rule.
func (s *Server) openExports(context.Context) error {
	cfg := s.cfg.Export
	if cfg.MaxSpoolBytes == 0 || cfg.MaxSpoolBytes > s.budget.Spool {
		cfg.MaxSpoolBytes = s.budget.Spool
	}
	// A backlog is cut before it fills the log, however long the period is: with several rules they share the log.
	share := max(s.budget.Log/int64(4*max(len(s.cfg.Ingest.Rules), 1)), 1<<20)
	if cfg.MaxStepBytes == 0 || cfg.MaxStepBytes > share {
		cfg.MaxStepBytes = share
	}
	s.exports = export.New(cfg, s.streams, s.clock, s.spool.Bytes, s.log.With("part", "export"))
	for _, rule := range s.cfg.Ingest.Resolved().Rules {
		id, ok := s.router.Stream(rule.Name)
		if !ok {
			return record.Errorf(record.Internal, "ingest rule %s has no stream", rule.Name)
		}
		f, err := s.newFeed(rule, id)
		if err != nil {
			return fmt.Errorf("ingest rule %s: %w", rule.Name, err)
		}
		s.feeds = append(s.feeds, f)
		if err := s.addExport(f); err != nil {
			return fmt.Errorf("ingest rule %s: %w", rule.Name, err)
		}
	}
	if err := s.openRetired(); err != nil {
		return err
	}
	known := make([]record.StreamID, 0, len(s.feeds))
	for _, info := range s.streams.List("") {
		known = append(known, info.ID)
	}
	return s.spool.Sweep(known)
}

func (s *Server) newFeed(rule ingest.Rule, id record.StreamID) (feed, error) {
	f := feed{rule: rule, id: id, table: lake.TableSpec{Name: rule.Table}}
	if err := f.table.Layout.UnmarshalText([]byte(rule.Layout)); err != nil {
		return f, fmt.Errorf("layout: %w", err)
	}
	if !s.cfg.Store.TablePrefix {
		f.table.Prefix = lake.NoPrefix
	}
	for _, c := range rule.Columns {
		col := lake.Column{Name: c.Name}
		if err := col.Type.UnmarshalText([]byte(c.Type)); err != nil {
			return f, fmt.Errorf("column %s: %w", c.Name, err)
		}
		f.table.Declared = append(f.table.Declared, col)
	}
	if rule.SchemaFile != "" {
		pinned, err := s.readSchema(rule.SchemaFile)
		if err != nil {
			return f, err
		}
		f.table.Pinned = &pinned
	}
	return f, s.catalog.EnsureTable(f.table, s.cfg.Lake)
}

// readSchema reads the schema that a table is pinned to.
func (s *Server) readSchema(path string) (lake.Schema, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.data.Path(), path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return lake.Schema{}, record.Errorf(record.Invalid, "schema_file: %w", err).
			WithHint("write the file, or remove the key; a relative path starts at the data directory")
	}
	schema, err := lake.DecodeSchema(data)
	if err != nil {
		return schema, fmt.Errorf("schema_file %s: %w", path, err)
	}
	return schema, nil
}

func (s *Server) addExport(f feed) error {
	dec, err := ingest.NewDecoder(f.rule)
	if err != nil {
		return err
	}
	log := s.log.With("part", "export")
	revision, err := revisionOf(f.rule, s.cfg.Lake, f.table.Pinned)
	if err != nil {
		return err
	}
	_, err = s.exports.Add(export.Spec{
		Stream: f.id, Name: f.rule.Stream(), Table: f.table.Name, Period: f.rule.Period, Revision: revision,
		Sink: export.NewLake(export.LakeOptions{
			Stream: f.id, Node: s.node, Spool: s.spool, Store: s.store, Config: s.cfg.Lake, Table: f.table, Catalog: s.catalog,
			Decoder: ingest.NewSampled(dec, f.rule.Name, log, s.cfg.Ingest.LogInterval), Log: log,
		}),
	})
	return err
}

// revisionOf tells configurations apart that would encode the same records differently.
func revisionOf(parts ...any) (uint64, error) {
	h := fnv.New64a()
	for _, p := range parts {
		b, err := yaml.Marshal(p)
		if err != nil {
			return 0, fmt.Errorf("identify configuration: %w", err)
		}
		h.Write(b)
	}
	return h.Sum64(), nil
}

// tail is the server as queries see it: the streams whose rows are not yet in files.
type tail Server

// Feeds is part of query.Tail.
func (t *tail) Feeds() []query.Feed {
	out := make([]query.Feed, 0, len(t.feeds))
	for _, f := range t.feeds {
		out = append(out, query.Feed{
			Table: f.table, Stream: f.id, Restamp: t.restamp,
			Decoder: func() payload.Decoder { return t.decoder(f.rule) },
		})
	}
	return out
}

// decoder makes a decoder of a rule that was checked when the node opened.
func (t *tail) decoder(r ingest.Rule) payload.Decoder {
	d, err := ingest.NewDecoder(r)
	if err != nil {
		return failing{err}
	}
	return d
}

type failing struct{ err error }

// Decode is part of payload.Decoder.
func (f failing) Decode(*record.Record, []payload.Row) ([]payload.Row, error) { return nil, f.err }

// restamp gives rows of this boot their true time once the clock is trusted; what the export will say of earlier boots
// is not known yet.
func (t *tail) restamp(o stream.Origin, recTime int64) int64 {
	if o.Trusted {
		return recTime
	}
	if a, ok := clock.AnchorOf(t.clock.Read()); ok && a.Boot == o.Boot {
		return recTime + a.Offset + o.Mono - o.Wall
	}
	return recTime
}

// Read is part of query.Tail.
func (t *tail) Read(ctx context.Context, id record.StreamID, from record.Offset, maxBytes int, c *stream.Chunk) error {
	return t.streams.Read(ctx, id, from, maxBytes, c)
}

// Bounds is part of query.Tail.
func (t *tail) Bounds(id record.StreamID) (stream.Bounds, error) { return t.streams.Bounds(id) }

// Builder is part of query.Tail.
func (t *tail) Builder(dir *vfs.Dir, f query.Feed, rng lake.Range) (query.Builder, error) {
	rng.Node = t.node
	return lake.NewBuilder(dir, t.cfg.Lake, f.Table, t.catalog, rng, f.Decoder(), f.Restamp), nil
}
