package config

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Stream Manager component is configured by names of its own: as environment variables and, here, as top-level keys of
// the file. Each stands for one of leat's keys; it is moved there before anything is checked, so that errors, defaults
// and Show know only one name. Within the file, leat's own key beside such a name is an error; a variable wins over the
// file, and LEAT_ variables win over these.

// componentName is one of those names.
type componentName struct {
	name string
	path string // of leat's key; "" when the name is accepted and means nothing here
	// convert turns the value into leat's; current is what leat's key says now, or "".
	convert func(value, current string) (string, error)
	// fileOnly names are too general to be taken from the environment.
	fileOnly bool
}

// ComponentNames pairs the names of the Stream Manager component with leat's keys ("" = accepted, without effect).
func ComponentNames() [][2]string {
	var out [][2]string
	for _, c := range componentNames() {
		out = append(out, [2]string{c.name, c.path})
	}
	return out
}

func componentNames() []componentName {
	const exports = "stream_manager.exports."
	same := func(value, _ string) (string, error) { return value, nil }
	return []componentName{
		{name: "STREAM_MANAGER_STORE_ROOT_DIR", path: "data_dir", convert: absolute},
		{name: "STREAM_MANAGER_SERVER_PORT", path: "stream_manager.listen", convert: onPort},
		{name: "STREAM_MANAGER_AUTHENTICATE_CLIENT", path: "stream_manager.authenticate", convert: same},
		{name: "STREAM_MANAGER_EXPORTER_MAX_BANDWIDTH", path: exports + "max_bandwidth", convert: same},
		{name: "STREAM_MANAGER_EXPORTER_THREAD_POOL_SIZE", path: exports + "threads", convert: same},
		{name: "STREAM_MANAGER_THREAD_POOL_SIZE", path: exports + "threads", convert: same},
		{
			name: "STREAM_MANAGER_EXPORTER_S3_DESTINATION_MULTIPART_UPLOAD_MIN_PART_SIZE_BYTES",
			path: exports + "s3_part_size", convert: same,
		},
		{name: "STREAM_MANAGER_READ_ONLY_DIRS", path: exports + "s3_directories", convert: same},
		{name: "LOG_LEVEL", path: "logging.level", convert: logLevel, fileOnly: true},
		{name: "JVM_ARGS", fileOnly: true},
	}
}

// clientNames are variables of the clients' that the environment may hold beside ours.
var clientNames = []string{"STREAM_MANAGER_SERVER_HOST"}

func absolute(value, _ string) (string, error) {
	if !filepath.IsAbs(value) {
		return "", fmt.Errorf("%q is no absolute path", value)
	}
	return value, nil
}

// onPort keeps the host of the current address.
func onPort(value, current string) (string, error) {
	host, _, err := net.SplitHostPort(current)
	if err != nil {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, value), nil
}

// logLevel maps the levels that slog does not have.
func logLevel(value, _ string) (string, error) {
	if strings.EqualFold(value, "TRACE") {
		return "debug", nil
	}
	return strings.ToLower(value), nil
}

// moveComponentKeys moves such names from the top level of the file to leat's keys.
func (w *walker) moveComponentKeys(root *yaml.Node) (warnings []string) {
	for _, c := range componentNames() {
		value := find(root, c.name)
		if value == nil {
			continue
		}
		removeKey(root, c.name)
		if w.component(root, c, value, w.place(value)) {
			warnings = append(warnings, fmt.Sprintf("%s: %s has no effect", w.place(value), c.name))
		}
	}
	return warnings
}

// component sets the key that c stands for from its value in the file; ignored tells that there is none.
func (w *walker) component(root *yaml.Node, c componentName, value *yaml.Node, source string) (ignored bool) {
	switch {
	case value.Kind != yaml.ScalarNode:
		w.fail(value, c.name, "want text, got %s", nodeKind(value))
	case value.Value == "" || value.Tag == "!!null":
	case c.path == "":
		return true
	case findPath(root, c.path) != nil && c.path != "stream_manager.listen":
		w.fail(value, c.name, "%s is set too: keep one of the two", c.path)
	default:
		w.setConverted(root, c, value.Value, source)
	}
	return false
}

func (w *walker) setConverted(root *yaml.Node, c componentName, value, source string) {
	current := ""
	if n := findPath(root, c.path); n != nil {
		current = n.Value
	}
	converted, err := c.convert(value, current)
	if err != nil {
		n := &yaml.Node{Kind: yaml.ScalarNode, Value: value}
		w.sources[n] = source
		w.fail(n, c.name, "%v", err)
		return
	}
	w.set(root, c.path, converted, source)
}

// addComponentVariables sets what the environment says under the component's names. An empty variable says nothing.
func (w *walker) addComponentVariables(root *yaml.Node, env []string) (warnings []string) {
	names := componentNames()
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "STREAM_MANAGER_") || value == "" || slices.Contains(clientNames, name) {
			continue
		}
		at := slices.IndexFunc(names, func(c componentName) bool { return c.name == name && !c.fileOnly })
		if at < 0 {
			warnings = append(warnings, fmt.Sprintf("environment variable %s is not a setting of leat", name))
			continue
		}
		w.setConverted(root, names[at], value, "environment variable "+name)
	}
	return warnings
}

// findPath returns the value at a path of keys, or nil.
func findPath(n *yaml.Node, path string) *yaml.Node {
	for key := range strings.SplitSeq(path, ".") {
		if n = find(n, key); n == nil {
			return nil
		}
	}
	return n
}

func removeKey(n *yaml.Node, key string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = slices.Delete(n.Content, i, i+2)
			return
		}
	}
}
