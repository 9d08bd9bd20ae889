//go:build linux

package clients_test

import (
	"encoding/json"
	"io"
	"os/exec"
	"syscall"
	"testing"

	"github.com/leat-io/leat/internal/testenv"
)

// client is a driver program with one SDK client in it. Its methods belong to the test's goroutine, except that send and
// answer may be apart.
type client struct {
	t       *testing.T
	sdk     sdk
	in      *json.Encoder
	answers *json.Decoder
	log     *testenv.Output
}

// result is what a command gave; the fields that the command has are set.
type result struct {
	SequenceNumber  int64     `json:"sequenceNumber"`
	SequenceNumbers [][]int64 `json:"sequenceNumbers"` // by worker
	Streams         []string  `json:"streams"`
	Messages        []message `json:"messages"`
	Info            info      `json:"info"`
}

type message struct {
	StreamName     string `json:"streamName"`
	SequenceNumber int64  `json:"sequenceNumber"`
	IngestTime     int64  `json:"ingestTime"`
	Payload        []byte `json:"payload"`
}

type info struct {
	Definition    map[string]any `json:"definition"`
	StorageStatus struct {
		Oldest int64 `json:"oldestSequenceNumber"`
		Newest int64 `json:"newestSequenceNumber"`
		Bytes  int64 `json:"totalBytes"`
	} `json:"storageStatus"`
	ExportStatuses []struct {
		Identifier   string `json:"exportConfigIdentifier"`
		LastExported int64  `json:"lastExportedSequenceNumber"`
		LastTime     int64  `json:"lastExportTime"`
		Error        string `json:"errorMessage"`
		Bytes        int64  `json:"exportedBytesFromStream"`
		Messages     int64  `json:"exportedMessagesCount"`
	} `json:"exportStatuses"`
}

// failure is an exception of the SDK: its class and message.
type failure struct {
	Class   string
	Message string
}

// args are those of a command, in the driver's names.
type args map[string]any

// newClient starts the driver of an SDK and connects. env is added to the component's environment.
func newClient(t *testing.T, n *node, s sdk, env ...string) *client {
	t.Helper()
	c := startDriver(t, n, s, env...)
	c.must("connect", args{})
	return c
}

// startDriver starts the driver of an SDK, not connected yet.
func startDriver(t *testing.T, n *node, s sdk, env ...string) *client {
	t.Helper()
	argv := s.command(t)
	cmd := exec.Command(argv[0], argv[1:]...)
	c := &client{t: t, sdk: s, log: &testenv.Output{}}
	cmd.Env = append(n.clientEnv(), env...)
	cmd.Stderr = c.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	mustf(t, err == nil, "%v", err)
	out, err := cmd.StdoutPipe()
	mustf(t, err == nil, "%v", err)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.in, c.answers = json.NewEncoder(in), json.NewDecoder(out)
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill() // nothing it would still do matters
		_ = cmd.Wait()         // "signal: killed" is what was asked for
		if t.Failed() {
			s := c.log.String()
			t.Logf("the SDK's last lines:\n%s", s[max(0, len(s)-3000):])
		}
	})
	return c
}

// send starts a command; answer must follow before the next.
func (c *client) send(do string, a args) {
	c.t.Helper()
	command := args{"do": do}
	for k, v := range a {
		command[k] = v
	}
	if err := c.in.Encode(command); err != nil {
		c.t.Fatalf("%s: the driver has ended: %v", do, err)
	}
}

// answer waits for what the command gave.
func (c *client) answer() (result, *failure) {
	c.t.Helper()
	var a struct {
		OK             *result
		Error, Message string
	}
	if err := c.answers.Decode(&a); err != nil {
		if err == io.EOF {
			c.t.Fatal("the driver has ended")
		}
		c.t.Fatal(err)
	}
	if a.OK == nil {
		return result{}, &failure{a.Error, a.Message}
	}
	return *a.OK, nil
}

func (c *client) try(do string, a args) (result, *failure) {
	c.t.Helper()
	c.send(do, a)
	return c.answer()
}

// must runs a command that succeeds.
func (c *client) must(do string, a args) result {
	c.t.Helper()
	r, f := c.try(do, a)
	if f != nil {
		c.t.Fatalf("%s: %s: %s", do, f.Class, f.Message)
	}
	return r
}

// fails runs a command that must fail with an exception, and returns its message.
func (c *client) fails(class, do string, a args) string {
	c.t.Helper()
	r, f := c.try(do, a)
	switch {
	case f == nil:
		c.t.Errorf("%s: want %s, got %+v", do, class, r)
		return ""
	case f.Class != class:
		c.t.Errorf("%s: want %s, got %s: %s", do, class, f.Class, f.Message)
	case f.Message == "":
		c.t.Errorf("%s: %s without a message", do, class)
	}
	return f.Message
}

// definition is a stream's, in the protocol's names, with what more says laid over it.
func definition(name string, more args) args {
	d := args{"name": name, "strategyOnFull": 1}
	for k, v := range more {
		d[k] = v
	}
	return d
}

// create makes a stream.
func (c *client) create(name string, more args) {
	c.t.Helper()
	c.must("create", args{"definition": definition(name, more)})
}

// append appends one message and returns its number.
func (c *client) append(name string, payload []byte) int64 {
	c.t.Helper()
	return c.must("append", args{"name": name, "payload": payload}).SequenceNumber
}

// all reads a stream from its beginning, count messages, in reads of up to 1,000.
func (c *client) all(name string, count int) []message {
	c.t.Helper()
	var list []message
	for len(list) < count {
		r := c.must("read", args{"name": name, "options": args{
			"desiredStartSequenceNumber": len(list), "minMessageCount": 1, "maxMessageCount": 1000, "readTimeoutMillis": 1000,
		}})
		list = append(list, r.Messages...)
	}
	return list
}
