package mqtt_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/auth"
	"github.com/leat-io/leat/internal/record"
)

func TestPubackWaitsUntilDurable(t *testing.T) {
	for _, version := range []byte{4, 5} {
		t.Run(fmt.Sprintf("version %d", version), func(t *testing.T) {
			tb := startBroker(t, brokerConfig(), auth.Config{})
			tb.accept.setHold(true)
			w := tb.login(version, "dev", true)
			w.send(publishFrame(version, 1, 7, false, "a/b", "one"))
			wait(t, "the message at the acceptor", func() bool { return tb.accept.waiting() == 1 })
			w.silent()
			tb.accept.release(nil)
			w.want(0x40, 0, 7)
			m := tb.accept.all()[0]
			if m.Topic != "a/b" || string(m.Payload) != "one" || m.QoS != 1 || m.Source != "broker" || m.Client != "dev" || m.Received == 0 {
				t.Errorf("message %+v", m)
			}
		})
	}
}

func TestPubacksComeInOrderWhateverBecomesDurableFirst(t *testing.T) {
	tb := startBroker(t, brokerConfig(), auth.Config{})
	tb.accept.setHold(true)
	w := tb.login(4, "dev", true)
	for id := uint16(1); id <= 3; id++ {
		w.send(publishFrame(4, 1, id, false, "t", fmt.Sprint(id)))
		wait(t, "the batch", func() bool { return tb.accept.waiting() == int(id) })
	}
	tb.accept.mu.Lock()
	third, second, first := tb.accept.held[2], tb.accept.held[1], tb.accept.held[0]
	tb.accept.held = nil
	tb.accept.mu.Unlock()
	third(nil)
	second(nil)
	w.silent()
	first(nil)
	for id := byte(1); id <= 3; id++ {
		w.want(0x40, 0, id)
	}
}

func TestMessagesThatArriveTogetherAreOneBatch(t *testing.T) {
	tb := startBroker(t, brokerConfig(), auth.Config{})
	w := tb.login(4, "dev", true)
	var all []byte
	for id := uint16(1); id <= 60; id++ {
		all = append(all, publishFrame(4, 1, id, false, "t", "x")...)
	}
	w.send(all)
	for id := byte(1); id <= 60; id++ {
		w.want(0x40, 0, id)
	}
	tb.accept.mu.Lock()
	defer tb.accept.mu.Unlock()
	if tb.accept.batches > 10 {
		t.Errorf("60 messages sent at once came in %d batches", tb.accept.batches)
	}
}

func TestRefusedMessages(t *testing.T) {
	full := record.Errorf(record.Full, "the disk budget is used up")
	t.Run("MQTT 5 is told why and stays", func(t *testing.T) {
		for kind, want := range map[record.Kind]byte{record.Full: 0x97, record.Throttled: 0x97, record.Invalid: 0x99, record.Internal: 0x80, record.Unavailable: 0x83} {
			tb := startBroker(t, brokerConfig(), auth.Config{})
			tb.accept.setErr(record.Errorf(kind, "no"))
			w := tb.login(5, "dev", true)
			w.send(publishFrame(5, 1, 1, false, "t", "x"))
			w.want(0x40, 0, 1, want)
			w.send(publishFrame(5, 2, 2, false, "t", "x"))
			w.want(0x50, 0, 2, want)
			w.silent()
			if s := tb.Stats(); s.Rejected != 2 {
				t.Errorf("%d rejected, want 2", s.Rejected)
			}
			tb.stop()
		}
	})
	t.Run("MQTT 3.1.1 loses its connection without an acknowledgement", func(t *testing.T) {
		for qos := byte(1); qos <= 2; qos++ {
			tb := startBroker(t, brokerConfig(), auth.Config{})
			tb.accept.setErr(full)
			w := tb.login(4, "dev", true)
			w.send(publishFrame(4, qos, 1, false, "t", "x"))
			if h, body, err := w.next(); err == nil {
				t.Errorf("QoS %d: got packet 0x%02x % x", qos, h, body)
			}
		}
	})
	t.Run("QoS 0 is counted, and still reaches subscribers", func(t *testing.T) {
		tb := startBroker(t, brokerConfig(), auth.Config{})
		sub := tb.login(4, "sub", true)
		sub.subscribe(4, "#", 0)
		tb.accept.setErr(full)
		w := tb.login(4, "dev", true)
		w.send(publishFrame(4, 0, 0, false, "t", "x"))
		sub.want(0x30, append(str("t"), 'x')...)
		w.silent()
		if s := tb.Stats(); s.Lost != 1 {
			t.Errorf("%d lost, want 1", s.Lost)
		}
		if !strings.Contains(tb.log.String(), "the disk budget is used up") {
			t.Error("the log does not say why")
		}
	})
	t.Run("subscribers do not see what QoS 1 was refused", func(t *testing.T) {
		tb := startBroker(t, brokerConfig(), auth.Config{})
		sub := tb.login(4, "sub", true)
		sub.subscribe(4, "#", 0)
		tb.accept.setErr(full)
		w := tb.login(5, "dev", true)
		w.send(publishFrame(5, 1, 1, false, "t", "no"))
		w.want(0x40, 0, 1, 0x97)
		tb.accept.setErr(nil)
		w.send(publishFrame(5, 1, 2, false, "t", "yes"))
		w.want(0x40, 0, 2)
		sub.want(0x30, append(str("t"), "yes"...)...)
	})
}

func (w *wire) subscribe(version byte, filter string, qos byte) []byte {
	w.t.Helper()
	body := []byte{0, 1}
	if version == 5 {
		body = append(body, 0)
	}
	w.send(frame(0x82, body, str(filter), []byte{qos}))
	return w.want(0x90, 0, 1)
}

func TestQoS2IsAcceptedOncePerPacketID(t *testing.T) {
	for _, version := range []byte{4, 5} {
		t.Run(fmt.Sprintf("version %d", version), func(t *testing.T) {
			tb := startBroker(t, brokerConfig(), auth.Config{})
			sub := tb.login(4, "sub", true)
			sub.subscribe(4, "#", 0)
			w := tb.login(version, "dev", false)
			w.send(publishFrame(version, 2, 9, false, "t", "one"))
			w.want(0x50, 0, 9)
			w.send(publishFrame(version, 2, 9, true, "t", "one"))
			if body := w.want(0x50, 0, 9); len(body) > 2 && body[2] != 0 {
				t.Errorf("a repeated PUBLISH is answered with reason 0x%02x", body[2])
			}
			w.Close()
			w = tb.login(version, "dev", false)
			if version == 5 {
				w.want(0x50, 0, 9) // mochi repeats what it had answered
			} else {
				w.want(0x50, 0, 9)
			}
			w.send(publishFrame(version, 2, 9, true, "t", "one"))
			w.want(0x50, 0, 9)
			w.send([]byte{0x62, 2, 0, 9})
			w.want(0x70, 0, 9)
			w.send(publishFrame(version, 2, 9, false, "t", "two"))
			w.want(0x50, 0, 9)
			if got := tb.accept.payloads(); got != "one two" {
				t.Errorf("accepted %q, want one two", got)
			}
			sub.want(0x30, append(str("t"), "one"...)...)
			sub.want(0x30, append(str("t"), "two"...)...)
		})
	}
}

func TestQoS2SentAgainBeforeTheFirstIsDurable(t *testing.T) {
	tb := startBroker(t, brokerConfig(), auth.Config{})
	tb.accept.setHold(true)
	w := tb.login(4, "dev", false)
	w.send(publishFrame(4, 2, 3, false, "t", "one"))
	wait(t, "the message", func() bool { return tb.accept.waiting() == 1 })
	w.Close()
	again := tb.login(4, "dev", false)
	again.send(publishFrame(4, 2, 3, true, "t", "one"))
	tb.accept.release(nil)
	again.want(0x50, 0, 3)
	again.send([]byte{0x62, 2, 0, 3})
	again.want(0x70, 0, 3)
	if n := tb.accept.count(); n != 1 {
		t.Errorf("accepted %d times", n)
	}
}

func TestRetainedMessageReachesALaterSubscriber(t *testing.T) {
	cfg := brokerConfig()
	cfg.MaxRetained = 1
	tb := startBroker(t, cfg, auth.Config{})
	w := tb.login(4, "dev", true)
	w.send(frame(0x33, str("state"), []byte{0, 1}, []byte("on")))
	w.want(0x40, 0, 1)
	w.send(frame(0x33, str("other"), []byte{0, 2}, []byte("beyond the limit")))
	w.want(0x40, 0, 2)
	sub := tb.login(4, "sub", true)
	sub.subscribe(4, "#", 0)
	sub.want(0x31, append(str("state"), "on"...)...)
	sub.silent()
	if s := tb.Stats(); s.StoredRetained != 1 || s.NotRetained != 1 {
		t.Errorf("stats %+v", s)
	}
	if m := tb.accept.all(); len(m) != 2 || !m[0].Retain {
		t.Errorf("accepted %+v", m)
	}
}

func TestWillIsPublishedAndIngested(t *testing.T) {
	tb := startBroker(t, brokerConfig(), auth.Config{})
	sub := tb.login(4, "sub", true)
	sub.subscribe(4, "#", 0)
	w := dial(t, tb.addr())
	head := append(str("MQTT"), 4, 0x02|0x04|0x08, 0, 60) // clean, will, will QoS 1
	w.send(frame(0x10, head, str("dev"), str("dev/status"), str("gone")))
	w.want(0x20, 0, 0)
	w.Close()
	sub.want(0x30, append(str("dev/status"), "gone"...)...)
	wait(t, "the will", func() bool { return tb.accept.payloads() == "gone" })
}

func TestNoLocalAndUserPropertiesSurviveTheDetour(t *testing.T) {
	tb := startBroker(t, brokerConfig(), auth.Config{})
	sub := tb.login(5, "sub", true)
	sub.send(frame(0x82, []byte{0, 1, 0}, str("#"), []byte{0x04})) // QoS 0, no local
	sub.want(0x90, 0, 1)
	sub.send(publishFrame(5, 1, 1, false, "t", "mine"))
	sub.want(0x40, 0, 1)
	dev := tb.login(5, "dev", true)
	prop := append([]byte{38}, append(str("k"), str("v")...)...)
	dev.send(frame(0x32, str("t"), []byte{0, 1, byte(len(prop))}, prop, []byte("x")))
	dev.want(0x40, 0, 1)
	body := sub.want(0x30, str("t")...)
	if !bytes.Contains(body, prop) || !bytes.HasSuffix(body, []byte("x")) {
		t.Errorf("delivered % x, want the user property % x", body, prop)
	}
}

func TestTopicAliases(t *testing.T) {
	tb := startBroker(t, brokerConfig(), auth.Config{})
	w := tb.login(5, "dev", true)
	w.send(frame(0x32, str("long/topic"), []byte{0, 1, 3, 35, 0, 1}, []byte("a")))
	w.want(0x40, 0, 1)
	w.send(frame(0x32, str(""), []byte{0, 2, 3, 35, 0, 1}, []byte("b")))
	w.want(0x40, 0, 2)
	if m := tb.accept.all(); len(m) != 2 || m[1].Topic != "long/topic" {
		t.Errorf("accepted %+v", m)
	}
	w.send(frame(0x32, str(""), []byte{0, 3, 3, 35, 0, 9}, []byte("c")))
	w.want(0xE0, 0x94)
	w.closed()
	if tb.accept.count() != 2 {
		t.Error("a message of an unknown alias was accepted")
	}
}

func TestPersistentSessionGetsWhatItMissed(t *testing.T) {
	tb := startBroker(t, brokerConfig(), auth.Config{})
	sub := tb.login(4, "sub", false)
	sub.subscribe(4, "t/#", 1)
	sub.Close()
	wait(t, "the subscriber to be gone", func() bool { return tb.Stats().OpenClients == 0 })
	dev := tb.login(4, "dev", true)
	dev.send(publishFrame(4, 1, 1, false, "t/1", "missed"))
	dev.want(0x40, 0, 1)
	sub = dial(t, tb.addr())
	sub.send(connectFrame(4, "sub", false, 60))
	sub.want(0x20, 1, 0)
	h, body, err := sub.next()
	if err != nil || h&0xf0 != 0x30 || !bytes.HasSuffix(body, []byte("missed")) {
		t.Errorf("got 0x%02x %q, %v", h, body, err)
	}
}

func TestWrongPublishes(t *testing.T) {
	tb := startBroker(t, brokerConfig(), auth.Config{})
	for _, c := range []struct {
		name    string
		version byte
		packet  []byte
		closes  bool
		reply   []byte
	}{
		{"invalid UTF-8 in the topic", 4, publishFrame(4, 1, 1, false, "a\xff", "x"), true, nil},
		{"zero byte in the topic", 4, publishFrame(4, 1, 1, false, "a\x00", "x"), true, nil},
		{"wildcard in the topic, MQTT 3.1.1", 4, publishFrame(4, 1, 1, false, "a/+/b", "x"), true, nil},
		{"wildcard in the topic, MQTT 5", 5, publishFrame(5, 1, 1, false, "a/#", "x"), true, []byte{0xE0}},
		{"empty topic", 4, publishFrame(4, 1, 1, false, "", "x"), true, nil},
		{"$SYS, MQTT 3.1.1", 4, publishFrame(4, 1, 1, false, "$SYS/x", "x"), true, nil},
		{"$SYS, MQTT 5", 5, publishFrame(5, 1, 1, false, "$SYS/x", "x"), false, []byte{0x40}},
		{"QoS 3", 4, frame(0x36, str("a"), []byte{0, 1, 'x'}), true, nil},
		{"packet id 0", 4, publishFrame(4, 1, 0, false, "a", "x"), true, nil},
		{"no room for the topic", 4, []byte{0x30, 1, 0}, true, nil},
		{"second CONNECT", 4, connectFrame(4, "dev", true, 60), true, nil},
		{"text instead of packets", 4, []byte("\xF7GET / HTTP/1.1\r\n\r\n"), true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := tb.login(c.version, "dev", true)
			w.t = t
			w.send(c.packet)
			if len(c.reply) > 0 {
				w.want(c.reply[0])
			}
			if c.closes {
				w.closed()
			} else {
				w.silent()
			}
		})
	}
	if n := tb.accept.count(); n != 0 {
		t.Errorf("%d wrong messages were accepted", n)
	}
	tb.login(4, "dev", true).silent()
}

func TestOversizedPacketEndsTheConnection(t *testing.T) {
	cfg := brokerConfig()
	cfg.MaxPacketSize = 4096
	tb := startBroker(t, cfg, auth.Config{})
	w := tb.login(4, "dev", true)
	w.send(publishFrame(4, 1, 1, false, "t", strings.Repeat("x", 4000)))
	w.want(0x40, 0, 1)
	w.send(publishFrame(4, 1, 2, false, "t", strings.Repeat("x", 5000)))
	w.closed()
	v5 := dial(t, tb.addr())
	v5.send(connectFrame(5, "dev", true, 60))
	if body := v5.want(0x20, 0, 0); !bytes.Contains(body, []byte{39, 0, 0, 0x10, 0}) {
		t.Errorf("CONNACK % x does not tell the maximum packet size", body)
	}
}

func TestSubscriptions(t *testing.T) {
	cfg := brokerConfig()
	cfg.MaxSubscriptions = 5
	tb := startBroker(t, cfg, auth.Config{})
	w := tb.login(5, "sub", true)
	for filter, want := range map[string]byte{"a/#": 0, "+/b": 0, "a#": 0x8F, "a/+b": 0x8F, "#/a": 0x8F} {
		if body := w.subscribe(5, filter, 0); body[len(body)-1] != want {
			t.Errorf("subscribe to %q: reason 0x%02x, want 0x%02x", filter, body[len(body)-1], want)
		}
	}
	var many []byte
	for i := range 6 {
		many = append(many, append(str(fmt.Sprint(i)), 0)...)
	}
	w.send(frame(0x82, []byte{0, 2, 0}, many))
	w.want(0xE0, 0x97)
	w.closed()
}

func TestSysTopicsAreServedAndNotIngested(t *testing.T) {
	cfg := brokerConfig()
	cfg.SysInterval = time.Second
	tb := startBroker(t, cfg, auth.Config{})
	w := tb.login(4, "sub", true)
	w.subscribe(4, "$SYS/broker/version", 0)
	w.want(0x31, str("$SYS/broker/version")...)
	if n := tb.accept.count(); n != 0 {
		t.Errorf("%d $SYS messages were ingested", n)
	}
}

func TestStopTellsClientsAndLosesNothing(t *testing.T) {
	tb := startBroker(t, brokerConfig(), auth.Config{})
	idle := tb.login(5, "idle", true)
	half := dial(t, tb.addr())
	w := tb.login(5, "dev", true)
	tb.accept.setHold(true)
	w.send(publishFrame(5, 1, 1, false, "t", "x"))
	wait(t, "the message", func() bool { return tb.accept.waiting() == 1 })
	stopped := make(chan time.Duration)
	go func() {
		start := time.Now()
		tb.stop()
		stopped <- time.Since(start)
	}()
	tb.accept.release(nil)
	w.want(0x40, 0, 1)
	w.want(0xE0, 0x8B)
	idle.want(0xE0, 0x8B)
	half.closed()
	if d := <-stopped; d > time.Second {
		t.Errorf("stopping took %s", d)
	}
}

func TestStopDoesNotWaitForAnAcceptorThatHangs(t *testing.T) {
	tb := startBroker(t, brokerConfig(), auth.Config{})
	tb.accept.setHold(true)
	w := tb.login(4, "dev", true)
	q2 := tb.login(4, "dev2", true)
	w.send(publishFrame(4, 1, 1, false, "t", "x"))
	q2.send(publishFrame(4, 2, 1, false, "t", "x"))
	wait(t, "the messages", func() bool { return tb.accept.waiting() == 2 })
	start := time.Now()
	tb.stop()
	if d := time.Since(start); d > time.Second {
		t.Errorf("stopping took %s", d)
	}
	if h, _, err := w.next(); err == nil && h == 0x40 {
		t.Error("an acknowledgement for what is not durable")
	}
}

func TestSlowSubscriberDoesNotStopOthers(t *testing.T) {
	cfg := brokerConfig()
	cfg.MaxQueued = 4
	cfg.WriteTimeout = 100 * time.Millisecond
	tb := startBroker(t, cfg, auth.Config{})
	slow := tb.login(4, "slow", true)
	slow.subscribe(4, "#", 0)
	w := tb.login(4, "dev", true)
	payload := strings.Repeat("x", 64<<10)
	for i := range 200 {
		id := uint16(i + 1)
		w.send(publishFrame(4, 1, id, false, "t", payload))
		w.want(0x40, byte(id>>8), byte(id))
	}
	if s := tb.Stats(); s.Dropped == 0 {
		t.Errorf("nothing was dropped for a subscriber that does not read: %+v", s)
	}
}
