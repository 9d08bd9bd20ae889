package forward

import (
	"crypto/md5" //nolint:gosec // the format's checksum, not a protection

	"google.golang.org/protobuf/encoding/protowire"
)

// The format of aggregated records, as the Kinesis Producer Library writes it: magic, a protobuf message, its MD5.
//
//	message AggregatedRecord {
//	  repeated string partition_key_table = 1;
//	  repeated string explicit_hash_key_table = 2;
//	  repeated Record records = 3;
//	}
//	message Record {
//	  required uint64 partition_key_index = 1;
//	  optional uint64 explicit_hash_key_index = 2;
//	  required bytes data = 3;
//	  repeated Tag tags = 4;
//	}
//
// The message has six lines of it in use here, so it is written by hand instead of generated.
const aggregateMagic = "\xf3\x89\x9a\xc2"

// maxAggregate is the most bytes of an aggregated record: the library's own default. Larger ones would save little
// (Kinesis counts in units of 25 KB) and put more of the load on one shard. A message that does not fit goes as a record
// of its own.
const maxAggregate = 51_200

// Field numbers.
const (
	keyTableField = 1
	recordsField  = 3
	keyIndexField = 1
	dataField     = 3
)

// aggregateSize is how many bytes an aggregate of n messages of together size bytes has at most, with one key of keyLen.
func aggregateSize(n, size, keyLen int) int {
	const perMessage = 1 + 5 + 2 + 1 + 5 // tag and length of the record, key index, tag and length of the data
	return len(aggregateMagic) + 2 + keyLen + n*perMessage + size + md5.Size
}

// aggregate packs messages into one record. All have the key of the record itself: it is random and means nothing, and a
// consumer checks that a message's key belongs to the shard in which it found the record. No explicit hash key is set.
func aggregate(key string, payloads [][]byte) []byte {
	size := 0
	for _, p := range payloads {
		size += len(p)
	}
	b := make([]byte, 0, aggregateSize(len(payloads), size, len(key)))
	b = append(b, aggregateMagic...)
	b = protowire.AppendTag(b, keyTableField, protowire.BytesType)
	b = protowire.AppendString(b, key)
	for _, p := range payloads {
		n := protowire.SizeTag(keyIndexField) + protowire.SizeVarint(0) + protowire.SizeTag(dataField) + protowire.SizeBytes(len(p))
		b = protowire.AppendTag(b, recordsField, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(n))
		b = protowire.AppendTag(b, keyIndexField, protowire.VarintType)
		b = protowire.AppendVarint(b, 0)
		b = protowire.AppendTag(b, dataField, protowire.BytesType)
		b = protowire.AppendBytes(b, p)
	}
	sum := md5.Sum(b[len(aggregateMagic):]) //nolint:gosec // see the import
	return append(b, sum[:]...)
}
