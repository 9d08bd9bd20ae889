// Package listen opens TCP listeners with errors that say who has the port and what to change, and knows which
// addresses reach beyond this machine.
//
// It starts no goroutine and keeps no state. The holder of a port is looked up through /proc, so it is named on Linux
// and only where this process may see it.
package listen

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/leat-io/leat/internal/record"
)

// TCP listens on addr (host:port; port 0 picks a free one). key is the setting that addr came from and flag the
// command-line flag that changes it: both end up in the error's hint.
func TCP(ctx context.Context, addr, key, flag string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		who := "another program"
		if h, ok := Holder(addr); ok {
			who = h
		}
		return nil, record.Errorf(record.Conflict, "%s: address %s is in use by %s", key, addr, who).
			WithHint("stop it, or listen elsewhere: %s HOST:PORT (or the key %s)", flag, key)
	case errors.Is(err, syscall.EACCES):
		return nil, record.Errorf(record.Denied, "%s: not allowed to listen on %s: %w", key, addr, err).
			WithHint("ports below 1024 need rights: choose a higher one with %s HOST:PORT", flag)
	}
	return nil, record.Errorf(record.Invalid, "%s: listen on %s: %w", key, addr, err).
		WithHint("give an address of this machine with %s HOST:PORT (or the key %s)", flag, key)
}

// Check reports what is wrong with a listen address without opening it.
func Check(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return record.Errorf(record.Invalid, "%q: want host:port", addr)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return record.Errorf(record.Invalid, "%q: the port is no number from 0 to 65535", addr)
	}
	return nil
}

// Loopback reports whether only this machine can reach addr (host:port). Names other than localhost count as beyond.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Holder names the process that listens on addr's port: `mosquitto (pid 123)`.
func Holder(addr string) (name string, ok bool) {
	_, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return "", false
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return "", false
	}
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if b, err := os.ReadFile(table); err == nil {
			listening(b, uint16(port), inodes)
		}
	}
	if len(inodes) == 0 {
		return "", false
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return "", false
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !inodes[target] {
			continue
		}
		pid := strings.Split(link, "/")[2]
		comm, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (pid %s)", bytes.TrimSpace(comm), pid), true
	}
	return "", false
}

// listening adds the sockets of table (the text of /proc/net/tcp) that listen on port, in the form of fd links.
func listening(table []byte, port uint16, into map[string]bool) {
	const stateListen = "0A"
	sc := bufio.NewScanner(bytes.NewReader(table))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 10 || f[3] != stateListen {
			continue
		}
		_, hex, ok := strings.Cut(f[1], ":")
		if p, err := strconv.ParseUint(hex, 16, 16); ok && err == nil && uint16(p) == port {
			into["socket:["+f[9]+"]"] = true
		}
	}
}
