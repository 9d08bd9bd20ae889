package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/leat-io/leat/internal/config"
)

type lakeCmd struct {
	Ls    lakeLsCmd    `cmd:"" help:"List the lake's files."`
	Flush lakeFlushCmd `cmd:"" help:"Cut what is there now and wait until it is in the store."`
}

type lakeLsCmd struct {
	node
	Table string `arg:"" optional:"" help:"Only this table."`
}

// Run lists files.
func (c lakeLsCmd) Run(ctx context.Context, t terminal) error {
	client := c.client()
	defer client.Close()
	files, err := client.Files(ctx, c.Table)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROWS\tSIZE\tFROM\tTO\tPLACE\tKEY")
	var rows, size int64
	for _, f := range files {
		rows, size = rows+f.Rows, size+f.Size
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", grouped(f.Rows), config.FormatSize(f.Size),
			f.Min.Format(time.DateTime), f.Max.Format(time.DateTime), f.Place, f.Key)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "%s, %s, %s\n", plural(int64(len(files)), "file"), plural(rows, "row"), config.FormatSize(size))
	return err
}

type lakeFlushCmd struct {
	node
	Timeout time.Duration `help:"Give up waiting after this time; what was cut is uploaded all the same." default:"5m"`
}

// Run flushes.
func (c lakeFlushCmd) Run(ctx context.Context, t terminal) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	client := c.client()
	defer client.Close()
	if err := client.Flush(ctx); err != nil {
		return err
	}
	_, err := fmt.Fprintln(t.out, "everything received so far is in the store")
	return err
}
