package forward

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leat-io/leat/internal/awsclient"
	"github.com/leat-io/leat/internal/blob/blobtest"
	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// s3World is an S3 server behind a proxy, a directory with files, and a target whose statuses are kept.
type s3World struct {
	t        *testing.T
	gateway  *blobtest.Gateway
	proxy    *blobtest.Proxy
	dir      string   // the allowed directory
	state    *vfs.Dir // survives restarts
	to       Destination
	spec     S3Spec
	limiter  *Limiter
	wall     clock.Reading
	statuses []statusMessage
	write    func() error // before a status is kept, when not nil
	ask      func()       // whenever the destination is asked for, when not nil
	saved    []byte       // Batch.State as it would be found after a restart
	tasks    *S3Tasks
	target   *S3Target
}

func (w *s3World) Read() clock.Reading { return w.wall }

func newS3World(t *testing.T) *s3World {
	t.Helper()
	g := blobtest.StartGateway(t)
	w := &s3World{
		t: t, gateway: g, proxy: blobtest.NewProxy(t, g.Endpoint), dir: sourceDir(t),
		spec: S3Spec{Stream: "Some Stream", Identifier: "S3Export", StatusStream: "Status", StatusLevel: StatusInfo},
		wall: clock.Reading{Wall: time.Date(2026, 11, 25, 6, 52, 19, 0, time.UTC).UnixNano(), Trusted: true},
	}
	w.to = Destination{Config: awsclient.Config{
		Endpoint: w.proxy.URL, Region: g.Region, AccessKey: g.AccessKey, SecretKey: awsclient.Secret(g.SecretKey),
	}}
	state, err := vfs.OpenDir(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.state = state
	w.start()
	t.Cleanup(func() {
		if err := errors.Join(w.tasks.Close(), w.tasks.Close(), state.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

// start makes a new target, as a restarted process does.
func (w *s3World) start() {
	w.t.Helper()
	if w.tasks != nil {
		if err := w.tasks.Close(); err != nil {
			w.t.Fatal(err)
		}
	}
	w.tasks = NewS3Tasks(S3Options{
		Config: Config{S3Directories: []string{w.dir}, Timeout: 10 * time.Second}, State: w.state, Limiter: w.limiter, Clock: w,
		Log: slog.New(slog.DiscardHandler),
		WriteStatus: func(_ context.Context, streamName string, payload []byte) error {
			if w.write != nil {
				if err := w.write(); err != nil {
					return err
				}
			}
			var m statusMessage
			if err := json.Unmarshal(payload, &m); err != nil || streamName != w.spec.StatusStream {
				w.t.Errorf("status %s to %q: %v", payload, streamName, err)
			}
			w.statuses = append(w.statuses, m)
			return nil
		},
	})
	w.tasks.destination = func(streamName, export, kind string) Destination {
		if streamName != w.spec.Stream || export != w.spec.Identifier || kind != "s3" {
			w.t.Errorf("asked for the destination of %s, %s, %s", streamName, export, kind)
		}
		if w.ask != nil {
			w.ask()
		}
		return w.to
	}
	w.target = w.tasks.Target(w.spec)
}

func (w *s3World) file(name string, content []byte) string {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), content, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return "file:" + filepath.Join(w.dir, name)
}

func task(inputURL, bucket, key string) s3TaskDefinition {
	return s3TaskDefinition{InputURL: inputURL, Bucket: bucket, Key: key}
}

func message(sequence record.Offset, d s3TaskDefinition) Message {
	payload, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return Message{Sequence: sequence, Payload: payload}
}

// deliver runs messages through the target, in a batch that finds the state of the last one.
func (w *s3World) deliver(ctx context.Context, messages ...Message) (*Batch, error) {
	b := NewBatch(w.spec.Stream, messages, w.saved, func(_ context.Context, state []byte) error {
		w.saved = bytes.Clone(state)
		return nil
	})
	return b, w.target.Deliver(ctx, b)
}

// want delivers one task and checks its statuses and whether it was delivered.
func (w *s3World) want(m Message, delivered bool, statuses ...s3Status) {
	w.t.Helper()
	w.statuses = nil
	b, err := w.deliver(w.t.Context(), m)
	if err != nil {
		w.t.Fatalf("deliver: %v (%s)", err, record.HintOf(err))
	}
	if len(b.Pending()) != 0 || (b.settled[0].reason == "") != delivered {
		w.t.Errorf("settled as %+v, delivered should be %v", b.settled[0], delivered)
	}
	w.wantStatuses(statuses...)
}

func (w *s3World) wantStatuses(want ...s3Status) {
	w.t.Helper()
	var got []s3Status
	for _, s := range w.statuses {
		got = append(got, s.Status)
		if s.Message == "" {
			w.t.Errorf("status %+v without a message", s)
		}
	}
	if !slices.Equal(got, want) {
		w.t.Fatalf("statuses %v, want %v: %+v", got, want, w.statuses)
	}
}

func (w *s3World) client() *awss3.Client {
	g := w.gateway
	return awss3.New(awss3.Options{
		BaseEndpoint: &g.Endpoint, Region: g.Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(g.AccessKey, g.SecretKey, ""),
	})
}

func (w *s3World) wantObject(key string, content []byte) map[string]string {
	w.t.Helper()
	got, err := os.ReadFile(w.gateway.Path(key))
	if err != nil || !bytes.Equal(got, content) {
		w.t.Fatalf("object %s: %d bytes, %v, want the file's %d", key, len(got), err, len(content))
	}
	out, err := w.client().HeadObject(w.t.Context(), &awss3.HeadObjectInput{Bucket: &w.gateway.Bucket, Key: &key})
	if err != nil {
		w.t.Fatal(err)
	}
	return out.Metadata
}

func (w *s3World) unfinished() int {
	w.t.Helper()
	out, err := w.client().ListMultipartUploads(w.t.Context(), &awss3.ListMultipartUploadsInput{Bucket: &w.gateway.Bucket})
	if err != nil {
		w.t.Fatal(err)
	}
	return len(out.Uploads)
}

// left are the files that are kept of unfinished uploads.
func (w *s3World) left() (names []string) {
	w.t.Helper()
	found, err := filepath.Glob(filepath.Join(w.state.Path(), "*", "*"))
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

func isPart(r blobtest.Request) bool { return r.Is("PUT", "partNumber", "uploadId") }

func isPartFrom(n int) func(blobtest.Request) bool {
	return func(r blobtest.Request) bool {
		got, err := strconv.Atoi(r.Query.Get("partNumber"))
		return isPart(r) && err == nil && got >= n
	}
}

const (
	part     = 5 << 20
	bigSize  = 4*part + 77
	bigParts = 5
)

func TestTaskUploadsItsFileByteByByteWithMetadataOverWhatWasThere(t *testing.T) {
	w := newS3World(t)
	for i, test := range []struct{ size, parts int }{{0, 0}, {1000, 0}, {part, 0}, {part + 1, 2}, {10, 0}, {bigSize, bigParts}} {
		w.proxy.Forget()
		content := blobtest.Bytes(uint64(i), test.size)
		d := task(w.file("source", content), w.gateway.Bucket, "one/place")
		d.UserMetadata = map[string]string{"Origin": "unit 7", "n": fmt.Sprint(i)}
		w.want(message(record.Offset(i), d), true, statusInProgress, statusSuccess)
		if got, want := w.wantObject("one/place", content), map[string]string{"origin": "unit 7", "n": fmt.Sprint(i)}; !maps.Equal(got, want) {
			t.Errorf("%d bytes: metadata %v, want %v", test.size, got, want)
		}
		if got := len(w.proxy.Requests(isPart)); got != test.parts {
			t.Errorf("%d bytes in %d parts, want %d", test.size, got, test.parts)
		}
		for _, s := range w.statuses {
			c := s.StatusContext
			if c.SequenceNumber != int64(i) || c.StreamName != "Some Stream" || c.ExportIdentifier != "S3Export" || c.Definition.Key != d.Key {
				t.Errorf("status context %+v", c)
			}
		}
		if _, err := os.Stat(filepath.Join(w.dir, "source")); err != nil {
			t.Errorf("the file is gone: %v", err)
		}
	}
	if left := w.left(); len(left) != 0 {
		t.Errorf("state is left: %v", left)
	}
}

func TestTasksRunInOrderAndABadOneBlocksNone(t *testing.T) {
	w := newS3World(t)
	url := w.file("source", []byte("content"))
	b, err := w.deliver(t.Context(), message(0, task(url, w.gateway.Bucket, "a")), Message{Sequence: 1, Payload: []byte("{")},
		message(2, task(url, "absent-bucket", "b")), message(3, task(url, w.gateway.Bucket, "c")))
	if err != nil || len(b.Pending()) != 0 {
		t.Fatalf("deliver: %v, %v pending", err, b.Pending())
	}
	w.wantStatuses(statusInProgress, statusSuccess, statusFailure, statusInProgress, statusFailure, statusInProgress, statusSuccess)
	for i, delivered := range []bool{true, false, false, true} {
		if (b.settled[i].reason == "") != delivered {
			t.Errorf("task %d settled as %+v", i, b.settled[i])
		}
	}
	w.wantObject("c", []byte("content"))
}

func TestTasksThatCannotBeExecutedFailWithTheRemedy(t *testing.T) {
	w := newS3World(t)
	w.gateway.AddUser("guest", "guest-secret")
	bucket := w.gateway.Bucket
	at := func(name string) string { return "file:" + filepath.Join(w.dir, name) }
	for name, test := range map[string]struct {
		d      s3TaskDefinition
		starts bool
		about  string
	}{
		"bare path":           {task(filepath.Join(w.dir, "file"), bucket, "k"), false, "file:/absolute/path"},
		"relative path":       {task("file", bucket, "k"), false, "file:/absolute/path"},
		"http":                {task("http://h/file", bucket, "k"), false, "only local files"},
		"missing file":        {task(at("absent"), bucket, "k"), false, "does not exist"},
		"outside":             {task("file:/etc/passwd", bucket, "k"), false, "stream_manager.exports.s3_directories"},
		"link that leads out": {task(at("outside"), bucket, "k"), false, "stream_manager.exports.s3_directories"},
		"directory":           {task(at("sub"), bucket, "k"), false, "not a regular file"},
		"pipe":                {task(at("pipe"), bucket, "k"), false, "not a regular file"},
		"bad bucket":          {task(at("file"), "SomeBucket", "k"), false, "lower-case"},
		"bad pattern":         {task(at("file"), bucket, "k/!{timestamp:yyyy/bb}"), false, `"bb"`},
		"bad placeholder":     {task(at("file"), bucket, "k/!{date:yyyy}"), false, "timestamp"},
		"nothing":             {s3TaskDefinition{}, false, "must be there"},
		"missing bucket":      {task(at("file"), "absent-bucket", "k"), true, "NoSuchBucket"},
		"key with dots":       {task(at("file"), bucket, "a/../b"), true, `".."`},
	} {
		t.Run(name, func(t *testing.T) {
			w.t, w.saved = t, nil
			want := []s3Status{statusFailure}
			if test.starts {
				want = []s3Status{statusInProgress, statusFailure}
			}
			w.want(message(7, test.d), false, want...)
			s := w.statuses[len(w.statuses)-1]
			if !strings.Contains(s.Message, test.about) || s.StatusLevel != StatusError || s.StatusContext.SequenceNumber != 7 {
				t.Errorf("status %+v, want a message about %s", s, test.about)
			}
			if s.StatusContext.Definition.InputURL != test.d.InputURL {
				t.Errorf("definition %+v", s.StatusContext.Definition)
			}
		})
	}
	w.t = t
	w.to.AccessKey, w.to.SecretKey = "guest", "guest-secret"
	w.want(message(8, task(at("file"), bucket, "k")), false, statusInProgress, statusFailure)
	if s := w.statuses[1]; !strings.Contains(s.Message, "AccessDenied") {
		t.Errorf("without the right: %+v", s)
	}
}

func TestWithoutDirectoriesEveryTaskFailsAndSaysWhatToSet(t *testing.T) {
	w := newS3World(t)
	w.tasks.o.Config.S3Directories = nil
	w.want(message(0, task("file:"+filepath.Join(w.dir, "file"), w.gateway.Bucket, "k")), false, statusFailure)
	if !strings.Contains(w.statuses[0].Message, setting) {
		t.Errorf("%q does not name %s", w.statuses[0].Message, setting)
	}
}

func TestLinksThatStayInsideAreFollowed(t *testing.T) {
	w := newS3World(t)
	w.want(message(0, task("file:"+filepath.Join(w.dir, "inside"), w.gateway.Bucket, "k")), true, statusInProgress, statusSuccess)
	w.wantObject("k", []byte("content"))
}

func TestOutageIsRetriedUnderTheFirstKeyAndAnnouncedOnce(t *testing.T) {
	w := newS3World(t)
	content := []byte("content")
	m := message(3, task(w.file("source", content), w.gateway.Bucket, "k/!{timestamp:yyyy/MM/dd/HHmmss}/f"))
	for _, mode := range []blobtest.Mode{blobtest.Refuse, blobtest.Fail503, blobtest.Lose} {
		w.proxy.Set(mode, nil)
		b, err := w.deliver(t.Context(), m)
		if record.KindOf(err) != record.Unavailable || len(b.Pending()) != 1 {
			t.Fatalf("mode %v: %v, %v pending", mode, err, b.Pending())
		}
		w.wall.Wall += int64(time.Hour)
		w.start()
	}
	w.wantStatuses(statusInProgress)
	w.proxy.Set(blobtest.Pass, nil)
	w.want(m, true, statusSuccess)
	w.wantObject("k/2026/11/25/065219/f", content)
	if s := w.statuses[0]; !strings.Contains(s.Message, "k/2026/11/25/065219/f") {
		t.Errorf("success does not tell the key: %q", s.Message)
	}
}

func TestCredentialsOfThisMachineAreNoFailureOfATask(t *testing.T) {
	w := newS3World(t)
	m := message(0, task(w.file("source", []byte("x")), w.gateway.Bucket, "k"))
	right := w.to
	for _, change := range []func(){
		func() { w.to.AccessKey = "nobody" },
		func() { w.to.SecretKey = "wrong" },
	} {
		w.to = right
		change()
		w.start()
		if b, err := w.deliver(t.Context(), m); record.KindOf(err) != record.Denied || len(b.Pending()) != 1 {
			t.Fatalf("deliver: %v, %v pending", err, b.Pending())
		}
	}
	w.to = right
	w.start()
	w.wantStatuses(statusInProgress)
	w.want(m, true, statusSuccess)
}

// cut begins a large upload and breaks it off in the part that is named, with the task's message.
func (w *s3World) cut(from int) (Message, []byte) {
	w.t.Helper()
	content := blobtest.Bytes(9, bigSize)
	m := message(5, task(w.file("big", content), w.gateway.Bucket, "big/!{timestamp:HH}"))
	w.proxy.Set(blobtest.Cut, isPartFrom(from))
	if _, err := w.deliver(w.t.Context(), m); record.KindOf(err) != record.Unavailable {
		w.t.Fatalf("deliver: %v", err)
	}
	w.proxy.Set(blobtest.Pass, nil)
	w.proxy.Forget()
	w.wall.Wall += int64(time.Hour)
	return m, content
}

func TestMultipartUploadGoesOnAfterARestartWithTheMissingParts(t *testing.T) {
	w := newS3World(t)
	m, content := w.cut(3)
	begun, err := filepath.Glob(w.gateway.Path(".sgwtmp/multipart/*/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	have := len(slices.DeleteFunc(begun, func(name string) bool { _, err := strconv.Atoi(filepath.Base(name)); return err != nil }))
	if have == 0 {
		t.Fatalf("the server has no parts: %v", begun)
	}
	w.start()
	w.want(m, true, statusSuccess)
	if got := len(w.proxy.Requests(isPart)); got != bigParts-have {
		t.Errorf("%d parts sent after the restart, want %d of %d", got, bigParts-have, bigParts)
	}
	w.wantObject("big/06", content)
	if left, n := w.left(), w.unfinished(); len(left) != 0 || n != 0 {
		t.Errorf("left: state %v, %d uploads", left, n)
	}
}

func TestCancelFreesWhatWasUploaded(t *testing.T) {
	w := newS3World(t)
	m, _ := w.cut(2)
	w.start()
	w.statuses = nil
	if n := w.unfinished(); n != 1 {
		t.Fatalf("%d unfinished uploads before", n)
	}
	if err := w.target.Cancel(t.Context(), w.spec.Stream, m, "stream Some Stream was deleted"); err != nil {
		t.Fatal(err)
	}
	w.wantStatuses(statusCanceled)
	if s := w.statuses[0]; !strings.Contains(s.Message, "deleted") || s.StatusContext.SequenceNumber != 5 {
		t.Errorf("status %+v", s)
	}
	if left, n := w.left(), w.unfinished(); len(left) != 0 || n != 0 {
		t.Errorf("left: state %v, %d uploads", left, n)
	}
	for _, m := range []Message{{Sequence: 6, Payload: []byte("{")}, message(7, task("file:/x", "other-bucket", "k"))} {
		w.statuses = nil
		if err := w.target.Cancel(t.Context(), w.spec.Stream, m, "gone"); err != nil {
			t.Fatal(err)
		}
		w.wantStatuses(statusCanceled)
	}
}

func TestCancelWarnsOfPartsThatStay(t *testing.T) {
	w := newS3World(t)
	m, _ := w.cut(2)
	w.statuses = nil
	w.proxy.Set(blobtest.Refuse, nil)
	if err := w.target.Cancel(t.Context(), w.spec.Stream, m, "gone"); err != nil {
		t.Fatal(err)
	}
	w.wantStatuses(statusWarning, statusCanceled)
	if s := w.statuses[0]; !strings.Contains(s.Message, "lifecycle rule") || s.StatusLevel != StatusWarn {
		t.Errorf("status %+v", s)
	}
}

func TestAFileThatGoesWhileItIsUploadedFailsAndItsPartsGo(t *testing.T) {
	w := newS3World(t)
	m, _ := w.cut(2)
	if err := os.Remove(filepath.Join(w.dir, "big")); err != nil {
		t.Fatal(err)
	}
	w.want(m, false, statusFailure)
	if left, n := w.left(), w.unfinished(); len(left) != 0 || n != 0 {
		t.Errorf("left: state %v, %d uploads", left, n)
	}
}

func TestAFileThatBecameAnotherBetweenAttemptsIsUploadedAnew(t *testing.T) {
	w := newS3World(t)
	m, _ := w.cut(2)
	content := blobtest.Bytes(10, bigSize)
	w.file("big", content)
	w.start()
	w.want(m, true, statusSuccess)
	w.wantObject("big/06", content)
	if left, n := w.left(), w.unfinished(); len(left) != 0 || n != 0 {
		t.Errorf("left: state %v, %d uploads", left, n)
	}
}

func TestAFileThatChangesWhileItIsUploadedIsUploadedOnceMore(t *testing.T) {
	w := newS3World(t)
	for name, test := range map[string]struct {
		changes int
		want    s3Status
	}{"once": {1, statusSuccess}, "always": {99, statusFailure}} {
		t.Run(name, func(t *testing.T) {
			w.t, w.saved = t, nil
			content := blobtest.Bytes(1, 1000)
			m := message(0, task(w.file("source", content), w.gateway.Bucket, name))
			changes := 0
			// The destination is asked for between the reading of the file and its sending.
			w.ask = func() {
				if changes++; changes <= test.changes {
					content = blobtest.Bytes(uint64(changes)+1, 1000+changes)
					w.file("source", content)
				}
			}
			w.want(m, test.want == statusSuccess, statusInProgress, test.want)
			if test.want == statusSuccess {
				w.wantObject(name, content)
			} else if s := w.statuses[1]; !strings.Contains(s.Message, "changed") || !strings.Contains(s.Message, "rename") {
				t.Errorf("status %+v", s)
			}
		})
	}
}

func TestAStatusThatCannotBeWrittenYetDoesNotRepeatTheUpload(t *testing.T) {
	w := newS3World(t)
	m := message(0, task(w.file("source", []byte("x")), w.gateway.Bucket, "k"))
	writes := 0
	w.write = func() error {
		if writes++; writes > 1 {
			return errDown
		}
		return nil
	}
	if b, err := w.deliver(t.Context(), m); record.KindOf(err) != record.Unavailable || len(b.Pending()) != 1 {
		t.Fatalf("deliver: %v, %v pending", err, b.Pending())
	}
	w.proxy.Forget()
	w.write = nil
	w.start()
	w.want(m, true, statusSuccess)
	if got := w.proxy.Requests(nil); len(got) != 0 {
		t.Errorf("%d requests: the upload was repeated", len(got))
	}
	// A status stream that is full or refuses costs the status and no more.
	w.write = func() error { return record.Errorf(record.Full, "stream is full") }
	w.want(message(1, task(w.file("source", []byte("x")), w.gateway.Bucket, "k")), true)
}

func TestStatusLevels(t *testing.T) {
	w := newS3World(t)
	good := message(0, task(w.file("source", []byte("x")), w.gateway.Bucket, "k"))
	bad := message(1, task("file:/absent", w.gateway.Bucket, "k"))
	for level, want := range map[StatusLevel][]s3Status{
		StatusError: {statusFailure}, StatusWarn: {statusFailure, statusCanceled},
		StatusInfo:  {statusInProgress, statusSuccess, statusFailure, statusCanceled},
		StatusDebug: {statusInProgress, statusSuccess, statusFailure, statusCanceled},
		StatusTrace: {statusInProgress, statusSuccess, statusFailure, statusCanceled},
	} {
		w.spec.StatusLevel, w.saved, w.statuses = level, nil, nil
		w.start()
		if _, err := w.deliver(t.Context(), good, bad); err != nil {
			t.Fatal(err)
		}
		if err := w.target.Cancel(t.Context(), w.spec.Stream, good, "gone"); err != nil {
			t.Fatal(err)
		}
		w.wantStatuses(want...)
	}
	w.spec.StatusStream, w.statuses = "", nil
	w.start()
	if _, err := w.deliver(t.Context(), good, bad); err != nil {
		t.Fatal(err)
	}
	w.wantStatuses()
}

func TestLostTasksAreToldUpToABound(t *testing.T) {
	w := newS3World(t)
	if err := w.target.Drop(t.Context(), w.spec.Stream, 10, 10+3*maxDropped, "expired"); err != nil {
		t.Fatal(err)
	}
	if len(w.statuses) != maxDropped || w.statuses[0].Status != statusCanceled || w.statuses[0].StatusContext.SequenceNumber != 10 {
		t.Fatalf("%d statuses, the first %+v", len(w.statuses), w.statuses[0])
	}
	if last := w.statuses[maxDropped-1].Message; !strings.Contains(last, "110 to 309") {
		t.Errorf("the last says %q", last)
	}
}

func TestAClockThatIsNotSetHoldsKeysWithTheTime(t *testing.T) {
	w := newS3World(t)
	url := w.file("source", []byte("x"))
	w.wall.Trusted = false
	if _, err := w.deliver(t.Context(), message(0, task(url, w.gateway.Bucket, "!{timestamp:yyyy}"))); record.KindOf(err) != record.Unavailable {
		t.Errorf("deliver: %v", err)
	}
	w.want(message(1, task(url, w.gateway.Bucket, "k")), true, statusInProgress, statusSuccess)
}

func TestBandwidthIsWaitedForWhileSending(t *testing.T) {
	w := newS3World(t)
	w.limiter = NewLimiter(1) // 125 bytes a second after the first 16 KiB
	w.start()
	m := message(0, task(w.file("source", blobtest.Bytes(1, 64<<10)), w.gateway.Bucket, "k"))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // which the limiter knows is not enough
	defer cancel()
	b, err := w.deliver(ctx, m)
	if err == nil || len(b.Pending()) != 1 || !strings.Contains(err.Error(), "bandwidth") {
		t.Errorf("deliver: %v, %v pending", err, b.Pending())
	}
}

func TestStatusGolden(t *testing.T) {
	w := newS3World(t)
	var payloads []string
	w.tasks.o.WriteStatus = func(_ context.Context, _ string, payload []byte) error {
		payloads = append(payloads, string(payload))
		return nil
	}
	d := task("file:/data/x", "bkt", "k/!{timestamp:yyyy/MM/dd}/f")
	d.UserMetadata = map[string]string{"a": "b"}
	for _, s := range []s3Status{statusSuccess, statusFailure, statusInProgress, statusWarning, statusCanceled} {
		if err := w.target.tell(t.Context(), s, 42, d, "some \"text\" <ü>"); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.target.tell(t.Context(), statusCanceled, 0, s3TaskDefinition{}, "of a task that is gone"); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(payloads, "\n") + "\n"
	const golden = "testdata/s3-status.jsonl"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || got != string(want) {
		t.Errorf("got\n%swant\n%s%v", got, want, err)
	}
}
