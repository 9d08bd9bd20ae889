package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/leat-io/leat/internal/listen"
	"github.com/leat-io/leat/internal/record"
)

// BrokerConfig is the `mqtt` section: the embedded broker. An empty listen address switches that listener off.
type BrokerConfig struct {
	Listen    string `yaml:"listen"`     // plain TCP, default 127.0.0.1:1883
	TLSListen string `yaml:"tls_listen"` // TLS, usually port 8883
	WSListen  string `yaml:"ws_listen"`  // MQTT over WebSocket
	WSSListen string `yaml:"wss_listen"` // MQTT over WebSocket over TLS

	// TLS is what tls_listen and wss_listen present, and whether they ask clients for certificates.
	TLS ServerTLS `yaml:"tls"`

	// AllowPlain lists the networks that may connect without TLS to a plain listener that is open beyond this machine.
	AllowPlain []netip.Prefix `yaml:"allow_plain"`
	// AllowAnonymous lists the networks that may connect without a name although users are configured, or although
	// the listener is open beyond this machine.
	AllowAnonymous []netip.Prefix `yaml:"allow_anonymous"`
	// WSOrigins are the web origins (https://dash.example) whose pages may connect. Pages served by the same
	// host and port as the listener always may.
	WSOrigins []string `yaml:"ws_origins"`

	MaxConnections   int           `yaml:"max_connections"`    // open connections, default 10,000
	MaxSessions      int           `yaml:"max_sessions"`       // sessions, those of absent clients included
	MaxPacketSize    int           `yaml:"max_packet_size"`    // bytes of one packet, default 1 MiB, at most 16 MiB
	MaxSubscriptions int           `yaml:"max_subscriptions"`  // filters per session, default 1,000
	MaxRetained      int           `yaml:"max_retained"`       // retained messages, default 100,000
	MaxInflight      int           `yaml:"max_inflight"`       // unacknowledged messages each way and session, default 1,024
	MaxQueued        int           `yaml:"max_queued"`         // packets waiting for a slow subscriber, default 1,024
	MaxTopicAliases  int           `yaml:"max_topic_aliases"`  // per connection, default 64
	MaxKeepAlive     time.Duration `yaml:"max_keep_alive"`     // longest keep-alive granted (MQTT 5 clients are told), default 1 h
	SessionExpiry    time.Duration `yaml:"session_expiry"`     // how long sessions of absent clients stay, default 24 h
	ConnectTimeout   time.Duration `yaml:"connect_timeout"`    // from TCP accept to CONNECT, default 10 s
	WriteTimeout     time.Duration `yaml:"write_timeout"`      // for one write to a client that does not read, default 10 s
	DrainTimeout     time.Duration `yaml:"drain_timeout"`      // at a stop, for acknowledgements on their way, default 300 ms
	LogInterval      time.Duration `yaml:"log_interval"`       // one line per kind of refusal in this time, default 10 s
	SysInterval      time.Duration `yaml:"sys_topic_interval"` // how often $SYS topics are published, default 10 s
}

// ServerTLS is a listener's certificate.
type ServerTLS struct {
	Cert     string `yaml:"cert"`      // PEM file, with the chain
	Key      string `yaml:"key"`       // PEM file
	ClientCA string `yaml:"client_ca"` // PEM file: clients must present a certificate that it signed
}

// DefaultBrokerConfig is a broker on loopback, open to every program of this machine.
func DefaultBrokerConfig() BrokerConfig {
	return BrokerConfig{
		Listen:           "127.0.0.1:1883",
		MaxConnections:   10_000,
		MaxSessions:      20_000,
		MaxPacketSize:    1 << 20,
		MaxSubscriptions: 1000,
		MaxRetained:      100_000,
		MaxInflight:      1024,
		MaxQueued:        1024,
		MaxTopicAliases:  64,
		MaxKeepAlive:     time.Hour,
		SessionExpiry:    24 * time.Hour,
		ConnectTimeout:   10 * time.Second,
		WriteTimeout:     10 * time.Second,
		DrainTimeout:     300 * time.Millisecond,
		LogInterval:      10 * time.Second,
		SysInterval:      10 * time.Second,
	}
}

// maxMaxPacketSize leaves room in a record for what surrounds a payload.
const maxMaxPacketSize = record.MaxPayload

// Validate reports the first thing wrong, with its key and the remedy. hasUsers tells whether the auth section lists
// any user. It opens nothing.
func (c *BrokerConfig) Validate(hasUsers bool) error {
	for _, l := range c.endpoints() {
		if l.addr == "" {
			continue
		}
		if err := listen.Check(l.addr); err != nil {
			return record.Errorf(record.Invalid, "%s: %w", l.key, err).WithHint("write for example %s: 127.0.0.1:1883", l.key)
		}
		if err := c.checkReach(l, hasUsers); err != nil {
			return err
		}
		if l.tls && (c.TLS.Cert == "" || c.TLS.Key == "") {
			return record.Errorf(record.Invalid, "%s needs mqtt.tls.cert and mqtt.tls.key", l.key).
				WithHint("name a certificate and its key (PEM files), or remove %s", l.key)
		}
	}
	return c.checkLimits()
}

// checkReach is the rule for listeners that other machines can reach.
func (c *BrokerConfig) checkReach(l endpoint, hasUsers bool) error {
	if listen.Loopback(l.addr) {
		return nil
	}
	if !l.tls && len(c.AllowPlain) == 0 {
		return record.Errorf(record.Invalid, "%s: %s is open beyond this machine without TLS", l.key, l.addr).
			WithHint("use mqtt.%s_listen with a certificate, bind to 127.0.0.1, or name the networks that may connect "+
				"in the clear: mqtt.allow_plain: [10.0.0.0/24]", map[bool]string{false: "tls", true: "wss"}[l.ws])
	}
	if !hasUsers && c.TLS.ClientCA == "" && len(c.AllowAnonymous) == 0 {
		return record.Errorf(record.Invalid, "%s: %s is open beyond this machine and nobody has to say who they are",
			l.key, l.addr).WithHint("list users below auth.users, ask for certificates with mqtt.tls.client_ca, or name " +
			"the networks that need no name: mqtt.allow_anonymous: [10.0.0.0/24]")
	}
	return nil
}

func (c *BrokerConfig) checkLimits() error {
	for _, l := range []struct {
		key            string
		value, lo, top int
	}{
		{"max_connections", c.MaxConnections, 1, 1_000_000},
		{"max_sessions", c.MaxSessions, 1, 10_000_000},
		{"max_packet_size", c.MaxPacketSize, 128, maxMaxPacketSize},
		{"max_subscriptions", c.MaxSubscriptions, 1, 1_000_000},
		{"max_retained", c.MaxRetained, 0, 100_000_000},
		{"max_inflight", c.MaxInflight, 1, 65535},
		{"max_queued", c.MaxQueued, 1, 1_000_000},
		{"max_topic_aliases", c.MaxTopicAliases, 0, 65535},
	} {
		if l.value < l.lo || l.value > l.top {
			return record.Errorf(record.Invalid, "mqtt.%s is %d", l.key, l.value).
				WithHint("give a number from %d to %d", l.lo, l.top)
		}
	}
	for _, d := range []struct {
		key            string
		value, lo, top time.Duration
	}{
		{"max_keep_alive", c.MaxKeepAlive, time.Second, maxKeepAlive * time.Second},
		{"session_expiry", c.SessionExpiry, 0, 365 * 24 * time.Hour},
		{"connect_timeout", c.ConnectTimeout, time.Millisecond, time.Hour},
		{"write_timeout", c.WriteTimeout, time.Millisecond, time.Hour},
		{"drain_timeout", c.DrainTimeout, 0, time.Minute},
		{"log_interval", c.LogInterval, 0, 24 * time.Hour},
		{"sys_topic_interval", c.SysInterval, time.Second, 24 * time.Hour},
	} {
		if d.value < d.lo || d.value > d.top {
			return record.Errorf(record.Invalid, "mqtt.%s is %s", d.key, d.value).
				WithHint("give a duration from %s to %s", d.lo, d.top)
		}
	}
	return nil
}

// endpoint is one of the four listen addresses.
type endpoint struct {
	key, flag, addr string
	tls, ws         bool
}

func (c *BrokerConfig) endpoints() []endpoint {
	return []endpoint{
		{"mqtt.listen", "--mqtt-listen", c.Listen, false, false},
		{"mqtt.tls_listen", "--mqtt-tls-listen", c.TLSListen, true, false},
		{"mqtt.ws_listen", "--mqtt-ws-listen", c.WSListen, false, true},
		{"mqtt.wss_listen", "--mqtt-wss-listen", c.WSSListen, true, true},
	}
}

// load reads the certificate files.
func (t *ServerTLS) load() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, record.Errorf(record.Invalid, "mqtt.tls: %w", err).
			WithHint("mqtt.tls.cert and mqtt.tls.key must be PEM files that belong together")
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if t.ClientCA != "" {
		if cfg.ClientCAs, err = loadPool(t.ClientCA); err != nil {
			return nil, record.Errorf(record.Invalid, "mqtt.tls.client_ca: %w", err).WithHint("name a PEM file of certificates")
		}
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return cfg, nil
}

func loadPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s contains no PEM certificate", file)
	}
	return pool, nil
}

// within reports whether addr's IP lies in one of the networks.
func within(addr net.Addr, nets []netip.Prefix) bool {
	ip, ok := ipOf(addr)
	if !ok {
		return false
	}
	for _, n := range nets {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

func ipOf(addr net.Addr) (netip.Addr, bool) {
	ap, err := netip.ParseAddrPort(addr.String())
	return ap.Addr().Unmap().WithZone(""), err == nil
}
