package forward

import (
	"context"

	"golang.org/x/time/rate"

	"github.com/leat-io/leat/internal/record"
)

// minBurst is the least that goes out at once, in bytes: below it a slow limit would cut requests into crumbs.
const minBurst = 16 << 10

// maxRate is the fastest limit there is, in bytes per second: nothing above it needs one.
const maxRate = 1 << 40

// Limiter keeps what exports send within the node's bandwidth. A nil Limiter does not limit.
type Limiter struct {
	rate  *rate.Limiter
	burst int
}

// NewLimiter makes a limiter of an average of kbps kilobits (of 1,000 bits) per second; at most a second's worth, or
// 16 KiB when that is more, goes out at once. 0 or less gives nil: no limit.
func NewLimiter(kbps int64) *Limiter {
	if kbps <= 0 {
		return nil
	}
	perSecond := min(float64(kbps)*1000/8, maxRate)
	burst := int(min(max(perSecond, minBurst), 1<<30))
	return &Limiter{rate: rate.NewLimiter(rate.Limit(perSecond), burst), burst: burst}
}

// Wait returns when n more bytes may be sent, or with an Unavailable error that wraps the context's. Waiters take turns
// by the burst, in the order in which they came, so that a large request does not keep small ones out. Call it before the
// timeout of the request itself begins.
func (l *Limiter) Wait(ctx context.Context, n int) error {
	for l != nil && n > 0 {
		part := min(n, l.burst)
		if err := l.rate.WaitN(ctx, part); err != nil {
			if ctx.Err() != nil {
				return record.Errorf(record.Unavailable, "wait for bandwidth: %w", ctx.Err())
			}
			return record.Errorf(record.Unavailable, "wait for bandwidth: %w", err).
				WithHint("raise exports.max_bandwidth or exports.timeout")
		}
		n -= part
	}
	return ctx.Err()
}
