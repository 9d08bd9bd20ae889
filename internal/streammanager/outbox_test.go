package streammanager

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// sockets are the two ends of a TCP connection, of which ours has a small buffer, so that writes are cut short.
func sockets(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	ok(t, err)
	server, err := ln.Accept()
	ok(t, err)
	t.Cleanup(func() { client.Close(); server.Close() })
	ours, theirs = server.(*net.TCPConn), client.(*net.TCPConn)
	ok(t, ours.SetWriteBuffer(8<<10))
	return ours, theirs
}

func testFrame(from, number, size int) *frame {
	f := newFrame()
	f.b = binary.BigEndian.AppendUint32(f.b, uint32(size))
	f.b = append(f.b, byte(from))
	f.b = binary.BigEndian.AppendUint32(f.b, uint32(number))
	for range size {
		f.b = append(f.b, byte(from*31+number))
	}
	return f
}

func TestFramesStayWholeAndInOrder(t *testing.T) {
	ours, theirs := sockets(t)
	var count counters
	o := newOutbox(ours, &count, func() {})
	const senders, each = 4, 400
	var wg sync.WaitGroup
	for from := range senders {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(from)))
			for n := range each {
				size := random.IntN(300)
				switch random.IntN(10) {
				case 0:
					size = random.IntN(40 << 10) // more than the kernel takes at once
				case 1:
					size = directMost + random.IntN(20<<10) // never written directly
				}
				o.send(testFrame(from, n, size))
			}
		})
	}
	var next [senders]int
	var total uint64
	for range senders * each {
		var head [9]byte
		if _, err := io.ReadFull(theirs, head[:]); err != nil {
			t.Fatal(err)
		}
		size, from, number := binary.BigEndian.Uint32(head[:]), int(head[4]), int(binary.BigEndian.Uint32(head[5:]))
		if from >= senders || number != next[from] {
			t.Fatalf("frame %d of %d, want %d", number, from, next[from])
		}
		next[from]++
		body := make([]byte, size)
		if _, err := io.ReadFull(theirs, body); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(body, bytes.Repeat([]byte{byte(from*31 + number)}, int(size))) {
			t.Fatalf("frame %d of %d is damaged", number, from)
		}
		total += uint64(len(head)) + uint64(size)
	}
	wg.Wait()
	o.flush(time.Now().Add(patience))
	o.close()
	if got := count.out.Load(); got != total {
		t.Errorf("counted %d bytes, want %d", got, total)
	}
}

func TestSendNeverBlocks(t *testing.T) {
	ours, theirs := sockets(t)
	drained := make(chan struct{}, 1)
	o := newOutbox(ours, &counters{}, func() { drained <- struct{}{} })
	for i := range 600 { // 18 MiB, and nobody reads: more than any kernel's buffers
		o.send(testFrame(0, i, 30<<10))
	}
	if !o.full() {
		t.Error("not full")
	}
	go io.Copy(io.Discard, theirs) //nolint:errcheck // it ends with the connection
	<-drained
	if o.full() {
		t.Error("full when there is room")
	}
	o.flush(time.Now().Add(patience))
	o.close()
}

// writes counts the calls of Write and what each had.
type writes struct {
	net.Conn
	sizes []int
}

func (w *writes) Write(p []byte) (int, error) {
	w.sizes = append(w.sizes, len(p))
	return w.Conn.Write(p)
}

func TestEachFrameIsOneWrite(t *testing.T) {
	mine, theirs := net.Pipe()
	go io.Copy(io.Discard, theirs) //nolint:errcheck // it ends with the connection
	w := &writes{Conn: mine}       // no syscall.Conn: all goes through drain
	o := newOutbox(w, &counters{}, func() {})
	var want []int
	for i := range 50 {
		f := testFrame(1, i, i*100)
		want = append(want, len(f.b))
		o.send(f)
	}
	o.flush(time.Now().Add(patience))
	o.close()
	if len(w.sizes) != len(want) {
		t.Fatalf("%d writes for %d frames", len(w.sizes), len(want))
	}
	for i := range want {
		if w.sizes[i] != want[i] {
			t.Errorf("write %d has %d bytes, want %d", i, w.sizes[i], want[i])
		}
	}
}

func TestFlushHasAnEnd(t *testing.T) {
	ours, _ := sockets(t)
	o := newOutbox(ours, &counters{}, func() {})
	o.send(testFrame(0, 0, 32<<20)) // nobody reads
	began := time.Now()
	o.flush(began.Add(50 * time.Millisecond))
	o.send(testFrame(0, 1, 1)) // forgotten
	o.close()
	if d := time.Since(began); d > patience {
		t.Errorf("took %s", d)
	}
}

func TestWritesToAClosedConnectionEnd(t *testing.T) {
	ours, theirs := sockets(t)
	o := newOutbox(ours, &counters{}, func() {})
	theirs.Close()
	for i := range 100 {
		o.send(testFrame(0, i, 10<<10))
	}
	o.close()
	o.send(testFrame(0, 1, 1))
}
