//go:build linux

package clients_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/testenv"

	"github.com/google/go-cmp/cmp"
)

// maxSafe is the largest integer that the JavaScript client survives: 2^53-1.
const maxSafe = 1<<53 - 1

func TestEveryOperation(t *testing.T) {
	eachSDK(t, "", func(t *testing.T, n *node, c *client) {
		if r := c.must("list", nil); len(r.Streams) != 0 {
			t.Errorf("streams of a new node: %q", r.Streams)
		}
		began := time.Now().UnixMilli()
		c.create("Some Stream.1,2-3_4", nil)
		c.create("second", args{"maxSize": 2048, "streamSegmentSize": 1024, "timeToLiveMillis": 60_000, "strategyOnFull": 0, "persistence": 1, "flushOnWrite": false})
		r := c.must("list", nil)
		slices.Sort(r.Streams)
		if diff := cmp.Diff([]string{"Some Stream.1,2-3_4", "second"}, r.Streams); diff != "" {
			t.Errorf("list (-want +got):\n%s", diff)
		}
		for i := range 5 {
			if seq := c.append("Some Stream.1,2-3_4", fmt.Appendf(nil, "message %d", i)); seq != int64(i) {
				t.Fatalf("message %d has sequence number %d", i, seq)
			}
		}
		checkReads(t, c, "Some Stream.1,2-3_4", began)
		checkDescribe(t, c, "Some Stream.1,2-3_4")
		c.must("update", args{"definition": definition("Some Stream.1,2-3_4", args{"maxSize": 1 << 30, "timeToLiveMillis": 3_600_000})})
		d := c.must("describe", args{"name": "Some Stream.1,2-3_4"}).Info.Definition
		if d["maxSize"] != float64(1<<30) || d["timeToLiveMillis"] != float64(3_600_000) {
			t.Errorf("after the update: %v", d)
		}
		c.must("delete", args{"name": "Some Stream.1,2-3_4"})
		c.create("Some Stream.1,2-3_4", nil)
		if seq := c.append("Some Stream.1,2-3_4", []byte("x")); seq != 0 {
			t.Errorf("a stream that was made anew begins at %d", seq)
		}
		c.must("close", nil)
	})
}

// checkReads reads a stream of the five messages "message 0" … in every way there is.
func checkReads(t *testing.T, c *client, name string, began int64) {
	t.Helper()
	for what, read := range map[string]struct {
		options args
		want    []int64
	}{
		"without options":             {nil, []int64{0}},
		"from the middle":             {args{"desiredStartSequenceNumber": 2, "maxMessageCount": 2}, []int64{2, 3}},
		"min without max":             {args{"minMessageCount": 3}, []int64{0, 1, 2}},
		"fewer than max":              {args{"desiredStartSequenceNumber": 3, "maxMessageCount": 100, "readTimeoutMillis": 1000}, []int64{3, 4}},
		"all":                         {args{"minMessageCount": 5, "maxMessageCount": 5, "readTimeoutMillis": 1000}, []int64{0, 1, 2, 3, 4}},
		"a timeout that is not spent": {args{"minMessageCount": 1, "readTimeoutMillis": 15_000}, []int64{0}},
	} {
		a := args{"name": name}
		if read.options != nil {
			a["options"] = read.options
		}
		start := time.Now()
		messages := c.must("read", a).Messages
		var got []int64
		for _, m := range messages {
			got = append(got, m.SequenceNumber)
			if string(m.Payload) != fmt.Sprintf("message %d", m.SequenceNumber) || m.StreamName != name {
				t.Errorf("%s: message %d of %q is %q", what, m.SequenceNumber, m.StreamName, m.Payload)
			}
			if m.IngestTime < began || m.IngestTime > time.Now().UnixMilli() {
				t.Errorf("%s: ingest time %d", what, m.IngestTime)
			}
		}
		if diff := cmp.Diff(read.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s took %v", what, took)
		}
	}
}

// checkDescribe checks a stream of five messages with default settings.
func checkDescribe(t *testing.T, c *client, name string) {
	t.Helper()
	i := c.must("describe", args{"name": name}).Info
	if s := i.StorageStatus; s.Oldest != 0 || s.Newest != 4 || s.Bytes < 45 || s.Bytes > 5000 {
		t.Errorf("storage: %+v", s)
	}
	d := i.Definition
	if d["name"] != name || d["maxSize"] != float64(256<<20) || d["streamSegmentSize"] != float64(16<<20) || d["strategyOnFull"] != 1.0 {
		t.Errorf("definition: %v", d)
	}
	empty := c.must("describe", args{"name": "second"}).Info.StorageStatus
	if empty.Oldest != 0 || empty.Newest != -1 || empty.Bytes != 0 {
		t.Errorf("an empty stream: %+v", empty)
	}
}

// TestEveryException provokes what a server can answer. Not among them, because nothing a client does leads there:
// UnknownFailure (a bug of the server), UpdateFailed and MessageStoreReadError (a disk that fails), ServerOutOfMemory (leat
// bounds what it holds instead), ServerTimeout (a disk that hangs, or a stop in mid-request, see
// TestShutdownAnswersWhatIsOnItsWay). ResponsePayloadTooLarge is in TestLargeMessages, Unauthorized in TestTokens.
func TestEveryException(t *testing.T) {
	eachSDK(t, "", func(t *testing.T, _ *node, c *client) {
		c.create("there", nil)
		c.create("small", args{"maxSize": 4096, "streamSegmentSize": 1024, "strategyOnFull": 0})
		for range 3 {
			c.append("small", make([]byte, 900))
		}
		missing := args{"name": "missing"}
		for what, e := range map[string]struct {
			class, do string
			args      args
			text      string // part of the message
		}{
			"created twice":              {"InvalidRequestException", "create", args{"definition": definition("there", nil)}, "already exists"},
			"a segment above the stream": {"InvalidRequestException", "create", args{"definition": definition("odd", args{"maxSize": 1024, "streamSegmentSize": 4096})}, "egment"},
			"append to nowhere":          {"ResourceNotFoundException", "append", args{"name": "missing", "payload": []byte("x")}, "missing"},
			"read from nowhere":          {"ResourceNotFoundException", "read", missing, "missing"},
			"describe nothing":           {"ResourceNotFoundException", "describe", missing, "missing"},
			"delete nothing":             {"ResourceNotFoundException", "delete", missing, "missing"},
			"update nothing":             {"ResourceNotFoundException", "update", args{"definition": definition("missing", nil)}, "missing"},
			"read an empty stream":       {"NotEnoughMessagesException", "read", args{"name": "there"}, ""},
			"read more than there is": {"NotEnoughMessagesException", "read", args{
				"name": "small", "options": args{"minMessageCount": 50, "readTimeoutMillis": 200},
			}, ""},
			"larger than its stream": {"RequestPayloadTooLargeException", "append", args{"name": "small", "payload": make([]byte, 5000)}, ""},
			"another persistence":    {"UpdateNotAllowedException", "update", args{"definition": definition("there", args{"persistence": 1})}, "persistence"},
			"an unknown operation":   {"UnknownOperationException", "unknown", nil, ""},
		} {
			if got := c.fails(e.class, e.do, e.args); !strings.Contains(got, e.text) {
				t.Errorf("%s: %q does not contain %q", what, got, e.text)
			}
		}
		fillUp(t, c)
		c.append("there", []byte("and the connection still works"))
	})
}

// fillUp appends to "small", which rejects when full, until it does.
func fillUp(t *testing.T, c *client) {
	t.Helper()
	for range 20 {
		if _, f := c.try("append", args{"name": "small", "payload": make([]byte, 900)}); f != nil {
			if f.Class != "InvalidRequestException" || !strings.Contains(f.Message, "full") {
				t.Errorf("a full stream: %+v", f)
			}
			return
		}
	}
	t.Error("20 messages of 900 bytes fit into 4096")
}

func TestNamesThatTheServerRefuses(t *testing.T) {
	eachSDK(t, "", func(t *testing.T, _ *node, c *client) {
		for _, name := range []string{"über", "河", "a/b", "", ".", "..", " ", strings.Repeat("n", 256), "a\x00b"} {
			_, f := c.try("create", args{"definition": definition(name, nil)})
			// The SDK refuses most by itself; Python lets letters of any alphabet through.
			if f == nil || f.Class != "ValidationException" && f.Class != "InvalidRequestException" {
				t.Errorf("%q: %+v", name, f)
			}
		}
		for _, name := range []string{"...", " a ", "a ", "a.b", "A", "a", "con", strings.Repeat("n", 255)} {
			c.create(name, nil)
			c.append(name, []byte(name))
			if got := c.all(name, 1); string(got[0].Payload) != name {
				t.Errorf("%q holds %q", name, got[0].Payload)
			}
		}
	})
}

func TestHugeSizes(t *testing.T) {
	eachSDK(t, "", func(t *testing.T, _ *node, c *client) {
		for name, size := range map[string]any{"five": 5_000_000_000, "safe": maxSafe, "max": uint64(1<<63 - 1)} {
			c.create(name, args{"maxSize": size})
			got := c.must("describe", args{"name": name}).Info.Definition["maxSize"].(float64)
			if got > maxSafe || name == "five" && got != 5e9 {
				t.Errorf("%s: maxSize %v", name, got)
			}
			c.append(name, []byte("x")) // the client is alive
		}
	})
}

func TestParallelRequestsOnOneClient(t *testing.T) {
	const workers, each = 8, 50
	eachSDK(t, "", func(t *testing.T, _ *node, c *client) {
		c.create("s", nil)
		r := c.must("parallel", args{"name": "s", "workers": workers, "each": each})
		var all []int64
		for worker, numbers := range r.SequenceNumbers {
			if len(numbers) != each || !slices.IsSorted(numbers) {
				t.Errorf("worker %d got %v", worker, numbers)
			}
			all = append(all, numbers...)
		}
		slices.Sort(all)
		for i, seq := range all {
			if seq != int64(i) {
				t.Fatalf("sequence numbers are not dense at %d: %d", i, seq)
			}
		}
		stored := c.all("s", workers*each)
		for worker, numbers := range r.SequenceNumbers {
			for i, seq := range numbers {
				if want := fmt.Sprintf("%d %d", worker, i); string(stored[seq].Payload) != want {
					t.Fatalf("message %d is %q, the client that got this number appended %q", seq, stored[seq].Payload, want)
				}
			}
		}
	})
}

// TestLargeMessages also asks for more in one read than a server gives: 64 MiB.
func TestLargeMessages(t *testing.T) {
	eachSDK(t, "", func(t *testing.T, _ *node, c *client) {
		c.create("large", args{"flushOnWrite": true})
		random := rand.NewChaCha8([32]byte{1})
		var sent [][]byte
		for i := range 3 {
			p := make([]byte, 5<<20)
			_, _ = random.Read(p) // never fails
			sent = append(sent, p)
			if seq := c.append("large", p); seq != int64(i) {
				t.Fatalf("sequence number %d", seq)
			}
		}
		r := c.must("read", args{"name": "large", "options": args{"minMessageCount": 3, "maxMessageCount": 3}})
		for i, m := range r.Messages {
			if !bytes.Equal(m.Payload, sent[i]) {
				t.Errorf("message %d came back different", i)
			}
		}
		for range 10 {
			c.append("large", sent[0])
		}
		c.fails("ResponsePayloadTooLargeException", "read", args{"name": "large", "options": args{"minMessageCount": 13}})
		if got := len(c.must("read", args{"name": "large", "options": args{"maxMessageCount": 13}}).Messages); got < 1 || got > 3 {
			t.Errorf("%d messages of 5 MiB in an answer that may end early", got)
		}
	})
}

// TestReadAsLongAsTheClientWaits is the edge that kills the Python client of a server that waits the whole time: an
// answer after the request's timeout ends its reader, and every later call times out.
func TestReadAsLongAsTheClientWaits(t *testing.T) {
	eachSDK(t, "", func(t *testing.T, _ *node, c *client) {
		c.must("connect", args{"requestTimeout": 2})
		c.create("quiet", nil)
		for range 2 {
			c.fails("NotEnoughMessagesException", "read", args{"name": "quiet", "options": args{"minMessageCount": 1, "readTimeoutMillis": 2000}})
		}
		if seq := c.append("quiet", []byte("alive")); seq != 0 {
			t.Errorf("sequence number %d", seq)
		}
	})
}

// TestLongReadWakesUp has one client wait for what another appends.
func TestLongReadWakesUp(t *testing.T) {
	eachSDK(t, "", func(t *testing.T, n *node, c *client) {
		c.create("s", nil)
		other := newClient(t, n, c.sdk)
		c.send("read", args{"name": "s", "options": args{"minMessageCount": 2, "maxMessageCount": 5, "readTimeoutMillis": 15_000}})
		other.append("s", []byte("one"))
		other.append("s", []byte("two"))
		if r, f := c.answer(); f != nil || len(r.Messages) != 2 {
			t.Errorf("%+v %+v", r.Messages, f)
		}
	})
}

func TestStreamsOutliveTheServer(t *testing.T) {
	for how, end := range map[string]func(n *node){"killed": (*node).kill, "stopped": (*node).stop} {
		t.Run(how, func(t *testing.T) {
			eachSDK(t, "", func(t *testing.T, n *node, c *client) {
				c.create("file", args{"flushOnWrite": true})
				c.create("fast", nil)
				c.create("memory", args{"persistence": 1})
				appended := 0
				for range 3 {
					for range 5 {
						for _, s := range []string{"file", "fast", "memory"} {
							c.append(s, fmt.Appendf(nil, "%d", appended))
						}
						appended++
					}
					end(n)
					n.start()
				}
				for _, s := range []string{"file", "fast"} {
					for i, m := range again(c, s, appended) {
						if string(m.Payload) != fmt.Sprint(i) || m.SequenceNumber != int64(i) {
							t.Fatalf("%s: message %d is %q at %d", s, i, m.Payload, m.SequenceNumber)
						}
					}
				}
				s := c.must("describe", args{"name": "memory"}).Info.StorageStatus
				if s.Oldest != 0 || s.Newest != -1 {
					t.Errorf("a memory stream after a restart: %+v", s)
				}
			})
		})
	}
}

// again is all of a stream, checked for its length.
func again(c *client, name string, count int) []message {
	c.t.Helper()
	list := c.all(name, count)
	if len(list) != count {
		c.t.Fatalf("%s: %d messages, want %d", name, len(list), count)
	}
	return list
}

// TestRestartInMidUse ends the server while appends are on their way, again and again. What was acknowledged must be
// there in order; what was not may be there too, once for each time it was sent.
func TestRestartInMidUse(t *testing.T) {
	for how, end := range map[string]func(n *node){"killed": (*node).kill, "stopped": (*node).stop} {
		t.Run(how, func(t *testing.T) {
			for _, s := range sdks() {
				if s.name == "python-1.1.2" || s.js {
					t.Run(s.name, func(t *testing.T) { restartInMidUse(t, s, end) })
				}
			}
		})
	}
}

func restartInMidUse(t *testing.T, s sdk, end func(*node)) {
	const lives, each = 3, 10
	n := newNode(t, "").start()
	c := newClient(t, n, s)
	c.must("connect", args{"requestTimeout": 2})
	c.create("s", nil)
	acknowledged := map[int64]int{}
	sent := 0
	for range lives {
		for range each {
			acknowledged[c.append("s", fmt.Appendf(nil, "%d", sent))] = sent
			sent++
		}
		c.send("append", args{"name": "s", "payload": fmt.Appendf(nil, "%d", sent)})
		end(n)
		r, f := c.answer() // whatever it is
		if f == nil {
			acknowledged[r.SequenceNumber] = sent
		}
		sent++
		n.start()
		useAgain(c)
	}
	newest := c.must("describe", args{"name": "s"}).Info.StorageStatus.Newest
	stored := c.all("s", int(newest)+1)
	for seq, number := range acknowledged {
		if string(stored[seq].Payload) != fmt.Sprint(number) {
			t.Errorf("message %d, acknowledged as %d, is %q", number, seq, stored[seq].Payload)
		}
	}
	if len(stored) < lives*each || len(stored) > sent {
		t.Errorf("%d messages stored, %d sent", len(stored), sent)
	}
}

// useAgain waits until the client works again. One call may fail: it finds the old connection gone. A Python client
// whose connection was reset (instead of closed) does not notice at all, and needs to be made anew; so does the program
// that uses it.
func useAgain(c *client) {
	c.t.Helper()
	for range 2 {
		if _, f := c.try("list", nil); f == nil {
			return
		}
	}
	c.t.Log("the client does not connect again by itself; making a new one")
	c.must("connect", args{"requestTimeout": 2})
}

// TestShutdownAnswersWhatIsOnItsWay: no client may hang for its whole timeout because the server was stopped.
func TestShutdownAnswersWhatIsOnItsWay(t *testing.T) {
	eachSDK(t, "", func(t *testing.T, n *node, c *client) {
		c.create("s", nil)
		c.must("begin", args{"name": "s", "options": args{"minMessageCount": 1, "readTimeoutMillis": 15_000}})
		c.must("list", nil) // sent behind the read: once it is answered, the server has the read too
		began := time.Now()
		n.stop()
		if _, f := c.try("finish", nil); f == nil || f.Class != "NotEnoughMessagesException" {
			t.Errorf("got %+v", f)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		n.start()
		c.append("s", []byte("the same client goes on"))
	})
}

// TestStopUnderLoad: a client whose requests were under way when the server stopped goes on when it is back. A connection
// that is reset instead of closed is the end of the Python client.
func TestStopUnderLoad(t *testing.T) {
	eachSDK(t, "", func(t *testing.T, n *node, c *client) {
		c.must("connect", args{"requestTimeout": 3})
		c.create("s", nil)
		other := newClient(t, n, c.sdk)
		c.send("parallel", args{"name": "s", "workers": 8, "each": 3000})
		testenv.Wait(t, patience, func() bool {
			return other.must("describe", args{"name": "s"}).Info.StorageStatus.Newest > 20
		}, "appends to be under way")
		n.stop()
		n.start()
		if r, f := c.answer(); f == nil {
			t.Errorf("24,000 appends were done before the server stopped: %+v", r)
		}
		var last any
		for range 3 {
			_, f := c.try("list", nil)
			if f == nil {
				return
			}
			last = f
		}
		t.Errorf("the client does not go on: %+v", last)
	})
}

func TestTokens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte(tokens), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range sdks() {
		t.Run(s.name, func(t *testing.T) {
			n := newNode(t, "stream_manager: {authenticate: true, tokens_file: "+file+"}\n").start()
			token := func(secret string) string { return "AWS_CONTAINER_AUTHORIZATION_TOKEN=" + secret }
			for what, env := range map[string]string{"a wrong token": token("wrong-secret-0123456789"), "an empty one": token(""), "none": "UNUSED=1"} {
				if _, f := startDriver(t, n, s, env).try("connect", args{"requestTimeout": 5}); f == nil || f.Class != "ConnectFailedException" {
					t.Errorf("%s: %+v", what, f)
				}
			}
			c := newClient(t, n, s, token(secretOfAll))
			c.create("press-7", nil)
			c.create("other", nil)
			some := newClient(t, n, s, token(secretOfPress))
			some.append("press-7", []byte("x"))
			some.fails("UnauthorizedException", "append", args{"name": "other", "payload": []byte("x")})
			if said := n.out.String(); strings.Contains(said, secretOfAll) || strings.Contains(said, secretOfPress) {
				t.Error("a secret in leat's log")
			}
		})
	}
}

// The tokens of the test; a line of the file is a name, the token and the streams that it is good for.
const (
	secretOfAll   = "secret-of-all-0123456789abcdef"
	secretOfPress = "secret-of-press-0123456789abcdef"
	tokens        = "all " + secretOfAll + " *\npress " + secretOfPress + " press-*\n"
)
