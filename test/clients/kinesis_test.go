//go:build linux

package clients_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// kinesis is an HTTP double of the one call that the export makes, PutRecords. leat's own Kinesis API shall take its
// place here once there is one.
type kinesis struct {
	URL string

	mu      sync.Mutex // guards all below
	batches []putRecords
	bad     []string // what no Kinesis would take
}

// putRecords is one accepted request.
type putRecords struct {
	Stream  string `json:"StreamName"`
	Records []struct {
		Data         []byte
		PartitionKey string
	}
}

// newKinesis starts a double on a free port of the loopback. It ends with the test.
func newKinesis(t *testing.T) *kinesis {
	t.Helper()
	k := &kinesis{}
	s := httptest.NewServer(http.HandlerFunc(k.serve))
	k.URL = s.URL
	t.Cleanup(s.Close)
	return k
}

func (k *kinesis) serve(w http.ResponseWriter, r *http.Request) {
	var req putRecords
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client was killed in the middle of it
	}
	err = json.Unmarshal(body, &req)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil || r.Header.Get("X-Amz-Target") != "Kinesis_20131202.PutRecords" || len(req.Records) == 0 || len(req.Records) > 500 ||
		!strings.Contains(r.Header.Get("Authorization"), "/kinesis/aws4_request") {
		k.bad = append(k.bad, fmt.Sprintf("%s %v: %v: %.200q", r.Method, r.Header, err, body))
		http.Error(w, `{"__type":"ValidationException"}`, http.StatusBadRequest)
		return
	}
	type done struct{ SequenceNumber, ShardId string }
	answer := struct {
		FailedRecordCount int
		Records           []done
	}{}
	for i := range req.Records {
		answer.Records = append(answer.Records, done{fmt.Sprintf("%d%06d", len(k.batches)+1, i), "shardId-000000000000"})
	}
	k.batches = append(k.batches, req)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(answer) // a client that has gone will ask again
}

// got is what was received so far.
func (k *kinesis) got(t *testing.T) []putRecords {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.bad) > 0 {
		t.Fatalf("no Kinesis takes %s", k.bad[0])
	}
	return append([]putRecords(nil), k.batches...)
}

// count is how many records were received so far, repeated ones included.
func (k *kinesis) count(t *testing.T) int {
	t.Helper()
	n := 0
	for _, b := range k.got(t) {
		n += len(b.Records)
	}
	return n
}

// destination is the configuration that sends every Kinesis export to an endpoint.
func destination(endpoint string) string {
	return fmt.Sprintf("stream_manager:\n  exports:\n    destinations:\n      - {kind: kinesis, endpoint: %q, region: eu-central-1, "+
		"access_key: AKIDEXAMPLE, secret_key: a-secret-of-the-test}\n", endpoint)
}
