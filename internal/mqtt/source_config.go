package mqtt

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/record"
)

// SourceConfig is one entry of `mqtt.sources`: a broker that is there already.
type SourceConfig struct {
	Name     string `yaml:"name"`
	URL      string `yaml:"url"`      // mqtt://host:1883, mqtts://host:8883, ws://host/mqtt, wss://host/mqtt
	Protocol string `yaml:"protocol"` // auto (MQTT 5, else 3.1.1), 5 or 3.1.1
	ClientID string `yaml:"client_id"`
	Username string `yaml:"username"`
	Password string `yaml:"password"` // resolved already

	TLS ClientTLS `yaml:"tls"`

	// Subscriptions come from the ingest rules that name this source.
	Subscriptions []Subscription `yaml:"-"`

	KeepAlive      time.Duration `yaml:"keep_alive"`      // default 30 s
	ConnectTimeout time.Duration `yaml:"connect_timeout"` // for TCP, TLS, CONNACK and SUBACK together, default 10 s
	SessionExpiry  time.Duration `yaml:"session_expiry"`  // how long the broker keeps what we miss (MQTT 5), default 24 h
	Window         int           `yaml:"window"`          // messages taken before their acknowledgement, default 4,096
	BackoffMin     time.Duration `yaml:"backoff_min"`     // first wait before reconnecting, default 500 ms; jittered
	BackoffMax     time.Duration `yaml:"backoff_max"`     // longest wait, default 30 s
	DrainTimeout   time.Duration `yaml:"drain_timeout"`   // at a stop, for acknowledgements on their way, default 300 ms
	Resubscribe    time.Duration `yaml:"resubscribe"`     // how often refused subscriptions are tried again, default 1 min
	// Timeout is mqtt_timeout: ingest reports a source from which nothing came for so long. 0: never.
	Timeout time.Duration `yaml:"mqtt_timeout"`
}

// Subscription is a filter with the QoS to ask for.
type Subscription = ingest.Subscription

// ClientTLS is how we trust a broker and what we present to it.
type ClientTLS struct {
	CA         string `yaml:"ca"`          // PEM file; empty: the system's
	Cert       string `yaml:"cert"`        // PEM file, for mTLS
	Key        string `yaml:"key"`         // PEM file
	ServerName string `yaml:"server_name"` // when it differs from the URL's host
}

// DefaultSourceConfig has all but the name, the URL and the client id.
func DefaultSourceConfig() SourceConfig {
	return SourceConfig{
		Protocol:       "auto",
		KeepAlive:      30 * time.Second,
		ConnectTimeout: 10 * time.Second,
		SessionExpiry:  24 * time.Hour,
		Window:         4096,
		BackoffMin:     500 * time.Millisecond,
		BackoffMax:     30 * time.Second,
		DrainTimeout:   300 * time.Millisecond,
		Resubscribe:    time.Minute,
		Timeout:        5 * time.Minute,
	}
}

// schemes are the URL schemes, what others call them included, with the default port.
func schemeOf(s string) (tls, web bool, port string, ok bool) {
	switch s {
	case "mqtt", "tcp":
		return false, false, "1883", true
	case "mqtts", "ssl", "tls":
		return true, false, "8883", true
	case "ws":
		return false, true, "80", true
	case "wss":
		return true, true, "443", true
	}
	return false, false, "", false
}

// Validate reports the first thing wrong, with its key and the remedy.
func (c *SourceConfig) Validate() error {
	if c.Name == "" {
		return record.Errorf(record.Invalid, "mqtt.sources: a source without a name").WithHint("name it: it shows in health and logs")
	}
	key := fmt.Sprintf("mqtt.sources[%s]", c.Name)
	bad := func(field, hint, format string, args ...any) error {
		return record.Errorf(record.Invalid, "%s.%s: %s", key, field, fmt.Sprintf(format, args...)).WithHint("%s", hint)
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" {
		return bad("url", "write for example mqtt://broker.example:1883", "%q is no URL", c.URL)
	}
	if _, _, _, ok := schemeOf(u.Scheme); !ok {
		return bad("url", "use mqtt://, mqtts://, ws:// or wss://", "unknown scheme %q", u.Scheme)
	}
	if u.User != nil {
		return bad("url", "use the keys username and password (with ${file:…} for the secret)", "contains a user name")
	}
	switch c.Protocol {
	case "auto", "5", "3.1.1":
	default:
		return bad("protocol", "use auto, 5 or 3.1.1", "unknown version %q", c.Protocol)
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return bad("tls", "give both cert and key, or neither", "one of cert and key is missing")
	}
	if c.Window < 1 || c.Window > 65535 {
		return bad("window", "give a number from 1 to 65535", "is %d", c.Window)
	}
	if c.BackoffMin <= 0 || c.BackoffMax < c.BackoffMin {
		return bad("backoff_max", "backoff_min must be above 0, and backoff_max at least as long", "is %s with backoff_min %s", c.BackoffMax, c.BackoffMin)
	}
	for field, d := range map[string]time.Duration{"keep_alive": c.KeepAlive, "connect_timeout": c.ConnectTimeout, "resubscribe": c.Resubscribe} {
		if d <= 0 || d > 18*time.Hour {
			return bad(field, "give a duration above 0 and up to 18h", "is %s", d)
		}
	}
	if c.Timeout < 0 || c.SessionExpiry < 0 || c.DrainTimeout < 0 {
		return bad("mqtt_timeout", "durations are not negative; 0 switches the warning off", "is %s, session_expiry %s, drain_timeout %s", c.Timeout, c.SessionExpiry, c.DrainTimeout)
	}
	for _, s := range c.Subscriptions {
		if err := ingest.CheckFilter(s.Filter); err != nil {
			return bad("topics", record.HintOf(err), "%v", err)
		}
		if s.QoS > 2 {
			return bad("topics", "QoS is 0, 1 or 2", "QoS %d for %s", s.QoS, s.Filter)
		}
	}
	return nil
}

// load reads certificates; nil when the URL asks for none.
func (c *SourceConfig) load(u *url.URL) (*tls.Config, error) {
	secure, _, _, _ := schemeOf(u.Scheme)
	if !secure {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLS.ServerName}
	if cfg.ServerName == "" {
		cfg.ServerName = u.Hostname()
	}
	var err error
	if c.TLS.CA != "" {
		if cfg.RootCAs, err = loadPool(c.TLS.CA); err != nil {
			return nil, record.Errorf(record.Invalid, "mqtt.sources[%s].tls.ca: %w", c.Name, err).WithHint("name a PEM file of certificates")
		}
	}
	if c.TLS.Cert != "" {
		cert, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
		if err != nil {
			return nil, record.Errorf(record.Invalid, "mqtt.sources[%s].tls: %w", c.Name, err).
				WithHint("cert and key must be PEM files that belong together")
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg, nil
}

// hostPort is where to dial.
func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	_, _, port, _ := schemeOf(u.Scheme)
	return strings.TrimSuffix(u.Host, ":") + ":" + port
}
