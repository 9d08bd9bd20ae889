package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// page is the text that is written, with the aims that were not met.
type page struct {
	strings.Builder
	short []string
}

func (p *page) printf(format string, args ...any) { fmt.Fprintf(p, format, args...) }

// begin writes what, when, where.
func (p *page) begin(o options) {
	p.printf("# Benchmarks\n\n<!-- Written by `make bench`. Change test/bench instead. -->\n\n")
	p.printf("Figures of shared machines swing by half; take ratios measured in one run seriously, and absolute numbers as an order\n" +
		"of magnitude. Where a figure has three numbers, it is a median and a range.\n\n")
	p.printf("| | |\n|---|---|\n")
	p.printf("| date | %s |\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	p.printf("| commit | %s |\n", output("git", "describe", "--always", "--dirty", "--abbrev=10"))
	p.printf("| machine | %d × %s, %s |\n", runtime.NumCPU(), cpuModel(), memory())
	p.printf("| system | Linux %s, %s, data on %s |\n", output("uname", "-r"), runtime.Version(), fileSystem())
	p.printf("| command | `make bench` (%s messages, %d runs, %s of steady load) |\n\n", grouped(o.messages), o.repeat, o.steady)
}

// end writes what fell short.
func (p *page) end() {
	p.printf("\n## What falls short\n\n")
	if len(p.short) == 0 {
		p.printf("No aim was missed in this run.\n")
	}
	for _, s := range p.short {
		p.printf("- %s\n", s)
	}
	p.printf("\nNot measured here: a real S3 over a network, power cuts (they are tests: `test/e2e`, `internal/stream/segment`), a disk\n" +
		"whose fdatasync takes milliseconds instead of this machine's tenths of one, ARM boards, more than five clients.\n")
}

// aim notes a figure that is not what was aimed at.
func (p *page) aim(met bool, format string, args ...any) string {
	if met {
		return "met"
	}
	p.short = append(p.short, fmt.Sprintf(format, args...))
	return "**missed**"
}

func output(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func cpuModel() string { return procField("/proc/cpuinfo", "model name") }

func memory() string {
	var kib int64
	if _, err := fmt.Sscanf(procField("/proc/meminfo", "MemTotal"), "%d kB", &kib); err != nil {
		return "unknown memory"
	}
	return fmt.Sprintf("%.0f GiB", float64(kib)/(1<<20))
}

func procField(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func fileSystem() string { return lastWord(output("df", "--output=fstype", os.TempDir())) }

func lastWord(s string) string {
	words := strings.Fields(s)
	if len(words) == 0 {
		return s
	}
	return words[len(words)-1]
}

// spread is a median with its range.
func spread(format string, values []float64) string {
	s := slices.Sorted(slices.Values(values))
	write := func(v float64) string {
		if v >= 1000 {
			return grouped(int(v + 0.5))
		}
		return fmt.Sprintf(format, v)
	}
	if len(s) == 1 {
		return write(s[0])
	}
	return write(median(s)) + " (" + write(s[0]) + " to " + write(s[len(s)-1]) + ")"
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return s[len(s)/2]
}

// grouped writes a number with commas between thousands.
func grouped(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
