package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// hidden stands in for a secret that was written into the file itself.
const hidden = "(hidden)"

// Show writes the effective configuration as YAML: every key with its value, secrets hidden. What was written as
// ${env:…} or ${file:…} is shown so, and can be loaded again.
func (l *Loaded) Show() ([]byte, error) {
	n := l.render(reflect.ValueOf(l.Config), "")
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return nil, fmt.Errorf("render configuration: %w", err)
	}
	return buf.Bytes(), enc.Close()
}

// render turns a value into YAML with units that people read.
func (l *Loaded) render(v reflect.Value, path string) *yaml.Node {
	if expr, ok := l.secrets[path]; ok {
		return text(expr)
	}
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
		}
		v = v.Elem()
	}
	t := v.Type()
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return plain("!!str", v.Interface().(time.Duration).String())
	case t.Kind() == reflect.Struct && !readsItself(t):
		return l.renderStruct(v, path)
	case t.Kind() == reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		if v.Len() == 0 {
			n.Style = yaml.FlowStyle
		}
		for i := range v.Len() {
			n.Content = append(n.Content, l.render(v.Index(i), fmt.Sprintf("%s[%d]", path, i)))
		}
		return n
	case t.Kind() == reflect.String && isSecret(path) && v.String() != "":
		return text(hidden)
	case isBytes(path) && v.CanInt():
		return plain("!!str", exactSize(v.Int()))
	}
	n := new(yaml.Node)
	if err := n.Encode(v.Interface()); err != nil {
		return text(fmt.Sprint(v.Interface()))
	}
	return n
}

func (l *Loaded) renderStruct(v reflect.Value, path string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range fields(v.Type()) {
		value := v.FieldByIndex(f.index)
		if omitted(v.Type(), f, value) {
			continue
		}
		n.Content = append(n.Content, plain("!!str", f.name), l.render(value, join(path, f.name)))
	}
	return n
}

// omitted reports whether the field says omitempty and is empty.
func omitted(t reflect.Type, f field, v reflect.Value) bool {
	tag := t.FieldByIndex(f.index).Tag.Get("yaml")
	return strings.Contains(tag, ",omitempty") && (v.IsZero() || (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0)
}

func text(s string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(s)
	return n
}

func plain(tag, s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: s} }

// isSecret tells from its name that a key holds a secret. A test lists the keys it finds.
func isSecret(path string) bool {
	name := path[strings.LastIndexByte(path, '.')+1:]
	for _, word := range []string{"password", "secret", "token"} {
		if strings.Contains(name, word) && !strings.HasSuffix(name, "_file") {
			return true
		}
	}
	return false
}

// isBytes tells from its name that a key counts bytes.
func isBytes(path string) bool {
	name := path[strings.LastIndexByte(path, '.')+1:]
	return strings.HasSuffix(name, "bytes") || strings.HasPrefix(path, "disk.") || name == "disk_limit" ||
		strings.HasSuffix(name, "memory") || strings.HasSuffix(name, "_size")
}

// exactSize writes bytes with the largest unit that loses nothing.
func exactSize(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n != 0 && n%u.size == 0 {
			return fmt.Sprintf("%d%s", n/u.size, u.name)
		}
	}
	return fmt.Sprint(n)
}
