package auth_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/auth"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/testenv"

	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/bcrypt"
)

func hash(t testing.TB, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func open(t testing.TB, cfg auth.Config) *auth.Authority {
	t.Helper()
	a, err := auth.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAuthenticate(t *testing.T) {
	a := open(t, auth.Config{Users: []auth.User{{Name: "dev", PasswordHash: hash(t, "secret")}, {Name: "cert-only"}}})
	for _, c := range []struct {
		user, password string
		ok             bool
	}{
		{"dev", "secret", true}, {"dev", "secret", true}, {"dev", "Secret", false}, {"dev", "", false},
		{"nobody", "secret", false}, {"", "", false}, {"cert-only", "", false}, {"cert-only", "secret", false},
	} {
		p, err := a.Authenticate(t.Context(), c.user, []byte(c.password))
		if (err == nil) != c.ok || c.ok && p.Name != c.user || !c.ok && record.KindOf(err) != record.Denied {
			t.Errorf("%q with %q: %v, %v", c.user, c.password, p, err)
		}
	}
}

func TestAChangedPasswordForgetsTheOldOne(t *testing.T) {
	a := open(t, auth.Config{Users: []auth.User{{Name: "dev", PasswordHash: hash(t, "old")}}})
	if _, err := a.Authenticate(t.Context(), "dev", []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := a.Replace(auth.Config{Users: []auth.User{{Name: "dev", PasswordHash: hash(t, "new")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(t.Context(), "dev", []byte("old")); err == nil {
		t.Error("the old password is still good")
	}
	if _, err := a.Authenticate(t.Context(), "dev", []byte("new")); err != nil {
		t.Error(err)
	}
	if err := a.Replace(auth.Config{Users: []auth.User{{Name: ""}}}); err == nil {
		t.Error("a wrong configuration was taken")
	}
	if _, err := a.Authenticate(t.Context(), "dev", []byte("new")); err != nil {
		t.Error("a wrong configuration replaced the right one")
	}
}

func TestWaitingForAProcessorEndsWithTheContext(t *testing.T) {
	a := open(t, auth.Config{Users: []auth.User{{Name: "dev", PasswordHash: hash(t, "x")}}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 64 { // both ready: select takes the ended context sooner or later
		if _, err := a.Authenticate(ctx, "dev", []byte("wrong")); record.KindOf(err) == record.Throttled {
			return
		}
	}
	t.Error("an ended context never ended the wait")
}

func TestUsersFiles(t *testing.T) {
	t.Run("as mosquitto_passwd writes them", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "passwd")
		cmd := exec.Command(testenv.Need(t, "mosquitto_passwd"), "-c", "-b", file, "dev", "secret")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		a := open(t, auth.Config{UsersFile: file})
		if _, err := a.Authenticate(t.Context(), "dev", []byte("secret")); err != nil {
			t.Error(err)
		}
		if _, err := a.Authenticate(t.Context(), "dev", []byte("guess")); err == nil {
			t.Error("a wrong password was good")
		}
	})
	t.Run("errors name the line", func(t *testing.T) {
		for text, want := range map[string]string{
			"dev":                                   "line 1: want name:hash",
			"# note\n\ndev:plain":                   "line 3: the password of \"dev\" is neither",
			":$2b$":                                 "line 1: the name is empty",
			"dev:$7$0$AAAA$AAAA":                    "rounds",
			"dev:$7$99999999$AAA$AAA":               "rounds",
			"dev:$2b$31$" + strings.Repeat("x", 53): "bcrypt",
			"dev:$2b$10$short":                      "60 characters",
		} {
			if _, err := auth.ParseUsers([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %s", text, err, want)
			}
		}
	})
	t.Run("a missing file is an error with a hint", func(t *testing.T) {
		_, err := auth.Open(auth.Config{UsersFile: filepath.Join(t.TempDir(), "none")})
		if err == nil || !strings.Contains(record.HintOf(err), "mosquitto_passwd") {
			t.Errorf("%v, hint %q", err, record.HintOf(err))
		}
	})
	t.Run("a name in both places is refused", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "passwd")
		if err := os.WriteFile(file, []byte("dev:"+hash(t, "x")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := auth.Open(auth.Config{UsersFile: file, Users: []auth.User{{Name: "dev"}}}); err == nil {
			t.Error("accepted")
		}
	})
}

func TestCertificates(t *testing.T) {
	a := open(t, auth.Config{
		Users:           []auth.User{{Name: "known"}},
		DefaultPolicies: []string{"own"},
		Policies:        map[string]auth.Policy{"own": allow("mqtt:Publish", "topic/${user}/#")},
	})
	for _, name := range []string{"known", "other"} {
		p, err := a.Certificate(&x509.Certificate{Subject: pkix.Name{CommonName: name}})
		if err != nil || p.Name != name {
			t.Fatalf("%v, %v", p, err)
		}
		if !p.Allowed(auth.MQTTPublish, "topic/"+name+"/t", "c") || p.Allowed(auth.MQTTPublish, "topic/else/t", "c") {
			t.Errorf("%s does not have the default policy", name)
		}
	}
	if _, err := a.Certificate(&x509.Certificate{}); record.KindOf(err) != record.Denied {
		t.Errorf("a certificate without a name: %v", err)
	}
}

func allow(action, resource string) auth.Policy {
	return auth.Policy{Statement: []auth.Statement{{Effect: "Allow", Action: auth.Texts{action}, Resource: auth.Texts{resource}}}}
}

func principal(t testing.TB, p ...auth.Policy) *auth.Principal {
	t.Helper()
	cfg := auth.Config{Policies: map[string]auth.Policy{}}
	for i, pol := range p {
		name := string(rune('a' + i))
		cfg.Policies[name] = pol
		cfg.AnonymousPolicies = append(cfg.AnonymousPolicies, name)
	}
	return open(t, cfg).Anonymous()
}

func TestTopicPatternsCoverFilters(t *testing.T) {
	for _, c := range []struct {
		pattern, filter string
		want            bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a/c", false}, {"a/b", "a/b/c", false}, {"a/b", "a", false}, {"a/b", "a/+", false},
		{"a/+", "a/b", true}, {"a/+", "a/+", true}, {"a/+", "a/#", false}, {"a/+", "a/b/c", false}, {"a/+", "a/", true},
		{"a/#", "a", true}, {"a/#", "a/b/c", true}, {"a/#", "a/#", true}, {"a/#", "a/+/c", true}, {"a/#", "b", false}, {"a/#", "+/b", false},
		{"#", "#", true}, {"#", "$SYS/#", false}, {"$SYS/#", "$SYS/broker", true}, {"+/x", "$SYS/x", false}, {"*", "$SYS/x", false},
		{"a/*", "a/b/c", true}, {"a/*", "a/#", true}, {"a*", "ab/c", true}, {"a/*/c", "a/b/c", true}, {"a/*/c", "a/b/b/c", true},
		{"a/*/c", "a/#", false}, {"a/*/c", "a/+/c", true}, {"*/c", "a/+", false}, {"a/*/+", "a/b/c", true}, {"a/*/+", "a/b/#", false},
		{"a/*/#", "a/b/c/d", true}, {"a/?", "a/b", true}, {"a/?", "a/+", false}, {"a/?", "a/#", false}, {"a/?", "a/bc", false},
		{"dev?/x", "dev1/x", true}, {"", "a", false}, {"a//b", "a//b", true}, {"a/+/b", "a//b", true},
	} {
		p := principal(t, allow("*", "topic/"+c.pattern))
		if got := p.Allowed(auth.MQTTSubscribe, "topic/"+c.filter, ""); got != c.want {
			t.Errorf("pattern %q covers %q: %v, want %v", c.pattern, c.filter, got, c.want)
		}
	}
}

func TestDecisions(t *testing.T) {
	deny := auth.Policy{Statement: []auth.Statement{{Effect: "Deny", Action: auth.Texts{"mqtt:Pub*"}, Resource: auth.Texts{"topic/secret/#"}}}}
	p := principal(t, allow("mqtt:*", "*"), deny)
	for _, c := range []struct {
		action, resource string
		want             bool
	}{
		{auth.MQTTPublish, "topic/a", true}, {auth.MQTTPublish, "topic/secret/a", false},
		{auth.MQTTSubscribe, "topic/secret/a", true}, {auth.MQTTConnect, "client/x", true}, {"kinesis:PutRecord", "stream/x", false},
	} {
		if got := p.Allowed(c.action, c.resource, "x"); got != c.want {
			t.Errorf("%s on %s: %v", c.action, c.resource, got)
		}
	}
	if !principal(t).Allowed("any:Thing", "x/y", "") {
		t.Error("a principal without policies is restricted")
	}
	if principal(t, allow("mqtt:Publish", "topic/a?")).Allowed("mqtt:Subscribe", "topic/ab", "") {
		t.Error("an action that no statement names is allowed")
	}
}

func TestVariablesNeverActAsPatterns(t *testing.T) {
	own := principal(t, allow("*", "topic/dev/${client}/#"))
	if !own.Allowed(auth.MQTTPublish, "topic/dev/a/x", "a") || own.Allowed(auth.MQTTPublish, "topic/dev/b/x", "a") {
		t.Error("${client} does not stand for the client's id")
	}
	for _, id := range []string{"", "+", "#", "*", "?", "a/b", "${user}", "a*"} {
		if own.Allowed(auth.MQTTPublish, "topic/dev/b/x", id) || own.Allowed(auth.MQTTPublish, "topic/dev/a/b/x", id) {
			t.Errorf("client id %q widens its policy", id)
		}
	}
	deny := auth.Policy{Statement: []auth.Statement{{Effect: "Deny", Action: auth.Texts{"*"}, Resource: auth.Texts{"topic/${client}"}}}}
	if principal(t, allow("*", "*"), deny).Allowed(auth.MQTTPublish, "topic/x", "*") {
		t.Error("client id * escapes a Deny")
	}
}

func TestPoliciesReadAsIAMWritesThem(t *testing.T) {
	const doc = `{"Version": "2012-10-17", "Statement": [{"Sid": "x", "Effect": "Allow", "Action": "mqtt:Publish", "Resource": ["topic/a", "topic/b"]}]}`
	var fromJSON, fromYAML auth.Policy
	if err := json.Unmarshal([]byte(doc), &fromJSON); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(doc), &fromYAML); err != nil {
		t.Fatal(err)
	}
	for _, p := range []auth.Policy{fromJSON, fromYAML} {
		if pr := principal(t, p); !pr.Allowed(auth.MQTTPublish, "topic/b", "") || pr.Allowed(auth.MQTTPublish, "topic/c", "") {
			t.Errorf("%+v", p)
		}
	}
}

func TestConfigErrorsNameTheKey(t *testing.T) {
	st := func(effect, action, resource string) auth.Config {
		return auth.Config{Policies: map[string]auth.Policy{"p": {Statement: []auth.Statement{
			{Effect: effect, Action: auth.Texts{action}, Resource: auth.Texts{resource}}}}}}
	}
	for want, cfg := range map[string]auth.Config{
		"auth.users[0].name":                    {Users: []auth.User{{Name: "a:b"}}},
		"auth.users[1].name":                    {Users: []auth.User{{Name: "a"}, {Name: "a"}}},
		"auth.users[0].password_hash":           {Users: []auth.User{{Name: "a", PasswordHash: "secret"}}},
		"auth.users[0].policies":                {Users: []auth.User{{Name: "a", Policies: []string{"none"}}}},
		"auth.default_policies":                 {DefaultPolicies: []string{"none"}},
		"auth.anonymous_policies":               {AnonymousPolicies: []string{"none"}},
		"auth.policies.p: has no Statement":     {Policies: map[string]auth.Policy{"p": {}}},
		"Effect is \"allow\"":                   st("allow", "*", "*"),
		"Action is \"Publish\"":                 st("Allow", "Publish", "*"),
		"# must be the last level":              st("Allow", "*", "topic/#/a"),
		"+ must be a level of its own":          st("Allow", "*", "topic/a+"),
		"more than one *":                       st("Allow", "*", "topic/*a*"),
		"want topic/<filter>, client/<id> or *": st("Allow", "*", "plant"),
		"knows ${user} and ${client} only":      st("Allow", "*", "topic/${name}"),
	} {
		err := cfg.Validate()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%v shows the password", err)
		}
	}
}

// FuzzPattern: what a pattern covers as a filter it also matches for topics of that filter, and matching ends.
func FuzzPattern(f *testing.F) {
	for _, s := range [][2]string{{"a/+/c", "a/+/c"}, {"a/*", "a/#"}, {"#", "+/b"}, {"*/x", "a/x"}, {"a?", "ab"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, filter string) {
		if len(pattern) > 200 || len(filter) > 200 || strings.HasPrefix(filter, "$") {
			return
		}
		a, err := auth.Open(auth.Config{AnonymousPolicies: []string{"p"}, Policies: map[string]auth.Policy{"p": allow("*", "topic/"+pattern)}})
		if err != nil {
			return
		}
		p := a.Anonymous()
		if !p.Allowed(auth.MQTTSubscribe, "topic/"+filter, "c") || strings.ContainsAny(filter, "*?") {
			return
		}
		levels := strings.Split(filter, "/")
		for i, l := range levels {
			switch {
			case l == "+":
				levels[i] = "some"
			case l == "#" && i == len(levels)-1:
				levels[i] = "some/more"
			case strings.ContainsAny(l, "+#"):
				return // no valid filter
			}
		}
		topic := strings.Join(levels, "/")
		if strings.HasPrefix(topic, "$") {
			return
		}
		if !p.Allowed(auth.MQTTPublish, "topic/"+topic, "c") {
			t.Errorf("pattern %q covers the filter %q but not its topic %q", pattern, filter, topic)
		}
	})
}

// FuzzUsers: any file is read or refused.
func FuzzUsers(f *testing.F) {
	f.Add([]byte("dev:$7$101$AAAAAAAAAAAAAAAA$AAAA\n# x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		users, err := auth.ParseUsers(b)
		if err == nil {
			for _, u := range users {
				if u.Name == "" || u.PasswordHash == "" {
					t.Errorf("user %+v of %q", u, b)
				}
			}
		}
	})
}
