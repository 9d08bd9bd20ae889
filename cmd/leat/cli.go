package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/record"
)

// terminal is what a command talks to, so that tests can talk to it, too.
type terminal struct {
	args []string
	env  []string
	in   io.Reader
	out  io.Writer
	err  io.Writer
}

// cli is the command line: read it from top to bottom.
type cli struct {
	Demo    demoCmd    `cmd:"" help:"Run everything in one process with a simulator: broker, log, Parquet, SQL."`
	Serve   serveCmd   `cmd:"" help:"Run the service."`
	Query   queryCmd   `cmd:"" help:"Ask the lake in SQL, rows that are not in a file yet included."`
	Streams streamsCmd `cmd:"" help:"Look at streams, put records into them, remove them."`
	Lake    lakeCmd    `cmd:"" help:"Look at the lake and move it on."`
	Log     logCmd     `cmd:"" help:"Examine and repair the durable log of a leat that is stopped."`
	Sim     simCmd     `cmd:"" help:"Publish to a broker: the reference signals, or a load."`
	Config  configCmd  `cmd:"" help:"Show or check the configuration."`
	Health  healthCmd  `cmd:"" help:"Ask a running leat whether all is well."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// node says which running leat a command asks.
type node struct {
	DataDir string `help:"Data directory of the leat that runs on this machine." default:"./leat-data" env:"LEAT_DATA_DIR" type:"path" placeholder:"DIR"`
	URL     string `help:"Address of a leat's HTTP side, instead of a data directory." placeholder:"http://HOST:PORT"`
}

func (n node) client() *api.Client {
	if n.URL != "" {
		return api.NewRemoteClient(n.URL)
	}
	return api.NewClient(n.DataDir)
}

// newParser builds the parser of the command line.
func newParser(c *cli, t terminal, exit func(int)) (*kong.Kong, error) {
	return kong.New(c, kong.Name("leat"), kong.Writers(t.out, t.err), kong.Exit(exit),
		kong.Description("Sensor data from MQTT through a durable log into Parquet in any object store, and SQL over it."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}))
}

// exited is how kong's request to end the program (after --help) comes back as an error.
type exited struct{ code int }

func (e exited) Error() string { return fmt.Sprintf("exit %d", e.code) }

// run executes one command line and returns the exit code.
func run(ctx context.Context, t terminal) (code int) {
	defer func() {
		if p := recover(); p != nil {
			e, ok := p.(exited)
			if !ok {
				panic(p)
			}
			code = e.code
		}
	}()
	parser, err := newParser(&cli{}, t, func(code int) { panic(exited{code}) })
	if err != nil {
		return t.fail(ctx, err)
	}
	args := t.args
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if err != nil {
		return t.fail(ctx, usageError(err))
	}
	k.BindTo(ctx, (*context.Context)(nil))
	if err := k.Run(t); err != nil {
		return t.fail(ctx, err)
	}
	return 0
}

// usageError gives a mistake on the command line a hint at the right help page.
func usageError(err error) error {
	command := "leat"
	if p, ok := errors.AsType[*kong.ParseError](err); ok && p.Context != nil {
		if c := p.Context.Command(); c != "" {
			words, _, _ := strings.Cut(c, " <")
			command += " " + words
		}
	}
	return record.Errorf(record.Invalid, "%w", err).WithHint("%s --help", command)
}

// fail prints an error with what to do about it and returns the exit code.
func (t terminal) fail(ctx context.Context, err error) int {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		fmt.Fprintln(t.err, "leat: interrupted")
		return exitInterrupted
	}
	fmt.Fprintf(t.err, "leat: %v\n", err)
	if hint := record.HintOf(err); hint != "" {
		fmt.Fprintf(t.err, "  %s\n", hint)
	}
	return exitCode(record.KindOf(err))
}

// exitInterrupted is what shells expect after an interrupt: 128 + SIGINT.
const exitInterrupted = 130

// exitCode is the exit code of a kind of error; docs/reference/cli.md has the table.
func exitCode(k record.Kind) int {
	switch k {
	case record.Invalid:
		return 2
	case record.NotFound:
		return 3
	case record.Conflict:
		return 4
	case record.Denied:
		return 5
	case record.Throttled:
		return 6
	case record.Full:
		return 7
	case record.Unavailable:
		return 8
	case record.Corrupt:
		return 9
	default:
		return 1
	}
}

// lookup is a variable of the environment.
func (t terminal) lookup(name string) string {
	for i := len(t.env) - 1; i >= 0; i-- {
		if k, v, ok := strings.Cut(t.env[i], "="); ok && k == name {
			return v
		}
	}
	return ""
}

// width is how wide w is when it is a terminal.
func width(w io.Writer) (columns int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile {
		return 0, false
	}
	return terminalWidth(f)
}
