package mqtt

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// demote passes a library's log on at debug level, without whole packets (payloads do not belong into a log): what an
// operator acts on is logged by this package.
type demote struct{ slog.Handler }

// Enabled lets errors through, and the rest when debugging.
func (d demote) Enabled(ctx context.Context, level slog.Level) bool {
	if level < slog.LevelError {
		level = slog.LevelDebug
	}
	return d.Handler.Enabled(ctx, level)
}

// Handle rewrites one record.
func (d demote) Handle(ctx context.Context, r slog.Record) error {
	level := r.Level
	if level < slog.LevelError {
		level = slog.LevelDebug
	}
	out := slog.NewRecord(r.Time, level, "mqtt broker: "+r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "pk", "packet", "will":
		default:
			out.AddAttrs(a)
		}
		return true
	})
	return d.Handler.Handle(ctx, out)
}

// WithAttrs keeps the rewriting.
func (d demote) WithAttrs(a []slog.Attr) slog.Handler { return demote{d.Handler.WithAttrs(a)} }

// WithGroup keeps the rewriting.
func (d demote) WithGroup(name string) slog.Handler { return demote{d.Handler.WithGroup(name)} }

// sampler lets one line per kind and interval through, so that a flood of garbage does not fill the log.
type sampler struct {
	interval time.Duration

	mu   sync.Mutex
	seen map[string]*sampled // guarded by mu; kinds are constants of this package, so it stays small
}

type sampled struct {
	last    time.Time
	skipped int
}

func newSampler(interval time.Duration) *sampler {
	return &sampler{interval: interval, seen: map[string]*sampled{}}
}

// allow reports whether to log now, and how many were skipped since the last line.
func (s *sampler) allow(kind string, now time.Time) (skipped int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.seen[kind]
	if k == nil {
		k = &sampled{}
		s.seen[kind] = k
	}
	if !k.last.IsZero() && now.Sub(k.last) < s.interval {
		k.skipped++
		return 0, false
	}
	skipped, k.skipped, k.last = k.skipped, 0, now
	return skipped, true
}
