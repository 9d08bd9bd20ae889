package ingest

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/payload"
	"github.com/leat-io/leat/internal/record"
)

const (
	maxKnownTopics     = 16_384
	maxKnownTopicBytes = 4 << 20
)

// NewDecoder makes the decoder of a rule's records: the rule's parser, with the labels of topic levels and the static
// ones, and with the signal that the topic names. The rule must be valid.
//
// With {signal} in the topic pattern, a value that has no name of its own, or is called like the parser's option signal
// (default "value"), gets the topic's signal as its name; all others get theirs behind it, with a '.' between.
// A topic that does not fit the pattern gives rows without its labels: the data is worth more than the name.
func NewDecoder(r Rule) (payload.Decoder, error) {
	c := Config{Period: time.Minute, Rules: []Rule{r}}.Resolved()
	r = c.Rules[0]
	inner, err := payload.New(r.Parser, r.Time, r.Layout == Columns)
	if err != nil {
		return nil, err
	}
	pattern, err := ParsePattern(r.TopicPattern)
	if err != nil {
		return nil, err
	}
	d := &decoder{inner: inner, pattern: pattern, value: "value", topics: map[string]*topicInfo{}}
	if r.Parser.Signal != "" {
		d.value = r.Parser.Signal
	}
	for _, name := range slices.Sorted(maps.Keys(r.Labels)) {
		d.static = append(d.static, label(name, r.Labels[name]))
	}
	return d, nil
}

func label(name, value string) payload.Field {
	return payload.Field{Name: name, Value: payload.Value{Kind: payload.Text, S: []byte(value)}}
}

type decoder struct {
	inner   payload.Decoder
	pattern Pattern
	static  []payload.Field
	value   string // name of a value that has none

	topics map[string]*topicInfo
	bytes  int
	names  []byte // scratch for signals put together
}

// topicInfo is what all records of a topic share.
type topicInfo struct {
	labels []payload.Field
	signal []byte // empty: the pattern has none, or does not fit
}

// Decode implements payload.Decoder.
func (d *decoder) Decode(rec *record.Record, dst []payload.Row) ([]payload.Row, error) {
	if !utf8.Valid(rec.Key) { // no door lets it in, but a log can hold what a defect of one has written
		return dst, record.Errorf(record.Invalid, "topic is not UTF-8")
	}
	from := len(dst)
	rows, err := d.inner.Decode(rec, dst)
	if err != nil || len(d.pattern.levels)+len(d.static) == 0 {
		return rows, err
	}
	info := d.topics[string(rec.Key)]
	if info == nil {
		info = d.learn(string(rec.Key))
	}
	if d.names = d.names[:0]; cap(d.names) > keepArena {
		d.names = nil
	}
	if len(info.signal) > payload.MaxName {
		return rows, record.Errorf(record.Invalid, "signal of %d bytes in the topic", len(info.signal))
	}
	for i := from; i < len(rows); i++ {
		row := &rows[i]
		row.Labels = info.labels
		if len(info.signal) == 0 {
			continue
		}
		row.Signal = d.signal(info.signal, row.Signal)
		if len(d.names) > payload.MaxNames {
			return rows, record.Errorf(record.Invalid, "names of more than %d bytes together", payload.MaxNames)
		}
	}
	return rows, nil
}

// signal is the name of a value in a topic that names a signal.
func (d *decoder) signal(topic, own []byte) []byte {
	if string(own) == d.value {
		return topic
	}
	from := len(d.names)
	d.names = append(append(append(d.names, topic...), '.'), own...)
	return d.names[from:len(d.names):len(d.names)]
}

func (d *decoder) learn(topic string) *topicInfo {
	info := new(topicInfo)
	fits := d.pattern.Fit(topic, func(name, value string) {
		if name == signalLevel {
			info.signal = []byte(value)
		} else {
			info.labels = append(info.labels, label(name, value))
		}
	})
	if !fits {
		*info = topicInfo{}
	}
	info.labels = append(info.labels, d.static...)
	if len(d.topics) >= maxKnownTopics || d.bytes+len(topic) > maxKnownTopicBytes {
		clear(d.topics)
		d.bytes = 0
	}
	d.topics[topic] = info
	d.bytes += len(topic)
	return info
}

// Sampled is a decoder that logs what does not parse: the first message at once, then one line in each interval, with
// the number of those between.
type Sampled struct {
	inner    payload.Decoder
	rule     string
	log      *slog.Logger
	interval time.Duration

	rejected atomic.Int64
	next     time.Time // when a line may be logged again
	unlogged int64
}

// NewSampled wraps dec, the decoder of the rule called rule.
func NewSampled(dec payload.Decoder, rule string, log *slog.Logger, interval time.Duration) *Sampled {
	return &Sampled{inner: dec, rule: rule, log: log, interval: interval}
}

// Rejected is how many records did not parse. It may be called at any time.
func (s *Sampled) Rejected() int64 { return s.rejected.Load() }

// Decode implements payload.Decoder.
func (s *Sampled) Decode(rec *record.Record, dst []payload.Row) ([]payload.Row, error) {
	rows, err := s.inner.Decode(rec, dst)
	if err == nil {
		return rows, nil
	}
	s.rejected.Add(1)
	now := time.Now()
	if now.Before(s.next) {
		s.unlogged++
		return rows, err
	}
	s.next = now.Add(s.interval)
	s.log.Warn("message does not parse: kept in _rejected", "rule", s.rule, "topic", string(rec.Key), "reason", err.Error(),
		"payload", excerpt(rec.Payload), "bytes", len(rec.Payload), "not_logged", s.unlogged)
	s.unlogged = 0
	return rows, err
}

// excerpt is the start of a payload, as text that a terminal can show.
func excerpt(b []byte) string {
	const most = 80
	return strings.ToValidUTF8(string(b[:min(len(b), most)]), "\uFFFD")
}
