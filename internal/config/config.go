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
	"strings"
	"time"

	"github.com/leat-io/leat/internal/auth"
	"github.com/leat-io/leat/internal/export"
	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/record"
)

// Config is the whole tree.
type Config struct {
	// DataDir is where everything is kept: the log, the spool, the catalog and, unless a store is named, the lake.
	DataDir string  `yaml:"data_dir"`
	Disk    Disk    `yaml:"disk"`
	Logging Logging `yaml:"logging"`
	// Auth lists users and what they may do.
	Auth auth.Config `yaml:"auth"`
	// Lake is how files are made.
	Lake lake.Config `yaml:"lake"`
	// Export is how files get into the store.
	Export export.Config `yaml:"export"`
	// Store is where files of the lake end up.
	Store Store `yaml:"store"`

	// Region, with the next three, is a name of the AWS prescriptive guidance: the same as store.s3.region.
	Region string `yaml:"region,omitempty"`
	// ParquetPeriod is how often files are cut, for rules without a period of their own.
	ParquetPeriod time.Duration `yaml:"parquet_period,omitempty"`
	// S3Bucket is the same as store.s3.bucket.
	S3Bucket string `yaml:"s3_bucket,omitempty"`
	// S3KeyPrefix is what keys begin with, literally: no table name follows it.
	S3KeyPrefix string `yaml:"s3_key_prefix,omitempty"`
	// LogsUploader is the log-manager block of the guidance: its level and disk limit are honoured for leat's own log.
	LogsUploader Uploader `yaml:"logsUploaderConfiguration,omitempty"`
	// UploadInterval belongs to that block and has no effect: leat does not upload its log.
	UploadInterval time.Duration `yaml:"periodicUploadIntervalSec,omitempty"`
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
	S3  S3     `yaml:"s3"`
}

// S3 is a bucket of any S3-compatible store. leat's own clients take their endpoint and credentials from here or from
// the usual credential chain, but never from AWS_ENDPOINT_URL, which may point at leat itself.
type S3 struct {
	// Bucket is the bucket's name. Empty means that the lake is a directory.
	Bucket string `yaml:"bucket"`
	// Prefix is what every key begins with; a slash follows it.
	Prefix string `yaml:"prefix"`
	// Region is the bucket's region; us-east-1 where the store has none.
	Region string `yaml:"region"`
	// Endpoint is the store's URL; empty means AWS.
	Endpoint string `yaml:"endpoint"`
	// PathStyle puts the bucket's name into the path instead of the host name. Always on with an endpoint of your own.
	PathStyle bool `yaml:"path_style"`
	// AccessKey and SecretKey are the credentials; empty means the usual chain (variables, shared files, roles).
	AccessKey string `yaml:"access_key"`
	SecretKey string `yaml:"secret_key"`
	// SessionToken belongs to temporary credentials.
	SessionToken string `yaml:"session_token"`
	// PartBytes is the size of the parts of large uploads.
	PartBytes int64 `yaml:"part_bytes"`
}

// Default returns the configuration that leat runs with when nobody says anything.
func Default() Config {
	return Config{
		DataDir: "./leat-data",
		Logging: DefaultLogging(),
		Auth:    auth.DefaultConfig(),
		Lake:    lake.DefaultConfig(),
		Export:  export.DefaultConfig(),
		Store:   Store{Dir: "lake", S3: S3{Region: "us-east-1", PartBytes: 8 << 20}},
	}
}

// resolve moves the documents' names to leat's own keys.
func (c *Config) resolve(secrets map[string]string) error {
	moves := []struct {
		from, to string
		src, dst *string
		def      string
	}{
		{"region", "store.s3.region", &c.Region, &c.Store.S3.Region, Default().Store.S3.Region},
		{"s3_bucket", "store.s3.bucket", &c.S3Bucket, &c.Store.S3.Bucket, ""},
	}
	for _, m := range moves {
		if *m.src == "" {
			continue
		}
		if *m.dst != m.def && *m.dst != *m.src {
			return record.Errorf(record.Invalid, "%s: %q, but %s: %q", m.from, *m.src, m.to, *m.dst).
				WithHint("keep one of the two")
		}
		*m.dst, *m.src = *m.src, ""
		if expr, ok := secrets[m.from]; ok {
			secrets[m.to] = expr
		}
	}
	if err := c.LogsUploader.apply(&c.Logging); err != nil {
		return err
	}
	c.LogsUploader, c.UploadInterval = Uploader{}, 0
	return nil
}

// Validate says which key cannot be, and what to write instead.
func (c *Config) Validate() error {
	if strings.TrimSpace(c.DataDir) == "" {
		return record.Errorf(record.Invalid, "data_dir is empty").WithHint("name a directory, for example ./leat-data")
	}
	for _, v := range []interface{ Validate() error }{&c.Disk, &c.Logging, &c.Auth, &c.Lake, &c.Export, &c.Store} {
		if err := v.Validate(); err != nil {
			return err
		}
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
	s3 := s.S3
	switch {
	case s3.Bucket == "" && s.Dir == "":
		return record.Errorf(record.Invalid, "store: neither dir nor s3.bucket is set").WithHint("set store.dir, for example lake")
	case s3.Bucket == "":
		return nil
	case strings.ContainsAny(s3.Bucket, "/ :"):
		return record.Errorf(record.Invalid, "store.s3.bucket: %q", s3.Bucket).
			WithHint("write the name alone, without s3:// and without a path; the path is store.s3.prefix")
	case s3.Endpoint != "" && !strings.HasPrefix(s3.Endpoint, "http://") && !strings.HasPrefix(s3.Endpoint, "https://"):
		return record.Errorf(record.Invalid, "store.s3.endpoint: %q", s3.Endpoint).
			WithHint("begin it with https:// or http://")
	case (s3.AccessKey == "") != (s3.SecretKey == ""):
		return record.Errorf(record.Invalid, "store.s3: access_key and secret_key go together").
			WithHint("set both, or neither to use the usual AWS credential chain")
	}
	return nil
}
