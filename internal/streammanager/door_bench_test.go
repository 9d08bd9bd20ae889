package streammanager

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"

	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/stream/segment"
	"github.com/leat-io/leat/internal/streammanager/wire"
	"github.com/leat-io/leat/internal/vfs"
)

// benchPayload is the size of a message in the benchmarks, in bytes.
const benchPayload = 256

// exchange writes request and reads an answer of size bytes, b.N times over all connections.
func exchange(b *testing.B, conns []net.Conn, request []byte, size int) {
	b.Helper()
	var wg sync.WaitGroup
	b.ResetTimer()
	for i, nc := range conns {
		n := b.N / len(conns)
		if i < b.N%len(conns) {
			n++
		}
		wg.Go(func() {
			answer := make([]byte, size)
			for range n {
				if _, err := nc.Write(request); err != nil {
					b.Error(err)
					return
				}
				if _, err := io.ReadFull(nc, answer); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// benchFrames are the request of an append, and the size of its answer when the sequence number is below 24. The engine's
// numbers grow, so benchmarks that use it answer with a number of fixed width instead.
func benchFrames(b *testing.B) (request []byte, size int) {
	c := &doorClient{t: b}
	const id = "01234567-89ab-cdef-0123-456789abcdef"
	request = c.frame(nil, wire.OpAppend, &wire.AppendRequest{RequestID: id, Name: "bench", Payload: make([]byte, benchPayload)})
	answer := c.frame(nil, wire.OpAppendResponse, &wire.AppendResponse{Response: wire.Response{RequestID: id}, SequenceNumber: fixedWidth})
	return request, len(answer)
}

const fixedWidth = 1 << 40

// BenchmarkEcho is the measure of the others: requests and answers of the same sizes, and nothing between.
func BenchmarkEcho(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprint("clients=", clients), func(b *testing.B) {
			request, size := benchFrames(b)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			ok(b, err)
			var serving sync.WaitGroup
			var conns []net.Conn
			for range clients {
				nc, err := net.Dial("tcp", ln.Addr().String())
				ok(b, err)
				conns = append(conns, nc)
				server, err := ln.Accept()
				ok(b, err)
				serving.Go(func() {
					defer server.Close()
					buf := make([]byte, len(request))
					for {
						if _, err := io.ReadFull(server, buf); err != nil {
							return
						}
						if _, err := server.Write(buf[:size]); err != nil {
							return
						}
					}
				})
			}
			exchange(b, conns, request, size)
			b.StopTimer()
			for _, nc := range conns {
				nc.Close()
			}
			ln.Close()
			serving.Wait()
		})
	}
}

func benchDoor(b *testing.B, clients int, service Service) {
	request, size := benchFrames(b)
	s, stop, _ := openDoor(b, service)
	var conns []net.Conn
	for range clients {
		conns = append(conns, connect(b, s, "").nc)
	}
	exchange(b, conns, request, size)
	b.StopTimer()
	stop()
}

// BenchmarkDoor appends to nothing: what the door itself costs beside BenchmarkEcho.
func BenchmarkDoor(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprint("clients=", clients), func(b *testing.B) {
			benchDoor(b, clients, &fakeService{onAppend: func(_ context.Context, _ string, _ [][]byte, done func(int64, error)) { done(fixedWidth, nil) }})
		})
	}
}

// BenchmarkDoorLog appends to the log on disk.
func BenchmarkDoorLog(b *testing.B) {
	for _, d := range []stream.Durability{stream.OS, stream.Disk} {
		for _, clients := range []int{1, 64} {
			b.Run(fmt.Sprintf("flush=%v/clients=%d", d == stream.Disk, clients), func(b *testing.B) {
				dir, err := vfs.OpenDir(b.TempDir(), nil)
				ok(b, err)
				defer dir.Close()
				log, err := segment.Open(segment.Options{Dir: dir, Clock: clock.NewSystem(), Logger: slog.New(slog.DiscardHandler)})
				ok(b, err)
				ids, err := log.Commit(b.Context(), stream.Change{Create: &stream.Create{Name: "sm/bench", Policy: stream.Policy{Durability: d}}})
				ok(b, err)
				benchDoor(b, clients, &fakeService{onAppend: func(ctx context.Context, _ string, payloads [][]byte, done func(int64, error)) {
					records := [1]record.Record{{Payload: payloads[0]}}
					log.Append(ctx, ids[0], records[:], func(_ record.Offset, err error) { done(fixedWidth, err) })
				}})
				ok(b, log.Close())
			})
		}
	}
}
