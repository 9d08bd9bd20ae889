package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ParseDuration reads "60s", "1h30m", "7d" or a bare number of seconds ("60", "0.5").
func ParseDuration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		if math.Abs(seconds) > 1<<33 {
			return 0, fmt.Errorf("%q is too long a time", s)
		}
		return time.Duration(seconds * float64(time.Second)), nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil && math.Abs(n) < 100_000 {
			return time.Duration(n * 24 * float64(time.Hour)), nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no time: want a number with a unit (ms, s, m, h, d), or seconds without one, for example 60s", s)
	}
	return d, nil
}

// sizeUnits are the suffixes of sizes, in bytes. Those of one letter count in powers of 1024, as most tools have it.
func sizeUnit(suffix string) (int64, bool) {
	switch strings.ToLower(suffix) {
	case "", "b":
		return 1, true
	case "kb":
		return 1e3, true
	case "mb":
		return 1e6, true
	case "gb":
		return 1e9, true
	case "tb":
		return 1e12, true
	case "k", "kib":
		return 1 << 10, true
	case "m", "mib":
		return 1 << 20, true
	case "g", "gib":
		return 1 << 30, true
	case "t", "tib":
		return 1 << 40, true
	}
	return 0, false
}

// ParseSize reads an integer, with a unit when it counts bytes: "512MiB", "1GB", "1000".
func ParseSize(s string) (int64, error) {
	t := strings.ReplaceAll(strings.TrimSpace(s), "_", "")
	end := strings.LastIndexAny(t, "0123456789.") + 1
	unit, ok := sizeUnit(strings.TrimSpace(t[end:]))
	if !ok || end == 0 {
		return 0, fmt.Errorf("%q is no size: want a whole number, with a unit when it counts bytes (KiB, MiB, GiB, TiB or KB, MB, GB, TB), for example 1GiB", s)
	}
	if n, err := strconv.ParseInt(t[:end], 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		if err != nil || (unit > 1 && (n > math.MaxInt64/unit || n < math.MinInt64/unit)) {
			return 0, fmt.Errorf("%q is too large", s)
		}
		return n * unit, nil
	}
	f, err := strconv.ParseFloat(t[:end], 64)
	if err != nil || math.Abs(f)*float64(unit) >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is no size", s)
	}
	if n := f * float64(unit); n == math.Trunc(n) || unit > 1 {
		return int64(n), nil
	}
	return 0, fmt.Errorf("%q: want a whole number", s)
}

// FormatSize writes bytes for people: the largest unit that leaves a number of at least 1, with three digits.
func FormatSize(n int64) string {
	const units = "KMGTPE"
	if n > -1024 && n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n) / 1024
	i := 0
	for ; math.Abs(f) >= 1000 && i < len(units)-1; i++ {
		f /= 1024
	}
	digits := 2
	if math.Abs(f) >= 100 {
		digits = 0
	} else if math.Abs(f) >= 10 {
		digits = 1
	}
	return fmt.Sprintf("%.*f %ciB", digits, f, units[i])
}
