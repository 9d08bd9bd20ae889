//go:build linux

package e2e_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/leat-io/leat/internal/blob/blobtest"
	"github.com/leat-io/leat/internal/sim"
	"github.com/leat-io/leat/internal/testenv"
)

// startStore starts a real S3 server with a bucket.
func startStore(t *testing.T) *blobtest.Gateway { return blobtest.StartGateway(t) }

// onBucket is a configuration whose lake is a bucket of the gateway.
func onBucket(g *blobtest.Gateway) string {
	return fmt.Sprintf("store:\n  s3: {endpoint: '%s', region: %s, bucket: %s, access_key: %s, secret_key: '%s'}\n",
		g.Endpoint, g.Region, g.Bucket, g.AccessKey, g.SecretKey)
}

// TestStoreOutage takes the S3 server away while clients publish, kills the program meanwhile, and brings the server
// back: nothing is refused, everything drains, each message is in the bucket once, and SQL finds it there.
func TestStoreOutage(t *testing.T) {
	const messages, rate = 60_000, 10_000
	g := startStore(t)
	n := newNode(t, t.TempDir(), onBucket(g)).withSQL().start()
	acked := sim.NewSet(messages)
	wait := background(func() (sim.LoadResult, error) {
		return n.load(t.Context(), sim.LoadConfig{Messages: messages, Rate: rate, Reconnect: patience, Resend: true, Acked: acked})
	})
	testenv.Wait(t, patience, func() bool { return n.status().Files > 0 }, "the first file in the bucket")
	g.Stop()
	gone := acked.Len()
	testenv.Wait(t, patience, func() bool { return acked.Len() > gone+rate }, "a second's messages during the outage")
	testenv.Wait(t, patience, func() bool { return degraded(n, "refused") }, "the outage to show")
	if st := n.status(); !st.Ready {
		t.Error("not ready during an outage of the store: an orchestrator would restart the box")
	}
	n.kill()
	n.start()
	res := wait(t)
	testenv.Wait(t, patience, func() bool { return n.status().Waiting > 0 }, "files to wait in the spool")
	g.Start()
	n.flush()
	testenv.Wait(t, patience, func() bool { return len(n.status().Degraded) == 0 }, "the end of the outage to show")

	out, err := n.leat("query", "-f", "csv", "SELECT count(DISTINCT value) FROM samples WHERE signal = 'n'")
	if want := fmt.Sprint(messages); err != nil || lastLine(out) != want {
		t.Errorf("SQL over the bucket counts %q messages, want %s: %v", out, want, err)
	}
	n.stop(syscall.SIGTERM)
	all := readLake(t, g.Path(""), messages)
	twice := all.check(t, acked, res.Again)
	t.Logf("%d messages in %d objects; %d sent again after the kill, %d of them there twice", messages, all.files, len(res.Again), twice)
}

func lastLine(s string) string {
	fields := strings.Fields(s)
	if len(fields) == 0 {
		return ""
	}
	return fields[len(fields)-1]
}

func degraded(n *node, why string) bool {
	for _, d := range n.status().Degraded {
		if strings.Contains(d.Why, why) {
			return true
		}
	}
	return false
}
