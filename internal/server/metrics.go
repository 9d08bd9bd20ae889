package server

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/leat-io/leat/internal/export"
	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/mqtt"
	"github.com/leat-io/leat/internal/query"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// topStreams is how many streams get series of their own: the largest. A node may have ten thousand.
const topStreams = 20

// collector reads the parts' Stats when it is scraped, so that counting costs nothing in between.
type collector struct {
	server   *Server
	families []family
}

// family is the metrics of one part: a snapshot is taken once, and each metric picks its value from it.
type family interface {
	describe(ch chan<- *prometheus.Desc)
	list() []Metric
	collect(s *Server, ch chan<- prometheus.Metric)
}

// sample is one value of a snapshot with the values of its labels.
type sample[T any] struct {
	labels []string
	stats  T
}

// metrics is a family whose snapshots have type T.
type metrics[T any] struct {
	samples func(s *Server) []sample[T]
	all     []metric[T]
}

// Metric is a metric as the reference describes it.
type Metric struct {
	Name   string
	Type   string // counter or gauge
	Labels []string
	Help   string
}

type metric[T any] struct {
	Metric
	desc *prometheus.Desc
	kind prometheus.ValueType
	get  func(T) float64
}

func (m metrics[T]) describe(ch chan<- *prometheus.Desc) {
	for _, x := range m.all {
		ch <- x.desc
	}
}

func (m metrics[T]) collect(s *Server, ch chan<- prometheus.Metric) {
	for _, sm := range m.samples(s) {
		for _, x := range m.all {
			ch <- prometheus.MustNewConstMetric(x.desc, x.kind, x.get(sm.stats), sm.labels...)
		}
	}
}

// definer makes the metrics of one family, all with the same labels.
type definer[T any] struct {
	prefix string
	labels []string
	list   []metric[T]
}

func (d *definer[T]) counter(name, help string, get func(T) float64) {
	d.add(name, help, "counter", prometheus.CounterValue, get)
}

func (d *definer[T]) gauge(name, help string, get func(T) float64) {
	d.add(name, help, "gauge", prometheus.GaugeValue, get)
}

func (d *definer[T]) add(name, help, kind string, value prometheus.ValueType, get func(T) float64) {
	name = d.prefix + name
	d.list = append(d.list, metric[T]{
		Metric: Metric{name, kind, d.labels, help}, desc: prometheus.NewDesc(name, help, d.labels, nil), kind: value, get: get,
	})
}

func (m metrics[T]) list() []Metric {
	out := make([]Metric, 0, len(m.all))
	for _, x := range m.all {
		out = append(out, x.Metric)
	}
	return out
}

// Metrics lists leat's own metrics.
func Metrics() []Metric {
	var out []Metric
	for _, f := range append(families(), brokerMetrics(), doorMetrics()) {
		out = append(out, f.list()...)
	}
	return out
}

func families() []family {
	return []family{
		nodeMetrics(), logMetrics(), streamMetrics(), routerMetrics(), ruleMetrics(), sourceMetrics(), exportMetrics(),
		forwardMetrics(), queryMetrics(),
	}
}

func newCollector(s *Server) *collector {
	c := &collector{server: s, families: families()}
	if s.broker != nil {
		c.families = append(c.families, brokerMetrics())
	}
	if s.door != nil {
		c.families = append(c.families, doorMetrics())
	}
	return c
}

// Describe is part of prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.families {
		f.describe(ch)
	}
}

// Collect is part of prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for _, f := range c.families {
		f.collect(c.server, ch)
	}
}

func (c *collector) handler() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

func bool01(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func nodeMetrics() family {
	d := definer[*Server]{prefix: "leat_", labels: []string{"version", "node"}}
	d.gauge("info", "Always 1; the labels say what runs.", func(*Server) float64 { return 1 })
	d.gauge("ready", "1 when every door is open.", func(s *Server) float64 { return bool01(s.ready.Load()) })
	d.gauge("degraded", "How many things do not work as they should; /readyz names them.",
		func(s *Server) float64 { return float64(len(s.degraded())) })
	d.gauge("clock_trusted", "1 when the wall clock is believed.", func(s *Server) float64 { return bool01(s.clock.Read().Trusted) })
	d.gauge("disk_budget_bytes", "What the log, the spool and the caches may hold.", func(s *Server) float64 { return float64(s.budget.Total) })
	d.gauge("disk_free_bytes", "Free room on the disk of the data directory.", func(s *Server) float64 {
		space, err := s.data.Space()
		if err != nil {
			return -1
		}
		return float64(space.Free)
	})
	return metrics[*Server]{func(s *Server) []sample[*Server] {
		return []sample[*Server]{{[]string{s.version, s.node}, s}}
	}, d.list}
}

func logMetrics() family {
	d := definer[segment.Stats]{prefix: "leat_log_", labels: []string{"lane"}}
	d.gauge("streams", "Streams in the lane.", func(s segment.Stats) float64 { return float64(s.Streams) })
	d.gauge("segments", "Files of the log.", func(s segment.Stats) float64 { return float64(s.Segments) })
	d.gauge("logical_bytes", "Bytes of key, payload and attributes kept.", func(s segment.Stats) float64 { return float64(s.Logical) })
	d.gauge("physical_bytes", "Bytes of files.", func(s segment.Stats) float64 { return float64(s.Physical) })
	d.gauge("garbage_bytes", "Bytes of closed segments that no stream needs.", func(s segment.Stats) float64 { return float64(s.Garbage) })
	d.counter("appends_total", "Appends acknowledged.", func(s segment.Stats) float64 { return float64(s.Appends) })
	d.counter("records_total", "Records acknowledged.", func(s segment.Stats) float64 { return float64(s.Records) })
	d.counter("bytes_total", "Logical bytes acknowledged.", func(s segment.Stats) float64 { return float64(s.Bytes) })
	d.counter("written_bytes_total", "Bytes written to files: what wears a flash card.", func(s segment.Stats) float64 { return float64(s.WrittenBytes) })
	d.counter("commits_total", "Group commits.", func(s segment.Stats) float64 { return float64(s.Commits) })
	d.counter("syncs_total", "fdatasync calls.", func(s segment.Stats) float64 { return float64(s.Syncs) })
	d.counter("sync_seconds_total", "Time spent in fdatasync.", func(s segment.Stats) float64 { return time.Duration(s.SyncNanos).Seconds() })
	d.counter("rejected_appends_total", "Appends refused because a limit was reached.", func(s segment.Stats) float64 { return float64(s.RejectedAppends) })
	d.counter("dropped_records_total", "Records dropped by policy or budget before they were exported.", func(s segment.Stats) float64 { return float64(s.DroppedRecords) })
	d.counter("damaged_ranges_total", "Ranges that were once durable and no longer read.", func(s segment.Stats) float64 { return float64(s.DamagedRanges) })
	d.counter("damaged_bytes_total", "Bytes in them.", func(s segment.Stats) float64 { return float64(s.DamagedBytes) })
	d.counter("torn_tail_bytes_total", "Bytes cut off when the log opened: never acknowledged at level disk.", func(s segment.Stats) float64 { return float64(s.TornTailBytes) })
	d.counter("copied_bytes_total", "Bytes copied forward by cleaning.", func(s segment.Stats) float64 { return float64(s.CopiedBytes) })
	d.counter("write_errors_total", "Writes that failed.", func(s segment.Stats) float64 { return float64(s.WriteErrors) })
	return metrics[segment.Stats]{func(s *Server) []sample[segment.Stats] {
		var out []sample[segment.Stats]
		for _, st := range s.streams.Stats() {
			lane := "short"
			if st.Lane == stream.Long {
				lane = "long"
			}
			out = append(out, sample[segment.Stats]{[]string{lane}, st})
		}
		return out
	}, d.list}
}

func streamMetrics() family {
	d := definer[stream.Info]{prefix: "leat_stream_", labels: []string{"stream"}}
	d.gauge("bytes", "Logical bytes kept, of the largest streams.", func(i stream.Info) float64 { return float64(i.Bounds.Bytes) })
	d.gauge("records", "Records kept, of the largest streams.", func(i stream.Info) float64 { return float64(i.Bounds.Next - i.Bounds.First) })
	d.counter("next_offset", "Offset of the next record, of the largest streams.", func(i stream.Info) float64 { return float64(i.Bounds.Next) })
	return metrics[stream.Info]{func(s *Server) []sample[stream.Info] {
		var out []sample[stream.Info]
		for _, i := range largest(s.all.List(""), topStreams) {
			out = append(out, sample[stream.Info]{[]string{string(i.Name)}, i})
		}
		return out
	}, d.list}
}

func routerMetrics() family {
	d := definer[ingest.Stats]{prefix: "leat_ingest_"}
	d.counter("unmatched_messages_total", "Messages that no rule wants: acknowledged and passed on, not kept.", func(s ingest.Stats) float64 { return float64(s.Unmatched) })
	d.counter("too_large_batches_total", "Batches refused for a message too large.", func(s ingest.Stats) float64 { return float64(s.TooLarge) })
	d.counter("full_batches_total", "Batches refused because one of several streams was at its limit.", func(s ingest.Stats) float64 { return float64(s.Full) })
	return metrics[ingest.Stats]{func(s *Server) []sample[ingest.Stats] {
		return []sample[ingest.Stats]{{nil, s.router.Stats()}}
	}, d.list}
}

func ruleMetrics() family {
	d := definer[ingest.RuleStats]{prefix: "leat_ingest_", labels: []string{"rule", "table"}}
	d.counter("messages_total", "Messages made durable.", func(r ingest.RuleStats) float64 { return float64(r.Messages) })
	d.counter("bytes_total", "Their bytes: topic, payload, attributes.", func(r ingest.RuleStats) float64 { return float64(r.Bytes) })
	d.counter("failed_messages_total", "Messages that could not be made durable; their senders know.", func(r ingest.RuleStats) float64 { return float64(r.Failed) })
	return metrics[ingest.RuleStats]{func(s *Server) []sample[ingest.RuleStats] {
		var out []sample[ingest.RuleStats]
		for _, r := range s.router.Stats().Rules {
			out = append(out, sample[ingest.RuleStats]{[]string{r.Rule, r.Table}, r})
		}
		return out
	}, d.list}
}

func sourceMetrics() family {
	d := definer[mqtt.SourceStatus]{prefix: "leat_source_", labels: []string{"source"}}
	d.gauge("connected", "1 while connected to the external broker.", func(s mqtt.SourceStatus) float64 { return bool01(s.Connected) })
	d.counter("connections_total", "Connections made.", func(s mqtt.SourceStatus) float64 { return float64(s.Stats.Connections) })
	d.counter("failures_total", "Attempts and connections that ended by themselves.", func(s mqtt.SourceStatus) float64 { return float64(s.Stats.Failures) })
	d.counter("messages_total", "Messages received, repetitions included.", func(s mqtt.SourceStatus) float64 { return float64(s.Stats.Messages) })
	d.counter("taken_total", "Messages made durable and acknowledged.", func(s mqtt.SourceStatus) float64 { return float64(s.Stats.Taken) })
	d.counter("dropped_total", "Messages that can never be taken.", func(s mqtt.SourceStatus) float64 { return float64(s.Stats.Dropped) })
	return metrics[mqtt.SourceStatus]{func(s *Server) []sample[mqtt.SourceStatus] {
		var out []sample[mqtt.SourceStatus]
		for _, src := range s.sources {
			st := src.Status()
			out = append(out, sample[mqtt.SourceStatus]{[]string{st.Name}, st})
		}
		return out
	}, d.list}
}

func exportMetrics() family {
	d := definer[export.Status]{prefix: "leat_export_", labels: []string{"stream", "table"}}
	d.counter("steps_total", "Steps encoded.", func(s export.Status) float64 { return float64(s.Stats.Steps) })
	d.counter("rows_total", "Rows encoded.", func(s export.Status) float64 { return float64(s.Stats.Rows) })
	d.counter("rejected_records_total", "Records that did not parse; they are below _rejected.", func(s export.Status) float64 { return float64(s.Stats.Rejected) })
	d.counter("encoded_bytes_total", "Bytes of the files made.", func(s export.Status) float64 { return float64(s.Stats.Bytes) })
	d.counter("uploaded_files_total", "Files put into the store.", func(s export.Status) float64 { return float64(s.Stats.UploadedFiles) })
	d.counter("uploaded_bytes_total", "Their bytes.", func(s export.Status) float64 { return float64(s.Stats.UploadedBytes) })
	d.counter("retries_total", "Failures that were followed by a pause.", func(s export.Status) float64 { return float64(s.Stats.Retries) })
	d.counter("dropped_records_total", "Records that the log dropped by policy before they were exported.", func(s export.Status) float64 { return float64(s.Stats.DroppedRecords) })
	d.counter("damaged_records_total", "Records that the log lost.", func(s export.Status) float64 { return float64(s.Stats.DamagedRecords) })
	d.counter("lost_rows_total", "Rows in spool files found damaged.", func(s export.Status) float64 { return float64(s.Stats.LostRows) })
	d.gauge("pending_steps", "Steps planned and not in the store.", func(s export.Status) float64 { return float64(s.Pending) })
	d.gauge("backlog_records", "Records not in the store.", func(s export.Status) float64 { return float64(s.BacklogRecords) })
	d.gauge("backlog_bytes", "Bytes of the log not encoded yet, estimated.", func(s export.Status) float64 { return float64(s.BacklogBytes) })
	d.gauge("lag_seconds", "Age of the oldest record not in the store.", func(s export.Status) float64 { return s.Lag.Seconds() })
	d.gauge("failing", "1 while the export shows as degraded.", func(s export.Status) float64 { return bool01(s.Degraded) })
	return metrics[export.Status]{func(s *Server) []sample[export.Status] {
		var out []sample[export.Status]
		for _, st := range s.exports.Status() {
			out = append(out, sample[export.Status]{[]string{string(st.Name), st.Table}, st})
		}
		return out
	}, d.list}
}

func queryMetrics() family {
	d := definer[query.Stats]{prefix: "leat_query_"}
	d.counter("answered_total", "Queries answered.", func(s query.Stats) float64 { return float64(s.Queries) })
	d.counter("failed_total", "Queries that ended with an error, cancelled ones included.", func(s query.Stats) float64 { return float64(s.Failed) })
	d.counter("refused_total", "Queries refused because too many were waiting.", func(s query.Stats) float64 { return float64(s.Refused) })
	d.counter("killed_total", "Workers ended by force.", func(s query.Stats) float64 { return float64(s.Killed) })
	d.counter("rows_total", "Rows of answers.", func(s query.Stats) float64 { return float64(s.Rows) })
	d.gauge("running", "Queries running.", func(s query.Stats) float64 { return float64(s.Running) })
	d.gauge("cache_bytes", "Bytes of objects kept from a remote store.", func(s query.Stats) float64 { return float64(s.CacheB) })
	return metrics[query.Stats]{func(s *Server) []sample[query.Stats] {
		return []sample[query.Stats]{{nil, s.queries.Stats()}}
	}, d.list}
}

func brokerMetrics() family {
	d := definer[mqtt.BrokerStats]{prefix: "leat_mqtt_"}
	d.gauge("connections", "Open connections.", func(s mqtt.BrokerStats) float64 { return float64(s.OpenConnections) })
	d.gauge("sessions", "Sessions, those of absent clients included.", func(s mqtt.BrokerStats) float64 { return float64(s.StoredSessions) })
	d.gauge("retained", "Retained messages.", func(s mqtt.BrokerStats) float64 { return float64(s.StoredRetained) })
	d.gauge("subscriptions", "Open subscriptions.", func(s mqtt.BrokerStats) float64 { return float64(s.Subscriptions) })
	d.counter("connections_total", "Accepted connections.", func(s mqtt.BrokerStats) float64 { return float64(s.Connections) })
	d.counter("refused_total", "Connections closed before they were clients.", func(s mqtt.BrokerStats) float64 { return float64(s.Refused) })
	d.counter("messages_total", "Messages received.", func(s mqtt.BrokerStats) float64 { return float64(s.Messages) })
	d.counter("bytes_total", "Their payloads.", func(s mqtt.BrokerStats) float64 { return float64(s.Bytes) })
	d.counter("rejected_total", "QoS 1 and 2 messages not taken over; the sender was told.", func(s mqtt.BrokerStats) float64 { return float64(s.Rejected) })
	d.counter("lost_total", "QoS 0 messages and wills not taken over.", func(s mqtt.BrokerStats) float64 { return float64(s.Lost) })
	d.counter("dropped_total", "Messages that a slow subscriber did not get.", func(s mqtt.BrokerStats) float64 { return float64(s.Dropped) })
	return metrics[mqtt.BrokerStats]{func(s *Server) []sample[mqtt.BrokerStats] {
		return []sample[mqtt.BrokerStats]{{nil, s.broker.Stats()}}
	}, d.list}
}

// largest returns the n streams with the most bytes.
func largest(all []stream.Info, n int) []stream.Info {
	slices.SortFunc(all, func(a, b stream.Info) int { return cmp.Compare(b.Bounds.Bytes, a.Bounds.Bytes) })
	return all[:min(n, len(all))]
}
