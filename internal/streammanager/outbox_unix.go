//go:build unix

package streammanager

import (
	"errors"
	"syscall"
)

// nonBlocking says that writeOnce works on this system.
const nonBlocking = true

// writeOnce writes what the kernel takes at once.
func writeOnce(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), b)
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}
