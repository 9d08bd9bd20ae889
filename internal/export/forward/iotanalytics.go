package forward

import (
	"context"
	"errors"
	"fmt"

	"github.com/leat-io/leat/internal/record"
)

// Limits of BatchPutMessage.
const (
	maxAnalyticsMessages = 100
	maxAnalyticsMessage  = 128 << 10 // bytes of a payload
)

// analyticsTarget puts messages into a channel of an IoT Analytics server. AWS's own ended on 15 December 2025, so there
// is no default endpoint.
type analyticsTarget struct {
	t               *Targets
	dest            Destination
	channel, prefix string
}

// IoTAnalytics makes the target of an export of a stream into a channel. The ids of its messages are prefix, ASCII of at
// most 32 characters, and a UUID.
func (t *Targets) IoTAnalytics(streamName, export, channel, prefix string) Target {
	return &analyticsTarget{t, t.cfg.Destination(streamName, export, KindIoTAnalytics), channel, prefix}
}

type analyticsMessage struct {
	ID      string `json:"messageId"`
	Payload []byte `json:"payload"` // base64
}

// Deliver implements Target.
func (a *analyticsTarget) Deliver(ctx context.Context, b *Batch) error {
	at := place{service: "IoT Analytics", action: "iotanalytics:BatchPutMessage", resource: "channel " + a.channel, endpoint: a.dest.Endpoint}
	if a.dest.Endpoint == "" {
		return record.Errorf(record.Invalid, "deliver to channel %s: AWS ended IoT Analytics on 15 December 2025, and no other endpoint is set", a.channel).
			WithHint("add a destination with kind: %s and the endpoint of a compatible server, or remove the export", KindIoTAnalytics)
	}
	for _, i := range b.Pending() {
		if n := len(b.Messages[i].Payload); n > maxAnalyticsMessage {
			b.Skip(i, fmt.Sprintf("%d bytes, and IoT Analytics takes at most %d", n, maxAnalyticsMessage))
		}
	}
	account, err := a.t.account(ctx, a.dest.Config)
	if err != nil {
		return at.fail(err)
	}
	at.region = account.region
	for pending := b.Pending(); len(pending) > 0; {
		n := min(len(pending), maxAnalyticsMessages)
		if err := a.put(ctx, account, at, b, pending[:n]); err != nil {
			return err
		}
		pending = pending[n:]
	}
	return nil
}

// analyticsError is what the server says about a message that it did not take.
type analyticsError struct {
	ID      string `json:"messageId"`
	Code    string `json:"errorCode"`
	Message string `json:"errorMessage"`
}

// put makes one request and settles its messages.
func (a *analyticsTarget) put(ctx context.Context, acc *account, at place, b *Batch, messages []int) error {
	in := struct {
		Channel  string             `json:"channelName"`
		Messages []analyticsMessage `json:"messages"`
	}{a.channel, make([]analyticsMessage, len(messages))}
	byID := make(map[string]int, len(messages))
	for j, i := range messages {
		in.Messages[j] = analyticsMessage{a.prefix + newUUID(), b.Messages[i].Payload}
		if b.Messages[i].Payload == nil {
			in.Messages[j].Payload = []byte{}
		}
		byID[in.Messages[j].ID] = i
	}
	var out struct {
		Refused *[]analyticsError `json:"batchPutMessageErrorEntries"`
	}
	err := a.t.call(ctx, acc, "iotanalytics", serviceURL(a.dest.Config, "iotanalytics", acc.region, "/messages/batch"), in, &out)
	if errors.Is(err, errForeign) || (err == nil && out.Refused == nil) {
		return at.foreign("no list of batchPutMessageErrorEntries")
	}
	if err != nil {
		return at.fail(err)
	}
	refused := make(map[int]*answer, len(*out.Refused))
	for _, e := range *out.Refused {
		i, ok := byID[e.ID]
		if !ok {
			return at.foreign("an error for a message that was not sent")
		}
		refused[i] = &answer{code: e.Code, message: e.Message}
	}
	return settleMessages(at, b, messages, refused)
}

// settleMessages settles messages; refused has what was said about those that were not taken. Only a message that is
// invalid in itself is skipped: the server's codes for single messages were never documented.
func settleMessages(at place, b *Batch, messages []int, refused map[int]*answer) error {
	var first *answer
	left := 0
	for _, i := range messages {
		said := refused[i]
		switch {
		case said == nil:
			b.Delivered(i)
		case kindOf(0, said.code) == record.Invalid:
			b.Skip(i, "IoT Analytics: "+said.Error())
		default:
			if left++; first == nil {
				first = said
			}
		}
	}
	if first == nil {
		return nil
	}
	kind := kindOf(0, first.code)
	return record.Errorf(kind, "deliver to %s: %d of %d messages refused for now, the first: %w", at, left, len(messages), first).
		WithHint("%s", at.hint(kind, first))
}
