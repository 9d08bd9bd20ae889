package s3_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leat-io/leat/internal/blob/blobtest"
	leats3 "github.com/leat-io/leat/internal/blob/s3"
	"github.com/leat-io/leat/internal/record"
)

// as returns settings of a new user who may do what the actions say, and nothing else, in the gateway's bucket.
func as(t *testing.T, g *blobtest.Gateway, user string, actions ...string) leats3.Config {
	t.Helper()
	c := settings(g)
	admin := open(t, c, nil)
	c.AccessKey, c.SecretKey = user, leats3.Secret("secret-of-"+user)
	g.AddUser(user, string(c.SecretKey))
	policy := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":[%q]},
		"Action":["%s"],"Resource":["arn:aws:s3:::%s","arn:aws:s3:::%s/*"]}]}`,
		user, strings.Join(actions, `","`), g.Bucket, g.Bucket)
	_, err := admin.Client().PutBucketPolicy(t.Context(), &s3.PutBucketPolicyInput{Bucket: &g.Bucket, Policy: &policy})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The profile of the prescriptive guidance: what leat needs to feed a lake.
func TestIngestProfile(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	c := as(t, g, "ingest", "s3:List*", "s3:Put*")
	c.Endpoint, c.Concurrency = p.URL, 1
	state := stateDir(t)
	var log logBuffer
	s := openLogged(t, c, state, log.logger())
	admin := open(t, settings(g), nil)

	t.Run("puts, and finds what it put", func(t *testing.T) {
		content := blobtest.Bytes(1, 1000)
		blobtest.MustPut(t, s, "a/x", content)
		blobtest.MustPut(t, s, "a/x", content)
		if got := s.Stats(); got.Puts != 1 || got.Existing != 1 {
			t.Errorf("stats %+v", got)
		}
		if strings.Contains(log.String(), "size only") {
			t.Error("the ETag was not used")
		}
		blobtest.WantKind(t, s.Put(t.Context(), blobtest.Upload("a/x", blobtest.Bytes(2, 1000))), record.Conflict, "")
		blobtest.WantKind(t, s.Put(t.Context(), blobtest.Upload("a/x", blobtest.Bytes(1, 999))), record.Conflict, "")
	})
	t.Run("resumes a large upload, and finds it", func(t *testing.T) {
		p.Set(blobtest.Cut, isPartFrom(4))
		u := blobtest.Upload(bigKey, blobtest.Bytes(1, bigSize))
		blobtest.WantKind(t, s.Put(t.Context(), u), record.Unavailable, "")
		p.Set(blobtest.Pass, nil)
		p.Forget()
		s := openLogged(t, c, state, log.logger())
		blobtest.MustPut(t, s, bigKey, blobtest.Bytes(1, bigSize))
		if got := len(p.Requests(isPart)); got != 3 {
			t.Errorf("%d parts sent after the restart, want 3", got)
		}
		wantStored(t, admin)
		p.Forget()
		blobtest.MustPut(t, s, bigKey, blobtest.Bytes(1, bigSize))
		if got := len(p.Requests(isPart)); got != 0 {
			t.Errorf("%d parts sent of an object that exists", got)
		}
		if strings.Contains(log.String(), "size only") {
			t.Error("the ETag of the parts was not used")
		}
	})
	t.Run("compares by size where the ETag tells nothing", func(t *testing.T) {
		s := openLogged(t, c, state, log.logger()) // has not seen yet that ETags are MD5
		blobtest.MustPut(t, s, "a/x", blobtest.Bytes(2, 1000))
		if !strings.Contains(log.String(), "size only") {
			t.Error("no warning")
		}
		blobtest.WantKind(t, s.Put(t.Context(), blobtest.Upload("a/x", blobtest.Bytes(2, 999))), record.Conflict, "")
	})
	t.Run("lists and describes", func(t *testing.T) {
		if got := blobtest.Keys(t, s, "a/"); len(got) != 1 {
			t.Errorf("listed %q", got)
		}
		o, err := s.Stat(t.Context(), "a/x")
		if err != nil || o.Size != 1000 {
			t.Errorf("stat: %+v, %v", o, err)
		}
		_, err = s.Stat(t.Context(), "a/")
		blobtest.WantKind(t, err, record.Invalid, "")
		_, err = s.Stat(t.Context(), "a/absent")
		blobtest.WantKind(t, err, record.NotFound, "")
	})
	t.Run("may not read or delete, and says so", func(t *testing.T) {
		_, _, err := s.Open(t.Context(), "a/x")
		blobtest.WantKind(t, err, record.Denied, "object-stores.md")
		blobtest.WantKind(t, s.Delete(t.Context(), "a/x"), record.Denied, "object-stores.md")
	})
}

func TestManageProfile(t *testing.T) {
	g := blobtest.StartGateway(t)
	c := as(t, g, "manage", "s3:List*", "s3:Put*", "s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
	s := open(t, c, stateDir(t))
	for _, n := range []int{1000, partSize + 1} {
		content := blobtest.Bytes(1, n)
		blobtest.MustPut(t, s, "k", content)
		blobtest.MustPut(t, s, "k", content)
		blobtest.WantKind(t, s.Put(t.Context(), blobtest.Upload("k", blobtest.Bytes(2, n))), record.Conflict, "")
		if !bytes.Equal(blobtest.MustRead(t, s, "k"), content) {
			t.Error("content differs")
		}
		if err := s.Delete(t.Context(), "k"); err != nil {
			t.Error(err)
		}
	}
}

// With the right to put and no other, a first put works; what cannot be compared is said to be denied.
func TestPutRightAlone(t *testing.T) {
	g := blobtest.StartGateway(t)
	s := open(t, as(t, g, "putonly", "s3:PutObject"), nil)
	for _, n := range []int{1000, partSize + 1} {
		key := fmt.Sprint(n)
		blobtest.MustPut(t, s, key, blobtest.Bytes(1, n))
		blobtest.WantKind(t, s.Put(t.Context(), blobtest.Upload(key, blobtest.Bytes(1, n))), record.Denied, "object-stores.md")
	}
}

func TestNoRights(t *testing.T) {
	g := blobtest.StartGateway(t)
	s := open(t, as(t, g, "reader", "s3:GetObject"), nil)
	blobtest.WantKind(t, s.Put(t.Context(), blobtest.Upload("k", []byte("x"))), record.Denied, "object-stores.md")
}

// Objects that another program put carry no SHA-256 of ours: the ETag decides, and at last the content.
func TestObjectsOfOthers(t *testing.T) {
	g := blobtest.StartGateway(t)
	s := open(t, settings(g), nil)
	put := func(key string, content []byte) {
		t.Helper()
		_, err := s.Client().PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: &g.Bucket, Key: &key, Body: bytes.NewReader(content), ContentLength: aws.Int64(int64(len(content))),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int{1000, partSize + 1} { // the second is ours in parts and theirs in one: other ETags
		key := fmt.Sprint(n)
		put(key, blobtest.Bytes(1, n))
		blobtest.MustPut(t, s, key, blobtest.Bytes(1, n))
		blobtest.WantKind(t, s.Put(t.Context(), blobtest.Upload(key, blobtest.Bytes(2, n))), record.Conflict, "")
	}
	put("dir/", nil) // a marker as web consoles make them
	blobtest.MustPut(t, s, "dir/x", []byte("x"))
	if got := blobtest.Keys(t, s, "dir/"); len(got) != 1 || got[0] != "dir/x" {
		t.Errorf("listed %q", got)
	}
}

// versitygw itself knows If-None-Match; a store that does not is made by the proxy.
func TestStoreWithoutConditions(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	conditional := func(r blobtest.Request) bool { return r.Header.Get("If-None-Match") != "" }
	p.Set(blobtest.Fail501, conditional)
	c := settings(g)
	c.Endpoint = p.URL
	var log logBuffer
	for _, n := range []int{1000, partSize + 1} {
		s := openLogged(t, c, stateDir(t), log.logger())
		for i := range 3 {
			blobtest.MustPut(t, s, fmt.Sprintf("%d/%d", n, i), blobtest.Bytes(1, n))
		}
		if got := len(p.Requests(conditional)); got != 1 {
			t.Errorf("%d conditional requests: the store is asked again and again", got)
		}
		blobtest.MustPut(t, s, fmt.Sprintf("%d/0", n), blobtest.Bytes(1, n))
		err := s.Put(t.Context(), blobtest.Upload(fmt.Sprintf("%d/0", n), blobtest.Bytes(2, n)))
		blobtest.WantKind(t, err, record.Conflict, "")
		if got := s.Stats(); got.Puts != 3 || got.Existing != 1 || got.Conflicts != 1 {
			t.Errorf("stats %+v", got)
		}
		p.Forget()
	}
	if !strings.Contains(log.String(), "If-None-Match") {
		t.Error("nothing was logged")
	}
}

// The gateway verifies what the store relies on: the condition, and the content's hash in the signature.
func TestGatewayIsStrict(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	c := settings(g)
	c.Endpoint = p.URL
	s := open(t, c, nil)
	blobtest.MustPut(t, s, "k", []byte("one"))
	if r := p.Requests(nil); len(r) != 1 || r[0].Header.Get("If-None-Match") != "*" ||
		len(r[0].Header.Get("X-Amz-Content-Sha256")) != 64 || r[0].Header.Get("X-Amz-Trailer") != "" {
		t.Errorf("requests: %+v", r)
	}
	_, err := s.Client().PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &g.Bucket, Key: aws.String("k"), Body: strings.NewReader("two"), IfNoneMatch: aws.String("*"),
	})
	if err == nil || !strings.Contains(err.Error(), "412") {
		t.Errorf("put of an existing key: %v, want 412", err)
	}
	// Content that changes between hashing and sending.
	u := blobtest.Upload("changed", []byte("first"))
	u.Body = &turncoat{first: []byte("first"), then: []byte("later")}
	blobtest.WantKind(t, s.Put(t.Context(), u), record.Unavailable, "")
	if got := blobtest.Keys(t, s, "changed"); len(got) != 0 {
		t.Errorf("stored: %q", got)
	}
	if _, err := s.Stat(t.Context(), "k"); err != nil {
		t.Error(err)
	}
}

// turncoat reads differently after the first time.
type turncoat struct {
	first, then []byte
	reads       int
}

func (r *turncoat) ReadAt(p []byte, off int64) (int, error) {
	content := r.first
	if r.reads++; r.reads > 1 {
		content = r.then
	}
	return bytes.NewReader(content).ReadAt(p, off)
}
