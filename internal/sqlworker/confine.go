package sqlworker

import (
	"errors"
	"flag"
	"fmt"
)

// limits is how a worker confines itself. It comes from the command line, because it is needed before anything else.
type limits struct {
	snapshot   string // directory to read
	scratch    string // directory to write
	memory     int64  // bytes of private memory, enforced by the kernel; 0 = no limit
	fileSize   int64  // bytes of the largest file it may write; 0 = no limit
	cpu        int64  // seconds of processor time; 0 = no limit
	unconfined bool   // run even where the kernel cannot confine
}

func (l *limits) flags(fs *flag.FlagSet) {
	fs.StringVar(&l.snapshot, "snapshot", "", "directory that the statement may read")
	fs.StringVar(&l.scratch, "scratch", "", "directory that the worker may write")
	fs.Int64Var(&l.memory, "memory", 0, "bytes of memory the kernel grants")
	fs.Int64Var(&l.fileSize, "file-size", 0, "bytes of the largest file the kernel grants")
	fs.Int64Var(&l.cpu, "cpu", 0, "seconds of processor time the kernel grants")
	fs.BoolVar(&l.unconfined, "unconfined", false, "run even where the kernel cannot confine the worker")
}

func (l *limits) validate() error {
	if l.snapshot == "" || l.scratch == "" {
		return errors.New("-snapshot and -scratch are required: leat starts this program, people use `leat query`")
	}
	return nil
}

// sandboxError says that the worker could not confine itself.
type sandboxError struct{ err error }

func (e *sandboxError) Error() string { return fmt.Sprintf("confine worker: %v", e.err) }

func (e *sandboxError) Unwrap() error { return e.err }
