package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/leat-io/leat/internal/record"
)

// Client asks a running leat. Close it.
type Client struct {
	http  *http.Client
	base  string
	where string // for errors
	hint  string
}

// NewClient returns a client of the leat that runs on a data directory of this machine.
func NewClient(dataDir string) *Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialSocket(ctx, dataDir)
	}}
	return &Client{
		http: &http.Client{Transport: tr}, base: "http://localhost", where: dataDir,
		hint: "start it with: leat serve --data-dir " + dataDir + " (or name the directory of the one that runs with --data-dir)",
	}
}

// NewRemoteClient returns a client of the leat whose HTTP side is at rawURL (http://host:port).
func NewRemoteClient(rawURL string) *Client {
	return &Client{
		http: &http.Client{Transport: &http.Transport{}}, base: strings.TrimRight(rawURL, "/"), where: rawURL,
		hint: "see whether leat runs there and http.listen is open to this machine",
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks what the node is doing.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.get(ctx, "/api/v1/status", nil, &s)
}

// Streams lists streams whose names start with prefix.
func (c *Client) Streams(ctx context.Context, prefix string) ([]Stream, error) {
	var s []Stream
	return s, c.get(ctx, "/api/v1/streams", url.Values{"prefix": {prefix}}, &s)
}

// Files lists the files of a table, or of all with "".
func (c *Client) Files(ctx context.Context, table string) ([]File, error) {
	var f []File
	return f, c.get(ctx, "/api/v1/lake/files", url.Values{"table": {table}}, &f)
}

// Flush cuts what every stream holds and waits until it is in the store.
func (c *Client) Flush(ctx context.Context) error {
	resp, err := c.do(ctx, http.MethodPost, "/api/v1/lake/flush", nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Put appends body to the stream called name: as one record, or with lines as one record for each line.
func (c *Client) Put(ctx context.Context, name, key string, body []byte, lines bool) (Put, error) {
	v := url.Values{"name": {name}, "key": {key}}
	if lines {
		v.Set("lines", "1")
	}
	resp, err := c.do(ctx, http.MethodPost, "/api/v1/streams/records", v, body)
	if err != nil {
		return Put{}, err
	}
	defer resp.Body.Close()
	var p Put
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		return Put{}, record.Errorf(record.Internal, "decode answer: %w", err)
	}
	return p, nil
}

// Remove deletes a stream; with force also one that holds records.
func (c *Client) Remove(ctx context.Context, name string, force bool) error {
	v := url.Values{"name": {name}}
	if force {
		v.Set("force", "1")
	}
	resp, err := c.do(ctx, http.MethodDelete, "/api/v1/streams", v, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// TailOptions says which records Tail hands over.
type TailOptions struct {
	From   string // an offset, first, last (the newest Limit) or end
	Limit  int64  // 0 = no limit
	Follow bool   // wait for more at the end
}

// Tail calls each for every record until the end, ctx, or an error of each.
func (c *Client) Tail(ctx context.Context, name string, o TailOptions, each func(Record) error) error {
	v := url.Values{"name": {name}, "from": {o.From}}
	if o.Limit > 0 {
		v.Set("limit", fmt.Sprint(o.Limit))
	}
	if o.Follow {
		v.Set("follow", "1")
	}
	resp, err := c.do(ctx, http.MethodGet, "/api/v1/streams/records", v, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(bufio.NewReader(resp.Body))
	for {
		var line struct {
			Record
			failure
		}
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read records: %w", err)
		}
		if line.failure.Error.Message != "" {
			return line.failure.err()
		}
		if err := each(line.Record); err != nil {
			return err
		}
	}
}

// Query runs a statement and copies its result to out. progress may be nil.
func (c *Client) Query(ctx context.Context, q QueryRequest, out io.Writer, progress func(QueryProgress)) error {
	q.Frames = true
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, http.MethodPost, "/api/v1/query", nil, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return readFrames(resp.Body, out, progress)
}

func (c *Client) get(ctx context.Context, path string, v url.Values, into any) error {
	resp, err := c.do(ctx, http.MethodGet, path, v, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return record.Errorf(record.Internal, "decode answer of %s: %w", path, err)
	}
	return nil
}

// do sends a request; an answer that is no success becomes its error.
func (c *Client) do(ctx context.Context, method, path string, v url.Values, body []byte) (*http.Response, error) {
	target := c.base + path
	if len(v) > 0 {
		target += "?" + v.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, record.Errorf(record.Invalid, "%w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	var f failure
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil || json.Unmarshal(text, &f) != nil || f.Error.Message == "" {
		return nil, record.Errorf(record.Unavailable, "%s answered %s", c.where, resp.Status)
	}
	return nil, f.err()
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return record.Errorf(record.Unavailable, "no leat is running on %s", c.where).WithHint("%s", c.hint)
	case errors.Is(err, fs.ErrPermission):
		return record.Errorf(record.Denied, "not allowed to open the socket in %s", c.where).
			WithHint("run this as the user that leat runs as")
	}
	return record.Errorf(record.Unavailable, "reach %s: %w", c.where, err).WithHint("%s", c.hint)
}
