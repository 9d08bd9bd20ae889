package ingest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

func load(text string) (ingest.Config, error) {
	c := ingest.DefaultConfig()
	d := yaml.NewDecoder(strings.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		return c, err
	}
	return c, c.Validate()
}

func TestDefaultConfig(t *testing.T) {
	c := ingest.DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	r := c.Resolved().Rules[0]
	if r.Name != "default" || r.Stream() != "ingest/default" || r.Table != "samples" || r.Layout != "portable" ||
		r.Parser.Type != "auto" || *r.QoS != 1 || r.Period != time.Minute || !slices.Equal(r.Topics, []string{"#"}) {
		t.Errorf("default rule: %+v", r)
	}
	if got, want := r.Policy(), (stream.Policy{UntilExported: true}); got != want {
		t.Errorf("policy %+v, want %+v", got, want)
	}
}

func TestConfigFile(t *testing.T) {
	c, err := load(`
period: 30s
rules:
  - name: plant
    source: plc
    topics: ["plant/#", "$share/g/hall/+"]
    qos: 2
    topic_pattern: plant/{site}/line/{line}/{signal}
    labels: {company: acme}
    durability: os
    on_full: drop_oldest
    max_bytes: 1073741824
  - name: Positions-2
    topics: [gps/+]
    parser: {type: json, arrays: index}
    time: {field: meta.at, format: ms}
    layout: columns
    columns: [{name: lat, type: double}]
    period: 15m
`)
	if err != nil {
		t.Fatal(err)
	}
	rules := c.Resolved().Rules
	if p := rules[0].Policy(); p.Durability != stream.OS || p.OnFull != stream.DropOldest || p.MaxBytes != 1<<30 || !p.UntilExported {
		t.Errorf("policy %+v", p)
	}
	if rules[0].Period != 30*time.Second || rules[1].Period != 15*time.Minute || rules[1].Table != "positions_2" {
		t.Errorf("rules %+v", rules)
	}
	want := []ingest.Subscription{{"$share/g/hall/+", 2}, {"gps/+", 1}, {"plant/#", 2}}
	if got := c.Subscriptions("plc"); !slices.Equal(got, want) {
		t.Errorf("subscriptions at plc: %v, want %v", got, want)
	}
	if got := c.Subscriptions("other"); !slices.Equal(got, want[1:2]) {
		t.Errorf("subscriptions at other: %v, want %v", got, want[1:2])
	}
	if err := c.CheckSources([]string{"broker", "plc"}); err != nil {
		t.Error(err)
	}
	if err := c.CheckSources([]string{"broker"}); err == nil || !strings.Contains(err.Error(), "ingest.rules[0] (plant).source") {
		t.Errorf("missing source: %v", err)
	}
}

func TestConfigErrorsNamePlaceAndRemedy(t *testing.T) {
	rule := func(more string) string { return "rules:\n  - {name: x, topics: [a], " + more + "}" }
	for _, c := range []struct{ name, text, want string }{
		{"period in ms", "period: 5ms", "ingest.period: 5ms is not between"},
		{"negative timeout", "mqtt_timeout: -1s", "ingest.mqtt_timeout"},
		{"no name", "rules: [{topics: [a]}]", `ingest.rules[0].name: "" is no name`},
		{"bad name", "rules: [{name: a/b, topics: [a]}]", `ingest.rules[0] (a/b).name`},
		{"no topics", "rules: [{name: x}]", "ingest.rules[0] (x).topics: no topic filter"},
		{"bad filter", "rules: [{name: x, topics: [a, 'b#']}]", `ingest.rules[0] (x).topics[1]: filter "b#": # does not stand alone`},
		{"bad QoS", rule("qos: 3"), "ingest.rules[0] (x).qos: 3"},
		{"bad parser", rule("parser: {type: xml}"), `ingest.rules[0] (x).parser.type: unknown type "xml"`},
		{"option of another parser", rule("parser: {type: json, order: big}"), "parser.order: not an option of parser json"},
		{"no order", rule("parser: {type: binary, format: int16}"), "parser.order: missing for format int16"},
		{"no format", rule("parser: {type: binary}"), "parser.format: unknown format"},
		{"time of no document", rule("parser: {type: number}, time: {field: ts}"), "time.field: parser number has no members"},
		{"time format", rule("time: {field: ts, format: h}"), `time.format: unknown format "h"`},
		{"time without field", rule("time: {format: ms}"), "time.format: ms without a field"},
		{"time path", rule("time: {field: a..b}"), "time.field: \"a..b\" is no path"},
		{"pattern", rule("topic_pattern: 'a/{x'"), "ingest.rules[0] (x).topic_pattern: level"},
		{"signal in columns", rule("layout: columns, parser: {type: json}, topic_pattern: '{signal}'"), "topic_pattern: {signal}"},
		{"label", rule("labels: {Site: a}"), "labels.Site"},
		{"label twice", rule("labels: {site: a}, topic_pattern: '{site}'"), "labels.site: topic_pattern has"},
		{"table", rule("table: A-b"), "table: \"A-b\" is no table name"},
		{"layout", rule("layout: wide"), "layout: unknown layout"},
		{"signals in columns", rule("layout: columns, parser: {type: json_signals}"), "parser.type: parser json_signals"},
		{"columns in portable", rule("columns: [{name: a, type: double}]"), "columns: layout portable"},
		{"column type", rule("layout: columns, columns: [{name: a, type: float}]"), "columns[0].type: unknown type"},
		{"column twice", rule("layout: columns, columns: [{name: a, type: text}, {name: a, type: text}]"), "columns[1].name"},
		{"durability", rule("durability: ram"), "durability: unknown level"},
		{"on full", rule("on_full: wait"), "on_full: unknown policy"},
		{"max bytes", rule("max_bytes: 1000"), "max_bytes: 1000 is less than 1 MiB"},
		{"rule period", rule("period: 48h"), "ingest.rules[0] (x).period"},
		{"same name", "rules: [{name: x, topics: [a]}, {name: X, topics: [b]}]", "ingest.rules[1] (X).name: another rule"},
		{"same table", "rules: [{name: x, topics: [a], table: t}, {name: y, topics: [b], table: t, layout: columns}]",
			"ingest.rules[1] (y).layout: rule x fills table t"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) || record.KindOf(err) != record.Invalid || record.HintOf(err) == "" {
				t.Errorf("%v (hint %q), want %q and a hint", err, record.HintOf(err), c.want)
			}
		})
	}
	t.Run("unknown key", func(t *testing.T) {
		if _, err := load(rule("parser: {typ: json}")); err == nil || !strings.Contains(err.Error(), "typ") {
			t.Errorf("%v", err)
		}
	})
	t.Run("no rules", func(t *testing.T) {
		if c, err := load("rules: []"); err != nil || len(c.Rules) != 0 {
			t.Errorf("%d rules, %v", len(c.Rules), err)
		}
	})
}
