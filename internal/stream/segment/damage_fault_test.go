package segment_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/internal/vfs"
)

// outcome is what the log must make of a damage: what it counts and says, and which of the records are gone. Everything
// else must read as it was written, and the log must open and take appends.
type outcome struct {
	lost        []int // offsets that readers get as a damaged gap; the last may be lostFrom to the end
	lostFrom    int   // with -1 none: offsets from here on are lost as well
	damaged     bool  // Stats.DamagedRanges
	torn        bool  // Stats.TornTailBytes
	rebuilt     bool  // Stats.IndexRebuilds
	quarantined bool  // the bytes were copied aside
	said        string
	nextExactly bool // the next append continues where the last one was; otherwise it may skip offsets, never reuse
}

const damageRecords = 100

// damageCase is a row of the table in docs/format/log.md.
type damageCase struct {
	name    string
	small   bool // segments of 4 KiB, so that most are sealed
	crash   bool // the process was killed; otherwise it stopped cleanly
	harm    func(d *damageLab)
	outcome func(d *damageLab) outcome
}

// damageLab is a log of damageRecords records, each appended on its own, and its files while the log is closed.
type damageLab struct {
	*lab
	id   record.StreamID
	want []string // payloads by offset
}

func whole(*damageLab) outcome { return outcome{lostFrom: -1, nextExactly: true} }

func damageCases() []damageCase {
	return []damageCase{
		{name: "nothing", harm: func(*damageLab) {}, outcome: whole},
		{name: "nothing, killed", crash: true, harm: func(*damageLab) {}, outcome: whole},
		{
			name: "torn tail: garbage behind the last commit", crash: true,
			harm:    func(d *damageLab) { d.edit(d.last(), func(b []byte) []byte { return append(b, noise(37)...) }) },
			outcome: tornTail,
		},
		{
			name: "torn tail: zeros behind the last commit", crash: true,
			harm: func(d *damageLab) {
				d.edit(d.last(), func(b []byte) []byte { return append(b, make([]byte, 5000)...) })
			},
			outcome: tornTail,
		},
		{
			name: "acknowledged tail cut off by 37 bytes",
			harm: func(d *damageLab) { d.edit(d.last(), func(b []byte) []byte { return b[:len(b)-37] }) },
			outcome: func(*damageLab) outcome {
				return outcome{lostFrom: damageRecords - 1, damaged: true, said: "damage in the log"}
			},
		},
		{name: "acknowledged tail zeroed", harm: zeroTail, outcome: tailLost},
		{name: "acknowledged tail zeroed, killed when idle", crash: true, harm: zeroTail, outcome: tailLost},
		{
			name: "bit flipped in a payload in the middle",
			harm: func(d *damageLab) { d.flip(50, func(frame, payload int) int { return payload + 3 }) }, outcome: lost(50),
		},
		{
			name: "bit flipped in a frame header in the middle", crash: true,
			harm: func(d *damageLab) { d.flip(50, func(frame, payload int) int { return frame + 20 }) }, outcome: lost(50),
		},
		{
			name: "bit flipped in a frame's length",
			harm: func(d *damageLab) { d.flip(50, func(frame, payload int) int { return frame + 10 }) }, outcome: lost(50),
		},
		{
			name: "bit flipped in a sealed segment", small: true,
			harm: func(d *damageLab) { d.flip(20, func(frame, payload int) int { return payload + 3 }) }, outcome: lost(20),
		},
		{
			name: "bit flipped in a sealed segment's frame header", small: true,
			harm: func(d *damageLab) { d.flip(20, func(frame, payload int) int { return frame }) }, outcome: lost(20),
		},
		{name: "forged frame in the payload of a damaged frame", harm: forge, outcome: lost(60)},
		{name: "a sealed segment is missing", small: true, harm: removeMiddle, outcome: middleLost},
		{
			name: "indexes are missing", small: true,
			harm:    func(d *damageLab) { d.eachIndex(func(path string, b []byte) { d.must(os.Remove(path)) }) },
			outcome: indexesRebuilt,
		},
		{
			name: "indexes are cut off", small: true, crash: true,
			harm: func(d *damageLab) {
				d.eachIndex(func(path string, b []byte) { d.must(os.Truncate(path, int64(len(b)/2))) })
			},
			outcome: indexesRebuilt,
		},
		{
			name: "indexes hold garbage", small: true,
			harm: func(d *damageLab) {
				d.eachIndex(func(path string, b []byte) { d.must(os.WriteFile(path, noise(len(b)), 0o600)) })
			},
			outcome: indexesRebuilt,
		},
		{name: "a frame of an unknown version", harm: newerFrame, outcome: lost(50)},
		{name: "the newest checkpoint is damaged", small: true, harm: spoilHead, outcome: headDamaged},
		{
			name: "the header of the only segment is zeroed",
			harm: func(d *damageLab) {
				d.edit(d.last(), func(b []byte) []byte { clear(b[:64]); return b })
			},
			outcome: headDamaged,
		},
		{
			name:    "the floor file is missing",
			harm:    func(d *damageLab) { d.must(os.Remove(filepath.Join(d.path, "short", "floor"))) },
			outcome: whole,
		},
		{
			name: "the floor file holds garbage", crash: true,
			harm: func(d *damageLab) {
				d.must(os.WriteFile(filepath.Join(d.path, "short", "floor"), noise(64), 0o600))
			},
			outcome: whole,
		},
	}
}

func tornTail(*damageLab) outcome {
	return outcome{lostFrom: -1, torn: true, said: "dropped a torn tail", nextExactly: true}
}

func lost(offsets ...int) func(*damageLab) outcome {
	return func(*damageLab) outcome {
		return outcome{lost: offsets, lostFrom: -1, damaged: true, quarantined: true, said: "damage in the log", nextExactly: true}
	}
}

func indexesRebuilt(*damageLab) outcome {
	return outcome{lostFrom: -1, rebuilt: true, said: "rebuilding", nextExactly: true}
}

func headDamaged(*damageLab) outcome {
	return outcome{lostFrom: -1, damaged: true, said: "damage in the log"}
}

const zeroedTail = 3000

func zeroTail(d *damageLab) {
	d.edit(d.last(), func(b []byte) []byte { clear(b[len(b)-zeroedTail:]); return b })
}

func tailLost(d *damageLab) outcome {
	first := slices.IndexFunc(d.want, func(p string) bool { return !bytes.Contains(d.read(d.last()), []byte(p)) })
	return outcome{lostFrom: first, damaged: true, said: "damage in the log"}
}

// forge damages the frame of record 60, whose payload holds the valid frame of record 10 as it lies in the file.
func forge(d *damageLab) {
	d.flip(60, func(frame, payload int) int { return frame + 50 })
}

func removeMiddle(d *damageLab) {
	segments := d.segments()
	d.must(os.Remove(segments[len(segments)/2]))
}

func middleLost(d *damageLab) outcome {
	o := outcome{lostFrom: -1, damaged: true, said: "damage in the log", nextExactly: true}
	for i, p := range d.want {
		if !slices.ContainsFunc(d.segments(), func(path string) bool { return bytes.Contains(d.read(path), []byte(p)) }) {
			o.lost = append(o.lost, i)
		}
	}
	return o
}

// newerFrame makes the frame of record 50 one of version 99, with a valid checksum.
func newerFrame(d *damageLab) {
	path, frame, _ := d.find(50)
	d.edit(path, func(b []byte) []byte {
		b[frame+3] = 99
		salt, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(path), ".seg")[17:], 16, 64)
		d.must(err)
		table := crc32.MakeTable(crc32.Castagnoli)
		seed := binary.LittleEndian.AppendUint64(nil, salt)
		seed = binary.LittleEndian.AppendUint64(seed, uint64(frame))
		sum := crc32.Update(crc32.Checksum(seed, table), table, b[frame:frame+116])
		binary.LittleEndian.PutUint32(b[frame+116:], sum)
		return b
	})
}

func spoilHead(d *damageLab) {
	d.edit(d.last(), func(b []byte) []byte { b[64+30] ^= 1; return b })
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func (d *damageLab) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

func (d *damageLab) read(path string) []byte {
	d.Helper()
	b, err := os.ReadFile(path)
	d.must(err)
	return b
}

func (d *damageLab) edit(path string, change func([]byte) []byte) {
	d.Helper()
	d.must(os.WriteFile(path, change(d.read(path)), 0o600))
}

// segments are the paths of the segment files, oldest first.
func (d *damageLab) segments() []string {
	d.Helper()
	paths, err := filepath.Glob(filepath.Join(d.path, "short", "*.seg"))
	d.must(err)
	slices.Sort(paths)
	return paths
}

func (d *damageLab) last() string { return d.segments()[len(d.segments())-1] }

func (d *damageLab) eachIndex(do func(path string, b []byte)) {
	d.Helper()
	paths, err := filepath.Glob(filepath.Join(d.path, "short", "*.idx"))
	d.must(err)
	if len(paths) == 0 {
		d.Fatal("no index files")
	}
	for _, path := range paths {
		do(path, d.read(path))
	}
}

// find tells where the frame of a record and its payload begin.
func (d *damageLab) find(offset int) (path string, frame, payload int) {
	d.Helper()
	for _, path := range d.segments() {
		b := d.read(path)
		payload := bytes.Index(b, []byte(d.want[offset]))
		if payload < 0 {
			continue
		}
		for frame := payload &^ 7; frame > 0; frame -= 8 {
			if string(b[frame:frame+3]) == "LeF" {
				return path, frame, payload
			}
		}
	}
	d.Fatalf("record %d is in no segment", offset)
	return "", 0, 0
}

func (d *damageLab) flip(offset int, where func(frame, payload int) int) {
	d.Helper()
	path, frame, payload := d.find(offset)
	at := where(frame, payload)
	d.edit(path, func(b []byte) []byte { b[at] ^= 0x10; return b })
}

// newDamageLab writes the log and stops it.
func newDamageLab(t *testing.T, small, crash bool) *damageLab {
	d := &damageLab{lab: newLab(t)}
	if small {
		d.opts.SegmentBytes = 4 << 10
	}
	var dead atomic.Bool
	d.hook = func(vfs.Op) error {
		if dead.Load() {
			return syscall.EIO
		}
		return nil
	}
	d.open()
	d.id = d.ensure("test/damage", stream.Policy{})
	for i := range damageRecords {
		p := fmt.Appendf(nil, "payload-%06d.", i)
		p = append(p, bytes.Repeat([]byte{byte('a' + i%26)}, 150+i)...)
		if i == 60 && !small { // a frame of the log as a client might send it back
			path, frame, payload := d.find(10)
			p = append([]byte("payload-000060."), bytes.Repeat([]byte{'x'}, 7)...)
			forged := d.read(path)[frame : payload+len(d.want[10])+8]
			if len(forged)%2 == 0 {
				forged = append(forged, 'y')
			}
			for range 8 { // copies of odd length: one of them is aligned as frames are
				p = append(p, forged...)
			}
		}
		d.append(d.id, record.Record{Time: int64(i), Payload: p})
		d.want = append(d.want, string(p))
	}
	if crash {
		d.settleFloor()
		dead.Store(true)
	}
	d.close()
	d.hook = nil
	return d
}

// settleFloor waits until the log, which is idle, has noted that it is synced to the end of the last segment.
func (d *damageLab) settleFloor() {
	d.Helper()
	size := uint64(len(d.read(d.last())))
	testenv.Wait(d, time.Minute, func() bool {
		b := d.read(filepath.Join(d.path, "short", "floor"))
		for at := 0; at+32 <= len(b); at += 32 {
			if binary.LittleEndian.Uint64(b[at+16:]) == size {
				return true
			}
		}
		return false
	}, "note that everything is synced")
}

func TestDamage(t *testing.T) {
	for _, c := range damageCases() {
		t.Run(c.name, func(t *testing.T) {
			d := newDamageLab(t, c.small, c.crash)
			c.harm(d)
			want := c.outcome(d)
			d.open()
			d.checkRecords(&want)
			d.checkReports(&want)
			first := d.append(d.id, payload(1000))
			if first < damageRecords || want.nextExactly && first != damageRecords {
				t.Errorf("the next append is at offset %d: %d were given out", first, damageRecords)
			}
			next := d.bounds(d.id).Next
			d.close()
			d.open() // what was found stays found
			d.checkRecords(&want)
			if got, _ := d.payloads(d.id, first, next); got[first] != string(payload(1000).Payload) {
				t.Errorf("the record appended after the damage reads %.40q", got[first])
			}
		})
	}
}

func (d *damageLab) checkRecords(want *outcome) {
	d.Helper()
	info, err := d.log.Lookup("test/damage")
	d.must(err)
	if info.ID != d.id {
		d.Fatalf("stream has id %v, want %v", info.ID, d.id)
	}
	next := info.Bounds.Next
	if next < damageRecords && !(want.lostFrom >= 0) {
		d.Fatalf("next offset %d after %d records", next, damageRecords)
	}
	got, gaps := d.payloads(d.id, 0, next)
	var missing []int
	for i, p := range d.want {
		have, ok := got[record.Offset(i)]
		switch {
		case !ok:
			missing = append(missing, i)
			if !slices.ContainsFunc(gaps, func(g stream.Gap) bool {
				return g.From <= record.Offset(i) && record.Offset(i) < g.To && g.Reason == stream.Damaged
			}) {
				d.Errorf("record %d is missing and in no damaged gap: %v", i, gaps)
			}
		case have != p:
			d.Errorf("record %d reads %.40q, want %.40q", i, have, p)
		}
	}
	lost := slices.Clone(want.lost)
	for i := want.lostFrom; i >= 0 && i < damageRecords; i++ {
		lost = append(lost, i)
	}
	if !slices.Equal(missing, lost) {
		d.Errorf("missing %v, want %v; gaps %v", missing, lost, gaps)
	}
}

func (d *damageLab) checkReports(want *outcome) {
	d.Helper()
	s := d.stats()
	for _, c := range []struct {
		what string
		n    int64
		want bool
	}{
		{"damaged ranges", s.DamagedRanges, want.damaged},
		{"bytes of torn tail", s.TornTailBytes, want.torn},
		{"rebuilt indexes", s.IndexRebuilds, want.rebuilt},
	} {
		if (c.n > 0) != c.want {
			d.Errorf("%d %s counted, expected some: %v", c.n, c.what, c.want)
		}
	}
	if want.said != "" {
		d.wantSaid(want.said)
	}
	quarantined, err := filepath.Glob(filepath.Join(d.path, "short", "quarantine", "*"))
	d.must(err)
	if want.quarantined && len(quarantined) == 0 {
		d.Error("nothing was copied to the quarantine directory")
	}
}

// A process killed in the middle of a write leaves half a frame: a torn tail and no damage.
func TestTornWrite(t *testing.T) {
	for _, cut := range []int{1, 50, 111, 112, 113, 200, 262} {
		l := newLab(t)
		var dying atomic.Bool
		l.hook = func(op vfs.Op) error {
			if dying.Load() {
				if op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".seg") {
					return &vfs.ShortWrite{N: cut, Err: syscall.EIO}
				}
				return syscall.EIO
			}
			return nil
		}
		l.open()
		id := l.ensure("test/torn", stream.Policy{})
		l.append(id, payload(0))
		dying.Store(true)
		_, err := stream.AppendWait(t.Context(), l.log, id, record.Record{Payload: make([]byte, 200)})
		wantKind(t, "append of a dying process", err, record.Unavailable)
		l.reopenHealthy()
		if s := l.stats(); s.TornTailBytes != int64(cut) || s.DamagedRanges != 0 {
			t.Errorf("cut at %d: %d bytes of torn tail, %d damaged ranges", cut, s.TornTailBytes, s.DamagedRanges)
		}
		l.wantSaid("dropped a torn tail")
		l.wantNext(id, 1)
		l.reopenHealthy()
		l.wantWhole()
	}
}

// A log of a newer format is refused with the remedy, and not touched.
func TestNewerFormatIsRefused(t *testing.T) {
	d := newDamageLab(t, false, false)
	d.edit(d.last(), func(b []byte) []byte {
		binary.LittleEndian.PutUint16(b[8:], 2)
		binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], crc32.MakeTable(crc32.Castagnoli)))
		return b
	})
	before := d.read(d.last())
	err := d.tryOpen()
	wantKind(t, "open", err, record.Invalid)
	if !strings.Contains(record.HintOf(err), "newer") {
		t.Errorf("hint %q of %v", record.HintOf(err), err)
	}
	if !bytes.Equal(before, d.read(d.last())) {
		t.Error("the segment was changed")
	}
}

// Damage that happens while the log is open is met by the reader.
func TestDamageWhileRunning(t *testing.T) {
	d := newDamageLab(t, true, false)
	d.open()
	d.checkRecords(&outcome{lostFrom: -1})
	d.flip(20, func(frame, payload int) int { return payload })
	d.checkRecords(&outcome{lost: []int{20}, lostFrom: -1})
	d.checkReports(&outcome{damaged: true, quarantined: true, said: "damage in the log"})
	d.checkRecords(&outcome{lost: []int{20}, lostFrom: -1})
	if n := d.stats().DamagedRanges; n != 1 {
		t.Errorf("one damage was counted %d times", n)
	}
}

// Cleaning copies what reads out of a damaged segment and keeps the rest apparent.
func TestCleaningOfDamagedSegment(t *testing.T) {
	d := newDamageLab(t, true, false)
	d.flip(95, func(frame, payload int) int { return payload })
	d.open()
	other := d.ensure("test/other", stream.Policy{})
	for i := range 40 {
		d.append(other, record.Record{Payload: noise(1000 + i)})
	}
	before := d.stats()
	change := stream.Change{Truncate: &stream.Truncate{ID: d.id, Before: 90}}
	if _, err := d.log.Commit(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	testenv.Wait(t, time.Minute, func() bool { return d.stats().Segments < before.Segments }, "segments cleaned")
	got, gaps := d.payloads(d.id, 90, damageRecords)
	for i := 90; i < damageRecords; i++ {
		if have, ok := got[record.Offset(i)]; i != 95 && (!ok || have != d.want[i]) {
			t.Errorf("record %d reads %.30q (present: %v); gaps %v", i, have, ok, gaps)
		}
	}
	if len(gaps) != 1 || gaps[0] != (stream.Gap{From: 95, To: 96, Reason: stream.Damaged}) {
		t.Errorf("gaps %v", gaps)
	}
}
