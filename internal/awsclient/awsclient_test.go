package awsclient_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"github.com/leat-io/leat/internal/awsclient"
	"github.com/leat-io/leat/internal/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSecretDoesNotShow(t *testing.T) {
	s := struct{ Key awsclient.Secret }{"hush"}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", s.Key)
	asJSON, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{log.String(), string(asJSON), string(asYAML), fmt.Sprintf("%v %+v %#v %s", s, s, s, s.Key)} {
		if strings.Contains(text, "hush") || !strings.Contains(text, "***") {
			t.Errorf("%s", text)
		}
	}
	if awsclient.Secret("").String() != "" {
		t.Error("an empty secret looks like one")
	}
}

func TestValidate(t *testing.T) {
	good := []awsclient.Config{
		{},
		{Endpoint: "http://127.0.0.1:4566", AccessKey: "a", SecretKey: "s", SessionToken: "t"},
		{Region: "eu-central-1", Profile: "plant"},
	}
	for _, c := range good {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for want, c := range map[string]awsclient.Config{
		"endpoint: is not a URL":          {Endpoint: "http://u:hush@x:port"},
		"endpoint: has a user":            {Endpoint: "https://u:hush@x"},
		"endpoint: \"kinesis\" is not":    {Endpoint: "kinesis"},
		"endpoint: \"http://x?y\" has a":  {Endpoint: "http://x?y"},
		"access_key: and secret_key must": {AccessKey: "a"},
		"session_token: needs":            {SessionToken: "hush"},
		"profile: and access_key exclude": {Profile: "p", AccessKey: "a", SecretKey: "hush"},
	} {
		err := c.Validate()
		if err == nil || record.KindOf(err) != record.Invalid || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v, want an Invalid error that starts with %q", err, want)
		}
	}
}

// emptyAWS makes an AWS environment that says nothing but what vars say.
func emptyAWS(t *testing.T, vars map[string]string) {
	dir := t.TempDir()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "") // so that it comes back after the test
			os.Unsetenv(name)
		}
	}
	for name, value := range vars {
		t.Setenv(name, value)
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "credentials"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// Where region and credentials come from. That endpoints are never inherited is tested beside package blob/s3.
func TestIdentity(t *testing.T) {
	inEnv := map[string]string{"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "env", "AWS_SECRET_ACCESS_KEY": "s"}
	for name, test := range map[string]struct {
		config            awsclient.Config
		env               map[string]string
		region, key, fail string
	}{
		"its own": {
			config: awsclient.Config{Region: "us-west-2", AccessKey: "own", SecretKey: "s"}, env: inEnv, region: "us-west-2", key: "own",
		},
		"the environment's": {env: inEnv, region: "eu-west-1", key: "env"},
		"its own key, environment's region": {
			config: awsclient.Config{AccessKey: "own", SecretKey: "s"}, env: inEnv, region: "eu-west-1", key: "own",
		},
		"an endpoint needs no region": {
			config: awsclient.Config{Endpoint: "http://x", AccessKey: "own", SecretKey: "s"}, region: "us-east-1", key: "own",
		},
		"AWS needs a region": {config: awsclient.Config{AccessKey: "own", SecretKey: "s"}, fail: "region: is empty"},
		"no such profile":    {config: awsclient.Config{Profile: "absent"}, fail: "read the AWS configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			emptyAWS(t, test.env)
			region, creds, err := test.config.Identity(t.Context(), http.DefaultClient, 1)
			if test.fail != "" {
				if err == nil || record.KindOf(err) != record.Invalid || !strings.Contains(err.Error(), test.fail) || record.HintOf(err) == "" {
					t.Errorf("%v, hint %q", err, record.HintOf(err))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := creds.Retrieve(t.Context())
			if err != nil || got.AccessKeyID != test.key || region != test.region {
				t.Errorf("%s %s %v, want %s %s", region, got.AccessKeyID, err, test.region, test.key)
			}
		})
	}
}

func client(t *testing.T, stall time.Duration) *http.Client {
	c := awsclient.NewHTTPClient(awsclient.HTTPOptions{ConnectTimeout: 5 * time.Second, StallTimeout: stall, IdleConns: 1})
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func get(t *testing.T, c *http.Client, url string) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}

func TestStallEndsAndSlowDoesNot(t *testing.T) {
	const stall = 300 * time.Millisecond
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			<-hang
			return
		}
		// Slow is the point here: the answer takes longer than the stall timeout, its bytes do not.
		for range 10 {
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()
			time.Sleep(stall / 6)
		}
	}))
	defer server.Close()
	defer close(hang)
	c := client(t, stall)
	if err := get(t, c, server.URL+"/slow"); err != nil {
		t.Errorf("slow: %v", err)
	}
	if err := get(t, c, server.URL+"/hang"); awsclient.TroubleOf(err) != awsclient.Hanging {
		t.Errorf("hang: %v is %d", err, awsclient.TroubleOf(err))
	}
}

func TestTrouble(t *testing.T) {
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	defer untrusted.Close()
	c := client(t, 5*time.Second)
	for name, test := range map[string]struct {
		err  error
		want awsclient.Trouble
	}{
		"certificate":  {get(t, c, untrusted.URL), awsclient.Untrusted},
		"refused":      {get(t, c, "http://127.0.0.1:1"), awsclient.Unreachable},
		"unknown host": {&net.DNSError{Err: "no such host", Name: "x"}, awsclient.Unreachable},
		"deadline":     {fmt.Errorf("wait: %w", context.DeadlineExceeded), awsclient.Hanging},
		"reset":        {io.ErrUnexpectedEOF, awsclient.Broken},
	} {
		if got := awsclient.TroubleOf(test.err); got != test.want {
			t.Errorf("%s: %v is %d, want %d", name, test.err, got, test.want)
		}
	}
	said := awsclient.Described{Err: get(t, c, "http://127.0.0.1:1/hush?token=hush")}.Error()
	if strings.Contains(said, "hush") || !strings.Contains(said, "127.0.0.1:1") {
		t.Error(said)
	}
}

// AWS answers a wrong signature with the request it had expected, session token and all.
func TestAnswerKeepsTheFirstLine(t *testing.T) {
	said := awsclient.Answer(403, "InvalidSignatureException", "The signature does not match.\n\nx-amz-security-token:hush")
	if want := "InvalidSignatureException (403): The signature does not match."; said != want {
		t.Errorf("%q, want %q", said, want)
	}
	if got, want := awsclient.Answer(503, "", ""), "the server answered 503 Service Unavailable"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	long := awsclient.FirstLine("\x00é"+strings.Repeat("é", 300), 99)
	if len(long) > 99+len("…") || !utf8.ValidString(long) || !strings.HasPrefix(long, "é") {
		t.Errorf("%q", long)
	}
}

// What is sent goes where the configuration says, and credentials to nobody else.
func TestRedirects(t *testing.T) {
	var other *http.Request
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { other = r }))
	defer elsewhere.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusTemporaryRedirect
		if r.URL.Path == "/found" {
			status = http.StatusFound
		}
		http.Redirect(w, r, elsewhere.URL, status)
	}))
	defer server.Close()
	for name, test := range map[string]struct {
		path         string
		follow, want bool
	}{
		"not followed":        {"/temporary", false, false},
		"followed when asked": {"/temporary", true, true},
		"others never":        {"/found", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := awsclient.NewHTTPClient(awsclient.HTTPOptions{
				ConnectTimeout: 5 * time.Second, StallTimeout: 5 * time.Second, IdleConns: 1, FollowRedirects: test.follow,
			})
			defer c.CloseIdleConnections()
			other = nil
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+test.path, strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Amz-Security-Token", "hush")
			req.Header.Set("Authorization", "hush")
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Body.Close(); (other != nil) != test.want {
				t.Fatalf("status %d, followed: %t", resp.StatusCode, other != nil)
			}
			// The servers differ only by port: for net/http that is one host, for a security token it is not.
			if other != nil && (other.Header.Get("X-Amz-Security-Token") != "" || other.Method != http.MethodPost) {
				t.Errorf("%s %v", other.Method, other.Header)
			}
		})
	}
}
