package mqtt_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/auth"
	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/mqtt"
	"github.com/leat-io/leat/internal/testenv"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	v3 "github.com/eclipse/paho.mqtt.golang"
)

// publisher sends n numbered messages with some client and waits for their acknowledgements.
type publisher func(t *testing.T, addr string, qos byte, n int)

func withAutopaho(t *testing.T, addr string, qos byte, n int) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cm, err := autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls: []*url.URL{{Scheme: "mqtt", Host: addr}}, KeepAlive: 20, CleanStartOnInitialConnection: true,
		ClientConfig: paho.ClientConfig{ClientID: "autopaho"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := cm.AwaitConnection(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := cm.Publish(ctx, &paho.Publish{Topic: "t", QoS: qos, Payload: []byte(strconv.Itoa(i))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := cm.Disconnect(ctx); err != nil {
		t.Error(err)
	}
	<-cm.Done()
}

func withPaho311(t *testing.T, addr string, qos byte, n int) {
	c := v3.NewClient(v3.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("paho311"))
	if tok := c.Connect(); !tok.WaitTimeout(patience) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	var tokens []v3.Token
	for i := range n {
		tokens = append(tokens, c.Publish("t", qos, false, strconv.Itoa(i)))
	}
	for _, tok := range tokens {
		if !tok.WaitTimeout(patience) || tok.Error() != nil {
			t.Fatal("no acknowledgement", tok.Error())
		}
	}
	c.Disconnect(100)
}

func withMosquitto(version string) publisher {
	return func(t *testing.T, addr string, qos byte, n int) {
		host, port, _ := net.SplitHostPort(addr)
		cmd := exec.Command(testenv.Need(t, "mosquitto_pub"), "-V", version, "-h", host, "-p", port, "-q", fmt.Sprint(qos), "-t", "t", "-l")
		var in strings.Builder
		for i := range n {
			fmt.Fprintln(&in, i)
		}
		cmd.Stdin = strings.NewReader(in.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

func TestRealClients(t *testing.T) {
	const n = 200
	sub := testenv.Need(t, "mosquitto_sub")
	var numbers []string
	for i := range n {
		numbers = append(numbers, strconv.Itoa(i))
	}
	for name, publish := range map[string]publisher{
		"autopaho": withAutopaho, "paho 3.1.1": withPaho311,
		"mosquitto_pub 5": withMosquitto("mqttv5"), "mosquitto_pub 3.1.1": withMosquitto("mqttv311"), "mosquitto_pub 3.1": withMosquitto("mqttv31"),
	} {
		for qos := range byte(3) {
			t.Run(fmt.Sprintf("%s, QoS %d", name, qos), func(t *testing.T) {
				tb := startBroker(t, brokerConfig(), auth.Config{})
				host, port, _ := net.SplitHostPort(tb.addr())
				cmd := exec.Command(sub, "-V", "mqttv5", "-h", host, "-p", port, "-q", "2", "-t", "#", "-C", fmt.Sprint(n), "-W", "15")
				var got strings.Builder
				cmd.Stdout = &got
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				base := tb.Stats().Subscriptions
				wait(t, "the subscription", func() bool { return tb.Stats().Subscriptions > base || tb.Stats().Subscriptions > 0 })
				publish(t, tb.addr(), qos, n)
				wait(t, "all messages", func() bool { return tb.accept.count() == n })
				want := strings.Join(numbers, " ")
				if got := tb.accept.payloads(); got != want {
					t.Errorf("accepted %s", got)
				}
				if err := cmd.Wait(); err != nil {
					t.Errorf("mosquitto_sub: %v", err)
				}
				if strings.Join(strings.Fields(got.String()), " ") != want {
					t.Errorf("mosquitto_sub got %q", got.String())
				}
			})
		}
	}
}

// committer answers like a log with group commit: whatever waits becomes durable together, once per interval.
type committer struct {
	mu    sync.Mutex
	dones []func(error)
	n     atomic.Int64
}

func (c *committer) Accept(_ context.Context, batch []ingest.Message, done func(error)) {
	c.n.Add(int64(len(batch)))
	c.mu.Lock()
	c.dones = append(c.dones, done)
	c.mu.Unlock()
}

func (c *committer) run(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		c.mu.Lock()
		dones := c.dones
		c.dones = nil
		c.mu.Unlock()
		for _, done := range dones {
			done(nil)
		}
	}
}

// BenchmarkPublish measures QoS 1 over loopback with a simulated commit of half a millisecond: client and broker share
// the processors, so compare only within a run.
func BenchmarkPublish(b *testing.B) {
	for _, conns := range []int{1, 5, 50} {
		b.Run(fmt.Sprintf("QoS 1, %d connections", conns), func(b *testing.B) {
			who, err := auth.Open(auth.Config{})
			if err != nil {
				b.Fatal(err)
			}
			var log logBuffer
			br, err := mqtt.Open(b.Context(), brokerConfig(), who, log.logger())
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			com := &committer{}
			var wg sync.WaitGroup
			ready := make(chan struct{})
			wg.Go(func() { com.run(ctx, 500*time.Microsecond) })
			wg.Go(func() { br.Run(ctx, com, func() { close(ready) }) })
			<-ready
			publishWindowed(b, br.Addrs()[0].Address, conns)
			cancel()
			wg.Wait()
		})
	}
}

// publishWindowed sends b.N messages of 100 bytes with up to 200 unacknowledged per connection.
func publishWindowed(b *testing.B, addr string, conns int) {
	const window = 200
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	payload := strings.Repeat("x", 60)
	b.ResetTimer()
	for i := range conns {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			c.Write(connectFrame(4, fmt.Sprint(i), true, 60))
			buf := make([]byte, 4096)
			if n, err := c.Read(buf); err != nil || n != 4 {
				b.Error(n, err)
				return
			}
			id, open, odd := uint16(0), 0, 0
			for {
				var out []byte
				for open < window && left.Add(-1) >= 0 {
					id = id%60000 + 1
					out = append(out, publishFrame(4, 1, id, false, "bench/topic/some/where", payload)...)
					open++
				}
				if len(out) > 0 {
					c.Write(out)
				}
				if open == 0 {
					return
				}
				n, err := c.Read(buf)
				if err != nil {
					b.Error(err)
					return
				}
				open -= (odd + n) / 4
				odd = (odd + n) % 4
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
