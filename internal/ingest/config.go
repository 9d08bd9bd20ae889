package ingest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// BrokerSource is the source of what clients publish to the embedded broker.
const BrokerSource = "broker"

// The layouts of a table.
const (
	Portable = "portable" // a row per value: ts, topic, signal, value, text
	Columns  = "columns"  // a row per object, a column per member
)

// Config is the `ingest` section: what becomes of messages.
type Config struct {
	// Period is how often files are cut, for rules that do not say so; on a fixed grid. Default 60 s.
	Period time.Duration `yaml:"period"`
	// MQTTTimeout is how long a source may be silent before it is warned about and shows as degraded. 0 means for ever.
	MQTTTimeout time.Duration `yaml:"mqtt_timeout"`
	// LogInterval is the time in which at most one line about messages that do not parse is logged, per rule.
	LogInterval time.Duration `yaml:"log_interval"`
	// Rules say which messages go where. A message goes to every rule that matches it.
	Rules []Rule `yaml:"rules"`
}

// Rule sends the messages of some topics, parsed in one way, to one table, through a stream of its own.
type Rule struct {
	Name   string   `yaml:"name"`             // names the stream: letters, digits, '-' and '_'
	Source string   `yaml:"source,omitempty"` // "broker" or the name of an external one; default any
	Topics []string `yaml:"topics"`           // MQTT topic filters; $share/<group>/<filter> for an external source
	QoS    *int     `yaml:"qos,omitempty"`    // 0, 1 or 2, of subscriptions at an external source; default 1

	Parser payload.Config     `yaml:"parser,omitempty"`
	Time   payload.TimeConfig `yaml:"time,omitempty"`

	// TopicPattern names levels of the topic: plant/{site}/line/{line}/{signal}. See Pattern.
	TopicPattern string `yaml:"topic_pattern,omitempty"`
	// Labels are columns with the same text in each row.
	Labels map[string]string `yaml:"labels,omitempty"`

	Table   string   `yaml:"table,omitempty"`   // default "samples"; in layout columns the rule's name
	Layout  string   `yaml:"layout,omitempty"`  // portable (default) or columns
	Columns []Column `yaml:"columns,omitempty"` // layout columns: types fixed beforehand
	// SchemaFile pins the table's columns to those of a JSON file that a fleet shares: nothing is added to them, and what
	// they do not name goes into _extra. A relative path starts at the data directory.
	SchemaFile string `yaml:"schema_file,omitempty"`

	Period     time.Duration `yaml:"period,omitempty"`     // default the section's
	Durability string        `yaml:"durability,omitempty"` // disk (default) or os
	OnFull     string        `yaml:"on_full,omitempty"`    // reject (default) or drop_oldest
	MaxBytes   int64         `yaml:"max_bytes,omitempty"`  // of the rule's stream; default only the node's disk budget
}

// Column is a column whose type is fixed beforehand.
type Column struct {
	Name string `yaml:"name"` // of the column and of the member, its path joined by '.'
	Type string `yaml:"type"` // double, bigint, boolean, text, json or timestamp
}

var columnTypes = [...]string{"double", "bigint", "boolean", "text", "json", "timestamp"}

// DefaultConfig ingests every topic into one table.
func DefaultConfig() Config {
	return Config{
		Period:      time.Minute,
		MQTTTimeout: 5 * time.Minute,
		LogInterval: 10 * time.Second,
		Rules:       []Rule{DefaultRule()},
	}
}

// DefaultRule is the rule of a configuration that names none: every topic but those that start with '$'.
func DefaultRule() Rule { return Rule{Name: "default", Topics: []string{"#"}} }

// Resolved returns c with every default written out: what runs.
func (c Config) Resolved() Config {
	c.Rules = slices.Clone(c.Rules)
	for i := range c.Rules {
		r := &c.Rules[i]
		if r.QoS == nil {
			r.QoS = new(1)
		}
		if r.Period == 0 {
			r.Period = c.Period
		}
		fill(&r.Parser.Type, payload.Auto)
		fill(&r.Layout, Portable)
		fill(&r.Table, r.defaultTable())
		fill(&r.Durability, "disk")
		fill(&r.OnFull, "reject")
	}
	return c
}

func fill(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

func (r *Rule) defaultTable() string {
	if r.Layout == Columns {
		return strings.ToLower(strings.ReplaceAll(r.Name, "-", "_"))
	}
	return "samples"
}

// StreamPrefix is what the names of the streams of ingest rules begin with.
const StreamPrefix = "ingest/"

// Stream is the name of the rule's stream.
func (r *Rule) Stream() record.StreamName { return record.StreamName(StreamPrefix + r.Name) }

// Policy is how the rule's stream keeps its records: until every export has them.
func (r *Rule) Policy() stream.Policy {
	p := stream.Policy{UntilExported: true, Lane: stream.Short, MaxBytes: r.MaxBytes}
	if r.Durability == "os" {
		p.Durability = stream.OS
	}
	if r.OnFull == "drop_oldest" {
		p.OnFull = stream.DropOldest
	}
	return p
}

// Subscription is a filter with the QoS to ask for.
type Subscription struct {
	Filter string // with $share/<group>/ where the rule has it
	QoS    byte
}

// Subscriptions are the filters that the rules want from an external source, each once, with the highest QoS asked for.
func (c Config) Subscriptions(source string) []Subscription {
	qos := map[string]byte{}
	for _, r := range c.Rules {
		if r.Source != "" && r.Source != source {
			continue
		}
		want := byte(1)
		if r.QoS != nil {
			want = byte(*r.QoS)
		}
		for _, f := range r.Topics {
			qos[f] = max(qos[f], want)
		}
	}
	var subs []Subscription
	for _, f := range slices.Sorted(maps.Keys(qos)) {
		subs = append(subs, Subscription{Filter: f, QoS: qos[f]})
	}
	return subs
}

// Validate reports, as an Invalid error, the first thing wrong with c: the key's path, what is wrong, and the remedy.
func (c *Config) Validate() error {
	if err := validatePeriod("ingest.period", c.Period); err != nil {
		return err
	}
	if c.MQTTTimeout < 0 {
		return record.Errorf(record.Invalid, "ingest.mqtt_timeout: %s is negative", c.MQTTTimeout).
			WithHint("use 0 to never warn about a silent source")
	}
	if c.LogInterval < 0 {
		return record.Errorf(record.Invalid, "ingest.log_interval: %s is negative", c.LogInterval).WithHint("use 10s")
	}
	resolved := c.Resolved()
	for i := range resolved.Rules {
		r := &resolved.Rules[i]
		place := fmt.Sprintf("ingest.rules[%d]", i)
		if r.Name != "" {
			place = fmt.Sprintf("ingest.rules[%d] (%s)", i, r.Name)
		}
		if err := r.validate(place); err != nil {
			return err
		}
		for j := range i {
			if err := r.agrees(place, &resolved.Rules[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

// CheckSources reports a rule whose source is none of those that exist.
func (c Config) CheckSources(exist []string) error {
	for i, r := range c.Rules {
		if r.Source != "" && !slices.Contains(exist, r.Source) {
			return record.Errorf(record.Invalid, "ingest.rules[%d] (%s).source: there is no source %q", i, r.Name, r.Source).
				WithHint("use one of %s, or leave it out for all of them", strings.Join(exist, ", "))
		}
	}
	return nil
}

func validatePeriod(place string, d time.Duration) error {
	if d < time.Second || d > 24*time.Hour {
		return record.Errorf(record.Invalid, "%s: %s is not between 1 s and 24 h", place, d).
			WithHint("write the period with its unit, or in seconds, for example 60s")
	}
	return nil
}

// validate checks a rule with its defaults written out.
func (r *Rule) validate(place string) error {
	if !isName(r.Name) {
		return record.Errorf(record.Invalid, "%s.name: %q is no name", place, r.Name).
			WithHint("use up to 64 letters, digits, '-' and '_'; it begins with a letter or digit")
	}
	if len(r.Topics) == 0 {
		return record.Errorf(record.Invalid, "%s.topics: no topic filter", place).WithHint(`use topics: ["#"] for every topic`)
	}
	for i, f := range r.Topics {
		if err := CheckFilter(f); err != nil {
			return fmt.Errorf("%s.topics[%d]: %w", place, i, err)
		}
	}
	if *r.QoS < 0 || *r.QoS > 2 {
		return record.Errorf(record.Invalid, "%s.qos: %d is no quality of service", place, *r.QoS).WithHint("use 0, 1 or 2")
	}
	for _, check := range []func(string) error{r.validateParser, r.validateLabels, r.validateTable, r.validateStream} {
		if err := check(place); err != nil {
			return err
		}
	}
	return nil
}

func (r *Rule) validateParser(place string) error {
	if err := r.Parser.Validate(); err != nil {
		return fmt.Errorf("%s.parser.%w", place, err)
	}
	if err := r.Time.Validate(); err != nil {
		return fmt.Errorf("%s.time.%w", place, err)
	}
	if !r.Parser.IsJSON() && r.Time.Field != "" {
		return record.Errorf(record.Invalid, "%s.time.field: parser %s has no members", place, r.Parser.Type).
			WithHint("remove it: the time of arrival is used; or use parser auto, json or json_signals")
	}
	if r.Layout != Portable && r.Layout != Columns {
		return record.Errorf(record.Invalid, "%s.layout: unknown layout %q", place, r.Layout).WithHint("use portable or columns")
	}
	if _, err := payload.New(r.Parser, r.Time, r.Layout == Columns); err != nil {
		return fmt.Errorf("%s.parser.%w", place, err)
	}
	return nil
}

func (r *Rule) validateLabels(place string) error {
	p, err := ParsePattern(r.TopicPattern)
	if err != nil {
		return fmt.Errorf("%s.topic_pattern: %w", place, err)
	}
	if r.Layout == Columns && p.HasSignal() {
		return record.Errorf(record.Invalid, "%s.topic_pattern: {signal} names the signal of layout portable", place).
			WithHint("give the level another name, and it becomes a column")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Labels)) {
		key := fmt.Sprintf("%s.labels.%s", place, name)
		switch value := r.Labels[name]; {
		case !isLabel(name):
			return labelError(key, name)
		case slices.Contains(p.Names(), name):
			return record.Errorf(record.Invalid, "%s: topic_pattern has a level of that name", key).WithHint("rename one of them")
		case len(value) > payload.MaxName || !utf8.ValidString(value):
			return record.Errorf(record.Invalid, "%s: the value is longer than %d bytes or not UTF-8", key, payload.MaxName).
				WithHint("shorten it")
		}
	}
	return nil
}

func labelError(place, name string) *record.Error {
	return record.Errorf(record.Invalid, "%s: %q cannot name a column", place, name).
		WithHint("use small letters, digits and '_'; not at the start a digit or '_', and not ts, topic, signal, value, " +
			"text, year, month, day, hour or dt")
}

func (r *Rule) validateTable(place string) error {
	if !isTable(r.Table) {
		return record.Errorf(record.Invalid, "%s.table: %q is no table name", place, r.Table).
			WithHint("use up to 64 small letters, digits and '_'; it begins with a letter")
	}
	if r.Layout != Columns && len(r.Columns) > 0 {
		return record.Errorf(record.Invalid, "%s.columns: layout portable has fixed columns", place).
			WithHint("set layout: columns, or remove columns")
	}
	seen := map[string]bool{}
	for i, c := range r.Columns {
		key := fmt.Sprintf("%s.columns[%d]", place, i)
		switch {
		case c.Name == "" || len(c.Name) > payload.MaxName || !utf8.ValidString(c.Name) || seen[c.Name]:
			return record.Errorf(record.Invalid, "%s.name: %q is no name, or given twice", key, c.Name).
				WithHint("use the path of the member, for example position.lat")
		case !slices.Contains(columnTypes[:], c.Type):
			return record.Errorf(record.Invalid, "%s.type: unknown type %q", key, c.Type).
				WithHint("use %s", strings.Join(columnTypes[:], ", "))
		}
		seen[c.Name] = true
	}
	return nil
}

func (r *Rule) validateStream(place string) error {
	const least = 1 << 20
	switch {
	case r.Durability != "disk" && r.Durability != "os":
		return record.Errorf(record.Invalid, "%s.durability: unknown level %q", place, r.Durability).
			WithHint("use disk (acknowledged means fdatasync'ed) or os (within 100 ms)")
	case r.OnFull != "reject" && r.OnFull != "drop_oldest":
		return record.Errorf(record.Invalid, "%s.on_full: unknown policy %q", place, r.OnFull).WithHint("use reject or drop_oldest")
	case r.MaxBytes != 0 && r.MaxBytes < least:
		return record.Errorf(record.Invalid, "%s.max_bytes: %d is less than 1 MiB", place, r.MaxBytes).
			WithHint("use for example 1GiB, or leave it out: the node's disk budget always holds")
	}
	return validatePeriod(place+".period", r.Period)
}

// agrees checks r against a rule before it: names differ, and tables that both fill are described alike.
func (r *Rule) agrees(place string, o *Rule) error {
	switch {
	case strings.EqualFold(r.Name, o.Name):
		return record.Errorf(record.Invalid, "%s.name: another rule is called %q", place, o.Name).
			WithHint("rename one: the name is the name of the rule's stream")
	case r.Table != o.Table:
		return nil
	case r.Layout != o.Layout:
		return record.Errorf(record.Invalid, "%s.layout: rule %s fills table %s in layout %s", place, o.Name, o.Table, o.Layout).
			WithHint("use the same layout, or another table")
	case !slices.Equal(r.Columns, o.Columns):
		return record.Errorf(record.Invalid, "%s.columns: rule %s describes table %s otherwise", place, o.Name, o.Table).
			WithHint("write the same columns in both, or use another table")
	case r.SchemaFile != o.SchemaFile:
		return record.Errorf(record.Invalid, "%s.schema_file: rule %s describes table %s otherwise", place, o.Name, o.Table).
			WithHint("name the same file in both, or use another table")
	}
	return nil
}

func isName(s string) bool {
	return s != "" && len(s) <= 64 && s[0] != '-' && s[0] != '_' && only(s, func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
	})
}

func isTable(s string) bool {
	return len(s) <= 64 && isWord(s)
}

func isWord(s string) bool {
	return s != "" && s[0] >= 'a' && s[0] <= 'z' && only(s, func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_'
	})
}

// isLabel reports whether s can name a label: the columns that lake fills itself and those of partitions are taken.
func isLabel(s string) bool {
	switch s {
	case "ts", "topic", "signal", "value", "text", "year", "month", "day", "hour", "dt":
		return false
	}
	return len(s) <= 64 && isWord(s)
}

func only(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}
