package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/query"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/server"
	"github.com/leat-io/leat/internal/sim"
)

type demoCmd struct {
	DataDir  string        `help:"Directory for everything that is kept." default:"./leat-data" env:"LEAT_DATA_DIR" placeholder:"DIR"`
	Period   time.Duration `help:"How often files are cut." default:"10s"`
	Rate     float64       `help:"Values per second and signal." default:"25"`
	Seed     uint64        `help:"Of the simulated values." default:"1"`
	For      time.Duration `help:"Stop by itself after this time; 0 = never." default:"0s" placeholder:"TIME"`
	LogLevel string        `help:"debug, info, warn or error." enum:"debug,info,warn,error" default:"warn"`
}

// Run runs a node and the simulator until told to stop.
func (c demoCmd) Run(ctx context.Context, t terminal) (err error) {
	if c.Rate <= 0 || c.Rate > 1000 {
		return record.Errorf(record.Invalid, "--rate %g", c.Rate).WithHint("use a rate above 0 and up to 1000")
	}
	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}
	line := newStatusLine(t.out)
	cfg, err := c.config(ctx)
	if err != nil {
		return err
	}
	log, closer, err := server.NewLogger(cfg.Logging, cfg.DataDir, line.above(t.err))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	opts := server.Options{Config: cfg, Version: programVersion(), Log: log}
	node, err := server.Open(ctx, opts)
	if record.KindOf(err) == record.Conflict { // somebody took a port since it was looked at
		opts.Config.MQTT.Listen, opts.Config.HTTP.Listen, opts.Config.StreamManager.Listen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
		node, err = server.Open(ctx, opts)
	}
	if err != nil {
		return err
	}
	d := &demo{cmd: c, node: node, line: line, out: t.out, log: log}
	defer func() { err = errors.Join(err, node.Close()) }()
	return d.run(ctx)
}

// config is the defaults with the demo's period, on free ports where the usual ones are taken.
func (c demoCmd) config(ctx context.Context) (config.Config, error) {
	l, err := config.Load(config.Source{
		Flags: map[string]string{"data_dir": c.DataDir, "ingest.period": c.Period.String(), "logging.level": c.LogLevel},
		Names: map[string]string{"data_dir": "--data-dir", "ingest.period": "--period"},
	})
	if err != nil {
		return config.Config{}, err
	}
	cfg := l.Config
	for _, addr := range []*string{&cfg.MQTT.Listen, &cfg.HTTP.Listen, &cfg.StreamManager.Listen} {
		*addr = freeAddress(ctx, *addr)
	}
	return cfg, nil
}

// freeAddress is addr, or the same host with a port that the system chooses when addr is in use.
func freeAddress(ctx context.Context, addr string) string {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err == nil {
		l.Close()
		return addr
	}
	host, _, splitErr := net.SplitHostPort(addr)
	if splitErr != nil {
		return addr
	}
	return net.JoinHostPort(host, "0")
}

// demo is a running demo.
type demo struct {
	cmd   demoCmd
	node  *server.Server
	line  *statusLine
	out   io.Writer
	log   *slog.Logger
	pub   *sim.Publisher
	began time.Time
}

// run starts the node, then the simulator, and stops them in reverse: what the simulator has sent is acknowledged, or
// was not, before the broker goes.
func (d *demo) run(ctx context.Context) error {
	nodeCtx, stopNode := context.WithCancel(context.WithoutCancel(ctx))
	defer stopNode()
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- d.node.Run(nodeCtx, func() { close(started) }) }()
	select {
	case <-started:
	case err := <-ended:
		return err
	}
	d.introduce()
	d.pub = sim.NewPublisher(sim.PublishConfig{
		Addr: d.address("mqtt"), Seed: d.cmd.Seed, Period: time.Duration(float64(time.Second) / d.cmd.Rate),
	}, d.log)

	simCtx, stopSim := context.WithCancel(ctx)
	defer stopSim()
	var wg sync.WaitGroup
	var simErr error
	wg.Go(func() { simErr = d.pub.Run(simCtx); stopSim() })
	d.began = time.Now()
	failed := d.watch(simCtx, ended)

	stopping := time.Now()
	stopSim()
	wg.Wait()
	acked, stored := d.pub.Acked(), d.node.Status()
	stopNode()
	if failed == nil {
		failed = <-ended
	}
	d.line.clear()
	if failed == nil && simErr == nil {
		d.goodbye(acked, stored, time.Since(stopping))
	}
	return errors.Join(failed, simErr)
}

func (d *demo) introduce() {
	st := d.node.Status()
	fmt.Fprintf(d.out, "leat demo: 125 signals × %g Hz → MQTT → durable log → Parquet every %s → SQL\n", d.cmd.Rate, d.cmd.Period)
	for _, l := range st.Listeners {
		fmt.Fprintf(d.out, "  %-7s %s\n", l.Door, l.Address)
	}
	fmt.Fprintf(d.out, "  %-7s %s\n", "lake", st.Store)
	fmt.Fprintf(d.out, "  %-7s at most %s, see `leat config show`\n", "disk", config.FormatSize(st.Budget))
	fmt.Fprintln(d.out, "Ctrl-C stops. The first file comes within", d.cmd.Period.String()+".")
}

// address is where a door listens, without its scheme.
func (d *demo) address(door string) string {
	for _, l := range d.node.Status().Listeners {
		if l.Door == door {
			_, addr, ok := strings.Cut(l.Address, "://")
			if !ok {
				return l.Address
			}
			return addr
		}
	}
	return ""
}

// watch shows the status every second until ctx ends, or returns the error with which the node did.
func (d *demo) watch(ctx context.Context, ended <-chan error) error {
	every := time.Second
	if !d.line.inPlace {
		every = 5 * time.Second
	}
	tick := time.NewTicker(min(every, time.Second))
	defer tick.Stop()
	told, last, shown := false, int64(0), time.Now()
	lastAt := d.began
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if err == nil {
				err = record.Errorf(record.Internal, "the node ended by itself")
			}
			return err
		case now := <-tick.C:
			st, acked := d.node.Status(), d.pub.Acked()
			if st.Files > 0 && !told {
				told = true
				d.tell()
			}
			if now.Sub(shown) < every-every/10 && last > 0 {
				continue
			}
			rate := float64(acked-last) / now.Sub(lastAt).Seconds()
			last, lastAt, shown = acked, now, now
			d.line.show(d.status(st, rate))
		}
	}
}

// status is the line, what matters most first, because a narrow terminal cuts its end.
func (d *demo) status(st api.Status, rate float64) string {
	parts := []string{grouped(int64(rate+0.5)) + " msg/s"}
	for _, g := range st.Degraded {
		parts = append(parts, "degraded: "+g.What+": "+oneLine(g.Why))
	}
	if st.Files == 0 {
		parts = append(parts, "no file yet")
	} else {
		parts = append(parts, plural(st.Files, "file")+", "+config.FormatSize(st.FileBytes),
			fmt.Sprintf("%.2f B/sample", float64(st.FileBytes)/float64(max(st.Rows, 1))))
	}
	parts = append(parts, "backlog "+config.FormatSize(st.Backlog+st.Waiting), "on disk "+config.FormatSize(st.DiskUsed+st.FileBytes))
	if st.LastFile != "" {
		parts = append(parts, "last "+filepath.Base(st.LastFile))
	}
	return strings.Join(parts, " · ")
}

// tell prints how to ask what is there, once something is.
func (d *demo) tell() {
	d.line.clear()
	if _, err := query.Locate(""); err != nil {
		fmt.Fprintf(d.out, "\nThe first file is there. %v\n  %s\n\n", err, record.HintOf(err))
		return
	}
	fmt.Fprintf(d.out, "\nThe first file is there. Ask it, in a second terminal%s:\n\n  %s\n\n", d.where(), d.command())
}

const demoQuery = "SELECT signal, count(*) AS samples, avg(value) AS mean, max(ts) AS newest FROM samples GROUP BY signal ORDER BY signal LIMIT 10"

// command is the query command as it works from the same directory.
func (d *demo) command() string {
	words := []string{shellQuote(programName()), "query"}
	if filepath.Clean(d.cmd.DataDir) != "leat-data" {
		words = append(words, "--data-dir", shellQuote(d.cmd.DataDir))
	}
	return strings.Join(append(words, `"`+demoQuery+`"`), " ")
}

// where says that the command is meant for this directory, when something in it is relative.
func (d *demo) where() string {
	if filepath.IsAbs(d.cmd.DataDir) && filepath.IsAbs(programName()) {
		return ""
	}
	if dir, err := os.Getwd(); err == nil {
		return " in " + dir
	}
	return " in this directory"
}

// programName is how this program was called.
func programName() string {
	if len(os.Args) > 0 && os.Args[0] != "" {
		return os.Args[0]
	}
	return "leat"
}

func (d *demo) goodbye(acked int64, st api.Status, took time.Duration) {
	fmt.Fprintf(d.out, "Stopped in %s. %s acknowledged and durable; %s of them in %s below %s, the rest in the log until the next start.\n",
		took.Round(10*time.Millisecond), plural(acked, "message"), grouped(min(st.Rows, acked)), plural(st.Files, "file"), st.Store)
}
