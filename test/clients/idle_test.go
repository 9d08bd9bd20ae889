//go:build linux

package clients_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/sim"
)

// TestIdleStreamsCostLittle compares the memory of an idle leat with that of one that has 100 streams with an export
// each: just after they were made and used, and after a restart.
func TestIdleStreamsCostLittle(t *testing.T) {
	const streams, most = 100, 8 << 20
	bare := settled(t, newNode(t, "").start())

	k := newKinesis(t)
	n := newNode(t, destination(k.URL)).start()
	c := newClient(t, n, sdks()[1])
	for i := range streams {
		name := fmt.Sprintf("stream-%d", i)
		c.create(name, args{"exportDefinition": args{"kinesis": []args{{"identifier": "x", "kinesisStreamName": name, "batchSize": 1}}}})
		c.append(name, []byte("x"))
	}
	for i := range streams {
		waitExported(t, c, fmt.Sprintf("stream-%d", i), 0)
	}
	c.must("close", nil)
	used := settled(t, n)
	n.stop()
	n.start()
	again := settled(t, n)
	t.Logf("idle: %.1f MiB without streams, %.1f with %d that were used, %.1f after a restart",
		mib(bare), mib(used), streams, mib(again))
	if again-bare > most {
		t.Errorf("%d streams with exports take %.1f MiB, at most %d", streams, mib(again-bare), most>>20)
	}
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// settled is the least resident memory of a node within some seconds in which it has nothing to do.
func settled(t *testing.T, n *node) int64 {
	t.Helper()
	least := int64(1 << 62)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 30 {
		<-tick.C
		rss, err := sim.ResidentBytes(n.cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		least = min(least, rss)
	}
	return least
}
