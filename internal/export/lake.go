package export

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/vfs"
)

// LakeOptions is what a Lake sink is made of.
type LakeOptions struct {
	Stream  record.StreamID
	Node    string // part of every key
	Spool   *Spool
	Store   blob.Store
	Config  lake.Config
	Table   lake.TableSpec
	Catalog *lake.Catalog
	Decoder payload.Decoder // belongs to the sink from now on
	Log     *slog.Logger
}

// Lake is the sink that makes Parquet files of a stream's records and puts them into the object store: data files
// first, the manifest last, so that a manifest names only what is there.
type Lake struct {
	o LakeOptions

	// put are the keys of the step being delivered that this process has put: a retry begins behind them. It belongs
	// to Deliver.
	put map[string]bool
	// unread counts how often a spool file could not be read (EIO): only after a few times it counts as damaged.
	unread map[string]int
}

// NewLake returns the sink.
func NewLake(o LakeOptions) *Lake {
	return &Lake{o: o, put: make(map[string]bool), unread: make(map[string]int)}
}

// stepFileName is the file of a step that names and checks all others.
const stepFileName = "step.json"

// stepFile is what the sink remembers of an encoded step. Its SHA-256 is the step's Detail.
type stepFile struct {
	Version  int         `json:"version"`
	Range    lake.Range  `json:"range"`
	Table    string      `json:"table"`
	Rows     int64       `json:"rows"`
	Rejected int64       `json:"rejected"`
	Files    []lake.File `json:"files"`
}

const stepFileVersion = 1

// Recover is part of Sink.
func (l *Lake) Recover(_ context.Context, steps []Step) error {
	var names []string
	for _, s := range steps {
		if s.State != Planned {
			names = append(names, stepDir(l.o.Stream, s))
		}
	}
	return l.o.Spool.keep(l.o.Stream, names)
}

// Begin is part of Sink.
func (l *Lake) Begin(s Step, restamp Restamp) (Batch, error) {
	name := stepDir(l.o.Stream, s)
	dir, err := l.o.Spool.create(name)
	if err != nil {
		return nil, err
	}
	rng := lake.Range{Node: l.o.Node, Stream: l.o.Stream, From: s.From, To: s.To, Cut: s.Cut, Revision: s.Revision}
	builder := lake.NewBuilder(dir, l.o.Config, l.o.Table, l.o.Catalog, rng, l.o.Decoder, restamp)
	return &lakeBatch{sink: l, rng: rng, name: name, dir: dir, builder: builder}, nil
}

type lakeBatch struct {
	sink    *Lake
	rng     lake.Range
	name    string // of the step's directory in the spool
	dir     *vfs.Dir
	builder *lake.Builder
	closed  bool
}

// Add is part of Batch.
func (b *lakeBatch) Add(c *stream.Chunk) error { return b.builder.Add(c) }

// Finish is part of Batch. The builder has seen for itself what the notes say.
func (b *lakeBatch) Finish(Notes) (Summary, error) {
	result, err := b.builder.Finish()
	if err != nil {
		return Summary{}, err
	}
	for i := range result.Files {
		result.Files[i].Spool = b.name + "/" + result.Files[i].Spool
	}
	file := stepFile{
		Version: stepFileVersion, Range: b.rng, Table: b.sink.o.Table.Name,
		Rows: result.Rows, Rejected: result.Rejected, Files: result.Files,
	}
	text, err := json.MarshalIndent(file, "", " ")
	if err != nil {
		return Summary{}, fmt.Errorf("encode step file: %w", err)
	}
	if err := b.dir.WriteFile(stepFileName, text); err != nil {
		return Summary{}, fmt.Errorf("write step file: %w", err)
	}
	if err := errors.Join(b.close(), b.sink.o.Spool.added(b.name)); err != nil {
		return Summary{}, err
	}
	digest := sha256.Sum256(text)
	sum := summarize(&file)
	sum.Detail, sum.Reject = digest[:], result.Reject
	return sum, nil
}

func (b *lakeBatch) close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	return b.dir.Close()
}

// Abort is part of Batch.
func (b *lakeBatch) Abort() error {
	err := b.builder.Abort()
	return errors.Join(err, b.close(), b.sink.o.Spool.remove(b.name))
}

// summarize describes a step; its key is that of the largest data file.
func summarize(f *stepFile) Summary {
	s := Summary{Rows: f.Rows, Rejected: f.Rejected}
	largest := int64(-1)
	for _, f := range f.Files {
		if f.Manifest {
			continue
		}
		s.Files++
		s.Bytes += f.Size
		if !f.Rejected && f.Size > largest {
			s.Key, largest = f.Key, f.Size
		}
	}
	return s
}

// Reached is part of Sink.
func (l *Lake) Reached(_ context.Context, s Step) error {
	name := stepDir(l.o.Stream, s)
	if s.State == Committed {
		clear(l.put)
		clear(l.unread)
		return l.o.Spool.remove(name)
	}
	file, err := l.load(s)
	if isDamage(err) { // Deliver reports it
		return nil
	}
	if err != nil {
		return err
	}
	if s.State == Uploaded {
		return l.o.Catalog.SetStored(file.Files)
	}
	if err := l.restoreTable(s, file.Table); err != nil {
		return err
	}
	return l.o.Catalog.AddFiles(file.Table, file.Range, l.present(file.Files))
}

// restoreTable gives a catalog that was lost since the step was encoded its table back, from the step's manifest.
func (l *Lake) restoreTable(s Step, table string) error {
	if _, err := l.o.Catalog.Schema(table); err == nil || record.KindOf(err) != record.NotFound {
		return err
	}
	m, _, err := l.manifest(s)
	if isDamage(err) {
		return nil // the next encode makes the table anew
	}
	if err != nil {
		return err
	}
	cfg := l.o.Config
	cfg.TimeUnit = m.Schema.TimeUnit
	return l.o.Catalog.EnsureTable(lake.TableSpec{
		Name: table, Layout: m.Schema.Layout, Prefix: m.Prefix, Declared: m.Schema.Columns,
	}, cfg)
}

// present leaves out the files that an earlier delivery found damaged and set aside.
func (l *Lake) present(files []lake.File) []lake.File {
	var there []lake.File
	for _, f := range files {
		if _, err := l.o.Spool.dir.Stat(f.Spool); !errors.Is(err, fs.ErrNotExist) {
			there = append(there, f)
		}
	}
	return there
}

// load reads and checks the step's file. When it is damaged, the manifest tells the same.
func (l *Lake) load(s Step) (*stepFile, error) {
	f, err := l.loadStep(s)
	if !isDamage(err) {
		return f, err
	}
	if f, merr := l.rebuild(s); merr == nil {
		return f, nil
	}
	return nil, err
}

func (l *Lake) loadStep(s Step) (*stepFile, error) {
	name := stepDir(l.o.Stream, s) + "/" + stepFileName
	text, err := l.o.Spool.dir.ReadFile(name)
	if err != nil {
		return nil, damage(err)
	}
	if digest := sha256.Sum256(text); string(digest[:]) != string(s.Detail) {
		return nil, damage(fmt.Errorf("%s: checksum differs", name))
	}
	var f stepFile
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("decode %s: %w", name, err)
	}
	if f.Version != stepFileVersion {
		return nil, record.Errorf(record.Invalid, "%s has version %d: this program reads version %d", name, f.Version, stepFileVersion).
			WithHint("run the leat version that wrote this data directory, or a newer one")
	}
	return &f, nil
}

// Deliver is part of Sink.
func (l *Lake) Deliver(ctx context.Context, s Step) (Summary, error) {
	file, err := l.load(s)
	if isDamage(err) {
		return l.giveUp(s, err)
	}
	if err != nil {
		return Summary{}, err
	}
	sum := summarize(file)
	var damaged []lake.File
	for _, f := range file.Files {
		if f.Manifest || l.put[f.Key] {
			continue
		}
		err := l.send(ctx, f)
		if isDamage(err) && !l.stored(ctx, f) {
			if err := l.lose(f, err); err != nil {
				return Summary{}, err
			}
			damaged = append(damaged, f)
			sum.Damaged, sum.Lost, sum.Bytes = sum.Damaged+1, sum.Lost+f.Rows, sum.Bytes-f.Size
			continue
		}
		if err != nil && !isDamage(err) {
			return Summary{}, err
		}
		l.put[f.Key] = true
		l.o.Log.Info("uploaded", "key", f.Key, "bytes", f.Size, "rows", f.Rows)
	}
	if err := l.sendManifest(ctx, file, damaged, &sum); err != nil {
		return Summary{}, err
	}
	return sum, nil
}

// send checks a spool file and puts it.
func (l *Lake) send(ctx context.Context, f lake.File) error {
	body, err := l.o.Spool.dir.Open(f.Spool)
	if err != nil {
		return damage(err)
	}
	defer body.Close()
	if err := verify(body, f); err != nil {
		return l.patience(f.Spool, err)
	}
	// Its error names the key and the place already.
	return l.o.Store.Put(ctx, blob.Upload{
		Key: f.Key, Size: f.Size, SHA256: f.SHA256, Body: body, Resume: resumeName(f.Key, f.SHA256),
	})
}

func verify(body *vfs.File, f lake.File) error {
	h := sha256.New()
	n, err := io.Copy(h, io.NewSectionReader(body, 0, f.Size+1))
	if err != nil {
		return damage(err)
	}
	if n != f.Size {
		return damage(fmt.Errorf("%s has %d bytes, had %d", f.Spool, n, f.Size))
	}
	if string(h.Sum(nil)) != string(f.SHA256[:]) {
		return damage(fmt.Errorf("%s: checksum differs", f.Spool))
	}
	return nil
}

// resumeName is unique per key and content.
func resumeName(key string, content lake.Digest) string {
	h := sha256.Sum256(append([]byte(key), content[:]...))
	return hex.EncodeToString(h[:16])
}

// sendManifest puts the step's last objects: a note of what was lost, then the manifest.
func (l *Lake) sendManifest(ctx context.Context, file *stepFile, damaged []lake.File, sum *Summary) error {
	for _, f := range file.Files {
		if !f.Manifest {
			continue
		}
		if len(damaged) > 0 {
			if err := l.sendDamage(ctx, f, file.Range, damaged); err != nil {
				return err
			}
		}
		err := l.send(ctx, f)
		if isDamage(err) && !l.stored(ctx, f) {
			sum.Damaged++
			return l.lose(f, err)
		}
		if err != nil && !isDamage(err) {
			return err
		}
	}
	return nil
}
