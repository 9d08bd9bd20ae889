//go:build !unix

package streammanager

import "errors"

// nonBlocking says that writeOnce works on this system.
const nonBlocking = false

func writeOnce(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }
