package forward

import (
	"context"
	"encoding/base64"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/leat-io/leat/internal/record"
)

// Limits of PutRecords that every account and every compatible server has. AWS raised the request to 10 MiB in 2025, and
// lets the owner of a stream raise the record to as much; what a stream allows takes a right of its own to find out, so
// the old limits hold here.
const (
	maxPutRecords = 500
	maxPutBytes   = 5 << 20 // of data and keys of a request
	maxPutRecord  = 1 << 20 // of data and key of a record
)

// keyLen is the length of a partition key, a UUID.
const keyLen = 36

// kinesisTarget puts messages into a Kinesis data stream: a record for each, or aggregated ones, with a fresh random
// partition key, so that they spread over the shards. Kinesis keeps no order between keys, so neither does this.
type kinesisTarget struct {
	t          *Targets
	dest       Destination
	streamName string // of Kinesis
}

// Kinesis makes the target of an export of a stream into the Kinesis stream kinesisStream.
func (t *Targets) Kinesis(streamName, export, kinesisStream string) Target {
	return &kinesisTarget{t, t.cfg.Destination(streamName, export, KindKinesis), kinesisStream}
}

// put is a record on its way and the messages in it, by their indices in the batch.
type put struct {
	types.PutRecordsRequestEntry
	messages []int
}

func (p *put) size() int { return len(p.Data) + keyLen }

// Deliver implements Target. Records that Kinesis refuses stay pending, alone; the error has the first one's reason.
func (k *kinesisTarget) Deliver(ctx context.Context, b *Batch) error {
	at := place{service: "Kinesis", action: "kinesis:PutRecords", resource: "stream " + k.streamName, endpoint: k.dest.Endpoint}
	for _, i := range b.Pending() {
		if n := len(b.Messages[i].Payload); n > maxPutRecord-keyLen {
			b.Skip(i, fmt.Sprintf("%d bytes, and a Kinesis record takes at most %d", n, maxPutRecord-keyLen))
		}
	}
	account, err := k.t.account(ctx, k.dest.Config)
	if err != nil {
		return at.fail(err)
	}
	at.region = account.region
	for puts := k.pack(b); len(puts) > 0; {
		n, bytes := 0, 0
		for n < len(puts) && n < maxPutRecords && bytes+puts[n].size() <= maxPutBytes {
			bytes += puts[n].size()
			n++
		}
		if err := k.send(ctx, account, at, b, puts[:n]); err != nil {
			return err
		}
		puts = puts[n:]
	}
	return nil
}

// pack makes records of the pending messages.
func (k *kinesisTarget) pack(b *Batch) (puts []put) {
	var group []int
	size := 0
	flush := func() {
		if len(group) > 0 {
			puts = append(puts, newPut(b, group))
			group, size = nil, 0
		}
	}
	for _, i := range b.Pending() {
		n := len(b.Messages[i].Payload)
		if !k.dest.Aggregate || aggregateSize(len(group)+1, size+n, keyLen) > maxAggregate {
			flush()
		}
		group = append(group, i)
		size += n
	}
	flush()
	return puts
}

// newPut makes a record of messages: the payload itself when there is only one.
func newPut(b *Batch, messages []int) put {
	key := newUUID()
	p := put{types.PutRecordsRequestEntry{PartitionKey: &key}, messages}
	if len(messages) == 1 {
		p.Data = b.Messages[messages[0]].Payload
		if p.Data == nil {
			p.Data = []byte{} // nil is "not given" to the SDK
		}
		return p
	}
	payloads := make([][]byte, len(messages))
	for j, i := range messages {
		payloads[j] = b.Messages[i].Payload
	}
	p.Data = aggregate(key, payloads)
	return p
}

// send makes one request and settles what it delivered.
func (k *kinesisTarget) send(ctx context.Context, a *account, at place, b *Batch, puts []put) error {
	in := kinesis.PutRecordsInput{StreamName: &k.streamName}
	bytes := 0
	for i := range puts {
		in.Records = append(in.Records, puts[i].PutRecordsRequestEntry)
		bytes += base64.StdEncoding.EncodedLen(len(puts[i].Data)) + keyLen + len(`{"Data":"","PartitionKey":""},`)
	}
	ctx, cancel, err := k.t.admit(ctx, bytes)
	if err != nil {
		return at.fail(err)
	}
	defer cancel()
	out, err := a.kinesis.PutRecords(ctx, &in)
	if err != nil {
		return at.fail(err)
	}
	if len(out.Records) != len(puts) {
		return at.foreign(fmt.Sprintf("%d results for %d records", len(out.Records), len(puts)))
	}
	failed := 0
	var first *types.PutRecordsResultEntry
	for i := range out.Records {
		if r := &out.Records[i]; r.ErrorCode != nil || r.SequenceNumber == nil {
			if failed++; first == nil {
				first = r
			}
			continue
		}
		for _, m := range puts[i].messages {
			b.Delivered(m)
		}
	}
	if failed == 0 {
		return nil
	}
	said := answer{code: aws.ToString(first.ErrorCode), message: aws.ToString(first.ErrorMessage)}
	kind := kindOf(0, said.code)
	return record.Errorf(kind, "deliver to %s: %d of %d records refused, the first: %w", at, failed, len(puts), &said).WithHint("%s", at.hint(kind, &said))
}
