// Package config is the one YAML file: a tree made of the packages' own Config structs.
//
// Load reads a file, the environment and flags, in this order of weight: a flag wins over a variable, a variable over
// the file, the file over the default. The variable of a key follows from its path: http.listen is LEAT_HTTP_LISTEN.
//
// Keys are strict: an unknown one is an error with file, line, path and the nearest known key. Times are written with a
// unit or in seconds ("60s", 60), sizes with a unit or in bytes ("1GiB"). ${env:NAME} and ${file:PATH} stand for values
// kept elsewhere; whatever was written so, and every key that holds a secret, is hidden by Show.
//
// The four names of the AWS prescriptive guidance (region, parquet_period, s3_bucket, s3_key_prefix) and its log-manager
// block work as they stand there, at the top level; they are moved to leat's own keys, which Show prints.
//
// The package does no I/O but reading the file and what ${file:…} names. It checks values by themselves; what depends
// on the machine (ports, directories, credentials) is found by the server.
package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/auth"
	"github.com/leat-io/leat/internal/blob/s3"
	"github.com/leat-io/leat/internal/export"
	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/mqtt"
	"github.com/leat-io/leat/internal/query"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/streammanager"
)

// Config is the whole tree.
type Config struct {
	// DataDir is where everything is kept: the log, the spool, the catalog and, unless a store is named, the lake.
	DataDir string `yaml:"data_dir"`
	// Disk is the room that leat may take.
	Disk Disk `yaml:"disk"`
	// Logging is about the program's own lines.
	Logging Logging `yaml:"logging"`
	// HTTP is health, metrics and leat's own interface.
	HTTP api.Config `yaml:"http"`
	// Auth lists users and what they may do.
	Auth auth.Config `yaml:"auth"`
	// MQTT is the embedded broker, and the brokers that are there already.
	MQTT MQTT `yaml:"mqtt"`
	// StreamManager is the door of the Stream Manager's clients, and the exports of their streams.
	StreamManager streammanager.Config `yaml:"stream_manager"`
	// Ingest is what becomes of messages.
	Ingest ingest.Config `yaml:"ingest"`
	// Log is the durable log, in which every stream lies.
	Log Log `yaml:"log"`
	// Lake is how files are made.
	Lake lake.Config `yaml:"lake"`
	// Export is how files get into the store.
	Export export.Config `yaml:"export"`
	// Store is where files of the lake end up.
	Store Store `yaml:"store"`
	// SQL is how queries run.
	SQL query.Config `yaml:"sql"`

	// Region, with the next three, is a name of the AWS prescriptive guidance: the same as store.s3.region.
	Region string `yaml:"region,omitempty"`
	// ParquetPeriod is the same as ingest.period.
	ParquetPeriod time.Duration `yaml:"parquet_period,omitempty"`
	// S3Bucket is the same as store.s3.bucket.
	S3Bucket string `yaml:"s3_bucket,omitempty"`
	// S3KeyPrefix is what keys begin with, literally: store.s3.prefix with store.table_prefix off.
	S3KeyPrefix string `yaml:"s3_key_prefix,omitempty"`
	// LogsUploader is the log-manager block of the guidance: its level and disk limit are honoured for leat's own log.
	LogsUploader Uploader `yaml:"logsUploaderConfiguration,omitempty"`
	// UploadInterval belongs to that block and has no effect: leat does not upload its log.
	UploadInterval time.Duration `yaml:"periodicUploadIntervalSec,omitempty"`
}

// MQTT is the embedded broker's settings with the external brokers below.
type MQTT struct {
	mqtt.BrokerConfig `yaml:",inline"`
	// Sources are brokers that are there already. With sources and without a listen address of its own, the embedded
	// broker is off.
	Sources []mqtt.SourceConfig `yaml:"sources"`
}

// Log is the durable log. 0 means the default.
type Log struct {
	// SegmentBytes is the size at which a file of the log is closed and the next begun.
	SegmentBytes int64 `yaml:"segment_bytes"`
	// QueueBytes is how much may wait for its commit; beyond it, doors stop reading.
	QueueBytes int64 `yaml:"queue_bytes"`
	// SyncInterval is the longest time until what streams of durability os took is on the disk.
	SyncInterval time.Duration `yaml:"sync_interval"`
	// MaintainInterval is how often retention by age and cleaning run.
	MaintainInterval time.Duration `yaml:"maintain_interval"`
}

// Disk is the room that leat may take, shared by the log, the spool and the caches.
type Disk struct {
	// Budget is the most bytes that the data directory may hold. 0 means what is there plus what is free, less MinFree.
	Budget int64 `yaml:"budget"`
	// MinFree is what stays free on the disk, in bytes. 0 means 1 GiB or a tenth of the disk, whichever is more.
	MinFree int64 `yaml:"min_free"`
}

// Store is a directory or an S3 bucket.
type Store struct {
	// Dir is the lake's directory; a relative name lies in the data directory. Unused when s3.bucket is set.
	Dir string `yaml:"dir"`
	// TablePrefix puts <table>/ before the keys of each table. Off, the store belongs to one table.
	TablePrefix bool `yaml:"table_prefix"`
	// S3 is a bucket of any S3-compatible store.
	S3 s3.Config `yaml:"s3"`
}

// Default returns the configuration that leat runs with when nobody says anything.
func Default() Config {
	return Config{
		DataDir:       "./leat-data",
		Logging:       DefaultLogging(),
		HTTP:          api.DefaultConfig(),
		Auth:          auth.DefaultConfig(),
		MQTT:          MQTT{BrokerConfig: mqtt.DefaultBrokerConfig()},
		StreamManager: streammanager.DefaultConfig(),
		Ingest:        ingest.DefaultConfig(),
		Log: Log{
			SegmentBytes: 64 << 20, QueueBytes: 8 << 20, SyncInterval: 100 * time.Millisecond, MaintainInterval: time.Second,
		},
		Lake:   lake.DefaultConfig(),
		Export: export.DefaultConfig(),
		Store:  Store{Dir: "lake", TablePrefix: true, S3: s3.DefaultConfig()},
		SQL:    query.DefaultConfig(),
	}
}

// Tables are the names of the tables that the rules fill.
func (c *Config) Tables() []string {
	var names []string
	for _, r := range c.Ingest.Resolved().Rules {
		if !slices.Contains(names, r.Table) {
			names = append(names, r.Table)
		}
	}
	return names
}

// SourceNames are what a rule may name as its source.
func (c *Config) SourceNames() []string {
	var names []string
	if c.HasBroker() {
		names = append(names, ingest.BrokerSource)
	}
	for _, s := range c.MQTT.Sources {
		names = append(names, s.Name)
	}
	return names
}

// HasBroker reports whether the embedded broker listens anywhere.
func (c *Config) HasBroker() bool {
	m := &c.MQTT
	return m.Listen != "" || m.TLSListen != "" || m.WSListen != "" || m.WSSListen != ""
}

// resolve moves the documents' names to leat's own keys.
func (c *Config) resolve(secrets map[string]string) error {
	prefix := strings.Trim(c.S3KeyPrefix, "/")
	if prefix != "" {
		prefix += "/"
		c.Store.TablePrefix = false
	}
	if c.S3KeyPrefix != "" && c.S3Bucket == "" && c.Store.S3.Bucket == "" {
		return record.Errorf(record.Invalid, "s3_key_prefix: %q without a bucket", c.S3KeyPrefix).WithHint("set s3_bucket")
	}
	for _, m := range []struct {
		from, to string
		src      string
		dst      *string
	}{
		{"region", "store.s3.region", c.Region, &c.Store.S3.Region},
		{"s3_bucket", "store.s3.bucket", c.S3Bucket, &c.Store.S3.Bucket},
		{"s3_key_prefix", "store.s3.prefix", prefix, &c.Store.S3.Prefix},
	} {
		if m.src == "" {
			continue
		}
		if *m.dst != "" && *m.dst != m.src {
			return record.Errorf(record.Invalid, "%s: %q, but %s: %q", m.from, m.src, m.to, *m.dst).WithHint("keep one of the two")
		}
		*m.dst = m.src
		if expr, ok := secrets[m.from]; ok {
			secrets[m.to] = expr
		}
	}
	if c.ParquetPeriod != 0 {
		c.Ingest.Period = c.ParquetPeriod
	}
	if err := c.LogsUploader.apply(&c.Logging); err != nil {
		return err
	}
	c.Region, c.ParquetPeriod, c.S3Bucket, c.S3KeyPrefix = "", 0, "", ""
	c.LogsUploader, c.UploadInterval = Uploader{}, 0
	return nil
}

// Validate says which key cannot be, and what to write instead.
func (c *Config) Validate() error {
	if strings.TrimSpace(c.DataDir) == "" {
		return record.Errorf(record.Invalid, "data_dir is empty").WithHint("name a directory, for example ./leat-data")
	}
	for _, v := range []interface{ Validate() error }{
		&c.Disk, &c.Logging, &c.HTTP, &c.Auth, &c.StreamManager, &c.Ingest, &c.Log, &c.Lake, &c.Export, &c.Store, &c.SQL,
	} {
		if err := v.Validate(); err != nil {
			return err
		}
	}
	hasUsers := len(c.Auth.Users) > 0 || c.Auth.UsersFile != ""
	if err := c.MQTT.validate(hasUsers); err != nil {
		return err
	}
	if tables := c.Tables(); !c.Store.TablePrefix && len(tables) > 1 {
		return record.Errorf(record.Invalid, "store.table_prefix is off, but the rules fill several tables (%s)", strings.Join(tables, ", ")).
			WithHint("fill one table, or name the bucket below store.s3 (bucket, prefix) instead of with s3_key_prefix")
	}
	return c.Ingest.CheckSources(c.SourceNames())
}

func (m *MQTT) validate(hasUsers bool) error {
	if err := m.BrokerConfig.Validate(hasUsers); err != nil {
		return err
	}
	seen := map[string]bool{ingest.BrokerSource: true}
	for i := range m.Sources {
		s := &m.Sources[i]
		if err := s.Validate(); err != nil {
			return err
		}
		if seen[s.Name] {
			return record.Errorf(record.Invalid, "mqtt.sources[%d].name: %q is taken", i, s.Name).
				WithHint("give each source a name of its own; %q is the embedded broker", ingest.BrokerSource)
		}
		seen[s.Name] = true
	}
	return nil
}

// Validate says which key cannot be, and what to write instead.
func (l *Log) Validate() error {
	const least, most = 1 << 20, 1 << 30
	switch {
	case l.SegmentBytes != 0 && (l.SegmentBytes < least || l.SegmentBytes > most):
		return record.Errorf(record.Invalid, "log.segment_bytes: %s", FormatSize(l.SegmentBytes)).
			WithHint("use %s to %s", FormatSize(least), FormatSize(most))
	case l.QueueBytes != 0 && (l.QueueBytes < least || l.QueueBytes > most):
		return record.Errorf(record.Invalid, "log.queue_bytes: %s", FormatSize(l.QueueBytes)).
			WithHint("use %s to %s", FormatSize(least), FormatSize(most))
	case l.SyncInterval < 0 || l.SyncInterval > time.Minute:
		return record.Errorf(record.Invalid, "log.sync_interval: %s", l.SyncInterval).WithHint("use for example 100ms, at most 1m")
	case l.MaintainInterval < 0:
		return record.Errorf(record.Invalid, "log.maintain_interval: %s", l.MaintainInterval).WithHint("use for example 1s")
	}
	return nil
}

// Validate says which key cannot be, and what to write instead.
func (d *Disk) Validate() error {
	const least = 16 << 20
	if d.MinFree < 0 {
		return record.Errorf(record.Invalid, "disk.min_free: %d is negative", d.MinFree).WithHint("leave it out for the default")
	}
	if d.Budget < 0 || d.Budget > 0 && d.Budget < least {
		return record.Errorf(record.Invalid, "disk.budget: %s", FormatSize(d.Budget)).
			WithHint("use at least %s, or leave it out for the default", FormatSize(least))
	}
	return nil
}

// Validate says which key cannot be, and what to write instead.
func (s *Store) Validate() error {
	if s.S3.Bucket == "" {
		if s.Dir == "" {
			return record.Errorf(record.Invalid, "store: neither dir nor s3.bucket is set").WithHint("set store.dir, for example lake")
		}
		return nil
	}
	if err := s.S3.Validate(); err != nil {
		return fmt.Errorf("store.s3.%w", err)
	}
	return nil
}
