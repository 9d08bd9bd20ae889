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
	// leat's own AWS clients never take an endpoint from the environment or from AWS files: on a machine where AWS clients
	// are pointed at leat it would talk to itself. internal/blob/s3 sees to its own; this is for the clients that the SDK
	// makes by itself to find credentials (SSO, OIDC). Fails only for a malformed name.
	_ = os.Setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The second signal ends the process at once: whoever sends it does not want to wait.
	context.AfterFunc(ctx, stop)
	code := run(ctx, terminal{args: os.Args[1:], env: os.Environ(), in: os.Stdin, out: os.Stdout, err: os.Stderr})
	stop()
	os.Exit(code)
}
