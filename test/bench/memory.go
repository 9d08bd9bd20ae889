package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/leat-io/leat/internal/sim"
)

// The demo's load, and what the memory should stay below, in MB.
const (
	steadyRate = 3_125
	steadyAim  = 60
	idleFor    = 30 * time.Second
)

// measureMemory watches the resident memory of a node with default settings: idle, then at the demo's rate.
func measureMemory(ctx context.Context, o options, p *page) error {
	pr, err := newProcess(o.bin, "")
	if err != nil {
		return err
	}
	defer func() { _ = pr.close() }() // nothing is left to measure
	if err := pr.start(ctx); err != nil {
		return err
	}
	idle, err := pr.watch(ctx, idleFor)
	if err != nil {
		return err
	}
	before, err := pr.usage()
	if err != nil {
		return err
	}
	pub := sim.NewPublisher(sim.PublishConfig{
		Addr: pr.mqtt, Seed: 1, Count: int64(o.steady.Seconds() * steadyRate),
	}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	loaded := make(chan error, 1)
	go func() { loaded <- pub.Run(ctx) }()
	steady, err := pr.watch(ctx, o.steady)
	if err != nil {
		return err
	}
	if err := <-loaded; err != nil {
		return err
	}
	after, err := pr.usage()
	if err != nil {
		return err
	}
	if err := pr.client.Flush(ctx); err != nil {
		return err
	}
	files, rows, size, err := pr.files(ctx)
	if err != nil {
		return err
	}
	share := (after.cpu - before.cpu).Seconds() / o.steady.Seconds() * 100
	p.printf("\n## Memory\n\nResident memory of `leat serve` with default settings, in MB: idle for %s, then the demo's load for %s: 125\n"+
		"signals at 25 Hz over 5 connections, %s messages/s, a file per minute. At that rate leat takes %.1f %% of one processor, most\n"+
		"of it in the kernel, for an fdatasync each time that messages arrive; what it stored is %s rows in %d files, %.2f bytes each.\n\n",
		idleFor, o.steady, grouped(steadyRate), share, grouped(int(rows)), files, float64(size)/float64(max(rows, 1)))
	p.printf("| | median | highest | aim | |\n|---|---|---|---|---|\n")
	p.printf("| idle | %.0f | %.0f | – | |\n", median(idle), highest(idle))
	p.printf("| %s messages/s | %.0f | %.0f | ≤ %d | %s |\n", grouped(steadyRate), median(steady), highest(steady), steadyAim,
		p.aim(highest(steady) <= steadyAim, "Memory at %s messages/s peaks at %.0f MB (median %.0f); the aim was %d.", grouped(steadyRate), highest(steady), median(steady), steadyAim))
	return nil
}

// watch takes the resident memory, in MB, four times a second.
func (p *process) watch(ctx context.Context, d time.Duration) (values []float64, err error) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
		u, err := p.usage()
		if err != nil {
			return nil, err
		}
		values = append(values, float64(u.rss)/1e6)
	}
	return values, nil
}

func highest(values []float64) float64 {
	top := 0.0
	for _, v := range values {
		top = max(top, v)
	}
	return top
}
