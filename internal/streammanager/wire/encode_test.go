package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/leat-io/leat/internal/streammanager/wire"
)

var update = flag.Bool("update", false, "write the golden files anew")

type sample struct {
	op   wire.Operation
	body wire.Body
}

// responses has one of each, and what is easily got wrong.
func responses() map[string]sample {
	ok := wire.Response{RequestID: "5b0c7c4e-0001"}
	failed := wire.Response{RequestID: " ", Status: wire.NotEnoughMessages, ErrorMessage: "2 of 5 messages"}
	n, no := wire.NewInt, false
	info := &wire.MessageStreamInfo{
		Definition: &wire.MessageStreamDefinition{
			Name: "s", MaxSize: n(math.MaxInt64), StreamSegmentSize: n(16 << 20), StrategyOnFull: n(1), Persistence: n(0), FlushOnWrite: &no,
			ExportDefinition: &wire.ExportDefinition{
				Kinesis:     []wire.ExportConfig{{Identifier: "k", KinesisStreamName: "kin", StartSequenceNumber: n(math.MaxInt64), Disabled: &no}},
				IoTSiteWise: []wire.ExportConfig{{Identifier: "sw", BatchSize: n(5)}},
			},
		},
		StorageStatus: wire.StorageStatus{OldestSequenceNumber: 3, NewestSequenceNumber: 1 << 60, TotalBytes: math.MaxInt64},
		ExportStatuses: []wire.ExportStatus{
			{ExportConfigIdentifier: "k", LastExportedSequenceNumber: -1},
			{ExportConfigIdentifier: "sw", LastExportedSequenceNumber: 1 << 62, LastExportTime: 1764057600000, ErrorMessage: "no \xff", ExportedBytesFromStream: 1 << 62, ExportedMessagesCount: 1 << 62},
		},
	}
	return map[string]sample{
		"connect": {wire.OpConnectResponse, &wire.ConnectResponse{
			Response: ok, ProtocolVersion: "1.1.0", SupportedProtocolVersions: wire.ProtocolVersions, ServerVersion: "1.1.0",
			ClientIdentifier: "client-1", Extensions: []string{wire.ExtensionAppendBatch},
		}},
		"connect-refused":     {wire.OpConnectResponse, &wire.ConnectResponse{Response: wire.Response{RequestID: " ", Status: wire.Unauthorized, ErrorMessage: "who are you?"}}},
		"create":              {wire.OpCreateResponse, &ok},
		"failed":              {wire.OpDeleteResponse, &failed},
		"failed-silently":     {wire.OpDeleteResponse, &wire.Response{RequestID: "1", Status: wire.UnknownFailure}},
		"success-has-no-text": {wire.OpDeleteResponse, &wire.Response{RequestID: "1", ErrorMessage: "not sent"}},
		"status-of-no-client": {wire.OpDeleteResponse, &wire.Response{RequestID: "1", Status: 19, ErrorMessage: "x"}},
		"unknown-operation":   {wire.OpUnknownError, &wire.Response{RequestID: "1", Status: wire.UnknownOperation, ErrorMessage: "operation 99"}},
		"append":              {wire.OpAppendResponse, &wire.AppendResponse{Response: ok, SequenceNumber: 1<<32 + 5}},
		"append-clamped":      {wire.OpAppendResponse, &wire.AppendResponse{Response: ok, SequenceNumber: math.MaxInt64}},
		"append-failed":       {wire.OpAppendResponse, &wire.AppendResponse{Response: failed, SequenceNumber: 5}},
		"read": {wire.OpReadResponse, &wire.ReadResponse{Response: ok, Messages: []wire.Message{
			{StreamName: "s", SequenceNumber: 23, IngestTime: 1764057600000, Payload: []byte("hello")},
			{StreamName: "s", SequenceNumber: 24, IngestTime: 1764057600001, Payload: make([]byte, 300)},
		}}},
		"read-nothing":     {wire.OpReadResponse, &wire.ReadResponse{Response: ok}},
		"read-failed":      {wire.OpReadResponse, &wire.ReadResponse{Response: failed, Messages: []wire.Message{{}}}},
		"list":             {wire.OpListResponse, &wire.ListResponse{Response: ok, Streams: []string{"a b", "ü"}}},
		"list-nothing":     {wire.OpListResponse, &wire.ListResponse{Response: ok}},
		"list-failed":      {wire.OpListResponse, &wire.ListResponse{Response: failed}},
		"describe":         {wire.OpDescribeResponse, &wire.DescribeResponse{Response: ok, Info: info}},
		"describe-minimal": {wire.OpDescribeResponse, &wire.DescribeResponse{Response: ok, Info: &wire.MessageStreamInfo{Definition: &wire.MessageStreamDefinition{Name: "s"}, StorageStatus: wire.StorageStatus{NewestSequenceNumber: -1}}}},
		"describe-failed":  {wire.OpDescribeResponse, &wire.DescribeResponse{Response: failed, Info: info}},
	}
}

// TestResponsesKeepTheirBytes compares with testdata/responses: hexadecimal, then what it means.
func TestResponsesKeepTheirBytes(t *testing.T) {
	for name, s := range responses() {
		t.Run(name, func(t *testing.T) {
			frame := mustFrame(t, s.op, s.body)
			diagnosis, err := cbor.Diagnose(frame[wire.HeaderSize:])
			if err != nil {
				t.Fatal(err)
			}
			got := hex.EncodeToString(frame) + "\n" + diagnosis + "\n"
			path := filepath.Join("testdata", "responses", name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// TestNothingIsSentThatKillsAClient looks at every response for what section 4.2 of the protocol forbids.
func TestNothingIsSentThatKillsAClient(t *testing.T) {
	strict, err := cbor.DecOptions{IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden, DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range responses() {
		t.Run(name, func(t *testing.T) {
			frame := mustFrame(t, s.op, s.body)
			if length := int(frame[2])<<8 | int(frame[3]); length != len(frame)-4 || frame[0] != 0 || frame[1] != 0 {
				t.Errorf("length %d of %d bytes", length, len(frame))
			}
			var m map[string]any
			if err := strict.Unmarshal(frame[wire.HeaderSize:], &m); err != nil {
				t.Fatal(err)
			}
			harmless(t, m)
			status := m["status"].(uint64)
			if _, has := m["errorMessage"]; status > 18 || has != (status != 0) {
				t.Errorf("status %d with a message: %v", status, has)
			}
		})
	}
}

func harmless(t *testing.T, v any) {
	t.Helper()
	switch v := v.(type) {
	case nil:
		t.Error("a null")
	case uint64:
		if v > wire.MaxNumber {
			t.Errorf("the number %d", v)
		}
	case map[string]any:
		for _, e := range v {
			harmless(t, e)
		}
	case map[any]any:
		for k, e := range v {
			harmless(t, k)
			harmless(t, e)
		}
	case []any:
		for _, e := range v {
			harmless(t, e)
		}
	}
}

// TestWhatIsEncodedIsDecoded: leat's client reads what its server writes.
func TestWhatIsEncodedIsDecoded(t *testing.T) {
	for name, s := range responses() {
		t.Run(name, func(t *testing.T) {
			got := reflect.New(reflect.TypeOf(s.body).Elem()).Interface().(wire.Reply)
			frame := mustFrame(t, s.op, s.body)
			err := wire.DecodeResponse(frame[wire.HeaderSize:], got)
			if _, refused := errors.AsType[*wire.Error](err); err != nil && !refused {
				t.Fatal(err)
			}
			if again := mustFrame(t, s.op, got.(wire.Body)); !bytes.Equal(again, frame) {
				t.Errorf("%+v", got)
			}
		})
	}
	for _, req := range []sample{
		{wire.OpConnect, &wire.Connect{RequestID: "1", ProtocolVersion: "1.1.0", AuthToken: "t"}},
		{wire.OpCreate, &wire.CreateRequest{RequestID: "1", Definition: definitionOf("python", false)}},
		{wire.OpUpdate, &wire.UpdateRequest{RequestID: "1", Definition: definitionOf("java", true)}},
		{wire.OpRead, &wire.ReadRequest{RequestID: "1", StreamName: "s", Options: &wire.ReadMessagesOptions{MaxMessageCount: wire.NewInt(5)}}},
		{wire.OpRead, &wire.ReadRequest{RequestID: "1", StreamName: "s"}},
		{wire.OpAppendBatch, &wire.AppendBatchRequest{RequestID: "1", Name: "s", Payloads: [][]byte{[]byte("a"), []byte("b")}}},
	} {
		got, err := wire.Decode(req.op, mustFrame(t, req.op, req.body)[wire.HeaderSize:])
		if err != nil || !reflect.DeepEqual(got, req.body) {
			t.Errorf("operation %d: %s, %v", req.op, asJSON(got), err)
		}
	}
}

func TestEncodingAppendsAndFailsWhole(t *testing.T) {
	out, err := wire.AppendFrame([]byte{wire.ConnectVersion}, wire.OpListResponse, &wire.ListResponse{})
	if err != nil || out[0] != wire.ConnectVersion || int(out[4]) != len(out)-5 {
		t.Errorf("%x, %v", out, err)
	}
}

func TestMessagesOfErrorsAreBounded(t *testing.T) {
	frame := mustFrame(t, wire.OpListResponse, &wire.Response{Status: 1, ErrorMessage: strings.Repeat("ü", wire.MaxErrorMessage)})
	var r wire.Response
	_ = wire.DecodeResponse(frame[wire.HeaderSize:], &r) // its own error is the one that is looked at
	if n := len(r.ErrorMessage); n > wire.MaxErrorMessage || n < wire.MaxErrorMessage-8 || !utf8.ValidString(r.ErrorMessage) || !strings.HasSuffix(r.ErrorMessage, "ü…") {
		t.Errorf("%d bytes", n)
	}
}

func TestEncodedSizeIsAnUpperBound(t *testing.T) {
	m := wire.Message{StreamName: strings.Repeat("n", 255), SequenceNumber: math.MaxInt64, IngestTime: math.MaxInt64, Payload: make([]byte, 1<<17)}
	one := len(mustFrame(t, wire.OpReadResponse, &wire.ReadResponse{}))
	with := len(mustFrame(t, wire.OpReadResponse, &wire.ReadResponse{Messages: []wire.Message{m}}))
	if with-one > m.EncodedSize() {
		t.Errorf("%d bytes, said to be at most %d", with-one, m.EncodedSize())
	}
}

func BenchmarkAppendResponse(b *testing.B) {
	r := &wire.AppendResponse{Response: wire.Response{RequestID: "0f1e2d3c-0f1e-0f1e-0f1e-0f1e2d3c4b5a"}, SequenceNumber: 1 << 40}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if out, err = wire.AppendFrame(out[:0], wire.OpAppendResponse, r); err != nil {
			b.Fatal(err)
		}
	}
}
