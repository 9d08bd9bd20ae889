package segment_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	"github.com/leat-io/leat/internal/stream/streamtest"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

// These tests hold the log at one instant between two of its steps, and end it or change something there.

// switchable is a hook that can be exchanged while the log runs.
type switchable struct{ hook atomic.Pointer[vfs.Hook] }

func (s *switchable) call(op vfs.Op) error {
	if h := s.hook.Load(); h != nil {
		return (*h)(op)
	}
	return nil
}

func (s *switchable) set(h vfs.Hook) { s.hook.Store(&h) }

// kill ends the log as kill -9 does: nothing that it still wants to write arrives.
func (l *lab) kill(s *switchable) {
	l.Helper()
	s.set(func(vfs.Op) error { return errCut })
	l.close()
	s.set(func(vfs.Op) error { return nil })
}

func (l *lab) segmentFiles() []string {
	l.Helper()
	paths, err := filepath.Glob(filepath.Join(l.path, "short", "*.seg"))
	if err != nil {
		l.Fatal(err)
	}
	slices.Sort(paths)
	return paths
}

func isSegment(name string) bool { return strings.HasSuffix(name, ".seg") }

// When making room for a control commit starts a new segment, the commit is part of that segment's checkpoint.
func TestReclaimThatRollsKeepsTheCommitItFollows(t *testing.T) {
	l, disk := newLab(t), &switchable{}
	l.hook = disk.call
	l.opts.MaxBytes, l.opts.MaintainInterval = 2<<20, time.Hour
	l.open()
	const limit = 256 << 10 // an eighth of MaxBytes
	id := l.ensure("test/drop", stream.Policy{OnFull: stream.DropOldest})
	// Bytes of the other lane, so that the budget is reached before a segment is full and not just then.
	l.append(l.ensure("test/other", stream.Policy{Lane: stream.Long}), record.Record{Payload: make([]byte, 35<<10)})
	const framing = 120 + 1 + 8 + 2 + 3 + 3 // header, step, id, name, offset (about), length of the state
	for tries := 0; ; tries++ {
		if tries > 5000 {
			t.Fatal("the lane never came to where a commit fills its segment and exceeds the budget")
		}
		files := l.segmentFiles()
		st, err := os.Stat(files[len(files)-1])
		if err != nil {
			t.Fatal(err)
		}
		room := limit - st.Size()
		if room > 10<<10 && room < 60<<10 && l.log.Stats()[0].Physical+l.log.Stats()[1].Physical+room > l.opts.MaxBytes+1024 {
			state := bytes.Repeat([]byte{7}, int(room)-framing-16)
			if err := l.log.StoreCursor(t.Context(), id, "c", stream.Cursor{Offset: l.bounds(id).Next, State: state}); err != nil {
				t.Fatal(err)
			}
			if now := l.segmentFiles(); now[len(now)-1] == files[len(files)-1] {
				testenv.Wait(t, 10*time.Second, func() bool {
					now := l.segmentFiles()
					return now[len(now)-1] != files[len(files)-1]
				}, "a new segment: the commit was to fill the old one")
			}
			break
		}
		l.append(id, record.Record{Payload: make([]byte, 3<<10)})
	}
	l.kill(disk)
	l.open()
	if _, err := l.log.LoadCursor(id, "c"); err != nil {
		t.Errorf("a cursor whose storing was acknowledged: %v", err)
	}
}

// Records that expire while a segment is being sealed do not spoil its index.
func TestExpiryWhileASegmentIsSealed(t *testing.T) {
	l, disk := newLab(t), &switchable{}
	clk := clock.NewFake(streamtest.Now())
	start := clk.Read().Wall
	l.hook, l.opts.Clock, l.opts.SegmentBytes, l.opts.MaintainInterval = disk.call, clk, 2<<20, time.Millisecond
	l.open()
	id := l.ensure("test/age", stream.Policy{Durability: stream.OS, MaxAge: time.Hour})
	files := len(l.segmentFiles())
	var once sync.Once
	disk.set(func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && isSegment(op.Name) && len(l.segmentFiles()) > files {
			once.Do(func() {
				clk.Advance(time.Hour + 100*time.Second)
				testenv.Wait(t, 10*time.Second, func() bool {
					b, err := l.log.Bounds(id)
					return err == nil && b.First > 0
				}, "expiry during the roll")
			})
		}
		return nil
	})
	const records = 530 // a few more than a segment holds; too few expire for it to be cleaned
	for i := range records {
		r := payload(i)
		r.Time = start + int64(i)*int64(time.Second)
		r.Payload = append(r.Payload, make([]byte, 4<<10)...)
		l.append(id, r)
	}
	if n := len(l.segmentFiles()); n != files+1 {
		t.Fatalf("%d segments: the test is about one roll", n)
	}
	first := l.bounds(id).First
	if first == 0 || first > records/4 {
		t.Fatalf("first offset %d: the test is about the oldest groups of the segment", first)
	}
	var c stream.Chunk
	for at := first; at < records; at++ { // each by its own way through the index
		err := l.log.Read(t.Context(), id, at, 1, &c)
		if err != nil || len(c.Gaps) > 0 || !bytes.HasPrefix(c.Records[0].Payload, payload(int(at)).Payload) {
			t.Fatalf("read of offset %d: %v, gaps %v", at, err, c.Gaps)
		}
	}
}

// An index is never synced: after a power cut any of its pages may be zeros, also of the directory.
func TestIndexWithAZeroedDirectoryPage(t *testing.T) {
	l := newLab(t)
	l.opts.SegmentBytes = 256 << 10
	l.open()
	const streams = 400
	var ids []record.StreamID
	for i := range streams {
		ids = append(ids, l.ensure(record.StreamName(fmt.Sprintf("test/%03d", i)), stream.Policy{Durability: stream.OS}))
	}
	for i, id := range ids {
		l.append(id, payload(i))
	}
	for range 3 {
		l.append(ids[0], record.Record{Payload: make([]byte, 200<<10)})
	}
	l.close()
	indexes, err := filepath.Glob(filepath.Join(l.path, "short", "*.idx"))
	if err != nil || len(indexes) == 0 {
		t.Fatalf("indexes: %v, %v", indexes, err)
	}
	for _, path := range indexes {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 8192 {
			clear(b[4096:8192])
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.open()
	for i, id := range ids {
		got, gaps := l.payloads(id, 0, 1)
		if len(gaps) > 0 || got[0] != string(payload(i).Payload) {
			t.Fatalf("stream %d: read %q, gaps %v", i, got[0], gaps)
		}
	}
	if s := l.stats(); s.DamagedRanges != 0 || s.IndexRebuilds == 0 {
		t.Errorf("%d damaged ranges, %d indexes rebuilt", s.DamagedRanges, s.IndexRebuilds)
	}
}

// A segment whose creation failed and that cannot be removed either must not pass for the newest one later.
func TestAbortedSegmentThatCannotBeRemoved(t *testing.T) {
	l, disk := newLab(t), &switchable{}
	l.hook, l.opts.SegmentBytes = disk.call, 8<<10
	l.open()
	id := l.ensure("test/abort", stream.Policy{})
	book := newLedger()
	var broken atomic.Int64
	disk.set(func(op vfs.Op) error {
		if op.Kind == vfs.OpSyncDir && op.Name == "short/." || op.Kind == vfs.OpRemove && isSegment(op.Name) {
			broken.Add(1)
			return syscall.EIO
		}
		return nil
	})
	for i := 0; broken.Load() == 0; i++ {
		r := record.Record{Payload: fmt.Appendf(nil, "before %d %3000d", i, i)}
		if first, err := stream.AppendWait(t.Context(), l.log, id, r); err == nil {
			book.note(id, first, []record.Record{r})
		}
	}
	for i := range 3 { // small enough for what room the segment has left
		r := record.Record{Payload: fmt.Appendf(nil, "after %d", i)}
		if first, err := stream.AppendWait(t.Context(), l.log, id, r); err == nil {
			book.note(id, first, []record.Record{r})
		}
	}
	l.kill(disk)
	l.open()
	book.check(l)
}

// Recovery makes durable what it found before it removes files because of it.
func TestRecoverySyncsBeforeItRemoves(t *testing.T) {
	l, disk := newLab(t), &switchable{}
	l.hook, l.opts.SegmentBytes = disk.call, 8<<10
	l.open()
	id := l.ensure("test/leftover", stream.Policy{})
	for i := range 30 {
		l.append(id, record.Record{Payload: make([]byte, 1000+i)})
	}
	var kept atomic.Int64
	disk.set(func(op vfs.Op) error {
		if op.Kind == vfs.OpRemove && isSegment(op.Name) {
			kept.Add(1)
			return syscall.EIO
		}
		return nil
	})
	if _, err := l.log.Commit(t.Context(), stream.Change{Truncate: &stream.Truncate{ID: id, Before: 30}}); err != nil {
		t.Fatal(err)
	}
	testenv.Wait(t, 10*time.Second, func() bool { return kept.Load() > 0 }, "segments dropped")
	l.kill(disk)
	var mu sync.Mutex
	var ops []vfs.Kind
	disk.set(func(op vfs.Op) error {
		if isSegment(op.Name) {
			mu.Lock()
			defer mu.Unlock()
			ops = append(ops, op.Kind)
		}
		return nil
	})
	l.open()
	mu.Lock()
	defer mu.Unlock()
	sync, remove := slices.Index(ops, vfs.OpSync), slices.Index(ops, vfs.OpRemove)
	if remove < 0 || sync < 0 || remove < sync {
		t.Errorf("first remove is operation %d, first sync %d", remove, sync)
	}
}

// When the newest checkpoint is damaged a new segment is begun; the one before it, which no fsync may have covered to
// its end, is synced first.
func TestRecoverySyncsASegmentWhoseHeadIsDamaged(t *testing.T) {
	d := newDamageLab(t, true, true)
	spoilHead(d)
	name := "short/" + filepath.Base(d.last())
	var synced atomic.Bool
	d.hook = func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && op.Name == name {
			synced.Store(true)
		}
		return nil
	}
	d.open()
	if !synced.Load() {
		t.Errorf("%s was shown to readers without a sync", name)
	}
}

// Truncations that could not be logged because the disk was full are logged later.
func TestTruncationThatCouldNotBeLoggedIsNotForgotten(t *testing.T) {
	l, disk := newLab(t), &switchable{}
	l.hook = disk.call
	l.open()
	id := l.ensure("test/lazy", stream.Policy{UntilExported: true})
	for i := range 100 {
		l.append(id, payload(i))
	}
	var refused atomic.Int64
	if err := l.log.StoreCursor(t.Context(), id, "export/x", stream.Cursor{Offset: 50}); err != nil {
		t.Fatal(err)
	}
	disk.set(func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite && isSegment(op.Name) {
			refused.Add(1)
			return syscall.ENOSPC
		}
		return nil
	})
	testenv.Wait(t, 10*time.Second, func() bool { return refused.Load() > 0 }, "an attempt to log the truncation")
	disk.set(func(vfs.Op) error { return nil })
	l.append(id, payload(100))
	l.kill(disk)
	l.open()
	if b := l.bounds(id); b.First != 50 {
		t.Errorf("bounds %+v after a crash, want first 50", b)
	}
}

// Offsets that were skipped because of damage stay skipped when the power goes right after the start.
func TestSkippedOffsetsSurviveAPowerCut(t *testing.T) {
	d := newDamageLab(t, false, false)
	d.open()
	lax := d.ensure("test/lax", stream.Policy{Durability: stream.OS})
	for i := range 30 {
		d.append(d.id, record.Record{Payload: make([]byte, 200+i)})
	}
	d.close()
	zeroTail(d)
	disk := &cutDisk{path: d.path, synced: map[string]int64{}}
	d.hook, d.opts.SyncInterval = disk.hook, time.Hour
	floor := filepath.Join(d.path, "short", "floor")
	before := d.read(floor)
	d.open()
	next := d.bounds(d.id).Next
	if next <= damageRecords+30 {
		t.Fatalf("next offset %d: nothing was skipped", next)
	}
	d.append(lax, payload(0)) // not synced; the lane notes the floor when it has rested after it
	testenv.Wait(t, 10*time.Second, func() bool { return !bytes.Equal(d.read(floor), before) }, "the floor noted")
	last := "short/" + filepath.Base(d.last())
	disk.kill()
	d.close()
	if err := os.Truncate(filepath.Join(d.path, last), disk.synced[last]); err != nil {
		t.Fatal(err)
	}
	d.hook = nil
	d.open()
	if b := d.bounds(d.id); b.Next < next {
		t.Errorf("next offset %d after the power cut, %d before it", b.Next, next)
	}
}

// What is written but not yet synced counts once against a stream's limit.
func TestRecordsInFlightCountOnce(t *testing.T) {
	l, disk := newLab(t), &switchable{}
	l.hook = disk.call
	l.open()
	id := l.ensure("test/limit", stream.Policy{MaxBytes: 1000})
	arrived, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	disk.set(func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && isSegment(op.Name) {
			once.Do(func() {
				close(arrived)
				<-release
			})
		}
		return nil
	})
	acks := make(chan error, 2)
	done := func(_ record.Offset, err error) { acks <- err }
	l.log.Append(t.Context(), id, []record.Record{{Payload: make([]byte, 600)}}, done)
	<-arrived
	l.log.Append(t.Context(), id, []record.Record{{Payload: make([]byte, 300)}}, done)
	close(release)
	if err := errors.Join(<-acks, <-acks); err != nil {
		t.Errorf("900 of 1000 bytes: %v", err)
	}
	_, err := stream.AppendWait(t.Context(), l.log, id, record.Record{Payload: make([]byte, 101)})
	wantKind(t, "1001 of 1000 bytes", err, record.Full)
}

// A truncation in the same commit as appends takes nothing off what they add.
func TestTruncationBesideAppendsCountsBytes(t *testing.T) {
	l, disk := newLab(t), &switchable{}
	l.hook = disk.call
	l.open()
	for i := range 10 {
		id := l.ensure(record.StreamName(fmt.Sprint("test/", i)), stream.Policy{})
		for range 10 {
			l.append(id, record.Record{Payload: make([]byte, 100)})
		}
		arrived, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		disk.set(func(op vfs.Op) error {
			if op.Kind == vfs.OpSync && isSegment(op.Name) {
				once.Do(func() {
					close(arrived)
					<-release
				})
			}
			return nil
		})
		var wait sync.WaitGroup
		wait.Add(2)
		l.log.Append(t.Context(), id, []record.Record{{Payload: make([]byte, 100)}}, func(record.Offset, error) { wait.Done() })
		<-arrived
		l.log.Append(t.Context(), id, []record.Record{{Payload: make([]byte, 500)}}, func(record.Offset, error) { wait.Done() })
		wait.Go(func() {
			if _, err := l.log.Commit(t.Context(), stream.Change{Truncate: &stream.Truncate{ID: id, Before: 5}}); err != nil {
				t.Error(err)
			}
		})
		testenv.Wait(t, 30*time.Second, func() bool { return l.log.Queued(stream.Short) == 2 }, "append and truncation queued together")
		close(release)
		wait.Wait()
		if b := l.bounds(id); b.Bytes != 1100 {
			t.Errorf("bounds %+v, want 1100 bytes", b)
		}
	}
}

// A sealed stream whose newest records were damaged ends with a gap and not as if they had never been.
func TestSealedStreamThatLostItsEndTellsSo(t *testing.T) {
	d := &damageLab{lab: newLab(t)}
	d.open()
	d.id = d.ensure("test/sealed", stream.Policy{})
	other := d.ensure("test/sealed-before", stream.Policy{})
	d.append(other, payload(0))
	if _, err := d.log.Commit(t.Context(), stream.Change{Seal: &stream.Seal{ID: other}}); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		d.want = append(d.want, string(payload(i).Payload))
		d.append(d.id, record.Record{Payload: payload(i).Payload})
	}
	if _, err := d.log.Commit(t.Context(), stream.Change{Seal: &stream.Seal{ID: d.id}}); err != nil {
		t.Fatal(err)
	}
	d.close()
	d.flip(9, func(frame, _ int) int { return frame + 20 })
	d.open()
	var c stream.Chunk
	if err := d.log.Read(t.Context(), d.id, 9, 1<<20, &c); err != nil || len(c.Gaps) != 1 || c.Gaps[0].Reason != stream.Damaged {
		t.Errorf("read where a record was damaged: %v, gaps %v", err, c.Gaps)
	} else if err := d.log.Read(t.Context(), d.id, c.Next, 1<<20, &c); !errors.Is(err, stream.ErrEnd) {
		t.Errorf("read behind the gap: %v", err)
	}
	if b := d.bounds(other); b.Next != 1 {
		t.Errorf("a stream sealed before the damage: %+v", b)
	}
}

// The directory of a lane is durable before anything in it is acknowledged.
func TestDirectoriesOfLanesAreSynced(t *testing.T) {
	l := newLab(t)
	var synced atomic.Bool
	l.hook = func(op vfs.Op) error {
		if op.Kind == vfs.OpSyncDir && (op.Name == "." || op.Name == "") {
			synced.Store(true)
		}
		return nil
	}
	l.open()
	if !synced.Load() {
		t.Error("the directory that holds the lanes was not synced")
	}
}

// An index that was left without its segment is removed at the next start.
func TestIndexWithoutSegmentIsRemoved(t *testing.T) {
	l := newLab(t)
	l.open()
	l.close()
	orphan := filepath.Join(l.path, "short", fmt.Sprintf("%016x-%016x.idx", 99, binary.LittleEndian.Uint64([]byte("orphaned"))))
	if err := os.WriteFile(orphan, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	l.open()
	if _, err := os.Stat(orphan); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", orphan, err)
	}
}

// tickingClock counts how often it is read: once by each round of maintenance, among others.
type tickingClock struct {
	clock.Clock
	reads atomic.Int64
}

func (c *tickingClock) Read() clock.Reading {
	c.reads.Add(1)
	return c.Clock.Read()
}

// Expiry does not look again at frames that it knows to be young, and a record of the far future hides others no longer
// than it is there itself.
func TestExpiryLooksWhenSomethingCanHaveExpired(t *testing.T) {
	l := newLab(t)
	fake := clock.NewFake(streamtest.Now())
	clk := &tickingClock{Clock: fake}
	start := fake.Read().Wall
	var reads atomic.Int64
	l.hook = func(op vfs.Op) error {
		if op.Kind == vfs.OpRead && isSegment(op.Name) {
			reads.Add(1)
		}
		return nil
	}
	l.opts.Clock, l.opts.MaintainInterval = clk, time.Millisecond
	l.open()
	id := l.ensure("test/age", stream.Policy{MaxAge: time.Hour})
	l.append(id, record.Record{Time: start + int64(1000*time.Hour), Payload: []byte("future")})
	for i := range 10 {
		l.append(id, record.Record{Time: start + int64(i), Payload: []byte("x")})
	}
	rounds := func(n int64) {
		t.Helper()
		end := clk.reads.Load() + n
		testenv.Wait(t, 20*time.Second, func() bool { return clk.reads.Load() >= end }, "maintenance")
	}
	rounds(20)
	before := reads.Load()
	rounds(100)
	if n := reads.Load() - before; n > 0 {
		t.Errorf("%d reads in rounds in which nothing could expire", n)
	}
	fake.Advance(2 * time.Hour)
	rounds(10)
	if b := l.bounds(id); b.First != 0 {
		t.Errorf("bounds %+v: the oldest record is of the future", b)
	}
	if _, err := l.log.Commit(t.Context(), stream.Change{Truncate: &stream.Truncate{ID: id, Before: 1}}); err != nil {
		t.Fatal(err)
	}
	testenv.Wait(t, 20*time.Second, func() bool { return l.bounds(id).First == 11 }, "expiry behind the record of the future")
}

// Seek goes past a segment that has disappeared, as Read does.
func TestSeekPastAMissingSegment(t *testing.T) {
	d := newDamageLab(t, true, false)
	d.open()
	segments := d.segments()
	missing := segments[len(segments)/2]
	var kept []byte
	for _, path := range segments {
		if path != missing {
			kept = append(kept, d.read(path)...)
		}
	}
	lost := slices.IndexFunc(d.want, func(p string) bool { return !bytes.Contains(kept, []byte(p)) })
	d.must(os.Remove(missing))
	d.must(os.Remove(strings.TrimSuffix(missing, ".seg") + ".idx"))
	at, err := d.log.Seek(t.Context(), d.id, time.Unix(0, int64(lost)))
	if err != nil || int(at) <= lost || int(at) >= damageRecords {
		t.Errorf("seek of a lost record's time: %d, %v; the first lost one is %d", at, err, lost)
	}
}

// A creation whose caller went away still keeps its name from the other lane.
func TestNameOfACreationThatNobodyWaitsFor(t *testing.T) {
	l, disk := newLab(t), &switchable{}
	l.hook = disk.call
	l.open()
	arrived, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	disk.set(func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && strings.HasPrefix(op.Name, "short/") && isSegment(op.Name) {
			once.Do(func() {
				close(arrived)
				<-release
			})
		}
		return nil
	})
	create := func(ctx context.Context, lane stream.Lane) error {
		_, err := l.log.Commit(ctx, stream.Change{Create: &stream.Create{Name: "test/name", Policy: stream.Policy{Lane: lane}}})
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- create(ctx, stream.Short) }()
	<-arrived
	cancel()
	wantKind(t, "creation that is not waited for", <-first, record.Unavailable)
	go func() { second <- create(t.Context(), stream.Long) }()
	select { // a moment in which the other lane, whose disk is free, would create it
	case err := <-second:
		t.Errorf("created in the other lane while undecided: %v", err)
		close(release)
	case <-time.After(50 * time.Millisecond):
		close(release)
		wantKind(t, "creation of a name that is taken", <-second, record.Conflict)
	}
}
