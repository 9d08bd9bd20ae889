package server

import (
	"context"
	"fmt"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/export/forward"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/memory"
	"github.com/leat-io/leat/internal/streammanager"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// openStreamManager opens what the Stream Manager's door stands before: the engine of streams with memory persistence,
// the exports that deliver straight from a stream, and the behaviour of its streams.
func (s *Server) openStreamManager(ctx context.Context) error {
	cfg := s.cfg.StreamManager
	s.memory = memory.Open(memory.Options{Clock: s.clock, MaxBytes: cfg.MemoryBytes})
	s.closeLater(s.memory.Close)
	s.all = stream.Join(s.streams, s.memory)
	limiter := forward.NewLimiter(cfg.Exports.MaxBandwidth)
	s.forward = forward.New(forward.Options{Config: cfg.Exports, Log: s.log.With("part", "forward"), Limiter: limiter, Clock: s.clock})
	err := s.openTargets(limiter)
	if err != nil {
		return err
	}
	if s.manager, err = streammanager.Open(ctx, streammanager.Options{
		Disk: s.streams, Memory: s.memory, Meta: s.rules, Exports: s.forward, Targets: &s.targets, Log: s.log.With("part", "streammanager"),
		ReclaimExported: cfg.ReclaimExported, Linger: cfg.Exports.Linger,
	}); err != nil {
		return fmt.Errorf("open the streams of the Stream Manager: %w", err)
	}
	s.closeLater(s.manager.Close)
	return nil
}

// openTargets opens where exports of the Stream Manager's streams go.
func (s *Server) openTargets(limiter *forward.Limiter) error {
	log, cfg := s.log.With("part", "forward"), s.cfg.StreamManager.Exports
	state, err := s.sub("s3-tasks")
	if err != nil {
		return err
	}
	s.targets.shared = forward.NewTargets(forward.Options{Config: cfg, Log: log, Limiter: limiter, Clock: s.clock})
	s.closeLater(s.targets.shared.Close)
	s.targets.s3 = forward.NewS3Tasks(forward.S3Options{
		Config: cfg, State: state, Limiter: limiter, Clock: s.clock, Log: log,
		WriteStatus: func(ctx context.Context, streamName string, payload []byte) error {
			return s.targets.status(ctx, streamName, payload)
		},
	})
	s.closeLater(s.targets.s3.Close)
	return nil
}

// targets makes the targets of exports from their wire form.
type targets struct {
	shared *forward.Targets
	s3     *forward.S3Tasks
	status streammanager.Status // set with the first target, before any is used
}

// New is part of streammanager.Targets.
func (t *targets) New(
	streamName string, kind wire.ExportKind, e *wire.ExportConfig, status streammanager.Status,
) (forward.Target, error) {
	switch kind {
	case wire.KindKinesis:
		return t.shared.Kinesis(streamName, e.Identifier, e.KinesisStreamName), nil
	case wire.KindHTTP:
		return t.shared.HTTP(e.URI, forward.HTTPFormat(valueOf(e.ExportFormat))), nil
	case wire.KindSiteWise:
		return t.shared.SiteWise(streamName, e.Identifier), nil
	case wire.KindIoTAnalytics:
		return t.shared.IoTAnalytics(streamName, e.Identifier, e.IoTChannel, e.IoTMsgIDPrefix), nil
	case wire.KindS3:
		if t.status == nil {
			t.status = status
		}
		spec := forward.S3Spec{
			Stream: streamName, Identifier: e.Identifier, MultipartAbove: int64(valueOf(e.SizeThresholdForMultipartUploadBytes)),
		}
		if c := e.StatusConfig; c != nil {
			spec.StatusStream, spec.StatusLevel = c.StatusStreamName, forward.StatusLevel(valueOf(c.StatusLevel))
		}
		return t.s3.Target(spec), nil
	}
	return nil, record.Errorf(record.Invalid, "export %s: kind %q is not known", e.Identifier, kind)
}

// valueOf is an optional number of a resolved definition.
func valueOf(n *wire.Int) wire.Int {
	if n == nil {
		return 0
	}
	return *n
}

// exportsOf tells the API how the exports of a stream are doing.
func (s *Server) exportsOf(name record.StreamName) []api.Export {
	var list []api.Export
	for _, e := range s.exports.Status() {
		if e.Name == name {
			list = append(list, api.Export{
				Identifier: "lake", Kind: "lake", Next: e.Next, LagRecords: e.BacklogRecords, LagBytes: e.BacklogBytes,
				LagSeconds: e.Lag.Seconds(), Delivered: e.Stats.Records, Skipped: e.Stats.Rejected, Dropped: e.Stats.DroppedRecords,
				Retries: e.Retries, LastDelivered: e.Uploaded.At,
				NextRetry: e.NextRetry, LastError: e.LastError, Hint: e.Hint,
			})
		}
	}
	for _, e := range s.forward.All() {
		if e.Name == name {
			list = append(list, api.Export{
				Identifier: e.Identifier, Kind: e.Kind, Disabled: e.Disabled, Next: e.Next, LagRecords: e.BacklogRecords,
				LagBytes: e.BacklogBytes, LagSeconds: e.Lag.Seconds(), Delivered: e.Messages, Skipped: e.Skipped, Dropped: e.Dropped,
				Retries: e.InRow, LastDelivered: e.LastDelivered, NextRetry: e.NextRetry, LastError: e.LastError, Hint: e.Hint,
			})
		}
	}
	return list
}

// degradedForward lists the exports that deliver straight from a stream and do not.
func (s *Server) degradedForward() []api.Degraded {
	var list []api.Degraded
	for _, st := range s.forward.All() {
		if !st.Degraded {
			continue
		}
		why := st.LastError
		if st.Hint != "" {
			why += " (" + st.Hint + ")"
		}
		list = append(list, api.Degraded{What: fmt.Sprintf("export %s of %s", st.Identifier, st.Name), Why: why})
	}
	return list
}

// doorMetrics are those of the Stream Manager's door.
func doorMetrics() family {
	d := definer[streammanager.ServerStats]{prefix: "leat_streammanager_"}
	d.gauge("connections", "Open connections.", func(s streammanager.ServerStats) float64 { return float64(s.Open) })
	d.counter("connections_total", "Accepted connections.", func(s streammanager.ServerStats) float64 { return float64(s.Accepted) })
	d.counter("refused_total", "Connections closed before they were clients.", func(s streammanager.ServerStats) float64 { return float64(s.Refused) })
	for _, op := range streammanager.RequestNames() {
		d.counter(op+"_requests_total", "Requests to "+op+".", func(s streammanager.ServerStats) float64 { return float64(s.Requests[op]) })
	}
	d.counter("failures_total", "Answers with a status other than success.", func(s streammanager.ServerStats) float64 {
		var sum uint64
		for _, n := range s.Failures {
			sum += n
		}
		return float64(sum)
	})
	d.counter("dropped_answers_total", "Answers that came too late to be sent.", func(s streammanager.ServerStats) float64 { return float64(s.Dropped) })
	d.counter("messages_total", "Messages acknowledged.", func(s streammanager.ServerStats) float64 { return float64(s.AppendedMessages) })
	d.counter("message_bytes_total", "Their payloads.", func(s streammanager.ServerStats) float64 { return float64(s.AppendedBytes) })
	return metrics[streammanager.ServerStats]{func(s *Server) []sample[streammanager.ServerStats] {
		return []sample[streammanager.ServerStats]{{nil, s.door.Stats()}}
	}, d.list}
}

// forwardMetrics are those of exports that deliver straight from a stream.
func forwardMetrics() family {
	d := definer[forward.Status]{prefix: "leat_forward_", labels: []string{"stream", "export", "kind"}}
	d.counter("messages_total", "Messages delivered since the export was made.", func(s forward.Status) float64 { return float64(s.Messages) })
	d.counter("bytes_total", "Their payloads.", func(s forward.Status) float64 { return float64(s.Bytes) })
	d.counter("skipped_messages_total", "Messages that the destination can never take; the log says why.", func(s forward.Status) float64 { return float64(s.Skipped) })
	d.counter("dropped_messages_total", "Messages that the stream lost before they were delivered.", func(s forward.Status) float64 { return float64(s.Dropped) })
	d.counter("retries_total", "Attempts that failed, since leat started.", func(s forward.Status) float64 { return float64(s.Retries) })
	d.gauge("backlog_messages", "Messages that wait.", func(s forward.Status) float64 { return float64(s.BacklogRecords) })
	d.gauge("backlog_bytes", "Their payloads, estimated.", func(s forward.Status) float64 { return float64(s.BacklogBytes) })
	d.gauge("lag_seconds", "Age of the oldest message that waits.", func(s forward.Status) float64 { return s.Lag.Seconds() })
	d.gauge("failing", "1 while the export shows as degraded; /readyz has the error.", func(s forward.Status) float64 { return bool01(s.Degraded) })
	return metrics[forward.Status]{func(s *Server) []sample[forward.Status] {
		var out []sample[forward.Status]
		for _, st := range s.forward.All() {
			out = append(out, sample[forward.Status]{[]string{string(st.Name), st.Identifier, st.Kind}, st})
		}
		return out
	}, d.list}
}
