package mqtt_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/auth"
	"github.com/leat-io/leat/internal/testenv"
)

func TestGarbageIsARefusedConnection(t *testing.T) {
	tb := startBroker(t, brokerConfig(), auth.Config{})
	for reason, bytes := range map[string][]byte{
		"perhaps HTTP":                 []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"but TLS":                      {0x16, 3, 1, 2, 0, 1},
		"first byte is 0x00":           make([]byte, 1000),
		"CONNECT of 268435455 bytes":   {0x10, 0xff, 0xff, 0xff, 0x7f},
		"the packet length never ends": {0x10, 0xff, 0xff, 0xff, 0xff, 1},
		"first byte is 0x30":           publishFrame(4, 0, 0, false, "t", "before CONNECT"),
		"violation: protocol name":     frame(0x10, str("MQTX"), []byte{4, 2, 0, 60}, str("x")),
		"client identifier not valid":  frame(0x10, str("MQTT"), []byte{4, 2, 0, 60, 0, 200}),
	} {
		w := dial(t, tb.addr())
		w.Write(bytes)
		w.closed()
		wait(t, "the log line "+reason, func() bool { return strings.Contains(tb.log.String(), reason) })
	}
	tb.login(4, "still fine", true).silent()
	if s := tb.Stats(); s.Refused != 8 {
		t.Errorf("%d refused, want 8", s.Refused)
	}
}

func TestGarbageFloodDoesNotFloodTheLog(t *testing.T) {
	cfg := brokerConfig()
	cfg.LogInterval = time.Hour
	tb := startBroker(t, cfg, auth.Config{})
	for range 50 {
		w := dial(t, tb.addr())
		w.send([]byte("garbage"))
		w.closed()
	}
	wait(t, "all to be counted", func() bool { return tb.Stats().Refused == 50 })
	if n := strings.Count(tb.log.String(), "connection refused"); n != 1 {
		t.Errorf("%d lines", n)
	}
}

func TestHalfOpenConnectionsAreClosed(t *testing.T) {
	cfg := brokerConfig()
	cfg.ConnectTimeout = 50 * time.Millisecond
	cfg.WSListen = "127.0.0.1:0"
	tb := startBroker(t, cfg, auth.Config{})
	for _, a := range tb.Addrs() {
		dial(t, a.Address).closed()
	}
	slow := dial(t, tb.addr())
	slow.send(connectFrame(4, "slow", true, 60)[:7])
	slow.closed()
	wait(t, "the sockets to be forgotten", func() bool { return tb.Stats().OpenConnections == 0 })
}

func TestKeepAliveEndsSilentClients(t *testing.T) {
	tb := startBroker(t, brokerConfig(), auth.Config{})
	w := dial(t, tb.addr())
	w.send(connectFrame(4, "dead", true, 1))
	w.want(0x20, 0, 0)
	w.closed() // after one and a half seconds
	big := dial(t, tb.addr())
	big.send(connectFrame(5, "big", true, 65535))
	if body := big.want(0x20, 0, 0); !bytes.Contains(body, []byte{19, 0x0e, 0x10}) {
		t.Errorf("CONNACK % x does not tell the server keep-alive of 1 h", body)
	}
	old := dial(t, tb.addr())
	old.send(connectFrame(4, "old", true, 65535)) // one and a half fold of it overflows in the library
	old.want(0x20, 0, 0)
	old.silent()
}

func TestTooManyConnections(t *testing.T) {
	cfg := brokerConfig()
	cfg.MaxConnections = 4
	tb := startBroker(t, cfg, auth.Config{})
	for i := range 4 {
		tb.login(4, fmt.Sprint(i), true)
	}
	w := dial(t, tb.addr())
	w.send(connectFrame(5, "one more", true, 60))
	w.want(0x20, 0, 0x89)
	w = dial(t, tb.addr())
	w.send(connectFrame(4, "one more", true, 60))
	w.want(0x20, 0, 3)
	for range 30 { // these say nothing: even half-open ones are bounded
		dial(t, tb.addr())
	}
	wait(t, "refusals", func() bool { return strings.Contains(tb.log.String(), "mqtt.max_connections") })
	if s := tb.Stats(); s.OpenConnections > 12 {
		t.Errorf("%d sockets are open", s.OpenConnections)
	}
}

func TestTooManySessions(t *testing.T) {
	cfg := brokerConfig()
	cfg.MaxSessions = 3 // one of them is the broker's own
	tb := startBroker(t, cfg, auth.Config{})
	for i := range 2 {
		tb.login(4, fmt.Sprint(i), false).Close()
	}
	wait(t, "both to be gone", func() bool { return tb.Stats().OpenClients == 0 })
	n := tb.Stats().StoredSessions
	w := dial(t, tb.addr())
	w.send(connectFrame(5, "third", false, 60))
	if body := w.want(0x20); n >= 3 && body[1] != 0x89 {
		t.Errorf("a session beyond the limit: % x", body)
	}
	tb.login(4, "0", false) // a known one may come back
}

// TestRandomBytesAfterConnect sends what fuzzing finds hard to reach: valid sessions that go wrong.
func TestRandomBytesAfterConnect(t *testing.T) {
	tb := startBroker(t, brokerConfig(), auth.Config{})
	end := time.Now().Add(testenv.Soak(t, time.Second) / 4)
	seed := uint64(time.Now().UnixNano())
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(g)))
			for time.Now().Before(end) {
				c, err := net.Dial("tcp", tb.addr())
				if err != nil {
					t.Error(err)
					return
				}
				version := byte(4 + r.IntN(2))
				c.Write(connectFrame(version, fmt.Sprint(g), r.IntN(2) == 0, 60))
				for range 1 + r.IntN(6) {
					b := publishFrame(version, byte(r.IntN(3)), uint16(r.IntN(4)), r.IntN(2) == 0, "a/b", "payload")
					if r.IntN(3) == 0 {
						b = make([]byte, 2+r.IntN(40))
						for i := range b {
							b[i] = byte(r.Uint32())
						}
						b[1] = byte(len(b) - 2)
					} else if r.IntN(2) == 0 {
						b[r.IntN(len(b))] ^= 1 << r.IntN(8)
					}
					c.Write(b)
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	t.Logf("seed %d", seed)
	tb.login(4, "still fine", true).silent()
	wait(t, "the sockets to be closed", func() bool { return tb.Stats().OpenConnections <= 1 })
}

// TestThousandsOfIdleConnections measures what an idle client costs. The clients live in another process (this test's
// own binary), because one process may have too few file handles for both ends.
func TestThousandsOfIdleConnections(t *testing.T) {
	if addr := os.Getenv("MQTT_IDLE_ADDR"); addr != "" {
		holdIdle(t, addr)
		return
	}
	n := 2000
	if os.Getenv("SOAK") != "" {
		n = 9000
	}
	tb := startBroker(t, brokerConfig(), auth.Config{})
	before, goroutines := rss(t), runtime.NumGoroutine()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestThousandsOfIdleConnections$")
	cmd.Env = append(os.Environ(), "MQTT_IDLE_ADDR="+tb.addr(), "MQTT_IDLE_N="+strconv.Itoa(n))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testenv.Wait(t, time.Minute, func() bool { return tb.Stats().OpenClients == int64(n) }, "all clients")
	runtime.GC()
	per := (rss(t) - before) / n
	t.Logf("%d idle clients: %d KiB each", n, per>>10)
	if per > raceFactor*64<<10 {
		t.Errorf("an idle client costs %d bytes of RSS: at most 64 KiB", per)
	}
	tb.login(4, "one more", true).silent()
	in.Close() // the clients leave
	if err := cmd.Wait(); err != nil {
		t.Fatalf("clients: %v\n%s", err, &out)
	}
	wait(t, "the connections to be gone", func() bool { return tb.Stats().OpenConnections <= 1 })
	wait(t, "the goroutines to be gone", func() bool { return runtime.NumGoroutine() < goroutines+20 })
}

func holdIdle(t *testing.T, addr string) {
	n, _ := strconv.Atoi(os.Getenv("MQTT_IDLE_N"))
	conns := make([]net.Conn, n)
	for i := range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c
		c.Write(connectFrame(4, fmt.Sprint("idle-", i), true, 600))
	}
	os.Stdin.Read(make([]byte, 1))
	for _, c := range conns {
		c.Close()
	}
}

func rss(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		testenv.Missing(t, "/proc/self/status")
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kib, _ := strconv.Atoi(f[1])
			return kib << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
