package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/record"
)

type queryCmd struct {
	node
	SQL     string        `arg:"" name:"statement" help:"One SELECT statement; - reads it from standard input."`
	Format  string        `short:"f" help:"${enum}." enum:"table,csv,json,ndjson,parquet" default:"table"`
	Output  string        `short:"o" help:"Write the answer to a file." placeholder:"FILE"`
	MaxRows int64         `help:"Cut the answer after so many rows; 0 = no limit." default:"0" placeholder:"N"`
	Timeout time.Duration `help:"Give up after this time; 0 = the server's limit." default:"0s" placeholder:"TIME"`
	NoTail  bool          `help:"Leave out rows that are not in a file yet."`
	Quiet   bool          `short:"q" help:"No progress."`
}

// Run sends the statement and copies the answer.
func (c queryCmd) Run(ctx context.Context, t terminal) (err error) {
	if c.SQL == "-" {
		text, err := io.ReadAll(t.in)
		if err != nil {
			return fmt.Errorf("read statement: %w", err)
		}
		c.SQL = string(text)
	}
	out := t.out
	if c.Output != "" {
		f, err := os.Create(c.Output)
		if err != nil {
			return record.Errorf(record.Invalid, "write answer: %w", err).WithHint("choose another place with --output")
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	columns, isTerminal := width(out)
	if c.Format == "parquet" && isTerminal {
		return record.Errorf(record.Invalid, "Parquet is binary").WithHint("name a file with --output, or choose another --format")
	}
	p := progressLine{t: t}
	if _, show := width(t.err); show && !c.Quiet {
		p.show = true
	}
	client := c.client()
	defer client.Close()
	req := api.QueryRequest{SQL: c.SQL, Format: c.Format, Width: columns, MaxRows: c.MaxRows, Timeout: c.Timeout, NoTail: c.NoTail}
	err = client.Query(ctx, req, clearing{out, &p}, p.update)
	p.clear()
	return err
}

// progressLine is one line on standard error that is written over and over, and gone when the answer begins.
type progressLine struct {
	t     terminal
	show  bool
	shown bool
	next  time.Time
}

func (p *progressLine) update(q api.QueryProgress) {
	if q.Warning != "" {
		p.clear()
		fmt.Fprintf(p.t.err, "note: %s\n", q.Warning)
		return
	}
	if now := time.Now(); !p.show || now.Before(p.next) {
		return
	}
	p.next = time.Now().Add(100 * time.Millisecond)
	line := q.Stage
	if q.Percent >= 0 {
		line = fmt.Sprintf("%s %3.0f %%", q.Stage, q.Percent)
	}
	fmt.Fprintf(p.t.err, "\r\x1b[K%s", line)
	p.shown = true
}

func (p *progressLine) clear() {
	if p.shown {
		fmt.Fprint(p.t.err, "\r\x1b[K")
		p.shown = false
	}
}

// clearing removes the progress line before each piece of the answer, since both may be on one terminal.
type clearing struct {
	io.Writer
	p *progressLine
}

func (c clearing) Write(b []byte) (int, error) {
	c.p.clear()
	return c.Writer.Write(b)
}

// oneLine keeps a text on one line of a table.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
