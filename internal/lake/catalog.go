package lake

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/record"
)

// Place is where a file can be read.
type Place uint8

// The places.
const (
	Spool Place = iota // only on this node
	Store              // in the object store; the spool file may be gone
)

// Catalog knows the tables, their columns and their files. It is safe for concurrent use.
type Catalog struct {
	db  *meta.DB
	log *slog.Logger

	mu     sync.Mutex // guards tables and orders changes to schemas
	tables map[string]*table
}

// View is the catalog at one version.
type View struct {
	Version uint64
	Tables  []Table // sorted by name
}

// Table is one table of a View.
type Table struct {
	Schema
	Prefix   string
	Files    []TableFile // by event day, then key
	Rejected []TableFile // files below _rejected/<table>/
	// Covered is, for each stream that feeds the table, the offset below which everything is in Files.
	Covered map[record.StreamID]record.Offset
}

// TableFile is a file with where it is and what it covers.
type TableFile struct {
	File
	Place  Place
	Node   string
	Stream record.StreamID
	From   record.Offset
	To     record.Offset
}

// Select narrows the files of a View. Zero fields do not narrow.
type Select struct {
	Table    string
	From, To time.Time // files with rows in [From, To)
	Place    *Place
}

// The buckets, all keyed by table name first: what they hold is part of the data directory's format.
const (
	bucketTables   meta.Bucket[tableFact] = "lake.tables"   // table
	bucketFiles    meta.Bucket[fileFact]  = "lake.files"    // table NUL yyyymmdd NUL key
	bucketRejected meta.Bucket[fileFact]  = "lake.rejected" // table NUL yyyymmdd NUL key
	bucketCovered  meta.Bucket[uint64]    = "lake.covered"  // table NUL stream id
	bucketState    meta.Bucket[uint64]    = "lake.state"    // "version"; "complete", once nothing of the store is missing
)

type tableFact struct {
	Layout   Layout   `json:"layout"`
	TimeUnit TimeUnit `json:"time_unit"`
	Prefix   string   `json:"prefix"`
	Columns  []Column `json:"columns"`
}

type fileFact struct {
	Spool     string        `json:"spool"`
	Size      int64         `json:"size"`
	SHA256    Digest        `json:"sha256"`
	Rows      int64         `json:"rows"`
	MinTime   int64         `json:"min_time"`
	MaxTime   int64         `json:"max_time"`
	Partition string        `json:"partition"`
	Place     Place         `json:"place"`
	Node      string        `json:"node"`
	Stream    uint64        `json:"stream"`
	From      record.Offset `json:"from"`
	To        record.Offset `json:"to"`
}

// NewCatalog returns the catalog kept in db.
func NewCatalog(db *meta.DB, log *slog.Logger) *Catalog {
	return &Catalog{db: db, log: log, tables: map[string]*table{}}
}

func fileKey(f File) string {
	return f.Table + "\x00" + dayKey(f.MinTime) + "\x00" + f.Key
}

func dayKey(ns int64) string { return time.Unix(0, ns).UTC().Format("20060102") }

func bucketOf(f File) meta.Bucket[fileFact] {
	if f.Rejected {
		return bucketRejected
	}
	return bucketFiles
}

// bump counts a change.
func bump(tx *meta.Tx) error {
	v, _, err := bucketState.Get(tx, "version")
	if err != nil {
		return err
	}
	return bucketState.Put(tx, "version", v+1)
}

// AddFiles registers what a build of rng made: its data and rejected files (manifests are not registered), and that the
// table now covers the stream below rng.To. It is idempotent by key. No files is allowed: the range had no rows.
func (c *Catalog) AddFiles(table string, rng Range, files []File) error {
	return c.addFiles(table, rng, files, Spool)
}

func (c *Catalog) addFiles(table string, rng Range, files []File, place Place) error {
	err := c.db.Update(func(tx *meta.Tx) error {
		changed := false
		for _, f := range files {
			if f.Manifest {
				continue
			}
			_, known, err := bucketOf(f).Get(tx, fileKey(f))
			if err != nil {
				return err
			}
			if known {
				continue
			}
			changed = true
			if err := bucketOf(f).Put(tx, fileKey(f), factOf(f, rng, place)); err != nil {
				return err
			}
		}
		key := table + "\x00" + rng.Stream.String()
		to, _, err := bucketCovered.Get(tx, key)
		if err != nil {
			return err
		}
		if uint64(rng.To) > to {
			changed = true
			if err := bucketCovered.Put(tx, key, uint64(rng.To)); err != nil {
				return err
			}
		}
		if !changed {
			return nil
		}
		return bump(tx)
	})
	if err != nil {
		return fmt.Errorf("register files of table %s: %w", table, err)
	}
	return nil
}

func factOf(f File, rng Range, place Place) fileFact {
	return fileFact{
		Spool: f.Spool, Size: f.Size, SHA256: f.SHA256, Rows: f.Rows, MinTime: f.MinTime, MaxTime: f.MaxTime,
		Partition: f.Partition, Place: place, Node: rng.Node, Stream: uint64(rng.Stream), From: rng.From, To: rng.To,
	}
}

// SetStored records that the files are in the object store. Unknown ones, and manifests, are ignored.
func (c *Catalog) SetStored(files []File) error {
	return c.change("mark files as stored", files, func(tx *meta.Tx, f File, fact fileFact) error {
		fact.Place = Store
		return bucketOf(f).Put(tx, fileKey(f), fact)
	})
}

// RemoveFiles forgets files. Unknown ones, and manifests, are ignored.
func (c *Catalog) RemoveFiles(files []File) error {
	return c.change("forget files", files, func(tx *meta.Tx, f File, _ fileFact) error {
		return bucketOf(f).Delete(tx, fileKey(f))
	})
}

func (c *Catalog) change(what string, files []File, do func(*meta.Tx, File, fileFact) error) error {
	err := c.db.Update(func(tx *meta.Tx) error {
		changed := false
		for _, f := range files {
			if f.Manifest {
				continue
			}
			fact, known, err := bucketOf(f).Get(tx, fileKey(f))
			if err != nil {
				return err
			}
			if !known {
				continue
			}
			changed = true
			if err := do(tx, f, fact); err != nil {
				return err
			}
		}
		if !changed {
			return nil
		}
		return bump(tx)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Version is the number of changes so far.
func (c *Catalog) Version() (v uint64, err error) {
	err = c.db.View(func(tx *meta.Tx) error {
		v, _, err = bucketState.Get(tx, "version")
		return err
	})
	return v, err
}

// View returns a consistent snapshot of what sel selects (at most one; none selects everything).
func (c *Catalog) View(sel ...Select) (View, error) {
	var s Select
	if len(sel) > 0 {
		s = sel[0]
	}
	var v View
	err := c.db.View(func(tx *meta.Tx) (err error) {
		if v.Version, _, err = bucketState.Get(tx, "version"); err != nil {
			return err
		}
		for e, err := range bucketTables.Scan(tx, s.Table, "") {
			if err != nil {
				return err
			}
			if s.Table != "" && e.Key != s.Table {
				continue
			}
			t := Table{Schema: e.Value.schema(e.Key), Prefix: e.Value.Prefix}
			if err := t.fill(tx, s); err != nil {
				return err
			}
			v.Tables = append(v.Tables, t)
		}
		return nil
	})
	if err != nil {
		return View{}, fmt.Errorf("read catalog: %w", err)
	}
	return v, nil
}

func (f tableFact) schema(name string) Schema {
	return Schema{Table: name, Layout: f.Layout, TimeUnit: f.TimeUnit, Columns: f.Columns}
}

func (t *Table) fill(tx *meta.Tx, s Select) (err error) {
	if t.Files, err = scanFiles(tx, bucketFiles, t.Table, s); err != nil {
		return err
	}
	if t.Rejected, err = scanFiles(tx, bucketRejected, t.Table, s); err != nil {
		return err
	}
	t.Covered = map[record.StreamID]record.Offset{}
	for e, err := range bucketCovered.Scan(tx, t.Table+"\x00", "") {
		if err != nil {
			return err
		}
		_, hex, _ := strings.Cut(e.Key, "\x00")
		id, err := strconv.ParseUint(hex, 16, 64)
		if err != nil {
			return record.Errorf(record.Corrupt, "covered stream %q: %w", hex, err)
		}
		t.Covered[record.StreamID(id)] = record.Offset(e.Value)
	}
	return nil
}

// scanFiles reads a table's files in day order. A file lies in the day of its rows, so a day is enough to leave most of
// them unread; a rejected file may span more than one, hence the comparison of both ends.
func scanFiles(tx *meta.Tx, b meta.Bucket[fileFact], table string, s Select) ([]TableFile, error) {
	prefix, from, until := table+"\x00", "", ""
	if !s.From.IsZero() && b == bucketFiles {
		from = prefix + s.From.UTC().Format("20060102")
	}
	if !s.To.IsZero() {
		until = prefix + s.To.UTC().Format("20060102") + "\xff"
	}
	var files []TableFile
	for e, err := range b.Scan(tx, prefix, from) {
		if err != nil {
			return nil, err
		}
		f := e.Value
		if until != "" && e.Key > until {
			break
		}
		if !s.From.IsZero() && f.MaxTime < s.From.UnixNano() || !s.To.IsZero() && f.MinTime >= s.To.UnixNano() ||
			s.Place != nil && f.Place != *s.Place {
			continue
		}
		parts := strings.SplitN(e.Key, "\x00", 3)
		if len(parts) != 3 {
			return nil, record.Errorf(record.Corrupt, "file key %q", e.Key)
		}
		files = append(files, TableFile{
			File: File{
				Key: parts[2], Spool: f.Spool, Size: f.Size, SHA256: f.SHA256, Rows: f.Rows, MinTime: f.MinTime,
				MaxTime: f.MaxTime, Table: table, Partition: f.Partition, Rejected: b == bucketRejected,
			},
			Place: f.Place, Node: f.Node, Stream: record.StreamID(f.Stream), From: f.From, To: f.To,
		})
	}
	return files, nil
}

// Schema returns a table's schema: NotFound when no build or EnsureTable has made it.
func (c *Catalog) Schema(name string) (Schema, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.load(name)
	if err != nil {
		return Schema{}, err
	}
	if t == nil {
		return Schema{}, record.Errorf(record.NotFound, "table %q", name)
	}
	s := t.Schema
	s.Columns = slices.Clone(s.Columns)
	return s, nil
}

// load returns the table, nil when there is none. The caller holds mu.
func (c *Catalog) load(name string) (*table, error) {
	if t := c.tables[name]; t != nil {
		return t, nil
	}
	var fact tableFact
	var known bool
	err := c.db.View(func(tx *meta.Tx) (err error) {
		fact, known, err = bucketTables.Get(tx, name)
		return err
	})
	if err != nil || !known {
		return nil, err
	}
	t := newTable(fact.schema(name), fact.Prefix, false)
	c.tables[name] = t
	return t, nil
}

// save makes t durable and current. The caller holds mu.
func (c *Catalog) save(t *table) error {
	err := c.db.Update(func(tx *meta.Tx) error {
		fact := tableFact{Layout: t.Layout, TimeUnit: t.TimeUnit, Prefix: t.prefix, Columns: t.Columns}
		if err := bucketTables.Put(tx, t.Table, fact); err != nil {
			return err
		}
		return bump(tx)
	})
	if err != nil {
		return fmt.Errorf("save schema of table %s: %w", t.Table, err)
	}
	c.tables[t.Table] = t
	return nil
}
