package forward

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/leat-io/leat/internal/awsclient"
	"github.com/leat-io/leat/internal/record"
)

// The Go SDK's clients of SiteWise and IoT Analytics are modules of their own, which not every place that builds leat can
// get, and each export needs one request of them. So those requests are made here: JSON over HTTP, signed by the SDK's
// own signer.

// maxAnswer is the most bytes of an answer that are read. The longest that means something names the failed messages of
// a batch.
const maxAnswer = 1 << 20

// call posts in, as JSON, to a path of a service and decodes the answer into out. signingName is the service's in
// signatures. Errors are answer when the service said something, or the network's; place.fail tells them.
func (t *Targets) call(ctx context.Context, a *account, signingName, url string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return record.Errorf(record.Internal, "encode a request to %s: %w", signingName, err)
	}
	ctx, cancel, err := t.admit(ctx, len(body))
	if err != nil {
		return err
	}
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return record.Errorf(record.Invalid, "make a request to %s: %w", signingName, awsclient.Described{Err: err})
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "leat")
	creds, err := a.creds.Retrieve(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return record.Errorf(record.Denied, "find credentials for %s: %w", signingName, awsclient.Described{Err: err}).
			WithHint("give this machine a role, or the destination access_key and secret_key")
	}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, creds, req, hex.EncodeToString(sum[:]), signingName, a.region, time.Now()); err != nil {
		return err
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return toAnswer(resp, said)
	}
	if err := json.Unmarshal(said, out); err != nil {
		return fmt.Errorf("%w: %w", errForeign, err)
	}
	return nil
}

// errForeign is the error of an answer that is not the service's; see place.foreign.
var errForeign = errors.New("no JSON")

// toAnswer reads an error as REST services of AWS write them.
func toAnswer(resp *http.Response, body []byte) *answer {
	var said struct {
		Type    string `json:"__type"`
		Code    string `json:"code"`
		Message string `json:"message"` // encoding/json takes "Message" for it, too
	}
	// What does not read stays empty: then the status counts.
	_ = json.Unmarshal(body, &said)
	a := &answer{status: resp.StatusCode, code: said.Type, message: said.Message, after: retryAfter(resp.Header)}
	if h := resp.Header.Get("X-Amzn-Errortype"); h != "" {
		a.code = h
	}
	if a.code == "" {
		a.code = said.Code
	}
	a.code, _, _ = strings.Cut(a.code, ":")
	a.code = awsclient.FirstLine(a.code[strings.LastIndexByte(a.code, '#')+1:], 100)
	return a
}

// serviceURL is where a service is: the configured endpoint as it is, else AWS's host for data in the region.
func serviceURL(c awsclient.Config, service, region, path string) string {
	if c.Endpoint != "" {
		return strings.TrimRight(c.Endpoint, "/") + path
	}
	domain := "amazonaws.com"
	if strings.HasPrefix(region, "cn-") {
		domain += ".cn"
	}
	return "https://data." + service + "." + region + "." + domain + path
}

// newUUID is a random UUID (version 4) in its text form of keyLen characters.
func newUUID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // never fails: see crypto/rand
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
