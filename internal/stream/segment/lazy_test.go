package segment_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Streams of level os are synced within the interval however steadily records arrive: arrivals must not put it off.
func TestLazySyncIsNotPutOffBySteadyLoad(t *testing.T) {
	for name, pause := range map[string]time.Duration{"more often than the interval": time.Millisecond, "without a pause": 0} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.opts.SyncInterval = 50 * time.Millisecond
			l.open()
			id := l.ensure("test/lazy", stream.Policy{Durability: stream.OS})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var load sync.WaitGroup
			defer load.Wait()
			defer cancel()
			for range 4 {
				load.Go(func() {
					for ctx.Err() == nil {
						_, _ = stream.AppendWait(ctx, l.log, id, record.Record{Payload: []byte("x")}) // ends with ctx
						time.Sleep(pause)
					}
				})
			}
			var c stream.Chunk
			for range 3 { // a reader sees nothing but what is synced
				if err := l.log.Read(ctx, id, c.Next, 1<<20, &c); err != nil {
					t.Fatalf("after 20 s of steady load nothing is readable from %d: %v", c.Next, err)
				}
			}
		})
	}
}
