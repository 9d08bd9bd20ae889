package forward

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"

	"github.com/leat-io/leat/internal/awsclient"
)

const (
	// connectTimeout is the most time for making a connection; Config.Timeout when that is less.
	connectTimeout = 10 * time.Second
	// slowest is the bytes per second at which a request may use more than Config.Timeout: a batch must get through a
	// thin line some day, and a server that dribbles must not keep a slot for ever.
	slowest = 8 << 10
	// chainAttempts is how often the credential chain sends a request. Small, because runners retry for ever.
	chainAttempts = 2
)

// Targets makes the targets of exports. All share its connections, and the exports of one destination its credentials
// and client, so that a hundred exports cost what one does. It is safe for concurrent use.
//
// Making a target does no I/O and cannot fail: what is wrong with a destination is the error of Deliver, so that it
// shows in the export's status and goes away when it is repaired. Credentials are found at the first delivery and, where
// none can be, at each one.
//
// A request in which nothing moves for Config.Timeout is given up; one that moves may take a second more for each 8 KiB.
// The bytes of a request are waited for (Limiter) before it begins. Targets start no goroutines beyond those of net/http.
type Targets struct {
	cfg     Config
	limiter *Limiter
	client  *http.Client // follows no redirects

	mu       sync.Mutex // guards accounts; held while configuration files are read, never over the network
	accounts map[awsclient.Config]*account
}

// account is what exports of one destination share.
type account struct {
	region  string
	creds   aws.CredentialsProvider
	kinesis *kinesis.Client
}

// NewTargets makes Targets. Close it when no target is used any more.
func NewTargets(o Options) *Targets {
	cfg := o.Config.withDefaults()
	return &Targets{
		cfg: cfg, limiter: o.Limiter, accounts: map[awsclient.Config]*account{},
		client: awsclient.NewHTTPClient(awsclient.HTTPOptions{
			ConnectTimeout: min(connectTimeout, cfg.Timeout), StallTimeout: cfg.Timeout, IdleConns: cfg.Threads,
		}),
	}
}

// Close ends idle connections.
func (t *Targets) Close() error {
	t.client.CloseIdleConnections()
	return nil
}

// account finds region and credentials of a destination, once.
func (t *Targets) account(ctx context.Context, c awsclient.Config) (*account, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.accounts[c]; a != nil {
		return a, nil
	}
	region, creds, err := c.Identity(ctx, t.client, chainAttempts)
	if err != nil {
		return nil, err
	}
	a := &account{region: region, creds: creds}
	o := kinesis.Options{Region: region, Credentials: creds, HTTPClient: t.client, Retryer: aws.NopRetryer{}}
	if c.Endpoint != "" {
		o.BaseEndpoint = &c.Endpoint
	}
	a.kinesis = kinesis.New(o)
	t.accounts[c] = a
	return a, nil
}

// admit waits for the bandwidth of a request of n bytes and returns the context that bounds it.
func (t *Targets) admit(ctx context.Context, n int) (context.Context, context.CancelFunc, error) {
	if err := t.limiter.Wait(ctx, n); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout+time.Duration(n)*time.Second/slowest)
	return ctx, cancel, nil
}
