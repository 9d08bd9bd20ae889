package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/record"
)

type streamsCmd struct {
	Ls       streamsLsCmd       `cmd:"" help:"List streams."`
	Describe streamsDescribeCmd `cmd:"" help:"Show one stream."`
	Tail     streamsTailCmd     `cmd:"" help:"Print records of a stream."`
	Put      streamsPutCmd      `cmd:"" help:"Put records into a stream and print their offsets."`
	Rm       streamsRmCmd       `cmd:"" help:"Remove a stream with its cursors and exports. One that holds records needs --yes."`
}

type streamsLsCmd struct {
	node
	Prefix string `arg:"" optional:"" help:"Only streams whose names start so."`
}

// Run lists streams.
func (c streamsLsCmd) Run(ctx context.Context, t terminal) error {
	client := c.client()
	defer client.Close()
	list, err := client.Streams(ctx, c.Prefix)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STREAM\tRECORDS\tSIZE\tNOT EXPORTED\tEXPORTS\tSTATE")
	for _, s := range list {
		state := "open"
		if s.Sealed {
			state = "sealed"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, grouped(int64(s.Next-s.First)), config.FormatSize(s.Bytes),
			behind(s), exports(s.Exports), state)
	}
	return w.Flush()
}

// behind is how many records the slowest export has not taken yet.
func behind(s api.Stream) string {
	if len(s.Cursors) == 0 {
		return "-"
	}
	slowest := slices.Min(slices.Collect(maps.Values(s.Cursors)))
	return grouped(int64(s.Next - min(slowest, s.Next)))
}

// exports is how many exports a stream has, and how many of them do not deliver.
func exports(all []api.Export) string {
	var failing, disabled int
	for _, e := range all {
		switch {
		case e.Disabled:
			disabled++
		case e.Retries > 0:
			failing++
		}
	}
	switch {
	case len(all) == 0:
		return "-"
	case failing > 0:
		return fmt.Sprintf("%d of %d failing", failing, len(all))
	case disabled > 0:
		return fmt.Sprintf("%d of %d disabled", disabled, len(all))
	}
	return fmt.Sprintf("%d ok", len(all))
}

type streamsDescribeCmd struct {
	node
	Name string `arg:"" help:"Name of the stream."`
}

// Run shows one stream as JSON: everything there is to know, in a form that tools read.
func (c streamsDescribeCmd) Run(ctx context.Context, t terminal) error {
	client := c.client()
	defer client.Close()
	list, err := client.Streams(ctx, c.Name)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(s api.Stream) bool { return s.Name == c.Name })
	if i < 0 {
		return record.Errorf(record.NotFound, "there is no stream %q", c.Name).WithHint("leat streams ls lists them")
	}
	enc := json.NewEncoder(t.out)
	enc.SetIndent("", "  ")
	return enc.Encode(list[i])
}

type streamsTailCmd struct {
	node
	Name   string `arg:"" help:"Name of the stream."`
	Lines  int64  `short:"n" help:"How many of the newest records to begin with." default:"10"`
	From   string `help:"Begin at an offset, or at first, instead of the newest." placeholder:"OFFSET"`
	Follow bool   `short:"F" help:"Wait for more."`
	JSON   bool   `help:"One JSON object per record."`
}

// Run prints records.
func (c streamsTailCmd) Run(ctx context.Context, t terminal) error {
	client := c.client()
	defer client.Close()
	o := api.TailOptions{From: c.From, Follow: c.Follow}
	if c.From == "" {
		// "The last n, then more" is two requests in one: the server counts the n, and a limit would end it after them.
		start, err := c.newest(ctx, client)
		if err != nil {
			return err
		}
		o.From = fmt.Sprint(start)
	}
	enc := json.NewEncoder(t.out)
	return client.Tail(ctx, c.Name, o, func(r api.Record) error {
		if c.JSON {
			return enc.Encode(r)
		}
		return c.print(t, r)
	})
}

func (c streamsTailCmd) newest(ctx context.Context, client *api.Client) (record.Offset, error) {
	list, err := client.Streams(ctx, c.Name)
	if err != nil {
		return 0, err
	}
	for _, s := range list {
		if s.Name == c.Name {
			// All of it is readable when the next request is answered.
			return max(s.First, s.Next-min(s.Next, record.Offset(max(c.Lines, 0)))), nil
		}
	}
	return 0, record.Errorf(record.NotFound, "there is no stream %q", c.Name).WithHint("leat streams ls lists them")
}

func (c streamsTailCmd) print(t terminal, r api.Record) error {
	if r.Gap != "" {
		_, err := fmt.Fprintf(t.out, "-- %s\n", r.Gap)
		return err
	}
	payload := oneLine(r.Payload)
	if len(r.Base64) > 0 {
		payload = "base64:" + base64.StdEncoding.EncodeToString(r.Base64)
	}
	_, err := fmt.Fprintf(t.out, "%d  %s  %s  %s\n", r.Offset, r.Time.Format("2006-01-02T15:04:05.000Z"), r.Key, payload)
	return err
}
