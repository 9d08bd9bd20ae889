package ingest

import (
	"strings"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/record"
)

// CheckFilter reports, as an Invalid error, what is wrong with a topic filter by MQTT 5.
func CheckFilter(filter string) error {
	bad := func(hint, format string, args ...any) error {
		return record.Errorf(record.Invalid, "filter %.80q: "+format, append([]any{filter}, args...)...).WithHint("%s", hint)
	}
	switch {
	case filter == "":
		return bad("use # for every topic", "is empty") // [MQTT-4.7.3-1]
	case len(filter) > record.MaxKey:
		return bad("shorten it", "has %d bytes, at most %d are allowed", len(filter), record.MaxKey) // [MQTT-4.7.3-3]
	case !utf8.ValidString(filter):
		return bad("write it in UTF-8", "is not UTF-8") // [MQTT-1.5.4-1]
	case strings.IndexByte(filter, 0) >= 0:
		return bad("remove it", "contains a zero character") // [MQTT-4.7.3-2]
	}
	f := filter
	if share, ok := strings.CutPrefix(f, "$share/"); ok { // 4.8.2
		group, rest, ok := strings.Cut(share, "/")
		if !ok || rest == "" || group == "" || strings.ContainsAny(group, "+#") {
			return bad("write $share/<group>/<filter>, the group without wildcards", "is no shared subscription")
		}
		f = rest
	}
	for f, more := f, true; more; {
		var level string
		level, f, more = strings.Cut(f, "/")
		switch {
		case level == "#" && more:
			return bad("end it with #, or use + for a single level", "# is not the last level") // [MQTT-4.7.1-1]
		case level == "#" || level == "+":
		case strings.IndexByte(level, '#') >= 0:
			return bad("put a / before it", "# does not stand alone in its level") // [MQTT-4.7.1-1]
		case strings.IndexByte(level, '+') >= 0:
			return bad("put it between two /", "+ does not stand alone in its level") // [MQTT-4.7.1-2]
		}
	}
	return nil
}

// unshared is the filter without $share/<group>/.
func unshared(filter string) string {
	share, ok := strings.CutPrefix(filter, "$share/")
	if !ok {
		return filter
	}
	_, f, _ := strings.Cut(share, "/")
	return f
}

// Matches reports whether a topic matches a valid filter.
func Matches(filter, topic string) bool {
	filter = unshared(filter)
	if topic == "" {
		return false
	}
	if topic[0] == '$' && (filter[0] == '#' || filter[0] == '+') { // [MQTT-4.7.2-1]
		return false
	}
	moreF, moreT := true, true
	for moreF {
		var want, got string
		want, filter, moreF = strings.Cut(filter, "/")
		if want == "#" {
			return true // the parent level too: a/# matches a
		}
		if !moreT {
			return false
		}
		got, topic, moreT = strings.Cut(topic, "/")
		if want != "+" && want != got {
			return false
		}
	}
	return !moreT
}
