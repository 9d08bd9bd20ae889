package sqlworker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stageVar tells the second execution of the program from the first. It proves nothing: the worker tries whether it is
// confined (see confined).
const stageVar = "LEAT_SQL_STAGE"

// Rights of the file system that this program knows, by the Landlock ABI that brought them.
const (
	rightsABI1 = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO |
		unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	rightsRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	rightsExec  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE
	rightsWrite = rightsRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR
)

// LandlockABI is the version of Landlock that the running kernel offers; 0 means none.
func LandlockABI() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// confine restricts the process and executes the program again. Landlock and seccomp bind the calling thread and what
// it creates later; of the threads that the Go runtime and C libraries have started by now, execve ends all but the
// caller, so that afterwards every thread is confined. It returns only on failure.
func confine(l limits) error {
	runtime.LockOSThread()
	exe, err := os.Executable()
	if err != nil {
		return &sandboxError{err}
	}
	if err := setLimits(l); err != nil {
		return &sandboxError{err}
	}
	dropCapabilities()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return &sandboxError{fmt.Errorf("set no_new_privs: %w", err)}
	}
	err = errors.Join(landlock(l, exe), filterSyscalls(deniedAlways(), unix.EPERM, 0))
	if err != nil && !l.unconfined {
		return &sandboxError{err}
	}
	// The environment is not inherited: no credentials, no variables that libraries obey.
	env := []string{stageVar + "=2", "TZ=UTC", "LC_ALL=C", "MALLOC_CONF=background_thread:false"}
	err = unix.Exec(exe, os.Args, env)
	return &sandboxError{fmt.Errorf("execute %s again: %w", exe, err)}
}

// setLimits sets what the kernel enforces per process. RLIMIT_DATA, not RLIMIT_AS: the Go runtime and jemalloc reserve
// far more address space than they use.
func setLimits(l limits) error {
	// When memory runs out, the kernel should end a query before it ends ingest. Neither that nor politeness is vital.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
	for _, r := range []struct {
		name  string
		which int
		value int64
	}{
		{"memory", unix.RLIMIT_DATA, l.memory},
		{"processor time", unix.RLIMIT_CPU, l.cpu},
		{"file size", unix.RLIMIT_FSIZE, l.fileSize},
	} {
		if r.value <= 0 {
			continue
		}
		v := uint64(r.value)
		if err := unix.Setrlimit(r.which, &unix.Rlimit{Cur: v, Max: v}); err != nil {
			return fmt.Errorf("limit %s to %d: %w", r.name, v, err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}

// dropCapabilities empties the bounding set, so that a worker started by root has no capability after execve. A process
// without CAP_SETPCAP has nothing to drop.
func dropCapabilities() {
	for c := uintptr(0); c <= 63; c++ {
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
	}
}

// landlock confines the calling thread to reading the snapshot and the program itself, and writing the scratch
// directory; where the kernel can, also from TCP, abstract sockets and signals to others.
func landlock(l limits, exe string) error {
	abi := LandlockABI()
	if abi == 0 {
		return errors.New("this kernel has no Landlock (Linux 5.13 or later, lsm=landlock)")
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: rightsABI1}
	if abi >= 2 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 4 {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= 5 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("create Landlock rules: %w", errno)
	}
	defer unix.Close(int(fd))
	write := uint64(rightsWrite)
	if abi >= 3 {
		write |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	rules := []rule{{l.snapshot, rightsRead}, {l.scratch, write}, {exe, rightsExec}}
	rules = append(rules, libraries(exe)...)
	for _, r := range rules {
		if err := r.add(int(fd)); err != nil {
			return err
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("apply Landlock rules: %w", errno)
	}
	return nil
}

// rule grants rights on a file or on everything below a directory.
type rule struct {
	path   string
	rights uint64
}

func (r rule) add(ruleset int) error {
	fd, err := unix.Open(r.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", r.path, err)
	}
	defer unix.Close(fd)
	attr := unix.LandlockPathBeneathAttr{Allowed_access: r.rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("allow %s: %w", r.path, errno)
	}
	return nil
}

// libraries grants the dynamic loader and the system's libraries to a program that needs them. The released leat-sql is
// linked statically and does not.
func libraries(exe string) []rule {
	if !dynamic(exe) {
		return nil
	}
	var rules []rule
	for _, dir := range []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"} {
		if st, err := os.Stat(dir); err == nil {
			rights := uint64(rightsExec)
			if st.IsDir() {
				rights |= unix.LANDLOCK_ACCESS_FS_READ_DIR
			}
			rules = append(rules, rule{dir, rights})
		}
	}
	return rules
}

// confined tries what a confined worker cannot do.
func confined(l limits) error {
	if os.Getenv(stageVar) == "" {
		return errors.New("not executed a second time")
	}
	if _, err := os.ReadDir("/"); !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("reading / gave %v, not a refusal", err)
	}
	probe := filepath.Join(l.snapshot, ".probe")
	if f, err := os.OpenFile(probe, os.O_WRONLY|os.O_CREATE, 0o600); !errors.Is(err, fs.ErrPermission) {
		if err == nil {
			_ = f.Close()
			_ = os.Remove(probe)
		}
		return fmt.Errorf("writing the snapshot gave %v, not a refusal", err)
	}
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); !errors.Is(err, unix.EPERM) {
		if err == nil {
			_ = unix.Close(fd)
		}
		return fmt.Errorf("opening a socket gave %v, not a refusal", err)
	}
	return nil
}

// second reports whether this is the second execution.
func second() bool { return os.Getenv(stageVar) != "" }

// seal forbids what only the confinement itself needed: executing programs. It holds for all threads.
func seal() error {
	return errors.Join(
		filterSyscalls(deniedSealed(), unix.EPERM, unix.SECCOMP_FILTER_FLAG_TSYNC),
		filterSyscalls(hidden(), unix.ENOENT, unix.SECCOMP_FILTER_FLAG_TSYNC),
	)
}
