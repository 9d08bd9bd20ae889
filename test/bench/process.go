package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/sim"
)

// process is a `leat serve` under test with its data directory.
type process struct {
	bin, dir, mqtt, config string
	client                 *api.Client
	cmd                    *exec.Cmd
}

// newProcess makes a directory for a node with a configuration in YAML; close removes it.
func newProcess(bin, yaml string) (*process, error) {
	dir, err := os.MkdirTemp("", "leat-bench-")
	if err != nil {
		return nil, err
	}
	p := &process{bin: bin, dir: filepath.Join(dir, "data"), config: filepath.Join(dir, "leat.yaml")}
	p.client = api.NewClient(p.dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.mqtt = l.Addr().String()
	if err := errors.Join(l.Close(), os.WriteFile(p.config, []byte(yaml), 0o600)); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// start starts leat and waits until it is ready.
func (p *process) start(ctx context.Context) error {
	p.cmd = exec.Command(filepath.Join(p.bin, "leat"), "serve", "-c", p.config, "--data-dir", p.dir,
		"--mqtt-listen", p.mqtt, "--http-listen", "",
		"--stream-manager-listen", "127.0.0.1:0", "--log-level", "warn")
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		st, err := p.client.Status(ctx)
		if err == nil && st.Ready {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("leat does not become ready: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// streamManager is the address of the Stream Manager's door.
func (p *process) streamManager(ctx context.Context) (string, error) {
	st, err := p.client.Status(ctx)
	if err != nil {
		return "", err
	}
	for _, l := range st.Listeners {
		if l.Door == "stream manager" {
			return l.Address, nil
		}
	}
	return "", errors.New("leat has no Stream Manager door")
}

// kill ends leat without warning.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended by itself
	_ = p.cmd.Wait()         // killed
	p.cmd = nil
}

// close kills leat and removes its directory.
func (p *process) close() error {
	p.kill()
	p.client.Close()
	return os.RemoveAll(filepath.Dir(p.dir))
}

// usage is what a process has used.
type usage struct {
	cpu  time.Duration
	rss  int64 // now
	peak int64
}

func (p *process) usage() (u usage, err error) {
	pid := p.cmd.Process.Pid
	var cpuErr, rssErr, peakErr error
	u.cpu, cpuErr = sim.CPUTime(pid)
	u.rss, rssErr = sim.ResidentBytes(pid)
	u.peak, peakErr = sim.PeakResidentBytes(pid)
	return u, errors.Join(cpuErr, rssErr, peakErr)
}

// files is what the lake holds.
func (p *process) files(ctx context.Context) (count int, rows, size int64, err error) {
	list, err := p.client.Files(ctx, "")
	for _, f := range list {
		rows, size = rows+f.Rows, size+f.Size
	}
	return len(list), rows, size, err
}
