package segment_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

// Environment of the test binary when it runs again as the process that is killed.
const (
	victimDir = "LEAT_TEST_VICTIM_DIR" // the log's directory; set = be the victim
	victimRun = "LEAT_TEST_VICTIM_RUN" // number of the run, part of every payload
)

// victimStreams are what the victim appends to: one per level, and one that is trimmed by its export.
var victimStreams = []struct {
	name   record.StreamName
	policy stream.Policy
}{
	{"kill/disk", stream.Policy{}},
	{"kill/os", stream.Policy{Durability: stream.OS}},
	{"kill/exported", stream.Policy{Durability: stream.OS, UntilExported: true}},
	{"kill/lazy", stream.Policy{Durability: stream.OS, Lane: stream.Long}}, // alone in its lane: nothing else syncs it
}

// TestVictim is not a test of its own: TestKill and TestPowerCut start it as a process and end that.
//
// It appends to every stream from several goroutines, reads each at the head as an export does, and tells on stdout
// what was acknowledged ("A stream first count serial"), what a reader has seen ("E stream first count hash") and which
// cursor was stored ("C stream offset"), until it is killed or its log fails.
func TestVictim(t *testing.T) {
	path := os.Getenv(victimDir)
	if path == "" {
		return // it is the parent's run
	}
	dir, err := vfs.OpenDir(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	log, err := segment.Open(segment.Options{
		Dir: dir, Clock: clock.NewSystem(), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		SegmentBytes: 256 << 10, SyncInterval: 30 * time.Millisecond, MaintainInterval: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	told := make(chan string, 1000)
	var running, teller sync.WaitGroup
	teller.Go(func() {
		for line := range told {
			if _, err := io.WriteString(os.Stdout, line); err != nil {
				return
			}
		}
	})
	for s := range victimStreams {
		info, err := stream.Ensure(ctx, log, victimStreams[s].name, victimStreams[s].policy)
		if err != nil {
			t.Fatal(err)
		}
		for a := range 3 {
			running.Go(func() { victimAppends(ctx, log, info.ID, s, a, told) })
		}
		running.Go(func() { victimExports(ctx, log, info.ID, s, told) })
	}
	<-log.Failed() // or the parent kills first
	cancel()
	running.Wait()
	close(told)
	teller.Wait()
	_ = log.Close()
}

// victimPayload is the payload of one record; serials are unique in a run's stream.
func victimPayload(run string, stream, serial int) []byte {
	p := fmt.Appendf(nil, "%s/%d/%d.", run, stream, serial)
	return append(p, bytes.Repeat([]byte{byte(serial)}, serial%300)...)
}

func victimAppends(ctx context.Context, log *segment.Log, id record.StreamID, s, appender int, told chan<- string) {
	run := os.Getenv(victimRun)
	serial := appender * 10_000_000
	inFlight := make(chan struct{}, 4)
	for ctx.Err() == nil {
		n, base := 1+serial%17, serial
		batch := make([]record.Record, n)
		for i := range batch {
			batch[i] = record.Record{Time: int64(serial), Key: []byte("k"), Payload: victimPayload(run, s, serial)}
			serial++
		}
		select {
		case inFlight <- struct{}{}:
		case <-ctx.Done():
			return
		}
		log.Append(ctx, id, batch, func(first record.Offset, err error) {
			if err == nil {
				told <- fmt.Sprintf("A %d %d %d %d\n", s, first, n, base)
			}
			<-inFlight
		})
	}
}

// victimExports follows the head as an export does: it reads, tells, and stores its cursor.
func victimExports(ctx context.Context, log *segment.Log, id record.StreamID, s int, told chan<- string) {
	const name = "export/x"
	from := record.Offset(0)
	if c, err := log.LoadCursor(id, name); err == nil {
		from = c.Offset
	}
	var c stream.Chunk
	for ctx.Err() == nil {
		if err := log.Read(ctx, id, from, 64<<10, &c); err != nil {
			return
		}
		for _, g := range c.Gaps {
			told <- fmt.Sprintf("G %d %d %d %d\n", s, g.From, g.To, g.Reason)
		}
		if n := len(c.Records); n > 0 {
			payloads := make([]string, n)
			for i := range c.Records {
				payloads[i] = string(c.Records[i].Payload)
			}
			told <- fmt.Sprintf("E %d %d %d %d\n", s, c.First, n, hashOf(payloads))
		}
		from = c.Next
		if err := log.StoreCursor(ctx, id, name, stream.Cursor{Offset: from, State: strconv.AppendUint(nil, uint64(from), 10)}); err != nil {
			return
		}
		told <- fmt.Sprintf("C %d %d\n", s, from)
	}
}

// claim is a line of the victim about records: they were acknowledged, or a reader saw them.
type claim struct {
	kind   string // "A" or "E"
	run    int
	stream int
	first  record.Offset
	count  int
	value  uint64 // A: first serial; E: hash of the payloads
}

// victim is what the parent knows of one directory over many runs.
type victim struct {
	*lab
	claims  []claim
	cursors [4]record.Offset // last told, by stream
	acked   int
	seen    int
	lost    int         // acknowledged at level os and gone with the power, as is allowed
	deaf    atomic.Bool // what is told from now on does not count; see powerCuts
}

// run starts the victim, lets it work until stop ends it, and notes what it told.
func (v *victim) run(run int, stop func(p *os.Process)) {
	v.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), victimDir+"="+v.path, fmt.Sprintf("%s=%d", victimRun, run))
	out, err := cmd.StdoutPipe()
	if err != nil {
		v.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		v.Fatal(err)
	}
	lines := bufio.NewReader(out)
	v.deaf.Store(false)
	var stopping sync.WaitGroup
	stopped := false
	before := v.acked
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // what a kill cut off does not count
		}
		if v.deaf.Load() {
			continue
		}
		v.note(run, line)
		if !stopped && v.acked > before {
			stopped = true
			stopping.Go(func() { stop(cmd.Process) }) // ends the process, and with it this loop
		}
	}
	_ = cmd.Wait()
	stopping.Wait()
	if v.acked == before {
		v.Fatalf("run %d acknowledged nothing; stderr:\n%s", run, stderr.String())
	}
	if strings.Contains(stderr.String(), "damage in the log") {
		v.Errorf("run %d reports damage on a disk that loses nothing durable:\n%s", run, stderr.String())
	}
}

func (v *victim) note(run int, line string) {
	v.Helper()
	var c claim
	f := strings.Fields(line)
	number := func(i int) uint64 {
		n, err := strconv.ParseUint(f[i], 10, 64)
		if err != nil {
			v.Fatalf("line %q: %v", line, err)
		}
		return n
	}
	switch {
	case len(f) == 5 && (f[0] == "A" || f[0] == "E"):
		c = claim{kind: f[0], run: run, stream: int(number(1)), first: record.Offset(number(2)), count: int(number(3)), value: number(4)}
		v.claims = append(v.claims, c)
		if f[0] == "A" {
			v.acked += c.count
		} else {
			v.seen += c.count
		}
	case len(f) == 3 && f[0] == "C":
		v.cursors[number(1)] = record.Offset(number(2))
	case len(f) == 5 && f[0] == "G" && number(4) != uint64(stream.Dropped): // dropped is what verify has verified
		v.Errorf("run %d: a reader met a gap: %q", run, line)
	}
}

// verify opens the log and holds every claim against it: acknowledged records are there (at level os a power cut may
// take those that no reader has seen), and what a reader has seen still means the same. Then it makes room.
func (v *victim) verify(powerCut bool) {
	v.Helper()
	v.opts.SegmentBytes = 256 << 10
	v.open()
	defer v.close()
	if s := v.stats(); s.DamagedRanges != 0 {
		v.Errorf("%d damaged ranges", s.DamagedRanges)
	}
	for s := range victimStreams {
		v.verifyStream(s, powerCut)
	}
	// An acknowledgement is checked once; what a reader saw must not change for as long as it is kept.
	v.claims = slices.DeleteFunc(v.claims, func(c claim) bool { return c.kind == "A" })
	if v.Failed() {
		v.Fatalf("log in %s; logged:\n%s", v.path, v.said.String())
	}
}

func (v *victim) verifyStream(s int, powerCut bool) {
	v.Helper()
	info, err := v.log.Lookup(victimStreams[s].name)
	if err != nil && !slices.ContainsFunc(v.claims, func(c claim) bool { return c.stream == s }) {
		return // the process ended before it was created
	}
	if err != nil {
		v.Errorf("stream %d: %v", s, err)
		return
	}
	b := info.Bounds
	kept, gaps := v.payloads(info.ID, b.First, b.Next)
	if len(gaps) > 0 {
		v.Errorf("stream %d: gaps %v in [%d, %d)", s, gaps, b.First, b.Next)
	}
	cursor, err := v.log.LoadCursor(info.ID, "export/x")
	if err != nil && v.cursors[s] > 0 || cursor.Offset < v.cursors[s] {
		v.Errorf("stream %d: cursor at %d (%v), stored at %d", s, cursor.Offset, err, v.cursors[s])
	}
	if err == nil && string(cursor.State) != fmt.Sprint(cursor.Offset) || cursor.Offset > b.Next {
		v.Errorf("stream %d: cursor {%d %q}, bounds %+v", s, cursor.Offset, cursor.State, b)
	}
	for _, c := range v.claims {
		if c.stream == s {
			v.verifyClaim(&c, b, kept, powerCut && victimStreams[s].policy.Durability == stream.OS)
		}
	}
	// What was verified may go; the stream goes on behind it.
	if b.Next-b.First > 20_000 {
		change := stream.Change{Truncate: &stream.Truncate{ID: info.ID, Before: b.Next}}
		if _, err := v.log.Commit(v.Context(), change); err != nil {
			v.Errorf("truncate stream %d: %v", s, err)
		}
		v.claims = slices.DeleteFunc(v.claims, func(c claim) bool { return c.stream == s })
	}
}

func (v *victim) verifyClaim(c *claim, b stream.Bounds, kept map[record.Offset]string, mayLose bool) {
	v.Helper()
	if end := c.first + record.Offset(c.count); end > b.Next {
		if c.kind == "A" && mayLose {
			v.lost += int(end - max(b.Next, c.first))
			return
		}
		v.Errorf("stream %d: claim %+v, but the stream ends at %d", c.stream, *c, b.Next)
		return
	}
	payloads := make([]string, 0, c.count)
	for i := range c.count {
		at := c.first + record.Offset(i)
		have, ok := kept[at]
		if at < b.First {
			return // exported and dropped
		}
		if c.kind == "A" && (!ok || have != string(victimPayload(fmt.Sprint(c.run), c.stream, int(c.value)+i))) && !(mayLose && ok) {
			v.Errorf("stream %d: acknowledged offset %d of run %d holds %.30q (present: %v)", c.stream, at, c.run, have, ok)
			return
		}
		payloads = append(payloads, have)
	}
	if c.kind == "E" && hashOf(payloads) != c.value {
		v.Errorf("stream %d: offsets [%d, +%d) are not what a reader saw in run %d", c.stream, c.first, c.count, c.run)
	}
}

// TestKill kills a process that appends under load, again and again, and looks for what it was promised.
func TestKill(t *testing.T) {
	v := &victim{lab: newLab(t)}
	soak := testenv.Soak(t, 0) / 4 // the rest is for the package's other long tests
	deadline := time.Now().Add(soak)
	run := 0
	for ; run < 20 || time.Now().Before(deadline) || run < 200 && soak > 0; run++ {
		v.run(run, func(p *os.Process) {
			<-time.After(time.Duration(rand.IntN(80)) * time.Millisecond) // when the fault strikes
			_ = p.Kill()
		})
		v.verify(false)
	}
	t.Logf("%d kills: %d records acknowledged, %d seen by readers, 0 missing, 0 changed", run, v.acked, v.seen)
}
