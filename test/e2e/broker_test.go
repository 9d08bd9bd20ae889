//go:build linux

package e2e_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/leat-io/leat/internal/sim"
	"github.com/leat-io/leat/internal/testenv"
)

// TestExternalBroker has clients publish to Mosquitto, to which leat subscribes, while Mosquitto is restarted and leat
// is killed: everything that Mosquitto acknowledged ends up in the lake.
func TestExternalBroker(t *testing.T) {
	const messages, rate, window = 40_000, 8_000, 200
	m := startMosquitto(t)
	n := newNode(t, t.TempDir(), fmt.Sprintf("mqtt:\n  sources: [{name: plant, url: 'mqtt://%s', backoff_min: 50ms, backoff_max: 200ms}]\n", m.addr))
	n.env = append(n.env, "LEAT_MQTT_LISTEN=")
	n.start()
	testenv.Wait(t, patience, func() bool { return n.out.contains("msg=subscribed") }, "leat to be subscribed")

	acked := sim.NewSet(messages)
	wait := background(func() (sim.LoadResult, error) {
		return sim.Load(t.Context(), sim.LoadConfig{
			Addr: m.addr, Messages: messages, Rate: rate, Window: window, Reconnect: patience, Resend: true, Acked: acked,
		})
	})
	testenv.Wait(t, patience, func() bool { return acked.Len() > messages/4 }, "a quarter of the load")
	m.stop()
	m.start()
	testenv.Wait(t, patience, func() bool { return acked.Len() > messages/2 }, "half of the load")
	n.kill()
	n.start()
	res := wait(t)

	// Mosquitto has acknowledged more than it has handed on: the rest is still coming.
	var all tally
	testenv.Wait(t, patience, func() bool {
		if n.received() < messages {
			return false
		}
		n.flush()
		all = readLake(t, filepath.Join(n.dir, "lake"), messages)
		return !slices.Contains(all.times, 0)
	}, "every message to be in the lake")
	n.stop(syscall.SIGTERM)
	all = readLake(t, filepath.Join(n.dir, "lake"), messages)
	// A message whose acknowledgement did not reach the other side before a restart or a kill comes again: at least once
	// is what QoS 1 promises. So "twice" is counted, and bounded by what can be underway: leat's window towards Mosquitto.
	again := map[int]int{}
	for i, times := range all.times {
		again[i] = max(times-1, 0)
	}
	twice := all.check(t, acked, again)
	const underway = 4096
	if twice > 2*underway+len(res.Again) {
		t.Errorf("%d messages are there more than once; at most two windows of %d were underway", twice, underway)
	}
	t.Logf("%d messages through Mosquitto, a restart and a kill: 0 missing, %d more than once (%d sent again by the clients)",
		acked.Len(), twice, len(res.Again))
}

// received is how many records the node's stream has had, over all its lives.
func (n *node) received() int64 {
	list, err := n.client.Streams(n.t.Context(), "ingest/default")
	if err != nil || len(list) == 0 {
		return 0
	}
	return int64(list[0].Readable)
}

// mosquitto is a broker in another process that keeps sessions over restarts.
type mosquitto struct {
	t          *testing.T
	addr, conf string
	cmd        *exec.Cmd
}

func startMosquitto(t *testing.T) *mosquitto {
	t.Helper()
	m := &mosquitto{t: t, addr: testenv.Addr(t)}
	dir := t.TempDir()
	m.conf = filepath.Join(dir, "mosquitto.conf")
	_, port, _ := net.SplitHostPort(m.addr)
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location %s/\n"+
		"max_queued_messages 0\nmax_inflight_messages 0\nset_tcp_nodelay true\n", port, dir)
	if err := os.WriteFile(m.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(m.stop)
	return m
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command(testenv.Need(m.t, "mosquitto"), "-c", m.conf)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	testenv.Wait(m.t, patience, func() bool {
		c, err := net.Dial("tcp", m.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, "mosquitto to listen")
}

// stop stops the broker, which then saves its sessions.
func (m *mosquitto) stop() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	_ = m.cmd.Wait()                          // killed by a signal, as asked
	m.cmd = nil
}
