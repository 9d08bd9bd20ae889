package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/leat-io/leat/internal/streammanager/client"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// The Stream Manager's appends, beside a bare TCP echo whose frames have the same sizes: what the protocol, the log and
// the acknowledgement cost on top of the network. Server and echo are processes of their own; the clients are in this one
// (the Python client, again, in its own).
const (
	smPayload  = 100             // bytes of a message
	smClients  = 64              // of the run with many
	smDuration = 3 * time.Second // of one measurement
	smRequest  = 172             // bytes of an append's frame: header, request id, name, payload
	smResponse = 73              // bytes of its answer's
)

// smRun is one measurement: so many synchronous clients, appends per second of all of them together.
type smRun struct {
	what    string
	clients int
	flush   bool
	rates   []float64
}

func measureStreamManager(ctx context.Context, o options, p *page) (err error) {
	leat, err := newProcess(o.bin, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leat.close()) }()
	if err := leat.start(ctx); err != nil {
		return err
	}
	addr, err := leat.streamManager(ctx)
	if err != nil {
		return err
	}
	echo, stop, err := startEcho()
	if err != nil {
		return err
	}
	defer stop()

	one := &smRun{what: "1 Go client", clients: 1}
	runs := []*smRun{
		one, {what: "1 Go client", clients: 1, flush: true},
		{what: fmt.Sprintf("%d Go clients", smClients), clients: smClients},
		{what: fmt.Sprintf("%d Go clients", smClients), clients: smClients, flush: true},
	}
	python := []*smRun{{what: "1 Python client", clients: 1}, {what: "1 Python client", clients: 1, flush: true}}
	var echoOne, echoMany []float64
	for range o.repeat { // in turns, so that a change of the machine's mood meets all of them
		for _, e := range []struct {
			clients int
			rates   *[]float64
		}{{1, &echoOne}, {smClients, &echoMany}} {
			rate, err := echoRate(ctx, echo, e.clients)
			if err != nil {
				return err
			}
			*e.rates = append(*e.rates, rate)
		}
		for _, r := range runs {
			if err := r.measure(ctx, addr); err != nil {
				return err
			}
		}
		for _, r := range python {
			if err := r.measurePython(ctx, addr); err != nil {
				return err
			}
		}
	}
	writeStreamManager(p, append(runs, python...), echoOne, echoMany)
	return nil
}

func writeStreamManager(p *page, runs []*smRun, echoOne, echoMany []float64) {
	p.printf("## Stream Manager\n\n"+
		"Appends per second of messages of %d bytes, each client with one request under way, into leat's Stream Manager door, in\n"+
		"turns with a bare TCP echo of the same frame sizes in one run; medians and ranges. The clients share the machine's two\n"+
		"processors with the server. flushOnWrite false acknowledges when the operating system has the message, true after the\n"+
		"fdatasync that all waiting clients share.\n\n", smPayload)
	p.printf("| | flushOnWrite | appends/s | ÷ echo | aim | |\n|---|---|---|---|---|---|\n")
	p.printf("| echo, 1 client | | %s | | | |\n| echo, %d clients | | %s | | | |\n", spread("%.0f", echoOne), smClients, spread("%.0f", echoMany))
	for _, r := range runs {
		base := echoOne
		if r.clients > 1 {
			base = echoMany
		}
		ratios := make([]float64, len(r.rates))
		for i := range ratios {
			ratios[i] = r.rates[i] / base[i]
		}
		aim, met := "–", ""
		if r.what == "1 Go client" && !r.flush {
			aim = "≥ 0.5 × echo"
			met = p.aim(median(ratios) >= 0.5, "Stream Manager: one Go client reaches %.2f of the echo; the aim was 0.5.", median(ratios))
		}
		if r.clients > 1 && r.flush {
			times := median(r.rates) / median(runs[1].rates)
			aim = "≥ 20 × one client"
			met = fmt.Sprintf("%.1f ×, %s", times, p.aim(times >= 20, "Stream Manager: %d clients with flushOnWrite reach %.1f × one; the aim was 20.", smClients, times))
		}
		p.printf("| %s | %v | %s | %s | %s | %s |\n", r.what, r.flush, spread("%.0f", r.rates), spread("%.2f", ratios), aim, met)
	}
	p.printf("\n")
}

// measure appends for smDuration with synchronous clients, each on a connection of its own.
func (r *smRun) measure(ctx context.Context, addr string) error {
	clients := make([]*client.Client, r.clients)
	for i := range clients {
		c, err := client.Dial(ctx, addr, client.Options{})
		if err != nil {
			return err
		}
		defer c.Close()
		clients[i] = c
	}
	name := fmt.Sprintf("bench-%d-%v", r.clients, r.flush)
	if err := ensureStream(ctx, clients[0], name, r.flush); err != nil {
		return err
	}
	payload := make([]byte, smPayload)
	rate, err := together(ctx, r.clients, func(i int) error {
		_, err := clients[i].Append(ctx, name, payload)
		return err
	})
	r.rates = append(r.rates, rate)
	return err
}

func ensureStream(ctx context.Context, c *client.Client, name string, flush bool) error {
	strategy, persistence, size := wire.Int(wire.OverwriteOldestData), wire.Int(wire.File), wire.Int(256<<20)
	err := c.Create(ctx, &wire.MessageStreamDefinition{
		Name: name, MaxSize: &size, StrategyOnFull: &strategy, Persistence: &persistence, FlushOnWrite: &flush,
	})
	if we, ok := errors.AsType[*wire.Error](err); ok && strings.Contains(we.Message, "already exists") {
		return nil
	}
	return err
}

// together calls do from n goroutines for smDuration and returns the calls per second.
func together(ctx context.Context, n int, do func(i int) error) (float64, error) {
	var (
		wg    sync.WaitGroup
		calls atomic.Int64
		mu    sync.Mutex // guards errs
		errs  []error
	)
	began := time.Now()
	for i := range n {
		wg.Go(func() {
			for time.Since(began) < smDuration && ctx.Err() == nil {
				if err := do(i); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
					return
				}
				calls.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(calls.Load()) / time.Since(began).Seconds(), errors.Join(append(errs, ctx.Err())...)
}

// measurePython runs the official Python SDK for about smDuration.
func (r *smRun) measurePython(ctx context.Context, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(".tools", "clients", "bin", "python"), filepath.Join("test", "bench", "append.py"),
		port, fmt.Sprintf("bench-python-%v", r.flush), strconv.FormatBool(r.flush), strconv.Itoa(smPayload), smDuration.String()[:1])
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("python client: %w", err)
	}
	rate, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	r.rates = append(r.rates, rate)
	return err
}

// echoServer answers each request of smRequest bytes with smResponse bytes, until it is killed.
func echoServer() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() { // ends with its connection, or with the process
			defer conn.Close()
			in, answer := make([]byte, smRequest), make([]byte, smResponse)
			r := bufio.NewReader(conn)
			for {
				if _, err := io.ReadFull(r, in); err != nil {
					return
				}
				if _, err := conn.Write(answer); err != nil {
					return
				}
			}
		}()
	}
}

// startEcho runs echoServer in a process of its own.
func startEcho() (addr string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(self, "-echo")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()         // killed
	}
	addr, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("start the echo: %w", err)
	}
	return strings.TrimSpace(addr), stop, nil
}

func echoRate(ctx context.Context, addr string, n int) (float64, error) {
	conns := make([]net.Conn, n)
	for i := range conns {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		conns[i] = conn
	}
	request := make([]byte, smRequest)
	answers := make([][smResponse]byte, n)
	return together(ctx, n, func(i int) error {
		if _, err := conns[i].Write(request); err != nil {
			return err
		}
		_, err := io.ReadFull(conns[i], answers[i][:])
		return err
	})
}
