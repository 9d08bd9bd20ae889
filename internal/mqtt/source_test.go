package mqtt_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/auth"
	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/mqtt"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/testenv"
)

// mosquitto is a real broker in another process.
type mosquitto struct {
	t    *testing.T
	bin  string
	addr string
	conf string
	cmd  *exec.Cmd
}

// newMosquitto writes a configuration and starts the broker. extra are configuration lines.
func newMosquitto(t *testing.T, extra ...string) *mosquitto {
	t.Helper()
	m := &mosquitto{t: t, bin: testenv.Need(t, "mosquitto"), addr: testenv.Addr(t)}
	_, port, _ := net.SplitHostPort(m.addr)
	dir := t.TempDir()
	m.conf = filepath.Join(dir, "mosquitto.conf")
	lines := append([]string{
		"listener " + port + " 127.0.0.1", "allow_anonymous true", "persistence true", "persistence_location " + dir + "/",
		"autosave_interval 1", "user root", "set_tcp_nodelay true",
	}, extra...)
	if err := os.WriteFile(m.conf, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(m.kill)
	return m
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command(m.bin, "-c", m.conf)
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	wait(m.t, "mosquitto to listen", func() bool {
		c, err := net.Dial("tcp", m.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// term stops the broker, which then saves its sessions.
func (m *mosquitto) term() {
	m.cmd.Process.Signal(os.Interrupt)
	m.cmd.Wait()
}

func (m *mosquitto) kill() {
	m.cmd.Process.Kill()
	m.cmd.Wait()
}

// publish sends messages with mosquitto_pub, one per line, at QoS 1.
func (m *mosquitto) publish(topic string, lines ...string) {
	m.t.Helper()
	host, port, _ := net.SplitHostPort(m.addr)
	cmd := exec.Command(testenv.Need(m.t, "mosquitto_pub"), "-h", host, "-p", port, "-q", "1", "-t", topic, "-l")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("mosquitto_pub: %v\n%s", err, out)
	}
}

func sourceConfig(url string, filters ...string) mqtt.SourceConfig {
	cfg := mqtt.DefaultSourceConfig()
	cfg.Name, cfg.URL, cfg.ClientID = "plant", url, "leat-test"
	cfg.BackoffMin, cfg.BackoffMax = 5*time.Millisecond, 50*time.Millisecond
	for _, f := range filters {
		cfg.Subscriptions = append(cfg.Subscriptions, ingest.Subscription{Filter: f, QoS: 1})
	}
	return cfg
}

type testSource struct {
	*mqtt.Source
	accept *acceptor
	log    *logBuffer
	stop   func()
}

func startSource(t *testing.T, cfg mqtt.SourceConfig, accept *acceptor) *testSource {
	t.Helper()
	ts := &testSource{accept: accept, log: &logBuffer{}}
	if accept == nil {
		ts.accept = &acceptor{}
	}
	var err error
	ts.Source, err = mqtt.NewSource(cfg, ts.accept, ts.log.logger())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- ts.Run(ctx, func() {}) }()
	ts.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() {
		ts.stop()
		if t.Failed() {
			t.Logf("log of the source:\n%s", ts.log.tail())
		}
	})
	return ts
}

// ready waits until all subscriptions are answered.
func (ts *testSource) ready(t *testing.T, n int) {
	t.Helper()
	wait(t, "connection and subscriptions", func() bool {
		st := ts.Status()
		return st.Connected && len(st.Subscriptions) == n
	})
}

func TestSourceTakesWhatMosquittoSends(t *testing.T) {
	for _, version := range []string{"5", "3.1.1"} {
		t.Run(version, func(t *testing.T) {
			m := newMosquitto(t)
			cfg := sourceConfig("mqtt://"+m.addr, "plant/#", "other/+")
			cfg.Protocol = version
			ts := startSource(t, cfg, nil)
			ts.ready(t, 2)
			var want []string
			for i := range 500 {
				want = append(want, fmt.Sprint(i))
			}
			m.publish("plant/a", want...)
			wait(t, "all messages", func() bool { return ts.accept.count() == 500 })
			if got := ts.accept.payloads(); got != strings.Join(want, " ") {
				t.Errorf("got %s", got)
			}
			first := ts.accept.all()[0]
			if first.Source != "plant" || first.Topic != "plant/a" || first.QoS != 1 || first.Received == 0 {
				t.Errorf("message %+v", first)
			}
			wait(t, "the count", func() bool { return ts.Status().Stats.Taken == 500 })
			st := ts.Status()
			if st.Protocol != version || len(st.Degraded()) != 0 || st.LastMessage.IsZero() {
				t.Errorf("status %+v, degraded %v", st, st.Degraded())
			}
			for _, line := range []string{"msg=connected", "msg=subscribed", `topic=plant/#`, "source=plant"} {
				if !strings.Contains(ts.log.String(), line) {
					t.Errorf("the log lacks %s", line)
				}
			}
		})
	}
}

func TestSourceAcknowledgesOnlyWhatIsDurable(t *testing.T) {
	for _, version := range []string{"5", "3.1.1"} {
		t.Run(version, func(t *testing.T) {
			m := newMosquitto(t)
			cfg := sourceConfig("mqtt://"+m.addr, "#")
			cfg.Protocol = version
			cfg.DrainTimeout = 10 * time.Millisecond
			first := startSource(t, cfg, &acceptor{hold: true})
			first.ready(t, 1)
			m.publish("t", "a", "b", "c")
			wait(t, "the messages", func() bool { return first.accept.count() == 3 })
			// The process ends before anything is durable (nothing was answered): everything comes again.
			first.stop()
			first.accept.releaseAll(nil)
			cfg.DrainTimeout = patience
			second := startSource(t, cfg, nil)
			wait(t, "the messages again", func() bool { return second.accept.count() == 3 })
			if got := second.accept.payloads(); got != "a b c" {
				t.Errorf("got %q", got)
			}
			wait(t, "the acknowledgements", func() bool { return second.Status().Stats.Taken == 3 })
			second.stop()
			third := startSource(t, cfg, nil)
			third.ready(t, 1)
			m.publish("t", "last")
			wait(t, "a message", func() bool { return third.accept.count() > 0 })
			if got := third.accept.payloads(); got != "last" {
				t.Errorf("acknowledged messages came again: %q", got)
			}
		})
	}
}

func TestSourceSurvivesBrokerRestarts(t *testing.T) {
	for _, version := range []string{"5", "3.1.1"} {
		t.Run(version, func(t *testing.T) {
			m := newMosquitto(t)
			cfg := sourceConfig("mqtt://"+m.addr, "#")
			cfg.Protocol = version
			ts := startSource(t, cfg, nil)
			ts.ready(t, 1)
			for i, stop := range []func(){m.term, m.kill, m.term} {
				m.publish("t", fmt.Sprint(i))
				wait(t, "a message", func() bool { return ts.Status().Stats.Taken == int64(i+1) })
				stop()
				wait(t, "the loss to be noticed", func() bool { return !ts.Status().Connected })
				if d := ts.Status(); len(d.Degraded()) != 1 || d.LastError == "" {
					t.Errorf("degraded: %v", d.Degraded())
				}
				m.start()
				wait(t, "the reconnection", func() bool { return ts.Status().Connected })
				wait(t, "the subscription", func() bool { return strings.Count(ts.log.String(), "msg=subscribed") == i+2 })
			}
			if got := ts.accept.payloads(); got != "0 1 2" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestSourceDoesNotTakeTwiceWhatItCouldNotAcknowledge(t *testing.T) {
	for _, version := range []string{"5", "3.1.1"} {
		t.Run(version, func(t *testing.T) {
			m := newMosquitto(t)
			proxy := newCutter(t, m.addr)
			cfg := sourceConfig("mqtt://"+proxy.addr(), "#")
			cfg.Protocol = version
			cfg.DrainTimeout = patience
			ts := startSource(t, cfg, &acceptor{hold: true})
			ts.ready(t, 1)
			m.publish("t", "a", "b")
			wait(t, "the messages", func() bool { return ts.accept.count() == 2 })
			proxy.cut()
			wait(t, "the loss", func() bool { return !ts.Status().Connected })
			ts.accept.setHold(false)
			ts.accept.releaseAll(nil)
			wait(t, "the repetitions", func() bool { return ts.Status().Stats.Repeated == 2 })
			m.publish("t", "c")
			wait(t, "the next message", func() bool { return ts.accept.count() >= 3 })
			if got := ts.accept.payloads(); got != "a b c" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestSourceOffersRefusedMessagesAgain(t *testing.T) {
	m := newMosquitto(t)
	ts := startSource(t, sourceConfig("mqtt://"+m.addr, "#"), nil)
	ts.ready(t, 1)
	ts.accept.setErr(record.Errorf(record.Full, "disk budget used up"))
	m.publish("t", "a")
	wait(t, "some tries", func() bool { return ts.Status().Stats.Retries >= 2 })
	ts.accept.setErr(nil)
	wait(t, "it to be taken", func() bool { return ts.Status().Stats.Taken == 1 })
	ts.accept.setErr(record.Errorf(record.Invalid, "too large"))
	m.publish("t", "never")
	wait(t, "it to be dropped", func() bool { return ts.Status().Stats.Dropped == 1 })
	ts.accept.setErr(nil)
	m.publish("t", "b")
	wait(t, "the next", func() bool { return ts.Status().Stats.Taken == 2 })
}

const dynamicSecurity = `{
 "defaultACLAccess": {"publishClientSend": true, "publishClientReceive": true, "subscribe": true, "unsubscribe": true},
 "clients": [], "groups": [{"groupname": "anon", "roles": [{"rolename": "anon"}]}], "anonymousGroup": "anon",
 "roles": [{"rolename": "anon", "acls": [{"acltype": "subscribePattern", "topic": "secret/#", "priority": 1, "allow": false}]}]
}`

func TestRefusedSubscriptionIsReported(t *testing.T) {
	var plugin string
	for _, dir := range []string{"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib/arm-linux-gnueabihf", "/usr/lib"} {
		if _, err := os.Stat(dir + "/mosquitto_dynamic_security.so"); err == nil {
			plugin = dir + "/mosquitto_dynamic_security.so"
		}
	}
	if plugin == "" {
		testenv.Missing(t, "mosquitto_dynamic_security.so (Debian package mosquitto)")
	}
	file := filepath.Join(t.TempDir(), "dynsec.json")
	if err := os.WriteFile(file, []byte(dynamicSecurity), 0o600); err != nil {
		t.Fatal(err)
	}
	m := newMosquitto(t, "plugin "+plugin, "plugin_opt_config_file "+file)
	for version, code := range map[string]string{"5": "0x87", "3.1.1": "0x80"} {
		t.Run(version, func(t *testing.T) {
			cfg := sourceConfig("mqtt://"+m.addr, "open/#", "secret/#")
			cfg.Protocol = version
			cfg.ClientID += version
			cfg.Resubscribe = 20 * time.Millisecond
			ts := startSource(t, cfg, nil)
			ts.ready(t, 2)
			want := "subscription to secret/# refused with reason " + code
			st := ts.Status()
			if d := st.Degraded(); len(d) != 1 || d[0] != want {
				t.Errorf("degraded %q, want %q", d, want)
			}
			if log := ts.log.String(); !strings.Contains(log, "subscription refused") || !strings.Contains(log, "reason_code="+code) {
				t.Errorf("log %s", log)
			}
			m.publish("open/x", "still works")
			wait(t, "the message", func() bool { return ts.accept.count() == 1 })
			if n := strings.Count(ts.log.String(), "subscription refused"); n != 1 {
				t.Errorf("reported %d times", n)
			}
		})
	}
}

func TestSubscriptionThatTheAccessListRefusesIsReported(t *testing.T) {
	users := auth.Config{
		AnonymousPolicies: []string{"p"},
		Policies: map[string]auth.Policy{"p": {Statement: []auth.Statement{
			{Effect: "Allow", Action: auth.Texts{"mqtt:*"}, Resource: auth.Texts{"*"}},
			{Effect: "Deny", Action: auth.Texts{"mqtt:Subscribe"}, Resource: auth.Texts{"topic/secret/#"}},
		}}},
	}
	tb := startBroker(t, brokerConfig(), users)
	cfg := sourceConfig("mqtt://"+tb.addr(), "secret/#")
	ts := startSource(t, cfg, nil)
	ts.ready(t, 1)
	st := ts.Status()
	if st.Subscriptions[0].Granted || st.Subscriptions[0].Reason != 0x87 {
		t.Errorf("status %+v", st)
	}
}

// old answers every CONNECT as brokers do that know MQTT 3.1.1 only.
type old struct {
	net.Listener
	mute bool // close without an answer
	wg   sync.WaitGroup
}

func newOld(t *testing.T, mute bool, real string) *old {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &old{Listener: l, mute: mute}
	o.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o.wg.Go(func() { o.serve(c, real) })
		}
	})
	t.Cleanup(func() { l.Close(); o.wg.Wait() })
	return o
}

// serve refuses version 5 and passes everything else on to a real broker.
func (o *old) serve(c net.Conn, real string) {
	defer c.Close()
	head := make([]byte, 9) // fixed header of two bytes, "MQTT" with its length, version
	if _, err := io.ReadFull(c, head); err != nil {
		return
	}
	if head[8] == 5 {
		if !o.mute {
			c.Write([]byte{0x20, 2, 0, 1})
		}
		return
	}
	up, err := net.Dial("tcp", real)
	if err != nil {
		return
	}
	defer up.Close()
	up.Write(head)
	pipe(c, up)
}

// pipe copies both ways until one side ends.
func pipe(a, b net.Conn) {
	var wg sync.WaitGroup
	for _, p := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			io.Copy(p[0], p[1])
			a.Close()
			b.Close()
		})
	}
	wg.Wait()
}

// cutter is a proxy whose connections can be cut.
type cutter struct {
	l     net.Listener
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []net.Conn
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &cutter{l: l}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, c, up)
			p.mu.Unlock()
			p.wg.Go(func() { pipe(c, up) })
		}
	})
	t.Cleanup(func() { l.Close(); p.cut(); p.wg.Wait() })
	return p
}

func (p *cutter) addr() string { return p.l.Addr().String() }
func (p *cutter) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func TestFallbackTo311(t *testing.T) {
	for name, mute := range map[string]bool{"CONNACK with return code 1": false, "closed without a word": true} {
		t.Run(name, func(t *testing.T) {
			m := newMosquitto(t)
			o := newOld(t, mute, m.addr)
			ts := startSource(t, sourceConfig("mqtt://"+o.Addr().String(), "#"), nil)
			ts.ready(t, 1)
			if p := ts.Status().Protocol; p != "3.1.1" {
				t.Errorf("protocol %s", p)
			}
			m.publish("t", "x")
			wait(t, "the message", func() bool { return ts.Status().Stats.Taken == 1 })
			ts.stop()
			o.Close()
		})
	}
	t.Run("not when version 5 is configured", func(t *testing.T) {
		o := newOld(t, false, "127.0.0.1:1")
		cfg := sourceConfig("mqtt://"+o.Addr().String(), "#")
		cfg.Protocol = "5"
		ts := startSource(t, cfg, nil)
		wait(t, "a failure", func() bool { return ts.Status().Stats.Failures > 2 })
		if !strings.Contains(ts.Status().LastError, "does not speak MQTT 5") {
			t.Errorf("last error %q", ts.Status().LastError)
		}
		if n := strings.Count(ts.log.String(), "not connected"); n != 1 {
			t.Errorf("the same failure was logged %d times", n)
		}
	})
}

func TestWrongPasswordIsNamed(t *testing.T) {
	tb := startBroker(t, brokerConfig(), oneUser(t, "plant", "right"))
	for _, version := range []string{"5", "3.1.1"} {
		cfg := sourceConfig("mqtt://"+tb.addr(), "#")
		cfg.Protocol, cfg.Username, cfg.Password = version, "plant", "wrong"
		ts := startSource(t, cfg, nil)
		wait(t, "the refusal", func() bool { return ts.Status().LastError != "" })
		if !strings.Contains(ts.Status().LastError, "refused with re") || !strings.Contains(ts.log.String(), "check username and password") {
			t.Errorf("%s: last error %q, log %s", version, ts.Status().LastError, ts.log)
		}
		ts.stop()
		cfg.Password = "right"
		good := startSource(t, cfg, nil)
		good.ready(t, 1)
		good.stop()
	}
}

func TestSourceConfigErrorsNameTheKey(t *testing.T) {
	for want, change := range map[string]func(*mqtt.SourceConfig){
		"a source without a name":        func(c *mqtt.SourceConfig) { c.Name = "" },
		"mqtt.sources[plant].url":        func(c *mqtt.SourceConfig) { c.URL = "broker:1883" },
		"scheme":                         func(c *mqtt.SourceConfig) { c.URL = "http://broker" },
		"user name":                      func(c *mqtt.SourceConfig) { c.URL = "mqtt://u:p@broker" },
		"mqtt.sources[plant].protocol":   func(c *mqtt.SourceConfig) { c.Protocol = "4" },
		"mqtt.sources[plant].window":     func(c *mqtt.SourceConfig) { c.Window = 0 },
		"mqtt.sources[plant].keep_alive": func(c *mqtt.SourceConfig) { c.KeepAlive = 0 },
		"mqtt.sources[plant].tls":        func(c *mqtt.SourceConfig) { c.TLS.Cert = "x" },
		"mqtt.sources[plant].topics":     func(c *mqtt.SourceConfig) { c.Subscriptions[0].Filter = "a#" },
		"backoff_max":                    func(c *mqtt.SourceConfig) { c.BackoffMax = 0 },
	} {
		cfg := sourceConfig("mqtt://broker", "#")
		change(&cfg)
		err := cfg.Validate()
		if err == nil || !strings.Contains(err.Error(), want) || record.HintOf(err) == "" {
			t.Errorf("got %v (hint %q), want an error about %s", err, record.HintOf(err), want)
		}
	}
}
