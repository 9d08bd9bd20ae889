package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/record"
)

type streamsPutCmd struct {
	node
	Name    string   `arg:"" help:"Name of the stream; it must exist."`
	Records []string `arg:"" help:"The records, one each; - reads them from standard input, one per line."`
	Key     string   `help:"Key of the records: what they are about, like an MQTT topic."`
}

// Run puts records into a stream and prints the offset of each once it is acknowledged.
func (c streamsPutCmd) Run(ctx context.Context, t terminal) error {
	client := c.client()
	defer client.Close()
	if len(c.Records) == 1 && c.Records[0] == "-" {
		return c.putLines(ctx, client, t)
	}
	for _, text := range c.Records {
		p, err := client.Put(ctx, c.Name, c.Key, []byte(text), false)
		if err != nil {
			return err
		}
		if err := c.print(t, p); err != nil {
			return err
		}
	}
	return nil
}

// The most that putLines sends at once.
const (
	putLines = 1000
	putBytes = 1 << 20
)

// putLines sends lines in batches: as many as there are already, so that a line that is typed does not wait for others.
func (c streamsPutCmd) putLines(ctx context.Context, client *api.Client, t terminal) error {
	in := bufio.NewReaderSize(t.in, 64<<10)
	var batch []byte
	for lines, ended := 0, false; !ended; {
		line, err := readLine(in)
		ended = errors.Is(err, io.EOF)
		if err != nil && !ended {
			return fmt.Errorf("read records: %w", err)
		}
		if len(line) > 0 {
			batch = append(batch, line...)
			lines++
		}
		if lines == 0 || !ended && lines < putLines && len(batch) < putBytes && in.Buffered() > 0 {
			continue
		}
		p, err := client.Put(ctx, c.Name, c.Key, batch, true)
		if err != nil {
			return err
		}
		if err := c.print(t, p); err != nil {
			return err
		}
		batch, lines = batch[:0], 0
	}
	return nil
}

// readLine reads a line with its end; with io.EOF comes what follows the last one, if anything.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
		if len(line) > record.MaxPayload {
			return nil, record.Errorf(record.Invalid, "a line is longer than %d bytes", record.MaxPayload).
				WithHint("a record cannot be larger")
		}
	}
}

func (c streamsPutCmd) print(t terminal, p api.Put) error {
	var out bytes.Buffer
	for i := range p.Count {
		fmt.Fprintln(&out, p.First+record.Offset(i))
	}
	_, err := t.out.Write(out.Bytes())
	return err
}

type streamsRmCmd struct {
	node
	Name string `arg:"" help:"Name of the stream."`
	Yes  bool   `short:"y" help:"Also when it holds records: they are lost."`
}

// Run removes a stream. It never asks, so that scripts behave as people do.
func (c streamsRmCmd) Run(ctx context.Context, t terminal) error {
	client := c.client()
	defer client.Close()
	if err := client.Remove(ctx, c.Name, c.Yes); err != nil {
		return err
	}
	_, err := fmt.Fprintf(t.out, "removed %s\n", c.Name)
	return err
}
