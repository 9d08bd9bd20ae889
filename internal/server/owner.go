package server

import (
	"context"
	"strings"

	"github.com/leat-io/leat/internal/ingest"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
	"github.com/leat-io/leat/internal/streammanager"
)

// owner is the server as api.Owner.
type owner Server

// Put is part of api.Owner.
func (o *owner) Put(ctx context.Context, name record.StreamName, records []record.Record) (record.Offset, error) {
	if client, ok := streammanager.ClientName(name); ok {
		return o.putMessages(ctx, client, records)
	}
	info, err := o.all.Lookup(name)
	if err != nil {
		return 0, err
	}
	now := o.clock.Read().Wall
	for i := range records {
		records[i].Time = now
	}
	return stream.AppendWait(ctx, o.all, info.ID, records...)
}

func (o *owner) putMessages(ctx context.Context, name string, records []record.Record) (record.Offset, error) {
	type result struct {
		first int64
		err   error
	}
	payloads := make([][]byte, len(records))
	for i := range records {
		if len(records[i].Key) > 0 {
			return 0, record.Errorf(record.Invalid, "messages of a Stream Manager stream have no key").WithHint("leave it out")
		}
		payloads[i] = records[i].Payload
	}
	ch := make(chan result, 1)
	o.manager.Append(ctx, name, payloads, func(first int64, err error) { ch <- result{first, err} })
	r := <-ch // bounded by ctx: see Manager.Append
	return record.Offset(r.first), r.err
}

// Remove is part of api.Owner.
func (o *owner) Remove(ctx context.Context, name record.StreamName) error {
	if client, ok := streammanager.ClientName(name); ok {
		return o.manager.Delete(ctx, client)
	}
	info, err := o.all.Lookup(name)
	if err != nil {
		return err
	}
	if rule, ok := strings.CutPrefix(string(name), ingest.StreamPrefix); ok {
		if _, configured := o.router.Stream(rule); configured {
			return record.Errorf(record.Conflict, "stream %s belongs to ingest rule %s", name, rule).
				WithHint("take the rule out of the configuration and start leat again first")
		}
	}
	_, err = o.all.Commit(ctx, stream.Change{Delete: &stream.Delete{ID: info.ID}})
	return err
}
