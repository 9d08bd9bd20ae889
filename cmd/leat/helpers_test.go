package main

import (
	"bytes"
	"net"
	"sync"

	"github.com/leat-io/leat/internal/record"
)

// syncBuffer is a buffer that one goroutine writes and another reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

type netListener struct{}

func (*netListener) listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

func kindOf(i int) record.Kind { return record.Kind(i) }
