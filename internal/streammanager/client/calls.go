package client

import (
	"context"

	"github.com/leat-io/leat/internal/streammanager/wire"
)

// Create makes a stream.
func (c *Client) Create(ctx context.Context, d *wire.MessageStreamDefinition) error {
	id := c.nextID()
	return c.do(ctx, wire.OpCreate, id, &wire.CreateRequest{RequestID: id, Definition: d}, &wire.Response{RequestID: id})
}

// Update replaces a stream's definition as a whole.
func (c *Client) Update(ctx context.Context, d *wire.MessageStreamDefinition) error {
	id := c.nextID()
	return c.do(ctx, wire.OpUpdate, id, &wire.UpdateRequest{RequestID: id, Definition: d}, &wire.Response{RequestID: id})
}

// Delete removes a stream with its messages.
func (c *Client) Delete(ctx context.Context, name string) error {
	id := c.nextID()
	return c.do(ctx, wire.OpDelete, id, &wire.DeleteRequest{RequestID: id, Name: name}, &wire.Response{RequestID: id})
}

// List is the names of all streams.
func (c *Client) List(ctx context.Context) ([]string, error) {
	id := c.nextID()
	r := &wire.ListResponse{}
	err := c.do(ctx, wire.OpList, id, &wire.ListRequest{RequestID: id}, r)
	return result(r.Streams, err)
}

// Describe is a stream's definition and state. It is nil only with an error.
func (c *Client) Describe(ctx context.Context, name string) (*wire.MessageStreamInfo, error) {
	id := c.nextID()
	r := &wire.DescribeResponse{}
	err := c.do(ctx, wire.OpDescribe, id, &wire.DescribeRequest{RequestID: id, Name: name}, r)
	if err == nil && r.Info == nil {
		err = wire.Errorf(wire.UnknownFailure, "the server describes stream %q without a description", name)
	}
	return result(r.Info, err)
}

// Append appends a message of at least one byte and returns its sequence number.
func (c *Client) Append(ctx context.Context, name string, payload []byte) (int64, error) {
	id := c.nextID()
	r := &wire.AppendResponse{Response: wire.Response{RequestID: id}}
	err := c.do(ctx, wire.OpAppend, id, &wire.AppendRequest{RequestID: id, Name: name, Payload: payload}, r)
	return result(r.SequenceNumber, err)
}

// AppendBatch appends messages as one unit and returns the first's sequence number; the others follow without a hole. Only
// servers that offer wire.ExtensionAppendBatch know it, see Server.
func (c *Client) AppendBatch(ctx context.Context, name string, payloads [][]byte) (int64, error) {
	id := c.nextID()
	r := &wire.AppendResponse{Response: wire.Response{RequestID: id}}
	err := c.do(ctx, wire.OpAppendBatch, id, &wire.AppendBatchRequest{RequestID: id, Name: name, Payloads: payloads}, r)
	return result(r.SequenceNumber, err)
}

// Read reads messages; nil options are the server's defaults. Fewer than wanted are a *wire.Error of the status
// NotEnoughMessages. The messages' payloads share one buffer, which is the caller's.
func (c *Client) Read(ctx context.Context, name string, o *wire.ReadMessagesOptions) ([]wire.Message, error) {
	id := c.nextID()
	r := &wire.ReadResponse{}
	err := c.do(ctx, wire.OpRead, id, &wire.ReadRequest{RequestID: id, StreamName: name, Options: o}, r)
	return result(r.Messages, err)
}

// result is v, or nothing with an error.
func result[T any](v T, err error) (T, error) {
	if err != nil {
		var none T
		return none, err
	}
	return v, nil
}
