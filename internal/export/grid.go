package export

import "time"

// The cut decision is a pure function of what the cutter saw, so that every rule of it can be tested without a clock.

// maxPending is the most steps that a cursor holds; with as many waiting, cutting stops and the log keeps what comes.
const maxPending = 400

// gridFloor is the last instant of the period grid at or before wall (both nanoseconds since 1970 UTC): periods that
// divide a day begin at midnight UTC.
func gridFloor(wall int64, period time.Duration) int64 {
	p := int64(period)
	return wall - ((wall%p)+p)%p
}

// untilGrid is how long it is from wall to the next instant of the grid.
func untilGrid(wall int64, period time.Duration) time.Duration {
	return time.Duration(gridFloor(wall, period) + int64(period) - wall)
}

// view is what the cutter sees when it decides.
type view struct {
	wall, mono int64 // clock reading
	trusted    bool
	waited     time.Duration // for a trusted clock, since the runner started
	lastCut    int64         // wall time of the last cut (or of the start), on whatever clock there was
	lastMono   int64         // monotonic time of it
	records    uint64        // backlog: readable and not planned
	bytes      int64         // of the backlog, estimated
	pending    int           // steps not yet committed
	spool      int64         // bytes in the node's spool
	flush      bool          // a cut was asked for
}

// decision is whether to cut now, and the instant the cut is named after.
type decision struct {
	cut     bool
	at      int64
	trusted bool
}

// decide applies the rules for a cut, in order.
func decide(v view, cfg Config, period time.Duration) decision {
	no := decision{}
	switch {
	case v.records == 0: // an empty period writes no file
		return no
	case v.pending >= maxPending:
		return no
	case cfg.MaxSpoolBytes > 0 && v.spool > cfg.MaxSpoolBytes:
		return no
	case !v.trusted && v.waited < cfg.ClockWait:
		return no
	case v.flush, v.bytes >= cfg.MaxStepBytes:
		return decision{cut: true, at: v.wall, trusted: v.trusted}
	case !due(v, period):
		return no
	case v.pending > 0 && v.bytes < target(cfg, v.pending):
		return no
	}
	return decision{cut: true, at: gridFloor(v.wall, period), trusted: v.trusted}
}

// due reports whether an instant of the grid has passed since the last cut. A wall clock that was set back does not
// stop the grid: then a period of monotonic time counts.
func due(v view, period time.Duration) bool {
	if v.wall >= v.lastCut {
		return gridFloor(v.wall, period) > gridFloor(v.lastCut, period)
	}
	return v.mono-v.lastMono >= int64(period)
}

// target is the backlog that is worth a step while pending others wait: it grows with their number, so that the
// longest outage fits into maxPending steps.
func target(cfg Config, pending int) int64 {
	return min(cfg.TargetBytes*int64(1+pending/32), cfg.MaxStepBytes)
}
