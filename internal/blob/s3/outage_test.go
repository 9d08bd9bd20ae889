package s3_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/leat-io/leat/internal/blob/blobtest"
	"github.com/leat-io/leat/internal/blob/s3"
	"github.com/leat-io/leat/internal/record"
)

// calls are every way to use a store, by name.
func calls(ctx context.Context, s *s3.Store) map[string]error {
	_, serr := s.Stat(ctx, "x")
	body, _, oerr := s.Open(ctx, "x")
	if oerr == nil {
		_, rerr := io.Copy(io.Discard, body)
		oerr = errors.Join(rerr, body.Close())
	}
	var lerr error
	for _, err := range s.List(ctx, "") {
		lerr = err
	}
	return map[string]error{
		"put":       s.Put(ctx, blobtest.Upload("new", []byte("content"))),
		"large put": s.Put(ctx, blobtest.Upload("large", blobtest.Bytes(1, partSize+1))),
		"stat":      serr, "open": oerr, "list": lerr, "delete": s.Delete(ctx, "y"),
	}
}

// A retry that fails as before must read as before: the export tells only what is new.
func TestAFailureReadsTheSameEachTime(t *testing.T) {
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := fmt.Sprint(time.Now().UnixNano())
		w.Header().Set("x-amz-request-id", id)
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "<Error><Code>AccessDenied</Code><Message>no</Message><RequestId>%s</RequestId></Error>", id)
	}))
	defer busy.Close()
	reset, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer reset.Close()
	wg.Go(func() {
		for {
			c, err := reset.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1))
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	})
	for name, test := range map[string]struct{ endpoint, want string }{
		"refused by the store": {busy.URL, "put s3://bucket/new: AccessDenied (403): no"},
		"connection broken":    {"http://" + reset.Addr().String(), "put s3://bucket/new: "},
	} {
		t.Run(name, func(t *testing.T) {
			c := s3.DefaultConfig()
			c.Endpoint, c.Bucket, c.AccessKey, c.SecretKey, c.Attempts = test.endpoint, "bucket", "a", "s", 1
			s := open(t, c, stateDir(t))
			first := fmt.Sprint(s.Put(t.Context(), blobtest.Upload("new", []byte("content"))))
			second := fmt.Sprint(s.Put(t.Context(), blobtest.Upload("new", []byte("content"))))
			if first != second || !strings.HasPrefix(first, test.want) {
				t.Errorf("first %q, then %q, want %q", first, second, test.want)
			}
		})
	}
}

// Whatever is wrong with the store, each call says so within the time the settings give, with a kind and a hint, and
// works again as soon as the store does.
func TestOutages(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	for name, test := range map[string]struct {
		begin, end func()
		change     func(*s3.Config)
		kind       record.Kind
		hint       string
	}{
		"refusing": {
			begin: func() { p.Set(blobtest.Refuse, nil) }, end: func() { p.Set(blobtest.Pass, nil) },
			kind: record.Unavailable, hint: "check endpoint, network",
		},
		"stopped": {
			begin: g.Stop, end: g.Start, change: func(c *s3.Config) { c.Endpoint = g.Endpoint },
			kind: record.Unavailable, hint: "check endpoint, network",
		},
		"answering 503": {
			begin: func() { p.Set(blobtest.Fail503, nil) }, end: func() { p.Set(blobtest.Pass, nil) },
			kind: record.Unavailable, hint: "asks for fewer requests",
		},
		"hanging": {
			begin: func() { p.Set(blobtest.Hang, nil) }, end: func() { p.Set(blobtest.Pass, nil) },
			change: func(c *s3.Config) { c.StallTimeout = 500 * time.Millisecond },
			kind:   record.Unavailable, hint: "does not answer",
		},
		"breaking connections": {
			begin: func() { p.Set(blobtest.Cut, nil) }, end: func() { p.Set(blobtest.Pass, nil) },
			kind: record.Unavailable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := settings(g)
			c.Endpoint, c.Prefix = p.URL, name+"/"
			if test.change != nil {
				test.change(&c)
			}
			healthy := c
			healthy.StallTimeout = 10 * time.Second
			blobtest.MustPut(t, open(t, healthy, nil), "x", []byte("content"))
			s := open(t, c, stateDir(t))
			test.begin()
			start := time.Now()
			for call, err := range calls(t.Context(), s) {
				if err == nil || record.KindOf(err) != test.kind || !strings.Contains(record.HintOf(err), test.hint) {
					t.Errorf("%s: %v (kind %s, hint %q), want kind %s and a hint about %q",
						call, err, record.KindOf(err), record.HintOf(err), test.kind, test.hint)
				}
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %s", took)
			}
			test.end()
			for call, err := range calls(t.Context(), open(t, healthy, stateDir(t))) {
				if err != nil {
					t.Errorf("%s after the outage: %v", call, err)
				}
			}
		})
	}
}

// A store that is set up wrongly is not unavailable: somebody has to repair something, and the hint says what.
func TestWrongSettings(t *testing.T) {
	g := blobtest.StartGateway(t)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<html>Welcome</html>")
	}))
	t.Cleanup(web.Close)
	for name, test := range map[string]struct {
		change func(*s3.Config)
		kind   record.Kind
		hint   string
		only   string // the call to look at; the others have their own truth
	}{
		"wrong secret":       {func(c *s3.Config) { c.SecretKey = "wrong" }, record.Denied, "secret_key", ""},
		"unknown access key": {func(c *s3.Config) { c.AccessKey = "nobody" }, record.Denied, "access_key", ""},
		"missing bucket":     {func(c *s3.Config) { c.Bucket = "absent" }, record.NotFound, "create the bucket", "put"},
		"missing bucket, ls": {func(c *s3.Config) { c.Bucket = "absent" }, record.NotFound, "create the bucket", "list"},
		"missing bucket, rm": {func(c *s3.Config) { c.Bucket = "absent" }, record.NotFound, "create the bucket", "delete"},
		"missing bucket, big": {
			func(c *s3.Config) { c.Bucket = "absent" }, record.NotFound, "create the bucket", "large put",
		},
		"wrong region": {func(c *s3.Config) { c.Region = "eu-central-1" }, record.Invalid, "set region", "list"},
		"unknown host": {
			func(c *s3.Config) { c.Endpoint = "http://no-such-host.invalid" }, record.Unavailable, "check endpoint", "",
		},
		"no S3 server":       {func(c *s3.Config) { c.Endpoint = web.URL }, record.Unavailable, "S3 API", "list"},
		"no S3 server, put":  {func(c *s3.Config) { c.Endpoint = web.URL }, record.Unavailable, "S3 API", "put"},
		"no S3 server, big":  {func(c *s3.Config) { c.Endpoint = web.URL }, record.Unavailable, "S3 API", "large put"},
		"no S3 server, get":  {func(c *s3.Config) { c.Endpoint = web.URL }, record.Unavailable, "S3 API", "open"},
		"no S3 server, head": {func(c *s3.Config) { c.Endpoint = web.URL }, record.Unavailable, "S3 API", "stat"},
	} {
		t.Run(name, func(t *testing.T) {
			c := settings(g)
			test.change(&c)
			for call, err := range calls(t.Context(), open(t, c, nil)) {
				if test.only != "" && call != test.only {
					continue
				}
				if err == nil || record.KindOf(err) != test.kind || !strings.Contains(record.HintOf(err), test.hint) {
					t.Errorf("%s: %v (kind %s, hint %q), want kind %s and a hint about %q",
						call, err, record.KindOf(err), record.HintOf(err), test.kind, test.hint)
				}
			}
		})
	}
}

// Codes that the gateway does not send on demand, as AWS and others write them.
func TestErrorCodes(t *testing.T) {
	for code, want := range map[string]struct {
		status int
		kind   record.Kind
		hint   string
	}{
		"RequestTimeTooSkewed":         {403, record.Unavailable, "clock"},
		"ExpiredToken":                 {400, record.Denied, "secret_key"},
		"AccessDenied":                 {403, record.Denied, "object-stores.md"},
		"PermanentRedirect":            {301, record.Invalid, "region"},
		"AuthorizationHeaderMalformed": {400, record.Invalid, "region"},
		"InternalError":                {500, record.Unavailable, "problem of its own"},
		"XMinioStorageFull":            {507, record.Unavailable, "full"},
		"SomethingNew":                 {429, record.Unavailable, "fewer requests"},
		"SomethingOdd":                 {400, record.Invalid, ""},
		"ConditionalRequestConflict":   {409, record.Unavailable, ""},
		"XAmzContentSHA256Mismatch":    {400, record.Unavailable, ""},
	} {
		t.Run(code, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.WriteHeader(want.status)
				fmt.Fprintf(w, "<Error><Code>%s</Code><Message>m</Message></Error>", code)
			}))
			defer server.Close()
			c := s3.DefaultConfig()
			c.Endpoint, c.Bucket, c.AccessKey, c.SecretKey, c.Attempts = server.URL, "b", "a", "s", 1
			err := open(t, c, nil).Put(t.Context(), blobtest.Upload("k", []byte("x")))
			blobtest.WantKind(t, err, want.kind, want.hint)
		})
	}
}

// A line on which something moves may take longer than the stall timeout; one on which nothing moves may not.
func TestSlowIsNotHanging(t *testing.T) {
	const stall = 600 * time.Millisecond
	slow := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e"`)
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Length", "10")
			for range 10 {
				_, _ = io.WriteString(w, "x")
				w.(http.Flusher).Flush()
				time.Sleep(stall / 4) // the slow line itself, not synchronisation
			}
			return
		}
		for buf := make([]byte, 256<<10); ; time.Sleep(stall / 8) {
			if _, err := io.ReadFull(r.Body, buf); err != nil {
				return
			}
		}
	}))
	slow.Listener = narrow{slow.Listener}
	slow.Start()
	defer slow.Close()
	c := s3.DefaultConfig()
	c.Endpoint, c.Bucket, c.AccessKey, c.SecretKey = slow.URL, "b", "a", "s"
	c.Attempts, c.StallTimeout, c.PartSize = 1, stall, 64<<20
	s := open(t, c, nil)
	start := time.Now()
	blobtest.MustPut(t, s, "k", blobtest.Bytes(1, 4<<20))
	if took := time.Since(start); took < stall {
		t.Fatalf("the upload took %s: it was not slow", took)
	}
	start = time.Now()
	if got := blobtest.MustRead(t, s, "k"); len(got) != 10 {
		t.Fatalf("%d bytes", len(got))
	}
	if took := time.Since(start); took < stall {
		t.Fatalf("the download took %s: it was not slow", took)
	}
}

// narrow keeps the kernel from taking megabytes that its server has not read: on a slow line they would be on their way.
type narrow struct{ net.Listener }

func (n narrow) Accept() (net.Conn, error) {
	conn, err := n.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
		err = tcp.SetReadBuffer(128 << 10)
	}
	return conn, err
}

// Secrets appear neither in errors nor in logs, however much goes wrong, nor where settings are printed.
func TestNoSecretsShown(t *testing.T) {
	g := blobtest.StartGateway(t)
	p := blobtest.NewProxy(t, g.Endpoint)
	const secret, token = "Very-Secret-Key-0123456789", "Very-Secret-Token-0123456789"
	c := settings(g)
	c.Endpoint, c.SecretKey, c.SessionToken, c.StallTimeout = p.URL, secret, token, 200*time.Millisecond
	var seen bytes.Buffer
	var log logBuffer
	s := openLogged(t, c, stateDir(t), log.logger())
	for _, mode := range []blobtest.Mode{
		blobtest.Pass, blobtest.Refuse, blobtest.Hang, blobtest.Fail503, blobtest.Fail501, blobtest.Cut, blobtest.Lose,
	} {
		p.Set(mode, nil)
		for call, err := range calls(t.Context(), s) {
			if err == nil {
				t.Errorf("%s works with a wrong secret", call)
			}
			fmt.Fprintf(&seen, "%v %+v %#v %s\n", err, err, err, record.HintOf(err))
		}
	}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	log.logger().Info("settings", "config", c, "secret", c.SecretKey)
	fmt.Fprintf(&seen, "%s\n%s\n%v %+v %#v %s %q\n%s", asJSON, asYAML, c, c, c, c.SecretKey, c.SecretKey, &log)
	for _, s := range []string{secret, token} {
		if strings.Contains(seen.String(), s) {
			t.Errorf("%q shows in:\n%s", s, seen.String())
		}
	}
}
