package s3_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/leat-io/leat/internal/blob/blobtest"
	leats3 "github.com/leat-io/leat/internal/blob/s3"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

const (
	bigKey   = "samples/big.parquet"
	bigParts = 6
	bigSize  = (bigParts-1)*partSize + 1234
)

func isPart(r blobtest.Request) bool     { return r.Is("PUT", "partNumber", "uploadId") }
func isCreate(r blobtest.Request) bool   { return r.Is("POST", "uploads") }
func isComplete(r blobtest.Request) bool { return r.Is("POST", "uploadId") }

// isPartFrom selects the parts with that number or a higher one.
func isPartFrom(n int) func(blobtest.Request) bool {
	return func(r blobtest.Request) bool {
		got, err := strconv.Atoi(r.Query.Get("partNumber"))
		return isPart(r) && err == nil && got >= n
	}
}

// wantStored fails the test unless the store holds the large object.
func wantStored(t *testing.T, s *leats3.Store) {
	t.Helper()
	if !bytes.Equal(blobtest.MustRead(t, s, bigKey), blobtest.Bytes(1, bigSize)) {
		t.Fatal("content differs")
	}
}

// wantStateEmpty fails the test when state of an upload is left.
func wantStateEmpty(t *testing.T, state *vfs.Dir) {
	t.Helper()
	entries, err := state.ReadDir(".")
	if err != nil || len(entries) != 0 {
		t.Fatalf("left in the state directory: %v, %v", entries, err)
	}
}

// failingStart puts the first three parts of the large object and fails at the fourth.
func failingStart(t *testing.T, c leats3.Config, p *blobtest.Proxy, state *vfs.Dir) {
	t.Helper()
	c.Concurrency = 1
	p.Set(blobtest.Cut, isPartFrom(4))
	s := open(t, c, state)
	err := s.Put(t.Context(), blobtest.Upload(bigKey, blobtest.Bytes(1, bigSize)))
	blobtest.WantKind(t, err, record.Unavailable, "")
	if got := s.Stats(); got.PartsSent != 3 || got.Puts != 0 {
		t.Fatalf("stats %+v", got)
	}
	p.Set(blobtest.Pass, nil)
	p.Forget()
}

func TestResumeSendsOnlyMissingParts(t *testing.T) {
	g := blobtest.StartGateway(t)
	for _, checksums := range []leats3.Checksums{leats3.ChecksumsWhenRequired, leats3.ChecksumsWhenSupported} {
		t.Run(string(checksums), func(t *testing.T) {
			p := blobtest.NewProxy(t, g.Endpoint)
			state := stateDir(t)
			c := settings(g)
			c.Endpoint, c.Checksums, c.Prefix = p.URL, checksums, string(checksums)+"/"
			failingStart(t, c, p, state)
			// The part size may change between: the upload keeps its own.
			c.PartSize *= 2
			s := open(t, c, state)
			blobtest.MustPut(t, s, bigKey, blobtest.Bytes(1, bigSize))
			if got := len(p.Requests(isPart)); got != 3 {
				t.Errorf("%d parts sent after the restart, want 3", got)
			}
			if got := len(p.Requests(isCreate)); got != 0 {
				t.Errorf("%d new uploads", got)
			}
			if got := s.Stats(); got.PartsKept != 3 || got.PartsSent != 3 || got.Puts != 1 || got.PutBytes != bigSize {
				t.Errorf("stats %+v", got)
			}
			wantStored(t, s)
			wantStateEmpty(t, state)
		})
	}
}

// A process that puts the large object and is killed in the middle: this test's binary runs itself.
const childEnv = "LEAT_S3_TEST_CHILD"

type childArgs struct {
	Config leats3.Config
	Secret string // Config does not show its own
	State  string
}

// child is what the process does; it does not come to its end.
func child(env string) error {
	var args childArgs
	if err := json.Unmarshal([]byte(env), &args); err != nil {
		return err
	}
	args.Config.SecretKey = leats3.Secret(args.Secret)
	state, err := vfs.OpenDir(args.State, nil)
	if err != nil {
		return err
	}
	s, err := leats3.Open(context.Background(), leats3.Options{
		Config: args.Config, State: state, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	return s.Put(context.Background(), blobtest.Upload(bigKey, blobtest.Bytes(1, bigSize)))
}

func TestProcessKilledInTheMiddle(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	c := settings(g)
	c.Endpoint, c.Concurrency, c.StallTimeout = p.URL, 1, time.Minute
	state := stateDir(t)
	p.Set(blobtest.Hang, isPartFrom(4))
	env, err := json.Marshal(childArgs{c, string(c.SecretKey), state.Path()})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(env))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testenv.Wait(t, 30*time.Second, func() bool { return len(p.Requests(isPartFrom(4))) > 0 }, "the fourth part")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	p.Set(blobtest.Pass, nil)
	p.Forget()
	s := open(t, c, state)
	blobtest.MustPut(t, s, bigKey, blobtest.Bytes(1, bigSize))
	if got := len(p.Requests(isPart)); got != 3 {
		t.Errorf("%d parts sent after the kill, want 3", got)
	}
	wantStored(t, s)
	wantStateEmpty(t, state)
}

func TestServerKilledInTheMiddle(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	c := settings(g)
	c.Endpoint, c.Concurrency, c.StallTimeout = p.URL, 1, time.Minute
	state := stateDir(t)
	s := open(t, c, state)
	p.Set(blobtest.Hang, isPartFrom(4))
	result := make(chan error, 1)
	go func() { result <- s.Put(t.Context(), blobtest.Upload(bigKey, blobtest.Bytes(1, bigSize))) }()
	testenv.Wait(t, 30*time.Second, func() bool { return len(p.Requests(isPartFrom(4))) > 0 }, "the fourth part")
	g.Kill()
	p.Set(blobtest.Pass, nil)
	blobtest.WantKind(t, <-result, record.Unavailable, "")
	g.Start()
	p.Forget()
	blobtest.MustPut(t, s, bigKey, blobtest.Bytes(1, bigSize))
	if got := len(p.Requests(isPart)); got != 3 {
		t.Errorf("%d parts sent after the restart, want 3", got)
	}
	wantStored(t, s)
	wantStateEmpty(t, state)
}

// The store does what it is asked and the answer does not arrive: the next attempt finds out.
func TestLostAnswers(t *testing.T) {
	g := blobtest.StartGateway(t)
	for name, test := range map[string]struct {
		only     func(blobtest.Request) bool
		size     int
		attempts int
		fails    bool // the first Put
		parts    int  // sent by the second
	}{
		"put":               {func(r blobtest.Request) bool { return r.Is("PUT") }, 1000, 1, true, 0},
		"create upload":     {isCreate, bigSize, 1, true, bigParts},
		"one part":          {isPartFrom(bigParts), bigSize, 1, true, 0},
		"complete":          {isComplete, bigSize, 1, true, 0},
		"look, before both": {func(r blobtest.Request) bool { return r.Is("HEAD") }, bigSize, 1, true, bigParts},
	} {
		t.Run(name, func(t *testing.T) {
			p := blobtest.NewProxy(t, g.Endpoint)
			c := settings(g)
			c.Endpoint, c.Prefix, c.Attempts, c.Concurrency = p.URL, "lost "+name+"/", test.attempts, 1
			state := stateDir(t)
			content := blobtest.Bytes(1, test.size)
			p.Set(blobtest.Lose, test.only)
			err := open(t, c, state).Put(t.Context(), blobtest.Upload(bigKey, content))
			if (err != nil) != test.fails {
				t.Fatalf("first put: %v", err)
			}
			p.Set(blobtest.Pass, nil)
			p.Forget()
			s := open(t, c, state)
			blobtest.MustPut(t, s, bigKey, content)
			if got := len(p.Requests(isPart)); got != test.parts {
				t.Errorf("%d parts sent by the second put, want %d", got, test.parts)
			}
			if !bytes.Equal(blobtest.MustRead(t, s, bigKey), content) {
				t.Error("content differs")
			}
			wantStateEmpty(t, state)
		})
	}
}

// With two attempts the SDK itself meets its own first attempt.
func TestLostAnswerWithinOnePut(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	c := settings(g)
	c.Endpoint, c.Attempts = p.URL, 2
	s := open(t, c, nil)
	first := true
	p.Set(blobtest.Lose, func(r blobtest.Request) bool { // called under the proxy's lock
		lose := first && r.Is("PUT")
		first = first && !lose
		return lose
	})
	blobtest.MustPut(t, s, "x", []byte("content"))
	if got := s.Stats(); got.Existing != 1 {
		t.Errorf("stats %+v", got)
	}
}

func TestUploadDroppedByTheStore(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	c := settings(g)
	c.Endpoint = p.URL
	state := stateDir(t)
	failingStart(t, c, p, state)
	abortAll(t, open(t, c, nil), g.Bucket)
	s := open(t, c, state)
	blobtest.MustPut(t, s, bigKey, blobtest.Bytes(1, bigSize))
	if got := len(p.Requests(isPart)); got != bigParts {
		t.Errorf("%d parts sent, want all %d", got, bigParts)
	}
	wantStored(t, s)
	wantStateEmpty(t, state)
}

func abortAll(t *testing.T, s *leats3.Store, bucket string) {
	t.Helper()
	for _, u := range unfinished(t, s, bucket) {
		_, err := s.Client().AbortMultipartUpload(t.Context(),
			&s3.AbortMultipartUploadInput{Bucket: &bucket, Key: u.Key, UploadId: u.UploadId})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func unfinished(t *testing.T, s *leats3.Store, bucket string) []types.MultipartUpload {
	t.Helper()
	out, err := s.Client().ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &bucket})
	if err != nil {
		t.Fatal(err)
	}
	return out.Uploads
}

// The store drops the upload while its parts are being sent.
func TestUploadDroppedWhileSending(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	c := settings(g)
	c.Endpoint, c.Concurrency = p.URL, 1
	state := stateDir(t)
	failingStart(t, c, p, state)
	s, other := open(t, c, state), open(t, settings(g), nil)
	p.Set(blobtest.Hang, isPart)
	result := make(chan error, 1)
	go func() { result <- s.Put(t.Context(), blobtest.Upload(bigKey, blobtest.Bytes(1, bigSize))) }()
	testenv.Wait(t, 30*time.Second, func() bool { return len(p.Requests(isPart)) > 0 }, "a part")
	abortAll(t, other, g.Bucket)
	p.Set(blobtest.Pass, nil) // breaks the hanging part off
	err := <-result
	for range 3 { // callers try again until it works
		if err == nil {
			break
		}
		blobtest.WantKind(t, err, record.Unavailable, "")
		err = s.Put(t.Context(), blobtest.Upload(bigKey, blobtest.Bytes(1, bigSize)))
	}
	if err != nil {
		t.Fatal(err)
	}
	wantStored(t, s)
	wantStateEmpty(t, state)
}

// Somebody puts the key while its parts are being sent.
func TestKeyTakenWhileSending(t *testing.T) {
	g := blobtest.StartGateway(t)
	for name, test := range map[string]struct {
		seed     uint64
		conflict bool
	}{"the same": {1, false}, "another": {2, true}} {
		t.Run(name, func(t *testing.T) {
			p := blobtest.NewProxy(t, g.Endpoint)
			c := settings(g)
			c.Endpoint, c.Prefix, c.StallTimeout = p.URL, name+"/", time.Minute
			state := stateDir(t)
			s := open(t, c, state)
			p.Set(blobtest.Hang, isComplete)
			result := make(chan error, 1)
			go func() { result <- s.Put(t.Context(), blobtest.Upload(bigKey, blobtest.Bytes(1, bigSize))) }()
			testenv.Wait(t, 30*time.Second, func() bool { return len(p.Requests(isComplete)) > 0 }, "completion")
			direct := c
			direct.Endpoint = g.Endpoint
			blobtest.MustPut(t, open(t, direct, nil), bigKey, blobtest.Bytes(test.seed, bigSize))
			p.Set(blobtest.Pass, nil)
			if err := <-result; err == nil {
				t.Fatal("the broken completion succeeded")
			}
			err := s.Put(t.Context(), blobtest.Upload(bigKey, blobtest.Bytes(1, bigSize)))
			if test.conflict {
				blobtest.WantKind(t, err, record.Conflict, "move")
			} else if err != nil {
				t.Fatal(err)
			}
			wantStateEmpty(t, state)
			if left := unfinished(t, s, g.Bucket); len(left) != 0 {
				t.Errorf("%d unfinished uploads", len(left))
			}
		})
	}
}

// State that cannot be kept or read costs sending again and nothing else.
func TestBrokenState(t *testing.T) {
	g := blobtest.StartGateway(t)
	content := blobtest.Bytes(1, partSize+1)
	for name, hook := range map[string]vfs.Hook{
		"full disk": func(op vfs.Op) error {
			if op.Kind == vfs.OpWrite {
				return syscall.ENOSPC
			}
			return nil
		},
		"unreadable": func(op vfs.Op) error {
			if op.Kind == vfs.OpRead {
				return syscall.EIO
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			state, err := vfs.OpenDir(t.TempDir(), hook)
			if err != nil {
				t.Fatal(err)
			}
			defer state.Close()
			c := settings(g)
			c.Prefix = name + "/"
			s := open(t, c, state)
			blobtest.MustPut(t, s, "x", content)
			if !bytes.Equal(blobtest.MustRead(t, s, "x"), content) {
				t.Error("content differs")
			}
			wantStateEmpty(t, state)
		})
	}
	t.Run("garbage", func(t *testing.T) {
		state := stateDir(t)
		s := open(t, settings(g), state)
		u := blobtest.Upload("garbage", content)
		for i, garbage := range []string{"", "{", "null", `{"version":99}`, `{"version":1,"part_size":0,"upload_id":"x"}`} {
			u.Key = fmt.Sprintf("garbage/%d", i)
			if err := state.WriteFile(leats3.StateFile(s, u), []byte(garbage)); err != nil {
				t.Fatal(err)
			}
			if err := s.Put(t.Context(), u); err != nil {
				t.Errorf("%q: %v", garbage, err)
			}
		}
		wantStateEmpty(t, state)
	})
}

func TestOldStateIsForgotten(t *testing.T) {
	state := stateDir(t)
	for _, name := range []string{"old.json", "new.json", "half.json.tmp"} {
		if err := state.WriteFile(name, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-31 * 24 * time.Hour)
	if err := os.Chtimes(state.Path()+"/old.json", long, long); err != nil {
		t.Fatal(err)
	}
	c := leats3.DefaultConfig()
	c.Endpoint, c.Bucket, c.AccessKey, c.SecretKey = "http://127.0.0.1:1", "b", "a", "s"
	open(t, c, state)
	entries, err := state.ReadDir(".")
	if err != nil || len(entries) != 1 || entries[0].Name() != "new.json" {
		t.Fatalf("left: %v, %v", entries, err)
	}
}

// Without a place for state, a failed upload leaves no parts behind that somebody pays for.
func TestNoStateLeavesNoParts(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	c := settings(g)
	c.Endpoint = p.URL
	s := open(t, c, nil)
	p.Set(blobtest.Cut, isPartFrom(3))
	if err := s.Put(t.Context(), blobtest.Upload(bigKey, blobtest.Bytes(1, bigSize))); err == nil {
		t.Fatal("put succeeded")
	}
	if left := unfinished(t, s, g.Bucket); len(left) != 0 {
		t.Fatalf("%d unfinished uploads", len(left))
	}
}

func FuzzState(f *testing.F) {
	u := blobtest.Upload("k", []byte("content"))
	f.Add([]byte(`{"version":1,"key":"k","size":7,"sha256":"x","upload_id":"u","part_size":5242880}`))
	f.Add([]byte("null"))
	f.Add([]byte(fmt.Sprintf(`{"version":1,"key":"k","size":7,"sha256":"%x","upload_id":"u","part_size":-1}`, u.SHA256)))
	f.Add([]byte(fmt.Sprintf(`{"version":1,"key":"k","size":7,"sha256":"%x","upload_id":"u","part_size":5242880}`, u.SHA256)))
	dir := stateDir(f)
	c := leats3.DefaultConfig()
	c.Endpoint, c.Bucket, c.AccessKey, c.SecretKey = "http://127.0.0.1:1", "b", "a", "s"
	s := open(f, c, dir)
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := dir.WriteFile(leats3.StateFile(s, u), data); err != nil {
			t.Fatal(err)
		}
		parts, last, ok := leats3.KeptUpload(s, u)
		if ok && (parts != 1 || last != u.Size) {
			t.Fatalf("%q: %d parts, the last of %d bytes", data, parts, last)
		}
		if _, err := dir.Stat(leats3.StateFile(s, u)); !ok && !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%q was refused and stays: %v", data, err)
		}
	})
}
