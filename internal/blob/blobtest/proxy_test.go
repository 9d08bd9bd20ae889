package blobtest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-io/leat/internal/blob/blobtest"
	"github.com/leat-io/leat/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProxy(t *testing.T) {
	var served atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		served.Add(1)
		fmt.Fprintf(w, "%s %d", r.Host, n)
	}))
	defer target.Close()
	p := blobtest.NewProxy(t, target.URL)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	put := func(path string) (status int, answer string, err error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, p.URL+path, bytes.NewReader(make([]byte, 1<<20)))
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return res.StatusCode, string(body), err
	}
	wantServed := func(want int64) {
		t.Helper()
		if got := served.Swap(0); got != want {
			t.Errorf("%d requests reached the target, want %d", got, want)
		}
	}
	if status, answer, err := put("/a?x=1"); err != nil || status != 200 || "http://"+answer != p.URL+" 1048576" {
		t.Errorf("pass: %d %q %v", status, answer, err)
	}
	wantServed(1)
	if r := p.Requests(nil); len(r) != 1 || !r[0].Is("PUT", "x") || r[0].Is("PUT", "y") || r[0].Path != "/a" {
		t.Errorf("requests: %+v", r)
	}
	p.Set(blobtest.Refuse, nil)
	if _, _, err := put("/"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refuse: %v", err)
	}
	for mode, want := range map[blobtest.Mode]int{blobtest.Fail503: 503, blobtest.Fail501: 501} {
		p.Set(mode, nil)
		if status, _, err := put("/"); err != nil || status != want {
			t.Errorf("%d %v, want %d", status, err, want)
		}
	}
	p.Set(blobtest.Cut, nil)
	if _, _, err := put("/"); err == nil {
		t.Error("cut: no error")
	}
	wantServed(0)
	p.Set(blobtest.Lose, func(r blobtest.Request) bool { return r.Path == "/lost" })
	if status, _, err := put("/kept"); err != nil || status != 200 {
		t.Errorf("a request that is not meant: %d %v", status, err)
	}
	if _, _, err := put("/lost"); err == nil {
		t.Error("lose: no error")
	}
	wantServed(2)
	p.Set(blobtest.Hang, nil)
	p.Forget()
	result := make(chan error, 1)
	go func() {
		_, _, err := put("/")
		result <- err
	}()
	testenv.Wait(t, 10*time.Second, func() bool { return len(p.Requests(nil)) == 1 }, "the hanging request")
	p.Set(blobtest.Pass, nil)
	if err := <-result; err == nil {
		t.Error("hang: answered")
	}
	wantServed(0)
}

func TestGatewayKeepsPortAndObjects(t *testing.T) {
	g := blobtest.StartGateway(t)
	for _, stop := range []func(){g.Stop, g.Kill} {
		stop()
		stop()
		if _, err := http.Get(g.Endpoint); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("stopped: %v", err)
		}
		g.Start()
		g.Start()
	}
}
