package lake

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/record"
)

// ManifestFormat is the version of the manifest's layout.
const ManifestFormat = 1

// Manifest is the object that says what a range became. It is written once, after the files it names, and never
// changed; the order of its fields is part of the format. docs/format/lake.md describes each.
type Manifest struct {
	Format       int            `json:"format"`
	Node         string         `json:"node"`
	Stream       string         `json:"stream"`
	From         record.Offset  `json:"from"`
	To           record.Offset  `json:"to"`
	Cut          time.Time      `json:"cut"`
	Revision     uint64         `json:"revision"`
	Prefix       string         `json:"prefix"`
	Schema       Schema         `json:"schema"`
	Rows         int64          `json:"rows"`
	Rejected     int64          `json:"rejected"`
	TimesRounded int64          `json:"times_rounded"`
	Clock        ClockState     `json:"clock"`
	Files        []ManifestFile `json:"files"`
	Gaps         []ManifestGap  `json:"gaps,omitempty"` // the first maxManifestGaps of them
}

// ManifestGap is a part of the range that the log no longer had: "dropped" by the stream's policy before it was
// exported, or "damaged".
type ManifestGap struct {
	From   record.Offset `json:"from"`
	To     record.Offset `json:"to"`
	Reason string        `json:"reason"`
}

// maxManifestGaps bounds a manifest's size.
const maxManifestGaps = 100

// ClockState says of how many records the receive time could be believed.
type ClockState struct {
	Trusted   int64 `json:"trusted"`   // the wall clock was trusted when they arrived
	Restamped int64 `json:"restamped"` // it was not; their time was computed afterwards
	Untrusted int64 `json:"untrusted"` // it was not, and nothing better became known
}

// ManifestFile is one file of a Manifest.
type ManifestFile struct {
	Key       string `json:"key"`
	Size      int64  `json:"size"`
	SHA256    Digest `json:"sha256"`
	Rows      int64  `json:"rows"`
	MinTS     int64  `json:"min_ts"` // nanoseconds since 1970 UTC
	MaxTS     int64  `json:"max_ts"`
	Partition string `json:"partition"`
	Rejected  bool   `json:"rejected,omitempty"`
}

// Encode is the manifest as it is stored.
func (m Manifest) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return append(data, '\n'), nil
}

// DecodeManifest reads a manifest of this format or an older one.
func DecodeManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return Manifest{}, record.Errorf(record.Corrupt, "decode manifest: %w", err)
	}
	if m.Format > ManifestFormat {
		return Manifest{}, record.Errorf(record.Invalid, "manifest has format %d, the newest known is %d", m.Format,
			ManifestFormat).WithHint("use a newer leat")
	}
	if m.Format < 1 || m.Schema.Table == "" || m.From > m.To || len(m.Schema.Columns) == 0 {
		return Manifest{}, record.Errorf(record.Corrupt, "decode manifest: not a manifest")
	}
	if slices.ContainsFunc(m.Schema.Columns, func(c Column) bool { return c.Name == "" || c.Type < Double }) {
		return Manifest{}, record.Errorf(record.Corrupt, "decode manifest: a column has no name or no type")
	}
	if _, err := m.stream(); err != nil {
		return Manifest{}, record.Errorf(record.Corrupt, "decode manifest: stream %q", m.Stream)
	}
	return m, nil
}

func (m Manifest) stream() (record.StreamID, error) {
	var id uint64
	if len(m.Stream) != 16 {
		return 0, fmt.Errorf("%d digits", len(m.Stream))
	}
	_, err := fmt.Sscanf(m.Stream, "%016x", &id)
	return record.StreamID(id), err
}

// Range is what the manifest covers.
func (m Manifest) Range() Range {
	id, _ := m.stream() // proved by DecodeManifest
	return Range{Node: m.Node, Stream: id, From: m.From, To: m.To, Cut: m.Cut, Revision: m.Revision}
}

// FileList is the manifest's files as the build returned them, in their order, without the manifest itself.
func (m Manifest) FileList() []File {
	rng := m.Range()
	files := make([]File, 0, len(m.Files))
	for i, f := range m.Files {
		files = append(files, File{
			Key: f.Key, Spool: rng.spoolFile(i + 1), Size: f.Size, SHA256: f.SHA256, Rows: f.Rows, MinTime: f.MinTS,
			MaxTime: f.MaxTS, Table: m.Schema.Table, Partition: f.Partition, Rejected: f.Rejected,
		})
	}
	return files
}

// Restore registers what a manifest found in the object store (or, with place Spool, in the spool) names: the way to
// rebuild a catalog whose file was lost. It widens the table's schema to the manifest's and is idempotent.
func (c *Catalog) Restore(m Manifest, place Place) error {
	spec := TableSpec{Name: m.Schema.Table, Layout: m.Schema.Layout, Prefix: m.Prefix, Declared: m.Schema.Columns}
	if spec.Prefix == "" {
		spec.Prefix = NoPrefix
	}
	cfg := DefaultConfig()
	cfg.TimeUnit = m.Schema.TimeUnit
	if _, err := c.ensure(spec, cfg); err != nil {
		return fmt.Errorf("restore manifest %s: %w", m.Range().ManifestKey(), err)
	}
	if err := c.addFiles(m.Schema.Table, m.Range(), m.FileList(), place); err != nil || place != Store {
		return err
	}
	return c.SetStored(m.FileList())
}

// Complete reports whether the catalog is known to have everything that this node has in the store. A new catalog does
// not know, nor one whose file was set aside as damaged: then Restore each of the node's manifests, and SetComplete.
func (c *Catalog) Complete() (bool, error) {
	var v uint64
	err := c.db.View(func(tx *meta.Tx) (err error) {
		v, _, err = bucketState.Get(tx, "complete")
		return err
	})
	if err != nil {
		return false, fmt.Errorf("read catalog: %w", err)
	}
	return v != 0, nil
}

// SetComplete records, durably, that every manifest of the store was restored, or that some may have to be.
func (c *Catalog) SetComplete(complete bool) error {
	var v uint64
	if complete {
		v = 1
	}
	err := c.db.Update(func(tx *meta.Tx) error { return bucketState.Put(tx, "complete", v) })
	if err != nil {
		return fmt.Errorf("mark catalog as complete or not: %w", err)
	}
	return nil
}
