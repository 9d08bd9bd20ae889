package testenv

import (
	"bytes"
	"sync"
)

// Output keeps what a log or a process writes, for reading while it still writes. The zero value is empty.
type Output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write adds p.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String is all that was written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
