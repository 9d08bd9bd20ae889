package sim_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/sim"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ackingBroker accepts connections, acknowledges every PUBLISH and keeps the payloads. After cutAfter messages on a
// connection (when not 0) it closes that connection, once, leaving the last message unacknowledged.
type ackingBroker struct {
	l        net.Listener
	cutAfter int

	mu       sync.Mutex // guards what follows
	cut      bool
	payloads []string
	topics   map[string]int
}

func startBroker(t *testing.T, cutAfter int) *ackingBroker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &ackingBroker{l: l, cutAfter: cutAfter, topics: map[string]int{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); b.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return b
}

func (b *ackingBroker) serve(c net.Conn) {
	r := bufio.NewReader(c)
	for n := 1; ; n++ {
		head, err := r.ReadByte()
		if err != nil {
			return
		}
		length, err := binary.ReadUvarint(r) // MQTT's length is a uvarint of at most 4 bytes
		if err != nil {
			return
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		switch head {
		case 0x10:
			c.Write([]byte{0x20, 2, 0, 0})
		case 0x32:
			topicLen := int(binary.BigEndian.Uint16(body))
			topic, id, payload := string(body[2:2+topicLen]), body[2+topicLen:4+topicLen], string(body[4+topicLen:])
			b.mu.Lock()
			b.payloads = append(b.payloads, payload)
			b.topics[topic]++
			cut := b.cutAfter > 0 && !b.cut && n > b.cutAfter
			b.cut = b.cut || cut
			b.mu.Unlock()
			if cut {
				return
			}
			c.Write([]byte{0x40, 2, id[0], id[1]})
		}
	}
}

func TestLoadSendsEveryNumberOnceAndWaitsForAcknowledgements(t *testing.T) {
	b := startBroker(t, 0)
	res, err := sim.Load(t.Context(), sim.LoadConfig{Addr: b.l.Addr().String(), Messages: 5003, Connections: 3, Window: 7})
	if err != nil {
		t.Fatal(err)
	}
	if res.Acked.Len() != 5003 || res.Sent != 5003 || res.Unknown != 0 {
		t.Fatalf("acked %d, sent %d, unknown %d; want 5003, 5003, 0", res.Acked.Len(), res.Sent, res.Unknown)
	}
	seen := map[int]bool{}
	for _, p := range b.payloads {
		var m struct {
			N     int     `json:"n"`
			TS    int64   `json:"ts"`
			Value float64 `json:"value"`
		}
		if err := json.Unmarshal([]byte(p), &m); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		if seen[m.N] || !res.Acked.Has(m.N) {
			t.Fatalf("message %d twice or not marked as acknowledged", m.N)
		}
		seen[m.N] = true
	}
	if len(b.topics) != 125 || b.topics["load/004"] == 0 {
		t.Fatalf("%d topics, want load/000 to load/124", len(b.topics))
	}
}

func TestLoadReconnectsAndNeverResends(t *testing.T) {
	b := startBroker(t, 100)
	res, err := sim.Load(t.Context(), sim.LoadConfig{
		Addr: b.l.Addr().String(), Messages: 1000, Connections: 1, Window: 10, Reconnect: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Breaks != 1 || res.Unknown == 0 || res.Unknown > 10 {
		t.Fatalf("breaks %d, unknown %d; want 1 break and at most a window of unknown messages", res.Breaks, res.Unknown)
	}
	if res.Acked.Len()+res.Unknown != 1000 || res.Sent != 1000 {
		t.Fatalf("acked %d + unknown %d of sent %d; want 1000", res.Acked.Len(), res.Unknown, res.Sent)
	}
	seen := map[string]bool{}
	for _, p := range b.payloads {
		if seen[p] {
			t.Fatalf("sent twice: %s", p)
		}
		seen[p] = true
	}
}

func TestLoadSendsAgainWhatWasNotAcknowledged(t *testing.T) {
	b := startBroker(t, 100)
	acked := sim.NewSet(1000)
	start := time.UnixMilli(1_790_000_000_000)
	res, err := sim.Load(t.Context(), sim.LoadConfig{
		Addr: b.l.Addr().String(), Messages: 1000, Connections: 1, Window: 10, Reconnect: 10 * time.Second, Resend: true,
		Acked: acked, Start: start,
	})
	if err != nil {
		t.Fatal(err)
	}
	if acked.Len() != 1000 || acked.Clone().Len() != 1000 || res.Unknown != 0 || len(res.Again) == 0 || len(res.Again) > 10 {
		t.Fatalf("acked %d, unknown %d, again %v; want all, none, at most a window", acked.Len(), res.Unknown, res.Again)
	}
	if want := int64(1000 + len(res.Again)); res.Sent != want {
		t.Fatalf("sent %d, want %d", res.Sent, want)
	}
	times := map[string]int{}
	for _, p := range b.payloads {
		times[p]++
	}
	for n := range 1000 {
		got := times[string(sim.AppendLoadPayload(nil, n, start))]
		if got < 1 || got > 1+res.Again[n] {
			t.Fatalf("message %d arrived %d times, sent again %d times", n, got, res.Again[n])
		}
	}
}

func TestLoadEndsWithItsContext(t *testing.T) {
	b := startBroker(t, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	res, err := sim.Load(ctx, sim.LoadConfig{Addr: b.l.Addr().String(), Messages: 1 << 30, Rate: 1000})
	if err == nil || res.Acked.Len() > 1000 {
		t.Fatalf("err %v after %d messages; want the context's error and at most what the rate allows", err, res.Acked.Len())
	}
}

func TestLoadNamesWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  sim.LoadConfig
		want string
	}{
		"nobody listens": {sim.LoadConfig{Addr: "127.0.0.1:1", Messages: 1, Connections: 1}, "refused"},
		"window":         {sim.LoadConfig{Window: 70000}, "window 70000"},
		"too many":       {sim.LoadConfig{Messages: 1 << 32}, "32 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sim.Load(t.Context(), c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestLoadPayloadIsAbout60Bytes(t *testing.T) {
	for _, n := range []int{0, 124, 125, 999_999, 1_999_999} {
		p := sim.AppendLoadPayload(nil, n, time.Now())
		if !json.Valid(p) || len(p) < 45 || len(p) > 75 {
			t.Errorf("message %d: %d bytes %s", n, len(p), p)
		}
	}
}

func TestSetKeepsEachNumberOnce(t *testing.T) {
	s := sim.NewSet(100)
	for _, n := range []int{0, 63, 64, 99} {
		if !s.Add(n) || s.Add(n) || !s.Has(n) {
			t.Errorf("number %d", n)
		}
	}
	if s.Add(-1) || s.Add(128) || s.Has(1) || s.Len() != 4 {
		t.Errorf("length %d, want 4", s.Len())
	}
}
