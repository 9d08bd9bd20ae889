package forward

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"github.com/leat-io/leat/internal/awsclient"
	"github.com/leat-io/leat/internal/record"
)

// HTTPFormat is how an HTTP export writes messages. The numbers are those of the Stream Manager protocol.
type HTTPFormat int

// The formats.
const (
	RawNotBatched HTTPFormat = 0 // a request for each message, its payload the body
	JSONBatched   HTTPFormat = 1 // a request for each batch, a JSON array of messages the body
)

// httpTarget posts messages to a web server. An answer of 2xx delivers.
//
// Every other answer is tried again, for ever: whether the server will ever take a message only a person can tell, and a
// message that was dropped because a proxy said 404 for an hour would be lost silently. So a server that answers 400
// holds its export up, and the export's status says so (Denied, NotFound, Invalid). A server that does not want a message
// says 2xx. Redirects are not followed, see awsclient.HTTPOptions.
//
// The address may hold a secret: in its user, its query, and often in its path. Errors tell scheme and host.
type httpTarget struct {
	t      *Targets
	uri    string
	format HTTPFormat
}

// HTTP makes the target of an export to a web address, http or https. User and password in it become the Authorization
// header.
func (t *Targets) HTTP(uri string, format HTTPFormat) Target { return &httpTarget{t, uri, format} }

// jsonMessage is a message in the form that the Java SDK of Stream Manager gives its Message.
type jsonMessage struct {
	StreamName string `json:"streamName"`
	Sequence   uint64 `json:"sequenceNumber"`
	IngestTime int64  `json:"ingestTime"` // Unix milliseconds
	Payload    []byte `json:"payload"`    // base64
}

// Deliver implements Target. Raw messages go in order, each when the one before was taken.
func (h *httpTarget) Deliver(ctx context.Context, b *Batch) error {
	u, err := url.Parse(h.uri)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return record.Errorf(record.Invalid, "the uri of the export is no http or https address").
			WithHint("set it to, for example, https://collector.example.com/readings")
	}
	switch h.format {
	case RawNotBatched:
		for _, i := range b.Pending() {
			if err := h.post(ctx, u, "application/octet-stream", b.Messages[i].Payload); err != nil {
				return err
			}
			b.Delivered(i)
		}
		return nil
	case JSONBatched:
		return h.batch(ctx, u, b)
	default:
		return record.Errorf(record.Invalid, "export format %d is unknown", h.format).WithHint("use 0, RAW_NOT_BATCHED, or 1, JSON_BATCHED")
	}
}

func (h *httpTarget) batch(ctx context.Context, u *url.URL, b *Batch) error {
	pending := b.Pending()
	if len(pending) == 0 {
		return nil
	}
	list := make([]jsonMessage, len(pending))
	for j, i := range pending {
		m := &b.Messages[i]
		list[j] = jsonMessage{b.Stream, uint64(m.Sequence), m.Time / 1e6, m.Payload}
		if m.Payload == nil {
			list[j].Payload = []byte{} // "", not null
		}
	}
	body, err := json.Marshal(list)
	if err != nil {
		return record.Errorf(record.Internal, "encode a batch of stream %s: %w", b.Stream, err)
	}
	if err := h.post(ctx, u, "application/json", body); err != nil {
		return err
	}
	for _, i := range pending {
		b.Delivered(i)
	}
	return nil
}

// maxIgnored is how much of an answer is read so that the connection can be used again.
const maxIgnored = 64 << 10

func (h *httpTarget) post(ctx context.Context, u *url.URL, contentType string, body []byte) error {
	at := place{service: "HTTP", action: "the right to post", resource: "address", endpoint: hostOf(u)}
	ctx, cancel, err := h.t.admit(ctx, len(body))
	if err != nil {
		return at.fail(err)
	}
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return at.fail(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", "leat")
	resp, err := h.t.client.Do(req)
	if err != nil {
		return at.fail(err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, maxIgnored))
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		return nil // taken, whatever became of the rest of the answer
	}
	if err != nil {
		return at.fail(err)
	}
	a := &answer{status: resp.StatusCode, after: retryAfter(resp.Header)}
	// What the server says helps, but may repeat what it was sent.
	if u.User == nil && u.RawQuery == "" && !bytes.HasPrefix(bytes.TrimSpace(said), []byte("<")) {
		a.message = awsclient.FirstLine(string(said), 200)
	}
	return at.fail(a)
}
