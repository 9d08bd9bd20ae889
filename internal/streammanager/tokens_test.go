package streammanager

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true}, {"*", "anything, at all", true}, {"", "", true}, {"", "a", false}, {"a", "a", true}, {"a", "A", false}, {"a", "ab", false},
		{"a*", "a", true}, {"a*", "abc", true}, {"a*", "ba", false}, {"*a", "ba", true}, {"*a", "ab", false}, {"a?c", "abc", true}, {"a?c", "ac", false},
		{"?", "", false}, {"a*b*c", "a1b2c", true}, {"a*b*c", "a1c2b", false}, {"*ab", "aab", true}, {"a.c", "abc", false}, {"[a]", "a", false}, {"**", "x", true},
		{"a b", "a b", true}, {"a?b", "a,b", true},
	} {
		if got := match(c.pattern, c.name); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
}

func TestPatternsTakeNoLongerThanTheirProduct(t *testing.T) {
	// A matcher that tries every * again would not return.
	if match(strings.Repeat("*a", 100)+"b", strings.Repeat("a", 10_000)) {
		t.Error("matched")
	}
}

func FuzzPatterns(f *testing.F) {
	f.Add("a*b?", "axxbc")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		var form strings.Builder // each byte as a rune, so that the expression works on bytes too
		for _, b := range []byte(pattern) {
			switch b {
			case '*':
				form.WriteString(".*")
			case '?':
				form.WriteString(".")
			default:
				form.WriteString(regexp.QuoteMeta(string(rune(b))))
			}
		}
		var subject strings.Builder
		for _, b := range []byte(name) {
			subject.WriteRune(rune(b))
		}
		re, err := regexp.Compile(`^(?s:` + form.String() + `)$`)
		if err != nil {
			t.Skip(err) // too long for package regexp
		}
		if got, want := match(pattern, name), re.MatchString(subject.String()); got != want {
			t.Errorf("match(%q, %q) = %v, want %v", pattern, name, got, want)
		}
	})
}

const secret = "4pTnQ8sY3iV6rEk0"

func TestTokensFile(t *testing.T) {
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("another secret of some length")))
	list, err := parseTokens([]byte("# comment\n\n sensors\t" + secret + "  sensor*, a stream ,b?c \r\nall " + sum + " *\n"))
	ok(t, err)
	if len(list) != 2 {
		t.Fatalf("%d tokens", len(list))
	}
	g, found := list.find(secret)
	if !found || g.name != "sensors" || !g.allows("sensor1") || !g.allows("a stream") || !g.allows("b,c") || g.allows("other") {
		t.Errorf("%v, %+v", found, g)
	}
	if g, found = list.find("another secret of some length"); !found || g.name != "all" || !g.allows("") {
		t.Errorf("%v, %+v", found, g)
	}
	for _, wrong := range []string{"", secret + "x", secret[1:], sum, "all"} {
		if _, found := list.find(wrong); found {
			t.Errorf("found %q", wrong)
		}
	}
}

func TestTokensFileSaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty":          {"# nothing\n", "no token"},
		"name only":      {"\nsensors\n", "2: want a name"},
		"no stream":      {"sensors " + secret + "\n", "1: the streams of \"sensors\""},
		"empty pattern":  {"sensors " + secret + " a,,b\n", "empty pattern"},
		"short":          {"sensors 123456 *\n", "too short"},
		"no sum":         {"sensors sha256:abc *\n", "64 hexadecimal digits"},
		"same name":      {"a " + secret + " *\na " + secret + "x *\n", "2: the name \"a\""},
		"same token":     {"a " + secret + " *\nb " + secret + " *\n", "2: the token of \"b\""},
		"far too large":  {strings.Repeat("#\n", maxTokensFile), "larger than"},
		"one huge line":  {strings.Repeat("#", maxTokensFile), "no token"},
		"bytes, no text": {"a\x00\xff", "1: want"},
	} {
		_, err := parseTokens([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		} else if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "123456") {
			t.Errorf("%s: %v repeats the token", name, err)
		}
	}
}

func TestTokensFileOnDisk(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	path := filepath.Join(t.TempDir(), "tokens")
	if _, err := loadTokens(path, log); record.KindOf(err) != record.Invalid || record.HintOf(err) == "" {
		t.Errorf("missing: %v", err)
	}
	ok(t, os.WriteFile(path, []byte("a "+secret+" *\n"), 0o600))
	if _, err := loadTokens(path, log); err != nil || out.Len() > 0 {
		t.Errorf("%v, log %q", err, &out)
	}
	ok(t, os.Chmod(path, 0o644))
	if _, err := loadTokens(path, log); err != nil || !strings.Contains(out.String(), "chmod 600") || strings.Contains(out.String(), secret) {
		t.Errorf("%v, log %q", err, &out)
	}
	ok(t, os.WriteFile(path, []byte("a b *\n"), 0o600))
	if _, err := loadTokens(path, log); err == nil || !strings.Contains(err.Error(), path+":1: ") {
		t.Errorf("%v", err)
	}
}

func TestATokenIsForItsStreams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	ok(t, os.WriteFile(path, []byte("own "+secret+" mine*\nall "+secret+"all *\n"), 0o600))
	s, _, log := openDoor(t, &fakeService{}, func(c *Config) { c.TokensFile = path })
	for _, token := range []string{"", "wrong token, wrong token"} {
		r := dial(t, s).hello(&wire.Connect{RequestID: "c", ProtocolVersion: "1.1.0", AuthToken: token})
		if r.Status != wire.Unauthorized || !strings.Contains(r.ErrorMessage, "AWS_CONTAINER_AUTHORIZATION_TOKEN") {
			t.Errorf("token %q: %+v", token, r)
		}
	}
	all := connect(t, s, secret+"all")
	all.create("other")
	all.create("mine 1")
	c := connect(t, s, secret)

	def := func(name, statuses string) *wire.MessageStreamDefinition {
		d := &wire.MessageStreamDefinition{Name: name, StrategyOnFull: wire.NewInt(1)}
		if statuses != "" {
			d.ExportDefinition = &wire.ExportDefinition{S3TaskExecutor: []wire.ExportConfig{{Identifier: "x", StatusConfig: &wire.StatusConfig{StatusStreamName: statuses}}}}
		}
		return d
	}
	for name, r := range map[string]struct {
		op   wire.Operation
		body wire.Body
	}{
		"create":                            {wire.OpCreate, &wire.CreateRequest{RequestID: "r", Definition: def("new", "")}},
		"create, statuses to another":       {wire.OpCreate, &wire.CreateRequest{RequestID: "r", Definition: def("mine 2", "other")}},
		"update":                            {wire.OpUpdate, &wire.UpdateRequest{RequestID: "r", Definition: def("other", "")}},
		"delete":                            {wire.OpDelete, &wire.DeleteRequest{RequestID: "r", Name: "other"}},
		"describe":                          {wire.OpDescribe, &wire.DescribeRequest{RequestID: "r", Name: "other"}},
		"describe a stream that is missing": {wire.OpDescribe, &wire.DescribeRequest{RequestID: "r", Name: "missing"}},
		"append":                            {wire.OpAppend, appendRequest("r", "other", "x")},
		"batch":                             {wire.OpAppendBatch, &wire.AppendBatchRequest{RequestID: "r", Name: "other", Payloads: [][]byte{{1}}}},
		"read":                              {wire.OpRead, &wire.ReadRequest{RequestID: "r", StreamName: "other"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.send(r.op, r.body)
			if a := c.want(r.op.Response(), "r", wire.Unauthorized); !strings.Contains(a.ErrorMessage, `"own"`) {
				t.Errorf("%q", a.ErrorMessage)
			}
		})
	}
	c.send(wire.OpList, &wire.ListRequest{RequestID: "l"})
	var names wire.ListResponse
	ok(t, c.receive(wire.OpListResponse, &names))
	if len(names.Streams) != 1 || names.Streams[0] != "mine 1" {
		t.Errorf("sees %q", names.Streams)
	}
	c.send(wire.OpAppend, appendRequest("a", "mine 1", "x"))
	c.want(wire.OpAppendResponse, "a", wire.Success)
	c.send(wire.OpCreate, &wire.CreateRequest{RequestID: "b", Definition: def("mine 3", "mine 1")})
	c.want(wire.OpCreateResponse, "b", wire.Success)
	if strings.Contains(log.String(), secret) || strings.Contains(log.String(), "wrong token") {
		t.Errorf("a token is in the log: %s", log)
	}
}
