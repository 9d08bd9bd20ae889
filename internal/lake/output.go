package lake

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"maps"
	"slices"

	"github.com/parquet-go/parquet-go"

	"github.com/leat-io/leat/internal/vfs"
)

// Limits of one file and one row group. What goes into a file's footer stays in memory until it is closed, about a
// kilobyte for each column of each row group, hence their limit.
const (
	maxGroupRows  = 1 << 20
	maxFileChunks = 4096
)

// sums counts and hashes what goes into a file.
type sums struct {
	file *vfs.File
	hash hash.Hash
	size int64
}

func (s *sums) Write(p []byte) (int, error) {
	n, err := s.file.Write(p)
	s.hash.Write(p[:n])
	s.size += int64(n)
	return n, err
}

// output is a Parquet file that is being written.
type output struct {
	day    int64
	out    sums
	w      *parquet.Writer
	table  *table // as it was when the file was opened
	form   *form
	groups int
	used   int64 // tableWriter.clock when it was last written to
	file   File
}

// tableWriter spreads rows over partitions, keeps them in buffers under one budget and writes them to files. It serves
// the rows of a table and, a second one, the rejected records.
type tableWriter struct {
	dir      *vfs.Dir
	cfg      Config
	rng      Range
	table    *table
	keys     []string // names of the columns to sort by, before ts
	rejected bool
	budget   int64

	in    *interner
	bufs  map[int64]*buffer // by day
	spare *buffer
	used  int64 // bytes in bufs
	enc   *encoder
	form  *form // of table

	open    []*output
	group   *parquet.ConcurrentRowGroupWriter // of groupOf, for its next row group: its buffers are used again
	groupOf *output
	parts   map[int64]int // files started, by day
	clock   int64
	files   *spoolFiles
}

// spoolFiles are the files of a build, over both its tableWriters.
type spoolFiles struct {
	names []string // created
	done  []File   // closed and durable, in the order of names once sorted
}

// add starts a row at time ts (not negative) and returns its buffer.
func (t *tableWriter) add(ts int64) *buffer {
	day := dayOf(ts)
	b := t.bufs[day]
	if b == nil {
		if b = t.spare; b == nil {
			b = &buffer{}
		}
		t.spare = nil
		b.reset(day)
		t.bufs[day] = b
		t.charge(b, 256+48*int64(len(t.table.Columns)))
	}
	b.row(ts)
	t.charge(b, rowBytes)
	return b
}

func (t *tableWriter) charge(b *buffer, n int64) {
	b.bytes += n
	t.used += n
}

func (t *tableWriter) put(b *buffer, col int, w uint64) { t.charge(b, b.put(col, w)) }

func (t *tableWriter) text(b *buffer, col int, s []byte) { t.charge(b, b.putID(col, t.in.id(s))) }

// settle writes row groups until the buffers are within the budget. b is the buffer last added to.
func (t *tableWriter) settle(b *buffer) error {
	if b.n >= maxGroupRows {
		if err := t.flush(b); err != nil {
			return err
		}
	}
	if t.in.bytes() > t.budget/2 {
		return t.flushAll()
	}
	for t.used+t.in.bytes() > t.budget && len(t.bufs) > 0 {
		if err := t.flush(t.largest()); err != nil {
			return err
		}
	}
	return nil
}

func (t *tableWriter) largest() (largest *buffer) {
	for _, b := range t.bufs {
		if largest == nil || b.bytes > largest.bytes || b.bytes == largest.bytes && b.day < largest.day {
			largest = b
		}
	}
	return largest
}

func (t *tableWriter) flushAll() error {
	for _, day := range slices.Sorted(maps.Keys(t.bufs)) {
		if err := t.flush(t.bufs[day]); err != nil {
			return err
		}
	}
	t.in.reset(int(t.budget))
	return nil
}

// flush writes b as a row group to the file of its day.
func (t *tableWriter) flush(b *buffer) error {
	o, err := t.output(b)
	if err != nil {
		return err
	}
	if t.groupOf != o {
		t.group, t.groupOf = o.w.BeginRowGroup(), o
	}
	if err := t.enc.rowGroup(t.group, o.form, o.table, b, t.in); err != nil {
		return fmt.Errorf("encode %s: %w", o.file.Spool, err)
	}
	unit := o.table.TimeUnit.nanos()
	minTime, maxTime := slices.Min(b.ts), slices.Max(b.ts)
	minTime, maxTime = minTime-minTime%unit, maxTime-maxTime%unit
	if o.groups == 0 {
		o.file.MinTime, o.file.MaxTime = minTime, maxTime
	}
	o.file.MinTime, o.file.MaxTime = min(o.file.MinTime, minTime), max(o.file.MaxTime, maxTime)
	o.file.Rows += int64(b.n)
	o.groups++
	delete(t.bufs, b.day)
	t.used -= b.bytes
	b.bytes = 0
	if t.spare == nil {
		t.spare = b
	}
	if o.out.size >= t.cfg.FileBytes || o.groups*len(o.table.Columns) >= maxFileChunks {
		return t.close(o)
	}
	return nil
}

// output returns an open file for b's rows: the one of its day, unless the table has been widened since in a way that
// these rows need.
func (t *tableWriter) output(b *buffer) (*output, error) {
	t.clock++
	for _, o := range t.open {
		if o.day != b.day {
			continue
		}
		if o.table.TimeUnit == t.table.TimeUnit && !b.needsMoreThan(len(o.table.Columns)) {
			o.used = t.clock
			return o, nil
		}
		if err := t.close(o); err != nil {
			return nil, err
		}
		break
	}
	if len(t.open) >= t.cfg.OpenFiles {
		oldest := slices.MinFunc(t.open, func(a, b *output) int { return int(a.used - b.used) })
		if err := t.close(oldest); err != nil {
			return nil, err
		}
	}
	return t.create(b.day)
}

func (t *tableWriter) create(day int64) (*output, error) {
	if t.form == nil {
		t.form = newForm(t.table, t.keys, t.cfg, t.enc.codec)
	}
	t.parts[day]++
	prefix := t.table.prefix
	if t.rejected {
		prefix = RejectedPrefix + t.table.Table + "/"
	}
	o := &output{day: day, table: t.table, form: t.form, used: t.clock}
	o.file = File{Spool: t.rng.spoolFile(len(t.files.names) + 1), Table: t.table.Table, Rejected: t.rejected}
	o.file.Key, o.file.Partition = t.rng.fileKey(prefix, t.cfg.Pattern, day, t.parts[day])
	// A build of the same range that was cut short may have left a file of this name. Nobody reads it.
	if err := t.dir.Remove(o.file.Spool); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := t.dir.Create(o.file.Spool)
	if err != nil {
		return nil, err
	}
	t.files.names = append(t.files.names, o.file.Spool)
	o.out = sums{file: f, hash: sha256.New()}
	o.w = parquet.NewWriter(&o.out, o.form.options...)
	t.open = append(t.open, o)
	return o, nil
}

// close ends a file and makes it durable.
func (t *tableWriter) close(o *output) error {
	t.open = slices.DeleteFunc(t.open, func(p *output) bool { return p == o })
	if t.groupOf == o {
		t.group, t.groupOf = nil, nil
	}
	err := o.w.Close()
	if err == nil {
		err = o.out.file.Sync()
	}
	if err = errors.Join(err, o.out.file.Close()); err != nil {
		return fmt.Errorf("finish %s: %w", o.file.Spool, err)
	}
	o.file.Size = o.out.size
	o.out.hash.Sum(o.file.SHA256[:0])
	t.files.done = append(t.files.done, o.file)
	return nil
}

func (t *tableWriter) finish() error {
	if err := t.flushAll(); err != nil {
		return err
	}
	for len(t.open) > 0 {
		if err := t.close(t.open[0]); err != nil {
			return err
		}
	}
	return nil
}

// abort closes what is open without finishing it.
func (t *tableWriter) abort() (err error) {
	for _, o := range t.open {
		err = errors.Join(err, o.out.file.Close())
	}
	t.open = nil
	return err
}

// needsMoreThan tells whether rows have values in a column beyond the first n.
func (b *buffer) needsMoreThan(n int) bool {
	for _, c := range b.cols[min(n, len(b.cols)):] {
		if c.len() > 0 {
			return true
		}
	}
	return false
}
