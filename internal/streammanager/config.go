package streammanager

import (
	"net/netip"

	"github.com/leat-io/leat/internal/export/forward"
	"github.com/leat-io/leat/internal/listen"
	"github.com/leat-io/leat/internal/record"
)

// Config is the `stream_manager` section.
type Config struct {
	// Listen is the address of the Stream Manager's protocol. Its clients connect to port 8088 of this machine unless
	// they are told otherwise. Empty switches the door off; streams and their exports go on.
	Listen string `yaml:"listen"`
	// Authenticate says whether clients must show a token of tokens_file. Not set, they must when tokens_file is given
	// or when the listener is open beyond this machine.
	Authenticate *bool `yaml:"authenticate"`
	// TokensFile lists who may connect: per line a name, the token (or sha256: and the hexadecimal sum of it), and the
	// streams that it may use, as patterns with * and ? between commas. Clients send what their environment has in
	// AWS_CONTAINER_AUTHORIZATION_TOKEN.
	TokensFile string `yaml:"tokens_file"`
	// AllowPlain lists the networks that may connect when the listener is open beyond this machine: the protocol knows
	// no TLS.
	AllowPlain []netip.Prefix `yaml:"allow_plain"`
	// MaxConnections is how many connections are open at most; more are refused.
	MaxConnections int `yaml:"max_connections"`
	// MemoryBytes is what all streams with memory persistence hold together.
	MemoryBytes int64 `yaml:"memory_bytes"`
	// ReclaimExported names streams, as patterns with * and ?, that give the space of a message back as soon as every
	// export of the stream has delivered it. Others keep their messages until they are overwritten or expire.
	ReclaimExported []string `yaml:"reclaim_exported"`
	// Exports is how messages get to their destinations.
	Exports forward.Config `yaml:"exports"`
}

// DefaultConfig is a door on loopback, open to every program of this machine.
func DefaultConfig() Config {
	return Config{Listen: "127.0.0.1:8088", MaxConnections: 2000, MemoryBytes: 64 << 20, Exports: forward.DefaultConfig()}
}

// maxMaxConnections bounds what an operator can ask for: each connection may hold about maxInflight requests.
const maxMaxConnections = 100_000

// Validate says which key cannot be, and what to write instead. It opens nothing: whether the file of tokens reads is
// found by OpenServer.
func (c *Config) Validate() error {
	if c.Listen != "" {
		if err := c.validateListen(); err != nil {
			return err
		}
	}
	if c.MaxConnections < 1 || c.MaxConnections > maxMaxConnections {
		return record.Errorf(record.Invalid, "stream_manager.max_connections is %d", c.MaxConnections).
			WithHint("give a number from 1 to %d", maxMaxConnections)
	}
	if c.MemoryBytes < 1<<20 {
		return record.Errorf(record.Invalid, "stream_manager.memory_bytes is %d", c.MemoryBytes).
			WithHint("give a size of at least 1MiB; what no stream uses takes no memory")
	}
	for _, p := range c.ReclaimExported {
		if p == "" {
			return record.Errorf(record.Invalid, "stream_manager.reclaim_exported: an empty pattern matches no stream").
				WithHint("write for example reclaim_exported: [sensor*], or \"*\" for every stream")
		}
	}
	if err := c.Exports.Validate(); err != nil {
		return record.Errorf(record.Invalid, "stream_manager.%w", err) // the error begins with the key below this section
	}
	return nil
}

func (c *Config) validateListen() error {
	if err := listen.Check(c.Listen); err != nil {
		return record.Errorf(record.Invalid, "stream_manager.listen: %w", err).
			WithHint("write for example stream_manager.listen: 127.0.0.1:8088")
	}
	if c.authenticates() && c.TokensFile == "" {
		why := "authenticate is true"
		if c.Authenticate == nil {
			why = c.Listen + " is open beyond this machine"
		}
		return record.Errorf(record.Invalid, "stream_manager: %s, and no token is known", why).
			WithHint("name a file with lines of NAME TOKEN STREAMS: stream_manager.tokens_file: /etc/leat/tokens, or let " +
				"everybody in who can connect: stream_manager.authenticate: false")
	}
	if !listen.Loopback(c.Listen) && len(c.AllowPlain) == 0 {
		return record.Errorf(record.Invalid, "stream_manager.listen: %s is open beyond this machine, and the protocol has no TLS", c.Listen).
			WithHint("bind to 127.0.0.1, or name the networks that may connect in the clear: stream_manager.allow_plain: [10.0.0.0/24]")
	}
	return nil
}

// authenticates says whether clients must show a token.
func (c *Config) authenticates() bool {
	if c.Authenticate != nil {
		return *c.Authenticate
	}
	return c.TokensFile != "" || !listen.Loopback(c.Listen)
}
