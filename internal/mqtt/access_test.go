package mqtt_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/auth"
	"github.com/leat-io/leat/internal/mqtt"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/testenv"

	"github.com/gorilla/websocket"
	"golang.org/x/crypto/bcrypt"
)

func oneUser(t *testing.T, name, password string, policies ...string) auth.Config {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return auth.Config{Users: []auth.User{{Name: name, PasswordHash: string(h), Policies: policies}}}
}

func connectAs(version byte, id, user, password string) []byte {
	head := append(str("MQTT"), version, 0x02|0x80|0x40, 0, 60)
	if version == 5 {
		head = append(head, 0)
	}
	return frame(0x10, head, str(id), str(user), str(password))
}

func TestLogin(t *testing.T) {
	tb := startBroker(t, brokerConfig(), oneUser(t, "dev", "secret"))
	for _, c := range []struct {
		name   string
		packet []byte
		code   byte
	}{
		{"right", connectAs(4, "c", "dev", "secret"), 0},
		{"right again, from memory", connectAs(5, "c", "dev", "secret"), 0},
		{"wrong password", connectAs(4, "c", "dev", "guess"), 5},
		{"wrong password, MQTT 5", connectAs(5, "c", "dev", "guess"), 0x86},
		{"unknown user", connectAs(5, "c", "nobody", "secret"), 0x86},
		{"no user", connectFrame(5, "c", true, 60), 0x86},
	} {
		w := dial(t, tb.addr())
		w.send(c.packet)
		if body := w.want(0x20); body[1] != c.code {
			t.Errorf("%s: code 0x%02x, want 0x%02x", c.name, body[1], c.code)
		}
		w.Close()
	}
	if log := tb.log.String(); !strings.Contains(log, "reason=login") || strings.Contains(log, "guess") || strings.Contains(log, "secret") {
		t.Errorf("log: %s", log)
	}
}

func TestTopicPolicies(t *testing.T) {
	cfg := oneUser(t, "dev", "secret", "device")
	cfg.Policies = map[string]auth.Policy{"device": {Statement: []auth.Statement{
		{Effect: "Allow", Action: auth.Texts{"mqtt:Connect"}, Resource: auth.Texts{"client/d-*"}},
		{Effect: "Allow", Action: auth.Texts{"mqtt:Publish", "mqtt:Subscribe"}, Resource: auth.Texts{"topic/${client}/#"}},
		{Effect: "Deny", Action: auth.Texts{"*"}, Resource: auth.Texts{"topic/+/private"}},
	}}}
	tb := startBroker(t, brokerConfig(), cfg)

	w := dial(t, tb.addr())
	w.send(connectAs(5, "other", "dev", "secret"))
	w.want(0x20, 0, 0x86)

	w = dial(t, tb.addr())
	w.send(connectAs(5, "d-1", "dev", "secret"))
	w.want(0x20, 0, 0)
	for filter, want := range map[string]byte{"d-1/#": 0, "d-1/x": 0, "#": 0x87, "d-2/x": 0x87, "d-1/private": 0x87, "$share/g/d-1/x": 0, "$share/g/d-2/x": 0x87} {
		if body := w.subscribe(5, filter, 0); body[len(body)-1] != want {
			t.Errorf("subscribe to %s: 0x%02x, want 0x%02x", filter, body[len(body)-1], want)
		}
	}
	w.send(publishFrame(5, 1, 1, false, "d-2/x", "no"))
	w.want(0x40, 0, 1, 0x87)
	w.send(publishFrame(5, 2, 2, false, "d-1/private", "no"))
	w.want(0x50, 0, 2, 0x87)
	w.send(publishFrame(5, 0, 0, false, "d-2/x", "no"))
	w.send(frame(0x32, str("d-2/y"), []byte{0, 3, 3, 35, 0, 1}, []byte("no, with an alias")))
	w.want(0x40, 0, 3, 0x87)
	w.send(frame(0x32, str(""), []byte{0, 4, 3, 35, 0, 1}, []byte("no, behind an alias")))
	if h, body, err := w.next(); err == nil && (h != 0x40 || len(body) < 3 || body[2] != 0x87) && h != 0xE0 {
		t.Errorf("publish behind an alias: 0x%02x % x", h, body)
	}
	if n := tb.accept.count(); n != 0 {
		t.Errorf("accepted %s", tb.accept.payloads())
	}

	v3 := dial(t, tb.addr())
	v3.send(connectAs(4, "d-3", "dev", "secret"))
	v3.want(0x20, 0, 0)
	v3.send(publishFrame(4, 1, 1, false, "d-2/x", "no"))
	v3.closed()

	will := dial(t, tb.addr())
	head := append(str("MQTT"), 4, 0x02|0x04|0x80|0x40, 0, 60)
	will.send(frame(0x10, head, str("d-4"), str("d-2/status"), str("gone"), str("dev"), str("secret")))
	if body := will.want(0x20); body[1] == 0 {
		t.Error("a will on a foreign topic was let in")
	}
}

func TestUnsafeListenersAreConfigurationErrors(t *testing.T) {
	users := oneUser(t, "dev", "x")
	lan := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
	for _, c := range []struct {
		name   string
		change func(*mqtt.BrokerConfig)
		users  bool
		want   string // in error and hint; empty: valid
	}{
		{"loopback needs nothing", func(*mqtt.BrokerConfig) {}, false, ""},
		{"open, plain", func(c *mqtt.BrokerConfig) { c.Listen = "0.0.0.0:0" }, true, "mqtt.allow_plain"},
		{"open, plain, allowed, no users", func(c *mqtt.BrokerConfig) { c.Listen = ":0"; c.AllowPlain = lan }, false, "auth.users"},
		{"open, plain, allowed, users", func(c *mqtt.BrokerConfig) { c.Listen = ":0"; c.AllowPlain = lan }, true, ""},
		{"open, both allowed", func(c *mqtt.BrokerConfig) { c.Listen = ":0"; c.AllowPlain = lan; c.AllowAnonymous = lan }, false, ""},
		{"open, TLS, no users", func(c *mqtt.BrokerConfig) { c.TLSListen = ":0"; c.TLS.Cert, c.TLS.Key = "c", "k" }, false, "mqtt.tls.client_ca"},
		{"open, TLS, client certificates", func(c *mqtt.BrokerConfig) {
			c.TLSListen = ":0"
			c.TLS.Cert, c.TLS.Key, c.TLS.ClientCA = "c", "k", "ca"
		}, false, ""},
		{"TLS without a certificate", func(c *mqtt.BrokerConfig) { c.TLSListen = "127.0.0.1:0" }, false, "mqtt.tls.cert"},
		{"open WebSocket", func(c *mqtt.BrokerConfig) { c.WSListen = ":0" }, true, "mqtt.wss_listen"},
		{"no port", func(c *mqtt.BrokerConfig) { c.Listen = "127.0.0.1" }, false, "mqtt.listen"},
		{"packet size", func(c *mqtt.BrokerConfig) { c.MaxPacketSize = 1 << 30 }, false, "mqtt.max_packet_size"},
		{"keep-alive", func(c *mqtt.BrokerConfig) { c.MaxKeepAlive = 24 * time.Hour }, false, "mqtt.max_keep_alive"},
	} {
		cfg := mqtt.DefaultBrokerConfig()
		c.change(&cfg)
		err := cfg.Validate(c.users)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || record.HintOf(err) == "" || !strings.Contains(err.Error()+record.HintOf(err), c.want)):
			t.Errorf("%s: %v (hint %q), want %s", c.name, err, record.HintOf(err), c.want)
		}
	}
	if len(users.Users) != 1 {
		t.Fatal("no user")
	}
}

func TestPortInUse(t *testing.T) {
	tb := startBroker(t, brokerConfig(), auth.Config{})
	cfg := brokerConfig()
	cfg.Listen = tb.addr()
	who, _ := auth.Open(auth.Config{})
	_, err := mqtt.Open(t.Context(), cfg, who, tb.log.logger())
	if err == nil || !strings.Contains(err.Error(), tb.addr()) || !strings.Contains(err.Error(), "pid") ||
		!strings.Contains(record.HintOf(err), "--mqtt-listen") {
		t.Errorf("got %v, hint %q", err, record.HintOf(err))
	}
}

// authority makes certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.cert = a.sign("ca", &a.key.PublicKey, nil, a.key)
	return a
}

func (a *authority) sign(name string, pub *ecdsa.PublicKey, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.n++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.n), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if parent == nil {
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
		parent = tmpl
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	return cert
}

func (a *authority) write(name, kind string, der []byte) {
	if err := os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue makes a certificate and key, and returns their files.
func (a *authority) issue(name string) (cert, key string) {
	k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.sign(name, &k.PublicKey, a.cert, a.key)
	der, _ := x509.MarshalECPrivateKey(k)
	a.write(name+".key", "EC PRIVATE KEY", der)
	return filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
}

func (a *authority) ca() string { return filepath.Join(a.dir, "ca.pem") }

func TestTLSAndClientCertificates(t *testing.T) {
	ca := newAuthority(t)
	cfg := brokerConfig()
	cfg.TLSListen, cfg.WSSListen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.TLS.Cert, cfg.TLS.Key = ca.issue("server")
	cfg.TLS.ClientCA = ca.ca()
	users := auth.Config{
		DefaultPolicies: []string{"own"},
		Policies: map[string]auth.Policy{"own": {Statement: []auth.Statement{
			{Effect: "Allow", Action: auth.Texts{"mqtt:*"}, Resource: auth.Texts{"client/*", "topic/${user}/#"}},
		}}},
	}
	tb := startBroker(t, cfg, users)
	cert, key := ca.issue("press-7")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)

	t.Run("a device with a certificate is its common name", func(t *testing.T) {
		c, err := tls.Dial("tcp", strings.TrimPrefix(tb.url("mqtt.tls_listen"), "mqtts://"), &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}})
		if err != nil {
			t.Fatal(err)
		}
		w := &wire{t: t, Conn: c, r: newReader(c)}
		defer c.Close()
		w.send(connectFrame(5, "x", true, 60))
		w.want(0x20, 0, 0)
		w.send(publishFrame(5, 1, 1, false, "press-7/t", "mine"))
		w.want(0x40, 0, 1)
		w.send(publishFrame(5, 1, 2, false, "press-8/t", "not mine"))
		w.want(0x40, 0, 2, 0x87)
	})
	t.Run("without a certificate the handshake fails", func(t *testing.T) {
		c, err := tls.Dial("tcp", strings.TrimPrefix(tb.url("mqtt.tls_listen"), "mqtts://"), &tls.Config{RootCAs: pool})
		if err == nil {
			c.SetDeadline(time.Now().Add(patience))
			c.Write(connectFrame(5, "x", true, 60))
			if _, err = c.Read(make([]byte, 1)); err == nil {
				t.Error("let in")
			}
			c.Close()
		}
	})
	t.Run("sources over TLS and secure WebSocket", func(t *testing.T) {
		for _, version := range []string{"5", "3.1.1"} {
			for _, key := range []string{"mqtt.tls_listen", "mqtt.wss_listen"} {
				sc := sourceConfig(tb.url(key), "press-7/#")
				sc.Protocol, sc.ClientID = version, version+key
				sc.TLS = mqtt.ClientTLS{CA: ca.ca(), Cert: cert, Key: filepath.Join(ca.dir, "press-7.key")}
				ts := startSource(t, sc, nil)
				ts.ready(t, 1)
				st := ts.Status()
				if !st.Subscriptions[0].Granted {
					t.Errorf("%s over %s: %+v", version, key, st)
				}
				ts.stop()
			}
		}
	})
	t.Run("a broker that nobody vouches for is not trusted", func(t *testing.T) {
		sc := sourceConfig(tb.url("mqtt.tls_listen"), "#")
		ts := startSource(t, sc, nil)
		wait(t, "a failure", func() bool { return ts.Status().LastError != "" })
		if e := ts.Status().LastError; !strings.Contains(e, "certificate") {
			t.Errorf("last error %q", e)
		}
	})
	t.Run("TLS on the plain port is named", func(t *testing.T) {
		c, err := tls.Dial("tcp", tb.addr(), &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			c.Close()
			t.Fatal("a TLS handshake on the plain port")
		}
		wait(t, "the log line", func() bool { return strings.Contains(tb.log.String(), "no MQTT but TLS") })
	})
}

func TestMosquittoOverTLS(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue("broker")
	m := newMosquitto(t)
	m.kill()
	tlsAddr := freeAddr(t)
	_, port, _ := net.SplitHostPort(tlsAddr)
	f, err := os.OpenFile(m.conf, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "listener %s 127.0.0.1\ncafile %s\ncertfile %s\nkeyfile %s\nrequire_certificate true\n", port, ca.ca(), cert, key)
	f.Close()
	m.start()
	sc := sourceConfig("mqtts://"+tlsAddr, "#")
	sc.TLS.CA = ca.ca()
	sc.TLS.Cert, sc.TLS.Key = ca.issue("leat")
	ts := startSource(t, sc, nil)
	ts.ready(t, 1)
	m.publish("t", "over TLS")
	wait(t, "the message", func() bool { return ts.Status().Stats.Taken == 1 })
}

func TestWebSocket(t *testing.T) {
	cfg := brokerConfig()
	cfg.WSListen = "127.0.0.1:0"
	cfg.WSOrigins = []string{"https://dash.example"}
	tb := startBroker(t, cfg, auth.Config{})
	url := tb.url("mqtt.ws_listen")
	host := strings.TrimPrefix(url, "ws://")

	for origin, allowed := range map[string]bool{
		"": true, "http://" + host: true, "https://dash.example": true,
		"https://evil.example": false, "null": false, "http://127.0.0.1:1": false,
	} {
		h := http.Header{}
		if origin != "" {
			h.Set("Origin", origin)
		}
		d := websocket.Dialer{Subprotocols: []string{"mqtt"}}
		c, resp, err := d.DialContext(t.Context(), url, h)
		if (err == nil) != allowed {
			t.Errorf("origin %q: %v, want allowed %v", origin, err, allowed)
		}
		if err != nil {
			if resp == nil || resp.StatusCode != http.StatusForbidden {
				t.Errorf("origin %q: response %v", origin, resp)
			}
			continue
		}
		all := append(connectFrame(4, "web", true, 60), publishFrame(4, 1, 1, false, "t", "x")...)
		c.WriteMessage(websocket.BinaryMessage, all[:5]) // packets need not end where messages do
		c.WriteMessage(websocket.BinaryMessage, all[5:])
		var got []byte
		for len(got) < 8 {
			c.SetReadDeadline(time.Now().Add(patience))
			_, b, err := c.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, b...)
		}
		if !bytes.Equal(got, []byte{0x20, 2, 0, 0, 0x40, 2, 0, 1}) {
			t.Errorf("got % x", got)
		}
		c.WriteMessage(websocket.TextMessage, []byte("hello"))
		for err = nil; err == nil; {
			_, _, err = c.ReadMessage()
		}
		c.Close()
	}
	rebound, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer rebound.Close()
	fmt.Fprintf(rebound, "GET / HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\nConnection: Upgrade\r\n"+
		"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	rebound.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 12)
	if _, err := rebound.Read(b); err != nil || string(b) != "HTTP/1.1 403" {
		t.Errorf("a rebound name: %q, %v", b, err)
	}
	for _, version := range []string{"5", "3.1.1"} {
		sc := sourceConfig(url, "#")
		sc.Protocol = version
		ts := startSource(t, sc, nil)
		ts.ready(t, 1)
		ts.stop()
	}
}

func TestClientsOfThisMachineOnlyUnlessAllowed(t *testing.T) {
	ip := otherAddress(t)
	cfg := brokerConfig()
	cfg.Listen = "0.0.0.0:0"
	cfg.AllowPlain = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	tb := startBroker(t, cfg, oneUser(t, "dev", "x"))
	_, port, _ := net.SplitHostPort(tb.addr())
	w := dial(t, net.JoinHostPort(ip, port))
	w.closed()
	wait(t, "the log line", func() bool { return strings.Contains(tb.log.String(), "mqtt.allow_plain") })
	local := dial(t, net.JoinHostPort("127.0.0.1", port))
	local.send(connectAs(4, "c", "dev", "x"))
	local.want(0x20, 0, 0)
}

// otherAddress is an address of this machine that is not its loopback's.
func otherAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	testenv.Missing(t, "an address beside the loopback's")
	return ""
}

func TestAnonymousNetworks(t *testing.T) {
	cfg := brokerConfig()
	cfg.AllowAnonymous = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	tb := startBroker(t, cfg, oneUser(t, "dev", "x"))
	tb.login(4, "c", true)
}
