package forward

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leat-io/leat/internal/record"
)

// maxCount is the longest run of a letter that java.time takes.
const maxCount = 19

// expandKey replaces the placeholders !{timestamp:PATTERN} of a key by t in UTC. Other placeholders are Invalid.
func expandKey(key string, t time.Time) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(key, "!{")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		inside, after, closed := strings.Cut(rest, "}")
		name, pattern, colon := strings.Cut(inside, ":")
		if !closed || !colon || name != "timestamp" {
			return "", record.Errorf(record.Invalid, "key has the placeholder !{%s, which is not known", inside).
				WithHint("write !{timestamp:yyyy/MM/dd}, for example")
		}
		text, err := formatTime(pattern, t)
		if err != nil {
			return "", err
		}
		out.WriteString(text)
		key = after
	}
}

// formatTime is t in UTC as java.time.format.DateTimeFormatter writes it with the pattern, in the locale en-US: weeks
// begin on Sunday, and the week with January 1 is the first. It knows every letter of Java 8 but p (padding with
// spaces), and those of later versions but B. What Java refuses, and those two, are Invalid.
func formatTime(pattern string, t time.Time) (string, error) {
	t = t.UTC()
	var out strings.Builder
	optional := 0
	for i := 0; i < len(pattern); {
		c := pattern[i]
		n := 1
		switch {
		case isLetter(c):
			for i+n < len(pattern) && pattern[i+n] == c {
				n++
			}
			text, ok := formatLetter(c, n, t)
			if !ok {
				return "", record.Errorf(record.Invalid, "timestamp pattern %q: %q is not supported", pattern, pattern[i:i+n]).
					WithHint("write letters as for Java's DateTimeFormatter, for example yyyy/MM/dd/HH")
			}
			out.WriteString(text)
		case c == '\'':
			text, length := quoted(pattern[i:])
			if length == 0 {
				return "", record.Errorf(record.Invalid, "timestamp pattern %q: a quote is not closed", pattern)
			}
			out.WriteString(text)
			n = length
		case c == '[': // an optional section: all its fields are there, so it is always printed
			optional++
		case c == ']' && optional > 0:
			optional--
		case strings.IndexByte("{}#]", c) >= 0:
			return "", record.Errorf(record.Invalid, "timestamp pattern %q: %q is reserved", pattern, c)
		default:
			out.WriteByte(c)
		}
		i += n
	}
	return out.String(), nil
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// quoted is the literal at the head of s, which begins with a quote, and the length of its source; 0 when it does not
// end. Two quotes stand for one.
func quoted(s string) (text string, length int) {
	var out strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '\'' {
			out.WriteByte(s[i])
			continue
		}
		if i+1 == len(s) || s[i+1] != '\'' {
			if i == 1 {
				return "'", 2
			}
			return out.String(), i + 1
		}
		out.WriteByte('\'')
		i++
	}
	return "", 0
}

// formatLetter writes a run of n equal letters; ok is false when Java does not know it.
func formatLetter(c byte, n int, t time.Time) (text string, ok bool) {
	if n > maxCount {
		return "", false
	}
	for _, format := range []func(byte, int, time.Time) (string, bool){formatYear, formatDate, formatClock, formatZone} {
		if text, ok := format(c, n, t); ok {
			return text, true
		}
	}
	return "", false
}

// formatYear writes eras, years, and what is counted in long numbers.
func formatYear(c byte, n int, t time.Time) (string, bool) {
	year := t.Year()
	switch c {
	case 'G':
		return choose(n, "AD", "AD", "AD", "Anno Domini", "A")
	case 'Y':
		year, _ = weekOf(t)
	case 'u', 'y':
	case 'S':
		return fmt.Sprintf("%09d", t.Nanosecond())[:min(n, 9)], n <= 9
	case 'n':
		return pad(n, int64(t.Nanosecond())), true
	case 'N':
		return pad(n, int64(sinceMidnight(t))), true
	case 'A':
		return pad(n, sinceMidnight(t).Milliseconds()), true
	case 'g': // modified Julian day
		const ofEpoch = 40587
		return pad(n, t.Unix()/86400+ofEpoch), true
	default:
		return "", false
	}
	if n == 2 {
		year %= 100
	}
	return pad(n, int64(year)), true
}

func sinceMidnight(t time.Time) time.Duration {
	return t.Sub(time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC))
}

// formatDate writes months, weeks and days.
func formatDate(c byte, n int, t time.Time) (string, bool) {
	_, week := weekOf(t)
	quarter := (int(t.Month()) + 2) / 3
	day := t.Weekday()
	switch c {
	case 'M', 'L':
		name := t.Month().String()
		return choose(n, number(1, int(t.Month())), number(2, int(t.Month())), name[:3], name, name[:1])
	case 'Q', 'q':
		ordinal := []string{"1st", "2nd", "3rd", "4th"}[quarter-1]
		return choose(n, number(1, quarter), number(2, quarter), "Q"+number(1, quarter), ordinal+" quarter", number(1, quarter))
	case 'w':
		return number(n, week), n <= 2
	case 'W':
		first := t.AddDate(0, 0, 1-t.Day()).Weekday()
		return number(n, (t.Day()-1+int(first))/7+1), n == 1
	case 'D':
		return number(n, t.YearDay()), n <= 3
	case 'd':
		return number(n, t.Day()), n <= 2
	case 'F': // Java 8 to 18: the day's place in weeks that begin with the month
		return number(n, (t.Day()-1)%7+1), n == 1
	case 'E':
		return choose(n, day.String()[:3], day.String()[:3], day.String()[:3], day.String(), day.String()[:1])
	case 'e', 'c':
		if c == 'c' && n == 2 {
			return "", false
		}
		return choose(n, number(1, int(day)+1), number(2, int(day)+1), day.String()[:3], day.String(), day.String()[:1])
	}
	return "", false
}

// weekOf is the year to which t's week belongs, and the week's number in it: the week of a year's January 1 is its first.
func weekOf(t time.Time) (year, week int) {
	last := t.AddDate(0, 0, int(time.Saturday-t.Weekday()))
	return last.Year(), (last.YearDay()-1)/7 + 1
}

// formatClock writes the time of day.
func formatClock(c byte, n int, t time.Time) (string, bool) {
	var v int
	switch c {
	case 'a':
		return t.Format("PM"), n == 1
	case 'H':
		v = t.Hour()
	case 'k': // 1 to 24
		v = (t.Hour()+23)%24 + 1
	case 'K': // 0 to 11
		v = t.Hour() % 12
	case 'h': // 1 to 12
		v = (t.Hour()+11)%12 + 1
	case 'm':
		v = t.Minute()
	case 's':
		v = t.Second()
	default:
		return "", false
	}
	return number(n, v), n <= 2
}

// zones are the texts of the zone UTC by letter and count; "" is a count that Java refuses.
var zones = map[byte][]string{
	'V': {"", "UTC"},
	'v': {"UTC", "", "", "Coordinated Universal Time"},
	'z': {"UTC", "UTC", "UTC", "Coordinated Universal Time"},
	'O': {"GMT", "", "", "GMT"},
	'X': {"Z", "Z", "Z", "Z", "Z"},
	'x': {"+00", "+0000", "+00:00", "+0000", "+00:00"},
	'Z': {"+0000", "+0000", "+0000", "GMT", "Z"},
}

func formatZone(c byte, n int, _ time.Time) (string, bool) {
	text, ok := choose(n, zones[c]...)
	return text, ok && text != ""
}

// choose is the nth of the texts, counted from 1.
func choose(n int, texts ...string) (string, bool) {
	if n > len(texts) {
		return "", false
	}
	return texts[n-1], true
}

// number writes v with n digits at least.
func number(n, v int) string { return pad(n, int64(v)) }

func pad(n int, v int64) string {
	digits := strconv.FormatInt(v, 10)
	if len(digits) >= n {
		return digits
	}
	return string(slices.Repeat([]byte{'0'}, n-len(digits))) + digits
}
