// Bench measures leat end to end, as processes, and writes docs/benchmarks.md: what `make bench` runs.
//
// It starts `leat serve` from a directory of programs, loads it over real MQTT with internal/sim, waits until everything
// is in Parquet, and reads processor time and memory of that process from /proc (so it needs Linux). Figures of the log
// and of the file format come from the benchmarks of their packages, which it runs with `go test`.
//
// Everything is measured anew; nothing on the page is written by hand but the sentences around the figures. The load
// generator shares the machine's processors with leat, as it did for the programs that the page compares with.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	bin      string
	out      string
	messages int
	repeat   int
	steady   time.Duration
	only     string
}

// section measures one thing and writes it to the page.
type section struct {
	name string
	run  func(ctx context.Context, o options, p *page) error
}

// sections are in the order of the page.
func sections() []section {
	return []section{
		{"throughput", measureThroughput},
		{"kill", measureKill},
		{"memory", measureMemory},
		{"bytes", measureBytes},
		{"log", measureLog},
		{"streammanager", measureStreamManager},
	}
}

func main() {
	var o options
	echo := flag.Bool("echo", false, "be the echo that the stream manager is compared with; for the program's own use")
	flag.StringVar(&o.bin, "bin", "bin", "directory of leat and leat-sql")
	flag.StringVar(&o.out, "out", "docs/benchmarks.md", "page to write; - is standard output")
	flag.IntVar(&o.messages, "messages", 2_000_000, "messages of an end-to-end run")
	flag.IntVar(&o.repeat, "repeat", 3, "runs of which medians and ranges are taken")
	flag.DurationVar(&o.steady, "steady", 10*time.Minute, "length of the run at 3,125 messages/s")
	flag.StringVar(&o.only, "only", "", "sections to measure, separated by commas; default all")
	flag.Parse()
	if *echo {
		fmt.Fprintln(os.Stderr, "bench: echo:", echoServer())
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return err
	}
	o.bin = bin
	p := &page{}
	p.begin(o)
	var missed error
	for _, s := range sections() {
		if o.only != "" && !strings.Contains(","+o.only+",", ","+s.name+",") {
			continue
		}
		fmt.Fprintf(os.Stderr, "== %s\n", s.name)
		if err := s.run(ctx, o, p); err != nil {
			// What was measured before is worth keeping; the page says what is missing.
			p.printf("\n**Not measured:** %s: %v.\n", s.name, err)
			missed = errors.Join(missed, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	p.end()
	if o.out == "-" {
		_, err = os.Stdout.WriteString(p.String())
	} else {
		err = os.WriteFile(o.out, []byte(p.String()), 0o644)
	}
	return errors.Join(missed, err)
}
