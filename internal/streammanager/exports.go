package streammanager

import (
	"context"
	"errors"
	"time"

	"github.com/leat-io/leat/internal/export/forward"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// specs are the exports of a resolved definition, without the stream. The error is Invalid: what a target cannot be made
// of.
func (m *Manager) specs(d *wire.MessageStreamDefinition) ([]forward.Spec, error) {
	var specs []forward.Spec
	for kind, e := range d.ExportDefinition.All() {
		t, err := m.opt.Targets.New(d.Name, kind, e, m.AppendStatus)
		if err != nil {
			return nil, record.Errorf(record.KindOf(err), "stream %q: %s export %q: %w", d.Name, kind, e.Identifier, err)
		}
		spec := m.spec(kind, e)
		spec.Target = t
		specs = append(specs, spec)
	}
	return specs, nil
}

// spec is how one export runs. batchSize alone waits until that many are queued; with batchIntervalMillis, no longer than
// that; batchIntervalMillis alone waits that long for a batch of the kind's default size; neither waits for Linger.
func (m *Manager) spec(kind wire.ExportKind, e *wire.ExportConfig) forward.Spec {
	spec := forward.Spec{
		Identifier: e.Identifier,
		Kind:       string(kind),
		BatchSize:  max(int(e.BatchSize.Or(int64(kind.MaxBatchSize()))), 1),
		WaitFull:   e.BatchSize != nil,
		Interval:   m.opt.Linger,
		Priority:   int(e.Priority.Or(wire.LowestPriority)),
		Start:      record.Offset(e.StartSequenceNumber.Or(0)),
		Disabled:   e.Disabled != nil && *e.Disabled,
	}
	switch {
	case kind == wire.KindS3:
		spec.Interval = 0 // one task at a time, at once
	case e.BatchIntervalMillis != nil:
		spec.Interval = time.Duration(min(e.BatchIntervalMillis.Or(0), wire.MaxMillis)) * time.Millisecond
	case spec.WaitFull:
		spec.Interval = 0
	}
	return spec
}

// setExports starts the exports of s, or gives them their new settings. It tries all, whatever fails.
func (m *Manager) setExports(ctx context.Context, s *managed, specs []forward.Spec) error {
	var errs []error
	for _, spec := range specs {
		spec.Log, spec.ID, spec.Name, spec.Stream = s.engine, s.id, EngineName(s.name), s.name
		m.opt.step("exports: set " + spec.Identifier)
		if err := m.opt.Exports.Set(ctx, spec); err != nil {
			errs = append(errs, record.Errorf(record.KindOf(err), "start export %q: %w", spec.Identifier, err))
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) removeExports(ctx context.Context, s *managed, identifiers []string, why string) error {
	for _, identifier := range identifiers {
		m.opt.step("exports: remove " + identifier)
		if err := m.opt.Exports.Remove(ctx, s.id, identifier, why); err != nil {
			return record.Errorf(record.KindOf(err), "end export %q: %w", identifier, err)
		}
	}
	return nil
}

// exportStatuses has one entry for each export of the definition, in its order. One that does not run has nothing but its
// identifier and -1.
func exportStatuses(d *wire.MessageStreamDefinition, statuses []forward.Status) []wire.ExportStatus {
	byIdentifier := make(map[string]*forward.Status, len(statuses))
	for i := range statuses {
		byIdentifier[statuses[i].Identifier] = &statuses[i]
	}
	var list []wire.ExportStatus
	for _, e := range d.ExportDefinition.All() {
		status := wire.ExportStatus{ExportConfigIdentifier: e.Identifier, LastExportedSequenceNumber: -1}
		if f := byIdentifier[e.Identifier]; f != nil {
			status.LastExportedSequenceNumber = int64(f.Next) - 1
			status.ExportedMessagesCount = int64(f.Messages)
			status.ExportedBytesFromStream = int64(f.Bytes)
			if !f.LastAttempt.IsZero() {
				status.LastExportTime = f.LastAttempt.UnixMilli()
			}
			if status.ErrorMessage = f.LastError; f.LastError != "" && f.Hint != "" {
				status.ErrorMessage += " (" + f.Hint + ")"
			}
		}
		list = append(list, status)
	}
	return list
}
