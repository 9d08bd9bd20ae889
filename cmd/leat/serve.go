package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/server"
)

// settings are the flags that change the configuration. Every other key has its environment variable, or --set.
type settings struct {
	Config        string            `short:"c" help:"Configuration file (YAML)." env:"LEAT_CONFIG" placeholder:"FILE"`
	DataDir       string            `help:"Directory for everything that is kept (data_dir)." placeholder:"DIR"`
	HTTPListen    *string           `name:"http-listen" help:"Address of health, metrics and API (http.listen); empty: off." placeholder:"HOST:PORT"`
	MQTTListen    *string           `name:"mqtt-listen" help:"Address of the embedded broker (mqtt.listen); empty: off." placeholder:"HOST:PORT"`
	MQTTTLSListen *string           `name:"mqtt-tls-listen" help:"The same with TLS (mqtt.tls_listen)." placeholder:"HOST:PORT"`
	MQTTWSListen  *string           `name:"mqtt-ws-listen" help:"The same over WebSocket (mqtt.ws_listen)." placeholder:"HOST:PORT"`
	MQTTWSSListen *string           `name:"mqtt-wss-listen" help:"The same over WebSocket with TLS (mqtt.wss_listen)." placeholder:"HOST:PORT"`
	SMListen      *string           `name:"stream-manager-listen" help:"Address of the Stream Manager's door (stream_manager.listen); empty: off." placeholder:"HOST:PORT"`
	Period        string            `help:"How often files are cut (ingest.period)." placeholder:"TIME"`
	LogLevel      string            `help:"debug, info, warn or error (logging.level)." placeholder:"LEVEL"`
	LogFormat     string            `help:"text or json (logging.format)." placeholder:"FORMAT"`
	Set           map[string]string `help:"Any other key, for example --set disk.budget=2GiB." mapsep:"none" placeholder:"KEY=VALUE"`
}

// load reads the configuration with the flags on top.
func (s settings) load(t terminal) (*config.Loaded, error) {
	src := config.Source{File: s.Config, Env: t.env, Flags: map[string]string{}, Names: map[string]string{}}
	set := func(flag, key string, value *string) {
		if value != nil {
			src.Flags[key], src.Names[key] = *value, flag
		}
	}
	optional := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	for key, value := range s.Set {
		if !knownKey(key) {
			return nil, record.Errorf(record.Invalid, "--set %s: unknown key", key).
				WithHint("leat config show prints every key; docs/reference/config.md explains them")
		}
		set("--set "+key, key, &value)
	}
	set("--data-dir", "data_dir", optional(s.DataDir))
	set("--http-listen", "http.listen", s.HTTPListen)
	set("--mqtt-listen", "mqtt.listen", s.MQTTListen)
	set("--mqtt-tls-listen", "mqtt.tls_listen", s.MQTTTLSListen)
	set("--mqtt-ws-listen", "mqtt.ws_listen", s.MQTTWSListen)
	set("--mqtt-wss-listen", "mqtt.wss_listen", s.MQTTWSSListen)
	set("--stream-manager-listen", "stream_manager.listen", s.SMListen)
	set("--period", "ingest.period", optional(s.Period))
	set("--log-level", "logging.level", optional(s.LogLevel))
	set("--log-format", "logging.format", optional(s.LogFormat))
	return config.Load(src)
}

// knownKey reports whether a key can be set by one value.
func knownKey(path string) bool {
	for _, k := range config.Keys() {
		if k.Path == path && k.Scalar {
			return true
		}
	}
	return false
}

type serveCmd struct {
	settings
}

// Run runs the service until it is told to stop.
func (c serveCmd) Run(ctx context.Context, t terminal) (err error) {
	l, err := c.load(t)
	if err != nil {
		return err
	}
	log, closer, err := server.NewLogger(l.Config.Logging, l.Config.DataDir, t.err)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	for _, w := range l.Warnings {
		log.Warn("configuration", "warning", w)
	}
	s, err := server.Open(ctx, server.Options{Config: l.Config, Version: programVersion(), Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Run(ctx, func() {}); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// shellQuote writes an argument so that a shell reads it as one.
func shellQuote(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\n'\"\\$`*?[]{}()<>|&;!~#") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func plural(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%s %ss", grouped(n), one)
}

// grouped writes a number with commas between thousands.
func grouped(n int64) string {
	s := fmt.Sprint(max(n, -n))
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if n < 0 {
		return "-" + s
	}
	return s
}
