package s3_test

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"go.yaml.in/yaml/v3"

	"github.com/leat-io/leat/internal/blob/blobtest"
	"github.com/leat-io/leat/internal/blob/s3"
	"github.com/leat-io/leat/internal/record"
)

// noNetwork answers nothing and remembers who was asked.
type noNetwork struct {
	mu    sync.Mutex
	hosts []string
}

func (n *noNetwork) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts = append(n.hosts, r.URL.Scheme+"://"+r.URL.Host)
	return nil, errors.New("no network in this test")
}

// asked are the hosts, once each.
func (n *noNetwork) asked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, h := range n.hosts {
		if len(out) == 0 || out[len(out)-1] != h {
			out = append(out, h)
		}
	}
	return out
}

// awsFiles makes an AWS environment of the given configuration and nothing of the machine's own.
func awsFiles(t *testing.T, config string) {
	t.Helper()
	dir := t.TempDir()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
	path := filepath.Join(dir, "config")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CONFIG_FILE", path)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "credentials"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// The endpoint comes from Config alone. A machine on which AWS clients are pointed at leat must not make leat put its
// objects into itself.
func TestEndpointIsNeverInherited(t *testing.T) {
	const trap = "http://127.0.0.1:4566"
	static := func(c *s3.Config) { c.AccessKey, c.SecretKey = "a", "s" }
	env := map[string]map[string]string{
		"nothing":          {},
		"AWS_ENDPOINT_URL": {"AWS_ENDPOINT_URL": trap},
		"for S3 and STS":   {"AWS_ENDPOINT_URL_S3": trap, "AWS_ENDPOINT_URL_STS": trap},
		"both":             {"AWS_ENDPOINT_URL": trap, "AWS_ENDPOINT_URL_S3": trap, "AWS_ENDPOINT_URL_STS": trap},
	}
	keys := "aws_access_key_id = a\naws_secret_access_key = s\nregion = eu-central-1\n"
	role := "[profile base]\n" + keys + "[default]\nregion = eu-central-1\nrole_arn = arn:aws:iam::123456789012:role/r\n" +
		"source_profile = base\n"
	services := "endpoint_url = " + trap + "\nservices = own\n[services own]\ns3 =\n  endpoint_url = " + trap +
		"\nsts =\n  endpoint_url = " + trap + "\n"
	for envName, vars := range env {
		for name, test := range map[string]struct {
			files  string
			change func(*s3.Config)
			want   string
		}{
			"static credentials, AWS": {"", func(c *s3.Config) { static(c); c.Region = "eu-west-1" },
				"https://lake.s3.eu-west-1.amazonaws.com"},
			"static credentials, region of the file": {"[default]\n" + keys + services, static,
				"https://lake.s3.eu-central-1.amazonaws.com"},
			"static credentials, endpoint": {"[default]\n" + keys + services,
				func(c *s3.Config) { static(c); c.Endpoint = "http://store:9000" }, "http://store:9000"},
			"credentials of the file": {"[default]\n" + keys + services, nil, "https://lake.s3.eu-central-1.amazonaws.com"},
			"role, its STS":           {role + services, nil, "https://sts.eu-central-1.amazonaws.com"},
		} {
			t.Run(envName+"/"+name, func(t *testing.T) {
				awsFiles(t, test.files)
				for k, v := range vars {
					t.Setenv(k, v)
				}
				wantHost(t, test.change, test.want)
			})
		}
		t.Run(envName+"/web identity, its STS", func(t *testing.T) {
			awsFiles(t, "[default]\nregion = eu-central-1\n"+services)
			token := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(token, []byte("t"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token)
			t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")
			for k, v := range vars {
				t.Setenv(k, v)
			}
			wantHost(t, nil, "https://sts.eu-central-1.amazonaws.com")
		})
	}
}

// wantHost fails the test unless a call goes to that host and no other.
func wantHost(t *testing.T, change func(*s3.Config), want string) {
	t.Helper()
	c := s3.DefaultConfig()
	c.Bucket, c.Attempts = "lake", 1
	if change != nil {
		change(&c)
	}
	var network noNetwork
	client, err := s3.NewClientOver(t.Context(), c, &network)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.HeadBucket(t.Context(), &awss3.HeadBucketInput{Bucket: &c.Bucket}); err == nil {
		t.Fatal("no error without network")
	}
	if got := network.asked(); len(got) != 1 || got[0] != want {
		t.Errorf("asked %q, want %s", got, want)
	}
}

// The whole way, with a server in the trap.
func TestEndpointOfEnvironmentIsNotUsed(t *testing.T) {
	g := blobtest.StartGateway(t)
	trap := blobtest.NewProxy(t, g.Endpoint)
	awsFiles(t, "[default]\nendpoint_url = "+trap.URL+"\n")
	t.Setenv("AWS_ENDPOINT_URL", trap.URL)
	t.Setenv("AWS_ENDPOINT_URL_S3", trap.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", g.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", g.SecretKey)
	c := settings(g)
	c.AccessKey, c.SecretKey = "", "" // the chain's credentials do count
	blobtest.MustPut(t, open(t, c, nil), "k", []byte("x"))
	if got := trap.Requests(nil); len(got) != 0 {
		t.Errorf("the environment's endpoint got %+v", got)
	}
}

func TestCredentialChain(t *testing.T) {
	awsFiles(t, "")
	c := s3.DefaultConfig()
	c.Endpoint, c.Bucket, c.Attempts = "http://127.0.0.1:1", "b", 1
	err := open(t, c, nil).Put(t.Context(), blobtest.Upload("k", []byte("x")))
	blobtest.WantKind(t, err, record.Denied, "no credentials were found")

	c.Profile = "absent"
	_, err = s3.Open(t.Context(), s3.Options{Config: c})
	blobtest.WantKind(t, err, record.Invalid, "~/.aws/config")
	c.Profile, c.Endpoint = "", ""
	_, err = s3.Open(t.Context(), s3.Options{Config: c})
	blobtest.WantKind(t, err, record.Invalid, "set region")
}

func TestConfig(t *testing.T) {
	c := s3.DefaultConfig()
	decoder := yaml.NewDecoder(strings.NewReader(`
endpoint: https://s3.example.com:9000
bucket: lake
prefix: plant-7/
path_style: false
access_key: a
secret_key: s
checksums: when_supported
part_size: 16777216
stall_timeout: 1m30s
`))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.StallTimeout != 90*time.Second || c.PathStyle == nil || *c.PathStyle || c.Concurrency == 0 {
		t.Errorf("%+v", c)
	}
	for want, change := range map[string]func(*s3.Config){
		"bucket: is empty":                func(c *s3.Config) { c.Bucket = "" },
		"bucket: \"lake/x\" is not":       func(c *s3.Config) { c.Bucket = "lake/x" },
		"endpoint: \"s3.example.com\"":    func(c *s3.Config) { c.Endpoint = "s3.example.com" },
		"endpoint: \"ftp://x\"":           func(c *s3.Config) { c.Endpoint = "ftp://x" },
		"endpoint: has a user":            func(c *s3.Config) { c.Endpoint = "https://u:hush@x" },
		"endpoint: is not a URL":          func(c *s3.Config) { c.Endpoint = "http://u:hush@x:port" },
		"endpoint: \"http://x?y\" has a":  func(c *s3.Config) { c.Endpoint = "http://x?y" },
		"prefix: ":                        func(c *s3.Config) { c.Prefix = "/x/" },
		"access_key: and secret_key must": func(c *s3.Config) { c.SecretKey = "" },
		"session_token: needs":            func(c *s3.Config) { c.AccessKey, c.SecretKey, c.SessionToken = "", "", "t" },
		"profile: and access_key exclude": func(c *s3.Config) { c.Profile = "p" },
		"checksums: \"md5\" is unknown":   func(c *s3.Config) { c.Checksums = "md5" },
		"part_size: 1 bytes":              func(c *s3.Config) { c.PartSize = 1 },
		"concurrency: 0":                  func(c *s3.Config) { c.Concurrency = 0 },
		"attempts: 0":                     func(c *s3.Config) { c.Attempts = 0 },
		"connect_timeout: 0s":             func(c *s3.Config) { c.ConnectTimeout = 0 },
		"stall_timeout: -1s":              func(c *s3.Config) { c.StallTimeout = -time.Second },
	} {
		bad := c
		change(&bad)
		err := bad.Validate()
		if err == nil || record.KindOf(err) != record.Invalid || !strings.HasPrefix(err.Error(), want) ||
			strings.Contains(err.Error(), "hush") {
			t.Errorf("%v, want an error that starts with %q", err, want)
		}
	}
}
