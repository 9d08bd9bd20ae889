package forward

import (
	"math/rand/v2"
	"time"
)

// backoff gives the pauses after failures in a row: each is drawn from the upper half of an interval that doubles from
// low to high, so that many nodes that lost one destination do not come back in step. (The same rule as in package
// export, which this one must not import; ten lines are less than a package for both.)
type backoff struct {
	low, high time.Duration
	interval  time.Duration
}

func (b *backoff) next() time.Duration {
	b.interval = min(max(2*b.interval, b.low), b.high)
	half := b.interval / 2
	return half + rand.N(b.interval-half+1)
}

func (b *backoff) reset() { b.interval = 0 }
