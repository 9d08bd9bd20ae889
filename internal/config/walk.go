package config

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leat-io/leat/internal/record"
	"go.yaml.in/yaml/v3"
)

// walker goes through a YAML tree beside the Go type it will be decoded into. It finds unknown keys, expands ${…},
// turns values with units into what the decoder understands, and remembers which values are secret. Every problem is
// collected with its place, so that one run tells about all of them.
type walker struct {
	file    string // for places; "" when there is none
	dir     string // what relative names in ${file:…} refer to
	env     func(string) (string, bool)
	sources map[*yaml.Node]string // values that do not come from the file: variable or flag
	secrets map[string]string     // key path → the expression it was written as
	errs    []error
}

// place is where a value comes from, in the form editors jump to.
func (w *walker) place(n *yaml.Node) string {
	if s := w.sources[n]; s != "" {
		return s
	}
	return fmt.Sprintf("%s:%d", w.file, n.Line)
}

func (w *walker) fail(n *yaml.Node, path, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	if path != "" {
		msg = path + ": " + msg
	}
	w.errs = append(w.errs, record.Errorf(record.Invalid, "%s: %s", w.place(n), msg))
}

func (w *walker) err() error {
	if len(w.errs) == 0 {
		return nil
	}
	return record.Errorf(record.Invalid, "%w", errors.Join(w.errs...)).
		WithHint("leat config show prints every key with its default; docs/reference/config.md explains them")
}

// walk checks and rewrites n for type t.
func (w *walker) walk(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // "key:" with nothing behind it keeps the default
	}
	switch {
	case n.Kind == yaml.ScalarNode:
		w.scalar(n, t, path)
	case t.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		w.mapping(n, t, path)
	case t.Kind() == reflect.Map && n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			w.walk(n.Content[i+1], t.Elem(), join(path, n.Content[i].Value))
		}
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for i, c := range n.Content {
			w.walk(c, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
		}
	case t.Kind() == reflect.Interface:
	default:
		w.fail(n, path, "want %s, got %s", wanted(t), nodeKind(n))
	}
}

// readsItself reports whether the decoder leaves reading a scalar to the type.
func readsItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[yaml.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func (w *walker) mapping(n *yaml.Node, t reflect.Type, path string) {
	known := fields(t)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := slices.IndexFunc(known, func(f field) bool { return f.name == key.Value })
		if at < 0 {
			w.unknown(key, path, known)
			continue
		}
		w.walk(value, known[at].typ, join(path, key.Value))
	}
}

func (w *walker) unknown(key *yaml.Node, path string, known []field) {
	hint := ""
	if near := nearest(key.Value, known); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	} else if len(known) > 0 && len(known) <= 12 {
		names := make([]string, len(known))
		for i, f := range known {
			names[i] = f.name
		}
		hint = "; known here: " + strings.Join(names, ", ")
	}
	w.fail(key, "", "unknown key %q%s", join(path, key.Value), hint)
}

// scalar expands and converts one value in place.
func (w *walker) scalar(n *yaml.Node, t reflect.Type, path string) {
	if isList(t) {
		w.list(n, t.Elem(), path) // one value, or several with commas between them, where a list is wanted
		return
	}
	if !w.expand(n, path) {
		return
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		d, err := ParseDuration(n.Value)
		w.replace(n, path, "!!str", d.String(), err)
	case readsItself(t):
		w.read(n, t, path)
	case t.Kind() == reflect.Interface:
	case t.Kind() == reflect.String:
		n.Tag = "!!str" // a number where text is wanted is text
	case t.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(n.Value)
		if err != nil {
			err = fmt.Errorf("%q is neither true nor false", n.Value)
		}
		w.replace(n, path, "!!bool", strconv.FormatBool(b), err)
	case isInteger(t):
		i, err := ParseSize(n.Value)
		if err == nil && reflect.Zero(t).CanInt() && reflect.Zero(t).OverflowInt(i) {
			err = fmt.Errorf("%q is too large", n.Value)
		}
		if err == nil && reflect.Zero(t).CanUint() && (i < 0 || reflect.Zero(t).OverflowUint(uint64(i))) {
			err = fmt.Errorf("%q is out of range", n.Value)
		}
		w.replace(n, path, "!!int", strconv.FormatInt(i, 10), err)
	case t.Kind() == reflect.Float64, t.Kind() == reflect.Float32:
		_, err := strconv.ParseFloat(n.Value, 64)
		if err != nil {
			err = fmt.Errorf("%q is not a number", n.Value)
		}
		w.replace(n, path, "!!float", n.Value, err)
	default:
		w.fail(n, path, "want %s, got %q", wanted(t), n.Value)
	}
}

// read lets a type that reads its own text try: an error found here is told with its place.
func (w *walker) read(n *yaml.Node, t reflect.Type, path string) {
	v, ok := reflect.New(t).Interface().(encoding.TextUnmarshaler)
	if !ok {
		return
	}
	err := v.UnmarshalText([]byte(n.Value))
	if _, network := v.(*netip.Prefix); network && err != nil {
		err = fmt.Errorf("%q is no network: want an address and the bits that count, for example 10.0.0.0/24", n.Value)
	}
	if err != nil {
		w.fail(n, path, "%v", err)
	}
}

// isList reports whether t is a list of single values.
func isList(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && (t.Elem().Kind() == reflect.String || readsItself(t.Elem()))
}

func (w *walker) list(n *yaml.Node, elem reflect.Type, path string) {
	if !w.expand(n, path) {
		return
	}
	parts := strings.Split(n.Value, ",")
	source := w.sources[n]
	line := n.Line
	*n = yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: line}
	for _, p := range parts {
		if p = strings.TrimSpace(p); p == "" {
			continue
		}
		c := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: p, Line: line}
		if source != "" {
			w.sources[c] = source
		}
		if readsItself(elem) {
			w.read(c, elem, path)
		}
		n.Content = append(n.Content, c)
	}
}

func (w *walker) replace(n *yaml.Node, path, tag, value string, err error) {
	if err != nil {
		w.fail(n, path, "%v", err)
		return
	}
	n.Tag, n.Value, n.Style = tag, value, 0
}

// expand replaces ${env:NAME} and ${file:NAME} in a value; it reports whether the value is usable.
func (w *walker) expand(n *yaml.Node, path string) bool {
	written := n.Value
	var out strings.Builder
	rest := written
	for {
		at := strings.Index(rest, "${")
		if at < 0 {
			break
		}
		inside, after, closed := strings.Cut(rest[at+2:], "}")
		kind, name, ok := strings.Cut(inside, ":")
		if !closed || !ok || (kind != "env" && kind != "file") {
			// Not ours: policies have variables of their own, such as ${user}.
			out.WriteString(rest[:at+2])
			rest = rest[at+2:]
			continue
		}
		value, err := w.fetch(kind, name)
		if err != nil {
			w.fail(n, path, "%q: %v", written, err)
			return false
		}
		out.WriteString(rest[:at] + value)
		rest = after
	}
	out.WriteString(rest)
	if out.String() != written {
		w.secrets[path] = written
		n.Value, n.Style, n.Tag = out.String(), yaml.DoubleQuotedStyle, "!!str"
	}
	return true
}

// maxSecret bounds what a ${file:…} may hold: a mistaken path can lead to a device without an end.
const maxSecret = 64 << 10

func (w *walker) fetch(kind, name string) (string, error) {
	if kind == "env" {
		v, ok := w.env(name)
		if !ok {
			return "", fmt.Errorf("environment variable %s is not set", name)
		}
		return v, nil
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(w.dir, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxSecret {
		return "", fmt.Errorf("%s is larger than %d bytes", name, maxSecret)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// field is a key that a struct knows.
type field struct {
	name   string
	goName string
	typ    reflect.Type
	owner  reflect.Type // the struct that declares it
	index  []int
}

// fields lists the keys of a struct in order, those of inlined structs among them.
func fields(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if slices.Contains(strings.Split(opts, ","), "inline") {
			for _, inner := range fields(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				out = append(out, inner)
			}
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		out = append(out, field{name: name, goName: f.Name, typ: f.Type, owner: t, index: []int{i}})
	}
	return out
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func isInteger(t reflect.Type) bool {
	return t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64
}

func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a duration such as 60s"
	case t.Kind() == reflect.Struct, t.Kind() == reflect.Map:
		return "a block of keys"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case isInteger(t), t.Kind() == reflect.Float64, t.Kind() == reflect.Float32:
		return "a number"
	default:
		return "text"
	}
}

func nodeKind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a block of keys"
	case yaml.SequenceNode:
		return "a list"
	default:
		return fmt.Sprintf("%q", n.Value)
	}
}

// nearest is the known key that looks most like name, or "" when none is near.
func nearest(name string, known []field) string {
	best, at := "", 1+len(name)/3
	for _, f := range known {
		d := distance(strings.ToLower(name), f.name)
		if strings.ReplaceAll(strings.ToLower(name), "-", "_") == f.name || strings.ReplaceAll(f.name, "_", "") == strings.ToLower(name) {
			d = 0
		}
		if d <= at {
			best, at = f.name, d-1
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap with their neighbour to get from a to b.
func distance(a, b string) int {
	before, last, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(last[j+1]+1, next[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, last, next = last, next, before
	}
	return last[len(b)]
}
