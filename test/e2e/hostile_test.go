//go:build linux

package e2e_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/sim"
	"github.com/leat-io/leat/internal/testenv"
)

// TestHostileClients lets everything that should not happen happen to the broker's port at once, beside clients that
// behave: garbage, packets that are too large or no UTF-8, connections that say nothing, thousands that are idle.
func TestHostileClients(t *testing.T) {
	const messages, rate, idle, mostMemory = 40_000, 5_000, 3_000, 256 << 20
	n := newNode(t, t.TempDir(), "mqtt: {connect_timeout: 2s, log_interval: 100ms}\n").start()
	wait := background(func() (sim.LoadResult, error) {
		return n.load(t.Context(), sim.LoadConfig{Messages: messages, Rate: rate})
	})
	before := n.rss()
	crowd := startIdle(t, n.mqtt, idle)
	for name, bytes := range hostile() {
		c, err := net.Dial("tcp", n.mqtt)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sent := append(connectPacket("hostile"), bytes...)
		if strings.HasPrefix(name, "garbage") {
			sent = bytes
		}
		_, _ = c.Write(sent) // may be cut off at any byte
		if name == "garbage that is no packet yet" {
			continue // half-open: the broker must close it by itself
		}
		if !closed(c) {
			t.Errorf("%s: the connection is still open", name)
		}
	}
	if rss := n.rss(); rss > mostMemory {
		t.Errorf("%d MiB with %d idle connections, at most %d", rss>>20, idle, mostMemory>>20)
	} else {
		t.Logf("%d MiB before, %d MiB with %d connections, a third of which never said CONNECT", before>>20, rss>>20, idle)
	}
	crowd.release()
	res := wait(t)
	if res.Acked.Len() != messages || res.Breaks != 0 {
		t.Errorf("%d of %d acknowledged, %d connections lost: others must not suffer", res.Acked.Len(), messages, res.Breaks)
	}
	n.flush()
	n.stop(syscall.SIGTERM)
	all := readLake(t, filepath.Join(n.dir, "lake"), messages)
	all.check(t, res.Acked, nil)
}

// hostile is what to send: after a good CONNECT, unless the name begins with "garbage".
func hostile() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	m := map[string][]byte{
		"garbage: HTTP":                 []byte("GET / HTTP/1.1\r\nHost: leat\r\n\r\n"),
		"garbage: TLS":                  {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc},
		"garbage: endless length":       {0x10, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"garbage: CONNECT of 256 MiB":   {0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4},
		"garbage that is no packet yet": {0x10, 40, 0, 4, 'M', 'Q'},
		"a topic that is no UTF-8":      publishPacket("bad/\xff\xfe", []byte("1")),
		"a topic with NUL":              publishPacket("bad/\x00", []byte("1")),
		"a topic with a wildcard":       publishPacket("bad/#", []byte("1")),
		"an empty topic":                publishPacket("", []byte("1")),
		"a payload of 2 MiB":            publishPacket("bad/large", make([]byte, 2<<20)),
		"a packet of type 0":            {0, 0},
		"a packet of type 15":           {0xf0, 0}, // MQTT 5 only
		"QoS 3":                         {0x36, 7, 0, 1, 'b', 0, 1, '1', '2'},
		"a second CONNECT":              connectPacket("hostile"),
	}
	for i := range 100 {
		b := make([]byte, 1+r.IntN(2000))
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		if b[0] == 0x10 {
			b[0] = 0x20 // a random CONNECT might be a packet that is not complete
		}
		m[fmt.Sprintf("garbage: random %d", i)] = b
	}
	return m
}

// closed reports whether the broker closes the connection within the patience.
func closed(c net.Conn) bool {
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return true
	}
	_, err := io.Copy(io.Discard, c)
	return err == nil || !os.IsTimeout(err)
}

func connectPacket(client string) []byte {
	body := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, byte(len(client))}, client...)
	return append([]byte{0x10, byte(len(body))}, body...)
}

func publishPacket(topic string, payload []byte) []byte {
	body := append([]byte{byte(len(topic) >> 8), byte(len(topic))}, topic...)
	body = append(append(body, 0, 1), payload...)
	b := []byte{0x32}
	n := len(body)
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(append(b, byte(n)), body...)
}

// idleAddr is set in the environment of the test binary when it is to hold idle connections to that address, and
// idleCount to how many: in a process of their own they do not count against the files that the test may open.
const (
	idleAddr  = "LEAT_TEST_IDLE_ADDR"
	idleCount = "LEAT_TEST_IDLE_COUNT"
)

// holdIdle is what that process does. Of three connections one never says CONNECT, and does not notice that the broker
// closes it.
func holdIdle(addr string) int {
	count, err := strconv.Atoi(os.Getenv(idleCount))
	if err != nil {
		return 2
	}
	ended := make(chan struct{})
	silent := make([]net.Conn, 0, count)
	for i := range count {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			fmt.Println("dial:", err)
			return 1
		}
		if i%3 == 0 {
			silent = append(silent, c)
			continue
		}
		if _, err := c.Write(connectPacket(fmt.Sprint("idle", i))); err != nil {
			fmt.Println("connect:", err)
			return 1
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			fmt.Println("connack:", err)
			return 1
		}
		go func() { // ends with the process
			_, _ = io.Copy(io.Discard, c)
			ended <- struct{}{}
		}()
	}
	fmt.Println("holding")
	released := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(released) }()
	select {
	case <-ended:
		fmt.Println("an idle client was disconnected")
		return 1
	case <-released:
		runtime.KeepAlive(silent) // a connection that nobody holds is closed by its finalizer
		return 0
	}
}

// crowd is the process that holds idle connections.
type crowd struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func startIdle(t *testing.T, addr string, count int) *crowd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), idleAddr+"="+addr, idleCount+"="+strconv.Itoa(count))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "holding\n" {
		stdin.Close()
		_ = cmd.Wait() // what it said is the reason
		t.Fatalf("holder of idle connections: %q %v", line, err)
	}
	return &crowd{t: t, cmd: cmd, stdin: stdin}
}

// release ends the connections; none of those that said CONNECT may have been closed before.
func (c *crowd) release() {
	c.t.Helper()
	c.stdin.Close()
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("holder of idle connections: %v", err)
	}
}

// TestDiskBudgetUnderOutage fills the disk budget while the store is away: the program refuses instead of dying or
// dropping, and what it acknowledged arrives when the store is back.
func TestDiskBudgetUnderOutage(t *testing.T) {
	const size, most = 64 << 10, 4_000 // four times the budget, of texts that hardly compress
	g := startStore(t)
	n := newNode(t, t.TempDir(), onBucket(g)+"disk: {budget: 64MiB}\nlog: {segment_bytes: 4MiB}\n").start()
	g.Stop()
	c := dialRaw(t, n.mqtt)
	acked := 0
	for acked < most && c.publish(noise(size)) {
		acked++
	}
	if acked == most {
		t.Fatalf("%d messages of %d bytes fitted into 64 MiB", acked, size)
	}
	st := n.status()
	if !st.Ready || len(st.Degraded) == 0 || st.DiskUsed > st.Budget {
		t.Errorf("ready %v, degraded %v, %d of %d bytes used", st.Ready, st.Degraded, st.DiskUsed, st.Budget)
	}
	g.Start()
	n.flush()
	testenv.Wait(t, patience, func() bool { return dialRaw(t, n.mqtt).publish([]byte("1")) }, "the program to take messages again")
	n.flush()
	n.stop(syscall.SIGTERM)
	all := readLake(t, g.Path(""), 0)
	// The message that was refused may be there, too: refused is not "never stored". And those of the loop above.
	if all.rows < acked+1 || all.rows > acked+10 {
		t.Errorf("%d rows for %d acknowledged messages", all.rows, acked+1)
	}
	t.Logf("%d messages, %d MiB, acknowledged before the budget was used up", acked, acked*size>>20)
}

// rawConn is an MQTT 3.1.1 connection made by hand.
type rawConn struct {
	net.Conn
	t *testing.T
}

func dialRaw(t *testing.T, addr string) rawConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(connectPacket("raw")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatalf("CONNACK: %v", err)
	}
	return rawConn{c, t}
}

// publish reports whether the broker acknowledged the message; MQTT 3 brokers close the connection otherwise.
func (c rawConn) publish(payload []byte) bool {
	if _, err := c.Write(publishPacket("raw/text", payload)); err != nil {
		return false
	}
	ack := make([]byte, 4)
	_, err := io.ReadFull(c, ack)
	return err == nil && ack[0] == 0x40
}

// noise is text without any pattern.
func noise(size int) []byte {
	raw := make([]byte, size/4*3)
	for i := range raw {
		raw[i] = byte(rand.Uint32())
	}
	return []byte("x" + base64.StdEncoding.EncodeToString(raw))
}
