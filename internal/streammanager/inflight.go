package streammanager

import (
	"io"
	"time"

	"github.com/leat-io/leat/internal/streammanager/wire"
)

// newRequest returns an object for a request. Its append is what an earlier request left, see wire.DecodeAppend.
func (c *conn) newRequest() *request {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.free); n > 0 {
		r := c.free[n-1]
		c.free = c.free[:n-1]
		return r
	}
	r := &request{c: c}
	r.done = r.appended
	return r
}

// start is newRequest and enter.
func (c *conn) start(op wire.Operation, id string) *request {
	r := c.newRequest()
	c.enter(r, op, id)
	return r
}

// enter puts a request in flight. From here on it is answered exactly once, or, when that is too late, never.
func (c *conn) enter(r *request, op wire.Operation, id string) {
	r.op, r.id, r.received, r.due, r.late = op, id, time.Now(), answerWithin, false
	r.count, r.bytes, r.list[0] = 0, 0, nil
	c.mu.Lock()
	defer c.mu.Unlock()
	r.behind, r.follower, r.answered, r.out, r.working, r.linked = nil, nil, false, nil, true, true
	for q := c.last; q != nil; q = q.prev {
		if q.id == id {
			r.behind, q.follower = q, r
			break
		}
	}
	if r.prev, r.next = c.last, nil; c.last != nil {
		c.last.next = r
	} else {
		c.first = r
	}
	c.last = r
	c.inflight++
	c.unanswered++
}

// answer sends the answer of r, unless r has one already, and ends the work on r. out nil is an answer that is never sent.
// It does not block.
func (c *conn) answer(r *request, out *frame, status wire.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.working = false
	if r.answered {
		if out != nil {
			out.release()
		}
		c.recycle(r)
		return
	}
	c.settle(r, out, status)
	c.send(r)
}

// settle gives r its answer. c.mu is held.
func (c *conn) settle(r *request, out *frame, status wire.Status) {
	r.answered, r.out = true, out
	if out == nil {
		c.s.count.dropped.Add(1)
	} else {
		c.s.count.failed(status)
	}
}

// send sends the answer of r, which has just been settled, and of those that waited for it: requests with the same id are
// answered in the order in which they came. c.mu is held, and given up for each system call: what is being sent stays in
// the list, so that followers keep behind it.
func (c *conn) send(r *request) {
	if r.behind != nil {
		return
	}
	for r != nil && r.answered {
		if f := r.out; f != nil {
			r.out = nil
			c.mu.Unlock()
			c.out.send(f)
			c.mu.Lock()
		}
		r = c.unlink(r)
	}
}

// unlink takes an answered request out of the list and returns the one that waits for it. c.mu is held.
func (c *conn) unlink(r *request) *request {
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		c.first = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		c.last = r.prev
	}
	f := r.follower
	if f != nil {
		f.behind = nil
	}
	r.prev, r.next, r.follower, r.linked = nil, nil, nil, false
	c.unanswered--
	if c.unanswered == 0 && c.stopping.Load() {
		c.wake()
	}
	c.recycle(r)
	return f
}

// recycle keeps the object for another request once it is answered and nobody works on it. c.mu is held.
func (c *conn) recycle(r *request) {
	if r.working || r.linked {
		return
	}
	if c.inflight == maxInflight {
		c.wake()
	}
	c.inflight--
	if len(c.free) < keepRequests {
		c.free = append(c.free, r)
	}
}

// sweep answers for those who have worked on a request for too long. The server calls it every sweepInterval.
func (c *conn) sweep(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.admitting.IsZero() && now.Sub(c.admitting) >= answerWithin {
		c.refuse()
	}
	c.abandon(func(r *request) bool { return now.Sub(r.received) >= r.due }, errTooSlow)
}

// abandon answers the chosen requests with err, while somebody may still work on them. c.mu is held.
func (c *conn) abandon(chosen func(*request) bool, err error) {
	var list []*request
	for r := c.first; r != nil; r = r.next {
		if r.answered || !chosen(r) {
			continue
		}
		if r.late && err == errTooSlow { //nolint:errorlint // a value of this package, as it is
			c.settle(r, nil, wire.ServerTimeout)
		} else {
			resp := wire.Failure(r.id, err)
			out, status := encode(r.op.Response(), r.id, &resp)
			c.settle(r, out, max(status, resp.Status))
		}
		list = append(list, r)
	}
	for _, r := range list { // settled and in the list, so that nobody else touches them
		if r.linked {
			c.send(r)
		}
	}
}

// drain answers everything in flight and ends the connection. Reads have been told to end; the rest gets what it gets until
// Server.work ends, then errStopping.
func (c *conn) drain() {
	for over := c.ctx.Done(); ; {
		c.mu.Lock()
		left := c.unanswered
		c.mu.Unlock()
		if left == 0 {
			break
		}
		select {
		case <-c.room:
		case <-over:
			over = nil // what is left is being sent
			c.mu.Lock()
			c.abandon(func(*request) bool { return true }, errStopping)
			c.mu.Unlock()
		}
	}
	c.out.flush(time.Now().Add(flushTime))
	c.hangUp(maxSkipped)
}

// maxSkipped bounds what hangUp reads of a connection that had requests under way.
const maxSkipped = 64 << 20

// hangUp ends our side and reads what still comes, for a moment and up to limit bytes: a socket that is closed with bytes
// unread resets the connection, and takes answers that the client has not read with it. The Python client never connects
// again after that.
func (c *conn) hangUp(limit int64) {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.nc.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	io.Copy(io.Discard, io.LimitReader(c.nc, limit)) //nolint:errcheck // whatever comes is thrown away
}
