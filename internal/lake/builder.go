package lake

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/vfs"
)

// rejectBudget is how many bytes of rejected records are held before they become a row group.
const rejectBudget = 4 << 20

// Builder encodes one Range. It belongs to one goroutine.
type Builder struct {
	dir     *vfs.Dir
	cfg     Config
	spec    TableSpec
	cat     *Catalog
	rng     Range
	dec     payload.Decoder
	restamp func(o stream.Origin, recTime int64) int64

	rows    tableWriter
	rejects tableWriter
	files   spoolFiles
	result  Result
	clock   ClockState
	gaps    []ManifestGap
	started bool

	decoded  []payload.Row
	resolver resolver
	scratch  []byte // of extra
	number   []byte // of digits
}

// Result is what a build made.
type Result struct {
	// Files are in the order of their creation, data and rejected ones, the manifest last. There are none when there
	// was nothing to write; a range of nothing but gaps has a manifest only.
	Files        []File
	Rows         int64
	Rejected     int64 // records
	Bytes        int64 // of all Files
	TimesRounded int64 // event times finer than the table's time unit
	Clock        ClockState
	Reject       string // reason of the first rejected record, for the log
}

// NewBuilder returns a builder of rng's files below dir, the spool. It does no I/O. restamp gives the time of a record
// whose clock was not trusted when it was appended; nil leaves it as it is.
func NewBuilder(dir *vfs.Dir, cfg Config, spec TableSpec, cat *Catalog, rng Range, dec payload.Decoder,
	restamp func(o stream.Origin, recTime int64) int64) *Builder {
	return &Builder{dir: dir, cfg: cfg.withDefaults(), spec: spec, cat: cat, rng: rng, dec: dec, restamp: restamp}
}

// start reads the table's schema: the first thing that needs the disk.
func (b *Builder) start() error {
	t, err := b.cat.ensure(b.spec, b.cfg)
	if err != nil {
		return err
	}
	b.started = true
	enc := &encoder{codec: newCodec(b.cfg.Compression)}
	b.rows = tableWriter{
		dir: b.dir, cfg: b.cfg, rng: b.rng, keys: sortKeys(b.spec.Layout), budget: b.cfg.RowGroupBytes, enc: enc,
		in: newInterner(), bufs: map[int64]*buffer{}, parts: map[int64]int{}, files: &b.files,
	}
	b.rejects = b.rows
	b.rejects.in, b.rejects.bufs, b.rejects.parts = newInterner(), map[int64]*buffer{}, map[int64]int{}
	b.rejects.rejected, b.rejects.keys = true, []string{colTopic}
	b.rejects.budget = min(rejectBudget, b.cfg.RowGroupBytes)
	b.rejects.table = newTable(Schema{
		Table: b.spec.Name, TimeUnit: Micro, Columns: []Column{
			{Name: colTime, Type: Timestamp}, {Name: colTopic, Type: Text}, {Name: colReason, Type: Text},
			{Name: colPayload, Type: Binary}, {Name: colSeq, Type: Bigint},
		},
	}, "", true)
	b.resolver.reserved = reservedBy(b.cfg)
	b.use(t)
	return nil
}

func sortKeys(l Layout) []string {
	if l == Portable {
		return []string{colSignal, colTopic}
	}
	return []string{colTopic}
}

// use makes t the schema of the rows that follow.
func (b *Builder) use(t *table) {
	b.rows.table, b.rows.form = t, nil
	b.resolver.use(t)
}

// Add decodes and buffers a chunk's records. Records outside the range are skipped. After an error only Abort is of use.
func (b *Builder) Add(c *stream.Chunk) error {
	if !b.started {
		if err := b.start(); err != nil {
			return err
		}
	}
	b.addGaps(c.Gaps)
	origin := 0
	for i := range c.Records {
		off := c.First + record.Offset(i)
		if off < b.rng.From || off >= b.rng.To {
			continue
		}
		for origin < len(c.Origins)-1 && off >= c.Origins[origin].First+record.Offset(c.Origins[origin].Count) {
			origin++
		}
		received := c.Records[i].Time
		if origin < len(c.Origins) {
			received = b.receiveTime(c.Origins[origin], received)
		}
		if err := b.record(&c.Records[i], off, received); err != nil {
			return fmt.Errorf("encode record %d of stream %s: %w", off, b.rng.Stream, err)
		}
	}
	return nil
}

// addGaps notes, for the manifest, which records of the range the log no longer had.
func (b *Builder) addGaps(gaps []stream.Gap) {
	for _, g := range gaps {
		from, to := max(g.From, b.rng.From), min(g.To, b.rng.To)
		if from >= to || len(b.gaps) == maxManifestGaps {
			continue
		}
		reason := "dropped"
		if g.Reason == stream.Damaged {
			reason = "damaged"
		}
		b.gaps = append(b.gaps, ManifestGap{From: from, To: to, Reason: reason})
	}
}

func (b *Builder) receiveTime(o stream.Origin, t int64) int64 {
	if o.Trusted {
		b.clock.Trusted++
		return t
	}
	if b.restamp != nil {
		if r := b.restamp(o, t); r != t {
			b.clock.Restamped++
			return r
		}
	}
	b.clock.Untrusted++
	return t
}

// decode has the record taken apart. A decoder that panics has a defect, but the record is here to stay: it is rejected
// like one that does not parse, so that it can neither end the process nor hold up what follows it.
func (b *Builder) decode(rec *record.Record) (rows []payload.Row, err error) {
	defer func() {
		if p := recover(); p != nil {
			rows, err = b.decoded[:0], fmt.Errorf("defect of the parser: %v", p)
		}
	}()
	return b.dec.Decode(rec, b.decoded[:0])
}

// record puts all rows of a record into buffers, or none and the record among the rejected.
func (b *Builder) record(rec *record.Record, off record.Offset, received int64) error {
	rows, err := b.decode(rec)
	b.decoded = rows
	if err != nil {
		return b.reject(rec, off, received, err.Error())
	}
	unit := b.rows.table.TimeUnit
	for i := range rows {
		if !rows[i].HasTime {
			rows[i].Time = received
		} else if b.cfg.TimeUnit == Auto && rows[i].Time%1e6 != 0 {
			unit = max(unit, Micro)
		}
		if rows[i].Time < 0 {
			return b.reject(rec, off, received, "time before 1970")
		}
	}
	if unit != b.rows.table.TimeUnit && b.spec.Pinned == nil {
		t, err := b.cat.setUnit(b.rows.table, unit)
		if err != nil {
			return err
		}
		b.use(t)
	}
	if err := b.resolve(rows); err != nil {
		return err
	}
	cols := b.resolver.cols
	for i := range rows {
		r := &rows[i]
		n := len(r.Labels)
		if b.spec.Layout == Columns {
			n += len(r.Fields)
		}
		if err := b.row(r, cols[:n], rec, off, received); err != nil {
			return err
		}
		cols = cols[n:]
	}
	return nil
}

// resolve finds the columns of all rows' labels and fields, adding those that the table does not have yet.
func (b *Builder) resolve(rows []payload.Row) error {
	fields := b.spec.Layout == Columns
	if missing := b.resolver.resolve(rows, fields); len(missing) > 0 {
		t, err := b.cat.widen(b.rows.table, missing, b.resolver.reserved)
		if err != nil {
			return err
		}
		b.use(t)
		b.resolver.resolve(rows, fields)
	}
	return nil
}

func (b *Builder) row(r *payload.Row, cols []int, rec *record.Record, off record.Offset, received int64) error {
	w := &b.rows
	if r.HasTime && r.Time%w.table.TimeUnit.nanos() != 0 {
		b.result.TimesRounded++
	}
	buf := w.add(r.Time)
	topic := r.Topic
	if topic == nil {
		topic = rec.Key
	}
	w.text(buf, 1, topic)
	if b.spec.Layout == Portable {
		b.portable(buf, r)
	}
	extra := b.scratch[:0]
	for i, col := range cols {
		f := &r.Fields
		j := i
		if i < len(r.Labels) {
			f = &r.Labels
		} else {
			j -= len(r.Labels)
		}
		v := (*f)[j].Value
		if v.Kind == payload.Null {
			continue
		}
		if col < 0 || !b.fits(buf, col, v) {
			extra = appendMember(extra, (*f)[j].Name, v)
		}
	}
	if len(extra) > 0 {
		if err := b.extra(buf, append(extra, '}')); err != nil {
			return err
		}
	}
	b.scratch = extra[:0]
	if b.resolver.node >= 0 && b.cfg.Provenance {
		w.text(buf, b.resolver.node, []byte(b.rng.Node))
		w.put(buf, b.resolver.seq, uint64(off))
		w.put(buf, b.resolver.received, uint64(received))
	}
	b.result.Rows++
	return w.settle(buf)
}

// The columns of the portable layout follow ts and topic in this order (see baseColumns).
const (
	atSignal = 2
	atValue  = 3
	atText   = 4
)

// portable fills signal, value and text. Nothing is lost: what a DOUBLE does not say exactly is in text.
func (b *Builder) portable(buf *buffer, r *payload.Row) {
	w := &b.rows
	w.text(buf, atSignal, r.Signal)
	switch v := r.Value; v.Kind {
	case payload.Float:
		w.put(buf, atValue, math.Float64bits(v.F))
	case payload.Int:
		w.put(buf, atValue, math.Float64bits(float64(v.I)))
		if v.I > exactInt || v.I < -exactInt {
			w.text(buf, atText, strconv.AppendInt(b.number[:0], v.I, 10))
		}
	case payload.Bool:
		w.put(buf, atValue, math.Float64bits(float64(v.I)))
		w.text(buf, atText, strconv.AppendBool(b.number[:0], v.I != 0))
	case payload.BigNumber:
		if f, err := strconv.ParseFloat(string(v.S), 64); err == nil {
			w.put(buf, atValue, math.Float64bits(f))
		}
		w.text(buf, atText, v.S)
	case payload.Text, payload.JSON:
		w.text(buf, atText, v.S)
	case payload.Time:
		w.text(buf, atText, time.Unix(0, v.I).UTC().AppendFormat(b.number[:0], time.RFC3339Nano))
	}
}

// extra puts a JSON object into the column for what no other column takes, adding it to the table when needed.
func (b *Builder) extra(buf *buffer, object []byte) error {
	if b.resolver.extra < 0 {
		t, err := b.cat.widen(b.rows.table, []Column{{Name: colExtra, Type: JSON}}, b.resolver.reserved)
		if err != nil {
			return err
		}
		b.use(t)
	}
	b.rows.text(buf, b.resolver.extra, object)
	return nil
}

func (b *Builder) reject(rec *record.Record, off record.Offset, received int64, reason string) error {
	if b.result.Rejected == 0 {
		b.result.Reject = reason
	}
	b.result.Rejected++
	w := &b.rejects
	buf := w.add(max(0, received))
	w.text(buf, 1, rec.Key)
	w.text(buf, 2, []byte(reason))
	w.text(buf, 3, rec.Payload)
	w.put(buf, 4, uint64(off))
	return w.settle(buf)
}

// Finish writes what is buffered and makes all files durable.
func (b *Builder) Finish() (Result, error) {
	if !b.started {
		return b.result, nil
	}
	if err := errors.Join(b.rows.finish(), b.rejects.finish()); err != nil {
		return Result{}, err
	}
	b.result.Clock = b.clock
	if len(b.files.done) == 0 && len(b.gaps) == 0 {
		return b.result, nil
	}
	created := make(map[string]int, len(b.files.names))
	for i, name := range b.files.names {
		created[name] = i
	}
	slices.SortFunc(b.files.done, func(x, y File) int { return cmp.Compare(created[x.Spool], created[y.Spool]) })
	manifest, err := b.writeManifest()
	if err != nil {
		return Result{}, err
	}
	b.result.Files = append(b.files.done, manifest)
	for _, f := range b.result.Files {
		b.result.Bytes += f.Size
	}
	return b.result, nil
}

// writeManifest writes the manifest to the spool. Its directory sync makes the names of the data files durable, too.
func (b *Builder) writeManifest() (File, error) {
	m := Manifest{
		Format: ManifestFormat, Node: b.rng.Node, Stream: b.rng.Stream.String(), From: b.rng.From, To: b.rng.To,
		Cut: b.rng.Cut.UTC(), Revision: b.rng.Revision, Prefix: b.rows.table.prefix, Schema: b.rows.table.Schema,
		Rows: b.result.Rows, Rejected: b.result.Rejected, TimesRounded: b.result.TimesRounded, Clock: b.clock,
		Files: make([]ManifestFile, 0, len(b.files.done)), Gaps: b.gaps,
	}
	f := File{Key: b.rng.ManifestKey(), Spool: b.rng.spoolManifest(), Table: b.spec.Name, Manifest: true}
	for i, d := range b.files.done {
		m.Files = append(m.Files, ManifestFile{
			Key: d.Key, Size: d.Size, SHA256: d.SHA256, Rows: d.Rows, MinTS: d.MinTime, MaxTS: d.MaxTime,
			Partition: d.Partition, Rejected: d.Rejected,
		})
		if i == 0 {
			f.MinTime, f.MaxTime = d.MinTime, d.MaxTime
		}
		f.MinTime, f.MaxTime = min(f.MinTime, d.MinTime), max(f.MaxTime, d.MaxTime)
	}
	data, err := m.Encode()
	if err != nil {
		return File{}, err
	}
	b.files.names = append(b.files.names, f.Spool)
	if err := b.dir.WriteFile(f.Spool, data); err != nil {
		return File{}, fmt.Errorf("write manifest: %w", err)
	}
	f.Size, f.SHA256 = int64(len(data)), sha256.Sum256(data)
	return f, nil
}

// Abort removes what was written. It may follow anything, also a failed Finish, and is idempotent.
func (b *Builder) Abort() error {
	err := errors.Join(b.rows.abort(), b.rejects.abort())
	for _, name := range b.files.names {
		if rerr := b.dir.Remove(name); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	b.files = spoolFiles{}
	return err
}
