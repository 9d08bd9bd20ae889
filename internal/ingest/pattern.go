package ingest

import (
	"slices"
	"strings"

	"github.com/leat-io/leat/internal/record"
)

// Pattern names levels of a topic. Level by level it holds
//
//	{name}     a level that becomes the label of that name; {signal} becomes the signal
//	{name...}  as the last level: all that follows, one level or more, as one text
//	+          any level, without a name
//	#          as the last level: whatever follows, or nothing
//	else       a level that must be equal
type Pattern struct {
	levels []level
}

type level struct {
	text string // what must be equal, or the name
	kind levelKind
}

type levelKind uint8

const (
	literal levelKind = iota
	named
	rest // {name...}
	anyLevel
	anyRest // #
)

// signalLevel is the name of the level that becomes the signal.
const signalLevel = "signal"

// ParsePattern reads a pattern. The empty one names nothing and fits every topic.
func ParsePattern(s string) (Pattern, error) {
	var p Pattern
	if s == "" {
		return p, nil
	}
	parts := strings.Split(s, "/")
	for i, part := range parts {
		l, err := parseLevel(part)
		if err != nil {
			return Pattern{}, err
		}
		if (l.kind == rest || l.kind == anyRest) && i < len(parts)-1 {
			return Pattern{}, record.Errorf(record.Invalid, "%q is not the last level", part).
				WithHint("end the pattern there, or name a single level")
		}
		if (l.kind == named || l.kind == rest) && slices.Contains(p.allNames(), l.text) {
			return Pattern{}, record.Errorf(record.Invalid, "two levels are called %q", l.text).WithHint("rename one of them")
		}
		p.levels = append(p.levels, l)
	}
	return p, nil
}

func parseLevel(s string) (level, error) {
	switch {
	case s == "+":
		return level{kind: anyLevel}, nil
	case s == "#":
		return level{kind: anyRest}, nil
	case !strings.ContainsAny(s, "{}+#"):
		return level{text: s, kind: literal}, nil
	}
	name, ok := strings.CutPrefix(s, "{")
	if ok {
		name, ok = strings.CutSuffix(name, "}")
	}
	if !ok {
		return level{}, record.Errorf(record.Invalid, "level %q", s).
			WithHint("a level is {name}, +, # or plain text: plant/{site}/line/{line}/{signal}")
	}
	l := level{text: name, kind: named}
	if r, ok := strings.CutSuffix(name, "..."); ok {
		l = level{text: r, kind: rest}
	}
	if l.text != signalLevel && !isLabel(l.text) {
		return level{}, labelError("level "+s, l.text)
	}
	return l, nil
}

// Names are the names of the labels, in the order of levels.
func (p Pattern) Names() []string {
	return slices.DeleteFunc(p.allNames(), func(n string) bool { return n == signalLevel })
}

// HasSignal reports whether a level is the signal.
func (p Pattern) HasSignal() bool { return slices.Contains(p.allNames(), signalLevel) }

func (p Pattern) allNames() []string {
	var names []string
	for _, l := range p.levels {
		if l.kind == named || l.kind == rest {
			names = append(names, l.text)
		}
	}
	return names
}

// Fit calls yield with each name and its part of the topic, in the order of levels. It reports whether the topic fits;
// when it does not, what yield has been called with does not count.
func (p Pattern) Fit(topic string, yield func(name, value string)) bool {
	if len(p.levels) == 0 {
		return true
	}
	more := true
	for _, l := range p.levels {
		if l.kind == anyRest {
			return true
		}
		if !more {
			return false
		}
		var got string
		if l.kind == rest {
			yield(l.text, topic)
			return true
		}
		got, topic, more = strings.Cut(topic, "/")
		switch l.kind {
		case named:
			yield(l.text, got)
		case literal:
			if got != l.text {
				return false
			}
		}
	}
	return !more
}
