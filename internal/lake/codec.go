package lake

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
)

// codec compresses pages with zstd. The library's own keeps a pool of encoders with windows of 8 MiB; pages are at most
// maxPage long, a build compresses one at a time, and memory is to be bounded: so one encoder with a window of that size.
type codec struct {
	level zstd.EncoderLevel
	enc   *zstd.Encoder
}

func newCodec(level string) *codec {
	levels := map[string]zstd.EncoderLevel{
		"fastest": zstd.SpeedFastest, "default": zstd.SpeedDefault, "better": zstd.SpeedBetterCompression,
		"best": zstd.SpeedBestCompression,
	}
	return &codec{level: levels[level]}
}

// String is the codec's name.
func (c *codec) String() string { return "ZSTD" }

// CompressionCodec is the codec's number in the format.
func (c *codec) CompressionCodec() format.CompressionCodec { return format.Zstd }

// Encode compresses src into dst.
func (c *codec) Encode(dst, src []byte) ([]byte, error) {
	if c.enc == nil {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(c.level),
			zstd.WithWindowSize(maxPage), zstd.WithZeroFrames(true), zstd.WithEncoderCRC(false))
		if err != nil {
			return nil, fmt.Errorf("make zstd encoder: %w", err)
		}
		c.enc = enc
	}
	return c.enc.EncodeAll(src, dst[:0]), nil
}

// Decode is not needed to write.
func (c *codec) Decode(_, _ []byte) ([]byte, error) {
	return nil, fmt.Errorf("decode zstd: this codec only encodes")
}
