package forward

import (
	"bytes"
	"crypto/md5" //nolint:gosec // the format's checksum
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/leat-io/leat/internal/record"
)

type putRecords struct {
	StreamName string
	Records    []struct {
		Data         []byte
		PartitionKey string
	}
}

// kinesisAnswer answers PutRecords; refuse has error codes by the number of a record.
func kinesisAnswer(t *testing.T, w http.ResponseWriter, r received, refuse map[int]string) putRecords {
	wantSigned(t, r, "kinesis")
	if got := r.Header.Get("X-Amz-Target"); got != "Kinesis_20131202.PutRecords" {
		t.Errorf("target %q", got)
	}
	in := decode[putRecords](t, r.body)
	results := make([]string, len(in.Records))
	for i := range in.Records {
		results[i] = fmt.Sprintf(`{"SequenceNumber":"%d","ShardId":"shardId-000000000000"}`, i)
		if code := refuse[i]; code != "" {
			results[i] = fmt.Sprintf(`{"ErrorCode":%q,"ErrorMessage":"refused %d"}`, code, i)
		}
	}
	respond(w, 200, fmt.Sprintf(`{"FailedRecordCount":%d,"Records":[%s]}`, len(refuse), strings.Join(results, ",")))
	return in
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestKinesisPutsARecordForEachMessage(t *testing.T) {
	d := newDouble(t, func(_ int, w http.ResponseWriter, r received) { kinesisAnswer(t, w, r, nil) })
	b := batchOf("a", "", "\x00\xff")
	b.Messages[1].Payload = nil
	if err := targetsFor(t, d.URL, nil).Kinesis("readings", "x", "lake").Deliver(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	got := decode[putRecords](t, d.got()[0].body)
	keys := map[string]bool{}
	for i, want := range []string{"a", "", "\x00\xff"} {
		if r := got.Records[i]; string(r.Data) != want || !uuid.MatchString(r.PartitionKey) {
			t.Errorf("%q %q, want %q", r.Data, r.PartitionKey, want)
		}
		keys[got.Records[i].PartitionKey] = true
	}
	if len(keys) != 3 || got.StreamName != "lake" || len(b.Pending()) != 0 || len(skipped(b)) != 0 {
		t.Errorf("%d keys, %s, pending %v, skipped %v", len(keys), got.StreamName, b.Pending(), skipped(b))
	}
}

// Only what was refused is sent again, and the error has the words of the first refusal.
func TestKinesisRetriesWhatWasRefused(t *testing.T) {
	d := newDouble(t, func(n int, w http.ResponseWriter, r received) {
		refuse := map[int]string{1: "ProvisionedThroughputExceededException", 3: "InternalFailure"}
		if n > 0 {
			refuse = nil
		}
		kinesisAnswer(t, w, r, refuse)
	})
	target := targetsFor(t, d.URL, nil).Kinesis("readings", "x", "lake")
	b := batchOf("a", "b", "c", "d")
	wantError(t, target.Deliver(t.Context(), b), record.Throttled, "2 of 4 records refused, the first: ProvisionedThroughputExceededException: refused 1", "slows down")
	if got := b.Pending(); !slices.Equal(got, []int{1, 3}) {
		t.Fatalf("pending %v", got)
	}
	if err := target.Deliver(t.Context(), b); err != nil || len(b.Pending()) != 0 {
		t.Fatal(err, b.Pending())
	}
	again := decode[putRecords](t, d.got()[1].body)
	if len(again.Records) != 2 || string(again.Records[0].Data) != "b" || string(again.Records[1].Data) != "d" {
		t.Errorf("%+v", again.Records)
	}
}

// A result that is neither success nor failure is no success.
func TestKinesisResultWithoutNumberStaysPending(t *testing.T) {
	d := newDouble(t, func(_ int, w http.ResponseWriter, _ received) {
		respond(w, 200, `{"FailedRecordCount":0,"Records":[{}]}`)
	})
	b := batchOf("a")
	err := targetsFor(t, d.URL, nil).Kinesis("readings", "x", "lake").Deliver(t.Context(), b)
	wantError(t, err, record.Unavailable, "1 of 1 records refused", "tries again")
	if len(b.Pending()) != 1 {
		t.Error("settled")
	}
}

func TestKinesisKeepsToItsLimits(t *testing.T) {
	var counts, sizes []int
	d := newDouble(t, func(_ int, w http.ResponseWriter, r received) {
		in := kinesisAnswer(t, w, r, nil)
		size := 0
		for _, x := range in.Records {
			size += len(x.Data) + len(x.PartitionKey)
			if len(x.Data)+len(x.PartitionKey) > 1<<20 {
				t.Error("a record of more than 1 MiB")
			}
		}
		counts, sizes = append(counts, len(in.Records)), append(sizes, size)
	})
	target := targetsFor(t, d.URL, nil).Kinesis("readings", "x", "lake")

	if err := target.Deliver(t.Context(), batchOf(make([]string, 501)...)); err != nil || !slices.Equal(counts, []int{500, 1}) {
		t.Errorf("%v: requests of %v records", err, counts)
	}
	counts, sizes = nil, nil
	full := strings.Repeat("x", 1<<20-keyLen)
	b := batchOf(full, full, full, full, full, full, full+"x")
	if err := target.Deliver(t.Context(), b); err != nil || !slices.Equal(counts, []int{5, 1}) || sizes[0] != 5<<20 {
		t.Errorf("%v: requests of %v records, %v bytes", err, counts, sizes)
	}
	if s := skipped(b); len(s) != 1 || !strings.Contains(s[6], "1048541 bytes, and") {
		t.Errorf("%v", s)
	}
}

// unaggregate reads the format of the Kinesis Producer Library; the second result tells whether it is that.
func unaggregate(t *testing.T, b []byte) (key string, payloads []string, ok bool) {
	t.Helper()
	rest, found := bytes.CutPrefix(b, []byte{0xf3, 0x89, 0x9a, 0xc2})
	if !found || len(rest) < md5.Size {
		return "", nil, false
	}
	rest, sum := rest[:len(rest)-md5.Size], rest[len(rest)-md5.Size:]
	if want := md5.Sum(rest); !bytes.Equal(sum, want[:]) { //nolint:gosec // see the import
		return "", nil, false
	}
	fields(t, rest, func(field protowire.Number, v []byte, _ uint64) {
		switch field {
		case 1:
			if key != "" {
				t.Error("more than one key")
			}
			key = string(v)
		case 3:
			index, data := uint64(99), []byte(nil)
			fields(t, v, func(field protowire.Number, v []byte, n uint64) {
				switch field {
				case 1:
					index = n
				case 3:
					data = v
				default:
					t.Errorf("field %d of a record", field)
				}
			})
			if index != 0 || data == nil {
				t.Errorf("record with key %d, data %q", index, data)
			}
			payloads = append(payloads, string(data))
		default:
			t.Errorf("field %d", field)
		}
	})
	return key, payloads, true
}

func fields(t *testing.T, b []byte, visit func(field protowire.Number, v []byte, n uint64)) {
	t.Helper()
	for len(b) > 0 {
		field, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
		var v []byte
		var num uint64
		if typ == protowire.VarintType {
			num, n = protowire.ConsumeVarint(b)
		} else {
			v, n = protowire.ConsumeBytes(b)
			v = append([]byte{}, v...)
		}
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		visit(field, v, num)
		b = b[n:]
	}
}

// The bytes of the format do not change: consumers elsewhere read them.
func TestAggregateFormat(t *testing.T) {
	b := aggregate("00000000-0000-4000-8000-000000000000", [][]byte{[]byte("one"), {}, bytes.Repeat([]byte("3"), 200)})
	golden, err := os.ReadFile(filepath.Join("testdata", "aggregate.hex"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(b), strings.Join(strings.Fields(string(golden)), ""); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	_, payloads, ok := unaggregate(t, b)
	if !ok || !slices.Equal(payloads, []string{"one", "", strings.Repeat("3", 200)}) {
		t.Errorf("%t %q", ok, payloads)
	}
}

func TestKinesisAggregates(t *testing.T) {
	d := newDouble(t, func(n int, w http.ResponseWriter, r received) {
		refuse := map[int]string{1: "ProvisionedThroughputExceededException"}
		if n > 0 {
			refuse = nil
		}
		kinesisAnswer(t, w, r, refuse)
	})
	target := targetsFor(t, d.URL, func(c *Config) { c.Destinations[0].Aggregate = true }).Kinesis("readings", "x", "lake")
	large := strings.Repeat("L", 60_000)
	half := strings.Repeat("h", 30_000)
	b := batchOf("a", "b", large, half, half, "z")
	wantError(t, target.Deliver(t.Context(), b), record.Throttled, "1 of 4 records", "")
	if got := b.Pending(); !slices.Equal(got, []int{2}) {
		t.Errorf("pending %v", got)
	}
	var got []string
	for _, r := range decode[putRecords](t, d.got()[0].body).Records {
		key, payloads, ok := unaggregate(t, r.Data)
		if !ok {
			key, payloads = r.PartitionKey, []string{string(r.Data)}
		}
		if key != r.PartitionKey || (ok && len(r.Data) > maxAggregate) {
			t.Errorf("key %q in a record with key %q of %d bytes", key, r.PartitionKey, len(r.Data))
		}
		got = append(got, fmt.Sprintf("%t:%d", ok, len(payloads)))
	}
	// One that is too large, and one that is left alone, go as they are.
	if want := []string{"true:2", "false:1", "false:1", "true:2"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := target.Deliver(t.Context(), b); err != nil || len(b.Pending()) != 0 {
		t.Error(err, b.Pending())
	}
}

// The bound of an aggregate's size holds for every number and size of messages.
func TestAggregateSizeIsABound(t *testing.T) {
	for _, n := range []int{1, 2, 127, 500} {
		for _, size := range []int{0, 1, 127, 128, 16_384} {
			payloads := make([][]byte, n)
			for i := range payloads {
				payloads[i] = make([]byte, size)
			}
			if got, most := len(aggregate(newUUID(), payloads)), aggregateSize(n, n*size, keyLen); got > most {
				t.Errorf("%d messages of %d bytes: %d bytes, bound %d", n, size, got, most)
			}
		}
	}
}
