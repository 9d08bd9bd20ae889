package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/sim"
)

// The peer on such a machine: 2,000,000 messages of this size, 125 topics, QoS 1, Mosquitto in front.
const (
	peerRate = 73_700
	peerCPU  = 13.4
	peerPeak = 206
	peerSize = 25.0
	peerLine = "| Telegraf 1.37.2 behind Mosquitto, for comparison: acknowledged from memory | 73,700 | – | 13.4 (without Mosquitto) | 206 | 25 |\n"
)

// variant is one configuration of the throughput table.
type variant struct {
	name, yaml string
}

func variants() []variant {
	rule := func(durability, layout string) string {
		return fmt.Sprintf("ingest:\n  rules: [{name: load, topics: ['#'], table: samples, durability: %s, layout: %s}]\n", durability, layout)
	}
	return []variant{
		{"`disk`, portable layout (the default): 3 rows per message", rule("disk", "portable")},
		{"`os`, portable layout", rule("os", "portable")},
		{"`disk`, columns layout: 1 row per message", rule("disk", "columns")},
	}
}

// figures are those of several runs of one variant.
type figures struct {
	acked, stored, cpu, peak, size, rows []float64
}

// measureThroughput sends the load as fast as it is acknowledged.
func measureThroughput(ctx context.Context, o options, p *page) error {
	p.printf("## End to end\n\n%s JSON messages of about 60 bytes (a number, a time, a value that nothing predicts, a boolean), 125 topics,\n"+
		"QoS 1, 5 connections with 1,000 messages in flight each, into leat's own broker, through its log, into sorted Parquet in a\n"+
		"directory. \"To the PUBACK\" counts until the last acknowledgement, \"to Parquet\" until the last file is in place. Processor\n"+
		"time and memory are those of the leat process until then.\n\n", grouped(o.messages))
	p.printf("| | messages/s to the PUBACK | to Parquet | CPU-s per million | peak RSS, MB | bytes per message |\n|---|---|---|---|---|---|\n")
	for i, v := range variants() {
		var f figures
		for range o.repeat {
			if err := f.run(ctx, o, v); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
		p.printf("| %s | %s | %s | %s | %s | %s |\n", v.name, spread("%.0f", f.acked), spread("%.0f", f.stored), spread("%.1f", f.cpu),
			spread("%.0f", f.peak), spread("%.1f", f.size))
		if i == 0 {
			f.judge(p)
		}
	}
	p.printf(peerLine)
	return nil
}

// judge holds the default against the peer and the size against the floor.
func (f *figures) judge(p *page) {
	p.aim(median(f.stored) > peerRate, "Throughput to Parquet is %s messages/s; Telegraf does %s.", grouped(int(median(f.stored))), grouped(peerRate))
	p.aim(median(f.cpu) < peerCPU, "%.1f CPU-s per million messages; Telegraf needs %.1f (Mosquitto's not counted).", median(f.cpu), peerCPU)
	p.aim(median(f.peak) < peerPeak, "%.0f MB at the peak; Telegraf needs %d.", median(f.peak), peerPeak)
	p.aim(median(f.size) <= 8, "%.1f bytes per message on disk; the aim was 8 (Telegraf: %.0f). The random value alone has 2.5 bytes of entropy; the "+
		"portable layout repeats the time for each of a message's three rows.", median(f.size), peerSize)
}

func (f *figures) run(ctx context.Context, o options, v variant) error {
	pr, err := newProcess(o.bin, v.yaml)
	if err != nil {
		return err
	}
	defer func() { _ = pr.close() }() // nothing is left to measure
	if err := pr.start(ctx); err != nil {
		return err
	}
	began := time.Now()
	res, err := sim.Load(ctx, sim.LoadConfig{Addr: pr.mqtt, Messages: o.messages})
	if err != nil {
		return err
	}
	if err := pr.client.Flush(ctx); err != nil {
		return err
	}
	total := time.Since(began)
	u, err := pr.usage()
	if err != nil {
		return err
	}
	_, rows, size, err := pr.files(ctx)
	if err != nil {
		return err
	}
	n := float64(o.messages)
	f.acked = append(f.acked, res.Rate())
	f.stored = append(f.stored, n/total.Seconds())
	f.cpu = append(f.cpu, u.cpu.Seconds()/n*1e6)
	f.peak = append(f.peak, float64(u.peak)/1e6)
	f.size = append(f.size, float64(size)/n)
	f.rows = append(f.rows, float64(rows))
	fmt.Fprintf(os.Stderr, "%s: %.0f/s acknowledged, %.0f/s stored, %.1f CPU-s/M, %d MB, %.1f B\n", v.name, res.Rate(), n/total.Seconds(),
		u.cpu.Seconds()/n*1e6, u.peak/1e6, float64(size)/n)
	return nil
}

// measureKill kills leat when half is acknowledged, and compares what was acknowledged with what SQL finds.
func measureKill(ctx context.Context, o options, p *page) error {
	p.printf("\n## kill -9 at half\n\nThe same load; the process is killed when half of it is acknowledged, and started again at once. The clients do not send\n" +
		"again what was in flight, so that every message was sent exactly once.\n\n" +
		"| durability | acknowledged | of these missing | in flight at the kill | in the lake twice | back after |\n|---|---|---|---|---|---|\n")
	for _, durability := range []string{"disk", "os"} {
		r, err := killOnce(ctx, o, durability)
		if err != nil {
			return err
		}
		p.printf("| `%s` | %s | %d | %s | %d | %d ms |\n", durability, grouped(int(r.acked)), r.missing, grouped(int(r.unknown)), r.twice,
			r.back.Milliseconds())
		p.aim(r.missing == 0 && r.twice == 0, "After kill -9 at `%s` %d acknowledged messages are missing and %d are there twice.",
			durability, r.missing, r.twice)
	}
	return nil
}

type killed struct {
	acked, unknown int64
	missing, twice int
	back           time.Duration
}

func killOnce(ctx context.Context, o options, durability string) (r killed, err error) {
	pr, err := newProcess(o.bin, fmt.Sprintf("ingest:\n  rules: [{name: load, topics: ['#'], durability: %s, period: 2s}]\n", durability))
	if err != nil {
		return r, err
	}
	defer func() { _ = pr.close() }() // nothing is left to measure
	if err := pr.start(ctx); err != nil {
		return r, err
	}
	acked := sim.NewSet(o.messages)
	var res sim.LoadResult
	loaded := make(chan error, 1)
	go func() {
		var err error
		res, err = sim.Load(ctx, sim.LoadConfig{Addr: pr.mqtt, Messages: o.messages, Acked: acked, Reconnect: time.Minute})
		loaded <- err
	}()
	for acked.Len() < int64(o.messages/2) && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	pr.kill()
	began := time.Now()
	startErr := pr.start(ctx)
	r.back = time.Since(began)
	if err := <-loaded; err != nil || startErr != nil {
		return r, fmt.Errorf("load: %w, restart: %w", err, startErr)
	}
	if err := pr.client.Flush(ctx); err != nil {
		return r, err
	}
	times, err := pr.count(ctx, o.messages)
	for n, t := range times {
		if t == 0 && acked.Has(n) {
			r.missing++
		}
		if t > 1 {
			r.twice++
		}
	}
	r.acked, r.unknown = acked.Len(), res.Unknown
	return r, err
}

// count asks for all message numbers in the lake and returns how often each is there.
func (p *process) count(ctx context.Context, messages int) ([]uint8, error) {
	times := make([]uint8, messages)
	r, w := io.Pipe()
	asked := make(chan error, 1)
	go func() {
		err := p.client.Query(ctx, api.QueryRequest{
			SQL: "SELECT CAST(value AS BIGINT) FROM samples WHERE signal = 'n'", Format: "csv", NoTail: true,
		}, w, func(api.QueryProgress) {})
		w.CloseWithError(err)
		asked <- err
	}()
	sc := bufio.NewScanner(r)
	sc.Scan() // the header
	for sc.Scan() {
		n, err := strconv.Atoi(strings.TrimSpace(sc.Text()))
		if err != nil || n < 0 || n >= messages {
			err = fmt.Errorf("message %q was never sent", sc.Text())
			r.CloseWithError(err)
			<-asked
			return nil, err
		}
		times[n]++
	}
	return times, <-asked
}
