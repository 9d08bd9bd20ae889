package forward

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/record"
)

type putMessages struct {
	ChannelName string             `json:"channelName"`
	Messages    []analyticsMessage `json:"messages"`
}

// analytics answers each request with an error of a code for the payloads that say names.
func analytics(t *testing.T, say func(payload string) string) *double {
	return newDouble(t, func(_ int, w http.ResponseWriter, r received) {
		wantSigned(t, r, "iotanalytics")
		if r.Method != http.MethodPost || r.URL.Path != "/messages/batch" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		in := decode[putMessages](t, r.body)
		ids := map[string]bool{}
		var errs []string
		for _, m := range in.Messages {
			ids[m.ID] = true
			if !strings.HasPrefix(m.ID, "plant-7_") || !uuid.MatchString(strings.TrimPrefix(m.ID, "plant-7_")) {
				t.Errorf("id %q", m.ID)
			}
			if code := say(string(m.Payload)); code != "" {
				errs = append(errs, fmt.Sprintf(`{"messageId":%q,"errorCode":%q,"errorMessage":"no good"}`, m.ID, code))
			}
		}
		if len(ids) != len(in.Messages) || len(ids) > 100 || in.ChannelName != "readings_channel" {
			t.Errorf("%d ids for %d messages to %s", len(ids), len(in.Messages), in.ChannelName)
		}
		respond(w, 200, `{"batchPutMessageErrorEntries":[`+strings.Join(errs, ",")+`]}`)
	})
}

func TestIoTAnalyticsDelivers(t *testing.T) {
	d := analytics(t, func(string) string { return "" })
	b := batchOf(make([]string, 203)...)
	b.Messages[5].Payload = []byte(strings.Repeat("x", 128<<10))
	b.Messages[6].Payload = []byte(strings.Repeat("x", 128<<10+1))
	b.Messages[7].Payload = nil
	if err := targetsFor(t, d.URL, nil).IoTAnalytics("readings", "x", "readings_channel", "plant-7_").Deliver(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	s := skipped(b)
	if len(d.got()) != 3 || len(b.Pending()) != 0 || len(s) != 1 || !strings.Contains(s[6], "131073 bytes, and") {
		t.Errorf("%d requests, pending %v, skipped %v", len(d.got()), b.Pending(), s)
	}
	if strings.Contains(string(d.got()[0].body), "null") {
		t.Error("a payload is null")
	}
}

func TestIoTAnalyticsMessagesThatAreRefused(t *testing.T) {
	d := analytics(t, func(p string) string {
		return map[string]string{"bad": "InvalidRequestException", "late": "ThrottlingException", "odd": "Unheard"}[p]
	})
	b := batchOf("good", "bad", "late", "odd", "good")
	err := targetsFor(t, d.URL, nil).IoTAnalytics("readings", "x", "readings_channel", "plant-7_").Deliver(t.Context(), b)
	wantError(t, err, record.Throttled, "2 of 5 messages refused for now, the first: ThrottlingException: no good", "slows down")
	if s := skipped(b); !slices.Equal(b.Pending(), []int{2, 3}) || len(s) != 1 || s[1] != "IoT Analytics: InvalidRequestException: no good" {
		t.Errorf("pending %v, skipped %v", b.Pending(), s)
	}
}

// AWS's own is no more: the error says so, and nothing is sent anywhere.
func TestIoTAnalyticsNeedsAnEndpoint(t *testing.T) {
	b := batchOf("a")
	targets := targetsFor(t, "", nil)
	wantError(t, targets.IoTAnalytics("readings", "x", "c", "").Deliver(t.Context(), b), record.Invalid, "AWS ended IoT Analytics", "add a destination")
	if len(b.Pending()) != 1 {
		t.Error("settled")
	}
}
