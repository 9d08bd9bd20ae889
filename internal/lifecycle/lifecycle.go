// Package lifecycle starts a program's parts in order and stops them in reverse: doors close before the stream that
// they append to. Parts with an order cannot be left to an errgroup, which stops everything at once.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Part is something that runs. Run blocks until ctx ends or it fails; ready must be called once it serves (a part that
// returns without calling it counts as failed to start).
type Part struct {
	Name string
	Run  func(ctx context.Context, ready func()) error
}

// Run starts the parts one after the other, waiting for each to be ready, calls started, and waits until ctx ends or a
// part returns. Then it stops them in reverse order, each waited for before the next, and returns what the parts
// returned. A part that ends because it was stopped may return nil or the context's error; neither is reported.
func Run(ctx context.Context, parts []Part, started func()) error {
	var (
		running []*handle
		errs    []error
		ended   = make(chan struct{})
		once    sync.Once
	)
	for _, p := range parts {
		h := start(ctx, p, func() { once.Do(func() { close(ended) }) })
		running = append(running, h)
		select {
		case <-h.ready:
		case <-h.done:
		}
		if h.isDone() || ctx.Err() != nil {
			break
		}
	}
	if len(running) == len(parts) && !anyDone(running) {
		started()
		select {
		case <-ctx.Done():
		case <-ended:
		}
	}
	for i := len(running) - 1; i >= 0; i-- {
		if err := running[i].stop(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

type handle struct {
	name   string
	cancel context.CancelFunc
	ready  chan struct{}
	done   chan struct{}
	err    error // set before done is closed
	asked  bool  // whether stop came before the end
}

func start(ctx context.Context, p Part, ended func()) *handle {
	// Parts end when it is their turn, not when ctx does: stop order is the point of this package.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h := &handle{name: p.Name, cancel: cancel, ready: make(chan struct{}), done: make(chan struct{})}
	var once sync.Once
	go func() {
		defer ended()
		defer close(h.done)
		h.err = p.Run(ctx, func() { once.Do(func() { close(h.ready) }) })
	}()
	return h
}

func (h *handle) isDone() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

func (h *handle) stop() error {
	h.asked = !h.isDone()
	h.cancel()
	<-h.done
	switch {
	case h.asked && (h.err == nil || errors.Is(h.err, context.Canceled)):
		return nil
	case h.err == nil:
		return fmt.Errorf("%s: ended by itself", h.name)
	default:
		return fmt.Errorf("%s: %w", h.name, h.err)
	}
}

func anyDone(hs []*handle) bool {
	for _, h := range hs {
		if h.isDone() {
			return true
		}
	}
	return false
}
