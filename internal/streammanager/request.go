package streammanager

import (
	"math"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// The times of an answer (section 4.3 of the protocol). A client gives up after 60 s, unless its program says otherwise, and
// the Python client does not survive an answer that comes later.
const (
	answerWithin = 55 * time.Second // then the answer is ServerTimeout
	dropAfter    = 59 * time.Second // then there is none
)

// request is one request in flight: from when it was decoded until it was answered and whoever worked on it is done.
// Objects are reused, per connection, so that an append costs no allocation but its id.
type request struct {
	c        *conn
	op       wire.Operation
	id       string
	received time.Time
	// due is when the request is answered for who works on it; late says that nobody would want an answer then.
	due  time.Duration
	late bool

	// In an append:
	append wire.AppendRequest // kept for its name, see wire.DecodeAppend
	list   [1][]byte
	count  int // messages
	bytes  int // of payloads
	answer wire.AppendResponse
	done   func(first int64, err error) // request.appended of this object, made once

	// Guarded by conn.mu:
	prev, next *request // neighbours in flight, in order of arrival
	behind     *request // the one before with the same id, which is to be answered before
	follower   *request // the one after with the same id
	answered   bool     // out is what to send, once behind is nil
	out        *frame   // nil when there is nothing to send
	working    bool     // somebody may still call complete or appended
	linked     bool     // it is in the list of the connection
}

// appended is the callback of an append. It runs on the goroutine that commits the log and does not block.
func (r *request) appended(first int64, err error) {
	c, count, bytes := r.c, r.count, r.bytes
	r.answer = wire.AppendResponse{Response: wire.Response{RequestID: r.id}, SequenceNumber: first}
	if err != nil {
		r.answer.Response = wire.Failure(r.id, err)
	} else {
		c.s.count.messages.Add(uint64(count))
		c.s.count.bytes.Add(uint64(bytes))
	}
	r.complete(r.answer.Status, &r.answer)
}

// fail answers with an error.
func (r *request) fail(err error) {
	resp := wire.Failure(r.id, err)
	r.complete(resp.Status, &resp)
}

// complete answers and ends the work on the request: r is not touched after it. An answer that comes too late is not sent.
func (r *request) complete(status wire.Status, body wire.Body) {
	var f *frame
	if time.Since(r.received) < max(dropAfter, r.due) {
		var failed wire.Status
		if f, failed = encode(r.op.Response(), r.id, body); failed != wire.Success {
			status = failed
		}
	}
	r.c.answer(r, f, status)
}

// wait is how long a read may be answered: as long as it asked for, if that is longer than others have. Its client has a
// timeout at least as long.
func (r *request) wait(o *wire.ReadMessagesOptions) {
	if o == nil {
		return
	}
	const most = math.MaxInt64 / int64(time.Millisecond)
	d := time.Duration(min(max(o.ReadTimeoutMillis.Or(0), 0), most)) * time.Millisecond
	if d > answerWithin {
		r.due, r.late = d, true
	}
}

// errTooSlow is the answer for who has worked on a request for answerWithin.
var errTooSlow = wire.Errorf(wire.ServerTimeout, "not done within %s: the disk or the node is too slow", answerWithin)

// errStopping is the answer to what is in flight when leat stops and does not end by itself.
var errStopping = wire.Errorf(wire.ServerTimeout, "leat is stopping: send the request again once it is back")

// errNoID ends a connection: nobody could match an answer.
func errNoID(err error) error {
	return record.Errorf(record.Invalid, "a request that cannot be answered: %w", err)
}
