package sim

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// LoadConfig describes a load: Messages numbered from 0, each a JSON object of about 60 bytes that carries its number,
// dealt out to the connections in turn and to the topics likewise.
type LoadConfig struct {
	Addr        string
	Messages    int           // how many; at most 2^32-1
	First       int           // number of the first message
	Topics      int           // default 125
	Connections int           // default 5
	Window      int           // unacknowledged messages per connection, default 1,000, at most 60,000
	Rate        int           // messages per second over all connections; 0 = as fast as the window allows
	Prefix      string        // topics are Prefix/000 … Prefix/124; default "load"
	ClientID    string        // connections are ClientID-0 …; default "load"
	User        string        // with Password, when the broker wants them
	Password    string        //
	AtMostOnce  bool          // QoS 0 instead of 1: what was written counts as acknowledged
	Reconnect   time.Duration // keep trying for so long when the connection breaks; 0 = give up at once
	Resend      bool          // after reconnecting send again what was not acknowledged, as devices do
	Acked       *Set          // where acknowledged numbers are noted, to be read meanwhile; default a new one
	Start       time.Time     // "ts" of message n is Start + n/3125 s; zero = the time Load begins
}

// LoadResult is what happened. After an error it tells what was reached.
type LoadResult struct {
	Sent    int64 // messages written to a connection
	Acked   *Set  // numbers of the messages that the broker acknowledged
	Unknown int64 // written but not acknowledged when a connection broke: the broker may or may not have them
	Elapsed time.Duration
	Breaks  int64       // connections lost and made again
	Again   map[int]int // with Resend: how often a number was sent again, for those that were
}

// Rate is the acknowledged messages per second.
func (r *LoadResult) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Acked.Len()) / r.Elapsed.Seconds()
}

func (c *LoadConfig) setDefaults() error {
	if c.Topics == 0 {
		c.Topics = 125
	}
	if c.Connections == 0 {
		c.Connections = 5
	}
	if c.Window == 0 {
		c.Window = 1000
	}
	if c.Prefix == "" {
		c.Prefix = "load"
	}
	if c.ClientID == "" {
		c.ClientID = "load"
	}
	if c.Start.IsZero() {
		c.Start = time.Now()
	}
	switch {
	case c.Messages < 0 || c.First < 0 || int64(c.First)+int64(c.Messages) > 1<<32-1:
		return fmt.Errorf("load of %d messages from %d: numbers must fit in 32 bits", c.Messages, c.First)
	case c.Window < 1 || c.Window > 60000:
		return fmt.Errorf("load window %d: want 1 to 60000, packet ids are 16 bits", c.Window)
	}
	return nil
}

// Load publishes with a publisher of its own, because client libraries spend more on a message than the broker under
// test. It returns when everything is acknowledged, ctx ends, or a connection cannot be made (again). Messages that were
// in flight when a connection broke are not sent a second time (unless Resend says so): they are what Unknown counts,
// and every acknowledged number is one promise of the broker, to be compared with what it stored.
func Load(ctx context.Context, cfg LoadConfig) (LoadResult, error) {
	if err := cfg.setDefaults(); err != nil {
		return LoadResult{}, err
	}
	var (
		wg    sync.WaitGroup
		began = time.Now()
		acked = cfg.Acked
		conns = make([]loadConn, cfg.Connections)
		errs  = make([]error, cfg.Connections)
	)
	if acked == nil {
		acked = NewSet(cfg.First + cfg.Messages)
	}
	res := LoadResult{Acked: acked, Again: map[int]int{}}
	for i := range conns {
		conns[i] = loadConn{cfg: &cfg, index: i, acked: acked, began: began}
		wg.Go(func() { errs[i] = conns[i].run(ctx) })
	}
	wg.Wait()
	res.Elapsed = time.Since(began)
	for i := range conns {
		res.Sent += conns[i].sent
		res.Unknown += conns[i].unknown
		res.Breaks += conns[i].breaks
		for n, times := range conns[i].resent {
			res.Again[n] += times
		}
	}
	return res, errors.Join(errs...)
}

// loadConn is one connection's share of a load: the messages with number ≡ index modulo the number of connections.
type loadConn struct {
	cfg   *LoadConfig
	index int
	acked *Set
	began time.Time

	next    int // of this connection's messages, the next to send (message number = First + index + next*Connections)
	sent    int64
	unknown int64
	breaks  int64
	again   []uint32    // numbers to send again, in order
	resent  map[int]int // how often a number was sent again
}

func (c *loadConn) count() int {
	n := c.cfg.Messages - c.index
	if n <= 0 {
		return 0
	}
	return (n + c.cfg.Connections - 1) / c.cfg.Connections
}

// run sends this connection's share, reconnecting as the configuration allows.
func (c *loadConn) run(ctx context.Context) error {
	giveUp := time.Time{}
	for c.next < c.count() || len(c.again) > 0 {
		err := c.session(ctx, func() { giveUp = time.Time{} })
		if err == nil || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if giveUp.IsZero() {
			giveUp = time.Now().Add(c.cfg.Reconnect)
		}
		if c.cfg.Reconnect == 0 || time.Now().After(giveUp) {
			return fmt.Errorf("load connection %d after %d messages: %w", c.index, c.next, err)
		}
		c.breaks++
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// session is the life of one connection: CONNECT, messages until none is left or it breaks, DISCONNECT.
func (c *loadConn) session(ctx context.Context, connected func()) error {
	conn, err := dialMQTT(ctx, c.cfg.Addr, fmt.Sprintf("%s-%d", c.cfg.ClientID, c.index), c.cfg.User, c.cfg.Password)
	if err != nil {
		return err
	}
	defer conn.Close()
	connected()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	w := newWindow(c.cfg.Window)
	done := make(chan error, 1)
	go func() { // ends when the connection is closed; waited for below
		err := readAcks(conn, func(ids []uint16) { c.take(w, ids) })
		w.fail(err)
		done <- err
	}()
	err = c.send(ctx, conn, w)
	if err == nil {
		_, err = conn.Write(disconnect)
	}
	conn.Close()
	readErr := <-done
	c.unsettled(w)
	if err != nil && errors.Is(err, net.ErrClosed) && readErr != nil {
		err = readErr
	}
	return err
}

// unsettled keeps what was in flight when the connection ended, or counts it as unknown.
func (c *loadConn) unsettled(w *window) {
	numbers := w.inFlight()
	if !c.cfg.Resend {
		c.unknown += int64(len(numbers))
		return
	}
	c.again = append(c.again, numbers...)
	slices.Sort(c.again)
}

// take marks what the broker acknowledged and opens the window.
func (c *loadConn) take(w *window, ids []uint16) {
	for _, number := range w.release(ids) {
		c.acked.Add(int(number))
	}
}

// send writes the remaining messages in bursts as the window and the rate allow, and waits for the last acknowledgement.
func (c *loadConn) send(ctx context.Context, conn net.Conn, w *window) error {
	buf := make([]byte, 0, 64<<10)
	for len(c.again) > 0 {
		var err error
		if buf, err = c.encodeAgain(buf[:0], w); err != nil {
			return err
		}
		if _, err := conn.Write(buf); err != nil {
			return err
		}
	}
	for total := c.count(); c.next < total; {
		burst := min(total-c.next, 256)
		if c.cfg.Rate > 0 {
			if burst = min(burst, c.due()-c.next); burst <= 0 {
				if err := pause(ctx, time.Millisecond); err != nil {
					return err
				}
				continue
			}
		}
		buf = buf[:0]
		if c.cfg.AtMostOnce {
			buf = c.encodeUnacknowledged(buf, burst)
		} else {
			var err error
			if buf, err = c.encode(buf, burst, w); err != nil {
				return err
			}
		}
		if _, err := conn.Write(buf); err != nil {
			return err
		}
	}
	return w.drain()
}

// due is how many of this connection's messages the rate allows by now.
func (c *loadConn) due() int {
	return int(time.Since(c.began).Seconds() * float64(c.cfg.Rate) / float64(c.cfg.Connections))
}

func (c *loadConn) encode(buf []byte, burst int, w *window) ([]byte, error) {
	ids, err := w.acquire(burst, func(i int) uint32 { return uint32(c.number(c.next + i)) })
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		buf = c.appendMessage(buf, c.number(c.next), id)
		c.next++
	}
	c.sent += int64(len(ids))
	return buf, nil
}

// encodeAgain encodes messages that an earlier connection did not get acknowledged.
func (c *loadConn) encodeAgain(buf []byte, w *window) ([]byte, error) {
	ids, err := w.acquire(min(len(c.again), 256), func(i int) uint32 { return c.again[i] })
	if err != nil {
		return nil, err
	}
	if c.resent == nil {
		c.resent = map[int]int{}
	}
	for i, id := range ids {
		buf = c.appendMessage(buf, int(c.again[i]), id)
		c.resent[int(c.again[i])]++
	}
	c.again = c.again[len(ids):]
	c.sent += int64(len(ids))
	return buf, nil
}

func (c *loadConn) encodeUnacknowledged(buf []byte, burst int) []byte {
	for range burst {
		n := c.number(c.next)
		buf = c.appendMessage(buf, n, 0) // id 0 is QoS 0
		c.acked.Add(n)
		c.next++
	}
	c.sent += int64(burst)
	return buf
}

func (c *loadConn) number(k int) int { return c.cfg.First + c.index + k*c.cfg.Connections }

func (c *loadConn) appendMessage(buf []byte, n int, id uint16) []byte {
	var topic, payload [128]byte
	t := append(topic[:0], c.cfg.Prefix...)
	t = append(t, '/')
	t = appendPadded(t, n%c.cfg.Topics, 3)
	return appendPublish(buf, t, AppendLoadPayload(payload[:0], n, c.cfg.Start), id)
}

// AppendLoadPayload appends the payload of message n of a load that began at start: a JSON object with the number "n",
// the time "ts" in milliseconds as 3,125 messages a second would have it, and a "value" from 0 to 100 with four random
// digits behind the point, so that no file gets small by guessing it.
func AppendLoadPayload(b []byte, n int, start time.Time) []byte {
	b = append(b, `{"ts":`...)
	b = strconv.AppendInt(b, start.UnixMilli()+int64(n)*1000/3125, 10)
	b = append(b, `,"n":`...)
	b = strconv.AppendInt(b, int64(n), 10)
	b = append(b, `,"value":`...)
	v := int(scramble(uint64(n)) % 1_000_000)
	b = strconv.AppendInt(b, int64(v/10_000), 10)
	b = append(b, '.')
	b = appendPadded(b, v%10_000, 4)
	return append(b, `,"ok":true}`...)
}

// scramble is the finalizer of SplitMix64: equal numbers give equal values, neighbours unrelated ones.
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func appendPadded(b []byte, n, digits int) []byte {
	for div := pow10(digits - 1); div > 1 && n < div; div /= 10 {
		b = append(b, '0')
	}
	return strconv.AppendInt(b, int64(n), 10)
}

func pow10(n int) int {
	p := 1
	for range n {
		p *= 10
	}
	return p
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// window holds the packet ids in flight on one connection, and which message each is for.
type window struct {
	limit int

	mu      sync.Mutex // guards what follows
	room    sync.Cond  // signalled when ids are released or the connection fails
	message [1 << 16]uint32
	used    [1 << 16]bool
	count   int
	last    uint16
	err     error
	ids     []uint16 // reused by acquire
	freed   []uint32 // reused by release
}

func newWindow(limit int) *window {
	w := &window{limit: limit}
	w.room.L = &w.mu
	return w
}

// acquire waits for room and takes between one and n ids; number tells the message of each. The slice is valid until
// the next call.
func (w *window) acquire(n int, number func(i int) uint32) ([]uint16, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && (w.count >= w.limit || w.used[w.following()]) {
		w.room.Wait()
	}
	if w.err != nil {
		return nil, w.err
	}
	w.ids = w.ids[:0]
	for len(w.ids) < n && w.count < w.limit {
		id := w.following()
		if w.used[id] {
			break
		}
		w.used[id], w.message[id], w.last = true, number(len(w.ids)), id
		w.count++
		w.ids = append(w.ids, id)
	}
	return w.ids, nil
}

func (w *window) following() uint16 {
	if w.last == 1<<16-1 {
		return 1
	}
	return w.last + 1
}

// release frees ids and returns their messages; unknown ids are ignored. The slice is valid until the next call.
func (w *window) release(ids []uint16) []uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.freed = w.freed[:0]
	for _, id := range ids {
		if w.used[id] {
			w.used[id] = false
			w.count--
			w.freed = append(w.freed, w.message[id])
		}
	}
	w.room.Broadcast()
	return w.freed
}

// drain waits until nothing is in flight.
func (w *window) drain() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && w.count > 0 {
		w.room.Wait()
	}
	if w.count > 0 {
		return w.err
	}
	return nil
}

// inFlight returns the messages that are.
func (w *window) inFlight() []uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var numbers []uint32
	for id, used := range w.used {
		if used {
			numbers = append(numbers, w.message[id])
		}
	}
	return numbers
}

func (w *window) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	w.room.Broadcast()
}

// Set is a set of numbers below a limit, one bit each. It is safe for concurrent use.
type Set struct {
	bits []atomic.Uint64
	n    atomic.Int64
}

// NewSet returns an empty set for numbers below limit.
func NewSet(limit int) *Set { return &Set{bits: make([]atomic.Uint64, (limit+63)/64)} }

// Add adds a number and reports whether it was new. A number at or above the limit is not added.
func (s *Set) Add(n int) bool {
	if n < 0 || n/64 >= len(s.bits) {
		return false
	}
	bit := uint64(1) << (n % 64)
	if s.bits[n/64].Or(bit)&bit != 0 {
		return false
	}
	s.n.Add(1)
	return true
}

// Has reports whether the number is in the set.
func (s *Set) Has(n int) bool {
	return n >= 0 && n/64 < len(s.bits) && s.bits[n/64].Load()&(1<<(n%64)) != 0
}

// Clone returns a set with the same numbers.
func (s *Set) Clone() *Set {
	c := &Set{bits: make([]atomic.Uint64, len(s.bits))}
	for i := range s.bits {
		word := s.bits[i].Load()
		c.bits[i].Store(word)
		c.n.Add(int64(bits.OnesCount64(word)))
	}
	return c
}

// Len is how many numbers are in the set.
func (s *Set) Len() int64 { return s.n.Load() }
