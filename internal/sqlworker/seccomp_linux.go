package sqlworker

import (
	"debug/elf"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deniedAlways is the system calls that are refused. Landlock guards files, but before ABI 4 no network at all, and UDP not even today;
// without sockets there is no network. The rest is what a query never needs and a break-out often does.
func deniedAlways() []uint32 {
	return []uint32{
		unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
		unix.SYS_IO_URING_SETUP, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_UNSHARE,
		unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_KEYCTL,
		unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_PIDFD_OPEN,
		unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_PIDFD_GETFD,
	}
}

// deniedSealed is what only the confinement itself needed.
func deniedSealed() []uint32 { return []uint32{unix.SYS_EXECVE, unix.SYS_EXECVEAT} }

// hidden is the system calls that ask whether a file exists, which Landlock does not restrict; they say no. DuckDB looks
// this way for the limits of its control group below /proc and /sys, which nobody needs here, and ends when a file is
// there but does not open.
func hidden() []uint32 {
	return append([]uint32{unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2}, accessCalls()...)
}

// Offsets in struct seccomp_data, and the bit that marks x32 system calls on amd64.
const (
	dataNumber = 0
	dataArch   = 4
	x32Bit     = 0x40000000
)

// auditArch is how seccomp names the machine, or 0 where this program has no filter for it.
func auditArch() uint32 {
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64
	}
	return 0
}

// filterSyscalls makes the system calls fail, with an error, in the calling thread and all it creates; with SECCOMP_FILTER_FLAG_TSYNC
// in all threads of the process. Calls by another architecture's numbers end the process.
func filterSyscalls(denied []uint32, with unix.Errno, flags uintptr) error {
	arch := auditArch()
	if arch == 0 {
		return fmt.Errorf("no system call filter for %s", runtime.GOARCH)
	}
	prog := program(arch, denied, with)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	const setModeFilter = 1
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, flags, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	if r != 0 {
		return fmt.Errorf("filter system calls: thread %d could not be confined", r)
	}
	return nil
}

// program is the filter: first the architecture, then one comparison per denied call.
func program(arch uint32, denied []uint32, with unix.Errno) []unix.SockFilter {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		least = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		give  = unix.BPF_RET | unix.BPF_K
	)
	deny := unix.SECCOMP_RET_ERRNO | uint32(with)
	prog := []unix.SockFilter{
		{Code: load, K: dataArch},
		{Code: equal, K: arch, Jt: 1},
		{Code: give, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: load, K: dataNumber},
		{Code: least, K: x32Bit, Jf: 1}, // no system call of arm64 is that high
		{Code: give, K: deny},
	}
	for _, n := range denied {
		prog = append(prog, unix.SockFilter{Code: equal, K: n, Jf: 1}, unix.SockFilter{Code: give, K: deny})
	}
	return append(prog, unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ALLOW})
}

// dynamic reports whether the program needs the dynamic loader; when in doubt it does.
func dynamic(exe string) bool {
	f, err := elf.Open(exe)
	if err != nil {
		return true
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return true
		}
	}
	return false
}
