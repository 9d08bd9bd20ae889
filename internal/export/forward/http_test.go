package forward

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/stream"
)

func TestHTTPPostsEachMessage(t *testing.T) {
	d := newDouble(t, func(_ int, w http.ResponseWriter, _ received) { respond(w, 204, "") })
	b := batchOf("one", "\x00two", "")
	if err := targetsFor(t, "", nil).HTTP(d.URL+"/in?x=1", RawNotBatched).Deliver(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	var bodies []string
	for _, r := range d.got() {
		bodies = append(bodies, string(r.body))
		if r.Method != http.MethodPost || r.URL.String() != "/in?x=1" || r.Header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
	}
	if !slices.Equal(bodies, []string{"one", "\x00two", ""}) || len(b.Pending()) != 0 {
		t.Errorf("%q, pending %v", bodies, b.Pending())
	}
}

func TestHTTPPostsABatch(t *testing.T) {
	d := newDouble(t, func(_ int, w http.ResponseWriter, _ received) { respond(w, 200, "") })
	b := batchOf("one", "two", "\xff")
	b.Delivered(0)
	target := targetsFor(t, "", nil).HTTP(d.URL, JSONBatched)
	if err := target.Deliver(t.Context(), b); err != nil || len(b.Pending()) != 0 {
		t.Fatal(err, b.Pending())
	}
	const want = `[{"streamName":"readings","sequenceNumber":101,"ingestTime":1700000000123,"payload":"dHdv"},` +
		`{"streamName":"readings","sequenceNumber":102,"ingestTime":1700000000123,"payload":"/w=="}]`
	if r := d.got()[0]; string(r.body) != want || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s\nwant %s", r.body, want)
	}
	if err := target.Deliver(t.Context(), b); err != nil || len(d.got()) != 1 {
		t.Errorf("%v; a settled batch was posted", err)
	}
}

// No answer but 2xx delivers or drops a message.
func TestHTTPAnswers(t *testing.T) {
	for status, want := range map[int]struct {
		kind record.Kind
		hint string
	}{
		302: {record.Invalid, "somebody has to repair"}, 307: {record.Invalid, "somebody"},
		400: {record.Invalid, "somebody has to repair"}, 401: {record.Denied, "credentials"}, 403: {record.Denied, "credentials"},
		404: {record.NotFound, "correct"}, 408: {record.Unavailable, "tries again"}, 410: {record.NotFound, "correct"},
		413: {record.Invalid, "somebody"}, 422: {record.Invalid, "somebody"}, 425: {record.Unavailable, "tries again"},
		429: {record.Throttled, "slows down"}, 500: {record.Unavailable, "tries again"}, 503: {record.Unavailable, "tries again"},
	} {
		for _, format := range []HTTPFormat{RawNotBatched, JSONBatched} {
			t.Run(fmt.Sprint(status, format), func(t *testing.T) {
				d := newDouble(t, func(_ int, w http.ResponseWriter, _ received) {
					w.Header().Set("Location", "/elsewhere")
					respond(w, status, "because of this\nhush")
				})
				b := batchOf("a", "b")
				err := targetsFor(t, "", nil).HTTP(d.URL, format).Deliver(t.Context(), b)
				wantError(t, err, want.kind, fmt.Sprint(status), want.hint)
				if !strings.Contains(err.Error(), "because of this") || len(b.Pending()) != 2 || len(d.got()) != 1 {
					t.Errorf("%v, pending %v, %d requests", err, b.Pending(), len(d.got()))
				}
			})
		}
	}
}

// The messages before the one that failed are not sent again.
func TestHTTPGoesOnWhereItStopped(t *testing.T) {
	d := newDouble(t, func(n int, w http.ResponseWriter, _ received) {
		status := 200
		if n == 1 {
			status = 503
		}
		respond(w, status, "")
	})
	target := targetsFor(t, "", nil).HTTP(d.URL, RawNotBatched)
	b := batchOf("a", "b", "c")
	if err := target.Deliver(t.Context(), b); err == nil || !slices.Equal(b.Pending(), []int{1, 2}) {
		t.Fatal(err, b.Pending())
	}
	if err := target.Deliver(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	var bodies []string
	for _, r := range d.got() {
		bodies = append(bodies, string(r.body))
	}
	if !slices.Equal(bodies, []string{"a", "b", "b", "c"}) {
		t.Errorf("%q", bodies)
	}
}

func TestHTTPAddressKeepsItsSecrets(t *testing.T) {
	d := newDouble(t, func(_ int, w http.ResponseWriter, r received) {
		respond(w, 403, "you sent "+r.Header.Get("Authorization")+" hush to "+r.URL.String())
	})
	targets := targetsFor(t, "", nil)
	host := strings.TrimPrefix(d.URL, "http://")
	for _, uri := range []string{"http://hush:hush@" + host + "/x", d.URL + "/?token=hush"} {
		wantError(t, targets.HTTP(uri, JSONBatched).Deliver(t.Context(), batchOf("a")), record.Denied, host, "")
	}
	if user, _, ok := d.got()[0].BasicAuth(); !ok || user != "hush" {
		t.Error("user and password of the address were not used")
	}
	for _, uri := range []string{"", "hush", "ftp://hush/", "http://hush:hush@x:port/", "http:///hush"} {
		wantError(t, targets.HTTP(uri, RawNotBatched).Deliver(t.Context(), batchOf("a")), record.Invalid, "uri of the export", "https://")
	}
	wantError(t, targets.HTTP(d.URL, 7).Deliver(t.Context(), batchOf("a")), record.Invalid, "format 7", "JSON_BATCHED")
}

func TestRetryAfter(t *testing.T) {
	for header, want := range map[string][2]time.Duration{
		"":                    {0, 0},
		"120":                 {120 * time.Second, 120 * time.Second},
		"-5":                  {0, 0},
		"9223372036854775807": {24 * time.Hour, 24 * time.Hour},
		"soon":                {0, 0},
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat):  {59 * time.Minute, time.Hour},
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): {0, 0},
	} {
		d := newDouble(t, func(_ int, w http.ResponseWriter, _ received) {
			w.Header().Set("Retry-After", header)
			respond(w, 503, "")
		})
		targets := targetsFor(t, d.URL, nil)
		for kind, target := range map[string]Target{
			KindHTTP: targets.HTTP(d.URL, RawNotBatched), KindKinesis: targets.Kinesis("s", "x", "k"), KindSiteWise: targets.SiteWise("s", "x"),
		} {
			err := target.Deliver(t.Context(), batchOf(entry("e", 1)))
			if got := RetryAfter(err); got < want[0] || got > want[1] || record.KindOf(err) != record.Unavailable || record.HintOf(err) == "" {
				t.Errorf("%s, %q: %s (%v)", kind, header, got, err)
			}
		}
	}
}

// Bytes are waited for before they are sent.
func TestTargetsWaitForBandwidth(t *testing.T) {
	d := newDouble(t, func(_ int, w http.ResponseWriter, _ received) { respond(w, 200, "") })
	c := Config{Timeout: 5 * time.Second}
	targets := NewTargets(Options{Config: c, Limiter: NewLimiter(1)})
	defer targets.Close()
	target := targets.HTTP(d.URL, RawNotBatched)
	if err := target.Deliver(t.Context(), batchOf(strings.Repeat("x", minBurst))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := target.Deliver(ctx, batchOf(strings.Repeat("x", 1000))); record.KindOf(err) != record.Unavailable || !strings.Contains(err.Error(), "bandwidth") {
		t.Error(err)
	}
	if n := len(d.got()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// What a destination asks for lengthens the pause, up to the configured limit.
func TestRunnerHonoursRetryAfter(t *testing.T) {
	for after, want := range map[time.Duration]time.Duration{0: time.Second, 90 * time.Second: 90 * time.Second, 24 * time.Hour: 5 * time.Minute} {
		bubble(t, stream.Policy{}, func(t *testing.T, w *world) {
			var f fakeTarget
			f.set(func(context.Context, *Batch) error { return paused(errDown, after) })
			w.set(&f)
			w.put(0, 10)
			pass(10 * time.Minute)
			times := f.times()
			if d := times[1].Sub(times[0]); d > want || d < want/2 || (after > 0 && d != want) {
				t.Errorf("asked for %v: a pause of %v, want %v", after, d, want)
			}
		})
	}
}

func TestConfigNamesTheDestinationThatCannotBe(t *testing.T) {
	err := Config{Destinations: []Destination{{}, {Kind: "firehose"}}}.Validate()
	wantError(t, err, record.Invalid, `exports.destinations[1].kind: "firehose"`, "kinesis")
}
