package api

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/record"
)

// A framed answer of /api/v1/query is a sequence of frames: one byte of type, four bytes of length (big endian), the
// payload. It lets a client tell a result that was cut off from a whole one, and show progress beside the rows.
const (
	frameData     = 'D' // a piece of the result
	frameProgress = 'R' // a QueryProgress
	frameError    = 'E' // a failure; nothing follows
	frameDone     = 'Z' // the result is complete; nothing follows
	maxFrame      = 1 << 20
)

// frameWriter writes frames; it is safe for concurrent use because progress comes from another goroutine than rows.
type frameWriter struct {
	mu  sync.Mutex // guards w
	w   io.Writer
	ctl *http.ResponseController
	per time.Duration // for one write
}

func (f *frameWriter) frame(kind byte, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.ctl.SetWriteDeadline(time.Now().Add(f.per)) // not every ResponseWriter has deadlines; then there is none
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)))
	if _, err := f.w.Write(append(head, payload...)); err != nil {
		return err
	}
	return f.ctl.Flush()
}

// Write sends a piece of the result.
func (f *frameWriter) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		n := min(len(p)-done, maxFrame)
		if err := f.frame(frameData, p[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

func (f *frameWriter) json(kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return f.frame(kind, b)
}

// readFrames copies the result to out and hands progress on, until the answer is complete or failed.
func readFrames(r io.Reader, out io.Writer, progress func(QueryProgress)) error {
	br := bufio.NewReader(r)
	var head [5]byte
	for {
		if _, err := io.ReadFull(br, head[:]); err != nil {
			return record.Errorf(record.Unavailable, "answer ended before it was complete: %w", err)
		}
		n := binary.BigEndian.Uint32(head[1:])
		if n > maxFrame {
			return record.Errorf(record.Internal, "answer has a frame of %d bytes", n)
		}
		if head[0] == frameData {
			if _, err := io.CopyN(out, br, int64(n)); err != nil {
				return fmt.Errorf("copy result: %w", err)
			}
			continue
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(br, payload); err != nil {
			return record.Errorf(record.Unavailable, "answer ended before it was complete: %w", err)
		}
		switch head[0] {
		case frameDone:
			return nil
		case frameError:
			var f failure
			if err := json.Unmarshal(payload, &f); err != nil {
				return record.Errorf(record.Internal, "decode error: %w", err)
			}
			return f.err()
		case frameProgress:
			var p QueryProgress
			if err := json.Unmarshal(payload, &p); err == nil && progress != nil {
				progress(p)
			}
		}
	}
}
