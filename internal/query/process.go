package query

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-io/leat/internal/query/wire"
	"github.com/leat-io/leat/internal/record"
)

// process is a running worker.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	frames *os.File
	prints *lastBytes // what the worker printed
	buf    []byte
	killed func()

	overMemory atomic.Bool // it was killed for its memory
	overDisk   atomic.Bool // it was killed for what it wrote
	done       bool        // an answer or a failure came to its end
	stop       func()      // ends what watches the process
}

// watchEvery is how often the memory of a worker, and the room on the disk, are looked at.
const watchEvery = 100 * time.Millisecond

// startProcess starts a worker confined to the snapshot. It is killed when ctx ends; the caller must call finish.
func startProcess(ctx context.Context, binary string, snap *snapshot, opt Options, killed func()) (*process, error) {
	cfg := opt.Config
	read, scratch, err := snap.paths()
	if err != nil {
		return nil, err
	}
	out, childOut, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p := &process{frames: out, prints: &lastBytes{}, killed: killed}
	p.cmd = exec.Command(binary, arguments(cfg, read, scratch)...) //nolint:noctx // killed as a group, see kill
	p.cmd.Env = []string{}                                         // nothing is inherited, credentials least of all
	p.cmd.Dir = scratch
	p.cmd.ExtraFiles = []*os.File{childOut}
	p.cmd.Stdout, p.cmd.Stderr = p.prints, p.prints
	p.cmd.SysProcAttr = ownGroup()
	p.cmd.WaitDelay = time.Second
	if p.stdin, err = p.cmd.StdinPipe(); err == nil {
		err = p.cmd.Start()
	}
	err = errors.Join(err, childOut.Close())
	if err != nil {
		return nil, record.Errorf(record.Unavailable, "start %s: %w", binary, errors.Join(err, out.Close())).
			WithHint("check the program that sql.binary names")
	}
	p.watch(ctx, cfg.MemoryBytes+cfg.HeadroomBytes, func() bool { return snap.crowds(opt.MinFree) })
	return p, nil
}

func arguments(cfg Config, snapshot, scratch string) []string {
	// A deadline is kept by killing; processor time is bounded too in case this process dies at the wrong moment.
	cpu := int64(cfg.Timeout.Seconds()+1)*int64(cfg.Threads+1) + 10
	args := []string{
		"-snapshot", snapshot, "-scratch", scratch,
		"-memory", strconv.FormatInt(cfg.MemoryBytes+cfg.HeadroomBytes, 10),
		"-cpu", strconv.FormatInt(cpu, 10),
		"-file-size", strconv.FormatInt(max(cfg.SpillBytes, cfg.ResultBytes), 10),
	}
	if cfg.Unconfined {
		args = append(args, "-unconfined")
	}
	return args
}

// watch kills the worker when ctx ends, it holds more memory than it may, or it crowds the disk, until stop.
func (p *process) watch(ctx context.Context, memory int64, crowds func() bool) {
	unhook := context.AfterFunc(ctx, p.kill)
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				if residentBytes(p.cmd.Process.Pid) > memory {
					p.overMemory.Store(true)
					p.kill()
				}
				if crowds() {
					p.overDisk.Store(true)
					p.kill()
				}
			}
		}
	})
	p.stop = func() {
		unhook()
		close(quit)
		wg.Wait()
	}
}

func (p *process) kill() {
	if killGroup(p.cmd.Process.Pid) == nil {
		p.killed()
	}
}

// finish ends the worker, waits for it, and turns err into what a person can use.
func (p *process) finish(err error) error {
	_ = p.stdin.Close() // tells the worker to end
	if err != nil && !p.done {
		p.kill()
	}
	p.stop() // before the process is waited for: its number could name another one afterwards
	if p.done {
		// What follows the last frame is of no interest, but a worker must not outlive its query.
		_ = killGroup(p.cmd.Process.Pid)
	}
	werr := p.cmd.Wait()
	_ = p.frames.Close()
	switch {
	case p.overMemory.Load():
		return tooMuchMemory()
	case p.overDisk.Load():
		return record.Errorf(record.Full, "query needs more room on the disk than there is and was ended").
			WithHint("narrow it by year, month, day or ts, or make room: what disk.min_free says stays free")
	}
	if ended, ok := errors.AsType[*endedError](err); ok {
		return p.post(ended, werr)
	}
	return err
}

func tooMuchMemory() error {
	return record.Errorf(record.Unavailable, "query needs more memory than it may have and was ended").
		WithHint("narrow it by year, month, day or ts, ask for fewer groups, or raise sql.memory_bytes")
}

// endedError says that the worker ended in the middle of a conversation.
type endedError struct{ err error }

func (e *endedError) Error() string { return fmt.Sprintf("worker ended: %v", e.err) }

func (e *endedError) Unwrap() error { return e.err }

// post explains why a worker ended by itself.
func (p *process) post(ended *endedError, werr error) error {
	state := "no error"
	if werr != nil {
		state = werr.Error()
	}
	prints := p.prints.String()
	if strings.Contains(prints, "bad_alloc") || strings.Contains(prints, "out of memory") ||
		strings.Contains(prints, "cannot allocate memory") {
		return tooMuchMemory()
	}
	if prints != "" {
		state += "; it printed: " + prints
	}
	return record.Errorf(record.Unavailable, "SQL worker ended before its answer (%v): %s", ended.err, state).
		WithHint("nothing else was affected. Often the statement needs more memory than it may have: ask for less at a " +
			"time, or raise sql.memory_bytes. If that does not help, please report it with the statement")
}

func (p *process) send(t wire.Type, v any) error {
	if err := wire.WriteJSON(p.stdin, t, v); err != nil {
		return p.reason(err)
	}
	return nil
}

// reason prefers what the worker says about its end to the broken pipe that this end sees.
func (p *process) reason(err error) error {
	if _, _, rerr := p.read(""); rerr != nil {
		if _, ended := errors.AsType[*endedError](rerr); !ended {
			return rerr
		}
	}
	return &endedError{err}
}

// read reads a frame; a Failure is returned as an error. statement is for its position.
func (p *process) read(statement string) (wire.Type, []byte, error) {
	t, payload, err := wire.Read(p.frames, p.buf)
	if err != nil {
		return 0, nil, &endedError{err}
	}
	p.buf = payload
	switch t {
	case wire.TypeFailure:
		var f wire.Failure
		if err := p.decode(t, payload, &f); err != nil {
			return t, nil, err
		}
		p.done = true
		return t, nil, failureError(f, statement)
	case wire.TypeDone:
		p.done = true
	}
	return t, payload, nil
}

func (p *process) decode(t wire.Type, payload []byte, v any) error {
	if err := json.Unmarshal(payload, v); err != nil {
		return record.Errorf(record.Internal, "decode frame %q of SQL worker: %w", byte(t), err)
	}
	return nil
}

func (p *process) unexpected(t wire.Type) error {
	return record.Errorf(record.Internal, "SQL worker sent frame %q out of turn", byte(t))
}

// expect reads one frame of the type into v.
func (p *process) expect(t wire.Type, v any, statement string) error {
	got, payload, err := p.read(statement)
	if err != nil {
		return err
	}
	if got != t {
		return p.unexpected(got)
	}
	return p.decode(t, payload, v)
}

// hello checks who answers.
func (p *process) hello(unconfined bool) error {
	var h wire.Hello
	if err := p.expect(wire.TypeHello, &h, ""); err != nil {
		return err
	}
	switch {
	case h.Version != wire.Version:
		return record.Errorf(record.Unavailable, "%s speaks protocol %d, leat %d", p.cmd.Path, h.Version, wire.Version).
			WithHint("install the leat-sql that belongs to this leat")
	case !h.Confined && !unconfined:
		return record.Errorf(record.Denied, "%s runs unconfined", p.cmd.Path).
			WithHint("install the leat-sql that belongs to this leat")
	}
	return nil
}

// lastBytes keeps the last bytes written to it. Safe for concurrent use.
type lastBytes struct {
	mu  sync.Mutex // guards buf
	buf []byte
}

const keepBytes = 2 << 10

func (l *lastBytes) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, b...)
	if n := len(l.buf); n > keepBytes {
		l.buf = append(l.buf[:0], l.buf[n-keepBytes:]...)
	}
	return len(b), nil
}

func (l *lastBytes) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(bytes.TrimSpace(l.buf))
}
