// Command leat leads sensor data from the device to the lake: an MQTT broker, a durable log, Parquet in any object
// store, and SQL over it. See docs/guide/getting-started.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The second signal ends the process at once: whoever sends it does not want to wait.
	context.AfterFunc(ctx, stop)
	code := run(ctx, terminal{args: os.Args[1:], env: os.Environ(), in: os.Stdin, out: os.Stdout, err: os.Stderr})
	stop()
	os.Exit(code)
}
