package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/streammanager/client"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// peer is the server's end of one connection.
type peer struct {
	net.Conn
	t testing.TB
}

// receive is the next request; nil at the end of the connection.
func (p peer) receive() (wire.Operation, wire.Request) {
	op, payload, err := wire.ReadFrame(p, nil, 64<<20)
	if err != nil {
		return 0, nil
	}
	req, err := wire.Decode(op, payload)
	if err != nil && req == nil {
		p.t.Errorf("operation %d: %v", op, err)
	}
	return op, req
}

func frame(t testing.TB, op wire.Operation, body wire.Body) []byte {
	b, err := wire.AppendFrame(nil, op, body)
	if err != nil {
		t.Error(err)
	}
	return b
}

func (p peer) send(b []byte) {
	if _, err := p.Write(b); err != nil && !errors.Is(err, net.ErrClosed) {
		p.t.Logf("write: %v", err) // the client has gone, as some tests want it to
	}
}

func appended(req wire.Request, n int64) *wire.AppendResponse {
	return &wire.AppendResponse{Response: wire.Response{RequestID: req.ID()}, SequenceNumber: n}
}

// serve runs a server for one connection, with the handshake done, and dials it.
func serve(t testing.TB, handle func(peer)) *client.Client {
	t.Helper()
	addr := listen(t, func(p peer) {
		var version [1]byte
		if _, err := p.Read(version[:]); err != nil || version[0] != wire.ConnectVersion {
			t.Errorf("version %v, %v", version, err)
		}
		_, req := p.receive()
		connect, ok := req.(*wire.Connect)
		if !ok || connect.AuthToken != "sesame" || connect.ProtocolVersion != "1.1.0" {
			t.Errorf("the client begins with %+v", req)
			return
		}
		p.send(append([]byte{wire.ConnectVersion}, frame(t, wire.OpConnectResponse, &wire.ConnectResponse{
			Response: wire.Response{RequestID: connect.RequestID}, ProtocolVersion: "1.1.0", Extensions: []string{wire.ExtensionAppendBatch},
		})...))
		handle(p)
	})
	c, err := client.Dial(t.Context(), addr, client.Options{Token: "sesame"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func listen(t testing.TB, handle func(peer)) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var server sync.WaitGroup
	server.Go(func() {
		if conn, err := l.Accept(); err == nil {
			defer conn.Close()
			handle(peer{conn, t})
		}
	})
	t.Cleanup(server.Wait)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestEveryCall(t *testing.T) {
	def := &wire.MessageStreamDefinition{Name: "s", MaxSize: wire.NewInt(1 << 20)}
	info := &wire.MessageStreamInfo{
		Definition: def, StorageStatus: wire.StorageStatus{NewestSequenceNumber: -1},
		ExportStatuses: []wire.ExportStatus{{ExportConfigIdentifier: "e", LastExportedSequenceNumber: -1, ErrorMessage: "no"}},
	}
	messages := []wire.Message{{StreamName: "s", SequenceNumber: 1, IngestTime: 2, Payload: []byte("x")}, {StreamName: "s", SequenceNumber: 2, Payload: []byte("y")}}
	var got []wire.Request
	c := serve(t, func(p peer) {
		for {
			op, req := p.receive()
			if req == nil {
				return
			}
			got = append(got, req)
			ok := wire.Response{RequestID: req.ID()}
			body := map[wire.Operation]wire.Body{
				wire.OpList: &wire.ListResponse{Response: ok, Streams: []string{"a", "b"}}, wire.OpDescribe: &wire.DescribeResponse{Response: ok, Info: info},
				wire.OpRead: &wire.ReadResponse{Response: ok, Messages: messages}, wire.OpAppend: appended(req, 7), wire.OpAppendBatch: appended(req, 8),
			}[op]
			if body == nil {
				body = &ok
			}
			p.send(frame(t, op.Response(), body))
		}
	})
	ctx := t.Context()
	if err := errors.Join(c.Create(ctx, def), c.Update(ctx, def), c.Delete(ctx, "s")); err != nil {
		t.Error(err)
	}
	if l, err := c.List(ctx); err != nil || !slices.Equal(l, []string{"a", "b"}) {
		t.Error(l, err)
	}
	if i, err := c.Describe(ctx, "s"); err != nil || !reflect.DeepEqual(i, info) {
		t.Error(i, err)
	}
	if m, err := c.Read(ctx, "s", nil); err != nil || !reflect.DeepEqual(m, messages) {
		t.Error(m, err)
	}
	if n, err := c.Append(ctx, "s", []byte("x")); n != 7 || err != nil {
		t.Error(n, err)
	}
	if n, err := c.AppendBatch(ctx, "s", [][]byte{[]byte("x"), []byte("y")}); n != 8 || err != nil {
		t.Error(n, err)
	}
	if !slices.Contains(c.Server().Extensions, wire.ExtensionAppendBatch) {
		t.Errorf("%+v", c.Server())
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Delete(ctx, "s"); record.KindOf(err) != record.Unavailable {
		t.Errorf("after Close: %v", err)
	}
}

func TestAnswersInAnyOrderFindTheirCalls(t *testing.T) {
	const callers, each = 8, 50
	c := serve(t, func(p peer) {
		var waiting [][]byte
		for n := range callers * each {
			_, req := p.receive()
			if req == nil {
				return
			}
			var number int64
			fmt.Sscan(string(req.(*wire.AppendRequest).Payload), &number)
			waiting = append(waiting, frame(p.t, wire.OpAppendResponse, appended(req, number)))
			// The last answer first, and never all while callers wait for each other.
			if len(waiting) == 3 || callers*each-n <= callers {
				slices.Reverse(waiting)
				p.send(slices.Concat(waiting...))
				waiting = nil
			}
		}
	})
	var next atomic.Int64 // shared, so that no caller is done long before the others: the server waits for three
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for want := next.Add(1); want <= callers*each; want = next.Add(1) {
				if n, err := c.Append(t.Context(), "s", fmt.Append(nil, want)); n != want || err != nil {
					t.Errorf("%d, %v, want %d", n, err, want)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestACallEndsWithItsContextAndTheConnectionStays(t *testing.T) {
	half := make(chan []byte)
	c := serve(t, func(p peer) {
		_, late := p.receive()
		answer := frame(t, wire.OpAppendResponse, appended(late, 1))
		p.send(answer[:7]) // the caller gives up in the middle of a frame
		half <- answer[7:]
		_, req := p.receive()
		p.send(<-half)
		p.send(frame(t, wire.OpAppendResponse, appended(req, 2)))
	})
	ctx, cancel := context.WithCancel(t.Context())
	var rest []byte
	go func() { rest = <-half; cancel() }()
	if _, err := c.Append(ctx, "s", []byte("x")); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	go func() { half <- rest }()
	if n, err := c.Append(t.Context(), "s", []byte("y")); n != 2 || err != nil {
		t.Errorf("%d, %v: the answer that came too late is not to be taken for this one", n, err)
	}
}

func TestAReaderThatGivesUpHandsOn(t *testing.T) {
	arrived := make(chan wire.Request)
	proceed := make(chan struct{})
	c := serve(t, func(p peer) {
		for range 2 {
			_, req := p.receive()
			arrived <- req
		}
		<-proceed
		_, req := p.receive()
		p.send(frame(t, wire.OpAppendResponse, appended(req, 3)))
	})
	first, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	calls.Go(func() {
		if _, err := c.Append(first, "s", []byte("x")); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	<-arrived
	second, cancelSecond := context.WithCancel(t.Context())
	calls.Go(func() {
		if _, err := c.Append(second, "s", []byte("y")); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	<-arrived
	cancel()
	cancelSecond()
	calls.Wait()
	close(proceed)
	if n, err := c.Append(t.Context(), "s", []byte("z")); n != 3 || err != nil {
		t.Error(n, err)
	}
}

func TestALostConnectionEndsEveryCall(t *testing.T) {
	c := serve(t, func(p peer) {
		for range 4 {
			p.receive()
		}
	})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := c.Read(t.Context(), "s", nil); record.KindOf(err) != record.Unavailable {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestCloseEndsACallThatWaits(t *testing.T) {
	arrived := make(chan struct{})
	c := serve(t, func(p peer) {
		p.receive()
		close(arrived)
		p.receive()
	})
	var call sync.WaitGroup
	call.Go(func() {
		if _, err := c.Read(t.Context(), "s", nil); record.KindOf(err) != record.Unavailable {
			t.Error(err)
		}
	})
	<-arrived
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	call.Wait()
}

// TestAServerThatDoesNotReadHoldsNobody: half a request has been sent when the context ends, so that nothing that follows
// could be understood.
func TestAServerThatDoesNotReadHoldsNobody(t *testing.T) {
	over := make(chan struct{})
	c := serve(t, func(peer) { <-over })
	defer close(over)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Append(ctx, "s", make([]byte, 64<<20)); record.KindOf(err) != record.Unavailable {
		t.Error(err)
	}
	if err := c.Delete(t.Context(), "s"); record.KindOf(err) != record.Unavailable {
		t.Error(err)
	}
}

func TestLargeAnswersArriveWhole(t *testing.T) {
	payload := []byte(strings.Repeat("0123456789", 500_000))
	c := serve(t, func(p peer) {
		for range 2 {
			op, req := p.receive()
			p.send(frame(t, op.Response(), &wire.ReadResponse{
				Response: wire.Response{RequestID: req.ID()}, Messages: []wire.Message{{StreamName: "s", Payload: payload}},
			}))
		}
	})
	for range 2 {
		if m, err := c.Read(t.Context(), "s", nil); err != nil || len(m) != 1 || string(m[0].Payload) != string(payload) {
			t.Fatalf("%d messages, %v", len(m), err)
		}
	}
}

func TestRefusalsHaveTheServersStatus(t *testing.T) {
	c := serve(t, func(p peer) {
		_, req := p.receive()
		r := wire.Failure(req.ID(), record.Errorf(record.NotFound, "no such stream").WithHint("create it"))
		p.send(frame(t, wire.OpAppendResponse, &r))
		_, req = p.receive()
		p.send(frame(t, wire.OpListResponse, &wire.ListResponse{Response: wire.Response{RequestID: req.ID()}}))
	})
	_, err := c.Append(t.Context(), "s", []byte("x"))
	if e, ok := errors.AsType[*wire.Error](err); !ok || e.Status != wire.ResourceNotFound || e.Message != "no such stream (create it)" {
		t.Errorf("%#v", err)
	}
	if _, err := c.Append(t.Context(), "s", []byte("x")); err == nil {
		t.Error("the answer to another operation was taken")
	}
}

func TestDialSaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		answer []byte
		want   string
	}{
		"another protocol": {[]byte("HTTP/1.1 400 Bad Request\r\n"), "the server begins with byte 72: is it a Stream Manager?"},
		"no answer":        {nil, "Stream Manager's connection: "},
		"refused": {append([]byte{wire.ConnectVersion}, frame(t, wire.OpConnectResponse, &wire.ConnectResponse{
			Response: wire.Response{RequestID: "connect", Status: wire.Unauthorized, ErrorMessage: "unknown token"},
		})...), "unknown token"},
		"another operation": {append([]byte{wire.ConnectVersion}, frame(t, wire.OpListResponse, &wire.Response{})...), "the server answers with operation 12, not with 6"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := listen(t, func(p peer) {
				var version [1]byte
				if _, err := p.Read(version[:]); err != nil {
					t.Error(err)
				}
				p.receive()
				p.send(c.answer)
			})
			if _, err := client.Dial(t.Context(), addr, client.Options{}); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
	t.Run("a server that is silent", func(t *testing.T) {
		addr := listen(t, func(p peer) { p.receive(); p.receive() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := client.Dial(ctx, addr, client.Options{}); record.KindOf(err) != record.Unavailable {
			t.Error(err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	c := serve(b, func(p peer) {
		var in, out []byte
		var r wire.AppendRequest
		for {
			_, payload, err := wire.ReadFrame(p, in, 1<<20)
			if err != nil {
				return
			}
			in = payload
			if err := wire.DecodeAppend(payload, &r); err != nil {
				b.Error(err)
				return
			}
			if out, err = wire.AppendFrame(out[:0], wire.OpAppendResponse, appended(&r, 1)); err != nil {
				b.Error(err)
				return
			}
			p.send(out)
		}
	})
	payload := make([]byte, 256)
	for name, ctx := range map[string]context.Context{"with a context that ends": b.Context(), "with one that never ends": context.Background()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Append(ctx, "s", payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
