package lake

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/leat-io/leat/internal/record"
)

// Where leat's own objects lie, beside the tables' prefixes: a crawler that is pointed at a table sees only its data.
const (
	RejectedPrefix = "_rejected/"
	ManifestPrefix = "_manifests/"
)

// name is what makes the keys and spool names of a range unique: stream incarnation and offsets. Offsets have twelve
// digits, so that a listing is in their order until a stream has had 10^12 records.
func (r Range) name() string {
	return fmt.Sprintf("%s-%012d-%012d", r.Stream, r.From, r.To)
}

// ManifestKey is the key of the range's manifest.
func (r Range) ManifestKey() string { return ManifestPrefix + r.Node + "/" + r.name() + ".json" }

// SpoolPrefix is what the names of all files of the range in the spool start with.
func (r Range) SpoolPrefix() string { return r.name() + "." }

func (r Range) spoolFile(n int) string { return r.SpoolPrefix() + strconv.Itoa(n) + ".parquet" }

func (r Range) spoolManifest() string { return r.SpoolPrefix() + "json" }

const nanosPerDay = 24 * int64(time.Hour)

// dayOf is the event day of a time that is not negative.
func dayOf(ns int64) int64 { return ns / nanosPerDay }

// expand fills in the pattern for an event day and a cut, giving the directory and the start of the file name.
func expand(pattern string, day int64, cut time.Time) (dir, file string) {
	d, cut := time.Unix(0, day*nanosPerDay).UTC(), cut.UTC()
	s := strings.NewReplacer(
		"{year}", d.Format("2006"), "{yy}", d.Format("06"), "{month}", d.Format("01"), "{day}", d.Format("02"),
		"{hour}", cut.Format("15"), "{minute}", cut.Format("04"),
	).Replace(pattern)
	i := strings.LastIndexByte(s, '/')
	return s[:max(i, 0)], s[i+1:]
}

// fileKey is the key of the part-th file (from 1) of a day, and its partition.
func (r Range) fileKey(prefix, pattern string, day int64, part int) (key, partition string) {
	dir, file := expand(pattern, day, r.Cut)
	suffix := ""
	if part > 1 {
		suffix = "-" + strconv.Itoa(part)
	}
	if dir != "" {
		prefix += dir + "/"
	}
	return prefix + file + r.Node + "-" + r.name() + suffix + ".parquet", dir
}

func validatePattern(pattern string) error {
	hint := "write it like " + DefaultPattern
	fail := func(what string) error {
		return record.Errorf(record.Invalid, "lake.pattern: %q %s", pattern, what).WithHint("%s", hint)
	}
	dir, file := "", pattern
	if i := strings.LastIndexByte(pattern, '/'); i >= 0 {
		dir, file = pattern[:i], pattern[i+1:]
	}
	has := func(s string) bool { return strings.Contains(pattern, s) }
	switch {
	case !has("{day}") || !has("{month}") || !has("{year}") && !has("{yy}"):
		return fail("does not tell days apart: it needs {year} (or {yy}), {month} and {day}")
	case strings.Contains(dir, "{hour}") || strings.Contains(dir, "{minute}"):
		return fail("has the time of the cut in a directory: a partition is a day of event time")
	case strings.HasPrefix(pattern, "/") || strings.Contains("/"+dir+"/", "//") && dir != "" ||
		strings.Contains("/"+dir+"/", "/../") || strings.Contains("/"+dir+"/", "/./"):
		return fail("has an empty, . or .. directory")
	}
	rest := strings.NewReplacer("{year}", "", "{yy}", "", "{month}", "", "{day}", "", "{hour}", "", "{minute}", "").
		Replace(dir + file)
	if strings.ContainsAny(rest, "{}") {
		return fail("has an unknown {…}: year, yy, month, day, hour and minute are known")
	}
	return nil
}
