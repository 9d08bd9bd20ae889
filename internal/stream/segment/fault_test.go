package segment_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

// lab is a log in a directory whose disk obeys hook, and what it has logged.
type lab struct {
	testing.TB
	path string
	opts segment.Options
	hook vfs.Hook
	log  *segment.Log
	dir  *vfs.Dir
	said bytes.Buffer
	mu   sync.Mutex // guards said
}

func newLab(t testing.TB) *lab {
	l := &lab{TB: t, path: t.TempDir(), opts: segment.Options{
		SyncInterval: 5 * time.Millisecond, MaintainInterval: 20 * time.Millisecond,
	}}
	t.Cleanup(l.close)
	return l
}

// Write is where the log's messages go.
func (l *lab) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said.Write(p)
}

func (l *lab) hasSaid(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.said.String(), text)
}

func (l *lab) wantSaid(texts ...string) {
	l.Helper()
	for _, text := range texts {
		if !l.hasSaid(text) {
			l.mu.Lock()
			l.Errorf("nothing logged like %q; logged:\n%s", text, l.said.String())
			l.mu.Unlock()
		}
	}
}

// tryOpen opens the log with the lab's hook.
func (l *lab) tryOpen() error {
	dir, err := vfs.OpenDir(l.path, l.hook)
	if err != nil {
		return err
	}
	opts := l.opts
	opts.Dir, opts.Logger = dir, slog.New(slog.NewTextHandler(l, nil))
	if opts.Clock == nil {
		opts.Clock = clock.NewSystem()
	}
	log, err := segment.Open(opts)
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	l.log, l.dir = log, dir
	return nil
}

func (l *lab) open() {
	l.Helper()
	if err := l.tryOpen(); err != nil {
		l.Fatalf("open log: %v", err)
	}
}

// close closes the log if it is open; whether that succeeds is not what these tests are about.
func (l *lab) close() {
	if l.log == nil {
		return
	}
	_ = l.log.Close()
	_ = l.dir.Close()
	l.log = nil
}

// reopenHealthy closes the log and opens it on a disk without faults.
func (l *lab) reopenHealthy() {
	l.Helper()
	l.close()
	l.hook = nil
	l.open()
}

func (l *lab) ensure(name record.StreamName, p stream.Policy) record.StreamID {
	l.Helper()
	info, err := stream.Ensure(l.Context(), l.log, name, p)
	if err != nil {
		l.Fatalf("ensure %s: %v", name, err)
	}
	return info.ID
}

func (l *lab) append(id record.StreamID, records ...record.Record) record.Offset {
	l.Helper()
	first, err := stream.AppendWait(l.Context(), l.log, id, records...)
	if err != nil {
		l.Fatalf("append: %v", err)
	}
	return first
}

func (l *lab) bounds(id record.StreamID) stream.Bounds {
	l.Helper()
	b, err := l.log.Bounds(id)
	if err != nil {
		l.Fatalf("bounds: %v", err)
	}
	return b
}

// payloads reads [from, to) and returns the payloads by offset, and the gaps.
func (l *lab) payloads(id record.StreamID, from, to record.Offset) (map[record.Offset]string, []stream.Gap) {
	l.Helper()
	got := make(map[record.Offset]string)
	var gaps []stream.Gap
	var c stream.Chunk
	ctx, cancel := context.WithTimeout(l.Context(), time.Minute)
	defer cancel()
	for at := from; at < to; at = c.Next {
		if err := l.log.Read(ctx, id, at, 1<<20, &c); err != nil {
			l.Fatalf("read from %d of %d: %v", at, to, err)
		}
		gaps = append(gaps, c.Gaps...)
		for i := range c.Records {
			got[c.First+record.Offset(i)] = string(c.Records[i].Payload)
		}
	}
	return got, gaps
}

// stats sums the counters of both lanes that the fault tests look at.
func (l *lab) stats() (sum segment.Stats) {
	for _, s := range l.log.Stats() {
		sum.DamagedRanges += s.DamagedRanges
		sum.DamagedBytes += s.DamagedBytes
		sum.TornTailBytes += s.TornTailBytes
		sum.IndexRebuilds += s.IndexRebuilds
		sum.WriteErrors += s.WriteErrors
		sum.Segments += s.Segments
		sum.WrittenBytes += s.WrittenBytes
		sum.Syncs += s.Syncs
	}
	return sum
}

// wantWhole holds that nothing counts as damaged or torn.
func (l *lab) wantWhole() {
	l.Helper()
	if s := l.stats(); s.DamagedRanges != 0 || s.TornTailBytes != 0 {
		l.Errorf("%d damaged ranges, %d bytes of torn tail on a disk that lost nothing", s.DamagedRanges, s.TornTailBytes)
	}
}

func payload(i int) record.Record {
	return record.Record{Time: int64(i), Key: []byte("k"), Payload: fmt.Appendf(nil, "payload-%06d", i)}
}

func wantKind(t testing.TB, what string, err error, want record.Kind) {
	t.Helper()
	if err == nil || record.KindOf(err) != want {
		t.Errorf("%s: %v (kind %v), want kind %v", what, err, record.KindOf(err), want)
	}
}

// ledger remembers what was acknowledged, so that it can be looked for afterwards.
type ledger struct {
	mu    sync.Mutex // guards acked
	acked map[record.StreamID]map[record.Offset]string
}

func newLedger() *ledger { return &ledger{acked: map[record.StreamID]map[record.Offset]string{}} }

func (g *ledger) note(id record.StreamID, first record.Offset, records []record.Record) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.acked[id] == nil {
		g.acked[id] = map[record.Offset]string{}
	}
	for i := range records {
		g.acked[id][first+record.Offset(i)] = string(records[i].Payload)
	}
}

// check reads everything and reports what was acknowledged, still kept, and is missing or other.
func (g *ledger) check(l *lab) {
	l.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, want := range g.acked {
		b, err := l.log.Bounds(id)
		if record.KindOf(err) == record.NotFound {
			l.Errorf("stream %v is missing", id)
			continue
		}
		got, gaps := l.payloads(id, b.First, b.Next)
		if len(gaps) > 0 {
			l.Errorf("stream %v: gaps %v", id, gaps)
		}
		for at, p := range want {
			if have, ok := got[at]; at >= b.First && (!ok || have != p) {
				l.Errorf("stream %v: acknowledged offset %d holds %.40q (present: %v), want %.40q", id, at, have, ok, p)
				return
			}
		}
	}
}

// A full disk: the frame that was being written is cut off, appends are refused as Full with a hint, and go on when
// space returns.
func TestDiskFullInMidAppend(t *testing.T) {
	l := newLab(t)
	var full atomic.Bool
	l.hook = func(op vfs.Op) error {
		if full.Load() && op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".seg") {
			return &vfs.ShortWrite{N: op.Size / 2, Err: syscall.ENOSPC}
		}
		return nil
	}
	l.open()
	id := l.ensure("test/full", stream.Policy{})
	book := newLedger()
	next := record.Offset(0)
	for round := range 3 {
		for i := range 10 {
			r := payload(round*100 + i)
			if first := l.append(id, r); first != next {
				t.Fatalf("offset %d, want %d", first, next)
			}
			book.note(id, next, []record.Record{r})
			next++
		}
		full.Store(true)
		for range 3 {
			_, err := stream.AppendWait(t.Context(), l.log, id, payload(-1), payload(-2))
			wantKind(t, "append to a full disk", err, record.Full)
			if record.HintOf(err) == "" {
				t.Errorf("no hint in %v", err)
			}
		}
		wantKind(t, "store a cursor on a full disk", l.log.StoreCursor(t.Context(), id, "c", stream.Cursor{}), record.Full)
		if b := l.bounds(id); b.Next != next || b.Readable != next {
			t.Fatalf("bounds %+v after refused appends, want next %d", b, next)
		}
		full.Store(false)
	}
	if l.log.Err() != nil {
		t.Fatalf("a full disk has failed the log: %v", l.log.Err())
	}
	book.check(l)
	l.reopenHealthy()
	l.wantWhole()
	book.check(l)
	l.wantNext(id, next)
}

func (l *lab) wantNext(id record.StreamID, next record.Offset) {
	l.Helper()
	if b := l.bounds(id); b.Next != next {
		l.Errorf("next offset %d, want %d", b.Next, next)
	}
	if first := l.append(id, payload(-3)); first != next {
		l.Errorf("append at offset %d, want %d", first, next)
	}
}

// A disk that is full again and again under load: what was acknowledged is what is there.
func TestDiskFullUnderLoad(t *testing.T) {
	l := newLab(t)
	l.opts.SegmentBytes = 64 << 10
	var writes atomic.Int64
	l.hook = func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".seg") && writes.Add(1)%7 > 4 {
			return &vfs.ShortWrite{N: int(writes.Load()*31) % (op.Size + 1), Err: syscall.ENOSPC}
		}
		return nil
	}
	l.open()
	book, refused := newLedger(), atomic.Int64{}
	ids := []record.StreamID{l.eventuallyEnsure("test/a", stream.Disk), l.eventuallyEnsure("test/b", stream.OS)}
	var running sync.WaitGroup
	for a := range 8 {
		running.Go(func() {
			for i := range 100 {
				batch := []record.Record{payload(a*1000 + i), payload(a*1000 + i + 500)}
				first, err := stream.AppendWait(t.Context(), l.log, ids[a%2], batch...)
				if err != nil {
					refused.Add(1)
					wantKind(t, "refused append", err, record.Full)
					continue
				}
				book.note(ids[a%2], first, batch)
			}
		})
	}
	running.Wait()
	if n := refused.Load(); n == 0 || n == 800 {
		t.Errorf("%d of 800 appends refused: the fault was not there, or always", n)
	}
	book.checkAll(l)
	l.reopenHealthy()
	l.wantWhole()
	book.checkAll(l)
}

// checkAll is check, and holds that nothing but what was acknowledged is there.
func (g *ledger) checkAll(l *lab) {
	l.Helper()
	g.check(l)
	for id, acked := range g.acked {
		if b := l.bounds(id); int(b.Next) != len(acked) {
			l.Errorf("stream %v: %d records, %d were acknowledged", id, b.Next, len(acked))
		}
	}
}

func (l *lab) eventuallyEnsure(name record.StreamName, d stream.Durability) (id record.StreamID) {
	l.Helper()
	testenv.Wait(l, time.Minute, func() bool {
		info, err := stream.Ensure(l.Context(), l.log, name, stream.Policy{Durability: d})
		id = info.ID
		return err == nil
	}, "stream created")
	return id
}

// A write that fails for another reason refuses the append and nothing else.
func TestWriteError(t *testing.T) {
	l := newLab(t)
	var broken atomic.Bool
	l.hook = func(op vfs.Op) error {
		if broken.Load() && op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".seg") {
			return &vfs.ShortWrite{N: op.Size - 1, Err: syscall.EIO}
		}
		return nil
	}
	l.open()
	id := l.ensure("test/eio", stream.Policy{})
	l.append(id, payload(0))
	broken.Store(true)
	_, err := stream.AppendWait(t.Context(), l.log, id, payload(1))
	wantKind(t, "append", err, record.Unavailable)
	broken.Store(false)
	if first := l.append(id, payload(2)); first != 1 {
		t.Errorf("offset %d, want 1", first)
	}
	if s := l.stats(); s.WriteErrors == 0 {
		t.Error("no write error counted")
	}
	l.reopenHealthy()
	l.wantWhole()
	got, _ := l.payloads(id, 0, 2)
	if got[0] != "payload-000000" || got[1] != "payload-000002" {
		t.Errorf("read %v", got)
	}
}

// When what a failed write left cannot be cut off, the log has failed: it must not write behind a half frame.
func TestWriteErrorThatCannotBeCutOff(t *testing.T) {
	l := newLab(t)
	var broken atomic.Bool
	l.hook = func(op vfs.Op) error {
		switch {
		case !broken.Load() || !strings.HasSuffix(op.Name, ".seg"):
		case op.Kind == vfs.OpWrite:
			return &vfs.ShortWrite{N: op.Size / 2, Err: syscall.EIO}
		case op.Kind == vfs.OpTruncate:
			return syscall.EIO
		}
		return nil
	}
	l.open()
	id := l.ensure("test/eio", stream.Policy{})
	l.append(id, payload(0))
	broken.Store(true)
	_, err := stream.AppendWait(t.Context(), l.log, id, payload(1))
	wantKind(t, "append", err, record.Unavailable)
	<-l.log.Failed()
	broken.Store(false)
	_, err = stream.AppendWait(t.Context(), l.log, id, payload(2))
	wantKind(t, "append after the failure", err, record.Unavailable)
	l.reopenHealthy()
	if s := l.stats(); s.DamagedRanges != 0 {
		t.Errorf("%d damaged ranges: nothing durable was lost", s.DamagedRanges)
	}
	l.wantNext(id, 1)
}

// A failed fdatasync is final: every waiter fails, nothing is acknowledged afterwards although the disk works again,
// readers end, and the next start is clean.
func TestSyncErrorIsFinal(t *testing.T) {
	for _, level := range []stream.Durability{stream.Disk, stream.OS} {
		t.Run([]string{"disk", "os"}[level], func(t *testing.T) { syncErrorIsFinal(t, level) })
	}
}

func syncErrorIsFinal(t *testing.T, level stream.Durability) {
	l := newLab(t)
	var armed atomic.Bool
	var failures atomic.Int64
	l.hook = func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && strings.HasSuffix(op.Name, ".seg") && armed.CompareAndSwap(true, false) {
			failures.Add(1)
			return syscall.EIO
		}
		return nil
	}
	l.open()
	id := l.ensure("test/sync", stream.Policy{Durability: level})
	book := newLedger()
	for i := range 10 {
		book.note(id, l.append(id, payload(i)), []record.Record{payload(i)})
	}
	testenv.Wait(t, time.Minute, func() bool { return l.bounds(id).Readable == 10 }, "readable")
	reader := make(chan error, 1)
	go func() { reader <- l.log.Read(t.Context(), id, 10, 1, new(stream.Chunk)) }()

	armed.Store(true)
	type answer struct {
		first record.Offset
		err   error
	}
	answers := make(chan answer, 200)
	for i := range cap(answers) {
		l.log.Append(t.Context(), id, []record.Record{payload(10 + i)}, func(first record.Offset, err error) { answers <- answer{first, err} })
	}
	<-l.log.Failed()
	acked := 0
	for range cap(answers) {
		switch a := <-answers; {
		case a.err == nil && level == stream.OS:
			acked++ // the operating system had it: no promise was broken yet
		case a.err == nil:
			t.Errorf("offset %d was acknowledged by the commit whose fdatasync failed, or after it", a.first)
		default:
			wantKind(t, "append in the failed commit", a.err, record.Unavailable)
		}
	}
	if l.log.Err() == nil || !errors.Is(l.log.Err(), syscall.EIO) {
		t.Errorf("Err: %v", l.log.Err())
	}
	if err := <-reader; err == nil || record.KindOf(err) != record.Unavailable {
		t.Errorf("reader at the head: %v", err)
	}
	_, err := stream.AppendWait(t.Context(), l.log, id, payload(1000))
	wantKind(t, "append afterwards", err, record.Unavailable)
	wantKind(t, "cursor afterwards", l.log.StoreCursor(t.Context(), id, "c", stream.Cursor{Offset: 1}), record.Unavailable)
	_, err = l.log.Commit(t.Context(), stream.Change{Seal: &stream.Seal{ID: id}})
	wantKind(t, "commit afterwards", err, record.Unavailable)
	if b := l.bounds(id); b.Readable != 10 {
		t.Errorf("readable %d: readers see what no fdatasync has covered", b.Readable)
	}
	l.wantSaid("the log has failed")
	l.reopenHealthy()
	if failures.Load() != 1 {
		t.Errorf("%d failures injected", failures.Load())
	}
	l.wantWhole()
	book.check(l)
	t.Logf("level %v: %d acknowledged by the page cache before the sync failed", level, acked)
}

// A disk that gives nothing for a while is not damage: readers get an error and later everything, and cleaning drops
// nothing that it could not copy.
func TestReadErrorIsNotDamage(t *testing.T) {
	l := newLab(t)
	l.opts.SegmentBytes = 8 << 10
	var away atomic.Bool
	l.hook = func(op vfs.Op) error {
		if away.Load() && op.Kind == vfs.OpRead {
			return syscall.EIO
		}
		return nil
	}
	l.open()
	ids := []record.StreamID{l.ensure("test/kept", stream.Policy{}), l.ensure("test/dropped", stream.Policy{})}
	book := newLedger()
	for i := range 100 {
		for k, id := range ids {
			book.note(id, l.append(id, payload(2*i+k)), []record.Record{payload(2*i + k)})
		}
	}
	away.Store(true)
	for _, from := range []record.Offset{0, 50, 99} {
		var c stream.Chunk
		err := l.log.Read(t.Context(), ids[0], from, 1<<20, &c)
		wantKind(t, "read while the disk gives nothing", err, record.Unavailable)
	}
	written := l.stats().WrittenBytes
	change := stream.Change{Truncate: &stream.Truncate{ID: ids[1], Before: 100}}
	if _, err := l.log.Commit(t.Context(), change); err != nil { // most of each segment becomes garbage
		t.Fatal(err)
	}
	testenv.Wait(t, time.Minute, func() bool { return l.hasSaid("cleaning the log") }, "cleaning met the disk")
	away.Store(false)
	testenv.Wait(t, time.Minute, func() bool { return l.stats().WrittenBytes > written+4000 }, "cleaning went on")
	l.wantWhole()
	book.check(l)
	l.reopenHealthy()
	l.wantWhole()
	book.check(l)
}

// A log on a disk that gives nothing does not open, and is whole when the disk is back.
func TestOpenOnDeadDisk(t *testing.T) {
	l := newLab(t)
	l.open()
	id := l.ensure("test/kept", stream.Policy{})
	book := newLedger()
	for i := range 100 {
		book.note(id, l.append(id, payload(i)), []record.Record{payload(i)})
	}
	l.close()
	l.hook = func(op vfs.Op) error {
		if op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".seg") {
			return syscall.EIO
		}
		return nil
	}
	if err := l.tryOpen(); err == nil {
		t.Error("opened a log of which nothing reads")
	} else if !errors.Is(err, syscall.EIO) {
		t.Errorf("open: %v", err)
	}
	l.reopenHealthy()
	l.wantWhole()
	book.check(l)
	l.wantNext(id, 100)
}

// workload touches every kind of file operation: segments roll, cursors, truncation, deletion, cleaning and a reopen.
// It goes on after errors as a program would, until the log has failed.
func workload(l *lab, book *ledger) {
	if err := l.tryOpen(); err != nil {
		return
	}
	ctx := l.Context()
	var ids []record.StreamID
	for _, name := range []record.StreamName{"test/a", "test/b", "test/c"} {
		info, err := stream.Ensure(ctx, l.log, name, stream.Policy{})
		if err == nil {
			ids = append(ids, info.ID)
		}
	}
	for i := range 24 {
		for s, id := range ids {
			batch := []record.Record{payload(i*10 + s), {Payload: bytes.Repeat([]byte{byte('a' + i)}, 500)}}
			if first, err := stream.AppendWait(ctx, l.log, id, batch...); err == nil {
				book.note(id, first, batch)
			}
		}
		if i%6 == 5 && len(ids) > 1 {
			if b, err := l.log.Bounds(ids[0]); err == nil {
				_ = l.log.StoreCursor(ctx, ids[0], "export/x", stream.Cursor{Offset: b.Readable, State: []byte("s")})
				_, _ = l.log.Commit(ctx, stream.Change{Truncate: &stream.Truncate{ID: ids[0], Before: b.Readable}})
			}
			_ = l.log.Read(ctx, ids[1], 0, 1<<20, new(stream.Chunk))
		}
		if i == 12 {
			l.close()
			if l.tryOpen() != nil {
				return
			}
		}
	}
	if len(ids) == 3 {
		if _, err := l.log.Commit(ctx, stream.Change{Delete: &stream.Delete{ID: ids[2]}}); err == nil {
			delete(book.acked, ids[2])
		} else if _, err := l.log.Bounds(ids[2]); err != nil || l.log.Err() != nil {
			delete(book.acked, ids[2]) // not acknowledged, but written: an fdatasync that fails leaves it open
		}
	}
}

// Each file operation of the workload fails once, in a run of its own. Whatever that leads to, what was acknowledged is
// there afterwards, and nothing counts as damaged.
func TestEveryFileOperationFailsOnce(t *testing.T) {
	total, _ := failOnce(t, 0)
	step := int64(1)
	if testenv.Soak(t, 0) == 0 {
		step = max(1, total/60)
	}
	var mu sync.Mutex // guards seen
	seen := map[vfs.Kind]int{}
	t.Run("each", func(t *testing.T) {
		for at := int64(1); at <= total; at += step {
			t.Run(fmt.Sprint(at), func(t *testing.T) {
				t.Parallel()
				_, op := failOnce(t, at)
				mu.Lock()
				defer mu.Unlock()
				seen[op.Kind]++
			})
		}
	})
	t.Logf("%d operations, every %dth failed: %v", total, step, seen)
}

// failOnce runs the workload with one operation failing, 0 = none, and tells how many there were and which it was.
func failOnce(t *testing.T, failAt int64) (ops int64, failed vfs.Op) {
	l := newLab(t)
	l.opts.SegmentBytes = 8 << 10
	l.opts.MaintainInterval = time.Millisecond
	var n atomic.Int64
	var mu sync.Mutex // guards failed
	l.hook = func(op vfs.Op) error {
		if n.Add(1) != failAt {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		failed = op
		if op.Kind == vfs.OpWrite {
			return &vfs.ShortWrite{N: op.Size / 3, Err: syscall.EIO}
		}
		return syscall.EIO
	}
	book := newLedger()
	workload(l, book)
	l.reopenHealthy()
	if s := l.stats(); s.DamagedRanges != 0 {
		t.Errorf("%d damaged ranges", s.DamagedRanges)
	}
	book.check(l)
	l.close()
	mu.Lock()
	defer mu.Unlock()
	if t.Failed() {
		t.Errorf("after operation %d failed: %+v; logged:\n%s", failAt, failed, l.said.String())
	}
	return n.Load(), failed
}

// A slow disk: what waits for it stays within QueueBytes, however many clients push.
func TestSlowDiskBoundsMemory(t *testing.T) {
	l := newLab(t)
	l.opts.QueueBytes = 1 << 20
	var slow atomic.Bool
	l.hook = func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && slow.Load() {
			<-time.After(10 * time.Millisecond) // the fault itself, not a way to wait for something
		}
		return nil
	}
	l.open()
	id := l.ensure("test/slow", stream.Policy{})
	slow.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var outstanding, highest, acked atomic.Int64
	var clients, pending sync.WaitGroup
	body := make([]byte, 1000)
	for range 32 {
		clients.Go(func() {
			for ctx.Err() == nil {
				batch := []record.Record{{Payload: body}, {Payload: body}}
				pending.Add(1)
				l.log.Append(ctx, id, batch, func(_ record.Offset, err error) {
					defer pending.Done()
					if err == nil {
						acked.Add(1)
						outstanding.Add(-2000)
					}
				})
				if ctx.Err() == nil {
					now := outstanding.Add(2000)
					for h := highest.Load(); now > h && !highest.CompareAndSwap(h, now); h = highest.Load() {
					}
				}
			}
		})
	}
	var peak uint64
	for ctx.Err() == nil {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapInuse)
		<-time.After(20 * time.Millisecond)
	}
	clients.Wait()
	pending.Wait()
	t.Logf("%d appends of 2 kB, at most %d kB waiting, heap at most %d kB", acked.Load(), highest.Load()>>10, peak>>10)
	if limit := l.opts.QueueBytes + 32*2000; highest.Load() > limit {
		t.Errorf("%d bytes waited for the disk, limit %d", highest.Load(), limit)
	}
	if peak > 48<<20 {
		t.Errorf("heap of %d MiB with a queue of 1 MiB", peak>>20)
	}
	if acked.Load() == 0 {
		t.Error("nothing was acknowledged")
	}
}

// hashOf sums up payloads, to compare what two readers saw.
func hashOf(payloads []string) uint64 {
	h := fnv.New64a()
	for _, p := range payloads {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return h.Sum64()
}

func sortedOffsets(m map[record.Offset]string) []record.Offset {
	offsets := make([]record.Offset, 0, len(m))
	for at := range m {
		offsets = append(offsets, at)
	}
	slices.Sort(offsets)
	return offsets
}
