package wire

import (
	"fmt"
	"iter"
	"math"
	"strings"
	"time"

	"github.com/leat-io/leat/internal/record"
)

// The defaults of what a definition does not say (section 3.2 and 3.3 of the protocol).
const (
	DefaultMaxSize            = 256 << 20
	DefaultSegmentSize        = 16 << 20
	DefaultMultipartThreshold = 5 << 20 // also the least
	LowestPriority            = 10
)

// MaxMillis is the longest time of the protocol in milliseconds: the most whole ones that a time.Duration holds.
const MaxMillis = math.MaxInt64 / int64(time.Millisecond)

// nameForm reports whether s has 1 to limit bytes of the characters of names.
func nameForm(s string, limit int) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == ' ', c == ',', c == '.', c == '-':
		default:
			return false
		}
	}
	return s != "" && len(s) <= limit
}

// All yields the exports with their kinds, in the order of the kinds' constants. The pointers are into e. A nil e has none.
func (e *ExportDefinition) All() iter.Seq2[ExportKind, *ExportConfig] {
	return func(yield func(ExportKind, *ExportConfig) bool) {
		if e == nil {
			return
		}
		for _, k := range []struct {
			kind ExportKind
			list []ExportConfig
		}{
			{KindHTTP, e.HTTP},
			{KindIoTAnalytics, e.IoTAnalytics},
			{KindKinesis, e.Kinesis},
			{KindSiteWise, e.IoTSiteWise},
			{KindS3, e.S3TaskExecutor},
		} {
			for i := range k.list {
				if !yield(k.kind, &k.list[i]) {
					return
				}
			}
		}
	}
}

// MaxBatchSize is the most messages that an export of the kind sends at once, and its default; 0 for S3, which has no
// batches.
func (k ExportKind) MaxBatchSize() int {
	switch k {
	case KindHTTP, KindKinesis:
		return 500
	case KindIoTAnalytics:
		return 100
	case KindSiteWise:
		return 10
	}
	return 0
}

// checker keeps the first thing that is wrong.
type checker struct{ err error }

func (c *checker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = record.Errorf(record.Invalid, format, args...)
	}
}

// hint says what to do about the failure, if there is one and it has no hint yet.
func (c *checker) hint(format string, args ...any) {
	if e, ok := c.err.(*record.Error); ok && e.Hint == "" {
		e.WithHint(format, args...)
	}
}

func (c *checker) between(field string, v *Int, low, high int64) {
	if v != nil && (int64(*v) < low || int64(*v) > high) {
		c.fail("%s is %d: want %d to %d", field, *v, low, high)
		c.hint("choose a value in that range, or leave %s out", field)
	}
}

// name checks the form that names of streams and identifiers of exports have.
func (c *checker) name(field, v string) {
	switch {
	case v == "":
		c.fail("%s is missing: it is required, 1 to 255 characters", field)
	case len(v) > 255:
		c.fail("%s %.40q… has %d bytes: want 1 to 255", field, v, len(v))
	case !nameForm(v, 255):
		c.fail("%s %q has characters that are not allowed: want A-Z a-z 0-9 _ space , . - only", field, v)
	}
	c.hint("choose another %s", field)
}

// streamName checks a name that becomes a stream's, which may not look like a directory.
func (c *checker) streamName(field, v string) {
	c.name(field, v)
	if v == "." || v == ".." || strings.Trim(v, " ") == "" {
		c.fail("%s %q is not allowed: nor are . and .. and names of spaces only", field, v)
		c.hint("choose another %s", field)
	}
}

func (c *checker) filled(field, v string) {
	switch {
	case v == "":
		c.fail("%s is missing: it is required", field)
	case len(v) > maxText:
		c.fail("%s has %d bytes: want 1 to %d", field, len(v), maxText)
	}
	c.hint("set %s", field)
}

// maxText bounds texts for which the protocol has no bound, in bytes.
const maxText = 2048

// Validate reports the first value that is not what the protocol allows, as an Invalid error with field, value, range and
// what to do.
//
// Names have letters, digits, "_", space, ",", "." and "-" of ASCII: the Python client lets others pass, those of the other
// languages do not. Not allowed are "." and "..", which mean other directories, and names of nothing but spaces. Spaces
// at the end are part of a name.
func (d *MessageStreamDefinition) Validate() error {
	var c checker
	c.streamName("name", d.Name)
	c.between("maxSize", d.MaxSize, 1024, math.MaxInt64)
	c.between("streamSegmentSize", d.StreamSegmentSize, 1024, math.MaxInt32)
	size := d.MaxSize.Or(DefaultMaxSize)
	if seg := d.StreamSegmentSize.Or(0); seg > size {
		c.fail("streamSegmentSize is %d: want at most maxSize, which is %d", seg, size)
		c.hint("the original's clients send 16777216 unless told otherwise: set streamSegmentSize too when maxSize is below that")
	}
	c.between("timeToLiveMillis", d.TimeToLiveMillis, 60_000, MaxMillis)
	if d.StrategyOnFull == nil {
		c.fail("strategyOnFull is missing: it is required")
		c.hint("0 rejects new data when the stream is full, 1 overwrites the oldest")
	}
	c.between("strategyOnFull", d.StrategyOnFull, int64(RejectNewData), int64(OverwriteOldestData))
	c.between("persistence", d.Persistence, int64(File), int64(Memory))
	seen := map[string]bool{}
	for kind, e := range d.ExportDefinition.All() {
		c.export(kind, e)
		if seen[e.Identifier] {
			c.fail("the identifier %q of a %s export is another export's already: identifiers are unique in a definition", e.Identifier, kind)
			c.hint("give each export an identifier of its own, whatever its kind")
		}
		seen[e.Identifier] = true
	}
	return c.err
}

func (c *checker) export(kind ExportKind, e *ExportConfig) {
	c.name(fmt.Sprintf("identifier of a %s export", kind), e.Identifier)
	of := func(field string) string { return fmt.Sprintf("%s of %s export %q", field, kind, e.Identifier) }
	c.between(of("priority"), e.Priority, 1, LowestPriority)
	if most := kind.MaxBatchSize(); most > 0 {
		c.between(of("batchSize"), e.BatchSize, 1, int64(most))
		c.between(of("batchIntervalMillis"), e.BatchIntervalMillis, 60_000, MaxMillis)
		c.between(of("startSequenceNumber"), e.StartSequenceNumber, 0, math.MaxInt64)
	}
	switch kind {
	case KindHTTP:
		c.filled(of("uri"), e.URI)
		c.between(of("exportFormat"), e.ExportFormat, 0, 1)
	case KindIoTAnalytics:
		c.filled(of("iotChannel"), e.IoTChannel)
		if n := len(e.IoTMsgIDPrefix); n > 32 {
			c.fail("%s has %d bytes: want at most 32", of("iotMsgIdPrefix"), n)
			c.hint("shorten it, or leave it out")
		}
	case KindKinesis:
		c.filled(of("kinesisStreamName"), e.KinesisStreamName)
	case KindS3:
		c.between(of("sizeThresholdForMultipartUploadBytes"), e.SizeThresholdForMultipartUploadBytes, DefaultMultipartThreshold, math.MaxInt64)
		if s := e.StatusConfig; s != nil {
			c.between(of("statusLevel"), s.StatusLevel, 0, 4)
			if s.StatusStreamName != "" {
				c.streamName(of("statusStreamName"), s.StatusStreamName)
			}
		}
	}
}

// ReadWindow is what a read asks for, with the defaults filled in.
type ReadWindow struct {
	Start    int64 // the first sequence number wanted, at least 0
	Min, Max int   // messages: at least, at most; 1 <= Min <= Max
	Timeout  time.Duration
}

// Resolve checks the options and fills in what they leave out: from 0, at least 1, at most as many as at least, without
// waiting. Nil options are those that say nothing. The error is Invalid.
func (o *ReadMessagesOptions) Resolve() (ReadWindow, error) {
	if o == nil {
		o = &ReadMessagesOptions{}
	}
	var c checker
	c.between("desiredStartSequenceNumber", o.DesiredStartSequenceNumber, 0, math.MaxInt64)
	c.between("minMessageCount", o.MinMessageCount, 1, math.MaxInt32)
	c.between("maxMessageCount", o.MaxMessageCount, 1, math.MaxInt32)
	c.between("readTimeoutMillis", o.ReadTimeoutMillis, 0, MaxMillis)
	w := ReadWindow{Start: o.DesiredStartSequenceNumber.Or(0), Min: int(o.MinMessageCount.Or(1))}
	w.Max = int(o.MaxMessageCount.Or(int64(w.Min)))
	if w.Max < w.Min {
		c.fail("maxMessageCount is %d: want at least minMessageCount, which is %d", w.Max, w.Min)
		c.hint("raise maxMessageCount or lower minMessageCount")
	}
	if c.err != nil {
		return ReadWindow{}, c.err
	}
	w.Timeout = time.Duration(o.ReadTimeoutMillis.Or(0)) * time.Millisecond
	return w, nil
}

// Validate is the error of Resolve.
func (o *ReadMessagesOptions) Validate() error {
	_, err := o.Resolve()
	return err
}
