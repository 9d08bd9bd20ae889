package blobtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Mode is what a Proxy does to requests.
type Mode int

// The modes of a Proxy.
const (
	Pass    Mode = iota // forward
	Refuse              // no listener: connections are refused at once
	Hang                // take the request and never answer
	Fail503             // answer 503 SlowDown as S3 does
	Fail501             // answer 501 NotImplemented, as stores do to what they do not know
	Cut                 // take CutBytes of the request's body and break the connection; nothing is forwarded
	Lose                // forward, and break the connection instead of answering: the store did it, the client does not know
)

// CutBytes is how much of a request's body a Proxy in mode Cut reads.
const CutBytes = 64 << 10

// Request is a request that reached a Proxy.
type Request struct {
	Method, Path string
	Query        url.Values
	Header       http.Header
	Mode         Mode // what was done to it
}

// Is reports whether the request is of a method and, for each name given, has that query parameter: an UploadPart is
// Is("PUT", "partNumber", "uploadId").
func (r Request) Is(method string, params ...string) bool {
	if r.Method != method {
		return false
	}
	for _, p := range params {
		if !r.Query.Has(p) {
			return false
		}
	}
	return true
}

// Proxy is an HTTP server between a client and a real server that can be told to fail. It keeps the Host header, which
// S3 signatures cover. It is safe for concurrent use.
type Proxy struct {
	URL string

	t      testing.TB
	addr   string
	target *httputil.ReverseProxy

	mu       sync.Mutex // guards all below
	mode     Mode
	only     func(Request) bool
	changed  chan struct{} // closed when the mode changes: hanging requests end
	requests []Request
	server   *http.Server  // nil in mode Refuse
	done     chan struct{} // closed when server has ended
}

// NewProxy starts a proxy on a free port of the loopback. It ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32}
	p := &Proxy{t: t, changed: make(chan struct{}), target: &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Host = r.In.Host
		},
		// A target that is down looks to the client as it would without a proxy.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	p.URL = "http://" + p.addr
	p.serve(l)
	t.Cleanup(func() {
		p.Set(Refuse, nil)
		transport.CloseIdleConnections()
	})
	return p
}

// Set changes what happens to requests from now on; hanging ones are broken off. only limits it to some requests, the
// others pass; nil means all. Mode Refuse cannot be limited.
func (p *Proxy) Set(m Mode, only func(Request) bool) {
	p.t.Helper()
	p.mu.Lock()
	close(p.changed)
	p.changed = make(chan struct{})
	p.mode, p.only = m, only
	server, done := p.server, p.done
	switch {
	case m == Refuse:
		p.server = nil
	case server == nil:
		l, err := net.Listen("tcp", p.addr)
		if err != nil {
			p.t.Errorf("listen again: %v", err)
		} else {
			p.serve(l)
		}
	}
	p.mu.Unlock()
	if m == Refuse && server != nil {
		if err := server.Close(); err != nil {
			p.t.Errorf("close proxy: %v", err)
		}
		<-done
	}
}

// serve needs the lock, or that nobody knows p yet.
func (p *Proxy) serve(l net.Listener) {
	server := &http.Server{Handler: http.HandlerFunc(p.handle), ErrorLog: log.New(io.Discard, "", 0),
		ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	p.server, p.done = server, done
	go func() {
		defer close(done)
		if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			p.t.Errorf("proxy: %v", err)
		}
	}()
}

// Requests are those that arrived so far and satisfy is; nil means all.
func (p *Proxy) Requests(is func(Request) bool) []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Request
	for _, r := range p.requests {
		if is == nil || is(r) {
			out = append(out, r)
		}
	}
	return out
}

// Forget empties Requests.
func (p *Proxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = nil
}

func (p *Proxy) handle(w http.ResponseWriter, r *http.Request) {
	req := Request{Method: r.Method, Path: r.URL.Path, Query: r.URL.Query(), Header: r.Header.Clone()}
	p.mu.Lock()
	if p.only == nil || p.only(req) {
		req.Mode = p.mode
	}
	p.requests = append(p.requests, req)
	changed := p.changed
	p.mu.Unlock()
	switch req.Mode {
	case Hang:
		// A server notices that its client is gone only once it has read the body.
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-changed:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case Fail503:
		refuse(w, r, http.StatusServiceUnavailable, "SlowDown")
	case Fail501:
		refuse(w, r, http.StatusNotImplemented, "NotImplemented")
	case Cut:
		_, _ = io.CopyN(io.Discard, r.Body, CutBytes)
		panic(http.ErrAbortHandler)
	case Lose:
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), time.Minute)
		defer cancel()
		p.target.ServeHTTP(&lost{header: http.Header{}}, r.WithContext(ctx))
		panic(http.ErrAbortHandler)
	default:
		p.target.ServeHTTP(w, r)
	}
}

// refuse answers as S3 does.
func refuse(w http.ResponseWriter, r *http.Request, status int, code string) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>"+
		"<Error><Code>%s</Code><Message>a fault of the test</Message></Error>", code)
}

// lost is where an answer goes that the client will not see.
type lost struct{ header http.Header }

func (l *lost) Header() http.Header         { return l.header }
func (l *lost) Write(p []byte) (int, error) { return len(p), nil }
func (l *lost) WriteHeader(int)             {}
