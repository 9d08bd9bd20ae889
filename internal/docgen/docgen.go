// Package docgen writes the reference pages from what the program itself is made of: the command line's model, and the
// configuration's structs with their comments. A test of cmd/leat fails when the pages in docs/reference are not what it
// writes; the same test with -update writes them.
//
// It reads Go source files below the module's root, so it runs where the source is: in tests, never in the program.
package docgen

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/leat-io/leat/internal/config"
	"go.yaml.in/yaml/v3"
)

const module = "github.com/leat-io/leat/"

// ExitCode is a row of the table of exit codes.
type ExitCode struct {
	Code    int
	Meaning string
}

// Metric is a row of the table of metrics.
type Metric struct {
	Name, Type, Help string
	Labels           []string
}

// Metrics writes the page of the metrics.
func Metrics(list []Metric) string {
	var b strings.Builder
	b.WriteString("# Metrics\n\n<!-- Written by `make docs`. Change the code instead. -->\n\n" +
		"`GET /metrics` at `http.listen` (127.0.0.1:8080) answers in Prometheus form; numbers are taken when asked for. Besides these\n" +
		"there are the usual `go_…` and `process_…`. Counters begin at 0 when leat starts. Of streams, the 20 largest have series.\n\n" +
		"| metric | | labels | |\n|---|---|---|---|\n")
	for _, m := range list {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, strings.Join(m.Labels, ", "), cell(m.Help))
	}
	return b.String()
}

// CLI writes the page of the command line.
func CLI(app *kong.Application, codes []ExitCode) string {
	var b strings.Builder
	b.WriteString("# Command line\n\n<!-- Written by `make docs`. Change the code instead. -->\n\n")
	b.WriteString(app.Help + "\n\nCommands that ask a running leat find it through the socket in its data directory.\n")
	for _, c := range app.Children {
		command(&b, c, "leat")
	}
	b.WriteString("\n## Exit codes\n\n| code | meaning |\n|--:|---|\n")
	for _, c := range codes {
		fmt.Fprintf(&b, "| %d | %s |\n", c.Code, c.Meaning)
	}
	return b.String()
}

func command(b *strings.Builder, n *kong.Node, parent string) {
	if n.Hidden {
		return
	}
	name := parent + " " + n.Name
	if len(n.Children) == 0 {
		fmt.Fprintf(b, "\n## %s\n\n%s\n\n```\n%s\n```\n", name, n.Help, usage(n, name))
		flags(b, n)
		return
	}
	for _, c := range n.Children {
		command(b, c, name)
	}
}

func usage(n *kong.Node, name string) string {
	parts := []string{name}
	for _, p := range n.Positional {
		parts = append(parts, p.Summary())
	}
	if len(n.Flags) > 0 {
		parts = append(parts, "[flags]")
	}
	return strings.Join(parts, " ")
}

func flags(b *strings.Builder, n *kong.Node) {
	if len(n.Positional)+len(n.Flags) == 0 {
		return
	}
	b.WriteString("\n| | default | |\n|---|---|---|\n")
	for _, p := range n.Positional {
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", p.Summary(), code(p.Default), cell(p.Help))
	}
	for _, f := range n.Flags {
		if f.Hidden || f.Name == "help" {
			continue
		}
		name := "--" + f.Name
		if f.Short != 0 {
			name = fmt.Sprintf("-%c, %s", f.Short, name)
		}
		if !f.IsBool() {
			name += "=" + f.FormatPlaceHolder()
		}
		help := strings.ReplaceAll(f.Help, "${enum}", f.Enum)
		if len(f.Envs) > 0 {
			help += " Variable: `" + strings.Join(f.Envs, "`, `") + "`."
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", strings.ReplaceAll(name, "|", `\|`), code(f.Default), cell(help))
	}
}

// Config writes the page of the configuration. root is the module's directory.
func Config(root string) (string, error) {
	defaults, err := defaultValues()
	if err != nil {
		return "", err
	}
	comments := commentReader{root: root, packages: map[string]map[string]string{}}
	var b strings.Builder
	b.WriteString(configIntro)
	section := ""
	for _, k := range config.Keys() {
		if top, _, _ := strings.Cut(k.Path, "."); strings.TrimSuffix(top, "[]") != section {
			section = strings.TrimSuffix(top, "[]")
			text, err := comments.of(k)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| key | default | |\n|---|---|---|\n", section, text)
			if !isSection(k) {
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.Path, code(defaults[k.Path]), kind(k.Type))
			}
			continue
		}
		text, err := comments.of(k)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.Path, code(defaults[k.Path]), cell(kind(k.Type)+text))
	}
	return b.String(), nil
}

const configIntro = `# Configuration keys

<!-- Written by ` + "`make docs`" + `. Change the comments of the Config structs instead. -->

One YAML file; every key is optional, and unknown keys are errors. ` + "`leat config show`" + ` prints what would run. Times
are written with a unit (` + "`60s`, `5m`, `1d`" + `) or in seconds, sizes with a unit (` + "`512MiB`, `1GB`" + `) or in bytes.
` + "`${env:NAME}` and `${file:PATH}`" + ` stand for values kept elsewhere. Every key outside a list has a variable: LEAT_ and
its path in capitals, with _ for dots (` + "`http.listen` is `LEAT_HTTP_LISTEN`" + `). See also the
[guide](../guide/configuration.md).
`

func isSection(k config.Key) bool {
	return !k.Scalar && k.Type.Kind() == reflect.Struct
}

// kind says in a word what a value is, where the default does not show it.
func kind(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "Time. "
	case t.Kind() == reflect.Slice:
		return "List. "
	case t.Kind() == reflect.Map:
		return "Names with values. "
	}
	return ""
}

// defaultValues flattens what config show prints without a file.
func defaultValues() (map[string]string, error) {
	l, err := config.Load(config.Source{})
	if err != nil {
		return nil, err
	}
	text, err := l.Show()
	if err != nil {
		return nil, err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	out := map[string]string{}
	flatten(root.Content[0], "", out)
	return out, nil
}

func flatten(n *yaml.Node, path string, out map[string]string) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if path != "" {
				key = path + "." + key
			}
			flatten(n.Content[i+1], key, out)
		}
	case yaml.ScalarNode:
		if n.Tag != "!!null" {
			out[path] = n.Value
		}
	}
}

// commentReader finds the comments of struct fields, reading each package once.
type commentReader struct {
	root     string
	packages map[string]map[string]string // package path → Struct.Field → comment
}

func (c *commentReader) of(k config.Key) (string, error) {
	path := k.Owner.PkgPath()
	if c.packages[path] == nil {
		found, err := readComments(filepath.Join(c.root, strings.TrimPrefix(path, module)))
		if err != nil {
			return "", err
		}
		c.packages[path] = found
	}
	return keysForFields(c.packages[path][k.Owner.Name()+"."+k.Field], k.Owner), nil
}

// keysForFields replaces the names of a struct's fields in a comment by the keys that people write.
func keysForFields(text string, owner reflect.Type) string {
	for i := range owner.NumField() {
		f := owner.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if key == "" || key == "-" || len(f.Name) < 3 || f.Name == strings.ToUpper(f.Name) && key == strings.ToLower(f.Name) {
			continue
		}
		text = regexp.MustCompile(`\b`+f.Name+`\b`).ReplaceAllStringFunc(text, func(string) string { return "`" + key + "`" })
	}
	return text
}

func readComments(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					fieldComments(spec.Name.Name, s, out)
				}
			}
			return true
		})
	}
	return out, nil
}

func fieldComments(name string, s *ast.StructType, out map[string]string) {
	for i, f := range s.Fields.List {
		text := f.Doc.Text()
		if text == "" {
			text = f.Comment.Text()
		}
		if text == "" && i > 0 && len(s.Fields.List[i-1].Names) > 0 {
			// A comment often speaks of the field below it, too ("RetryMin and RetryMax bound …").
			above := out[name+"."+s.Fields.List[i-1].Names[0].Name]
			if len(f.Names) > 0 && strings.Contains(above, f.Names[0].Name) {
				text = above
			}
		}
		for _, id := range f.Names {
			out[name+"."+id.Name] = sentence(text)
		}
	}
}

// sentence makes a comment a sentence on one line.
func sentence(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if s == "" {
		return ""
	}
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	if word, _, _ := strings.Cut(s, " "); strings.ContainsAny(word, ":/_") {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + cell(s) + "`"
}

// cell makes a text fit for a table.
func cell(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "|", `\|`) }
