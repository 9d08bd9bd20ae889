package blobtest

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithTest ends a child when the test process ends in whatever way.
func dieWithTest() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// hasAttributes reports whether the file system keeps the extended attributes in which versitygw stores metadata.
// With them an object and its metadata appear in one step; in a side directory a kill can part them.
func hasAttributes(dir string) bool { return unix.Setxattr(dir, "user.leat", []byte("1"), 0) == nil }
