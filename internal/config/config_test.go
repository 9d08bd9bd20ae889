package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/record"
)

// load loads the text as leat.yaml.
func load(t *testing.T, text string, env ...string) (*config.Loaded, error) {
	t.Helper()
	return config.Load(config.Source{
		File: "leat.yaml", Env: env,
		Read: func(string) ([]byte, error) { return []byte(text), nil },
	})
}

func mustLoad(t *testing.T, text string, env ...string) *config.Loaded {
	t.Helper()
	l, err := load(t, text, env...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestDefaultsAreValid(t *testing.T) {
	l, err := config.Load(config.Source{})
	if err != nil {
		t.Fatal(err)
	}
	if l.Config.DataDir != "./leat-data" || l.Config.Store.Dir != "lake" || len(l.Warnings) != 0 {
		t.Fatalf("%+v", l.Config)
	}
}

func TestErrorsNamePlaceKeyAndRemedy(t *testing.T) {
	cases := map[string]struct {
		text string
		want []string
	}{
		"typo in a key":        {"lake:\n  row_group_byts: 1\n", []string{`leat.yaml:2:`, `"lake.row_group_byts"`, `did you mean "row_group_bytes"?`}},
		"typo at the top":      {"expot:\n  poll: 1s\n", []string{`leat.yaml:1:`, `did you mean "export"?`}},
		"dashes":               {"data-dir: x\n", []string{`did you mean "data_dir"?`}},
		"nothing near":         {"disk:\n  zzzzzz: 1\n", []string{`known here: budget, min_free`}},
		"wrong unit of time":   {"export:\n  poll: 5 parsecs\n", []string{"leat.yaml:2: export.poll:", `"5 parsecs"`, "60s"}},
		"wrong unit of size":   {"disk:\n  budget: 5XB\n", []string{"leat.yaml:2: disk.budget:", `"5XB"`, "GiB"}},
		"text for a number":    {"export:\n  uploads: many\n", []string{"leat.yaml:2: export.uploads:", `"many"`}},
		"text for a bool":      {"lake:\n  provenance: perhaps\n", []string{"lake.provenance", "neither true nor false"}},
		"list for a block":     {"disk: [1]\n", []string{"leat.yaml:1: disk: want a block of keys, got a list"}},
		"value for a block":    {"disk: 5\n", []string{"leat.yaml:1: disk: want a block of keys"}},
		"not YAML":             {"a: b: c\n", []string{"leat.yaml: "}},
		"tab":                  {"disk:\n\tbudget: 1\n", []string{"leat.yaml: line 2"}},
		"a list at the top":    {"- a\n", []string{"leat.yaml:1: want keys and values"}},
		"no network":           {"mqtt: {allow_plain: [10.0.0.0/33]}\n", []string{"leat.yaml:1: mqtt.allow_plain", `"10.0.0.0/33"`}},
		"a key twice":          {"data_dir: a\nhttp: {}\ndata_dir: b\n", []string{"leat.yaml:3: mapping key", "line 1"}},
		"two documents":        {"data_dir: a\n---\ndata_dir: b\n", []string{"more than one document"}},
		"missing variable":     {"store: {s3: {secret_key: \"${env:NOPE}\"}}\n", []string{"store.s3.secret_key", "NOPE is not set"}},
		"missing secret file":  {"store: {s3: {secret_key: \"${file:/no/such}\"}}\n", []string{"store.s3.secret_key", "/no/such"}},
		"endless secret file":  {"store: {s3: {secret_key: \"${file:/dev/zero}\"}}\n", []string{"store.s3.secret_key", "larger than"}},
		"one key of two":       {"store: {s3: {bucket: b, access_key: x}}\n", []string{"store.s3.access_key"}},
		"bucket with scheme":   {"s3_bucket: s3://b/c\n", []string{"store.s3.bucket"}},
		"endpoint sans scheme": {"store: {s3: {bucket: b, endpoint: \"localhost:9000\"}}\n", []string{"store.s3.endpoint"}},
		"bucket named twice":   {"s3_bucket: a\nstore: {s3: {bucket: b}}\n", []string{"s3_bucket", "store.s3.bucket"}},
		"log level":            {"logging: {level: loud}\n", []string{"logging.level", "loud"}},
		"too small a budget":   {"disk: {budget: 5}\n", []string{"disk.budget"}},
		"too large":            {"disk: {budget: 99999999999GiB}\n", []string{"too large"}},
		"malformed filter":     {"ingest: {rules: [{name: a, topics: [\"a/#/b\"]}]}\n", []string{"ingest.rules[0] (a).topics[0]", "a/#/b"}},
		"period as days":       {"ingest: {period: 60d}\n", []string{"ingest.period"}},
		"unknown source":       {"ingest: {rules: [{name: a, topics: [b], source: nope}]}\n", []string{"source", `"nope"`}},
		"source without URL":   {"mqtt: {sources: [{name: a}]}\n", []string{"mqtt.sources[a].url"}},
		"open to the world":    {"mqtt: {listen: \"0.0.0.0:1883\"}\n", []string{"mqtt.listen"}},
		"two tables, one key":  {"s3_bucket: b\ns3_key_prefix: p\ningest: {rules: [{name: a, topics: [a]}, {name: b, topics: [b], table: c}]}\n", []string{"table_prefix"}},
		"prefix, no bucket":    {"s3_key_prefix: p\n", []string{"s3_key_prefix"}},
		"empty data dir":       {"data_dir: \"\"\n", []string{"data_dir is empty"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.text)
			if record.KindOf(err) != record.Invalid {
				t.Fatalf("got %v, want an error of kind invalid", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
			if record.HintOf(err) == "" {
				t.Errorf("%q has no hint", err)
			}
		})
	}
}

func TestAllProblemsAreToldAtOnce(t *testing.T) {
	_, err := load(t, "nope: 1\ndisk:\n  budget: 1XB\n")
	if err == nil || !strings.Contains(err.Error(), "leat.yaml:1:") || !strings.Contains(err.Error(), "leat.yaml:3:") {
		t.Fatalf("got %v, want both places", err)
	}
}

func TestUnitsAndBareNumbers(t *testing.T) {
	c := mustLoad(t, "export: {poll: 2, retry_max: 5m, retry_min: 500ms, clock_wait: 1d, uploads: \"3\"}\ndisk: {budget: 1GiB, min_free: 2 GB}\n").Config
	if c.Export.Poll != 2*time.Second || c.Export.RetryMax != 5*time.Minute || c.Export.ClockWait != 24*time.Hour ||
		c.Export.RetryMin != 500*time.Millisecond || c.Export.Uploads != 3 {
		t.Errorf("%+v", c.Export)
	}
	if c.Disk.Budget != 1<<30 || c.Disk.MinFree != 2e9 {
		t.Errorf("%+v", c.Disk)
	}
}

func TestFlagsWinOverVariablesOverFileOverDefaults(t *testing.T) {
	l, err := config.Load(config.Source{
		File: "leat.yaml",
		Read: func(string) ([]byte, error) {
			return []byte("data_dir: file\ndisk: {budget: 1GiB, min_free: 1GiB}\n"), nil
		},
		Env:   []string{"LEAT_DATA_DIR=variable", "LEAT_DISK_BUDGET=2GiB", "OTHER=1"},
		Flags: map[string]string{"data_dir": "flag"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c := l.Config; c.DataDir != "flag" || c.Disk.Budget != 2<<30 || c.Disk.MinFree != 1<<30 || c.Logging.Level != "info" {
		t.Fatalf("%+v", c)
	}
}

func TestBadFlagsAndVariablesAreNamed(t *testing.T) {
	_, err := load(t, "", "LEAT_DISK_BUDGET=lots")
	if err == nil || !strings.Contains(err.Error(), "environment variable LEAT_DISK_BUDGET: disk.budget") {
		t.Errorf("got %v", err)
	}
	_, err = config.Load(config.Source{Flags: map[string]string{"disk.budget": "x"}, Names: map[string]string{"disk.budget": "--disk-budget"}})
	if err == nil || !strings.Contains(err.Error(), "--disk-budget: disk.budget") {
		t.Errorf("got %v", err)
	}
}

func TestUnknownVariablesAreWarnedAbout(t *testing.T) {
	l := mustLoad(t, "", "LEAT_DATADIR=x", "LEAT_CONFIG=y", "PATH=z")
	if len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "LEAT_DATADIR") {
		t.Fatalf("%q", l.Warnings)
	}
}

func TestVariablesOfKeysAreDistinct(t *testing.T) {
	seen := map[string]string{}
	for _, k := range config.Keys() {
		if !k.Scalar {
			continue
		}
		name := config.Variable(k.Path)
		if seen[name] != "" {
			t.Errorf("%s and %s share %s", seen[name], k.Path, name)
		}
		seen[name] = k.Path
	}
	if seen["LEAT_STORE_S3_SECRET_KEY"] == "" || len(seen) < 20 {
		t.Fatalf("%d variables: too few to be all", len(seen))
	}
}

func TestTheGuidancesNamesWorkAsTheyStandThere(t *testing.T) {
	l := mustLoad(t, `{ "region": "eu-west-1", "parquet_period": 60, "s3_bucket": "plant", "s3_key_prefix": "myAwesomeDataSet" }`)
	c := l.Config
	if c.Store.S3.Region != "eu-west-1" || c.Store.S3.Bucket != "plant" || c.Store.S3.Prefix != "myAwesomeDataSet/" || c.Store.TablePrefix {
		t.Errorf("%+v", c.Store)
	}
	if c.Ingest.Period != time.Minute {
		t.Errorf("period %s", c.Ingest.Period)
	}
}

func TestTheLogManagerBlockIsHonoured(t *testing.T) {
	l := mustLoad(t, `{ "logsUploaderConfiguration": { "systemLogsConfiguration": { "uploadToCloudWatch": "true" },
		"componentLogsConfigurationMap": { "com.iot.ingest.parquet": { "minimumLogLevel": "WARN", "diskSpaceLimit": "20",
		"diskSpaceLimitUnit": "MB", "deleteLogFileAfterCloudUpload": "false" } } }, "periodicUploadIntervalSec": "300" }`)
	if g := l.Config.Logging; g.Level != "warn" || g.DiskLimit != 20e6 || g.File != config.LogFile {
		t.Errorf("%+v", g)
	}
	_, err := load(t, `{ "logsUploaderConfiguration": { "componentLogsConfigurationMap": { "a": {}, "b": {} } } }`)
	if err == nil || !strings.Contains(err.Error(), "a, b") || !strings.Contains(record.HintOf(err), `"leat"`) {
		t.Errorf("got %v", err)
	}
}

func TestExternalSourcesSwitchTheBrokerOffUnlessItIsAskedFor(t *testing.T) {
	const source = "mqtt: {sources: [{name: plant, url: \"mqtt://10.0.0.1\", mqtt_timeout: 0}]"
	c := mustLoad(t, source+"}\n").Config
	if c.HasBroker() || c.MQTT.Sources[0].Window != 4096 || c.MQTT.Sources[0].Timeout != 0 {
		t.Errorf("%+v", c.MQTT)
	}
	if c := mustLoad(t, source+", listen: \"127.0.0.1:1884\"}\n").Config; c.MQTT.Listen != "127.0.0.1:1884" {
		t.Errorf("%+v", c.MQTT)
	}
	if c := mustLoad(t, source+"}\n", "LEAT_MQTT_LISTEN=127.0.0.1:1885").Config; c.MQTT.Listen != "127.0.0.1:1885" {
		t.Errorf("%+v", c.MQTT)
	}
	if c := mustLoad(t, "ingest: {mqtt_timeout: 7}\n"+source[:len(source)-len(", mqtt_timeout: 0}]")]+"}]}\n").Config; c.MQTT.Sources[0].Timeout != 7*time.Second {
		t.Errorf("%+v", c.MQTT.Sources[0])
	}
}

func TestListsTakeCommas(t *testing.T) {
	c := mustLoad(t, "", "LEAT_HTTP_LISTEN=0.0.0.0:80", "LEAT_HTTP_ALLOW_PLAIN=10.0.0.0/8, 192.168.0.0/16").Config
	if len(c.HTTP.AllowPlain) != 2 || c.HTTP.AllowPlain[1].String() != "192.168.0.0/16" {
		t.Errorf("%v", c.HTTP.AllowPlain)
	}
}

func TestShowHidesSecretsAndLoadsAgain(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("fromfile\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := "disk: {budget: 3GiB}\nstore:\n  s3: {bucket: b, access_key: \"${env:ID}\", secret_key: \"${file:key}\", session_token: naked}\n"
	src := config.Source{
		File: filepath.Join(dir, "leat.yaml"), Env: []string{"ID=fromenv"},
		Read: func(string) ([]byte, error) { return []byte(text), nil },
	}
	l, err := config.Load(src)
	if err != nil {
		t.Fatal(err)
	}
	if s3 := l.Config.Store.S3; s3.AccessKey != "fromenv" || s3.SecretKey != "fromfile" {
		t.Fatalf("%+v", s3)
	}
	shown, err := l.Show()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"fromenv", "fromfile", "naked"} {
		if strings.Contains(string(shown), secret) {
			t.Errorf("shows %s:\n%s", secret, shown)
		}
	}
	text = string(shown)
	again, err := config.Load(src)
	if err != nil {
		t.Fatalf("%v in\n%s", err, shown)
	}
	again.Config.Store.S3.SessionToken = "naked" // what was written out cannot come back
	second, err := again.Show()
	if err != nil || string(second) != string(shown) {
		t.Errorf("%v; shown again:\n%s\nwas\n%s", err, second, shown)
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1": 1, "1_000": 1000, "1KB": 1000, "1k": 1024, "1.5 GiB": 3 << 29, "2TiB": 2 << 40, "-1": -1, "20MB": 20e6,
	} {
		if got, err := config.ParseSize(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "GiB", "1.5", "1 2", "1PB", "9223372036854775808", "9999999TiB", "0x10"} {
		if got, err := config.ParseSize(in); err == nil {
			t.Errorf("%q: %d, want an error", in, got)
		}
	}
	for in, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1 << 10: "1.00 KiB", 20 << 20: "20.0 MiB", 250 << 30: "250 GiB"} {
		if got := config.FormatSize(in); got != want {
			t.Errorf("%d: %s, want %s", in, got, want)
		}
	}
}

func TestDurations(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"60": time.Minute, "60s": time.Minute, "0.5": 500 * time.Millisecond, "1h30m": 90 * time.Minute, "7d": 168 * time.Hour, "0": 0,
	} {
		if got, err := config.ParseDuration(in); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "s", "1 hour", "1e99", "9999999d"} {
		if got, err := config.ParseDuration(in); err == nil {
			t.Errorf("%q: %v, want an error", in, got)
		}
	}
}

// FuzzLoad holds that no text makes Load panic, and that what it accepts can be shown.
func FuzzLoad(f *testing.F) {
	for _, s := range []string{
		"", "data_dir: x", "disk: {budget: 1GiB}", "a: &a [*a]", "store: {s3: {bucket: b}}", "{", "- 1", "auth: {users: [{name: a}]}",
		"x: &x {disk: {budget: 1}}\n<<: *x", "disk: null", "? {a: b}\n: c", "region: \"${env:A}\"", "lake: !!binary aGk=",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := config.Load(config.Source{File: "f", Read: func(string) ([]byte, error) { return []byte(text), nil }})
		if err != nil {
			return
		}
		if _, err := l.Show(); err != nil {
			t.Fatal(err)
		}
	})
}
