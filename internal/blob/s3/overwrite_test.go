package s3_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/blob/blobtest"
	leats3 "github.com/leat-io/leat/internal/blob/s3"
	"github.com/leat-io/leat/internal/record"
)

// overwriting is an upload that another program asked for.
func overwriting(key string, content []byte) blob.Upload {
	u := blobtest.Upload(key, content)
	u.Overwrite, u.Metadata = true, map[string]string{"origin": "unit 7", "Line": "a b"}
	return u
}

func TestOverwrittenObjectsCarryTheirMetadataAlone(t *testing.T) {
	g := blobtest.StartGateway(t)
	s := open(t, settings(g), stateDir(t))
	for name, test := range map[string]struct {
		size  int
		above int64
	}{"whole": {1000, 0}, "parts": {partSize + 1, 0}, "parts of a small one": {1000, 999}} {
		t.Run(name, func(t *testing.T) {
			u := overwriting(name, blobtest.Bytes(1, test.size))
			u.MultipartAbove = test.above
			blobtest.MustPut(t, s, name, []byte("before"))
			if err := s.Put(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			out, err := s.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &g.Bucket, Key: &name})
			if err != nil {
				t.Fatal(err)
			}
			if want := map[string]string{"origin": "unit 7", "line": "a b"}; !maps.Equal(out.Metadata, want) {
				t.Errorf("metadata %v, want %v", out.Metadata, want)
			}
		})
	}
}

func TestMultipartAboveIsTheUploadsOwn(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	c := settings(g)
	c.Endpoint = p.URL
	s := open(t, c, nil)
	for _, test := range []struct {
		size  int
		parts int
	}{{2 * partSize, 0}, {2*partSize + 1, 3}} {
		p.Forget()
		u := overwriting("threshold", blobtest.Bytes(1, test.size))
		u.MultipartAbove = 2 * partSize
		if err := s.Put(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		if got := len(p.Requests(isPart)); got != test.parts {
			t.Errorf("%d bytes: %d parts, want %d", test.size, got, test.parts)
		}
		if got := len(p.Requests(func(r blobtest.Request) bool { return r.Header.Get("If-None-Match") != "" })); got != 0 {
			t.Errorf("%d bytes: %d requests with a condition", test.size, got)
		}
	}
}

func TestOverwriteResumesAndSendsOnlyMissingParts(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	c := settings(g)
	c.Endpoint, c.Concurrency = p.URL, 1
	state := stateDir(t)
	p.Set(blobtest.Cut, isPartFrom(4))
	u := overwriting(bigKey, blobtest.Bytes(1, bigSize))
	if err := open(t, c, state).Put(t.Context(), u); err == nil {
		t.Fatal("put succeeded")
	}
	p.Set(blobtest.Pass, nil)
	p.Forget()
	s := open(t, c, state)
	if err := s.Put(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if parts, created := len(p.Requests(isPart)), len(p.Requests(isCreate)); parts != 3 || created != 0 {
		t.Errorf("%d parts and %d new uploads after the restart, want 3 and 0", parts, created)
	}
	wantStored(t, s)
	wantStateEmpty(t, state)
}

// An upload carries its metadata from the start: another one cannot go on with it.
func TestOverwriteWithOtherMetadataStartsAnew(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	c := settings(g)
	c.Endpoint, c.Concurrency = p.URL, 1
	state := stateDir(t)
	p.Set(blobtest.Cut, isPartFrom(2))
	u := overwriting(bigKey, blobtest.Bytes(1, bigSize))
	s := open(t, c, state)
	if err := s.Put(t.Context(), u); err == nil {
		t.Fatal("put succeeded")
	}
	p.Set(blobtest.Pass, nil)
	u.Metadata = map[string]string{"origin": "unit 8"}
	if err := s.Put(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	key := bigKey
	out, err := s.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &g.Bucket, Key: &key})
	if err != nil || !maps.Equal(out.Metadata, u.Metadata) {
		t.Errorf("metadata %v, %v, want %v", out.Metadata, err, u.Metadata)
	}
	if err := s.Abort(t.Context(), u.Resume); err != nil || len(unfinished(t, s, g.Bucket)) != 0 {
		t.Errorf("abort of the first: %v, %d are left", err, len(unfinished(t, s, g.Bucket)))
	}
}

func TestAbortGivesUpWhatWasBegunUnderAName(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	c := settings(g)
	c.Endpoint, c.Concurrency = p.URL, 1
	state := stateDir(t)
	p.Set(blobtest.Cut, isPartFrom(2))
	u := overwriting(bigKey, blobtest.Bytes(1, bigSize))
	if err := open(t, c, state).Put(t.Context(), u); err == nil {
		t.Fatal("put succeeded")
	}
	p.Set(blobtest.Pass, nil)
	s := open(t, c, state)
	for _, resume := range []string{"another", ""} {
		if err := s.Abort(t.Context(), resume); err != nil || len(unfinished(t, s, g.Bucket)) != 1 {
			t.Fatalf("abort of %q: %v, %d unfinished uploads are left", resume, err, len(unfinished(t, s, g.Bucket)))
		}
	}
	if err := s.Abort(t.Context(), u.Resume); err != nil || len(unfinished(t, s, g.Bucket)) != 0 {
		t.Fatalf("abort: %v, %d unfinished uploads are left", err, len(unfinished(t, s, g.Bucket)))
	}
	wantStateEmpty(t, state)
	if err := s.Abort(t.Context(), u.Resume); err != nil {
		t.Errorf("abort again: %v", err)
	}
}

func TestAbortThatFailsSaysSo(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	c := settings(g)
	c.Endpoint, c.Concurrency = p.URL, 1
	s := open(t, c, stateDir(t))
	p.Set(blobtest.Cut, isPart)
	u := overwriting(bigKey, blobtest.Bytes(1, bigSize))
	if err := s.Put(t.Context(), u); err == nil {
		t.Fatal("put succeeded")
	}
	p.Set(blobtest.Refuse, nil)
	blobtest.WantKind(t, s.Abort(t.Context(), u.Resume), record.Unavailable, "lifecycle rule")
}

// Every byte that is sent waits for the pace once; bytes that are only hashed do not.
func TestPace(t *testing.T) {
	g := blobtest.StartGateway(t)
	s := open(t, settings(g), nil)
	for _, size := range []int{1000, 2*partSize + 7} {
		var asked atomic.Int64
		u := overwriting("paced", blobtest.Bytes(1, size))
		u.Pace = func(_ context.Context, n int) error {
			asked.Add(int64(n))
			return nil
		}
		if err := s.Put(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		if asked.Load() != int64(size) {
			t.Errorf("the pace was asked for %d bytes of %d", asked.Load(), size)
		}
		if !bytes.Equal(blobtest.MustRead(t, s, "paced"), blobtest.Bytes(1, size)) {
			t.Error("content differs")
		}
	}
	stop := errors.New("stop")
	u := overwriting("stopped", blobtest.Bytes(1, 1000))
	u.Pace = func(context.Context, int) error { return stop }
	if err := s.Put(t.Context(), u); err == nil {
		t.Error("put succeeded although its pace failed")
	}
}

func TestAnyKey(t *testing.T) {
	c := leats3.DefaultConfig()
	c.Endpoint, c.Bucket, c.AccessKey, c.SecretKey = "http://127.0.0.1:1", "b", "a", "s"
	c.Attempts = 1
	s, err := leats3.Open(t.Context(), leats3.Options{Config: c, Log: slog.New(slog.DiscardHandler), AnyKey: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for key, allowed := range map[string]bool{
		"/a": true, "a//b": true, "a/": true, `a\b`: true, ".tmp/x": true, "": false, "a/../b": false, ".": false,
		"a\nb": false, "\xff": false, string(bytes.Repeat([]byte("k"), 1025)): false, string(bytes.Repeat([]byte("k"), 1024)): true,
	} {
		err := s.Put(t.Context(), blobtest.Upload(key, []byte("x")))
		if got := record.KindOf(err) != record.Invalid; got != allowed {
			t.Errorf("%.20q: %v, allowed should be %v", key, err, allowed)
		}
	}
}

func TestPermanent(t *testing.T) {
	g := blobtest.StartGateway(t)
	g.AddUser("guest", "guest-secret")
	p := blobtest.NewProxy(t, g.Endpoint)
	for name, test := range map[string]struct {
		change func(*leats3.Config)
		mode   blobtest.Mode
		want   bool
	}{
		"no such bucket":   {func(c *leats3.Config) { c.Bucket = "absent" }, blobtest.Pass, true},
		"no right":         {func(c *leats3.Config) { c.AccessKey, c.SecretKey = "guest", "guest-secret" }, blobtest.Pass, true},
		"unknown key":      {func(c *leats3.Config) { c.AccessKey = "nobody" }, blobtest.Pass, false},
		"wrong secret":     {func(c *leats3.Config) { c.SecretKey = "wrong" }, blobtest.Pass, false},
		"busy":             {func(*leats3.Config) {}, blobtest.Fail503, false},
		"connection lost":  {func(*leats3.Config) {}, blobtest.Lose, false},
		"not there at all": {func(c *leats3.Config) { c.Endpoint = "http://127.0.0.1:1" }, blobtest.Pass, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := settings(g)
			c.Endpoint = p.URL
			test.change(&c)
			p.Set(test.mode, nil)
			for _, size := range []int{10, partSize + 1} {
				err := open(t, c, nil).Put(t.Context(), overwriting("permanent", blobtest.Bytes(1, size)))
				if err == nil || leats3.Permanent(err) != test.want {
					t.Errorf("%d bytes: %v is permanent: %v, want %v", size, err, leats3.Permanent(err), test.want)
				}
			}
		})
	}
}
