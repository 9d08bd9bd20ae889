//go:build linux

package clients_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/blob/blobtest"
	"github.com/leat-io/leat/internal/testenv"
)

// sample prepares an example program, with the newest Python SDK.
func sample(t *testing.T, n *node, program string, argv ...string) *exec.Cmd {
	t.Helper()
	path := filepath.Join(testenv.ModuleRoot(t), "examples", "streammanager", program)
	cmd := exec.CommandContext(t.Context(), python(t, "clients-newest"), append([]string{path}, argv...)...)
	cmd.Env = n.clientEnv()
	return cmd
}

// TestKinesisSample runs the program of examples/streammanager twice: batches of exactly ten, none missing, in order.
func TestKinesisSample(t *testing.T) {
	const count = 55
	k := newKinesis(t)
	n := newNode(t, destination(k.URL)).start()
	for run := range 2 {
		before := len(k.got(t))
		out, err := sample(t, n, "kinesis_sample.py", "--count", strconv.Itoa(count), "--pause", "0.01").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(lines) != count {
			t.Fatalf("%d lines\n%s", len(lines), out)
		}
		testenv.Wait(t, patience, func() bool { return len(k.got(t)) >= before+count/10 }, "five batches")
		keys := map[string]bool{}
		sent := 0
		for _, b := range k.got(t)[before:] {
			if b.Stream != "stream-sample" || len(b.Records) != 10 {
				t.Errorf("run %d: a batch of %d for %q", run, len(b.Records), b.Stream)
			}
			for _, r := range b.Records {
				keys[r.PartitionKey] = true
				number, stamp, _ := strings.Cut(lines[sent], " ")
				if want := "timestamp: " + stamp; string(r.Data) != want || number != strconv.Itoa(sent) {
					t.Fatalf("run %d: record %d is %q, want %q with number %s", run, sent, r.Data, want, number)
				}
				sent++
			}
		}
		if len(keys) != sent {
			t.Errorf("run %d: %d partition keys for %d records", run, len(keys), sent)
		}
	}
}

// numbered is the check of an export that may repeat: each number from 0 to count-1 at least once, and in order but for
// going back to what was sent already.
func (k *kinesis) numbered(t *testing.T, count int) (repeated int) {
	t.Helper()
	next := 0
	for i, b := range k.got(t) {
		for j, r := range b.Records {
			number, err := strconv.Atoi(string(r.Data))
			switch {
			case err != nil || number > next:
				t.Fatalf("batch %d, record %d: %q, want %d: something is missing before it", i, j, r.Data, next)
			case number < next:
				repeated++
			default:
				next++
			}
		}
	}
	if next != count {
		t.Fatalf("%d of %d arrived", next, count)
	}
	return repeated
}

// TestExportSurvivesKills kills the server again and again while it takes messages and exports them.
func TestExportSurvivesKills(t *testing.T) {
	const kills, perLife, batch = 6, 150, 25
	k := newKinesis(t)
	proxy := blobtest.NewProxy(t, k.URL)
	n := newNode(t, destination(proxy.URL)).start()
	c := newClient(t, n, sdks()[1])
	c.create("load", args{"exportDefinition": args{"kinesis": []args{{
		"identifier": "x", "kinesisStreamName": "there", "batchSize": batch, "batchIntervalMillis": 60_000,
	}}}})
	sent := 0
	for life := range kills {
		if life%2 == 1 {
			proxy.Set(blobtest.Lose, nil) // received, and the answer is lost: the next life must send it again
		}
		began := k.count(t)
		for range perLife {
			if seq := c.append("load", fmt.Appendf(nil, "%d", sent)); seq != int64(sent) {
				t.Fatalf("message %d has sequence number %d", sent, seq)
			}
			sent++
		}
		testenv.Wait(t, patience, func() bool { return k.count(t) > began }, "a batch of this life")
		n.kill()
		proxy.Set(blobtest.Pass, nil)
		n.start()
		useAgain(c)
	}
	waitExported(t, c, "load", sent-1)
	repeated := k.numbered(t, sent)
	lost := len(proxy.Requests(func(r blobtest.Request) bool { return r.Mode == blobtest.Lose }))
	if repeated > (kills+lost)*batch {
		t.Errorf("%d records repeated by %d kills and %d lost answers; at most one batch of %d for each", repeated, kills, lost, batch)
	}
	t.Logf("%d messages, %d repeated by %d kills and %d lost answers", sent, repeated, kills, lost)
}

// waitExported waits until the only export of a stream has delivered the message with a number.
func waitExported(t *testing.T, c *client, name string, number int) {
	t.Helper()
	testenv.Wait(t, patience, func() bool { return exported(c, name) == int64(number) }, fmt.Sprintf("the export of %s up to %d", name, number))
}

// exported is the number of the last exported message of a stream with one export.
func exported(c *client, name string) int64 {
	c.t.Helper()
	list := c.must("describe", args{"name": name}).Info.ExportStatuses
	if len(list) != 1 {
		c.t.Fatalf("%d export statuses, want 1", len(list))
	}
	return list[0].LastExported
}

// TestExportWaitsForTheNetwork cuts the way to Kinesis for a while: appends go on, the status says why nothing arrives,
// and afterwards everything does, each once.
func TestExportWaitsForTheNetwork(t *testing.T) {
	k := newKinesis(t)
	proxy := blobtest.NewProxy(t, k.URL)
	n := newNode(t, destination(proxy.URL)).start()
	c := newClient(t, n, sdks()[1])
	c.create("s", args{"exportDefinition": args{"kinesis": []args{{"identifier": "x", "kinesisStreamName": "there", "batchSize": 10}}}})
	sent := 0
	appendMany := func(count int) {
		for range count {
			c.append("s", fmt.Appendf(nil, "%d", sent))
			sent++
		}
	}
	appendMany(50)
	waitExported(t, c, "s", 49)
	proxy.Set(blobtest.Refuse, nil)
	appendMany(500)
	testenv.Wait(t, patience, func() bool {
		return c.must("describe", args{"name": "s"}).Info.ExportStatuses[0].Error != ""
	}, "the status to name the error")
	s := c.must("describe", args{"name": "s"}).Info.ExportStatuses[0]
	if s.LastExported != 49 || s.Messages != 50 || s.LastTime == 0 {
		t.Errorf("during the cut: %+v", s)
	}
	n.stop() // a restart changes nothing
	n.start()
	useAgain(c)
	appendMany(50)
	proxy.Set(blobtest.Pass, nil)
	waitExported(t, c, "s", sent-1)
	if repeated := k.numbered(t, sent); repeated != 0 {
		t.Errorf("%d records repeated", repeated)
	}
	if s := c.must("describe", args{"name": "s"}).Info.ExportStatuses[0]; s.Error != "" || s.Messages != int64(sent) {
		t.Errorf("after the cut: %+v", s)
	}
}

// TestS3Sample runs the program of examples/streammanager against a real S3 server.
func TestS3Sample(t *testing.T) {
	g := blobtest.StartGateway(t)
	files := t.TempDir()
	n := newNode(t, fmt.Sprintf("stream_manager:\n  exports:\n    s3_directories: [%q]\n    destinations:\n"+
		"      - {kind: s3, endpoint: %q, region: %q, access_key: %q, secret_key: %q}\n", files, g.Endpoint, g.Region, g.AccessKey, g.SecretKey)).start()
	small := write(t, filepath.Join(files, "small.csv"), 1234)
	large := write(t, filepath.Join(files, "large file.bin"), 12<<20)
	outside := filepath.Join(t.TempDir(), "outside.csv")
	write(t, outside, 10)
	for what, c := range map[string]struct {
		file, bucket, key string
		content           []byte
		exit              int
		says              string // part of the last line
	}{
		"one request":           {"small.csv", g.Bucket, "small.csv", small, 0, "Success"},
		"several parts":         {"large file.bin", g.Bucket, "a/b/large.bin", large, 0, "Success"},
		"a missing bucket":      {"small.csv", "no-such-bucket", "small.csv", nil, 1, "Failure"},
		"a missing file":        {"missing.csv", g.Bucket, "missing.csv", nil, 1, "Failure"},
		"outside the directory": {outside, g.Bucket, "outside.csv", nil, 1, "Failure"},
	} {
		t.Run(what, func(t *testing.T) {
			path := c.file
			if !filepath.IsAbs(path) {
				path = filepath.Join(files, path)
			}
			out, _ := sample(t, n, "s3_sample.py", "--patience", "50", path, c.bucket, c.key).CombinedOutput()
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			status, text, _ := strings.Cut(lines[len(lines)-1], " ")
			if status != c.says || text == "" {
				t.Errorf("ends with %q\n%s", lines[len(lines)-1], out)
			}
			if c.exit != 0 {
				return
			}
			if len(lines) != 2 || !strings.HasPrefix(lines[0], "InProgress") {
				t.Errorf("want InProgress, then Success, got\n%s", out)
			}
			if got, err := os.ReadFile(g.Path(c.key)); err != nil || !bytes.Equal(got, c.content) {
				t.Errorf("the object is not the file: %d bytes, %v", len(got), err)
			}
		})
	}
	t.Run("the day in the key", func(t *testing.T) {
		out, err := sample(t, n, "s3_sample.py", filepath.Join(files, "small.csv"), g.Bucket, "d/!{timestamp:yyyy/MM/dd}/f").CombinedOutput()
		today := g.Path("d/" + time.Now().UTC().Format("2006/01/02") + "/f")
		if _, missing := os.Stat(today); err != nil || missing != nil {
			t.Errorf("%v, %v\n%s", err, missing, out)
		}
	})
}

// write makes a file of size bytes that do not repeat, and returns them.
func write(t *testing.T, path string, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(b) // never fails
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}
