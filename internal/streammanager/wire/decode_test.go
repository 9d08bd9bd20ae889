package wire_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

var operations = map[string]wire.Operation{
	"Connect": wire.OpConnect, "Create": wire.OpCreate, "Update": wire.OpUpdate, "Delete": wire.OpDelete, "Append": wire.OpAppend,
	"Read": wire.OpRead, "List": wire.OpList, "Describe": wire.OpDescribe,
}

type captured struct {
	client, op string
	payload    []byte
}

// capturedRequests are those of testdata/clients.txt. A FULL one goes through ReadFrame.
func capturedRequests(t testing.TB) []captured {
	t.Helper()
	file, err := os.ReadFile("testdata/clients.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []captured
	for line := range strings.Lines(string(file)) {
		f := strings.Fields(line)
		if f[0] == "#" {
			continue
		}
		b, err := hex.DecodeString(f[len(f)-1])
		if err != nil {
			t.Fatalf("%s %s: %v", f[0], f[1], err)
		}
		if strings.HasPrefix(f[2], "FULL") {
			op, payload, err := wire.ReadFrame(bytes.NewReader(b[1:]), nil, 1<<20)
			if b[0] != wire.ConnectVersion || op != operations[f[1]] || err != nil {
				t.Fatalf("%s %s: version %d, operation %d, %v", f[0], f[1], b[0], op, err)
			}
			b = payload
		}
		all = append(all, captured{f[0], f[1], b})
	}
	if len(all) != 32 {
		t.Fatalf("%d requests, want 8 of 4 clients", len(all))
	}
	return all
}

// streamNames are those that the clients were told to use.
var streamNames = map[string]string{"git-js": "v21", "npm-js": "npm1", "java": "ja1", "python": "py1"}

// definitions are what each client was told to create; an update doubles maxSize.
func definitionOf(client string, update bool) *wire.MessageStreamDefinition {
	n, yes := wire.NewInt, false
	size := int64(256 << 20)
	if update {
		size *= 2
	}
	d := &wire.MessageStreamDefinition{
		Name: streamNames[client], MaxSize: n(size), StreamSegmentSize: n(16 << 20), StrategyOnFull: n(1), Persistence: n(1),
		ExportDefinition: &wire.ExportDefinition{
			Kinesis: []wire.ExportConfig{{Identifier: "k1", KinesisStreamName: "kin", BatchSize: n(1)}},
			S3TaskExecutor: []wire.ExportConfig{{
				Identifier: "s3", StatusConfig: &wire.StatusConfig{StatusLevel: n(2), StatusStreamName: "st"},
			}},
		},
	}
	switch client {
	case "java":
		d.ExportDefinition.IoTSiteWise = []wire.ExportConfig{{Identifier: "sw"}}
	case "python":
		d.ExportDefinition.IoTSiteWise = []wire.ExportConfig{{Identifier: "sw"}}
		d.FlushOnWrite = &yes
	default:
		d.TimeToLiveMillis, d.FlushOnWrite = n(60_000), &yes
	}
	return d
}

func expected(c captured, id string) wire.Request {
	name := streamNames[c.client]
	switch c.op {
	case "Connect":
		r := &wire.Connect{RequestID: id, ProtocolVersion: "1.1.0", OtherSupportedProtocolVersions: []string{"1.0.0"}, SDKVersion: "1.1.0"}
		if c.client == "python" {
			r.SDKVersion = "1.1.1"
		}
		return r
	case "Create":
		return &wire.CreateRequest{RequestID: id, Definition: definitionOf(c.client, false)}
	case "Update":
		return &wire.UpdateRequest{RequestID: id, Definition: definitionOf(c.client, true)}
	case "Delete":
		return &wire.DeleteRequest{RequestID: id, Name: name}
	case "Describe":
		return &wire.DescribeRequest{RequestID: id, Name: name}
	case "List":
		return &wire.ListRequest{RequestID: id}
	case "Append":
		payload := "hello"
		if c.client == "python" {
			payload = "hello0"
		}
		return &wire.AppendRequest{RequestID: id, Name: name, Payload: []byte(payload)}
	}
	o := &wire.ReadMessagesOptions{MinMessageCount: wire.NewInt(2), MaxMessageCount: wire.NewInt(10), ReadTimeoutMillis: wire.NewInt(1000)}
	switch c.client {
	case "java":
		o.ReadTimeoutMillis = wire.NewInt(500)
	case "python":
		o.ReadTimeoutMillis, o.DesiredStartSequenceNumber = wire.NewInt(500), wire.NewInt(1)
	}
	return &wire.ReadRequest{RequestID: id, StreamName: name, Options: o}
}

func TestRequestsOfTheOfficialClientsAreDecoded(t *testing.T) {
	for _, c := range capturedRequests(t) {
		t.Run(c.client+" "+c.op, func(t *testing.T) {
			got, err := wire.Decode(operations[c.op], c.payload)
			if err != nil {
				t.Fatal(err)
			}
			id, ok := wire.RequestID(c.payload)
			if !ok || c.client == "git-js" && id != " " || c.client != "git-js" && len(id) != 36 || got.ID() != id {
				t.Errorf("ids %q and %q, %v", id, got.ID(), ok)
			}
			if want := expected(c, id); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %s\nwant %s", asJSON(got), asJSON(want))
			}
			if d := definitionIn(got); d != nil && d.Validate() != nil {
				t.Errorf("not valid: %v", d.Validate())
			}
		})
	}
}

func definitionIn(r wire.Request) *wire.MessageStreamDefinition {
	switch r := r.(type) {
	case *wire.CreateRequest:
		return r.Definition
	case *wire.UpdateRequest:
		return r.Definition
	}
	return nil
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// cborMap writes a map of definite length; a value is already CBOR.
func cborMap(pairs ...string) string {
	out := string([]byte{byte(0xa0 + len(pairs)/2)})
	for i := 0; i < len(pairs); i += 2 {
		out += text(pairs[i]) + pairs[i+1]
	}
	return out
}

func text(s string) string {
	switch {
	case len(s) < 24:
		return string([]byte{byte(0x60 + len(s))}) + s
	case len(s) < 256:
		return string([]byte{0x78, byte(len(s))}) + s
	}
	return string([]byte{0x79, byte(len(s) >> 8), byte(len(s))}) + s
}

func TestNumbersOfAnyForm(t *testing.T) {
	for name, c := range map[string]struct {
		cbor string
		want int64
	}{
		"in the head":            {"\x07", 7},
		"negative":               {"\x26", -7},
		"uint8":                  {"\x18\xff", 255},
		"wider than it need be":  {"\x1b\x00\x00\x00\x00\x00\x00\x00\x07", 7},
		"largest":                {"\x1b\x7f\xff\xff\xff\xff\xff\xff\xff", math.MaxInt64},
		"above, clamped":         {"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", math.MaxInt64},
		"smallest":               {"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff", math.MinInt64},
		"below, clamped":         {"\x3b\xff\xff\xff\xff\xff\xff\xff\xff", math.MinInt64},
		"float16":                {"\xf9\x47\x00", 7},
		"float16, negative":      {"\xf9\xc7\x00", -7},
		"float16, zero":          {"\xf9\x80\x00", 0},
		"float16, largest":       {"\xf9\x7b\xff", 65504},
		"float32":                {"\xfa\x40\xe0\x00\x00", 7},
		"float32 2^63, clamped":  {"\xfa\x5f\x00\x00\x00", math.MaxInt64},
		"float64 -2^63":          {"\xfb\xc3\xe0\x00\x00\x00\x00\x00\x00", math.MinInt64},
		"float64 2^53":           {"\xfb\x43\x40\x00\x00\x00\x00\x00\x00", 1 << 53},
		"float64 1e300, clamped": {"\xfb\x7e\x37\xe4\x3c\x88\x00\x75\x9c", math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := wire.UnmarshalDefinition([]byte(cborMap("maxSize", c.cbor)))
			if err != nil || d.MaxSize.Or(0) != c.want {
				t.Errorf("%v, %v, want %d", d, err, c.want)
			}
		})
	}
}

func TestNullAndUnknownKeysAreAsAbsent(t *testing.T) {
	const null, undefined = "\xf6", "\xf7"
	deep := strings.Repeat("\x81", 10) + "\xc1\x01"
	for _, nothing := range []string{null, undefined} {
		got, err := wire.Decode(wire.OpCreate, []byte(cborMap(
			"requestId", text("1"),
			"unknown", deep,
			"definition", cborMap("name", text("s"), "maxSize", nothing, "flushOnWrite", nothing, "exportDefinition",
				cborMap("http", nothing, "other", deep, "s3TaskExecutor", "\x81"+cborMap("identifier", text("x"), "statusConfig", nothing))))))
		want := &wire.CreateRequest{RequestID: "1", Definition: &wire.MessageStreamDefinition{
			Name: "s", ExportDefinition: &wire.ExportDefinition{S3TaskExecutor: []wire.ExportConfig{{Identifier: "x"}}},
		}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s, %v", asJSON(got), err)
		}
	}
}

func TestOfAKeyThatComesTwiceTheLastCounts(t *testing.T) {
	got, err := wire.Decode(wire.OpAppend, []byte(cborMap("name", text("a"), "requestId", text("1"), "name", text("b"), "payload", "\x41x")))
	if want := (&wire.AppendRequest{RequestID: "1", Name: "b", Payload: []byte("x")}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s, %v", asJSON(got), err)
	}
}

func TestStringsOfIndefiniteLength(t *testing.T) {
	got, err := wire.Decode(wire.OpAppend, []byte("\xbf\x7f\x67request\x62Id\xff\x7f\x60\x61a\x61b\xff"+text("name")+text("s")+text("payload")+"\x5f\x42hi\x40\x41!\xff\xff"))
	if want := (&wire.AppendRequest{RequestID: "ab", Name: "s", Payload: []byte("hi!")}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s, %v", asJSON(got), err)
	}
}

// TestWhatIsWrongIsNamed: the request can be answered, and the answer tells which field it is.
func TestWhatIsWrongIsNamed(t *testing.T) {
	const one = "\x01"
	id := func(pairs ...string) string { return cborMap(append([]string{"requestId", text("a b")}, pairs...)...) }
	kinesis := func(pairs ...string) string {
		return id("definition", cborMap("exportDefinition", cborMap("kinesis", "\x82\xa0"+cborMap(pairs...))))
	}
	for name, c := range map[string]struct {
		op      wire.Operation
		payload string
		want    string
	}{
		"a name that is a number":    {wire.OpDelete, id("name", one), "name: want a text string, not an integer"},
		"no name":                    {wire.OpDescribe, id(), "the request: name is missing: it is required"},
		"a payload that is text":     {wire.OpAppend, id("name", text("s"), "payload", text("x")), "payload: want a byte string, not a text string"},
		"an empty payload":           {wire.OpAppend, id("name", text("s"), "payload", "\x40"), "the request: payload, of at least one byte, is missing: it is required"},
		"a fraction":                 {wire.OpCreate, id("definition", cborMap("maxSize", "\xf9\x3e\x00")), "definition.maxSize: want a whole number, not 1.5"},
		"not a number":               {wire.OpUpdate, id("definition", cborMap("maxSize", "\xf9\x7e\x00")), "definition.maxSize: want a whole number, not NaN"},
		"infinity":                   {wire.OpCreate, id("definition", cborMap("maxSize", "\xf9\xfc\x00")), "definition.maxSize: want a whole number, not -Inf"},
		"a number that is text":      {wire.OpRead, id("readMessagesOptions", cborMap("minMessageCount", text("1"))), "readMessagesOptions.minMessageCount: want a whole number, not a text string"},
		"a tagged number":            {wire.OpRead, id("readMessagesOptions", cborMap("minMessageCount", "\xc1\x01")), "readMessagesOptions.minMessageCount: want a whole number, not a tagged value"},
		"a flag that is a number":    {wire.OpCreate, id("definition", cborMap("flushOnWrite", one)), "definition.flushOnWrite: want true or false, not an integer"},
		"no definition":              {wire.OpUpdate, id("definition", "\xf6"), "the request: definition is missing: it is required"},
		"deep in a list":             {wire.OpCreate, kinesis("batchSize", text("5")), "definition.exportDefinition.kinesis[1].batchSize: want a whole number, not a text string"},
		"a list that is a map":       {wire.OpCreate, id("definition", cborMap("exportDefinition", cborMap("http", "\xa0"))), "definition.exportDefinition.http: want an array of maps, not a map"},
		"too many exports":           {wire.OpCreate, id("definition", cborMap("exportDefinition", cborMap("http", "\x98\x41"+strings.Repeat("\xa0", 65)))), "definition.exportDefinition.http: more than 64 elements"},
		"text that is not UTF-8":     {wire.OpDelete, id("name", "\x62\xff\xfe"), "name: want text in UTF-8; it has bytes that are none"},
		"an empty message in many":   {wire.OpAppendBatch, id("name", text("s"), "payloads", "\x82\x41a\x40"), "payloads[1]: want at least one byte"},
		"an id with other letters":   {wire.OpList, cborMap("requestId", text("ü")), "requestId: want 1 to 255 characters of A-Z a-z 0-9 _ space , . -"},
		"cut off behind the id":      {wire.OpDelete, id("name", "\x65s"), "the payload is not one CBOR map (RFC 8949): unexpected EOF"},
		"something behind the map":   {wire.OpList, id() + "\x00", "the payload is not one CBOR map (RFC 8949): cbor: 1 bytes of extraneous data starting at index 15"},
		"nested deeper than allowed": {wire.OpList, id("x", strings.Repeat("\x81", 40)+one), "the payload is not one CBOR map (RFC 8949): cbor: exceeded max nested level 16"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := wire.Decode(c.op, []byte(c.payload))
			bad, ok := req.(*wire.BadRequest)
			if err == nil || err.Error() != c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
			if !ok || bad.ID() == "" {
				t.Fatalf("%T: cannot be answered", req)
			}
			if status, _ := wire.StatusOf(err); status != wire.InvalidRequest {
				t.Errorf("status %v", status)
			}
		})
	}
}

func TestRequestsWithoutAnIDCannotBeAnswered(t *testing.T) {
	for name, payload := range map[string]string{
		"empty":       "",
		"garbage":     "GET / HTTP/1.1\r\n\r\n",
		"not a map":   "\x83\x01\x02\x03",
		"no id":       cborMap("name", text("s")),
		"empty id":    cborMap("requestId", text("")),
		"a number":    cborMap("requestId", "\x01"),
		"null":        cborMap("requestId", "\xf6"),
		"a long one":  cborMap("requestId", text(strings.Repeat("x", wire.MaxRequestID+1))),
		"cut off":     cborMap("requestId", text("1234"))[:14],
		"not UTF-8":   cborMap("requestId", "\x61\xff"),
		"a huge size": "\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
		"a bomb":      strings.Repeat("\x81", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			if req, err := wire.Decode(wire.OpList, []byte(payload)); req != nil || err == nil {
				t.Errorf("%v, %v", req, err)
			}
		})
	}
}

func TestUnknownOperationsCanBeAnswered(t *testing.T) {
	for _, op := range []wire.Operation{wire.OpUnknown, wire.OpAppendResponse, wire.OpUnknownError, 63, 127, -1} {
		req, err := wire.Decode(op, []byte(cborMap("requestId", text("7"), "x", "\x01")))
		e, ok := errors.AsType[*wire.Error](err)
		if req == nil || req.ID() != "7" || !ok || e.Status != wire.UnknownOperation || op.Response() != wire.OpUnknownError {
			t.Errorf("operation %d: %v, %v", op, req, err)
		}
	}
}

func TestDecodeAppendAliasesAndReuses(t *testing.T) {
	frame, err := wire.AppendFrame(nil, wire.OpAppend, &wire.AppendRequest{RequestID: "1", Name: "my stream", Payload: []byte("hello")})
	if err != nil {
		t.Fatal(err)
	}
	payload := frame[wire.HeaderSize:]
	var r wire.AppendRequest
	if err := wire.DecodeAppend(payload, &r); err != nil {
		t.Fatal(err)
	}
	if &r.Payload[0] != &payload[len(payload)-5] {
		t.Error("the message was copied")
	}
	if allocs := testing.AllocsPerRun(100, func() {
		if err := wire.DecodeAppend(payload, &r); err != nil {
			t.Fatal(err)
		}
	}); allocs > 1 {
		t.Errorf("%v allocations, want the id's at most", allocs)
	}
	if err := wire.DecodeAppend([]byte(cborMap("requestId", text("2"), "payload", "\x41x")), &r); record.KindOf(err) != record.Invalid {
		t.Errorf("the name of the request before was used: %+v, %v", r, err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range capturedRequests(f) {
		f.Add(int8(operations[c.op]), c.payload)
	}
	f.Fuzz(func(t *testing.T, op int8, payload []byte) {
		req, err := wire.Decode(wire.Operation(op), payload)
		if err != nil {
			if status, _ := wire.StatusOf(err); status != wire.InvalidRequest && status != wire.UnknownOperation {
				t.Fatalf("status %v: %v", status, err)
			}
			return
		}
		body, ok := req.(wire.Body)
		if !ok {
			t.Fatalf("%T has no encoding", req)
		}
		frame, err := wire.AppendFrame(nil, wire.Operation(op), body)
		if err != nil {
			t.Fatal(err)
		}
		again, err := wire.Decode(wire.Operation(op), frame[wire.HeaderSize:])
		if err != nil {
			t.Fatalf("what was decoded is encoded so that it does not decode: %v\n%s", err, asJSON(req))
		}
		twice, err := wire.AppendFrame(nil, wire.Operation(op), again.(wire.Body))
		if err != nil || !bytes.Equal(twice, frame) {
			t.Errorf("%x, then %x, %v", frame, twice, err)
		}
	})
}

func BenchmarkDecodeAppend(b *testing.B) {
	frame, err := wire.AppendFrame(nil, wire.OpAppend, &wire.AppendRequest{RequestID: "0f1e2d3c-0f1e-0f1e-0f1e-0f1e2d3c4b5a", Name: "my stream", Payload: make([]byte, 256)})
	if err != nil {
		b.Fatal(err)
	}
	for name, decode := range map[string]func([]byte) error{
		"any": func(p []byte) error { _, err := wire.Decode(wire.OpAppend, p); return err },
		"reuse": func() func([]byte) error {
			var r wire.AppendRequest
			return func(p []byte) error { return wire.DecodeAppend(p, &r) }
		}(),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := decode(frame[wire.HeaderSize:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
