package forward

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/record"
)

type assetEntries struct {
	Entries []assetEntry `json:"entries"`
}

// siteWise answers each request with the errors that say gives for its entries, by the value they carry.
func siteWise(t *testing.T, say func(value int64) string) *double {
	return newDouble(t, func(_ int, w http.ResponseWriter, r received) {
		wantSigned(t, r, "iotsitewise")
		if r.Method != http.MethodPost || r.URL.Path != "/properties" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		in := decode[assetEntries](t, r.body)
		ids := map[string]bool{}
		var errs []string
		for _, e := range in.Entries {
			ids[e.EntryID] = true
			if code := say(*e.PropertyValues[0].Value.Integer); code != "" {
				errs = append(errs, fmt.Sprintf(`{"entryId":%q,"errors":[{"errorCode":%q,"errorMessage":"no good","timestamps":[]}]}`, e.EntryID, code))
			}
		}
		if len(ids) != len(in.Entries) || len(ids) > 10 {
			t.Errorf("%d ids for %d entries", len(ids), len(in.Entries))
		}
		respond(w, 200, `{"errorEntries":[`+strings.Join(errs, ",")+`]}`)
	})
}

// Messages of the same id, and more than fit one request.
func TestSiteWiseDelivers(t *testing.T) {
	d := siteWise(t, func(int64) string { return "" })
	var messages []string
	for i := range 23 {
		messages = append(messages, entry("same", i))
	}
	b := batchOf(messages...)
	if err := targetsFor(t, d.URL, nil).SiteWise("readings", "x").Deliver(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	var values []int64
	for _, r := range d.got() {
		for _, e := range decode[assetEntries](t, r.body).Entries {
			values = append(values, *e.PropertyValues[0].Value.Integer)
		}
	}
	if len(d.got()) != 3 || len(values) != 23 || !slices.IsSorted(values) || len(b.Pending()) != 0 || len(skipped(b)) != 0 {
		t.Errorf("%d requests, %v, %v", len(d.got()), values, skipped(b))
	}
}

// What is refused for good is skipped, with the reason; what may go away stays; the rest is delivered.
func TestSiteWiseEntriesThatAreRefused(t *testing.T) {
	for code, want := range map[string]string{
		"InvalidRequestException": "skip", "TimestampOutOfRangeException": "skip", "ResourceNotFoundException": "skip", "AccessDeniedException": "skip",
		"ThrottlingException": "throttled", "LimitExceededException": "throttled", "InternalFailureException": "unavailable",
		"ServiceUnavailableException": "unavailable", "ConflictingOperationException": "unavailable", "SomethingNewException": "unavailable",
	} {
		t.Run(code, func(t *testing.T) {
			d := siteWise(t, func(v int64) string {
				if v == 1 {
					return code
				}
				return ""
			})
			b := batchOf(entry("a", 0), entry("a", 1), entry("a", 2))
			err := targetsFor(t, d.URL, nil).SiteWise("readings", "x").Deliver(t.Context(), b)
			if want == "skip" {
				if err != nil || len(b.Pending()) != 0 || len(skipped(b)) != 1 || skipped(b)[1] != "SiteWise: "+code+": no good" {
					t.Errorf("%v, pending %v, skipped %v", err, b.Pending(), skipped(b))
				}
				return
			}
			if record.KindOf(err).String() != want || !slices.Equal(b.Pending(), []int{1}) || !strings.Contains(err.Error(), code) {
				t.Errorf("%v (%s), pending %v", err, record.KindOf(err), b.Pending())
			}
		})
	}
}

// An entry that conflicted beside others and still does alone would do so for ever.
func TestSiteWiseConflictAlone(t *testing.T) {
	d := siteWise(t, func(v int64) string { return map[int64]string{1: "ConflictingOperationException"}[v] })
	target := targetsFor(t, d.URL, nil).SiteWise("readings", "x")
	b := batchOf(entry("a", 0), entry("a", 1))
	if err := target.Deliver(t.Context(), b); err == nil || len(skipped(b)) != 0 {
		t.Fatal(err, skipped(b))
	}
	if err := target.Deliver(t.Context(), b); err != nil || len(skipped(b)) != 1 {
		t.Error(err, skipped(b))
	}
}

// A request that is refused as a whole for one entry's sake is taken apart; the others are delivered.
func TestSiteWiseFindsTheEntryToBlame(t *testing.T) {
	d := newDouble(t, func(_ int, w http.ResponseWriter, r received) {
		if strings.Contains(string(r.body), `"integerValue":2}`) {
			w.Header().Set("X-Amzn-ErrorType", "InvalidRequestException:http://internal.amazon.com/")
			respond(w, 400, `{"message":"bad alias"}`)
			return
		}
		respond(w, 200, `{"errorEntries":[]}`)
	})
	b := batchOf(entry("a", 1), entry("a", 2), entry("a", 3))
	if err := targetsFor(t, d.URL, nil).SiteWise("readings", "x").Deliver(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if s := skipped(b); len(s) != 1 || s[1] != "SiteWise: InvalidRequestException (400): bad alias" || len(b.Pending()) != 0 {
		t.Errorf("%v, pending %v", s, b.Pending())
	}
}

// An answer about entries that were never sent says nothing about those that were.
func TestSiteWiseForeignEntry(t *testing.T) {
	for _, id := range []string{"7", "", "-1", "+0", "00", "x"} {
		d := newDouble(t, func(_ int, w http.ResponseWriter, _ received) {
			respond(w, 200, fmt.Sprintf(`{"errorEntries":[{"entryId":%q,"errors":[]}]}`, id))
		})
		b := batchOf(entry("a", 1))
		wantError(t, targetsFor(t, d.URL, nil).SiteWise("readings", "x").Deliver(t.Context(), b), record.Unavailable, "not sent", "check that")
		if len(b.Pending()) != 1 {
			t.Error("settled")
		}
	}
}

// Messages that are no entries are skipped with what is wrong, before anything is sent.
func TestSiteWiseSkipsWhatIsNoEntry(t *testing.T) {
	entryWith := func(id, property, values string) string {
		return fmt.Sprintf(`{"entryId":%q,%s,"propertyValues":[%s]}`, id, property, values)
	}
	const alias, value = `"propertyAlias":"/a"`, `{"value":{"doubleValue":1.5},"timestamp":{"timeInSeconds":1,"offsetInNanos":5},"quality":"GOOD"}`
	with := func(v, at string) string {
		return entryWith("e", alias, fmt.Sprintf(`{"value":{%s},"timestamp":{%s}}`, v, at))
	}
	const at, one = `"timeInSeconds":1`, `"doubleValue":1`
	bad := []struct{ payload, want string }{
		{"", "not the JSON"}, {"[]", "not the JSON"}, {"{", "not the JSON"}, {`{"entryId":7}`, "not the JSON"}, {"{}", "entryId"},
		{entryWith("e", alias, value) + "{}", "more than one"},
		{entryWith("", alias, value), "entryId"}, {entryWith("é", alias, value), "entryId"}, {entryWith(strings.Repeat("e", 65), alias, value), "entryId"},
		{entryWith("e", `"x":1`, value), "neither"}, {entryWith("e", `"assetId":"a"`, value), "together"},
		{entryWith("e", `"assetId":"a","propertyId":"p",`+alias, value), "one or the other"},
		{entryWith("e", `"propertyAlias":"a\u0007"`, value), "propertyAlias"}, {entryWith("e", `"propertyAlias":"`+strings.Repeat("a", 2049)+`"`, value), "2048"},
		{entryWith("e", alias, ""), "propertyValues: 0"}, {entryWith("e", alias, strings.Repeat(value+",", 10)+value), "propertyValues: 11"},
		{with("", at), "value: 0 given"}, {with(`"doubleValue":1,"booleanValue":true`, at), "value: 2 given"},
		{with(`"stringValue":""`, at), "stringValue"}, {with(`"stringValue":"`+strings.Repeat("é", 1025)+`"`, at), "stringValue"},
		{with(`"integerValue":2147483648`, at), "integerValue"}, {with(`"integerValue":1.5`, at), "not the JSON"}, {with(`"doubleValue":1e999`, at), "not the JSON"},
		{with(one, ""), "timeInSeconds"}, {with(one, `"timeInSeconds":31556889864403200`), "timeInSeconds"},
		{with(one, `"timeInSeconds":1,"offsetInNanos":1000000000`), "offsetInNanos"}, {with(one, `"timeInSeconds":1,"offsetInNanos":-1`), "offsetInNanos"},
		{strings.Replace(entryWith("e", alias, value), "GOOD", "good", 1), "quality"},
	}
	good := []string{
		entryWith("e-_9", alias, value), entryWith("e", `"assetId":"a","propertyId":"p","new":[]`, value), with(`"integerValue":-2147483648`, at),
		with(`"stringValue":"`+strings.Repeat("é", 1024)+`"`, at), with(`"booleanValue":false`, at), entryWith("e", alias, strings.Repeat(value+",", 9)+value),
	}
	for _, payload := range good {
		if _, err := parseEntry([]byte(payload)); err != nil {
			t.Errorf("%s: %v", payload, err)
		}
	}
	var payloads []string
	for _, x := range bad {
		payloads = append(payloads, x.payload)
	}
	d := siteWise(t, func(int64) string { return "" })
	b := batchOf(payloads...)
	if err := targetsFor(t, d.URL, nil).SiteWise("readings", "x").Deliver(t.Context(), b); err != nil || len(b.Pending()) != 0 || len(d.got()) != 0 {
		t.Errorf("%v, pending %v, %d requests", err, b.Pending(), len(d.got()))
	}
	for i, x := range bad {
		if reason := skipped(b)[i]; !strings.Contains(reason, x.want) {
			t.Errorf("%s: %q, want %q", x.payload, reason, x.want)
		}
	}
}

func TestServiceURL(t *testing.T) {
	for region, want := range map[string]string{
		"eu-central-1": "https://data.iotsitewise.eu-central-1.amazonaws.com/properties",
		"cn-north-1":   "https://data.iotsitewise.cn-north-1.amazonaws.com.cn/properties",
	} {
		if got := serviceURL(Destination{}.Config, "iotsitewise", region, "/properties"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	c := Destination{}.Config
	c.Endpoint = "http://leat:8080/aws/"
	if got := serviceURL(c, "iotsitewise", "eu-central-1", "/properties"); got != "http://leat:8080/aws/properties" {
		t.Error(got)
	}
}
