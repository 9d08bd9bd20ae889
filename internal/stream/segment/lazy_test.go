package segment_test

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/vfs"
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

// Sync does not wait for the interval, and callers share one fdatasync.
func TestSyncDoesNotWaitForTheInterval(t *testing.T) {
	l := newLab(t)
	l.opts.SyncInterval = time.Hour
	l.open()
	id := l.ensure("test/lazy", stream.Policy{Durability: stream.OS})
	l.append(id, payload(0))
	if b := l.bounds(id); b.Readable != 0 || b.Next != 1 {
		t.Fatalf("bounds before the sync %+v", b)
	}
	before := l.stats().Syncs
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			if err := l.log.Sync(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if b := l.bounds(id); b.Readable != 1 {
		t.Errorf("bounds after the sync %+v", b)
	}
	if n := l.stats().Syncs - before; n != 1 {
		t.Errorf("%d fdatasync calls for 50 callers, want 1", n)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	l.append(id, payload(1))
	if err := l.log.Sync(cancelled, id); err != nil {
		wantKind(t, "sync by a caller that does not wait", err, record.Unavailable)
	}
}

// A full disk takes no steps, but what is acknowledged is written already and can be read.
func TestSyncOnAFullDisk(t *testing.T) {
	var full atomic.Bool
	l := newLab(t)
	l.opts.SyncInterval = time.Hour
	l.hook = func(op vfs.Op) error {
		if full.Load() && op.Kind == vfs.OpWrite {
			return syscall.ENOSPC
		}
		return nil
	}
	l.open()
	id := l.ensure("test/lazy", stream.Policy{Durability: stream.OS, OnFull: stream.DropOldest, MaxBytes: 20})
	l.append(id, payload(0))
	if err := l.log.Sync(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	acked := make(chan error, 1)
	// The second record pushes the first out, and the disk is full before that can be logged: done runs on the committer.
	l.log.Append(t.Context(), id, []record.Record{payload(1)}, func(_ record.Offset, err error) {
		full.Store(true)
		acked <- err
	})
	if err := <-acked; err != nil {
		t.Fatal(err)
	}
	if err := l.log.Sync(t.Context(), id); err != nil {
		t.Errorf("sync on a full disk: %v", err)
	}
	if b := l.bounds(id); b.First != 1 || b.Readable != 2 {
		t.Errorf("bounds %+v", b)
	}
	full.Store(false)
}
