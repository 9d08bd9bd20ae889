package payload

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a member found by its name must lie in to count as a time.
const (
	plausibleFrom = 946_684_800_000_000_000   // 2000-01-01
	plausibleTo   = 4_102_444_800_000_000_000 // 2100-01-01
)

// maxTimeText is the longest text that can be a time: a number with more digits than anybody writes.
const maxTimeText = 100

// timeReader finds and reads the time of an event in a tape.
type timeReader struct {
	format   string
	path     []string // nil: detect
	off      bool
	unescape []byte
}

func newTimeReader(t TimeConfig) timeReader {
	r := timeReader{format: t.Format, off: t.Format == FormatReceived}
	if r.format == "" {
		r.format = FormatAuto
	}
	if t.Field != "" {
		r.path = strings.Split(t.Field, ".")
	}
	return r
}

// event is a time and the node it came from, which is then no value.
type event struct {
	ns   int64
	has  bool
	node int // -1: none
}

// read finds the time in the object at index obj. Without one it returns inherited, the time of the group around it.
func (r *timeReader) read(t *tape, obj int, inherited event) (event, error) {
	none := event{ns: inherited.ns, has: inherited.has, node: -1}
	if r.off {
		return none, nil
	}
	if r.path == nil {
		return r.detect(t, obj, none), nil
	}
	at := find(t, obj, r.path, &r.unescape)
	if at < 0 {
		return none, nil
	}
	n := &t.nodes[at]
	if n.kind == 'n' {
		none.node = at
		return none, nil
	}
	ns, ok := r.parse(t, n)
	if !ok {
		return none, reject("time %s: not a time in format %s between 1678 and 2262", strings.Join(r.path, "."), r.format)
	}
	return event{ns: ns, has: true, node: at}, nil
}

// detect looks for a member that by its name and its value is a time.
func (r *timeReader) detect(t *tape, obj int, none event) event {
	for i := obj + 1; i < int(t.nodes[obj].next); i = int(t.nodes[i].next) {
		n := &t.nodes[i]
		if n.kind != '0' && n.kind != '"' {
			continue
		}
		switch string(t.doc[n.keyStart:n.keyEnd]) {
		case `"ts"`, `"time"`, `"timestamp"`:
			if ns, ok := r.parse(t, n); ok && ns >= plausibleFrom && ns < plausibleTo {
				return event{ns: ns, has: true, node: i}
			}
		}
	}
	return none
}

func (r *timeReader) parse(t *tape, n *node) (int64, bool) {
	switch n.kind {
	case '0':
		return parseEpoch(t.text(n), r.format)
	case '"':
		if longer(t.text(n), maxTimeText) {
			return 0, false
		}
		r.unescape = r.unescape[:0]
		return parseTimeText(unquote(t.text(n), &r.unescape), r.format)
	}
	return 0, false
}

// find returns the index of the node at the path below the object at index obj, or -1.
func find(t *tape, obj int, path []string, scratch *[]byte) int {
	for _, name := range path {
		at := -1
		if t.nodes[obj].kind == '{' {
			at = member(t, obj, name, scratch)
		}
		if at < 0 {
			return -1
		}
		obj = at
	}
	return obj
}

// member returns the index of the object's member called name, or -1.
func member(t *tape, obj int, name string, scratch *[]byte) int {
	for i := obj + 1; i < int(t.nodes[obj].next); i = int(t.nodes[i].next) {
		n := &t.nodes[i]
		if longer(t.doc[n.keyStart:n.keyEnd], len(name)) {
			continue
		}
		*scratch = (*scratch)[:0]
		if string(unquote(t.doc[n.keyStart:n.keyEnd], scratch)) == name {
			return i
		}
	}
	return -1
}

// parseTimeText reads RFC 3339, or a number written as text.
func parseTimeText(s []byte, format string) (int64, bool) {
	s = bytes.TrimSpace(s)
	if format == FormatRFC3339 || (format == FormatAuto && len(s) > 10 && s[4] == '-' && s[7] == '-') {
		return parseRFC3339(s)
	}
	if !isJSONNumber(s) {
		return 0, false
	}
	return parseEpoch(s, format)
}

func parseRFC3339(s []byte) (int64, bool) {
	var at time.Time
	if at.UnmarshalText(s) != nil { // RFC 3339, strictly
		return 0, false
	}
	ns := at.UnixNano() // wraps around outside int64
	return ns, time.Unix(0, ns).Equal(at)
}

// parseEpoch reads a JSON number of units since 1970, exactly: no float64 holds nanoseconds of today.
func parseEpoch(b []byte, format string) (int64, bool) {
	var unit int // decimal places from the unit to nanoseconds
	switch format {
	case FormatSeconds:
		unit = 9
	case FormatMillis:
		unit = 6
	case FormatMicros:
		unit = 3
	case FormatNanos:
		unit = 0
	case FormatAuto:
		unit = -1
	default:
		return 0, false
	}
	m, exp, ok := fixed(b)
	if !ok {
		return 0, false
	}
	if unit < 0 {
		unit = magnitude(m, exp)
	}
	for exp += unit; exp > 0 && m != 0; exp-- {
		if m > math.MaxInt64/10 {
			return 0, false
		}
		m *= 10
	}
	for ; exp < 0 && m != 0; exp++ {
		m /= 10
	}
	if m > math.MaxInt64 {
		return 0, false
	}
	if b[0] == '-' {
		return -int64(m), true
	}
	return int64(m), true
}

// magnitude guesses the unit of m × 10^exp: seconds below 10^11 (the year 5138), then milliseconds below 10^14,
// microseconds below 10^17, nanoseconds.
func magnitude(m uint64, exp int) int {
	digits := len(strconv.AppendUint(make([]byte, 0, 20), m, 10)) + exp
	switch {
	case digits <= 11:
		return 9
	case digits <= 14:
		return 6
	case digits <= 17:
		return 3
	}
	return 0
}

// fixed is mantissa for times: digits behind the nineteenth are dropped when they are a fraction (a tenth of a
// nanosecond or less, in every unit).
func fixed(b []byte) (m uint64, exp int, ok bool) {
	m, exp, _, ok = mantissa(b)
	if ok || slices.ContainsFunc(b, func(c byte) bool { return c == 'e' || c == 'E' }) {
		return m, exp, ok
	}
	point := bytes.IndexByte(b, '.')
	if point < 0 || point > 20 {
		return 0, 0, false
	}
	end := min(len(b), 20)
	if end <= point {
		end = point
	}
	m, exp, _, ok = mantissa(b[:end])
	return m, exp, ok
}

// isJSONNumber reports whether s is a number by JSON's grammar.
func isJSONNumber(s []byte) bool {
	i := 0
	if i < len(s) && s[i] == '-' {
		i++
	}
	switch {
	case i < len(s) && s[i] == '0':
		i++
	case i < len(s) && s[i] >= '1' && s[i] <= '9':
		i = skipDigits(s, i)
	default:
		return false
	}
	if i < len(s) && s[i] == '.' {
		from := i + 1
		if i = skipDigits(s, from); i == from {
			return false
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		from := i
		if i = skipDigits(s, from); i == from {
			return false
		}
	}
	return i == len(s)
}

func skipDigits(s []byte, i int) int {
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return i
}
