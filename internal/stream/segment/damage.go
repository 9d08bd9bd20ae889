package segment

import (
	"errors"
	"fmt"
	"os"

	"github.com/leat-io/leat/internal/record"
)

// damage is a range of a segment that was once durable and does not read.
type damage struct {
	segment     segmentState
	from, to    int64             // positions in the segment file
	stream      record.StreamName // when known
	first, next record.Offset     // when stream is known
}

type damageKey struct {
	segment  uint64
	from, to int64
	first    record.Offset
}

const (
	maxReported        = 4096    // damages remembered so as to report each once
	maxQuarantined     = 64      // files in the quarantine directory
	maxQuarantineBytes = 1 << 20 // of each
	quarantineDir      = "quarantine"
)

// report counts, logs and quarantines a damage the first time it is met.
func (l *lane) report(d damage) {
	key := damageKey{d.segment.number, d.from, d.to, d.first}
	l.damageMu.Lock()
	defer l.damageMu.Unlock()
	if _, again := l.reported[key]; again || len(l.reported) >= maxReported {
		return
	}
	l.reported[key] = struct{}{}
	l.stats.damagedRanges.Add(1)
	l.stats.damagedBytes.Add(max(0, d.to-d.from))
	copied := "no: nothing to copy"
	if d.to > d.from {
		copied = l.quarantine(&d)
	}
	l.logger.Error("damage in the log: bytes that were durable do not read",
		"segment", d.segment.number, "from", d.from, "to", d.to,
		"stream", string(d.stream), "first_offset", uint64(d.first), "next_offset", uint64(d.next), "quarantined", copied)
}

// quarantine copies the damaged bytes aside and says where.
func (l *lane) quarantine(d *damage) string {
	if l.quarantined >= maxQuarantined {
		return fmt.Sprintf("no: %d copies are there already", maxQuarantined)
	}
	name := fmt.Sprintf("%s/%016x-%d.bin", quarantineDir, d.segment.number, d.from)
	if _, err := l.dir.Stat(name); err == nil { // by an earlier start
		return l.dir.Path() + "/" + name
	}
	b := make([]byte, min(d.to-d.from, maxQuarantineBytes))
	err := func() error {
		in, err := l.dir.Open(fileName(d.segment.number, d.segment.salt, segmentExt))
		if err != nil {
			return err
		}
		if err := errors.Join(readOrZero(in, b, d.from), in.Close(), l.dir.MkdirAll(quarantineDir)); err != nil {
			return err
		}
		out, err := l.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		if err != nil {
			return err
		}
		_, err = out.WriteAt(b, 0)
		return errors.Join(err, out.Close())
	}()
	if err != nil {
		return "no: " + err.Error()
	}
	l.quarantined++
	return l.dir.Path() + "/" + name
}

// declareMissing handles a segment whose file is gone although control state needs it: what it held is damaged.
func (l *lane) declareMissing(number uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	seg := l.segments[number]
	if seg == nil {
		return nil
	}
	if number == l.active.number {
		return record.Errorf(record.Unavailable, "the active segment %d has disappeared", number)
	}
	l.report(damage{segment: *seg, from: 0, to: 0})
	o := op{kind: opDropSegment, segment: number}
	l.apply(&o)
	l.lazy = append(l.lazy, o)
	l.indexes.forget(number)
	return nil
}
