package query

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/query/wire"
	"github.com/leat-io/leat/internal/vfs"
)

// snapshot is the directory of one query: query/<name>/snapshot holds <table>/<partition>/<file> as hard links,
// query/<name>/scratch is the worker's to write.
type snapshot struct {
	data   *vfs.Dir
	base   string
	tables map[string]bool // that have a file
	made   map[string]bool // directories
}

func newSnapshot(data *vfs.Dir) (*snapshot, error) {
	s := &snapshot{data: data, base: queryDir + "/" + randomName(), tables: map[string]bool{}, made: map[string]bool{}}
	for _, dir := range []string{"/snapshot", "/scratch"} {
		if err := data.MkdirAll(s.base + dir); err != nil {
			return nil, errors.Join(err, data.RemoveAll(s.base))
		}
	}
	return s, nil
}

func (s *snapshot) remove() error { return s.data.RemoveAll(s.base) }

// paths are the absolute paths of the two directories.
func (s *snapshot) paths() (snap, scratch string, err error) {
	base, err := abs(s.data.Path(), filepath.FromSlash(s.base))
	return filepath.Join(base, "snapshot"), filepath.Join(base, "scratch"), err
}

// crowds reports whether less than minFree bytes of the disk are free while the worker has written some of them.
func (s *snapshot) crowds(minFree int64) bool {
	if minFree <= 0 {
		return false
	}
	space, err := s.data.Space()
	return err == nil && space.Free < minFree && s.written(s.base+"/scratch")
}

// written reports whether a file below dir has a byte.
func (s *snapshot) written(dir string) bool {
	entries, err := s.data.ReadDir(dir)
	if err != nil { // it comes and goes as the worker likes
		return false
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		if e.IsDir() {
			return s.written(dir + "/" + e.Name())
		}
		info, err := e.Info()
		return err == nil && info.Size() > 0
	})
}

func (s *snapshot) filled() []string { return slices.Sorted(maps.Keys(s.tables)) }

// place is the name of a file in the snapshot. Base names are unique in a table: they hold node, stream and range.
func (s *snapshot) place(f lake.File) string {
	return s.base + "/snapshot/" + path.Join(tableDir(f.Table), path.Clean("/" + f.Partition)[1:], path.Base(f.Key))
}

// tableDir keeps a table's name in one element of a path.
func tableDir(table string) string { return strings.ReplaceAll(table, "/", "%2F") }

// link links name, below the data directory, to f's place. Where links do not reach (another file system) it copies.
func (s *snapshot) link(name string, f lake.File) error {
	return s.linkAs(name, f, s.place(f))
}

func (s *snapshot) linkAs(name string, f lake.File, place string) error {
	if err := s.ensure(path.Dir(place)); err != nil {
		return err
	}
	err := s.data.Link(name, place)
	switch {
	case errors.Is(err, fs.ErrExist):
		err = nil // the same file, read for two parts of the statement
	case errors.Is(err, syscall.EXDEV), errors.Is(err, syscall.EMLINK), errors.Is(err, syscall.EPERM):
		err = s.copy(name, place)
	}
	if err != nil {
		return err
	}
	s.tables[f.Table] = true
	return nil
}

func (s *snapshot) ensure(dir string) error {
	if s.made[dir] {
		return nil
	}
	if err := s.data.MkdirAll(dir); err != nil {
		return err
	}
	s.made[dir] = true
	return nil
}

func (s *snapshot) copy(from, to string) (err error) {
	src, err := s.data.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := s.data.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// wireTable describes a table to the worker.
func wireTable(t lake.Table) wire.Table {
	out := wire.Table{Name: t.Table, Dir: tableDir(t.Table)}
	for _, c := range t.Columns {
		out.Columns = append(out.Columns, wire.Column{Name: c.Name, Type: sqlType(c, t.TimeUnit)})
	}
	return out
}

func sqlType(c lake.Column, unit lake.TimeUnit) string {
	switch c.Type {
	case lake.Double:
		return "DOUBLE"
	case lake.Bigint:
		return "BIGINT"
	case lake.Boolean:
		return "BOOLEAN"
	case lake.JSON:
		return "JSON"
	case lake.Binary:
		return "BLOB"
	case lake.Timestamp:
		if unit == lake.Nano && c.Name == wire.ColumnTime {
			return "TIMESTAMP_NS"
		}
		return "TIMESTAMP"
	}
	return "VARCHAR"
}

// hiveColumns are the partition columns that a pattern of keys makes. They are INTEGER where the value is one number,
// so that both month = 5 and month = '05' find May, as in Athena with a projected integer and with a crawled string.
func hiveColumns(pattern string) []wire.Hive {
	var out []wire.Hive
	dirs := strings.Split(pattern, "/")
	for _, dir := range dirs[:len(dirs)-1] {
		name, value, ok := strings.Cut(dir, "=")
		if !ok {
			continue
		}
		typ := "VARCHAR"
		if strings.HasPrefix(value, "{") && strings.HasSuffix(value, "}") && strings.Count(value, "{") == 1 {
			typ = "INTEGER"
		}
		out = append(out, wire.Hive{Name: name, Type: typ})
	}
	return out
}

// extent is what the catalog knows about a file's rows.
func extent(f lake.TableFile) wire.Extent {
	e := wire.Extent{
		Partition: map[string]int64{}, Min: floorMicros(f.MinTime), Max: floorMicros(f.MaxTime), HasTime: f.Rows > 0,
	}
	for dir := range strings.SplitSeq(f.Partition, "/") {
		name, value, ok := strings.Cut(dir, "=")
		if n, err := strconv.ParseInt(value, 10, 64); ok && err == nil {
			e.Partition[strings.ToLower(name)] = n
		}
	}
	return e
}

func floorMicros(ns int64) int64 {
	us := ns / 1000
	if ns%1000 < 0 {
		us--
	}
	return us
}
