package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/leat-io/leat/internal/api"
	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/record"
)

type healthCmd struct {
	node
	JSON bool `help:"Everything, as JSON."`
}

// Run prints what a running leat says of itself. It fails when the leat is not ready, not when something is degraded:
// an outage of the store is no reason to restart a box.
func (c healthCmd) Run(ctx context.Context, t terminal) error {
	client := c.client()
	defer client.Close()
	st, err := client.Status(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(t.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(st)
	} else {
		err = c.print(t, st)
	}
	if err != nil {
		return err
	}
	if !st.Ready {
		return record.Errorf(record.Unavailable, "not ready").WithHint("its log lines say what it is waiting for")
	}
	return nil
}

func (c healthCmd) print(t terminal, st api.Status) error {
	state := "ready"
	switch {
	case !st.Ready:
		state = "not ready"
	case len(st.Degraded) > 0:
		state = "ready, degraded"
	}
	fmt.Fprintf(t.out, "%s  leat %s, node %s, pid %d, up %s\n", state, st.Version, st.Node, st.PID, time.Since(st.Started).Round(time.Second))
	for _, d := range st.Degraded {
		fmt.Fprintf(t.out, "degraded  %s: %s\n", d.What, d.Why)
	}
	for _, l := range st.Listeners {
		fmt.Fprintf(t.out, "listens   %s %s\n", l.Door, l.Address)
	}
	fmt.Fprintf(t.out, "received  %s messages, %s rejected\n", grouped(st.Messages), grouped(st.Rejected))
	fmt.Fprintf(t.out, "lake      %s rows in %s (%s) to %s\n", grouped(st.Rows), plural(st.Files, "file"), config.FormatSize(st.FileBytes), st.Store)
	_, err := fmt.Fprintf(t.out, "waiting   %s in the log, %s in the spool; %s of %s used\n", config.FormatSize(st.Backlog),
		config.FormatSize(st.Waiting), config.FormatSize(st.DiskUsed), config.FormatSize(st.Budget))
	return err
}
