package ingest_test

import (
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/record"
)

func TestCheckFilter(t *testing.T) {
	good := []string{
		"#", "+", "/", "a", "/a", "a/", "a//b", "a/#", "+/#", "/+", "+/+/c", "a b/ü", "$SYS/#", "$SYS/+/x", "$share/g/a/#",
		"$share/g//", "$share", "$shared/x", strings.Repeat("a", 65535),
	}
	for _, f := range good {
		if err := ingest.CheckFilter(f); err != nil {
			t.Errorf("%.40q: %v", f, err)
		}
	}
	for f, want := range map[string]string{
		"":                          "is empty",
		"a/#/b":                     "# is not the last level",
		"#/":                        "# is not the last level",
		"a#":                        "# does not stand alone",
		"a/b#":                      "# does not stand alone",
		"##":                        "# does not stand alone",
		"a+":                        "+ does not stand alone",
		"a/+b/c":                    "+ does not stand alone",
		"++":                        "+ does not stand alone",
		"a\x00":                     "zero character",
		"a\xff":                     "not UTF-8",
		"$share/g":                  "no shared subscription",
		"$share/g/":                 "no shared subscription",
		"$share//a":                 "no shared subscription",
		"$share/+/a":                "no shared subscription",
		"$share/g#/a":               "no shared subscription",
		"$share/g/a#":               "# does not stand alone",
		strings.Repeat("a", 65_536): "65536 bytes",
	} {
		err := ingest.CheckFilter(f)
		if err == nil || !strings.Contains(err.Error(), want) || record.KindOf(err) != record.Invalid || record.HintOf(err) == "" {
			t.Errorf("%.40q: %v (hint %q), want %q and a hint", f, err, record.HintOf(err), want)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"#", "a", true},
		{"#", "/a/b", true},
		{"#", "$SYS/uptime", false},
		{"+/uptime", "$SYS/uptime", false},
		{"$SYS/#", "$SYS/uptime", true},
		{"$SYS/#", "$SYS", true},
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/tennis/player1/#", "sport/tennis/player10", false},
		{"sport/#", "sport", true},
		{"sport/#", "sport/", true},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"a/+/c/#", "a/b/c", true},
		{"a/+/c/#", "a/b", false},
		{"+/#", "a", true},
		{"a", "a", true},
		{"a", "A", false},
		{"a", "a/", false},
		{"a/b", "a", false},
		{"a/$x", "a/$x", true},
		{"a/+", "a/$x", true},
		{"$share/g/a/+", "a/b", true},
		{"$share/g/#", "$SYS/x", false},
		{"$share/g/#", "a", true},
		{"#", "", false},
	} {
		if got := ingest.Matches(c.filter, c.topic); got != c.want {
			t.Errorf("filter %q, topic %q: %v", c.filter, c.topic, got)
		}
	}
}

// matchLevels is the rule of MQTT 5, 4.7, written down level by level: the oracle of the fuzz test.
func matchLevels(filter, topic []string) bool {
	switch {
	case len(filter) == 1 && filter[0] == "#":
		return true
	case len(filter) == 0 || len(topic) == 0:
		return len(filter) == len(topic)
	case filter[0] != "+" && filter[0] != topic[0]:
		return false
	}
	return matchLevels(filter[1:], topic[1:])
}

func FuzzMatches(f *testing.F) {
	f.Add("a/+/#", "a/b/c")
	f.Add("#", "$SYS/x")
	f.Add("+//", "///")
	f.Fuzz(func(t *testing.T, filter, topic string) {
		if ingest.CheckFilter(filter) != nil || strings.HasPrefix(filter, "$share/") || topic == "" {
			return
		}
		want := matchLevels(strings.Split(filter, "/"), strings.Split(topic, "/"))
		if topic[0] == '$' && (filter[0] == '+' || filter[0] == '#') {
			want = false
		}
		if got := ingest.Matches(filter, topic); got != want {
			t.Errorf("filter %q, topic %q: %v, want %v", filter, topic, got, want)
		}
	})
}

func TestPattern(t *testing.T) {
	fit := func(pattern, topic string) (string, bool) {
		p, err := ingest.ParsePattern(pattern)
		if err != nil {
			t.Fatalf("%q: %v", pattern, err)
		}
		var parts []string
		ok := p.Fit(topic, func(name, value string) { parts = append(parts, name+"="+value) })
		return strings.Join(parts, " "), ok
	}
	for _, c := range []struct {
		pattern, topic, want string
		ok                   bool
	}{
		{"", "a/b", "", true},
		{"plant/{site}/line/{line}/{signal}", "plant/x/line/7/temp", "site=x line=7 signal=temp", true},
		{"plant/{site}/line/{line}/{signal}", "plant/x/line/7", "", false},
		{"plant/{site}", "plant/x/y", "", false},
		{"plant/{site}", "PLANT/x", "", false},
		{"plant/{site}", "plant/", "site=", true},
		{"+/{site}/#", "a/b", "site=b", true},
		{"+/{site}/#", "a/b/c/d", "site=b", true},
		{"{site}/{signal...}", "a/b/c", "site=a signal=b/c", true},
		{"{site}/{signal...}", "a", "", false},
		{"/{a}", "/x", "a=x", true},
	} {
		got, ok := fit(c.pattern, c.topic)
		if ok != c.ok || (ok && got != c.want) {
			t.Errorf("pattern %q, topic %q: %q, %v; want %q, %v", c.pattern, c.topic, got, ok, c.want, c.ok)
		}
	}
	for pattern, want := range map[string]string{
		"a/{x}/{x}":   "two levels are called",
		"a/#/b":       "not the last level",
		"{x...}/b":    "not the last level",
		"a/{x":        "level \"{x\"",
		"a/x}":        "level \"x}\"",
		"a/b{x}":      "level \"b{x}\"",
		"a+/b":        "level \"a+\"",
		"{}":          "cannot name a column",
		"{X}":         "cannot name a column",
		"{ts}":        "cannot name a column",
		"{signal.x}":  "cannot name a column",
		"a/{_x}":      "cannot name a column",
		"a/{signal}#": "level",
	} {
		_, err := ingest.ParsePattern(pattern)
		if err == nil || !strings.Contains(err.Error(), want) || record.HintOf(err) == "" {
			t.Errorf("%q: %v, want %q and a hint", pattern, err, want)
		}
	}
}
