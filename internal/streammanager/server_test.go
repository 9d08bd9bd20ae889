package streammanager

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/streammanager/wire"
	"github.com/leat-io/leat/internal/testenv"
)

func TestConfigSaysWhatToWriteInstead(t *testing.T) {
	off, on := false, true
	networks := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // in the error and its hint; "" when valid
	}{
		"default":                       {func(*Config) {}, ""},
		"off":                           {func(c *Config) { c.Listen = "" }, ""},
		"no address":                    {func(c *Config) { c.Listen = "8088" }, "stream_manager.listen: 127.0.0.1:8088"},
		"beyond, nothing else":          {func(c *Config) { c.Listen = ":8088" }, "tokens_file"},
		"beyond, no network":            {func(c *Config) { c.Listen, c.TokensFile = ":8088", "t" }, "allow_plain"},
		"beyond, no token":              {func(c *Config) { c.Listen, c.AllowPlain = ":8088", networks }, "authenticate: false"},
		"beyond, both":                  {func(c *Config) { c.Listen, c.TokensFile, c.AllowPlain = ":8088", "t", networks }, ""},
		"beyond, nobody asked":          {func(c *Config) { c.Listen, c.Authenticate, c.AllowPlain = ":8088", &off, networks }, ""},
		"authenticate without a file":   {func(c *Config) { c.Authenticate = &on }, "tokens_file"},
		"authenticate with a file":      {func(c *Config) { c.Authenticate, c.TokensFile = &on, "t" }, ""},
		"no connection":                 {func(c *Config) { c.MaxConnections = 0 }, "max_connections"},
		"no memory":                     {func(c *Config) { c.MemoryBytes = 5 }, "memory_bytes"},
		"threads of exports":            {func(c *Config) { c.Exports.Threads = -1 }, "stream_manager.exports.threads"},
		"a pattern that matches nobody": {func(c *Config) { c.ReclaimExported = []string{"a", ""} }, "reclaim_exported"},
	} {
		cfg := DefaultConfig()
		c.change(&cfg)
		err := cfg.Validate()
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if text := fmt.Sprint(err, record.HintOf(err)); record.KindOf(err) != record.Invalid || !strings.Contains(text, c.want) || record.HintOf(err) == "" {
			t.Errorf("%s: %s, want %q and a hint", name, text, c.want)
		}
	}
}

func TestBusyPortIsExplained(t *testing.T) {
	s, _, log := openDoor(t, &fakeService{})
	if !strings.Contains(log.String(), `msg="Stream Manager reporting the state: RUNNING"`) {
		t.Errorf("log %q", log)
	}
	cfg := DefaultConfig()
	cfg.Listen = s.Addr().String()
	_, err := OpenServer(t.Context(), cfg, &fakeService{}, slog.New(slog.DiscardHandler))
	if record.KindOf(err) != record.Conflict || !strings.Contains(err.Error(), "stream_manager.listen") {
		t.Errorf("%v", err)
	}
}

func TestCloseWithoutRunFreesTheAddress(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	for range 2 {
		s, err := OpenServer(t.Context(), cfg, &fakeService{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listen = s.Addr().String()
		ok(t, s.Close())
		ok(t, s.Close())
	}
}

func TestHandshake(t *testing.T) {
	_, p, _ := openPipes(t, &fakeService{})
	for name, c := range map[string]struct {
		connect wire.Connect
		version string
		status  wire.Status
	}{
		"newest":          {wire.Connect{ProtocolVersion: "1.1.0"}, "1.1.0", wire.Success},
		"older":           {wire.Connect{ProtocolVersion: "1.0.0"}, "1.0.0", wire.Success},
		"newer, can less": {wire.Connect{ProtocolVersion: "2.0.0", OtherSupportedProtocolVersions: []string{"1.5.0", "1.0.0"}}, "1.0.0", wire.Success},
		"newer only":      {wire.Connect{ProtocolVersion: "2.0.0"}, "1.1.0", wire.UnsupportedProtocolVersion},
		"no version":      {wire.Connect{ProtocolVersion: "one"}, "1.1.0", wire.InvalidProtocolVersion},
		"a token unasked": {wire.Connect{ProtocolVersion: "1.1.0", AuthToken: "whatever"}, "1.1.0", wire.Success},
	} {
		t.Run(name, func(t *testing.T) {
			cl := p.dial(t)
			c.connect.RequestID = "id-1"
			r := cl.hello(&c.connect)
			if r.Status != c.status || r.ProtocolVersion != c.version || r.RequestID != "id-1" || (r.ErrorMessage != "") != (c.status != 0) {
				t.Errorf("%+v", r)
			}
			if r.Status != wire.Success {
				cl.wantEnd()
			} else if !slices.Equal(r.SupportedProtocolVersions, wire.ProtocolVersions) || r.ServerVersion == "" || r.ClientIdentifier == "" ||
				!slices.Contains(r.Extensions, wire.ExtensionAppendBatch) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestHandshakeRefusesWithAnAnswer(t *testing.T) {
	s, _, _ := openDoor(t, &fakeService{})
	hello := func(c *doorClient) []byte {
		return c.frame([]byte{1}, wire.OpConnect, &wire.Connect{RequestID: "a", ProtocolVersion: "1.1.0"})
	}
	for name, c := range map[string]struct {
		bytes  func(c *doorClient) []byte
		id     string
		status wire.Status
	}{
		"wrong version":    {func(c *doorClient) []byte { return append([]byte{7}, hello(c)[1:]...) }, "", wire.UnsupportedConnectVersion},
		"a web browser":    {func(*doorClient) []byte { return []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n") }, "", wire.UnsupportedConnectVersion},
		"another request":  {func(c *doorClient) []byte { return c.frame([]byte{1}, wire.OpList, &wire.ListRequest{RequestID: "l"}) }, "l", wire.UnexpectedOperation},
		"no map":           {func(*doorClient) []byte { return []byte{1, 0, 0, 0, 2, 1, 0x80} }, "", wire.InvalidRequest},
		"far too much":     {func(*doorClient) []byte { return append([]byte{1, 0x00, 0x10, 0, 0, 1}, make([]byte, 1<<20)...) }, "", wire.RequestPayloadTooLarge},
		"no id in it":      {func(c *doorClient) []byte { return c.frame([]byte{1}, wire.OpConnect, &wire.Connect{}) }, "", wire.InvalidRequest},
		"an impossible id": {func(c *doorClient) []byte { return c.frame([]byte{1}, wire.OpConnect, &wire.Connect{RequestID: "ü"}) }, "ü", wire.InvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			cl := dial(t, s)
			cl.nc.Write(c.bytes(cl)) //nolint:errcheck // the door may be gone before all of it has left
			if r := cl.welcome(); r.Status != c.status || r.RequestID != c.id || r.ErrorMessage == "" {
				t.Errorf("%+v", r)
			}
			cl.wantEnd()
		})
	}
	testenv.Wait(t, patience, func() bool { return s.Stats().Refused == 7 }, "the last refusal")
	if st := s.Stats(); st.Accepted != 7 || st.Failures["UnsupportedConnectVersion"] != 2 {
		t.Errorf("%+v", st)
	}
}

func TestConnectionsBeyondTheLimitAreRefused(t *testing.T) {
	s, _, _ := openDoor(t, &fakeService{}, func(c *Config) { c.MaxConnections = 2 })
	a := connect(t, s, "")
	connect(t, s, "")
	dial(t, s).wantEnd()
	a.nc.Close()
	testenv.Wait(t, patience, func() bool { return s.Stats().Open == 1 }, "the end of a connection")
	connect(t, s, "")
	if st := s.Stats(); st.Open != 2 || st.Refused != 1 || st.Accepted != 4 {
		t.Errorf("%+v", st)
	}
}

// address is a connection that claims to come from elsewhere.
type address struct {
	net.Conn
	from string
}

func (a address) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(a.from))
}

func TestNetworksAreCheckedBeforeTheHandshake(t *testing.T) {
	for from, allowed := range map[string]bool{
		"10.1.2.3:5": true, "[::ffff:10.1.2.3]:5": true, "127.0.0.1:5": true, "[::1]:5": true, "11.0.0.1:5": false, "[2001:db8::1]:5": false,
	} {
		p := newPipes()
		cfg := DefaultConfig()
		cfg.Listen, cfg.AllowPlain = "0.0.0.0:8088", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		off := false
		cfg.Authenticate = &off
		s := newServer(cfg, nil, &fakeService{}, p, slog.New(slog.DiscardHandler))
		runServer(t, s)
		mine, theirs := net.Pipe()
		p.conns <- address{theirs, from}
		c := newDoorClient(t, mine)
		if allowed {
			c.greet("")
		} else {
			c.wantEnd()
		}
		if got := s.Stats().Refused == 0; got != allowed {
			t.Errorf("%s: allowed %v, want %v", from, got, allowed)
		}
	}
}

func TestThousandConnections(t *testing.T) {
	s, stop, _ := openDoor(t, &fakeService{})
	connect(t, s, "").create("s")
	const n, each = 1000, 5
	var wg sync.WaitGroup
	for i := range n {
		c := dial(t, s)
		wg.Go(func() {
			switch i % 10 {
			case 0: // never says anything
			case 1: // half of a handshake
				c.nc.Write([]byte{1, 0, 0}) //nolint:errcheck // whatever becomes of it
			default:
				c.greet("")
				for k := range each {
					id := fmt.Sprint(k)
					c.send(wire.OpAppend, appendRequest(id, "s", "hello"))
					c.want(wire.OpAppendResponse, id, wire.Success)
				}
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.AppendedMessages != n*8/10*each || st.AppendedBytes != n*8/10*each*5 || st.Open != n+1 {
		t.Errorf("%+v", st)
	}
	began := time.Now()
	if stop(); time.Since(began) > 2*time.Second {
		t.Errorf("the stop took %s", time.Since(began))
	}
	if st := s.Stats(); st.Open != 0 {
		t.Errorf("%d are open after the stop", st.Open)
	}
}

func TestStopAnswersWhatIsInFlight(t *testing.T) {
	entered, release := make(chan struct{}, 2), make(chan struct{})
	var after sync.WaitGroup
	service := &fakeService{
		onRead: untilStopped,
		onAppend: func(_ context.Context, name string, _ [][]byte, done func(int64, error)) {
			after.Go(func() { // like a log whose disk hangs
				entered <- struct{}{}
				if name == "slow" {
					time.Sleep(100 * time.Millisecond) // until well behind the beginning of the stop
				} else {
					<-release
				}
				done(7, nil)
			})
		},
	}
	s, stop, _ := openDoor(t, service)
	c := connect(t, s, "")
	c.send(wire.OpRead, &wire.ReadRequest{RequestID: "read", StreamName: "s"})
	c.send(wire.OpAppend, appendRequest("hung", "s", "x"))
	c.send(wire.OpAppend, appendRequest("slow", "slow", "x"))
	<-entered
	<-entered
	began := time.Now()
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	c.want(wire.OpReadResponse, "read", wire.NotEnoughMessages)
	c.want(wire.OpAppendResponse, "slow", wire.Success)
	if r := c.want(wire.OpAppendResponse, "hung", wire.ServerTimeout); !strings.Contains(r.ErrorMessage, "stopping") {
		t.Errorf("%q", r.ErrorMessage)
	}
	c.wantEnd()
	<-stopped
	if d := time.Since(began); d < stopTime || d > 2*time.Second {
		t.Errorf("the stop took %s", d)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("the address is still bound")
	}
	close(release) // the log ends later; nobody wants to know any more
	after.Wait()
}

func TestStopEndsAnAppendThatWaitsForAdmission(t *testing.T) {
	entered := make(chan struct{})
	s, stop, _ := openDoor(t, &fakeService{onAppend: func(ctx context.Context, _ string, _ [][]byte, done func(int64, error)) {
		close(entered)
		<-ctx.Done()
		done(0, record.Errorf(record.Unavailable, "not admitted: %w", ctx.Err()))
	}})
	c := connect(t, s, "")
	c.send(wire.OpAppend, appendRequest("a", "s", "x"))
	<-entered
	go stop()
	if _, r := c.answer(); r.RequestID != "a" || r.Status == wire.Success {
		t.Errorf("%+v", r)
	}
	c.wantEnd()
}

func FuzzConnection(f *testing.F) {
	c := &doorClient{t: f}
	hello := c.frame([]byte{1}, wire.OpConnect, &wire.Connect{RequestID: "c", ProtocolVersion: "1.1.0"})
	f.Add([]byte{}, true)
	f.Add(hello, false)
	f.Add([]byte{0, 0, 0, 0, 4}, true)
	f.Add([]byte{0x7f, 0xff, 0xff, 0xff, 4, 0xa1}, true)
	f.Add(c.frame(c.frame(nil, wire.OpAppend, appendRequest("a", "s", "x")), wire.OpRead, &wire.ReadRequest{RequestID: "a", StreamName: "s"}), true)
	f.Add(c.frame(nil, wire.OpCreate, &wire.CreateRequest{RequestID: "a", Definition: define("s")}), true)
	f.Add(c.frame(nil, 99, &wire.ListRequest{RequestID: "a"}), true)
	f.Fuzz(func(t *testing.T, b []byte, greeted bool) {
		p := newPipes()
		s := newServer(DefaultConfig(), nil, &fakeService{}, p, slog.New(slog.DiscardHandler))
		stop := runServer(t, s)
		cl := p.dial(t)
		if greeted {
			b = append(slices.Clip(hello), b...)
		}
		read := make(chan []byte)
		go func() {
			all, _ := io.ReadAll(cl.nc) // it ends with the connection
			read <- all
		}()
		cl.nc.Write(b) //nolint:errcheck // the door may close before
		stop()
		all := <-read
		if len(all) > 0 && all[0] != wire.ConnectVersion {
			t.Fatalf("first byte %d", all[0])
		}
		// Whatever came, what is answered are whole frames.
		for rest := all[min(1, len(all)):]; len(rest) > 0; {
			if len(rest) < wire.HeaderSize {
				t.Fatalf("%d bytes behind the last frame", len(rest))
			}
			_, size, err := wire.ParseHeader(rest)
			if err != nil || len(rest) < wire.HeaderSize+size {
				t.Fatalf("half a frame: %v", err)
			}
			var r wire.Response
			_ = wire.DecodeResponse(rest[wire.HeaderSize:][:size], &r)
			if r.Status > wire.UnknownOperation {
				t.Fatalf("status %d", r.Status)
			}
			rest = rest[wire.HeaderSize+size:]
		}
	})
}
