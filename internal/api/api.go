// Package api is leat's own HTTP interface: for the CLI over a unix socket in the data directory, for people, metrics and
// health checks over TCP.
//
// Server serves, Client asks; both ends speak the types in this package as JSON. The paths:
//
//	GET  /healthz                   200 while the process works
//	GET  /readyz                    200 when the doors are open; what is degraded is listed, and is no reason for a 503
//	GET  /metrics                   Prometheus text
//	GET  /api/v1/status             what the node is doing
//	GET  /api/v1/streams            streams with bounds, policy, cursors and exports (?prefix=)
//	DELETE /api/v1/streams          removes a stream (?name=&force=1)
//	GET  /api/v1/streams/records    records of one stream, one JSON object per line (?name=&from=&limit=&follow=1)
//	POST /api/v1/streams/records    puts the body into a stream, as one record or one per line (?name=&key=&lines=1)
//	GET  /api/v1/lake/files         files of the lake (?table=)
//	POST /api/v1/lake/flush         cuts what is there now and waits until it is in the store
//	POST /api/v1/query              one SELECT; the rows are streamed in the format asked for
//
// An error is {"error": {"kind": …, "message": …, "hint": …}} with a status that follows from the kind.
//
// The TCP side answers only requests whose Host is an IP address, localhost or a configured name (so that a web page
// cannot reach it under a name of its own), and refuses writing requests from other origins. It has no users yet:
// beyond loopback it serves the networks of allow_plain only. Whoever may open the socket file may do everything.
//
// A client that goes away cancels its request. Bodies, headers, connections and the time of each write are bounded.
// Server.Serve waits for every handler it started. The package keeps no state: everything comes from Node.
package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/leat-io/leat/internal/listen"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

// Config is the `http` section.
type Config struct {
	// Listen is the address of health, metrics and the API. Empty switches the TCP side off; the socket stays.
	Listen string `yaml:"listen"`
	// AllowedHosts are the names, besides IP addresses and localhost, under which clients may ask.
	AllowedHosts []string `yaml:"allowed_hosts"`
	// AllowPlain lists the networks that may connect when the listener is open beyond this machine.
	AllowPlain []netip.Prefix `yaml:"allow_plain"`
	// MaxConnections is how many connections are open at most; more wait.
	MaxConnections int `yaml:"max_connections"`
	// WriteTimeout is how long one write to a client that does not read may take.
	WriteTimeout time.Duration `yaml:"write_timeout"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Listen: "127.0.0.1:8080", MaxConnections: 256, WriteTimeout: 30 * time.Second}
}

// Validate says which key cannot be, and what to write instead.
func (c *Config) Validate() error {
	if c.Listen != "" {
		if err := listen.Check(c.Listen); err != nil {
			return record.Errorf(record.Invalid, "http.listen: %w", err).WithHint("write for example http.listen: 127.0.0.1:8080")
		}
		if !listen.Loopback(c.Listen) && len(c.AllowPlain) == 0 {
			return record.Errorf(record.Invalid, "http.listen: %s is open beyond this machine", c.Listen).
				WithHint("bind to 127.0.0.1, or name the networks that may connect: http.allow_plain: [10.0.0.0/24]")
		}
	}
	if c.MaxConnections < 1 {
		return record.Errorf(record.Invalid, "http.max_connections: %d", c.MaxConnections).WithHint("use at least 1")
	}
	if c.WriteTimeout < time.Millisecond {
		return record.Errorf(record.Invalid, "http.write_timeout: %s", c.WriteTimeout).WithHint("use for example 30s")
	}
	return nil
}

// Node is what the API shows. Every part may be nil where a test needs only some.
type Node struct {
	Streams Streams
	Owner   Owner
	// Exports tells how each export of a stream is doing, in a stable order; nil when nothing exports.
	Exports func(name record.StreamName) []Export
	Lake    Lake
	Query   Querier
	Status  func() Status
	Metrics http.Handler
}

// Streams is the part of the stream engine that the API reads.
type Streams interface {
	List(prefix string) []stream.Info
	Lookup(name record.StreamName) (stream.Info, error)
	ListCursors(id record.StreamID) (map[string]record.Offset, error)
	Read(ctx context.Context, id record.StreamID, from record.Offset, maxBytes int, c *stream.Chunk) error
	Sync(ctx context.Context, id record.StreamID) error
}

// Lake is the part of the lake that the API shows and moves.
type Lake interface {
	Files(table string) ([]File, error)
	// Flush cuts what every stream holds now and returns when it is in the store.
	Flush(ctx context.Context) error
}

// Querier runs statements.
type Querier interface {
	// Query writes the result to out in q's format. progress may be called at any time until Query returns.
	Query(ctx context.Context, q QueryRequest, out io.Writer, progress func(QueryProgress)) error
}

// Status is what a node is doing.
type Status struct {
	Version   string     `json:"version"`
	Node      string     `json:"node"`
	PID       int        `json:"pid"`
	Started   time.Time  `json:"started"`
	DataDir   string     `json:"data_dir"`
	Ready     bool       `json:"ready"`
	Degraded  []Degraded `json:"degraded"`
	Listeners []Listener `json:"listeners"`
	Store     string     `json:"store"`
	Messages  int64      `json:"messages"`    // received since the start
	Rejected  int64      `json:"rejected"`    // of these, refused or not parsed
	Rows      int64      `json:"rows"`        // written into the lake since the start
	Files     int64      `json:"files"`       // of the lake, put into the store since the start
	FileBytes int64      `json:"file_bytes"`  // their bytes
	LastFile  string     `json:"last_file"`   // key of the newest of them
	Backlog   int64      `json:"backlog"`     // bytes in streams that are not yet in a file
	Waiting   int64      `json:"waiting"`     // bytes in the spool that are not yet in the store
	DiskUsed  int64      `json:"disk_used"`   // bytes in the data directory, as far as counted
	Budget    int64      `json:"disk_budget"` // bytes it may hold
}

// Degraded is something that does not work as it should while the node goes on.
type Degraded struct {
	What  string    `json:"what"`
	Why   string    `json:"why"`
	Since time.Time `json:"since,omitzero"`
}

// Listener is an open door.
type Listener struct {
	Door    string `json:"door"`
	Address string `json:"address"`
}

// Stream is a stream as the API lists it.
type Stream struct {
	Name     string                   `json:"name"`
	ID       string                   `json:"id"`
	First    record.Offset            `json:"first"`
	Readable record.Offset            `json:"readable"`
	Next     record.Offset            `json:"next"`
	Bytes    int64                    `json:"bytes"`
	Sealed   bool                     `json:"sealed"`
	Policy   Policy                   `json:"policy"`
	Cursors  map[string]record.Offset `json:"cursors,omitempty"`
	Exports  []Export                 `json:"exports,omitempty"`
}

// Export is one export of a stream. What its kind cannot tell is zero.
type Export struct {
	Identifier    string        `json:"identifier"`  // unique in the stream
	Kind          string        `json:"kind"`        // of the destination: lake, kinesis, http, s3, sitewise …
	Disabled      bool          `json:"disabled"`    // keeps its place and delivers nothing
	Next          record.Offset `json:"next"`        // the first record that is not settled yet
	LagRecords    uint64        `json:"lag_records"` // readable and not settled
	LagBytes      int64         `json:"lag_bytes"`   // of the stream, estimated
	LagSeconds    float64       `json:"lag_seconds"` // age of the oldest of them
	Delivered     uint64        `json:"delivered"`   // records, since the export was made or, where that is not kept, the start
	Skipped       uint64        `json:"skipped"`     // records that the destination will never take, likewise
	Dropped       uint64        `json:"dropped"`     // records that the stream lost before they were delivered, likewise
	LastDelivered time.Time     `json:"last_delivered,omitzero"`
	Retries       int           `json:"retries"` // failures in a row; 0 when all is well
	NextRetry     time.Time     `json:"next_retry,omitzero"`
	LastError     string        `json:"last_error,omitempty"` // of the failures in a row, or what was skipped or lost
	Hint          string        `json:"hint,omitempty"`       // what to do about it
}

// Policy is a stream's policy in words.
type Policy struct {
	Durability    string `json:"durability"` // disk or os
	OnFull        string `json:"on_full"`    // reject or drop_oldest
	Lane          string `json:"lane"`       // short or long
	MaxBytes      int64  `json:"max_bytes,omitempty"`
	DropBytes     int64  `json:"drop_bytes,omitempty"` // dropped at once by drop_oldest
	MaxAge        string `json:"max_age,omitempty"`
	UntilExported bool   `json:"until_exported"`
}

// Record is a record as the API shows it: the payload as text when it is UTF-8, else in base64.
type Record struct {
	Offset  record.Offset `json:"offset"`
	Time    time.Time     `json:"time"`
	Key     string        `json:"key"`
	Payload string        `json:"payload,omitempty"`
	Base64  []byte        `json:"payload_base64,omitempty"`
	Gap     string        `json:"gap,omitempty"` // instead of a record: why offsets up to Offset are missing
}

// File is a file of the lake.
type File struct {
	Table string    `json:"table"`
	Key   string    `json:"key"`
	Size  int64     `json:"size"`
	Rows  int64     `json:"rows"`
	Min   time.Time `json:"min"`
	Max   time.Time `json:"max"`
	Place string    `json:"place"` // spool or store
}

// QueryRequest is a statement and how its result is wanted.
type QueryRequest struct {
	SQL     string        `json:"sql"`
	Format  string        `json:"format,omitempty"`   // table, csv, json, ndjson, parquet
	Width   int           `json:"width,omitempty"`    // of the terminal, for table
	MaxRows int64         `json:"max_rows,omitempty"` // 0 = the server's limit
	Timeout time.Duration `json:"timeout,omitempty"`  // nanoseconds; 0 = the server's limit
	NoTail  bool          `json:"no_tail,omitempty"`  // leave out rows that are still in the stream
	Frames  bool          `json:"frames,omitempty"`   // answer in frames, with progress (see Frame)
}

// QueryProgress tells how far a statement is.
type QueryProgress struct {
	Stage   string  `json:"stage"`   // what is being done, in a few words
	Percent float64 `json:"percent"` // of that; negative when not known
	Rows    int64   `json:"rows"`
	Warning string  `json:"warning,omitempty"` // what is to be known about the answer; then the rest is empty
}

// failure is the body of an error.
type failure struct {
	Error struct {
		Kind    string `json:"kind"`
		Message string `json:"message"`
		Hint    string `json:"hint,omitempty"`
	} `json:"error"`
}

func failureOf(err error) failure {
	var f failure
	f.Error.Kind, f.Error.Message, f.Error.Hint = record.KindOf(err).String(), err.Error(), record.HintOf(err)
	return f
}

// err turns the body back into the error it came from.
func (f failure) err() error {
	kind := record.Internal
	for k := record.Internal; k <= record.Corrupt; k++ {
		if k.String() == f.Error.Kind {
			kind = k
		}
	}
	e := record.Errorf(kind, "%s", f.Error.Message)
	e.Hint = f.Error.Hint
	return e
}

// status is the HTTP status of a kind of error.
func status(k record.Kind) int {
	switch k {
	case record.NotFound:
		return http.StatusNotFound
	case record.Invalid:
		return http.StatusBadRequest
	case record.Conflict:
		return http.StatusConflict
	case record.Denied:
		return http.StatusForbidden
	case record.Throttled:
		return http.StatusTooManyRequests
	case record.Full:
		return http.StatusInsufficientStorage
	case record.Unavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client went away: nobody is left to tell
}

func writeError(w http.ResponseWriter, err error) {
	writeJSON(w, status(record.KindOf(err)), failureOf(err))
}
