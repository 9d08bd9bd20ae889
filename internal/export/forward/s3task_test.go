package forward

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/record"
)

func TestFilePath(t *testing.T) {
	for in, want := range map[string]string{
		"file:/data/x": "/data/x", "file:///data/x": "/data/x", "FILE:/data/x": "/data/x", "file://localhost/data/x": "/data/x",
		"file:/a%20b/%C3%BC": "/a b/ü", "file:/a b+c": "/a b+c", "file:/a/./b//c/": "/a/b/c", "file:/a/../b": "/b",
		"file:/../etc": "/etc", "file:/a%2Fb": "/a/b", "file:/a%23b%3Fc": "/a#b?c", "file:////a": "/a",
	} {
		if got, err := filePath(in); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
	for in, about := range map[string]string{
		"/data/x": "is a path", "data/x": "is a path", "x": "is a path", "./a:b": "is a path", "file:x": "not absolute", "file:": "not absolute",
		"http://h/x": "scheme http", "s3://b/k": "scheme s3", "file://data/x": `host "data"`, "file:/a?b": "query",
		"file:/a#b": "fragment", "file:/a%zz": "percent", "file:/a%": "percent", "file:/a%00b": "zero byte",
	} {
		_, err := filePath(in)
		if record.KindOf(err) != record.Invalid || err == nil || !strings.Contains(err.Error(), about) ||
			!strings.Contains(record.HintOf(err), "file:/absolute/path") {
			t.Errorf("%q: %v (%s), want an Invalid error about %q that says what to write", in, err, record.HintOf(err), about)
		}
	}
}

func TestTasksThatAreNone(t *testing.T) {
	const good = `{"inputUrl":"file:/data/x","bucket":"bkt","key":"k/!{timestamp:yyyy/MM/dd}/f","userMetadata":{"a":"b"}}`
	check := func(payload string) error {
		d, err := decodeTask([]byte(payload))
		if err != nil {
			return err
		}
		return d.validate()
	}
	for _, payload := range []string{
		good, `{"inputUrl":"file:/x","bucket":"a.b-c.d0","key":"/a//b/","userMetadata":null,"more":[1,{}]}`,
		`{"inputUrl":"file:/x","bucket":"192.168.0.a","key":"$a&b=c+d,e;f:g@h!(i)*j_k-ü"}`,
	} {
		if err := check(payload); err != nil {
			t.Errorf("%s: %v", payload, err)
		}
	}
	with := func(from, to string) string { return strings.Replace(good, from, to, 1) }
	for payload, about := range map[string]string{
		"": "JSON", "null": "JSON", "[]": "JSON", `"x"`: "JSON", "{": "JSON", good + "{}": "JSON", "\xff": "UTF-8", "{}": "must be there",
		with(`"bkt"`, "7"): "bucket is not a string", with(`"file:/data/x"`, "[]"): "inputUrl is not a string",
		with(`{"a":"b"}`, `{"a":7}`): "userMetadata", with(`"bucket"`, `"Bucket"`): "must be there", with(`"bkt"`, `""`): "must be there",
		with("bkt", "SomeBucket"): "bucket's name", with("bkt", "ab"): "bucket's name", with("bkt", "-ab"): "bucket's name",
		with("bkt", "a..b"): "bucket's name", with("bkt", "1.2.3.4"): "bucket's name", with("bkt", strings.Repeat("b", 64)): "bucket's name",
		with("/f", "/f g"): "not allowed", with("/f", "/{f}"): "not allowed", with("/f", `/f\\`): "not allowed", with("/f", "/f!{x"): "not allowed",
		with("/f", strings.Repeat("f", 1024)): "1024", with(`"a":`, `"a b":`): `"a b"`, with(`"a":`, `"ä":`): `"ä"`, with(`"a":`, `"":`): `""`,
		with(`"a":`, `"$AWS-GG-x":`): "reserved", with(`"b"}`, `"ü"}`): "ASCII", with(`"b"}`, `"\n"}`): "ASCII",
		with(`"a":"b"`, `"a":"b","A":"c"`): "twice", `{"inputUrl":"` + strings.Repeat("x", maxTask) + `"}`: "at most",
	} {
		err := check(payload)
		if record.KindOf(err) != record.Invalid || err == nil || !strings.Contains(err.Error(), about) || record.HintOf(err) == "" {
			t.Errorf("%.120s: %v (%s), want an Invalid error about %s", payload, err, record.HintOf(err), about)
		}
	}
}

// sourceDir is an allowed directory with files, links and other things in it, and a secret beside it.
func sourceDir(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "allowed")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "sub"), 0o700),
		os.WriteFile(filepath.Join(top, "secret"), []byte("secret"), 0o600),
		os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600),
		os.WriteFile(filepath.Join(dir, "sub", "file"), []byte("content"), 0o600),
		os.Symlink("sub/file", filepath.Join(dir, "inside")),
		os.Symlink("../file", filepath.Join(dir, "sub", "up")),
		os.Symlink("../secret", filepath.Join(dir, "outside")),
		os.Symlink(filepath.Join(dir, "file"), filepath.Join(dir, "absolute")),
		os.Symlink("..", filepath.Join(dir, "parent")),
		os.Symlink("nowhere", filepath.Join(dir, "dangling")),
		syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600),
		syscall.Mknod(filepath.Join(dir, "socket"), syscall.S_IFSOCK|0o600, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFilesAreConfined(t *testing.T) {
	dir := sourceDir(t)
	nested := []string{"/nowhere", dir, filepath.Join(dir, "sub") + "/"}
	for _, name := range []string{"file", "sub/file", "inside"} {
		s, err := openSource(nested[:2], filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := io.ReadAll(io.NewSectionReader(s, 0, s.size)); err != nil || string(got) != "content" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for name, test := range map[string]struct {
		directories []string
		path        string
		kind        record.Kind
		hint        string
	}{
		"link out":                       {nested, "outside", record.Denied, setting},
		"absolute link":                  {nested, "absolute", record.Denied, setting},
		"directory that leads out":       {nested, "parent/secret", record.Denied, setting},
		"link out of the inner one":      {nested, "sub/up", record.Denied, setting},
		"beside":                         {nested, "../secret", record.Denied, setting},
		"a name that begins alike":       {nested, "../allowed2/x", record.Denied, setting},
		"no directories":                 {nil, "file", record.Denied, setting},
		"the directory itself":           {nested[:2], ".", record.Denied, setting},
		"a directory":                    {nested[:2], "sub", record.Invalid, "name a file"},
		"a pipe":                         {nested, "pipe", record.Invalid, "name a file"},
		"a socket":                       {nested, "socket", record.Invalid, "name a file"},
		"missing":                        {nested, "absent", record.NotFound, "append the task again"},
		"below a file":                   {nested, "file/x", record.NotFound, "append the task again"},
		"dangling link":                  {nested, "dangling", record.NotFound, "append the task again"},
		"an allowed directory is absent": {nested, "/nowhere/x", record.NotFound, "append the task again"},
	} {
		path := test.path
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		s, err := openSource(test.directories, path)
		if s != nil {
			t.Errorf("%s: opened", name)
		}
		if _, failed := errors.AsType[failure](err); !failed || record.KindOf(err) != test.kind || !strings.Contains(record.HintOf(err), test.hint) {
			t.Errorf("%s: %v of kind %v (%s)", name, err, record.KindOf(err), record.HintOf(err))
		}
	}
}

func TestAFileThatChangesDoesNotReadOn(t *testing.T) {
	dir := sourceDir(t)
	path := filepath.Join(dir, "file")
	for name, change := range map[string]func() error{
		"longer": func() error { return os.WriteFile(path, []byte("content and more"), 0o600) },
		"longer, with its time as before": func() error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(path, []byte("content and more"), 0o600), os.Chtimes(path, time.Time{}, info.ModTime()))
		},
		"other":     func() error { return os.Chtimes(path, time.Now(), time.Now().Add(time.Hour)) },
		"truncated": func() error { return os.Truncate(path, 0) },
	} {
		if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := openSource([]string{dir}, path)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.ReadAt(make([]byte, 7), 0); !errors.Is(err, errChanged) || !errors.Is(s.cause(errDown), errChanged) {
			t.Errorf("%s: %v, cause %v", name, err, s.cause(errDown))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func FuzzTask(f *testing.F) {
	f.Add([]byte(`{"inputUrl":"file:/data/x","bucket":"bkt","key":"k/!{timestamp:yyyy}/f","userMetadata":{"a":"b"}}`))
	f.Add([]byte(`{"inputUrl":null,"bucket":{},"key":"!{"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		d, err := decodeTask(payload)
		if err == nil {
			err = d.validate()
		}
		if err == nil {
			_, err = expandKey(d.Key, time.Unix(1_800_000_000, 0))
		}
		if err != nil && record.KindOf(err) != record.Invalid {
			t.Fatalf("%q: %v", payload, err)
		}
		if err == nil && (!validBucket(d.Bucket) || !utf8.ValidString(d.Key)) {
			t.Fatalf("%q passed as %+v", payload, d)
		}
	})
}

func FuzzFilePath(f *testing.F) {
	f.Add("file:/a/../b")
	f.Add("file://localhost/%2e%2e/x")
	f.Fuzz(func(t *testing.T, in string) {
		if path, err := filePath(in); err == nil && (!filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0)) {
			t.Fatalf("%q became %q", in, path)
		}
	})
}

func FuzzTaskState(f *testing.F) {
	f.Add([]byte(`{"version":1,"sequence":7,"key":"k","told":true,"outcome":{"status":1,"text":"x"}}`))
	f.Add([]byte(`{"version":2,"sequence":7}`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		if st := loadState(data, 7); st.Sequence != 7 || st.Version != taskStateVersion {
			t.Fatalf("%q became %+v", data, st)
		}
	})
}
