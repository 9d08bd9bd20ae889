package forward

import (
	"context"
	"slices"
	"sync"
)

// lowestPriority is the last of Spec.Priority; 1 is the first.
const lowestPriority = 10

// gate bounds how many batches are delivered at a time. Of those that wait the highest priority comes first, then the
// longest waiting. Priority is strict, as users of the protocol know it: a low one waits as long as higher ones keep all
// slots busy.
type gate struct {
	mu      sync.Mutex // guards below
	free    int        // slots; above 0 only when nobody waits
	waiting [lowestPriority + 1][]chan struct{}
}

func newGate(slots int) *gate { return &gate{free: slots} }

// try takes a slot when one is free.
func (g *gate) try() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.free == 0 {
		return false
	}
	g.free--
	return true
}

// enter waits for a slot, or returns the context's error.
func (g *gate) enter(ctx context.Context, priority int) error {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	g.waiting[priority] = append(g.waiting[priority], turn)
	g.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	i := slices.Index(g.waiting[priority], turn)
	if i >= 0 {
		g.waiting[priority] = slices.Delete(g.waiting[priority], i, i+1)
	}
	g.mu.Unlock()
	if i < 0 { // its turn came at the same moment
		g.leave()
	}
	return ctx.Err()
}

// leave gives the slot to the next in turn.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p, list := range g.waiting {
		if len(list) > 0 {
			close(list[0])
			g.waiting[p] = slices.Delete(list, 0, 1)
			return
		}
	}
	g.free++
}
