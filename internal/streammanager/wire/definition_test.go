package wire_test

import (
	"bytes"
	"math"
	"math/big"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// minimal is the least definition that is valid.
func minimal() *wire.MessageStreamDefinition {
	return &wire.MessageStreamDefinition{Name: "s", StrategyOnFull: wire.NewInt(0)}
}

func TestDefinitionsAtTheirLimits(t *testing.T) {
	n := wire.NewInt
	type def = wire.MessageStreamDefinition
	kinesis := func(set func(*wire.ExportConfig)) func(*def) {
		return func(d *def) {
			e := wire.ExportConfig{Identifier: "k", KinesisStreamName: "x"}
			set(&e)
			d.ExportDefinition = &wire.ExportDefinition{Kinesis: []wire.ExportConfig{e}}
		}
	}
	s3 := func(e wire.ExportConfig) func(*def) {
		return func(d *def) { d.ExportDefinition = &wire.ExportDefinition{S3TaskExecutor: []wire.ExportConfig{e}} }
	}
	for name, c := range map[string]struct {
		change func(*def)
		want   string // "" when valid
	}{
		"the least":               {func(*def) {}, ""},
		"every character":         {func(d *def) { d.Name = "aZ09_ ,.-" }, ""},
		"255 characters":          {func(d *def) { d.Name = strings.Repeat("x", 255) }, ""},
		"a space at the end":      {func(d *def) { d.Name = "s " }, ""},
		"no name":                 {func(d *def) { d.Name = "" }, "name is missing: it is required, 1 to 255 characters (choose another name)"},
		"256 characters":          {func(d *def) { d.Name = strings.Repeat("x", 256) }, `name "` + strings.Repeat("x", 40) + `"… has 256 bytes: want 1 to 255 (choose another name)`},
		"Unicode":                 {func(d *def) { d.Name = "über" }, `name "über" has characters that are not allowed: want A-Z a-z 0-9 _ space , . - only (choose another name)`},
		"a slash":                 {func(d *def) { d.Name = "a/b" }, `name "a/b" has characters that are not allowed: want A-Z a-z 0-9 _ space , . - only (choose another name)`},
		"a line feed":             {func(d *def) { d.Name = "a\n" }, `name "a\n" has characters that are not allowed: want A-Z a-z 0-9 _ space , . - only (choose another name)`},
		"this directory":          {func(d *def) { d.Name = "." }, `name "." is not allowed: nor are . and .. and names of spaces only (choose another name)`},
		"the directory above":     {func(d *def) { d.Name = ".." }, `name ".." is not allowed: nor are . and .. and names of spaces only (choose another name)`},
		"only spaces":             {func(d *def) { d.Name = "  " }, `name "  " is not allowed: nor are . and .. and names of spaces only (choose another name)`},
		"least sizes":             {func(d *def) { d.MaxSize, d.StreamSegmentSize = n(1024), n(1024) }, ""},
		"largest sizes":           {func(d *def) { d.MaxSize, d.StreamSegmentSize = n(math.MaxInt64), n(math.MaxInt32) }, ""},
		"maxSize too small":       {func(d *def) { d.MaxSize = n(1023) }, "maxSize is 1023: want 1024 to 9223372036854775807 (choose a value in that range, or leave maxSize out)"},
		"maxSize negative":        {func(d *def) { d.MaxSize = n(math.MinInt64) }, "maxSize is -9223372036854775808: want 1024 to 9223372036854775807 (choose a value in that range, or leave maxSize out)"},
		"segment too large":       {func(d *def) { d.StreamSegmentSize = n(1 << 31) }, "streamSegmentSize is 2147483648: want 1024 to 2147483647 (choose a value in that range, or leave streamSegmentSize out)"},
		"segment above maxSize":   {func(d *def) { d.MaxSize, d.StreamSegmentSize = n(1<<20), n(16<<20) }, "streamSegmentSize is 16777216: want at most maxSize, which is 1048576 (the original's clients send 16777216 unless told otherwise: set streamSegmentSize too when maxSize is below that)"},
		"small without a segment": {func(d *def) { d.MaxSize = n(2048) }, ""},
		"shortest life":           {func(d *def) { d.TimeToLiveMillis = n(60_000) }, ""},
		"too short a life":        {func(d *def) { d.TimeToLiveMillis = n(59_999) }, "timeToLiveMillis is 59999: want 60000 to 9223372036854 (choose a value in that range, or leave timeToLiveMillis out)"},
		"longest life":            {func(d *def) { d.TimeToLiveMillis = n(wire.MaxMillis) }, ""},
		"no strategy":             {func(d *def) { d.StrategyOnFull = nil }, "strategyOnFull is missing: it is required (0 rejects new data when the stream is full, 1 overwrites the oldest)"},
		"strategy 2":              {func(d *def) { d.StrategyOnFull = n(2) }, "strategyOnFull is 2: want 0 to 1 (choose a value in that range, or leave strategyOnFull out)"},
		"persistence 2":           {func(d *def) { d.Persistence = n(2) }, "persistence is 2: want 0 to 1 (choose a value in that range, or leave persistence out)"},

		"export":             {kinesis(func(*wire.ExportConfig) {}), ""},
		"no identifier":      {kinesis(func(e *wire.ExportConfig) { e.Identifier = "" }), "identifier of a kinesis export is missing: it is required, 1 to 255 characters (choose another identifier of a kinesis export)"},
		"largest batch":      {kinesis(func(e *wire.ExportConfig) { e.BatchSize = n(500) }), ""},
		"too large a batch":  {kinesis(func(e *wire.ExportConfig) { e.BatchSize = n(501) }), `batchSize of kinesis export "k" is 501: want 1 to 500 (choose a value in that range, or leave batchSize of kinesis export "k" out)`},
		"interval too short": {kinesis(func(e *wire.ExportConfig) { e.BatchIntervalMillis = n(1) }), `batchIntervalMillis of kinesis export "k" is 1: want 60000 to 9223372036854 (choose a value in that range, or leave batchIntervalMillis of kinesis export "k" out)`},
		"priority 11":        {kinesis(func(e *wire.ExportConfig) { e.Priority = n(11) }), `priority of kinesis export "k" is 11: want 1 to 10 (choose a value in that range, or leave priority of kinesis export "k" out)`},
		"start below 0":      {kinesis(func(e *wire.ExportConfig) { e.StartSequenceNumber = n(-1) }), `startSequenceNumber of kinesis export "k" is -1: want 0 to 9223372036854775807 (choose a value in that range, or leave startSequenceNumber of kinesis export "k" out)`},
		"no destination":     {kinesis(func(e *wire.ExportConfig) { e.KinesisStreamName = "" }), `kinesisStreamName of kinesis export "k" is missing: it is required (set kinesisStreamName of kinesis export "k")`},
		"another kind's":     {kinesis(func(e *wire.ExportConfig) { e.ExportFormat = n(77) }), ""},
		"a long prefix": {func(d *def) {
			d.ExportDefinition = &wire.ExportDefinition{IoTAnalytics: []wire.ExportConfig{{Identifier: "a", IoTChannel: "c", IoTMsgIDPrefix: strings.Repeat("p", 33)}}}
		}, `iotMsgIdPrefix of iotanalytics export "a" has 33 bytes: want at most 32 (shorten it, or leave it out)`},
		"SiteWise's batches": {func(d *def) {
			d.ExportDefinition = &wire.ExportDefinition{IoTSiteWise: []wire.ExportConfig{{Identifier: "w", BatchSize: n(11)}}}
		}, `batchSize of sitewise export "w" is 11: want 1 to 10 (choose a value in that range, or leave batchSize of sitewise export "w" out)`},
		"HTTP's format": {func(d *def) {
			d.ExportDefinition = &wire.ExportDefinition{HTTP: []wire.ExportConfig{{Identifier: "h", URI: "u", ExportFormat: n(2)}}}
		}, `exportFormat of http export "h" is 2: want 0 to 1 (choose a value in that range, or leave exportFormat of http export "h" out)`},
		"S3":                 {s3(wire.ExportConfig{Identifier: "s", BatchSize: n(0), StatusConfig: &wire.StatusConfig{}}), ""},
		"S3's threshold":     {s3(wire.ExportConfig{Identifier: "s", SizeThresholdForMultipartUploadBytes: n(5<<20 - 1)}), `sizeThresholdForMultipartUploadBytes of s3 export "s" is 5242879: want 5242880 to 9223372036854775807 (choose a value in that range, or leave sizeThresholdForMultipartUploadBytes of s3 export "s" out)`},
		"S3's level":         {s3(wire.ExportConfig{Identifier: "s", StatusConfig: &wire.StatusConfig{StatusLevel: n(5)}}), `statusLevel of s3 export "s" is 5: want 0 to 4 (choose a value in that range, or leave statusLevel of s3 export "s" out)`},
		"S3's status stream": {s3(wire.ExportConfig{Identifier: "s", StatusConfig: &wire.StatusConfig{StatusStreamName: ".."}}), `statusStreamName of s3 export "s" ".." is not allowed: nor are . and .. and names of spaces only (choose another statusStreamName of s3 export "s")`},
		"one identifier, two": {func(d *def) {
			d.ExportDefinition = &wire.ExportDefinition{Kinesis: []wire.ExportConfig{{Identifier: "x", KinesisStreamName: "x"}}, S3TaskExecutor: []wire.ExportConfig{{Identifier: "x"}}}
		}, `the identifier "x" of a s3 export is another export's already: identifiers are unique in a definition (give each export an identifier of its own, whatever its kind)`},
	} {
		t.Run(name, func(t *testing.T) {
			d := minimal()
			c.change(d)
			err := d.Validate()
			status, got := wire.StatusOf(err)
			if got != c.want || err != nil && (status != wire.InvalidRequest || record.KindOf(err) != record.Invalid) {
				t.Errorf("status %v\ngot  %s\nwant %s", status, got, c.want)
			}
		})
	}
}

func TestResolveFillsInWhatIsStored(t *testing.T) {
	n, no := wire.NewInt, false
	d := minimal()
	d.MaxSize = n(math.MaxInt64)
	d.ExportDefinition = &wire.ExportDefinition{
		HTTP:           []wire.ExportConfig{{Identifier: "h", URI: "u", KinesisStreamName: "foreign"}},
		Kinesis:        []wire.ExportConfig{{Identifier: "k", KinesisStreamName: "x", BatchSize: n(10), URI: "foreign"}},
		S3TaskExecutor: []wire.ExportConfig{{Identifier: "s", BatchSize: n(1), StartSequenceNumber: n(1), StatusConfig: &wire.StatusConfig{StatusStreamName: "st"}}},
	}
	before := asJSON(d)
	common := wire.ExportConfig{Priority: n(10), Disabled: &no}
	http, kinesis, s3 := common, common, common
	http.Identifier, http.URI, http.ExportFormat, http.StartSequenceNumber = "h", "u", n(0), n(0)
	kinesis.Identifier, kinesis.KinesisStreamName, kinesis.BatchSize, kinesis.StartSequenceNumber = "k", "x", n(10), n(0)
	s3.Identifier, s3.SizeThresholdForMultipartUploadBytes, s3.StatusConfig = "s", n(5<<20), &wire.StatusConfig{StatusLevel: n(2), StatusStreamName: "st"}
	want := &wire.MessageStreamDefinition{
		Name: "s", MaxSize: n(wire.MaxNumber), StreamSegmentSize: n(16 << 20), StrategyOnFull: n(0), Persistence: n(0), FlushOnWrite: &no,
		ExportDefinition: &wire.ExportDefinition{HTTP: []wire.ExportConfig{http}, Kinesis: []wire.ExportConfig{kinesis}, S3TaskExecutor: []wire.ExportConfig{s3}},
	}
	got := d.Resolve()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", asJSON(got), asJSON(want))
	}
	if after := asJSON(d); after != before {
		t.Errorf("the original was changed: %s", after)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
	if again := got.Resolve(); !reflect.DeepEqual(again, got) {
		t.Errorf("resolved twice: %s", asJSON(again))
	}
}

func TestResolveOfTheLeast(t *testing.T) {
	d := minimal()
	d.MaxSize, d.ExportDefinition = wire.NewInt(2048), &wire.ExportDefinition{}
	if got := d.Resolve(); got.ExportDefinition != nil || got.StreamSegmentSize.Or(0) != 2048 || got.TimeToLiveMillis != nil {
		t.Error(asJSON(got))
	}
}

func TestStoredDefinitions(t *testing.T) {
	const path = "testdata/definition-v1.cbor"
	d := definitionOf("python", false).Resolve()
	got, err := wire.MarshalDefinition(d)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, stored) {
		t.Errorf("the form of what is stored has changed:\n%x\n%x", got, stored)
	}
	if again, err := wire.UnmarshalDefinition(stored); err != nil || !reflect.DeepEqual(again, d) {
		t.Errorf("%s, %v", asJSON(again), err)
	}
	for name, b := range map[string]string{"nothing": "", "null": "\xf6", "cut off": string(stored[:50]), "a list": "\x80"} {
		if d, err := wire.UnmarshalDefinition([]byte(b)); d != nil || record.KindOf(err) != record.Corrupt {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
	later := cborMap("name", text("s"), "ofALaterRelease", "\x81"+cborMap("x", "\xc1\x01"))
	if d, err := wire.UnmarshalDefinition([]byte(later)); err != nil || d.Name != "s" {
		t.Errorf("a later release's: %v, %v", d, err)
	}
}

func TestReadOptions(t *testing.T) {
	n := wire.NewInt
	type options = wire.ReadMessagesOptions
	for name, c := range map[string]struct {
		o    *options
		want wire.ReadWindow
		err  string
	}{
		"none":             {nil, wire.ReadWindow{Min: 1, Max: 1}, ""},
		"empty":            {&options{}, wire.ReadWindow{Min: 1, Max: 1}, ""},
		"only min":         {&options{MinMessageCount: n(5)}, wire.ReadWindow{Min: 5, Max: 5}, ""},
		"only max":         {&options{MaxMessageCount: n(5)}, wire.ReadWindow{Min: 1, Max: 5}, ""},
		"all":              {&options{n(7), n(2), n(3), n(1500)}, wire.ReadWindow{Start: 7, Min: 2, Max: 3, Timeout: 1500 * time.Millisecond}, ""},
		"the longest":      {&options{n(math.MaxInt64), nil, n(math.MaxInt32), n(wire.MaxMillis)}, wire.ReadWindow{Start: math.MaxInt64, Min: 1, Max: math.MaxInt32, Timeout: time.Duration(wire.MaxMillis) * time.Millisecond}, ""},
		"max below min":    {&options{MinMessageCount: n(2), MaxMessageCount: n(1)}, wire.ReadWindow{}, "maxMessageCount is 1: want at least minMessageCount, which is 2"},
		"min 0":            {&options{MinMessageCount: n(0)}, wire.ReadWindow{}, "minMessageCount is 0: want 1 to 2147483647"},
		"max too large":    {&options{MaxMessageCount: n(1 << 31)}, wire.ReadWindow{}, "maxMessageCount is 2147483648: want 1 to 2147483647"},
		"before 0":         {&options{DesiredStartSequenceNumber: n(-1)}, wire.ReadWindow{}, "desiredStartSequenceNumber is -1: want 0 to 9223372036854775807"},
		"timeout too long": {&options{ReadTimeoutMillis: n(wire.MaxMillis + 1)}, wire.ReadWindow{}, "readTimeoutMillis is 9223372036855: want 0 to 9223372036854"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.o.Resolve()
			if got != c.want || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
				t.Errorf("%+v, %v", got, err)
			}
			if invalid := c.o.Validate(); (invalid == nil) != (err == nil) {
				t.Errorf("Validate says %v", invalid)
			}
		})
	}
}

func FuzzUnmarshalDefinition(f *testing.F) {
	stored, err := os.ReadFile("testdata/definition-v1.cbor")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(stored)
	f.Add([]byte(cborMap("name", text("s"), "strategyOnFull", "\xf9\x3c\x00")))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := wire.UnmarshalDefinition(b)
		if err != nil {
			return
		}
		if d.Validate() == nil {
			if err := d.Resolve().Validate(); err != nil {
				t.Errorf("resolving %s made it invalid: %v", asJSON(d), err)
			}
		}
		once, err := wire.MarshalDefinition(d)
		if err != nil {
			t.Fatal(err)
		}
		again, err := wire.UnmarshalDefinition(once)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := wire.MarshalDefinition(again); err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%x, then %x, %v", once, twice, err)
		}
	})
}

// FuzzNumber compares with what fxamacker/cbor makes of the same number.
func FuzzNumber(f *testing.F) {
	for _, s := range []string{"\x07", "\x3b\xff\xff\xff\xff\xff\xff\xff\xff", "\xf9\x47\x00", "\xf9\x00\x01", "\xfa\x5f\x00\x00\x00", "\xfb\x43\x40\x00\x00\x00\x00\x00\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, item []byte) {
		if cbor.Wellformed(item) != nil || item[0]>>5 == 6 {
			return
		}
		var v any
		if cbor.Unmarshal(item, &v) != nil {
			return
		}
		f64, number := asFloat(v)
		d, err := wire.UnmarshalDefinition([]byte(cborMap("maxSize", string(item))))
		if whole := number && f64 == math.Trunc(f64) && !math.IsInf(f64, 0); !whole {
			if number && err == nil || err == nil && d.MaxSize != nil {
				t.Errorf("%x was taken for %v", item, d.MaxSize.Or(0))
			}
			return
		}
		if err != nil {
			t.Fatalf("%x: %v", item, err)
		}
		want := float64(math.MaxInt64)
		if f64 < want {
			want = max(f64, math.MinInt64)
		}
		if got := float64(d.MaxSize.Or(0)); got != want {
			t.Errorf("%x: %v, want %v", item, got, want)
		}
	})
}

func asFloat(v any) (f float64, number bool) {
	switch v := v.(type) {
	case uint64:
		return float64(v), true
	case int64:
		return float64(v), true
	case big.Int:
		f, _ = v.Float64()
		return f, true
	case float64:
		return v, true
	}
	return 0, false
}
