package streamtest

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// checkModel compares the engine with plain slices over random histories of append, read, sync, truncate, seal, cursors,
// delete, reopen and crash.
func checkModel(t *testing.T, open func(t testing.TB) Harness) {
	deadline := time.Now().Add(open(t).Soak)
	runModel(t, open)
	for !t.Failed() && time.Now().Before(deadline) {
		runModel(t, open)
	}
}

func runModel(t *testing.T, open func(t testing.TB) Harness) {
	rapid.Check(t, func(rt *rapid.T) {
		// The world reports to rapid, so that a failing history is shrunk; the storage belongs to the test.
		m := &model{world: newWorld(rt, open(t), Limits{}), names: map[record.StreamName]*shadow{}}
		actions := map[string]func(*rapid.T){
			"":             m.check,
			"create":       m.create1,
			"append":       m.append1,
			"append async": m.appendMany,
			"read":         m.read1,
			"sync":         m.sync1,
			"seek":         m.seek1,
			"truncate":     m.truncate1,
			"seal":         m.seal1,
			"delete":       m.delete1,
			"cursor":       m.cursor1,
		}
		if !m.h.Volatile {
			actions["reopen"] = func(*rapid.T) { m.reopen() }
			actions["kill"] = func(rt *rapid.T) { m.crash1(rt, Kill) }
			actions["power cut"] = func(rt *rapid.T) { m.crash1(rt, Power) }
			actions["kill under load"] = func(rt *rapid.T) { m.crashLoaded(rt, Kill) }
			actions["power cut under load"] = func(rt *rapid.T) { m.crashLoaded(rt, Power) }
		}
		rt.Repeat(actions)
	})
}

// shadow is what the model knows of one stream. records[i] is the record at offset i, also below first.
type shadow struct {
	id      record.StreamID
	level   stream.Durability
	records []record.Record
	first   int
	sealed  bool
	cursors map[string]stream.Cursor
	exposed int // a reader has seen offsets below this
}

type model struct {
	*world
	names  map[record.StreamName]*shadow
	gone   []record.StreamID
	serial int
}

// pick draws one of the streams, or skips when there is none.
func (m *model) pick(rt *rapid.T) (record.StreamName, *shadow) {
	if len(m.names) == 0 {
		rt.Skip("no stream")
	}
	name := rapid.SampledFrom(slices.Sorted(maps.Keys(m.names))).Draw(rt, "stream")
	return name, m.names[name]
}

func (m *model) create1(rt *rapid.T) {
	name := record.StreamName(fmt.Sprintf("model/%d", rapid.IntRange(0, 3).Draw(rt, "name")))
	p := stream.Policy{
		Durability: rapid.SampledFrom([]stream.Durability{stream.Disk, stream.OS}).Draw(rt, "level"),
		Lane:       rapid.SampledFrom([]stream.Lane{stream.Short, stream.Long}).Draw(rt, "lane"),
	}
	if m.names[name] != nil {
		m.commitFails(record.Conflict, create(name, p))
		return
	}
	m.names[name] = &shadow{id: m.create(name, p), level: p.Durability, cursors: map[string]stream.Cursor{}}
}

// batch draws records; times go back and forth, sizes from nothing to several frames.
func (m *model) batch(rt *rapid.T) []record.Record {
	n := rapid.SampledFrom([]int{0, 1, 1, 1, 2, 5, 40}).Draw(rt, "records")
	records := make([]record.Record, n)
	for i := range records {
		m.serial++
		size := rapid.SampledFrom([]int{0, 10, 100, 5000, 60_000}).Draw(rt, "size")
		records[i] = numbered("m", m.serial, 1, size)[0]
		records[i].Time = rapid.Int64Range(0, 1000).Draw(rt, "time")
	}
	return records
}

func (m *model) append1(rt *rapid.T) {
	_, s := m.pick(rt)
	batch := m.batch(rt)
	first, err := stream.AppendWait(m.soon(), m.e, s.id, batch...)
	m.appended(s, batch, outcome{first, err})
}

// appended enters an acknowledgement into the model.
func (m *model) appended(s *shadow, batch []record.Record, o outcome) {
	if s.sealed && (len(batch) > 0 || o.err != nil) {
		m.wantKind("append to a sealed stream", o.err, record.Invalid)
		return
	}
	if o.err != nil || o.first != record.Offset(len(s.records)) {
		m.Fatalf("append of %d records: offset %d, %v; want %d", len(batch), o.first, o.err, len(s.records))
	}
	s.records = append(s.records, batch...)
}

// pending is an append whose acknowledgement was not looked at yet.
type pending struct {
	s     *shadow
	batch []record.Record
	ack   <-chan outcome
}

// startAppends has several appends under way at once.
func (m *model) startAppends(rt *rapid.T) (all []pending) {
	for range rapid.IntRange(2, 20).Draw(rt, "appends") {
		_, s := m.pick(rt)
		batch := m.batch(rt)
		all = append(all, pending{s, batch, m.appendAsync(m.soon(), s.id, batch)})
	}
	return all
}

func (m *model) appendMany(rt *rapid.T) {
	for _, p := range m.startAppends(rt) {
		m.appended(p.s, p.batch, await(m.world, p.ack, "acknowledgement"))
	}
}

func (m *model) read1(rt *rapid.T) {
	_, s := m.pick(rt)
	b := m.bounds(s.id)
	from := record.Offset(rapid.IntRange(0, len(s.records)).Draw(rt, "from"))
	if from >= b.Readable {
		if s.sealed && from == b.Readable && b.Readable == b.Next {
			m.wantEnd(s.id, from)
		}
		return
	}
	m.compare(s, from, b.Readable, rapid.SampledFrom([]int{1, 1000, 100_000, 1 << 20}).Draw(rt, "bytes"))
}

func (m *model) sync1(rt *rapid.T) {
	_, s := m.pick(rt)
	m.sync(s.id)
	if b := m.bounds(s.id); int(b.Readable) != len(s.records) {
		m.Fatalf("after sync: bounds %+v, %d records were acknowledged", b, len(s.records))
	}
	s.exposed = len(s.records)
}

// compare reads [from, to) and holds it against the model.
func (m *model) compare(s *shadow, from, to record.Offset, maxBytes int) {
	got, gaps := m.read(s.id, from, to, maxBytes)
	if first := record.Offset(s.first); from < first {
		if len(gaps) != 1 || gaps[0] != (stream.Gap{From: from, To: first, Reason: stream.Dropped}) {
			m.Fatalf("read from %d, first kept %d: gaps %v", from, first, gaps)
		}
		from = first
	} else if len(gaps) > 0 {
		m.Fatalf("read from %d, first kept %d: gaps %v", from, first, gaps)
	}
	end := from + record.Offset(len(got)) // at level OS, more may have become readable than there was before
	if end < to || end > record.Offset(len(s.records)) {
		m.Fatalf("read [%d, %d) gave [%d, %d)", from, to, from, end)
	}
	m.sameRecords(from, got, s.records[from:end])
	s.exposed = max(s.exposed, int(end))
}

func (m *model) seek1(rt *rapid.T) {
	_, s := m.pick(rt)
	m.settle(s.id)
	t := rapid.Int64Range(-1, 1001).Draw(rt, "time")
	want := s.first
	for want < len(s.records) && s.records[want].Time < t {
		want++
	}
	m.wantSeek(s.id, t, record.Offset(want))
}

func (m *model) truncate1(rt *rapid.T) {
	_, s := m.pick(rt)
	before := record.Offset(rapid.IntRange(0, len(s.records)+1).Draw(rt, "before"))
	if before > record.Offset(len(s.records)) {
		m.commitFails(record.Invalid, truncate(s.id, before))
		return
	}
	m.settle(s.id)
	m.commit(truncate(s.id, before))
	s.first, s.exposed = max(s.first, int(before)), max(s.exposed, int(before))
}

func (m *model) seal1(rt *rapid.T) {
	_, s := m.pick(rt)
	if rapid.IntRange(0, 3).Draw(rt, "really") > 0 {
		rt.Skip("sealing rarely")
	}
	m.commit(seal(s.id))
	s.sealed = true
}

func (m *model) delete1(rt *rapid.T) {
	name, s := m.pick(rt)
	if rapid.IntRange(0, 2).Draw(rt, "really") > 0 {
		rt.Skip("deleting rarely")
	}
	m.commit(remove(s.id))
	delete(m.names, name)
	m.gone = append(m.gone, s.id)
}

func (m *model) cursor1(rt *rapid.T) {
	_, s := m.pick(rt)
	name := rapid.SampledFrom([]string{"a", "b", "export/c"}).Draw(rt, "cursor")
	if rapid.IntRange(0, 4).Draw(rt, "delete") == 0 {
		if err := m.e.DeleteCursor(m.soon(), s.id, name); err != nil {
			m.Fatalf("delete cursor: %v", err)
		}
		delete(s.cursors, name)
		return
	}
	m.settle(s.id)
	c := stream.Cursor{
		Offset: record.Offset(rapid.IntRange(0, len(s.records)).Draw(rt, "offset")),
		State:  make([]byte, rapid.SampledFrom([]int{0, 3, 1000}).Draw(rt, "state")),
	}
	m.store(s.id, name, c)
	s.cursors[name] = c
	s.exposed = max(s.exposed, int(c.Offset))
}

// crash1 ends the engine and adopts what the crash may have taken: records at level OS that nobody has seen.
func (m *model) crash1(_ *rapid.T, cut Cut) {
	acked := make(map[*shadow]int)
	for _, s := range m.names {
		acked[s] = len(s.records)
	}
	m.crash(cut)
	m.adopt(cut, acked)
}

// crashLoaded ends the engine while appends are under way: those acknowledged before count, of the rest the engine may
// have kept the first ones.
func (m *model) crashLoaded(rt *rapid.T, cut Cut) {
	all := m.startAppends(rt)
	m.crash(cut)
	acked := make(map[*shadow]int)
	for _, s := range m.names {
		acked[s] = len(s.records)
	}
	for _, p := range all {
		o := await(m.world, p.ack, "answer of an engine that has ended")
		if p.s.sealed {
			continue
		}
		if o.err == nil && len(p.batch) > 0 && int(o.first) != len(p.s.records) {
			m.Fatalf("append while the engine ends: offset %d, want %d", o.first, len(p.s.records))
		}
		p.s.records = append(p.s.records, p.batch...)
		if o.err == nil {
			acked[p.s] = max(acked[p.s], int(o.first)+len(p.batch))
		} else if kind := record.KindOf(o.err); kind != record.Unavailable {
			m.Fatalf("append to an engine that ends: %v", o.err)
		}
	}
	m.adopt(cut, acked)
}

// adopt holds the engine after a crash against what was acknowledged and seen before it, and takes over what it kept.
func (m *model) adopt(cut Cut, acked map[*shadow]int) {
	for name, s := range m.names {
		next := int(m.bounds(s.id).Next)
		switch {
		case next > len(s.records):
			m.Fatalf("%s: next offset %d after the crash, %d before it", name, next, len(s.records))
		case next < acked[s] && (cut == Kill || s.level == stream.Disk || s.sealed):
			m.Fatalf("%s: %d records left, %d were acknowledged", name, next, acked[s])
		case next < s.exposed:
			m.Fatalf("%s: %d records left, a reader has seen %d", name, next, s.exposed)
		}
		s.records = s.records[:next]
		m.compare(s, record.Offset(s.first), record.Offset(next), 1<<20)
	}
}

// check holds after every step: streams, bounds and cursors are those of the model, and what is readable can be read.
func (m *model) check(*rapid.T) {
	m.wantNames("", slices.Sorted(maps.Keys(m.names))...)
	for name, s := range m.names {
		if info := m.lookup(name); info.ID != s.id {
			m.Fatalf("%s has id %v, want %v", name, info.ID, s.id)
		}
		b := m.bounds(s.id)
		if int(b.First) != s.first || int(b.Next) != len(s.records) || b.Readable > b.Next || b.Sealed != s.sealed {
			m.Fatalf("%s: bounds %+v, want [%d, %d), sealed %v", name, b, s.first, len(s.records), s.sealed)
		}
		var bytes int64
		for i := s.first; i < len(s.records); i++ {
			bytes += int64(s.records[i].Size())
		}
		if b.Bytes < bytes || s.first == len(s.records) && b.Bytes != 0 {
			m.Fatalf("%s: %d bytes counted, %d kept", name, b.Bytes, bytes)
		}
		m.checkCursors(name, s)
		if from := max(s.first, s.exposed-3); record.Offset(from) < b.Readable {
			m.compare(s, record.Offset(from), b.Readable, 1<<20)
		}
	}
	if n := len(m.gone); n > 0 {
		_, err := m.e.Bounds(m.gone[n-1])
		m.wantKind("bounds of a deleted stream", err, record.NotFound)
	}
}

func (m *model) checkCursors(name record.StreamName, s *shadow) {
	offsets, err := m.e.ListCursors(s.id)
	if err != nil || len(offsets) != len(s.cursors) {
		m.Fatalf("%s: cursors %v, %v; want %d", name, offsets, err, len(s.cursors))
	}
	for c, want := range s.cursors {
		m.wantCursor(s.id, c, want)
		if offsets[c] != want.Offset {
			m.Fatalf("%s: cursor %s listed at %d, want %d", name, c, offsets[c], want.Offset)
		}
	}
}
