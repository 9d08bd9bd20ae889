package auth

import (
	"errors"
	"fmt"
	"strings"
)

// Actions that exist so far. A policy may name others (and wildcards): doors to come will ask for them.
const (
	MQTTPublish   = "mqtt:Publish"   // on topic/<topic>
	MQTTSubscribe = "mqtt:Subscribe" // on topic/<filter>, and on topic/<topic> for each message delivered
	MQTTConnect   = "mqtt:Connect"   // on client/<client id>
)

// topicPrefix marks resources whose patterns follow MQTT's rules for levels beside IAM's * and ?.
const topicPrefix = "topic/"

// Vars are the values of ${user} and ${client} in a resource pattern.
type Vars struct {
	User, Client string
}

// rules is a compiled policy.
type rules []rule

type rule struct {
	deny      bool
	actions   []string
	resources []string
}

// compile checks a policy's form.
func compile(p Policy) (rules, error) {
	if len(p.Statement) == 0 {
		return nil, errors.New("has no Statement")
	}
	out := make(rules, 0, len(p.Statement))
	for i, s := range p.Statement {
		r := rule{deny: s.Effect == "Deny", actions: s.Action, resources: s.Resource}
		switch {
		case s.Effect != "Allow" && s.Effect != "Deny":
			return nil, fmt.Errorf("Statement[%d].Effect is %q: want Allow or Deny", i, s.Effect)
		case len(s.Action) == 0:
			return nil, fmt.Errorf("Statement[%d].Action is missing", i)
		case len(s.Resource) == 0:
			return nil, fmt.Errorf("Statement[%d].Resource is missing", i)
		}
		for _, a := range s.Action {
			if a != "*" && !strings.Contains(a, ":") {
				return nil, fmt.Errorf("Statement[%d].Action is %q: want service:Action, for example mqtt:Publish", i, a)
			}
		}
		for _, res := range s.Resource {
			if err := checkPattern(res); err != nil {
				return nil, fmt.Errorf("Statement[%d].Resource %q: %w", i, res, err)
			}
		}
		out = append(out, r)
	}
	return out, nil
}

func checkPattern(p string) error {
	for rest := p; ; {
		i := strings.Index(rest, "${")
		if i < 0 {
			break
		}
		rest = rest[i:]
		if !strings.HasPrefix(rest, "${user}") && !strings.HasPrefix(rest, "${client}") {
			return errors.New("knows ${user} and ${client} only")
		}
		rest = rest[2:]
	}
	topic, ok := strings.CutPrefix(p, topicPrefix)
	if !ok {
		if p != "*" && !strings.Contains(p, "/") {
			return errors.New("want topic/<filter>, client/<id> or *")
		}
		return nil
	}
	if strings.Count(topic, "*") > 1 {
		return errors.New("has more than one *: use + and # for levels") // bounds the time that matching takes
	}
	levels := strings.Split(topic, "/")
	for i, l := range levels {
		if strings.Contains(l, "#") && (l != "#" || i != len(levels)-1) {
			return errors.New("# must be the last level, alone")
		}
		if strings.Contains(l, "+") && l != "+" {
			return errors.New("+ must be a level of its own")
		}
	}
	return nil
}

// decide evaluates: a matching Deny wins, else a matching Allow, else no.
func (rs rules) decide(action, resource string, v Vars) (allowed, denied bool) {
	for i := range rs {
		r := &rs[i]
		if r.deny && denied || !r.deny && allowed || !r.covers(action, resource, v) {
			continue
		}
		if r.deny {
			return false, true
		}
		allowed = true
	}
	return allowed, false
}

func (r *rule) covers(action, resource string, v Vars) bool {
	ok := false
	for _, a := range r.actions {
		if wildcard(a, action) {
			ok = true
			break
		}
	}
	if !ok {
		return false
	}
	for _, p := range r.resources {
		if r.matches(p, resource, v) {
			return true
		}
	}
	return false
}

func (r *rule) matches(pattern, resource string, v Vars) bool {
	if pattern == "*" {
		return true
	}
	pattern, ok := expand(pattern, v)
	if !ok {
		// A name with wildcards or separators in it would widen the pattern: it gains nothing and escapes nothing.
		return r.deny
	}
	if p, isTopic := strings.CutPrefix(pattern, topicPrefix); isTopic {
		t, is := strings.CutPrefix(resource, topicPrefix)
		return is && coversTopic(p, t)
	}
	return wildcard(pattern, resource)
}

// expand puts the variables' values in. ok is false when a value used is empty or would act as a pattern.
func expand(pattern string, v Vars) (out string, ok bool) {
	if !strings.Contains(pattern, "${") {
		return pattern, true
	}
	for name, value := range map[string]string{"${user}": v.User, "${client}": v.Client} {
		if !strings.Contains(pattern, name) {
			continue
		}
		if value == "" || strings.ContainsAny(value, "+#*?/$") {
			return "", false
		}
		pattern = strings.ReplaceAll(pattern, name, value)
	}
	return pattern, true
}

// coversTopic reports whether every topic that the filter f matches (a topic is a filter that matches itself) is
// matched by pattern p. MQTT: + is one level, a last # is the rest, and neither reaches topics that begin with $ from
// the first level. IAM: * is any text, ? one character.
func coversTopic(p, f string) bool {
	if strings.HasPrefix(f, "$") && !strings.HasPrefix(p, "$") {
		return false
	}
	for {
		pl, prest, pmore := strings.Cut(p, "/")
		fl, frest, fmore := strings.Cut(f, "/")
		switch {
		case pl == "#":
			return true
		case strings.Contains(pl, "*"):
			// * may reach over levels: from here on compare as text, level wildcards of p included.
			return coversText(p, f)
		case fl == "#":
			return false
		case pl == "+":
		case fl == "+" || !wildcard(pl, fl):
			return false
		}
		if !pmore {
			return !fmore
		}
		if !fmore {
			return prest == "#" // a/# matches a as well [MQTT-4.7.1.2]
		}
		p, f = prest, frest
	}
}

// coversText compares from a * on. Only * can match the filter's own wildcards.
func coversText(p, f string) bool {
	if p == "" {
		return f == ""
	}
	switch p[0] {
	case '*':
		for p != "" && p[0] == '*' {
			p = p[1:]
		}
		if p == "" {
			return true
		}
		for i := 0; i <= len(f); i++ {
			if coversText(p, f[i:]) {
				return true
			}
		}
		return false
	case '#':
		return true
	case '+':
		i := strings.IndexByte(f, '/')
		if i < 0 {
			i = len(f)
		}
		return f[:i] != "#" && coversText(p[1:], f[i:])
	case '?':
		return f != "" && f[0] != '/' && f[0] != '+' && f[0] != '#' && coversText(p[1:], f[1:])
	default:
		return f != "" && f[0] == p[0] && coversText(p[1:], f[1:])
	}
}

// wildcard is IAM's matching: * any text, ? one byte. Linear in time for one *, quadratic at worst.
func wildcard(p, s string) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == s[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
