package export

import (
	"context"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// restamper corrects the times of records that were appended before their box knew the time: the monotonic clock of
// the append, and what ties that boot's monotonic clock to wall time. That anchor is known for the boots remembered in
// the cursor; for others the log itself may tell, through a later append of the same boot with a trusted clock.
type restamper struct {
	offsets map[uint64]int64 // boot → wall − mono
	never   map[uint64]bool  // boots that ended before their clock was set
	find    func(boot uint64, after record.Offset) (offset int64, ok bool, err error)
	notes   *Notes
	err     error // the first failure of find: the batch must not be finished
}

func newRestamper(anchors []clock.Anchor, notes *Notes,
	find func(boot uint64, after record.Offset) (int64, bool, error)) *restamper {
	r := &restamper{offsets: make(map[uint64]int64), never: make(map[uint64]bool), find: find, notes: notes}
	for _, a := range anchors {
		r.offsets[a.Boot] = a.Offset
	}
	return r
}

// time is a Restamp.
func (r *restamper) time(o stream.Origin, t int64) int64 {
	if o.Trusted {
		return t
	}
	offset, ok := r.offset(o)
	if !ok {
		r.notes.Unknown++
		return t
	}
	r.notes.Restamped++
	return t + (offset + o.Mono - o.Wall)
}

func (r *restamper) offset(o stream.Origin) (int64, bool) {
	if offset, ok := r.offsets[o.Boot]; ok {
		return offset, true
	}
	if r.never[o.Boot] || r.err != nil {
		return 0, false
	}
	offset, ok, err := r.find(o.Boot, o.First)
	switch {
	case err != nil:
		r.err = err
	case ok:
		r.offsets[o.Boot] = offset
	default:
		r.never[o.Boot] = true
	}
	return offset, ok
}

// findAnchor reads on from after until an append of the boot with a trusted clock, as far as the log is readable now.
func findAnchor(ctx context.Context, log Log, id record.StreamID, boot uint64, after record.Offset) (int64, bool, error) {
	bounds, err := log.Bounds(id)
	if err != nil {
		return 0, false, err
	}
	var c stream.Chunk
	for at := after; at < bounds.Readable; {
		if err := log.Read(ctx, id, at, readBytes, &c); err != nil {
			return 0, false, err
		}
		for _, o := range c.Origins {
			if o.Boot == boot && o.Trusted {
				return o.Wall - o.Mono, true, nil
			}
		}
		if c.Next <= at {
			break
		}
		at = c.Next
	}
	return 0, false, nil
}
