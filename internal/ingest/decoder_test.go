package ingest_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
)

func decoder(t testing.TB, r ingest.Rule) payload.Decoder {
	t.Helper()
	r.Name, r.Topics = "x", []string{"#"}
	c := config(r)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	d, err := ingest.NewDecoder(r)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func show(rows []payload.Row) string {
	var lines []string
	for _, r := range rows {
		line := string(r.Topic)
		if r.Fields == nil {
			line += fmt.Sprintf(" %s=%v", r.Signal, r.Value.I)
		}
		for _, f := range r.Fields {
			line += fmt.Sprintf(" %s=%v", f.Name, f.Value.I)
		}
		for _, l := range r.Labels {
			line += fmt.Sprintf(" [%s=%s]", l.Name, l.Value.S)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

func TestDecoder(t *testing.T) {
	const pattern = "plant/{site}/{signal}"
	for _, c := range []struct {
		name           string
		rule           ingest.Rule
		topic, payload string
		want           string
	}{
		{"no labels", ingest.Rule{}, "a/b", `{"v":1}`, "a/b v=1"},
		{"static labels in order", ingest.Rule{Labels: map[string]string{"b": "2", "a": "1"}}, "t", "5", "t value=5 [a=1] [b=2]"},
		{"signal of a bare value", ingest.Rule{TopicPattern: pattern}, "plant/x/temp", "5", "plant/x/temp temp=5 [site=x]"},
		{"signal of a member value", ingest.Rule{TopicPattern: pattern}, "plant/x/temp", `{"value":5,"q":1}`,
			"plant/x/temp temp=5 [site=x]; plant/x/temp temp.q=1 [site=x]"},
		{"signal with another name", ingest.Rule{TopicPattern: pattern, Parser: payload.Config{Signal: "v"}}, "plant/x/temp", `{"value":5,"v":1}`,
			"plant/x/temp temp.value=5 [site=x]; plant/x/temp temp=1 [site=x]"},
		{"topic does not fit", ingest.Rule{TopicPattern: pattern, Labels: map[string]string{"k": "1"}}, "plant/x", "5", "plant/x value=5 [k=1]"},
		{"levels before labels", ingest.Rule{TopicPattern: "plant/{site}/+", Labels: map[string]string{"a": "1"}}, "plant/x/y", "5",
			"plant/x/y value=5 [site=x] [a=1]"},
		{"empty signal", ingest.Rule{TopicPattern: pattern}, "plant/x/", "5", "plant/x/ value=5 [site=x]"},
		{"columns", ingest.Rule{Layout: "columns", TopicPattern: "plant/{site}/#"}, "plant/x", `{"a":1,"b":2}`, "plant/x a=1 b=2 [site=x]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := decoder(t, c.rule)
			for range 2 {
				rows, err := d.Decode(&record.Record{Key: []byte(c.topic), Payload: []byte(c.payload)}, nil)
				if got := show(rows); err != nil || got != c.want {
					t.Errorf("%q, %v; want %q", got, err, c.want)
				}
			}
		})
	}
}

func TestDecoderAppends(t *testing.T) {
	d := decoder(t, ingest.Rule{TopicPattern: "{signal}"})
	rows := []payload.Row{{Signal: []byte("before")}}
	rows, err := d.Decode(&record.Record{Key: []byte("t"), Payload: []byte("1")}, rows)
	if err != nil || len(rows) != 2 || string(rows[0].Signal) != "before" || rows[0].Labels != nil || string(rows[1].Signal) != "t" {
		t.Errorf("%s, %v", show(rows), err)
	}
}

func TestDecoderRejects(t *testing.T) {
	d := decoder(t, ingest.Rule{TopicPattern: "a/{signal...}"})
	for topic, doc := range map[string]string{
		"a/b":    "{",
		"a/\xff": "1",
		"a/" + strings.Repeat("x", payload.MaxName+1): "1",
		"a/" + strings.Repeat("x", payload.MaxName):   "[" + strings.Repeat("1,", 10_000) + "1]",
	} {
		if _, err := d.Decode(&record.Record{Key: []byte(topic), Payload: []byte(doc)}, nil); record.KindOf(err) != record.Invalid {
			t.Errorf("%.10s: %v", topic, err)
		}
	}
	if rows, err := d.Decode(&record.Record{Key: []byte("a/b"), Payload: []byte("1")}, nil); err != nil || show(rows) != "a/b b=1" {
		t.Errorf("afterwards: %s, %v", show(rows), err)
	}
}

func TestDecoderKnowsManyTopics(t *testing.T) {
	d := decoder(t, ingest.Rule{TopicPattern: "{a}/{signal}"})
	for i := range 40_000 {
		topic := fmt.Appendf(nil, "%d/s%d", i, i)
		rows, err := d.Decode(&record.Record{Key: topic, Payload: []byte("1")}, nil)
		if err != nil || string(rows[0].Signal) != fmt.Sprintf("s%d", i) || string(rows[0].Labels[0].Value.S) != fmt.Sprint(i) {
			t.Fatalf("%s: %s, %v", topic, show(rows), err)
		}
	}
}

func TestSampledLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		d := ingest.NewSampled(decoder(t, ingest.Rule{}), "x", slog.New(slog.NewTextHandler(&log, nil)), 10*time.Second)
		bad := &record.Record{Key: []byte("t"), Payload: []byte("{\"a\":" + strings.Repeat("ü", 60))}
		for range 3 {
			if _, err := d.Decode(bad, nil); err == nil {
				t.Fatal("accepted")
			}
		}
		if _, err := d.Decode(&record.Record{Payload: []byte("1")}, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if _, err := d.Decode(bad, nil); err == nil {
			t.Fatal("accepted")
		}
		got := log.String()
		if strings.Count(got, "level=WARN") != 2 || strings.Count(got, "not_logged=2") != 1 || strings.Count(got, "not_logged=0") != 1 ||
			strings.Count(got, "rule=x topic=t") != 2 || strings.Count(got, "bytes=125") != 2 || d.Rejected() != 4 {
			t.Errorf("rejected %d, log:\n%s", d.Rejected(), got)
		}
	})
}

func TestRuleDecodeDoesNotAllocate(t *testing.T) {
	d := decoder(t, ingest.Rule{TopicPattern: "plant/{site}/line/{line}/{signal}", Labels: map[string]string{"k": "v"}})
	rec := &record.Record{Key: []byte("plant/a/line/7/temp"), Payload: []byte(`{"ts":1790000000000,"value":21.5,"q":1}`)}
	var rows []payload.Row
	if n := testing.AllocsPerRun(100, func() { rows, _ = d.Decode(rec, rows[:0]) }); n != 0 || len(rows) != 2 {
		t.Errorf("%v allocations per message, want none; %d rows", n, len(rows))
	}
}

func BenchmarkRuleDecode(b *testing.B) {
	d := decoder(b, ingest.Rule{TopicPattern: "plant/{site}/line/{line}/{signal}", Labels: map[string]string{"k": "v"}})
	rec := &record.Record{Key: []byte("plant/a/line/7/temp"), Payload: []byte(`{"ts":1790000000000,"value":21.5}`)}
	var rows []payload.Row
	b.ReportAllocs()
	for b.Loop() {
		rows, _ = d.Decode(rec, rows[:0])
	}
}
