package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// goTest runs a package's own measurement.
func goTest(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-count=1"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go test %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

var bytesLine = regexp.MustCompile(`portable ([\d.]+) B/sample \(([\d.]+) M rows/s\), wide snappy\+dictionary ([\d.]+), long snappy\+dictionary in arrival order ([\d.]+)`)

// measureBytes compares the size of the lake's files with what most tools write.
func measureBytes(ctx context.Context, _ options, p *page) error {
	out, err := goTest(ctx, "-v", "-run", "^TestBytesPerSample$", "./internal/lake")
	if err != nil {
		return err
	}
	m := bytesLine.FindStringSubmatch(out)
	if m == nil {
		return fmt.Errorf("TestBytesPerSample printed no figures:\n%s", out)
	}
	var v [4]float64
	for i := range v {
		if v[i], err = strconv.ParseFloat(m[i+1], 64); err != nil {
			return err
		}
	}
	p.printf("\n## Bytes per sample\n\nThe simulator's reference set (125 signals at 25 Hz for 15 minutes; the mix of `leat demo`), the same rows in the same run. The\n"+
		"encoder alone, without parsing, does %.2f million rows/s on one core.\n\n", v[1])
	p.printf("| | bytes per sample | ours is |\n|---|---|---|\n")
	p.printf("| leat, portable layout (ts, topic, signal, value) | %.2f | |\n", v[0])
	p.printf("| a column per signal, snappy and dictionary | %.2f | %.2f of it; aim ≤ 0.67: %s |\n", v[2], v[0]/v[2],
		p.aim(v[0]/v[2] <= 0.67, "The portable layout takes %.2f of the bytes of snappy and dictionary; the aim was 0.67.", v[0]/v[2]))
	p.printf("| the same rows in order of arrival, snappy and dictionary | %.2f | %.2f of it |\n", v[3], v[0]/v[3])
	return nil
}

var ratioLine = regexp.MustCompile(`(?m)^(\S.*?)\s+median\s+([\d.]+) \(([\d.]+) to ([\d.]+)\), aim ([\d.]+), met: (true|false); ours (\d+), other (\d+)$`)

// measureLog prints the log's ratios to a bare loop.
func measureLog(ctx context.Context, _ options, p *page) error {
	out, err := goTest(ctx, "-run", "^$", "-bench", "^BenchmarkRatios$", "-benchtime", "1x", "./internal/stream/segment")
	if err != nil {
		return err
	}
	lines := ratioLine.FindAllStringSubmatch(out, -1)
	if len(lines) == 0 {
		return fmt.Errorf("BenchmarkRatios printed no ratios:\n%s", out)
	}
	p.printf("\n## The log beside a bare loop\n\nAppends per second of the log beside a loop that writes the same bytes to a file (and calls fdatasync, where it says so), in turns in\n" +
		"one process: medians and ranges of the ratios.\n\n| | ratio | aim | | ours, per second | the other |\n|---|---|---|---|---|---|\n")
	for _, m := range lines {
		aim, verdict := m[5], ""
		if aim == "0.00" {
			aim = "–"
		} else {
			verdict = p.aim(m[6] == "true", "The log: %s is %s (%s to %s); the aim was %s.", m[1], m[2], m[3], m[4], m[5])
		}
		p.printf("| %s | %s (%s to %s) | %s | %s | %s | %s |\n", m[1], m[2], m[3], m[4], aim, verdict, m[7], m[8])
	}
	return nil
}
