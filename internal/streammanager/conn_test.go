package streammanager

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/streammanager/wire"
	"github.com/leat-io/leat/internal/testenv"
)

func TestOperations(t *testing.T) {
	s, _, _ := openDoor(t, &fakeService{})
	c := connect(t, s, "")
	c.send(wire.OpList, &wire.ListRequest{RequestID: "l"})
	var names wire.ListResponse
	if err := c.receive(wire.OpListResponse, &names); err != nil || len(names.Streams) != 0 {
		t.Errorf("%v, %q", err, names.Streams)
	}
	c.create("s")
	c.send(wire.OpCreate, &wire.CreateRequest{RequestID: "again", Definition: define("s")})
	if r := c.want(wire.OpCreateResponse, "again", wire.InvalidRequest); !strings.Contains(r.ErrorMessage, "already exists") {
		t.Errorf("%q", r.ErrorMessage)
	}
	c.send(wire.OpAppend, appendRequest("a", "s", "one"))
	c.want(wire.OpAppendResponse, "a", wire.Success)
	c.send(wire.OpAppendBatch, &wire.AppendBatchRequest{RequestID: "b", Name: "s", Payloads: [][]byte{[]byte("two"), []byte("three")}})
	var appended wire.AppendResponse
	if err := c.receive(wire.OpAppendBatchResponse, &appended); err != nil || appended.SequenceNumber != 1 {
		t.Errorf("%v, %+v", err, appended)
	}
	c.send(wire.OpRead, &wire.ReadRequest{RequestID: "r", StreamName: "s"})
	var read wire.ReadResponse
	if err := c.receive(wire.OpReadResponse, &read); err != nil || len(read.Messages) != 3 || string(read.Messages[2].Payload) != "three" {
		t.Errorf("%v, %+v", err, read)
	}
	c.send(wire.OpDescribe, &wire.DescribeRequest{RequestID: "d", Name: "s"})
	var info wire.DescribeResponse
	if err := c.receive(wire.OpDescribeResponse, &info); err != nil || info.Info.StorageStatus.NewestSequenceNumber != 2 {
		t.Errorf("%v, %+v", err, info)
	}
	c.send(wire.OpUpdate, &wire.UpdateRequest{RequestID: "u", Definition: define("s")})
	c.want(wire.OpUpdateResponse, "u", wire.UpdateNotAllowed)
	c.send(wire.OpDelete, &wire.DeleteRequest{RequestID: "x", Name: "missing"})
	c.want(wire.OpDeleteResponse, "x", wire.ResourceNotFound)
	c.send(wire.OpDelete, &wire.DeleteRequest{RequestID: "y", Name: "s"})
	c.want(wire.OpDeleteResponse, "y", wire.Success)

	st := s.Stats()
	for op, n := range map[string]uint64{"list": 1, "create": 2, "append": 1, "append_batch": 1, "read": 1, "describe": 1, "update": 1, "delete": 2} {
		if st.Requests[op] != n {
			t.Errorf("%s: %d requests, want %d", op, st.Requests[op], n)
		}
	}
	if st.AppendedMessages != 3 || st.AppendedBytes != 11 || st.Failures["InvalidRequest"] != 1 || st.Failures["ResourceNotFound"] != 1 || st.BytesIn == 0 || st.BytesOut == 0 {
		t.Errorf("%+v", st)
	}
}

func TestWhatIsWrongCostsOnlyItself(t *testing.T) {
	s, _, _ := openDoor(t, &fakeService{})
	list := &wire.ListRequest{RequestID: "id"}
	large := make([]byte, maxPayload+1000)
	for name, c := range map[string]struct {
		op     wire.Operation
		body   wire.Body
		answer wire.Operation
		status wire.Status
	}{
		"unknown operation":    {99, list, wire.OpUnknownError, wire.UnknownOperation},
		"operation 0":          {0, list, wire.OpUnknownError, wire.UnknownOperation},
		"negative operation":   {-5, list, wire.OpUnknownError, wire.UnknownOperation},
		"a response":           {wire.OpListResponse, list, wire.OpUnknownError, wire.UnknownOperation},
		"a second Connect":     {wire.OpConnect, list, wire.OpUnknownError, wire.UnknownOperation},
		"an append of nothing": {wire.OpAppend, appendRequest("id", "s", ""), wire.OpAppendResponse, wire.InvalidRequest},
		"an append elsewhere":  {wire.OpAppend, appendRequest("id", "missing", "x"), wire.OpAppendResponse, wire.ResourceNotFound},
		"a create of nothing":  {wire.OpCreate, list, wire.OpCreateResponse, wire.InvalidRequest},
		"a read of nothing":    {wire.OpRead, list, wire.OpReadResponse, wire.InvalidRequest},
		"far too much":         {wire.OpAppend, &wire.AppendRequest{RequestID: "id", Name: "s", Payload: large}, wire.OpAppendResponse, wire.RequestPayloadTooLarge},
		"an id out of order":   {wire.OpAppend, appendRequest("ü", "s", "x"), wire.OpAppendResponse, wire.InvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			cl := connect(t, s, "")
			cl.send(c.op, c.body)
			op, r := cl.answer()
			if op != c.answer || r.Status != c.status || r.RequestID == "" || r.ErrorMessage == "" {
				t.Errorf("operation %d, %+v", op, r)
			}
			cl.send(wire.OpList, &wire.ListRequest{RequestID: "next"})
			cl.want(wire.OpListResponse, "next", wire.Success)
		})
	}
}

func TestWhatNobodyCouldMatchEndsTheConnection(t *testing.T) {
	s, _, _ := openDoor(t, &fakeService{})
	for name, b := range map[string][]byte{
		"no id":             {0, 0, 0, 2, byte(wire.OpList), 0xa0},
		"garbage":           []byte("\x00\x00\x00\x09\x04\xff\xff\xff\xff\xff\xff\xff\xff"),
		"length 0":          {0, 0, 0, 0, 4},
		"negative length":   {0xff, 0, 0, 0, 4},
		"more than allowed": {0x40, 0, 0, 1, 4},
		"large, no id":      append(binary.BigEndian.AppendUint32(nil, maxPayload+2), make([]byte, 8<<10)...),
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, s, "")
			c.send(wire.OpList, &wire.ListRequest{RequestID: "before"})
			c.nc.Write(b) //nolint:errcheck // the door may be gone before
			c.want(wire.OpListResponse, "before", wire.Success)
			c.wantEnd()
		})
	}
}

func TestFramesInPiecesAndTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p, stop := openPipes(t, &fakeService{})
		c := p.dial(t)
		c.greet("")
		c.create("s")
		b := c.frame(nil, wire.OpAppend, appendRequest("a", "s", strings.Repeat("x", 100)))
		for _, one := range b { // hours for a frame whose bytes keep coming
			time.Sleep(50 * time.Second)
			c.write([]byte{one})
		}
		c.want(wire.OpAppendResponse, "a", wire.Success)
		time.Sleep(2 * time.Hour) // silence between frames is no fault
		go c.write(append(append([]byte(nil), b...), b...))
		c.want(wire.OpAppendResponse, "a", wire.Success)
		c.want(wire.OpAppendResponse, "a", wire.Success)
		stop()
	})
}

func TestAFrameThatStopsEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p, stop := openPipes(t, &fakeService{})
		c := p.dial(t)
		c.greet("")
		began := time.Now()
		c.write(c.frame(nil, wire.OpAppend, appendRequest("a", "s", "x"))[:20])
		c.wantEnd()
		if d := time.Since(began); d != progress {
			t.Errorf("ended after %s", d)
		}
		half := p.dial(t)
		began = time.Now()
		half.write([]byte{1, 0})
		half.wantEnd()
		if d := time.Since(began); d != handshakeTime {
			t.Errorf("the handshake ended after %s", d)
		}
		synctest.Wait()
		if st := s.Stats(); st.Open != 0 || st.Refused != 1 {
			t.Errorf("%+v", st)
		}
		stop()
	})
}

func TestPipelinedRequestsSeeWhatCameBefore(t *testing.T) {
	s, _, _ := openDoor(t, &fakeService{})
	c := connect(t, s, "")
	b := c.frame(nil, wire.OpCreate, &wire.CreateRequest{RequestID: "create", Definition: define("s")})
	for i := range 100 {
		b = c.frame(b, wire.OpAppend, appendRequest(fmt.Sprint(i), "s", "x"))
	}
	c.write(b)
	c.want(wire.OpCreateResponse, "create", wire.Success)
	for i := range 100 {
		var r wire.AppendResponse
		if err := c.receive(wire.OpAppendResponse, &r); err != nil || r.SequenceNumber != int64(i) || r.RequestID != fmt.Sprint(i) {
			t.Fatalf("%d: %v, %+v", i, err, r)
		}
	}
}

func TestALongReadHoldsNothingUp(t *testing.T) {
	satisfied := make(chan struct{})
	service := &fakeService{onRead: func(ctx context.Context, name string, _ *wire.ReadMessagesOptions) ([]wire.Message, error) {
		select {
		case <-satisfied:
			return []wire.Message{{StreamName: name, Payload: []byte("x")}}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	s, _, _ := openDoor(t, service)
	c := connect(t, s, "")
	c.create("s")
	for i := range 100 {
		c.send(wire.OpRead, &wire.ReadRequest{RequestID: fmt.Sprint("read", i), StreamName: "s"})
	}
	for i := range 100 {
		c.send(wire.OpAppend, appendRequest(fmt.Sprint(i), "s", "x"))
		c.want(wire.OpAppendResponse, fmt.Sprint(i), wire.Success)
	}
	close(satisfied)
	seen := map[string]bool{}
	for range 100 {
		_, r := c.answer()
		seen[r.RequestID] = r.Status == wire.Success
	}
	if len(seen) != 100 {
		t.Errorf("%d reads were answered", len(seen))
	}
}

func TestEqualIdsAreAnsweredInTheOrderOfArrival(t *testing.T) {
	var mu sync.Mutex
	pending := map[string]func(int64, error){}
	arrived := make(chan struct{})
	s, _, _ := openDoor(t, &fakeService{onAppend: func(_ context.Context, name string, _ [][]byte, done func(int64, error)) {
		mu.Lock()
		defer mu.Unlock()
		pending[name] = done
		if len(pending) == 5 {
			close(arrived)
		}
	}})
	c := connect(t, s, "")
	ids := []string{" ", " ", "other", " ", " "} // one of the SDKs has a space for all of its requests
	for i, id := range ids {
		c.send(wire.OpAppend, appendRequest(id, fmt.Sprint(i), "x"))
	}
	<-arrived
	expect := func(id string, number int64) {
		t.Helper()
		var r wire.AppendResponse
		if err := c.receive(wire.OpAppendResponse, &r); err != nil || r.RequestID != id || r.SequenceNumber != number {
			t.Fatalf("%v: %+v, want id %q and %d", err, r, id, number)
		}
	}
	for _, i := range []int{3, 1, 2, 4} { // the first with the common id ends last
		pending[fmt.Sprint(i)](int64(i), nil)
	}
	expect("other", 2) // not held up by the others
	pending["0"](0, nil)
	for _, i := range []int64{0, 1, 3, 4} {
		expect(" ", i)
	}
	c.send(wire.OpList, &wire.ListRequest{RequestID: " "})
	c.want(wire.OpListResponse, " ", wire.Success)
}

func TestWhatTakesTooLongIsAnsweredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done func(int64, error)
		service := &fakeService{
			onAppend: func(_ context.Context, _ string, _ [][]byte, d func(int64, error)) { done = d },
			onCreate: func(ctx context.Context, _ *wire.MessageStreamDefinition) error {
				<-ctx.Done()
				return record.Errorf(record.Unavailable, "create: %w", ctx.Err())
			},
		}
		s, p, stop := openPipes(t, service)
		c := p.dial(t)
		c.greet("")
		within := func(op wire.Operation, id string) {
			t.Helper()
			began := time.Now()
			c.want(op, id, wire.ServerTimeout)
			if d := time.Since(began); d < answerWithin-time.Second || d >= dropAfter {
				t.Errorf("%s was answered after %s", id, d)
			}
		}
		c.send(wire.OpAppend, appendRequest("a", "s", "x"))
		within(wire.OpAppendResponse, "a")
		done(5, nil) // late, and nobody must be told
		c.send(wire.OpCreate, &wire.CreateRequest{RequestID: "b", Definition: define("s")})
		within(wire.OpCreateResponse, "b")
		c.send(wire.OpList, &wire.ListRequest{RequestID: "l"})
		c.want(wire.OpListResponse, "l", wire.Success)
		if st := s.Stats(); st.Failures["ServerTimeout"] != 2 {
			t.Errorf("%+v", st)
		}
		stop()
	})
}

func TestAnAppendThatIsNotAdmittedIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := true
		_, p, stop := openPipes(t, &fakeService{onAppend: func(ctx context.Context, _ string, _ [][]byte, done func(int64, error)) {
			if stuck {
				<-ctx.Done()
				done(0, record.Errorf(record.Unavailable, "not admitted: %w", ctx.Err()))
				return
			}
			done(0, ctx.Err())
		}})
		c := p.dial(t)
		c.greet("")
		c.send(wire.OpAppend, appendRequest("a", "s", "x"))
		c.want(wire.OpAppendResponse, "a", wire.ServerTimeout)
		synctest.Wait()
		stuck = false
		c.send(wire.OpAppend, appendRequest("b", "s", "x")) // the connection goes on, with a context of its own
		c.want(wire.OpAppendResponse, "b", wire.Success)
		stop()
	})
}

func TestReadsAreAnsweredInTimeOrNever(t *testing.T) {
	for name, c := range map[string]struct {
		timeout  int64         // readTimeoutMillis
		takes    time.Duration // of the service
		answered time.Duration // 0: never
		status   wire.Status
	}{
		"at once":               {0, 0, 0, wire.NotEnoughMessages},
		"its whole time":        {50_000, 49_750 * time.Millisecond, 49_750 * time.Millisecond, wire.NotEnoughMessages},
		"hangs":                 {0, time.Hour, answerWithin, wire.ServerTimeout},
		"a minute":              {60_000, 59_750 * time.Millisecond, 59_750 * time.Millisecond, wire.NotEnoughMessages},
		"a minute, hangs":       {60_000, time.Hour, -1, 0},
		"ten minutes":           {600_000, 599 * time.Second, 599 * time.Second, wire.NotEnoughMessages},
		"longer than any clock": {9_223_372_036_854, 3 * time.Hour, 3 * time.Hour, wire.NotEnoughMessages},
		"negative":              {-1, 0, 0, wire.NotEnoughMessages},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, p, stop := openPipes(t, &fakeService{onRead: func(ctx context.Context, _ string, _ *wire.ReadMessagesOptions) ([]wire.Message, error) {
					select {
					case <-time.After(c.takes):
					case <-ctx.Done():
					}
					return nil, wire.Errorf(wire.NotEnoughMessages, "none")
				}})
				cl := p.dial(t)
				cl.greet("")
				began := time.Now()
				cl.send(wire.OpRead, &wire.ReadRequest{RequestID: "r", StreamName: "s", Options: &wire.ReadMessagesOptions{ReadTimeoutMillis: wire.NewInt(c.timeout)}})
				if c.answered < 0 {
					time.Sleep(2 * time.Hour)
					cl.send(wire.OpList, &wire.ListRequest{RequestID: "l"})
					cl.want(wire.OpListResponse, "l", wire.Success) // and nothing before it
				} else {
					cl.want(wire.OpReadResponse, "r", c.status)
					if d := time.Since(began); d < c.answered || d > c.answered+sweepInterval {
						t.Errorf("answered after %s, want %s", d, c.answered)
					}
				}
				stop()
			})
		})
	}
}

func TestAFullConnectionIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pending []func(int64, error)
		_, p, stop := openPipes(t, &fakeService{onAppend: func(_ context.Context, _ string, _ [][]byte, done func(int64, error)) {
			pending = append(pending, done)
		}})
		c := p.dial(t)
		c.greet("")
		b := c.frame(nil, wire.OpAppend, appendRequest("a", "s", "x"))
		go func() {
			for range maxInflight + 100 {
				if _, err := c.nc.Write(b); err != nil {
					t.Error(err)
				}
			}
		}()
		synctest.Wait()
		if len(pending) != maxInflight {
			t.Fatalf("%d requests were taken", len(pending))
		}
		for i := range maxInflight + 100 { // one answered, one more taken
			synctest.Wait()
			pending[i](int64(i), nil)
			c.want(wire.OpAppendResponse, "a", wire.Success)
		}
		stop()
	})
}

func TestAClientThatDoesNotReadIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		payload := make([]byte, 100<<10)
		s, p, stop := openPipes(t, &fakeService{onRead: func(context.Context, string, *wire.ReadMessagesOptions) ([]wire.Message, error) {
			return []wire.Message{{StreamName: "s", Payload: payload}}, nil
		}})
		c := p.dial(t)
		c.greet("")
		b := c.frame(nil, wire.OpRead, &wire.ReadRequest{RequestID: "r", StreamName: "s"})
		began, written := time.Now(), 0
		for ; ; written++ {
			if _, err := c.nc.Write(b); err != nil {
				break // closed
			}
			synctest.Wait()
		}
		if d := time.Since(began); d < writeTimeout || d > writeTimeout+10*time.Second || written > 10 {
			t.Errorf("closed after %s and %d requests", d, written)
		}
		synctest.Wait()
		if st := s.Stats(); st.Open != 0 {
			t.Errorf("%+v", st)
		}
		stop()
	})
}

func TestLargeRequestsShareTheMemory(t *testing.T) {
	hold := make(chan struct{})
	var held sync.WaitGroup
	held.Add(1)
	var once sync.Once
	s, _, _ := openDoor(t, &fakeService{onAppend: func(_ context.Context, _ string, payloads [][]byte, done func(int64, error)) {
		once.Do(func() { held.Done(); <-hold })
		done(int64(len(payloads[0])), nil)
	}})
	const size = 20 << 20
	body := &wire.AppendRequest{RequestID: "a", Name: "s", Payload: make([]byte, size)}
	var wg sync.WaitGroup
	for i := range 4 { // 80 MiB
		c := connect(t, s, "")
		wg.Go(func() {
			c.send(wire.OpAppend, body)
			c.want(wire.OpAppendResponse, "a", wire.Success)
		})
		if i == 0 {
			held.Wait()
		}
	}
	if s.memory.TryAcquire(maxMemory - size + 2*readStep) {
		t.Error("the first request holds no memory")
	}
	close(hold)
	wg.Wait()
	testenv.Wait(t, patience, func() bool { return s.memory.TryAcquire(maxMemory) }, "all memory to be given back")
}

func TestAppendAllocatesLittle(t *testing.T) {
	service := &fakeService{onAppend: func(_ context.Context, _ string, _ [][]byte, done func(int64, error)) { done(1, nil) }}
	s, _, _ := openDoor(t, service)
	c := connect(t, s, "")
	request := c.frame(nil, wire.OpAppend, appendRequest("0123456789abcdef0123456789abcdef0123", "stream", strings.Repeat("x", 200)))
	answer := make([]byte, 4<<10)
	allocs := testing.AllocsPerRun(2000, func() {
		if _, err := c.nc.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := c.nc.Read(answer); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 2 { // the id; the race detector empties pools at random
		t.Errorf("%v allocations for an append, want 1", allocs)
	}
}
