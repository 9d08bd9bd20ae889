package streammanager

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-io/leat/internal/streammanager/wire"
)

// ServerStats is what the door has done since it was opened.
type ServerStats struct {
	Open             int               // connections now
	Accepted         uint64            // connections, those refused later included
	Refused          uint64            // connections: by network, number, version, token, or without a handshake in time
	Requests         map[string]uint64 // by operation, see the keys of requestNames
	Failures         map[string]uint64 // answers with a status other than 0, by the protocol's name of the status
	Dropped          uint64            // answers that came too late to be sent
	BytesIn          uint64            // read from clients
	BytesOut         uint64            // written to clients
	AppendedMessages uint64            // acknowledged
	AppendedBytes    uint64            // their payloads
}

// requestNames are the operations as they are counted.
var requestNames = [...]string{"append", "append_batch", "create", "update", "delete", "describe", "list", "read", "unknown"}

// RequestNames are the keys of ServerStats.Requests.
func RequestNames() []string { return slices.Clone(requestNames[:]) }

// requestIndex is an operation's place in requestNames.
func requestIndex(op wire.Operation) int {
	switch op {
	case wire.OpAppend:
		return 0
	case wire.OpAppendBatch:
		return 1
	case wire.OpCreate:
		return 2
	case wire.OpUpdate:
		return 3
	case wire.OpDelete:
		return 4
	case wire.OpDescribe:
		return 5
	case wire.OpList:
		return 6
	case wire.OpRead:
		return 7
	}
	return len(requestNames) - 1
}

// counters are the numbers of ServerStats as they are counted.
type counters struct {
	accepted, refused, dropped atomic.Uint64
	in, out                    atomic.Uint64
	messages, bytes            atomic.Uint64
	requests                   [len(requestNames)]atomic.Uint64
	failures                   [wire.UnknownOperation + 1]atomic.Uint64
}

// failed counts a status.
func (c *counters) failed(s wire.Status) {
	if s > wire.Success && int(s) < len(c.failures) {
		c.failures[s].Add(1)
	}
}

func (c *counters) snapshot() ServerStats {
	s := ServerStats{
		Accepted: c.accepted.Load(), Refused: c.refused.Load(), Dropped: c.dropped.Load(), BytesIn: c.in.Load(), BytesOut: c.out.Load(),
		AppendedMessages: c.messages.Load(), AppendedBytes: c.bytes.Load(), Requests: map[string]uint64{}, Failures: map[string]uint64{},
	}
	for i := range c.requests {
		s.Requests[requestNames[i]] = c.requests[i].Load()
	}
	for i := range c.failures {
		if n := c.failures[i].Load(); n > 0 {
			s.Failures[wire.Status(i).String()] = n
		}
	}
	return s
}

// refusals logs what clients did wrong: one line per kind in refusalInterval, with the number of those that were left out,
// so that a flood of garbage does not fill the log.
type refusals struct {
	log  *slog.Logger
	mu   sync.Mutex // guards seen
	seen map[string]*refusal
}

type refusal struct {
	last    time.Time
	skipped int
}

const refusalInterval = 10 * time.Second

// report logs err; kind is a constant, so that few are kept.
func (r *refusals) report(kind, from string, err error) {
	now := time.Now()
	r.mu.Lock()
	k := r.seen[kind]
	if k == nil {
		k = &refusal{}
		r.seen[kind] = k
	}
	if !k.last.IsZero() && now.Sub(k.last) < refusalInterval {
		k.skipped++
		r.mu.Unlock()
		return
	}
	skipped := k.skipped
	k.skipped, k.last = 0, now
	r.mu.Unlock()
	r.log.Warn("Stream Manager client refused", "reason", kind, "client", from, "error", err, "not_logged", skipped)
}
