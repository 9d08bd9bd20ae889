package streamtest

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

func appendCases() []testCase {
	return []testCase{
		{name: "offsets are dense from 0 and a batch is one unit", run: appendDense},
		{name: "records come back as they were given", run: appendRoundTrip},
		{name: "slices may be reused once Append has returned", run: appendCopies},
		{name: "done runs exactly once and in order", run: appendOrder},
		{name: "an empty batch is acknowledged with the next offset after what was before it", run: appendEmpty},
		{name: "a record that is too large is Invalid and appends nothing", run: appendLargeRecord},
		{name: "a batch that is too large is Invalid and appends nothing", run: appendLargeBatch},
		{name: "an unknown stream is NotFound", run: appendUnknown},
		{name: "a full queue blocks Append until there is room", limits: Limits{QueueBytes: 64 << 10}, run: appendBlocks},
		{name: "waiting for admission can be cancelled", limits: Limits{QueueBytes: 64 << 10}, run: appendCancel},
		{name: "a batch above the queue's limit is admitted alone", limits: Limits{QueueBytes: 64 << 10}, run: appendAlone},
		{name: "origins tell when records were appended together", run: appendOrigins},
		{name: "level OS is acknowledged, and readable soon after", run: appendOS},
	}
}

func appendDense(w *world) {
	id := w.create("test/dense", stream.Policy{})
	var want []record.Record
	for i, n := range []int{1, 3, 500, 1, 2} {
		batch := numbered("dense", len(want), n, 0)
		if first := w.append(id, batch...); first != record.Offset(len(want)) {
			w.Fatalf("batch %d begins at offset %d, want %d", i, first, len(want))
		}
		want = append(want, batch...)
	}
	w.wantBounds(id, 0, record.Offset(len(want)))
	w.wantRecords(id, 0, want)
	w.wantRecords(id, 250, want[250:])
}

func appendRoundTrip(w *world) {
	id := w.create("test/values", stream.Policy{})
	long := make([]byte, 300_000)
	for i := range long {
		long[i] = byte(i * 7)
	}
	want := []record.Record{
		{},
		{Time: -1, Payload: []byte{0}},
		{Time: math.MaxInt64, Key: []byte("late")},
		{Time: math.MinInt64, Key: []byte("early")},
		{Time: 1, Key: make([]byte, record.MaxKey), Payload: long},
		{Time: 2, Attributes: record.Attributes(nil).Append("", "").Append("name", "value\x00")},
		{Time: 3, Key: []byte("k"), Payload: []byte("p"), Attributes: record.Attributes(nil).Append("a", string(long))},
	}
	w.append(id, want...)
	for i := range want {
		w.append(id, want[i])
	}
	w.wantRecords(id, 0, slices.Concat(want, want))

	largest := record.Record{Time: 4, Key: make([]byte, record.MaxKey), Payload: make([]byte, record.MaxPayload)}
	largest.Payload[record.MaxPayload-1] = 1
	at := w.append(id, text("before"), largest, text("after"))
	w.wantRecords(id, at, []record.Record{text("before"), largest, text("after")})
}

func appendCopies(w *world) {
	id := w.create("test/copies", stream.Policy{})
	var want []record.Record
	var acks []<-chan outcome
	batch := make([]record.Record, 10)
	for i := range 100 {
		for j, r := range numbered("copy", i*len(batch), len(batch), 50) {
			want = append(want, clone(&r))
			batch[j] = r
		}
		acks = append(acks, w.appendAsync(w.soon(), id, batch))
		for j := range batch {
			clear(batch[j].Payload)
			clear(batch[j].Key)
			clear(batch[j].Attributes)
			batch[j].Time = 0
		}
	}
	for _, ack := range acks {
		if o := await(w, ack, "acknowledgement"); o.err != nil {
			w.Fatal(o.err)
		}
	}
	w.wantRecords(id, 0, want)
}

func appendOrder(w *world) {
	const appends, streams = 3000, 3
	var (
		mu    sync.Mutex
		seen  [streams][]int
		first [streams][]record.Offset
		left  sync.WaitGroup
		sizes [appends]int
	)
	left.Add(appends)
	ids := []record.StreamID{
		w.create("test/a", stream.Policy{}), w.create("test/b", stream.Policy{Durability: stream.OS}), w.create("test/c", stream.Policy{}),
	}
	for i := range appends {
		s := i % streams
		sizes[i] = i / streams % 4
		w.e.Append(w.soon(), ids[s], numbered("o", i, sizes[i], 20), func(at record.Offset, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				w.Errorf("append %d: %v", i, err)
			}
			seen[s], first[s] = append(seen[s], i), append(first[s], at)
			left.Done() // panics when done runs more often than there were appends
		})
	}
	left.Wait()
	w.close()
	mu.Lock()
	defer mu.Unlock()
	for s := range ids {
		var next record.Offset
		for k, i := range seen[s] {
			if i != k*streams+s {
				w.Fatalf("stream %d: acknowledgement %d was for append %d", s, k, i)
			}
			if first[s][k] != next {
				w.Fatalf("stream %d: append %d was acknowledged at offset %d, want %d", s, i, first[s][k], next)
			}
			next += record.Offset(sizes[i])
		}
		if len(seen[s]) != appends/streams {
			w.Fatalf("stream %d: %d acknowledgements, want %d", s, len(seen[s]), appends/streams)
		}
	}
}

func appendEmpty(w *world) {
	id := w.create("test/empty", stream.Policy{})
	if first := w.append(id); first != 0 {
		w.Fatalf("empty batch on an empty stream: offset %d", first)
	}
	before := w.appendAsync(w.soon(), id, numbered("e", 0, 100, 100))
	empty := w.appendAsync(w.soon(), id, nil)
	if o := await(w, empty, "acknowledgement of the empty batch"); o.err != nil || o.first != 100 {
		w.Fatalf("empty batch: offset %d, %v; want 100", o.first, o.err)
	}
	select {
	case o := <-before:
		if o.err != nil {
			w.Fatal(o.err)
		}
	default:
		w.Fatal("the empty batch was acknowledged before the batch in front of it")
	}
	w.wantBounds(id, 0, 100)
}

func appendLargeRecord(w *world) {
	id := w.create("test/large", stream.Policy{})
	good := text("good")
	w.appendFails(record.Invalid, id, good, record.Record{Payload: make([]byte, record.MaxPayload+1)})
	w.appendFails(record.Invalid, id, good, record.Record{Key: make([]byte, record.MaxKey+1)})
	w.wantBounds(id, 0, 0)
	if first := w.append(id, good); first != 0 {
		w.Fatalf("first good record at offset %d", first)
	}
}

func appendLargeBatch(w *world) {
	id := w.create("test/large", stream.Policy{})
	mib := make([]byte, 1<<20)
	batch := make([]record.Record, 31)
	for i := range batch {
		batch[i].Payload = mib
	}
	w.append(id, batch...)
	w.appendFails(record.Invalid, id, append(batch, record.Record{Payload: mib})...) // 32 per record tip it over
	w.wantBounds(id, 0, 31)
	w.appendFails(record.Invalid, id, make([]record.Record, stream.MaxBatch/32+1)...)
	w.wantBounds(id, 0, 31)
}

func appendUnknown(w *world) {
	w.appendFails(record.NotFound, 12345, text("x"))
	w.appendFails(record.NotFound, 12345)
}

// stall appends a record whose done blocks until release is called: what comes after it stays queued. The engine's
// contract forbids callers to do so; it is the one way to fill a queue that works on every engine.
func (w *world) stall(id record.StreamID) (release func()) {
	entered, gate := make(chan struct{}), make(chan struct{})
	go w.e.Append(w.soon(), id, []record.Record{text("stall")}, func(record.Offset, error) {
		close(entered)
		<-gate
	})
	await(w, entered, "call of done")
	release = sync.OnceFunc(func() { close(gate) })
	w.Cleanup(release)
	return release
}

// fillQueue appends until admission takes longer than a moment and returns what waits for acknowledgement.
func (w *world) fillQueue(id record.StreamID) []<-chan outcome {
	w.Helper()
	var pending []<-chan outcome
	for bytes := 0; ; bytes += 4096 {
		if bytes > 16*w.limits.QueueBytes {
			w.Fatalf("%d bytes admitted, the queue's limit is %d", bytes, w.limits.QueueBytes)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		ack := w.appendAsync(ctx, id, []record.Record{{Payload: make([]byte, 4096)}})
		full := ctx.Err() != nil
		cancel()
		if full {
			o := await(w, ack, "refusal")
			w.wantKind("append to a full queue", o.err, record.Unavailable)
			return pending
		}
		pending = append(pending, ack)
	}
}

func appendBlocks(w *world) {
	id := w.create("test/queue", stream.Policy{})
	release := w.stall(id)
	pending := w.fillQueue(id)
	admitted := make(chan (<-chan outcome))
	go func() { admitted <- w.appendAsync(w.soon(), id, []record.Record{text("waits")}) }()
	release()
	for i, ack := range pending {
		if o := await(w, ack, "acknowledgement"); o.err != nil || o.first != record.Offset(i+1) {
			w.Fatalf("append %d: offset %d, %v", i, o.first, o.err)
		}
	}
	last := await(w, admitted, "admission")
	if o := await(w, last, "acknowledgement"); o.err != nil || o.first != record.Offset(len(pending)+1) {
		w.Fatalf("append that waited: offset %d, %v; want %d", o.first, o.err, len(pending)+1)
	}
}

func appendCancel(w *world) {
	id := w.create("test/queue", stream.Policy{})
	release := w.stall(id)
	pending := w.fillQueue(id)
	ctx, cancel := context.WithCancel(context.Background())
	refused := make(chan outcome, 1)
	go func() {
		refused <- await(w, w.appendAsync(ctx, id, []record.Record{{Payload: make([]byte, 8192)}}), "refusal")
	}()
	cancel()
	w.wantKind("cancelled append", await(w, refused, "refusal").err, record.Unavailable)
	release()
	for _, ack := range pending {
		if o := await(w, ack, "acknowledgement"); o.err != nil {
			w.Fatal(o.err)
		}
	}
	w.wantBounds(id, 0, record.Offset(1+len(pending)))
}

func appendAlone(w *world) {
	id := w.create("test/alone", stream.Policy{})
	batch := numbered("alone", 0, 1000, 1000)
	w.append(id, batch...)
	w.append(id, batch...)
	w.wantRecords(id, 0, slices.Concat(batch, batch))
}

func appendOrigins(w *world) {
	id := w.create("test/origins", stream.Policy{})
	readings := []clock.Reading{
		{Wall: Now().Wall, Mono: 100, Boot: 7, Trusted: true},
		{Wall: 5, Mono: 3, Boot: 8, Trusted: false}, // after a restart without a clock
		{Wall: Now().Wall - 1e9, Mono: 200, Boot: 8, Trusted: true},
	}
	var want []clock.Reading // per record
	for i, r := range readings {
		w.h.Clock.Set(r)
		w.append(id, numbered("o", 0, 3*i+1, 10)...)
		for range 3*i + 1 {
			want = append(want, r)
		}
	}
	for from := range want {
		var c stream.Chunk
		if err := w.e.Read(w.soon(), id, record.Offset(from), 1<<20, &c); err != nil {
			w.Fatal(err)
		}
		w.checkChunk(&c, record.Offset(from))
		for _, o := range c.Origins {
			for k := range o.Count {
				i := int(o.First) + k
				if got := (clock.Reading{Wall: o.Wall, Mono: o.Mono, Boot: o.Boot, Trusted: o.Trusted}); got != want[i] {
					w.Fatalf("origin of record %d is %+v, want %+v", i, got, want[i])
				}
			}
		}
	}
}

func appendOS(w *world) {
	id := w.create("test/os", stream.Policy{Durability: stream.OS})
	want := numbered("os", 0, 200, 100)
	for i := range want {
		if first := w.append(id, want[i]); first != record.Offset(i) {
			w.Fatalf("record %d at offset %d", i, first)
		}
	}
	if b := w.bounds(id); b.Next != 200 || b.Readable > b.Next {
		w.Fatalf("bounds %+v", b)
	}
	w.settle(id)
	w.wantRecords(id, 0, want)
}
