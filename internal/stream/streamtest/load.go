package streamtest

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

func loadCases() []testCase {
	return []testCase{
		{name: "64 appenders and a reader per stream", run: loadAppenders},
		{name: "10,000 streams", run: loadStreams},
		{name: "administration under load", run: loadAdmin},
	}
}

// loadAppenders has 64 goroutines append to 8 streams. Each stream's reader follows the head and must see dense
// offsets, every appender's records in its order, and none missing.
func loadAppenders(w *world) {
	const appenders, streams, batches = 64, 8, 40
	var ids [streams]record.StreamID
	for i := range ids {
		ids[i] = w.create(record.StreamName(fmt.Sprintf("test/%d", i)), stream.Policy{Durability: stream.Durability(i % 2)})
	}
	var running sync.WaitGroup
	for a := range appenders {
		running.Go(func() {
			who, n := fmt.Sprintf("w%d", a), 0
			for b := range batches {
				batch := numbered(who, n, b%5+1, 30)
				n += len(batch)
				if _, err := stream.AppendWait(w.soon(), w.e, ids[a%streams], batch...); err != nil {
					w.Errorf("appender %d: %v", a, err)
					return
				}
			}
		})
	}
	const perAppender = batches / 5 * (1 + 2 + 3 + 4 + 5)
	for s := range streams {
		running.Go(func() { followWriters(w, ids[s], appenders/streams*perAppender) })
	}
	running.Wait()
}

func followWriters(w *world, id record.StreamID, total int) {
	next := make(map[string]int)
	var c stream.Chunk
	for from := record.Offset(0); from < record.Offset(total); from = c.Next {
		if err := w.e.Read(w.soon(), id, from, 10_000, &c); err != nil {
			w.Errorf("read from %d: %v", from, err)
			return
		}
		if len(c.Gaps) > 0 || c.First != from || c.Next != from+record.Offset(len(c.Records)) {
			w.Errorf("read from %d: first %d, next %d, %d records, gaps %v", from, c.First, c.Next, len(c.Records), c.Gaps)
			return
		}
		for i := range c.Records {
			mark, _, _ := strings.Cut(string(c.Records[i].Payload), ".")
			who, _, _ := strings.Cut(mark, "-")
			if want := fmt.Sprintf("%s-%d", who, next[who]); mark != want {
				w.Errorf("offset %d holds %s, want %s", c.First+record.Offset(i), mark, want)
				return
			}
			next[who]++
		}
	}
}

func loadStreams(w *world) {
	const streams, perCommit = 10_000, 500
	ids := make([]record.StreamID, 0, streams)
	name := func(i int) record.StreamName { return record.StreamName(fmt.Sprintf("many/%05d", i)) }
	for i := 0; i < streams; i += perCommit {
		var changes []stream.Change
		for j := range perCommit {
			changes = append(changes, create(name(i+j), stream.Policy{}))
		}
		ids = append(ids, w.commit(changes...)...)
	}
	var left sync.WaitGroup
	ctx := w.soon()
	for round := range 3 {
		for i, id := range ids {
			left.Add(1)
			w.e.Append(ctx, id, numbered("m", i+round, 1, 20), func(first record.Offset, err error) {
				defer left.Done()
				if err != nil || first != record.Offset(round) {
					w.Errorf("stream %d, round %d: offset %d, %v", i, round, first, err)
				}
			})
		}
	}
	left.Wait()
	for i := 0; i < streams; i += 613 {
		w.wantRecords(ids[i], 0, numbered("m", i, 3, 20))
		if info := w.lookup(name(i)); info.ID != ids[i] {
			w.Fatalf("stream %d has id %v, want %v", i, info.ID, ids[i])
		}
	}
	infos := w.e.List("many/")
	if len(infos) != streams || infos[0].ID != ids[0] || infos[streams-1].ID != ids[streams-1] {
		w.Fatalf("%d streams listed", len(infos))
	}
}

// loadAdmin creates, seals, truncates and deletes streams while others append and read.
func loadAdmin(w *world) {
	steady := w.create("test/steady", stream.Policy{})
	ctx, cancel := context.WithCancel(w.soon())
	var running sync.WaitGroup
	running.Go(func() {
		for n := record.Offset(0); ctx.Err() == nil; n++ {
			if first, err := stream.AppendWait(w.soon(), w.e, steady, numbered("s", int(n), 1, 50)...); err != nil || first != n {
				w.Errorf("append %d: offset %d, %v", n, first, err)
				return
			}
		}
	})
	for i := range 50 {
		id := w.create("test/brief", stream.Policy{})
		running.Go(func() { // ends when the stream is deleted
			var c stream.Chunk
			for from, err := record.Offset(0), error(nil); err == nil; from = c.Next {
				err = w.e.Read(w.soon(), id, from, 1<<16, &c)
				if err != nil && record.KindOf(err) != record.NotFound {
					w.Errorf("read of a stream that is deleted: %v", err)
				}
			}
		})
		w.append(id, numbered("b", i, 5, 50)...)
		w.commit(truncate(id, 2))
		w.store(id, "c", stream.Cursor{Offset: 3})
		w.commit(remove(id))
	}
	cancel()
	running.Wait()
	n := w.bounds(steady).Next
	w.wantRecords(steady, 0, numbered("s", 0, int(n), 50))
}
