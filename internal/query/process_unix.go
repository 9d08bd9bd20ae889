//go:build unix

package query

import "syscall"

// ownGroup starts the worker in a process group of its own.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// killGroup ends the worker and whatever it may have started.
func killGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }
