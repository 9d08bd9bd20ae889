package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/leat-io/leat/internal/mqtt"
	"github.com/leat-io/leat/internal/record"
	"go.yaml.in/yaml/v3"
)

// Source is what a configuration is made from. Later entries of this list win over earlier ones.
type Source struct {
	File  string                       // path of the YAML file; "" = none
	Env   []string                     // NAME=value, as os.Environ gives them
	Flags map[string]string            // key path → value, from the command line
	Names map[string]string            // key path → how the flag is called, for error messages
	Read  func(string) ([]byte, error) // reads File; nil = os.ReadFile
}

// Loaded is a configuration and what is to be known about it.
type Loaded struct {
	Config   Config
	File     string   // the file it came from, or ""
	Warnings []string // what is odd but no error
	secrets  map[string]string
}

// Load reads, checks and completes a configuration.
func Load(src Source) (*Loaded, error) {
	w := &walker{
		file: src.File, dir: filepath.Dir(src.File), env: lookupIn(src.Env),
		sources: map[*yaml.Node]string{}, secrets: map[string]string{},
	}
	root, err := readTree(src)
	if err != nil {
		return nil, err
	}
	l := &Loaded{Config: Default(), File: src.File, secrets: w.secrets}
	l.Warnings = slices.Concat(w.moveComponentKeys(root), w.addComponentVariables(root, src.Env), w.addVariables(root, src.Env))
	for _, path := range slices.Sorted(maps.Keys(src.Flags)) {
		w.set(root, path, src.Flags[path], orDefault(src.Names[path], "--"+path))
	}
	w.walk(root, reflect.TypeFor[Config](), "")
	if err := w.err(); err != nil {
		return nil, err
	}
	if err := root.Decode(&l.Config); err != nil {
		return nil, decodeError(src.File, err)
	}
	if err := l.decodeSources(root); err != nil {
		return nil, decodeError(src.File, err)
	}
	if err := l.Config.resolve(w.secrets); err != nil {
		return nil, inFile(src.File, err)
	}
	if err := l.Config.Validate(); err != nil {
		return nil, inFile(src.File, err)
	}
	return l, nil
}

// decodeError puts what the YAML package finds into the form of leat's own errors: file:line: what.
func decodeError(file string, err error) error {
	t, ok := errors.AsType[*yaml.TypeError](err)
	if !ok {
		return record.Errorf(record.Invalid, "%s: %w", file, err)
	}
	lines := make([]string, 0, len(t.Errors))
	for _, e := range t.Errors {
		lines = append(lines, file+":"+strings.TrimPrefix(e, "line "))
	}
	return record.Errorf(record.Invalid, "%s", strings.Join(lines, "\n")).
		WithHint("write each key once; leat config show prints every key with its default")
}

// decodeSources reads the external brokers again, each over the defaults of one, and switches the embedded broker off
// when there are some and nobody said where it should listen.
func (l *Loaded) decodeSources(root *yaml.Node) error {
	section := find(root, "mqtt")
	list := find(section, "sources")
	if list == nil || len(list.Content) == 0 {
		return nil
	}
	m := &l.Config.MQTT
	for i, n := range list.Content {
		m.Sources[i] = mqtt.DefaultSourceConfig()
		m.Sources[i].Timeout = l.Config.Ingest.MQTTTimeout
		if err := n.Decode(&m.Sources[i]); err != nil {
			return err
		}
	}
	for _, key := range []string{"listen", "tls_listen", "ws_listen", "wss_listen"} {
		if find(section, key) != nil {
			return nil
		}
	}
	m.Listen = ""
	return nil
}

// find returns the value of a key of a mapping, or nil.
func find(n *yaml.Node, key string) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			if v := n.Content[i+1]; v.Kind == yaml.AliasNode {
				return v.Alias
			}
			return n.Content[i+1]
		}
	}
	return nil
}

// inFile puts the file's name before an error, which may have a hint of its own.
func inFile(file string, err error) error {
	if file == "" {
		return err
	}
	return fmt.Errorf("%s: %w", file, err)
}

// readTree parses the file into a mapping node; an empty one without a file.
func readTree(src Source) (*yaml.Node, error) {
	empty := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	if src.File == "" {
		return empty, nil
	}
	read := src.Read
	if read == nil {
		read = os.ReadFile
	}
	data, err := read(src.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, record.Errorf(record.NotFound, "config file %s does not exist", src.File).
			WithHint("name one with --config, or leave --config away to run with the defaults; leat config show prints them")
	}
	if err != nil {
		return nil, record.Errorf(record.Invalid, "read config: %w", err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return empty, nil
	} else if err != nil {
		return nil, record.Errorf(record.Invalid, "%s: %s", src.File, strings.TrimPrefix(err.Error(), "yaml: ")).
			WithHint("YAML wants spaces for indentation (no tabs) and one space after each colon")
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, record.Errorf(record.Invalid, "%s: more than one document", src.File).WithHint("remove the line ---")
	}
	root := doc.Content[0]
	switch {
	case root.Kind == yaml.ScalarNode && root.Tag == "!!null":
		return empty, nil
	case root.Kind != yaml.MappingNode:
		return nil, record.Errorf(record.Invalid, "%s:%d: want keys and values, got %s", src.File, root.Line, nodeKind(root)).
			WithHint("leat config show prints a complete file")
	}
	return root, nil
}

func lookupIn(env []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, e := range slices.Backward(env) {
			if k, v, ok := strings.Cut(e, "="); ok && k == name {
				return v, true
			}
		}
		return "", false
	}
}

// Variable is the environment variable of a key: LEAT_ and the path in capitals, with _ for dots.
func Variable(path string) string {
	return "LEAT_" + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// reserved are variables that no key stands behind; other parts of the program read them.
func reserved(name string) bool {
	return name == "LEAT_CONFIG" || strings.HasPrefix(name, "LEAT_TEST_") || name == "LEAT_SQL"
}

// addVariables sets what the environment says and tells about variables that nothing reads.
func (w *walker) addVariables(root *yaml.Node, env []string) (warnings []string) {
	paths := map[string]string{}
	for _, k := range Keys() {
		if k.Scalar {
			paths[Variable(k.Path)] = k.Path
		}
	}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "LEAT_") || reserved(name) {
			continue
		}
		if path, ok := paths[name]; ok {
			w.set(root, path, value, "environment variable "+name)
		} else {
			warnings = append(warnings, fmt.Sprintf("environment variable %s is not a setting of leat", name))
		}
	}
	return warnings
}

// set puts a value at a path of the tree, replacing what is there.
func (w *walker) set(root *yaml.Node, path, value, source string) {
	n := root
	parts := strings.Split(path, ".")
	for _, p := range parts[:len(parts)-1] {
		n = child(n, p, yaml.MappingNode)
	}
	leaf := child(n, parts[len(parts)-1], yaml.ScalarNode)
	*leaf = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Style: yaml.DoubleQuotedStyle}
	w.sources[leaf] = source
}

// child finds or makes the value of a key of a mapping; one of another kind is replaced.
func child(n *yaml.Node, key string, kind yaml.Kind) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != key {
			continue
		}
		v := n.Content[i+1]
		if v.Kind == yaml.AliasNode {
			v = v.Alias
		}
		if kind == yaml.MappingNode && v.Kind != kind {
			*v = yaml.Node{Kind: kind, Tag: "!!map"}
		}
		return v
	}
	v := &yaml.Node{Kind: kind}
	if kind == yaml.MappingNode {
		v.Tag = "!!map"
	}
	n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, v)
	return v
}

// Key is one setting.
type Key struct {
	Path   string
	Type   reflect.Type
	Owner  reflect.Type // the struct that declares it
	Field  string       // its name there
	Scalar bool         // can be set by one value: has an environment variable
	InList bool         // belongs to the elements of a list or map above it
}

// Keys lists every setting in the order of the file. Keys inside lists have [] in their path, inside maps <name>.
func Keys() []Key { return keysOf(reflect.TypeFor[Config](), "", false) }

func keysOf(t reflect.Type, prefix string, inList bool) []Key {
	var out []Key
	for _, f := range fields(t) {
		k := Key{Path: join(prefix, f.name), Type: f.typ, Owner: f.owner, Field: f.goName, InList: inList}
		elem, path := f.typ, k.Path
		nested := inList
		for elem.Kind() == reflect.Pointer {
			elem = elem.Elem()
		}
		switch {
		case isList(elem):
			k.Scalar = !inList
		case elem.Kind() == reflect.Slice:
			elem, path, nested = elem.Elem(), path+"[]", true
		case elem.Kind() == reflect.Map:
			elem, path, nested = elem.Elem(), path+".<name>", true
		case elem.Kind() == reflect.Struct && !readsItself(elem):
		default:
			k.Scalar = !inList
		}
		out = append(out, k)
		if elem.Kind() == reflect.Struct && !readsItself(elem) {
			out = append(out, keysOf(elem, path, nested)...)
		}
	}
	return out
}
