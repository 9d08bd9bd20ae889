package lake

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/leat-io/leat/internal/record"
)

// Range is what one export step turns into files: records [From, To) of a stream, cut at Cut.
type Range struct {
	Node     string          `json:"node"`
	Stream   record.StreamID `json:"stream"`
	From     record.Offset   `json:"from"`
	To       record.Offset   `json:"to"`
	Cut      time.Time       `json:"cut"`
	Revision uint64          `json:"revision"` // of the configuration the step was planned under
}

// Digest is a SHA-256. As text it is hexadecimal.
type Digest [32]byte

// MarshalText is the digest in hexadecimal.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != 2*len(d) {
		return fmt.Errorf("decode digest: %d digits, want %d", len(text), 2*len(d))
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// File is one file that a build made.
type File struct {
	Key       string `json:"key"`   // in the object store
	Spool     string `json:"spool"` // name in the spool directory
	Size      int64  `json:"size"`
	SHA256    Digest `json:"sha256"`
	Rows      int64  `json:"rows"`
	MinTime   int64  `json:"min_time"` // of the ts column, nanoseconds since 1970 UTC
	MaxTime   int64  `json:"max_time"`
	Table     string `json:"table"`
	Partition string `json:"partition"` // directory below the table's prefix: year=2026/month=11/day=21
	Rejected  bool   `json:"rejected,omitempty"`
	Manifest  bool   `json:"manifest,omitempty"`
}
