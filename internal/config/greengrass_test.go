package config_test

import (
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/record"
)

func TestComponentNamesStandForOurKeys(t *testing.T) {
	file := `
STREAM_MANAGER_STORE_ROOT_DIR: /var/lib/leat
STREAM_MANAGER_SERVER_PORT: "9099"
STREAM_MANAGER_AUTHENTICATE_CLIENT: "false"
STREAM_MANAGER_EXPORTER_MAX_BANDWIDTH: "2048"
STREAM_MANAGER_EXPORTER_THREAD_POOL_SIZE: "7"
STREAM_MANAGER_EXPORTER_S3_DESTINATION_MULTIPART_UPLOAD_MIN_PART_SIZE_BYTES: "6000000"
STREAM_MANAGER_READ_ONLY_DIRS: /data/a,/data/b
LOG_LEVEL: TRACE
JVM_ARGS: -Xmx64m
`
	l := mustLoad(t, file)
	c := l.Config
	sm := c.StreamManager
	if c.DataDir != "/var/lib/leat" || sm.Listen != "127.0.0.1:9099" || sm.Authenticate == nil || *sm.Authenticate || c.Logging.Level != "debug" {
		t.Errorf("data_dir %q, listen %q, authenticate %v, level %q", c.DataDir, sm.Listen, sm.Authenticate, c.Logging.Level)
	}
	x := sm.Exports
	if x.MaxBandwidth != 2048 || x.Threads != 7 || x.S3PartSize != 6_000_000 || strings.Join(x.S3Directories, " ") != "/data/a /data/b" {
		t.Errorf("exports: %+v", x)
	}
	if len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "JVM_ARGS has no effect") {
		t.Errorf("warnings %q: only the one without effect is worth a line", l.Warnings)
	}
}

func TestComponentVariables(t *testing.T) {
	file := "stream_manager:\n  listen: 127.0.0.2:8088\nSTREAM_MANAGER_THREAD_POOL_SIZE: 3\n"
	l := mustLoad(t, file, "STREAM_MANAGER_SERVER_PORT=9000", "STREAM_MANAGER_THREAD_POOL_SIZE=4", "STREAM_MANAGER_SERVER_HOST=10.0.0.1",
		"STREAM_MANAGER_AUTHENTICATE_CLIENT=", "STREAM_MANAGER_COLOUR=blue", "LOG_LEVEL=nonsense", "LEAT_STREAM_MANAGER_EXPORTS_THREADS=5")
	sm := l.Config.StreamManager
	if sm.Listen != "127.0.0.2:9000" {
		t.Errorf("listen %q: the variable gives the port, the file the host", sm.Listen)
	}
	if sm.Exports.Threads != 5 || sm.Authenticate != nil {
		t.Errorf("threads %d, authenticate %v: LEAT_ wins, an empty variable says nothing", sm.Exports.Threads, sm.Authenticate)
	}
	if len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "STREAM_MANAGER_COLOUR") {
		t.Errorf("warnings %q", l.Warnings)
	}
}

func TestComponentNamesAreChecked(t *testing.T) {
	for name, c := range map[string]struct{ file, env, want string }{
		"relative directory": {"STREAM_MANAGER_STORE_ROOT_DIR: data\n", "", "leat.yaml:1: STREAM_MANAGER_STORE_ROOT_DIR"},
		"both names":         {"STREAM_MANAGER_THREAD_POOL_SIZE: 3\nstream_manager: {exports: {threads: 4}}\n", "", "keep one of the two"},
		"no number":          {"STREAM_MANAGER_THREAD_POOL_SIZE: many\n", "", "leat.yaml:1: stream_manager.exports.threads"},
		"a block":            {"STREAM_MANAGER_SERVER_PORT: {a: 1}\n", "", "want text"},
		"a bad variable":     {"", "STREAM_MANAGER_SERVER_PORT=http", "port"},
	} {
		t.Run(name, func(t *testing.T) {
			env := []string{}
			if c.env != "" {
				env = append(env, c.env)
			}
			_, err := load(t, c.file, env...)
			if err == nil || record.KindOf(err) != record.Invalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
