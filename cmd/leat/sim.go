package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/sim"
)

type simCmd struct {
	Signals simSignalsCmd `cmd:"" default:"withargs" help:"Publish the reference set: 125 signals in the mix of a plant."`
	Load    simLoadCmd    `cmd:"" help:"Publish numbered messages as fast as the broker acknowledges them, and report."`
}

// target is the broker that a simulator publishes to.
type target struct {
	Broker      string `help:"Address of the broker." default:"127.0.0.1:1883" placeholder:"HOST:PORT"`
	Connections int    `help:"How many connections." default:"5"`
	User        string `help:"User name, when the broker wants one." placeholder:"NAME"`
	Password    string `help:"Password; better in the environment." env:"LEAT_SIM_PASSWORD" placeholder:"SECRET"`
}

type simSignalsCmd struct {
	target
	Rate   float64 `help:"Values per second and signal." default:"25"`
	Count  int64   `help:"Stop after so many messages; 0 = never." default:"0"`
	Seed   uint64  `help:"Of the values: equal seeds give equal values." default:"1"`
	Prefix string  `help:"Topics are PREFIX/<signal>." default:"demo"`
}

// Run publishes until it is told to stop.
func (c simSignalsCmd) Run(ctx context.Context, t terminal) error {
	if c.Rate <= 0 || c.Rate > 10_000 || c.Connections < 1 || c.Connections > 125 {
		return record.Errorf(record.Invalid, "--rate %g, --connections %d", c.Rate, c.Connections).
			WithHint("use a rate above 0 and up to 10000, and 1 to 125 connections")
	}
	log := slog.New(slog.NewTextHandler(t.err, nil))
	p := sim.NewPublisher(sim.PublishConfig{
		Addr: c.Broker, Prefix: c.Prefix, Seed: c.Seed, Connections: c.Connections, Count: c.Count, User: c.User, Password: c.Password,
		Period: time.Duration(float64(time.Second) / c.Rate),
	}, log)
	began := time.Now()
	err := p.Run(ctx)
	fmt.Fprintf(t.out, "%s acknowledged in %s\n", plural(p.Acked(), "message"), time.Since(began).Round(time.Millisecond))
	if err != nil {
		return record.Errorf(record.Unavailable, "%w", err).WithHint("name the broker with --broker HOST:PORT")
	}
	return nil
}

type simLoadCmd struct {
	target
	Messages   int           `help:"How many messages." default:"2000000"`
	First      int           `help:"Number of the first one." default:"0"`
	Topics     int           `help:"How many topics." default:"125"`
	Window     int           `help:"Unacknowledged messages per connection." default:"1000"`
	Rate       int           `help:"Messages per second, over all connections; 0 = as fast as possible." default:"0"`
	Prefix     string        `help:"Topics are PREFIX/000, PREFIX/001 …" default:"load"`
	AtMostOnce bool          `help:"QoS 0 instead of 1."`
	Reconnect  time.Duration `help:"Keep trying for so long when a connection breaks." default:"0s"`
	JSON       bool          `help:"Report as JSON."`
}

// Run publishes the load and reports.
func (c simLoadCmd) Run(ctx context.Context, t terminal) error {
	res, err := sim.Load(ctx, sim.LoadConfig{
		Addr: c.Broker, Messages: c.Messages, First: c.First, Topics: c.Topics, Connections: c.Connections, Window: c.Window,
		Rate: c.Rate, Prefix: c.Prefix, AtMostOnce: c.AtMostOnce, Reconnect: c.Reconnect, User: c.User, Password: c.Password,
		ClientID: "leat-load",
	})
	if res.Acked == nil {
		return record.Errorf(record.Invalid, "%w", err)
	}
	if c.JSON {
		enc := json.NewEncoder(t.out)
		if eerr := enc.Encode(map[string]any{
			"sent": res.Sent, "acked": res.Acked.Len(), "unknown": res.Unknown, "breaks": res.Breaks,
			"seconds": res.Elapsed.Seconds(), "per_second": res.Rate(),
		}); eerr != nil {
			return eerr
		}
	} else {
		fmt.Fprintf(t.out, "%s acknowledged in %s: %s/s (%s sent, %s unknown after %s)\n", plural(res.Acked.Len(), "message"),
			res.Elapsed.Round(time.Millisecond), grouped(int64(res.Rate())), grouped(res.Sent), grouped(res.Unknown),
			plural(res.Breaks, "broken connection"))
	}
	if err != nil {
		return record.Errorf(record.Unavailable, "%w", err).WithHint("name the broker with --broker HOST:PORT")
	}
	return nil
}
