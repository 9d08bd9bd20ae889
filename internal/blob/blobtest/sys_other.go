//go:build !linux

package blobtest

import "syscall"

func dieWithTest() *syscall.SysProcAttr { return nil }

func hasAttributes(string) bool { return false }
