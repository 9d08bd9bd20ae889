package forward

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/awsclient"
	"github.com/leat-io/leat/internal/record"
)

// Kinesis, SiteWise and IoT Analytics themselves cannot be had in tests. The servers here stand for them: they speak
// HTTP, want signed requests, and answer as their API references and recorded answers say. What they refuse or lose is
// what the tests tell them.

// double is a server that remembers what it was sent.
type double struct {
	*httptest.Server
	mu       sync.Mutex // guards below
	requests []received
	conns    map[string]bool // remote addresses
	// answer answers a request; n counts from 0.
	answer func(n int, w http.ResponseWriter, r received)
}

type received struct {
	*http.Request
	body []byte
}

func newDouble(t *testing.T, answer func(n int, w http.ResponseWriter, r received)) *double {
	d := &double{answer: answer, conns: map[string]bool{}}
	d.Server = httptest.NewServer(d)
	t.Cleanup(d.Close)
	return d
}

func (d *double) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	d.mu.Lock()
	n := len(d.requests)
	d.requests = append(d.requests, received{r, body})
	d.conns[r.RemoteAddr] = true
	d.mu.Unlock()
	d.answer(n, w, received{r, body})
}

func (d *double) got() []received {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]received(nil), d.requests...)
}

// respond answers with a status and a text.
func respond(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

const (
	testKey    = "AKIDEXAMPLE"
	testSecret = "hush-secret-key"
	testToken  = "hush-session-token"
)

// targetsFor makes Targets whose exports all go to an endpoint.
func targetsFor(t *testing.T, endpoint string, change func(*Config)) *Targets {
	c := Config{Timeout: 5 * time.Second, Destinations: []Destination{{
		Config: awsclient.Config{Endpoint: endpoint, Region: "eu-central-1", AccessKey: testKey, SecretKey: testSecret, SessionToken: testToken},
	}}}
	if change != nil {
		change(&c)
	}
	targets := NewTargets(Options{Config: c})
	t.Cleanup(func() {
		if err := targets.Close(); err != nil {
			t.Error(err)
		}
	})
	return targets
}

func batchOf(payloads ...string) *Batch {
	messages := make([]Message, len(payloads))
	for i, p := range payloads {
		messages[i] = Message{Sequence: record.Offset(100 + i), Time: 1_700_000_000_123_456_789, Payload: []byte(p)}
	}
	return NewBatch("readings", messages, nil, nil)
}

// skipped are the reasons for what was skipped, by index.
func skipped(b *Batch) map[int]string {
	out := map[int]string{}
	for i, s := range b.settled {
		if s.done && s.reason != "" {
			out[i] = s.reason
		}
	}
	return out
}

// wantSigned fails the test unless the request is signed for a service, by the test's key.
func wantSigned(t *testing.T, r received, service string) {
	t.Helper()
	auth := r.Header.Get("Authorization")
	if !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential="+testKey+"/") || !strings.Contains(auth, "/eu-central-1/"+service+"/aws4_request") ||
		!strings.Contains(auth, "host;") || r.Header.Get("X-Amz-Security-Token") != testToken {
		t.Errorf("not signed for %s: %q", service, auth)
	}
}

// wantError fails the test unless err has kind, text and hint, and no secret.
func wantError(t *testing.T, err error, kind record.Kind, text, hint string) {
	t.Helper()
	if err == nil || record.KindOf(err) != kind || !strings.Contains(err.Error(), text) || !strings.Contains(record.HintOf(err), hint) || record.HintOf(err) == "" {
		t.Errorf("%v (kind %s, hint %q), want kind %s, text %q, hint %q", err, record.KindOf(err), record.HintOf(err), kind, text, hint)
	}
	if err != nil && strings.Contains(err.Error()+record.HintOf(err), "hush") {
		t.Errorf("a secret shows: %v", err)
	}
}

// Whatever a service answers, the batch stays pending and the error says what it means and what to do.
func TestAnswersOfServices(t *testing.T) {
	for name, test := range map[string]struct {
		status     int
		body       string
		kind       record.Kind
		text, hint string
	}{
		"no such stream": {400, `{"__type":"ResourceNotFoundException","message":"Stream s under account 1 not found."}`,
			record.NotFound, "Stream s under account 1 not found.", "correct its name, region or endpoint"},
		"no permission":   {400, `{"__type":"AccessDeniedException","message":"User x is not authorized"}`, record.Denied, "not authorized", "the credentials need "},
		"unknown key":     {400, `{"__type":"UnrecognizedClientException","message":"The security token is invalid."}`, record.Denied, "token is invalid", "check the credentials"},
		"wrong signature": {400, `{"__type":"InvalidSignatureException","message":"It does not match.\n\nx-amz-security-token:` + testToken + `"}`, record.Denied, "does not match", "check the credentials"},
		"wrong clock": {400, `{"__type":"InvalidSignatureException","message":"Signature expired: 1 is now earlier than 2"}`, record.Denied,
			"Signature expired", "clock"},
		"throttled": {400, `{"__type":"ThrottlingException","message":"Rate exceeded"}`, record.Throttled, "Rate exceeded", "slows down"},
		"no key":    {400, `{"__type":"KMSDisabledException","message":"disabled"}`, record.Denied, "disabled", "KMS"},
		"invalid":   {400, `{"__type":"com.amazon#SerializationException"}`, record.Invalid, "SerializationException", "somebody has to repair"},
		"internal":  {500, `{"__type":"InternalFailure"}`, record.Unavailable, "InternalFailure (500)", "tries again"},
		"a proxy":   {502, `<html>bad gateway`, record.Unavailable, "502", ""},
		"a portal":  {200, `<html>please log in`, record.Unavailable, "", "check that"},
		"no result": {200, `{}`, record.Unavailable, "the answer is not one of", "check that"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDouble(t, func(_ int, w http.ResponseWriter, _ received) { respond(w, test.status, test.body) })
			targets := targetsFor(t, d.URL, nil)
			for kind, target := range awsTargets(targets) {
				b := batchOf(entry("e", 1))
				wantError(t, target.Deliver(t.Context(), b), test.kind, test.text, test.hint)
				if len(b.Pending()) != 1 {
					t.Errorf("%s: the message was settled: %v", kind, skipped(b))
				}
			}
			if n := len(d.got()); n != 3 {
				t.Errorf("%d requests, want one of each", n)
			}
		})
	}
}

func awsTargets(targets *Targets) map[string]Target {
	return map[string]Target{
		KindKinesis: targets.Kinesis("readings", "x", "s"), KindSiteWise: targets.SiteWise("readings", "x"),
		KindIoTAnalytics: targets.IoTAnalytics("readings", "x", "c", ""),
	}
}

// What the network does: each target says so, names the host, and delivers as soon as it can.
func TestNetworkTroubles(t *testing.T) {
	hang := make(chan struct{})
	hanging := newDouble(t, func(int, http.ResponseWriter, received) { <-hang })
	closing := newDouble(t, func(_ int, w http.ResponseWriter, _ received) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	})
	for name, test := range map[string]struct{ endpoint, text, hint string }{
		"refused":      {"http://127.0.0.1:1", "127.0.0.1:1", "check the network"},
		"unknown host": {"http://kinesis.invalid", "kinesis.invalid", "check the network"},
		"hanging":      {hanging.URL, "127.0.0.1", "does not answer"},
		"closing":      {closing.URL, "127.0.0.1", "broke"},
	} {
		t.Run(name, func(t *testing.T) {
			targets := targetsFor(t, test.endpoint, func(c *Config) { c.Timeout = 200 * time.Millisecond })
			all := awsTargets(targets)
			all[KindHTTP] = targets.HTTP(test.endpoint+"/hush?hush=hush", JSONBatched)
			for _, target := range all {
				b := batchOf(entry("e", 1))
				wantError(t, target.Deliver(t.Context(), b), record.Unavailable, test.text, test.hint)
				if len(b.Pending()) != 1 {
					t.Error("the message was settled")
				}
			}
		})
	}
	close(hang)
}

func TestEndOfContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := newDouble(t, func(int, http.ResponseWriter, received) { cancel(); <-t.Context().Done() })
	targets := targetsFor(t, d.URL, nil)
	if err := targets.HTTP(d.URL, RawNotBatched).Deliver(ctx, batchOf("x")); record.KindOf(err) != record.Unavailable {
		t.Error(err)
	}
	for kind, target := range awsTargets(targets) {
		if err := target.Deliver(ctx, batchOf(entry("e", 1))); record.KindOf(err) != record.Unavailable || !strings.Contains(err.Error(), "canceled") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// A hundred exports of one destination, delivering one after the other, have one set of credentials and use each other's
// connections. (Not always the same one: it may come back a little after the answer.)
func TestExportsShareWhatTheyCan(t *testing.T) {
	d := newDouble(t, func(_ int, w http.ResponseWriter, r received) { kinesisAnswer(t, w, r, nil) })
	targets := targetsFor(t, d.URL, nil)
	for i := range 100 {
		if err := targets.Kinesis(fmt.Sprint("stream", i), "x", "s").Deliver(t.Context(), batchOf("a")); err != nil {
			t.Fatal(err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.conns) > 50 || len(targets.accounts) != 1 {
		t.Errorf("%d connections, %d accounts", len(d.conns), len(targets.accounts))
	}
}

func TestDestinations(t *testing.T) {
	at := func(name string, d Destination) Destination { d.Endpoint = "http://" + name; return d }
	c := Config{Destinations: []Destination{
		at("one", Destination{Stream: "press-?", Kind: KindKinesis}),
		at("two", Destination{Stream: "press*", Export: "*to-leat*"}),
		at("three", Destination{Kind: "iot*"}),
	}}
	for want, q := range map[string][3]string{
		"http://one":   {"press-7", "to-leat", KindKinesis}, // the first counts
		"http://two":   {"press-77", "x to-leat", KindS3},
		"http://three": {"other", "x", KindIoTAnalytics},
		"":             {"press-77", "elsewhere", KindKinesis},
	} {
		if got := c.Destination(q[0], q[1], q[2]).Endpoint; got != want {
			t.Errorf("%q: %q, want %q", q, got, want)
		}
	}
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "x", true}, {"*", "", true}, {"?", "", false}, {"a*b*c", "a-b-b-c", true}, {"a*b*c", "a-b-b-d", false}, {"**", "x", true},
		{"a", "ab", false}, {"*b", "ab", true}, {"[a]", "a", false}, {strings.Repeat("a*", 30) + "b", strings.Repeat("a", 3000), false},
	} {
		if got := matches(test.pattern, test.s); got != test.want {
			t.Errorf("%q on %q: %t", test.pattern, test.s, got)
		}
	}
}

func TestDestinationValidate(t *testing.T) {
	yes := true
	for _, d := range []Destination{{}, {Kind: KindS3, PathStyle: &yes}, {Kind: "k*", Aggregate: true}, {Aggregate: true}} {
		if err := d.Validate(); err != nil {
			t.Errorf("%+v: %v", d, err)
		}
	}
	for want, d := range map[string]Destination{
		`kind: "firehose"`:  {Kind: "firehose"},
		`kind: "http"`:      {Kind: "http"},
		"aggregate: has no": {Kind: KindS3, Aggregate: true},
		"path_style: has":   {Kind: KindKinesis, PathStyle: &yes},
		"endpoint: ":        {Config: awsclient.Config{Endpoint: "host"}},
	} {
		if err := d.Validate(); err == nil || record.KindOf(err) != record.Invalid || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Nothing in the environment: the error says what is missing, and no request is sent.
func TestNoCredentialsNoRegion(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		t.Setenv(v, "")
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "credentials"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	d := newDouble(t, func(_ int, w http.ResponseWriter, _ received) { respond(w, 200, "{}") })
	t.Setenv("AWS_ENDPOINT_URL", d.URL) // never counts
	inAWS := targetsFor(t, "", func(c *Config) { c.Destinations = nil })
	wantError(t, inAWS.Kinesis("s", "x", "k").Deliver(t.Context(), batchOf("a")), record.Invalid, "region", "set region")
	here := targetsFor(t, d.URL, func(c *Config) { c.Destinations[0].Config = awsclient.Config{Endpoint: d.URL} })
	for _, target := range awsTargets(here) {
		wantError(t, target.Deliver(t.Context(), batchOf(entry("e", 1))), record.Denied, "", "access_key")
	}
	if n := len(d.got()); n != 0 {
		t.Errorf("%d requests without credentials", n)
	}
}

// entry is a message for SiteWise.
func entry(id string, value int) string {
	return fmt.Sprintf(`{"entryId":%q,"propertyAlias":"/press/7/force","propertyValues":[{"value":{"integerValue":%d},"timestamp":{"timeInSeconds":1700000000}}]}`, id, value)
}

func decode[T any](t *testing.T, b []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return v
}

func unbase64(t *testing.T, s string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
