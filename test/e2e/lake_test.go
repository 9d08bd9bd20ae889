//go:build linux

package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/leat-io/leat/internal/sim"
)

// tally is what the Parquet files of a lake directory say about a load.
type tally struct {
	times []int // by message number: how often it is there
	rows  int   // of all signals
	files int
}

// perMessage is how many rows the default rule makes of a message of a load: n, value and ok.
const perMessage = 3

// readLake reads all data files below root. It fails the test when two files of one stream claim the same offsets, or
// when something was rejected.
func readLake(t *testing.T, root string, messages int) tally {
	t.Helper()
	all := tally{times: make([]int, messages)}
	claimed := map[string][]claim{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".parquet") {
			return err
		}
		if strings.Contains(path, "_rejected") {
			t.Errorf("rejected: %s", path)
			return nil
		}
		c := claimOf(t, path)
		claimed[c.stream] = append(claimed[c.stream], c)
		all.files++
		return all.add(path)
	})
	if err != nil {
		t.Fatalf("read lake: %v", err)
	}
	for _, list := range claimed {
		checkClaims(t, list)
	}
	return all
}

// add reads one file.
func (a *tally) add(path string) error {
	type row struct {
		Signal string  `parquet:"signal"`
		Value  float64 `parquet:"value,optional"`
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := parquet.NewGenericReader[row](f)
	defer r.Close()
	buf := make([]row, 4096)
	for {
		n, err := r.Read(buf)
		for _, x := range buf[:n] {
			a.rows++
			if x.Signal != "n" {
				continue
			}
			if x.Value < 0 || int(x.Value) >= len(a.times) {
				return fmt.Errorf("%s: message %v was never sent", path, x.Value)
			}
			a.times[int(x.Value)]++
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
}

// claim is what a key says: the offsets of a stream that a file was made of.
type claim struct {
	path, stream string
	from, to     int64
}

var keyForm = regexp.MustCompile(`_([0-9a-f]{12})-([0-9a-f]{16})-(\d{12,})-(\d{12,})(-\d+)?\.parquet$`)

func claimOf(t *testing.T, path string) claim {
	t.Helper()
	m := keyForm.FindStringSubmatch(path)
	if m == nil {
		t.Fatalf("key %s has no node, stream and range", path)
	}
	from, _ := strconv.ParseInt(m[3], 10, 64)
	to, _ := strconv.ParseInt(m[4], 10, 64)
	return claim{path: path, stream: m[1] + "-" + m[2], from: from, to: to}
}

func checkClaims(t *testing.T, list []claim) {
	t.Helper()
	slices.SortFunc(list, func(a, b claim) int { return int(a.from - b.from) })
	for i := 1; i < len(list); i++ {
		a, b := list[i-1], list[i]
		same := a.from == b.from && a.to == b.to // parts of one range
		if !same && b.from < a.to {
			t.Errorf("two files claim the same offsets: %s and %s", a.path, b.path)
		}
	}
}

// check compares the lake with what was acknowledged: all of that is there; what was sent once is there at most once,
// and what was sent again at most as often as it was sent. It returns how many messages are there more than once.
func (a *tally) check(t *testing.T, acked *sim.Set, again map[int]int) (twice int) {
	t.Helper()
	missing, extra, total := 0, 0, 0
	for n, times := range a.times {
		total += times
		switch {
		case times == 0 && acked.Has(n):
			if missing++; missing <= 5 {
				t.Errorf("message %d was acknowledged and is not in the lake", n)
			}
		case times > 1+again[n]:
			if extra++; extra <= 5 {
				t.Errorf("message %d is %d times in the lake, and was sent %d times", n, times, 1+again[n])
			}
		}
		if times > 1 {
			twice++
		}
	}
	if a.rows != perMessage*total {
		t.Errorf("%d rows for %d messages, want %d each", a.rows, total, perMessage)
	}
	if missing > 0 || extra > 0 {
		t.Errorf("%d of %d acknowledged are missing, %d are there too often", missing, acked.Len(), extra)
	}
	return twice
}
