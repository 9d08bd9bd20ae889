package api

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"github.com/leat-io/leat/internal/record"
)

// SocketName is the socket's name in the data directory.
const SocketName = "leat.sock"

// maxSocketPath is how long a path the kernel takes for a socket everywhere (sun_path less its zero byte; macOS has
// 104, Linux 108).
const maxSocketPath = 103

// ListenSocket opens the socket in a data directory, for this user only. The caller holds the directory's lock, so a
// socket that is there already belongs to nobody.
func ListenSocket(dataDir string) (net.Listener, error) {
	path := filepath.Join(dataDir, SocketName)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	short, release, err := shorten(dataDir)
	if err != nil {
		return nil, err
	}
	defer release()
	l, err := net.Listen("unix", short)
	if err != nil {
		return nil, record.Errorf(record.Unavailable, "listen on %s: %w", path, err).
			WithHint("the data directory must lie on a file system that can hold sockets")
	}
	// The listener knows the short name only; the file is removed by whoever listens next, under the lock.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("restrict socket: %w", err)
	}
	return l, nil
}

// dialSocket connects to the socket in a data directory.
func dialSocket(ctx context.Context, dataDir string) (net.Conn, error) {
	short, release, err := shorten(dataDir)
	if err != nil {
		return nil, err
	}
	defer release()
	var d net.Dialer
	return d.DialContext(ctx, "unix", short)
}

// shorten gives a path of the socket that the kernel takes: the path itself or, when that is too long, one through the
// open directory, valid until release.
func shorten(dataDir string) (path string, release func(), err error) {
	path = filepath.Join(dataDir, SocketName)
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	if runtime.GOOS != "linux" {
		return "", nil, record.Errorf(record.Invalid, "socket path %s is longer than %d bytes", path, maxSocketPath).
			WithHint("choose a shorter --data-dir")
	}
	f, err := os.Open(dataDir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), SocketName), func() { f.Close() }, nil
}
