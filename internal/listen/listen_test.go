package listen_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/listen"
	"github.com/leat-io/leat/internal/record"
)

func TestBusyPortNamesTheHolderAndTheFlag(t *testing.T) {
	first, err := listen.TCP(t.Context(), "127.0.0.1:0", "mqtt.listen", "--mqtt-listen")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	_, err = listen.TCP(t.Context(), first.Addr().String(), "mqtt.listen", "--mqtt-listen")
	if record.KindOf(err) != record.Conflict {
		t.Fatalf("got %v, want a conflict", err)
	}
	if !strings.Contains(err.Error(), first.Addr().String()) {
		t.Errorf("%q does not name the address", err)
	}
	if runtime.GOOS == "linux" && !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", os.Getpid())) {
		t.Errorf("%q does not name this process", err)
	}
	if h := record.HintOf(err); !strings.Contains(h, "--mqtt-listen") {
		t.Errorf("hint %q does not name the flag", h)
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		addr     string
		valid    bool
		loopback bool
	}{
		{"127.0.0.1:1883", true, true},
		{"localhost:1883", true, true},
		{"[::1]:0", true, true},
		{"[::ffff:127.0.0.1]:1", true, true},
		{":1883", true, false},
		{"0.0.0.0:1883", true, false},
		{"[::]:1883", true, false},
		{"192.168.0.7:1883", true, false},
		{"box.local:1883", true, false},
		{"1883", false, false},
		{"127.0.0.1", false, false},
		{"127.0.0.1:mqtt", false, true},
		{"127.0.0.1:70000", false, true},
	} {
		if err := listen.Check(c.addr); (err == nil) != c.valid {
			t.Errorf("Check(%q) = %v, want valid %v", c.addr, err, c.valid)
		}
		if got := listen.Loopback(c.addr); got != c.loopback {
			t.Errorf("Loopback(%q) = %v, want %v", c.addr, got, c.loopback)
		}
	}
}

func TestAForeignAddressIsAnErrorWithAHint(t *testing.T) {
	_, err := listen.TCP(t.Context(), net.JoinHostPort("203.0.113.7", "1"), "mqtt.listen", "--mqtt-listen")
	if err == nil || record.HintOf(err) == "" {
		t.Fatalf("got %v with hint %q", err, record.HintOf(err))
	}
}
