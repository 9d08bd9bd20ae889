package forward

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/record"
)

// maxTask is the most bytes of a task's JSON: URL, bucket and key take 8 KiB at most, and S3 takes 2 KiB of metadata.
const maxTask = 64 << 10

// s3TaskDefinition is the payload of a message in a stream of S3 tasks, as the SDKs write it.
type s3TaskDefinition struct {
	InputURL     string            `json:"inputUrl,omitempty"`
	Bucket       string            `json:"bucket,omitempty"`
	Key          string            `json:"key,omitempty"`
	UserMetadata map[string]string `json:"userMetadata,omitempty"`
}

// The SDKs check buckets and keys with these (they write the bucket's with look-ahead; see validBucket).
var (
	bucketPattern  = regexp.MustCompile(`^([a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])(\.([a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9]))*$`)
	numericPattern = regexp.MustCompile(`^([0-9]+\.)+[0-9]+$`)
	placeholder    = regexp.MustCompile(`!\{[^{}]*\}`)
)

// forbiddenInKeys are the characters that the SDKs refuse in keys outside of placeholders.
const forbiddenInKeys = "\\{ }%`[]\"'<>~#^?|"

// decodeTask reads a task. Beside an Invalid error it returns what of the task could be read, for the status message.
// Keys it does not know are ignored, as everywhere in the protocol.
func decodeTask(payload []byte) (s3TaskDefinition, error) {
	var d s3TaskDefinition
	if len(payload) > maxTask {
		return d, badTask("it has %d bytes, at most %d are allowed", len(payload), maxTask)
	}
	if !utf8.Valid(payload) {
		return d, badTask("it is not UTF-8")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(payload, &fields); err != nil || fields == nil {
		return d, badTask("it is not a JSON object")
	}
	var wrong error
	for _, f := range []struct {
		name, want string
		to         any
	}{
		{"inputUrl", "a string", &d.InputURL}, {"bucket", "a string", &d.Bucket}, {"key", "a string", &d.Key},
		{"userMetadata", "an object of strings", &d.UserMetadata},
	} {
		raw, ok := fields[f.name]
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, f.to); err != nil && wrong == nil {
			wrong = badTask("%s is not %s", f.name, f.want)
		}
	}
	return d, wrong
}

func badTask(format string, args ...any) *record.Error {
	return record.Errorf(record.Invalid, "the message is no S3 export task: "+format, args...).
		WithHint(`append {"inputUrl":"file:/absolute/path","bucket":"name","key":"name"}, as the SDK's S3ExportTaskDefinition gives it`)
}

// validate checks what can be without looking at disk or store.
func (d *s3TaskDefinition) validate() error {
	switch {
	case d.InputURL == "", d.Bucket == "", d.Key == "":
		return badTask("inputUrl, bucket and key must be there and not empty")
	case !validBucket(d.Bucket):
		return record.Errorf(record.Invalid, "bucket %.80q is not a bucket's name", d.Bucket).
			WithHint("a name has 3 to 63 lower-case letters, digits, hyphens and dots, and begins and ends with a letter or digit")
	case utf8.RuneCountInString(d.Key) > 1024:
		return record.Errorf(record.Invalid, "key has more than 1024 characters").WithHint("shorten it")
	}
	if i := strings.IndexAny(placeholder.ReplaceAllString(d.Key, ""), forbiddenInKeys); i >= 0 {
		return record.Errorf(record.Invalid, "key %.200q has a character that is not allowed", d.Key).
			WithHint("leave out spaces and %s outside of !{timestamp:…}", strings.ReplaceAll(forbiddenInKeys, " ", ""))
	}
	return validMetadata(d.UserMetadata)
}

func validBucket(name string) bool {
	return len(name) >= 3 && len(name) <= 63 && bucketPattern.MatchString(name) && !numericPattern.MatchString(name)
}

// validMetadata checks that names and values can be HTTP headers, which is what S3 makes of them.
func validMetadata(m map[string]string) error {
	seen := make(map[string]bool, len(m))
	for name, value := range m {
		lower := strings.ToLower(name)
		switch {
		case name == "" || strings.ContainsFunc(name, func(r rune) bool { return !isToken(r) }):
			return record.Errorf(record.Invalid, "userMetadata has the name %.80q", name).
				WithHint("names have letters, digits and hyphens only, without the prefix x-amz-meta-")
		case strings.HasPrefix(lower, "$aws-gg-"):
			return record.Errorf(record.Invalid, "userMetadata has the name %.80q: the prefix $aws-gg- is reserved", name).
				WithHint("use another name")
		case seen[lower]:
			return record.Errorf(record.Invalid, "userMetadata has the name %.80q twice, in upper and lower case", name).
				WithHint("S3 does not tell them apart: use another name")
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
			return record.Errorf(record.Invalid, "userMetadata %.80q has a value that is not printable ASCII", name).
				WithHint("S3 keeps ASCII only: encode the value, for example with base64 or percent signs")
		}
		seen[lower] = true
	}
	return nil
}

// isToken reports whether r may be in the name of an HTTP header.
func isToken(r rune) bool {
	return r > ' ' && r <= '~' && !strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
}

// filePath is the path in a task's inputUrl: file:/abs, file:///abs or file://localhost/abs, percent-decoded and cleaned.
func filePath(inputURL string) (string, error) {
	wrong := func(format string, args ...any) (string, error) {
		return "", record.Errorf(record.Invalid, "inputUrl %.200q "+format, append([]any{inputURL}, args...)...).
			WithHint("write file:/absolute/path")
	}
	scheme, rest, ok := strings.Cut(inputURL, ":")
	if !ok || strings.ContainsAny(scheme, "/.%\\ ") {
		return wrong("is a path and not a URL")
	}
	if !strings.EqualFold(scheme, "file") {
		return wrong("has the scheme %s: only local files can be uploaded", scheme)
	}
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		host, path, _ := strings.Cut(after, "/")
		if host != "" && !strings.EqualFold(host, "localhost") {
			return wrong("names the host %q: after file: there are one or three slashes, not two", host)
		}
		rest = "/" + path
	}
	if !strings.HasPrefix(rest, "/") {
		return wrong("is not absolute")
	}
	if strings.ContainsAny(rest, "?#") {
		return wrong("has a query or a fragment: write %%3F for ? and %%23 for # in a file's name")
	}
	path, err := url.PathUnescape(rest)
	if err != nil {
		return wrong("is not percent-encoded correctly: write %%25 for a percent sign")
	}
	if strings.ContainsRune(path, 0) {
		return wrong("has a zero byte")
	}
	return filepath.Clean(path), nil
}

// setting is where people set the directories of S3 tasks.
const setting = "stream_manager.exports.s3_directories"

// openSource opens a file below one of the directories, following links only as far as they stay below it. Its errors are
// failures, unless this process lacks something that it may have later (descriptors, memory).
func openSource(directories []string, path string) (*source, error) {
	dir, name, ok := confine(directories, path)
	if !ok {
		return nil, failure{record.Errorf(record.Denied, "%s is outside of the directories whose files may be uploaded", path).
			WithHint("move the file, or add its directory to %s", setting)}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fileError(path, err)
	}
	f, err := openRegular(root, name)
	if err := errors.Join(err, root.Close()); err != nil {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return nil, fileError(path, err)
	}
	s := &source{file: f, path: path}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fileError(path, err), f.Close())
	}
	s.size, s.modified = info.Size(), info.ModTime()
	return s, nil
}

// confine finds the deepest of the directories that holds path, and path's name below it.
func confine(directories []string, path string) (dir, name string, ok bool) {
	for _, d := range directories {
		d = filepath.Clean(d)
		if rel, err := filepath.Rel(d, path); err == nil && filepath.IsLocal(rel) && rel != "." && len(d) > len(dir) {
			dir, name, ok = d, rel, true
		}
	}
	return dir, name, ok
}

// errIrregular is what a directory, device, socket or named pipe is.
var errIrregular = errors.New("not a regular file")

// openRegular looks before it opens: opening a device may do something, opening a pipe may wait. What is put in the
// file's place between is opened without waiting, and looked at again.
func openRegular(root *os.Root, name string) (*os.File, error) {
	info, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errIrregular
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = errIrregular
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// fileError is what an error of the file system is to a task.
func fileError(path string, err error) error {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM) {
		return record.Errorf(record.Unavailable, "open %s: %w", path, err).WithHint("raise the limit of open files (LimitNOFILE)")
	}
	return failure{fileTrouble(path, err)}
}

func fileTrouble(path string, err error) *record.Error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return record.Errorf(record.NotFound, "%s does not exist", path).WithHint("write the file before its task, and append the task again")
	case errors.Is(err, fs.ErrPermission):
		return record.Errorf(record.Denied, "%s cannot be read: permission denied", path).
			WithHint("let the user that leat runs as read the file and enter its directories")
	case errors.Is(err, errIrregular):
		return record.Errorf(record.Invalid, "%s is not a regular file", path).WithHint("name a file; pack a directory first")
	case strings.Contains(err.Error(), "path escapes"): // os.Root has no error value for it
		return record.Errorf(record.Denied, "%s is behind a link that leads out of the directories whose files may be uploaded", path).
			WithHint("use relative links that stay inside, or add the file's own directory to %s and name it there", setting)
	default:
		return record.Errorf(record.Invalid, "%s cannot be read: %w", path, err).WithHint("check the disk and the file")
	}
}

// source is a file that is being uploaded. Reads fail once the file is seen to have changed since it was opened.
type source struct {
	file     *os.File
	path     string
	size     int64
	modified time.Time
	changed  atomic.Bool  // seen to be another than when it was opened
	broken   atomic.Value // a failure: what reading came to
}

// ReadAt reads and then looks whether what was read may be something new.
func (s *source) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.file.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		s.broken.Store(fileError(s.path, err))
		return 0, err
	}
	if info, serr := s.file.Stat(); serr != nil || info.Size() != s.size || !info.ModTime().Equal(s.modified) {
		s.changed.Store(true)
		return 0, errChanged
	}
	return n, err
}

// errChanged is what a reader of a file gets that changes meanwhile.
var errChanged = errors.New("the file changed while it was uploaded")

// cause is what an upload that ended in err really failed of: the errors of an HTTP client do not always lead to the one
// that reading the body returned.
func (s *source) cause(err error) error {
	if s.changed.Load() || record.KindOf(err) == record.Corrupt {
		return errChanged
	}
	if broken, ok := s.broken.Load().(error); ok {
		return broken
	}
	return err
}

// hash is the SHA-256 of the file.
func (s *source) hash(ctx context.Context) (sum [32]byte, err error) {
	h := sha256.New()
	r := io.NewSectionReader(s, 0, s.size)
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return [32]byte(h.Sum(nil)), nil
		}
		if err != nil {
			return sum, err
		}
	}
}

// Close releases the file.
func (s *source) Close() error { return s.file.Close() }
