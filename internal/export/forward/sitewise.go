package forward

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/record"
)

// maxEntries is the most entries of one BatchPutAssetPropertyValue.
const maxEntries = 10

// siteWiseTarget puts property values into AWS IoT SiteWise. Each message is the JSON of a PutAssetPropertyValueEntry.
//
// A message that is none, and one that SiteWise refuses for what it says (not found, out of range, not allowed), is
// skipped with the reason: waiting would not make it better, least of all its age, and the values behind it would grow
// too old as well. What hits the request as a whole is tried again, and so are throttling and failures of the service.
type siteWiseTarget struct {
	t    *Targets
	dest Destination
}

// SiteWise makes the target of an export of a stream to AWS IoT SiteWise.
func (t *Targets) SiteWise(streamName, export string) Target {
	return &siteWiseTarget{t, t.cfg.Destination(streamName, export, KindSiteWise)}
}

// assetEntry is a PutAssetPropertyValueEntry.
type assetEntry struct {
	EntryID        string       `json:"entryId"`
	AssetID        string       `json:"assetId,omitempty"`
	PropertyID     string       `json:"propertyId,omitempty"`
	PropertyAlias  string       `json:"propertyAlias,omitempty"`
	PropertyValues []assetValue `json:"propertyValues"`
}

type assetValue struct {
	Value     assetVariant `json:"value"`
	Timestamp assetTime    `json:"timestamp"`
	Quality   string       `json:"quality,omitempty"`
}

type assetVariant struct {
	String  *string  `json:"stringValue,omitempty"`
	Integer *int64   `json:"integerValue,omitempty"`
	Double  *float64 `json:"doubleValue,omitempty"`
	Boolean *bool    `json:"booleanValue,omitempty"`
}

type assetTime struct {
	Seconds int64 `json:"timeInSeconds"`
	Nanos   int64 `json:"offsetInNanos,omitempty"`
}

// parseEntry reads a message and checks it as the SDKs do: SiteWise refuses a whole request for one entry out of form.
func parseEntry(payload []byte) (*assetEntry, error) {
	var e assetEntry
	d := json.NewDecoder(bytes.NewReader(payload))
	if err := d.Decode(&e); err != nil {
		return nil, fmt.Errorf("not the JSON of a PutAssetPropertyValueEntry: %w", err)
	}
	if d.More() {
		return nil, errors.New("more than one JSON value")
	}
	if !isEntryID(e.EntryID) {
		return nil, errors.New("entryId: want 1 to 64 letters, digits, _ or -")
	}
	if err := e.validateProperty(); err != nil {
		return nil, err
	}
	if n := len(e.PropertyValues); n < 1 || n > 10 {
		return nil, fmt.Errorf("propertyValues: %d, want 1 to 10", n)
	}
	for i := range e.PropertyValues {
		if err := e.PropertyValues[i].validate(); err != nil {
			return nil, fmt.Errorf("propertyValues[%d]: %w", i, err)
		}
	}
	return &e, nil
}

func isEntryID(s string) bool {
	return len(s) >= 1 && len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return r >= utf8.RuneSelf || (!unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '-')
	}) < 0
}

func (e *assetEntry) validateProperty() error {
	byID := e.AssetID != "" || e.PropertyID != ""
	switch {
	case byID && e.PropertyAlias != "":
		return errors.New("propertyAlias beside assetId or propertyId: want one or the other")
	case byID && (e.AssetID == "" || e.PropertyID == ""):
		return errors.New("assetId and propertyId must be given together")
	case !byID && e.PropertyAlias == "":
		return errors.New("neither propertyAlias nor assetId and propertyId")
	}
	for key, s := range map[string]string{"assetId": e.AssetID, "propertyId": e.PropertyID, "propertyAlias": e.PropertyAlias} {
		if utf8.RuneCountInString(s) > 2048 || strings.IndexFunc(s, unicode.IsControl) >= 0 {
			return fmt.Errorf("%s: want at most 2048 characters, none of them a control character", key)
		}
	}
	return nil
}

// maxSeconds is the last second that SiteWise's timestamps have.
const maxSeconds = 31_556_889_864_403_199

func (v *assetValue) validate() error {
	given := 0
	for _, is := range []bool{v.Value.String != nil, v.Value.Integer != nil, v.Value.Double != nil, v.Value.Boolean != nil} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return fmt.Errorf("value: %d given, want one of stringValue, integerValue, doubleValue, booleanValue", given)
	case v.Value.String != nil && (*v.Value.String == "" || utf8.RuneCountInString(*v.Value.String) > 1024):
		return errors.New("stringValue: want 1 to 1024 characters")
	// The SDKs check for 0 to 2147483647; SiteWise itself takes negative ones.
	case v.Value.Integer != nil && (*v.Value.Integer < math.MinInt32 || *v.Value.Integer > math.MaxInt32):
		return errors.New("integerValue: want 32 bits")
	case v.Timestamp.Seconds < 1 || v.Timestamp.Seconds > maxSeconds:
		return fmt.Errorf("timeInSeconds: want 1 to %d", int64(maxSeconds))
	case v.Timestamp.Nanos < 0 || v.Timestamp.Nanos > 999_999_999:
		return errors.New("offsetInNanos: want 0 to 999999999")
	case v.Quality != "" && v.Quality != "GOOD" && v.Quality != "BAD" && v.Quality != "UNCERTAIN":
		return errors.New("quality: want GOOD, BAD or UNCERTAIN")
	}
	return nil
}

// indexed is an entry and its message's index in the batch.
type indexed struct {
	message int
	entry   *assetEntry
}

// Deliver implements Target.
func (s *siteWiseTarget) Deliver(ctx context.Context, b *Batch) error {
	at := place{service: "SiteWise", action: "iotsitewise:BatchPutAssetPropertyValue", endpoint: s.dest.Endpoint}
	var entries []indexed
	for _, i := range b.Pending() {
		e, err := parseEntry(b.Messages[i].Payload)
		if err != nil {
			b.Skip(i, err.Error())
			continue
		}
		entries = append(entries, indexed{i, e})
	}
	if len(entries) == 0 {
		return nil
	}
	account, err := s.t.account(ctx, s.dest.Config)
	if err != nil {
		return at.fail(err)
	}
	at.region = account.region
	for len(entries) > 0 {
		n := min(len(entries), maxEntries)
		if err := s.send(ctx, account, at, b, entries[:n]); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// send makes one request. A request that is refused for its form is sent entry by entry, to find out which is to blame.
func (s *siteWiseTarget) send(ctx context.Context, a *account, at place, b *Batch, entries []indexed) error {
	err := s.put(ctx, a, at, b, entries)
	said, ok := errors.AsType[*answer](err)
	if !ok || said.status != 400 || (shortCode(said.code) != "InvalidRequest" && shortCode(said.code) != "Validation") {
		return err
	}
	if len(entries) == 1 {
		b.Skip(entries[0].message, "SiteWise: "+said.Error())
		return nil
	}
	for i := range entries {
		if err := s.send(ctx, a, at, b, entries[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// entryErrors is what SiteWise says about an entry that it did not take, or not all of it.
type entryErrors struct {
	EntryID string `json:"entryId"`
	Errors  []struct {
		Code    string `json:"errorCode"`
		Message string `json:"errorMessage"`
	} `json:"errors"`
}

// put sends entries and settles them. Their ids are this request's own, since different messages may have the same.
func (s *siteWiseTarget) put(ctx context.Context, a *account, at place, b *Batch, entries []indexed) error {
	in := struct {
		Entries []assetEntry `json:"entries"`
	}{make([]assetEntry, len(entries))}
	for i := range entries {
		in.Entries[i] = *entries[i].entry
		in.Entries[i].EntryID = strconv.Itoa(i)
	}
	var out struct {
		Refused *[]entryErrors `json:"errorEntries"`
	}
	err := s.t.call(ctx, a, "iotsitewise", serviceURL(s.dest.Config, "iotsitewise", a.region, "/properties"), in, &out)
	if errors.Is(err, errForeign) || (err == nil && out.Refused == nil) {
		return at.foreign("no list of errorEntries")
	}
	if err != nil {
		return at.fail(err)
	}
	refused := make([]*entryErrors, len(entries))
	for i := range *out.Refused {
		e := &(*out.Refused)[i]
		n, err := strconv.Atoi(e.EntryID)
		if err != nil || n < 0 || n >= len(entries) || strconv.Itoa(n) != e.EntryID {
			return at.foreign("an error for an entry that was not sent")
		}
		refused[n] = e
	}
	return settleEntries(at, b, entries, refused)
}

// settleEntries settles each entry; refused has what was said about those that were not taken, nil for the others. The
// error is about the first that stays pending.
func settleEntries(at place, b *Batch, entries []indexed, refused []*entryErrors) error {
	var first *answer
	left := 0
	for i, e := range entries {
		if refused[i] == nil {
			b.Delivered(e.message)
			continue
		}
		said, forever := judgeEntry(refused[i], len(entries) == 1)
		if forever {
			b.Skip(e.message, "SiteWise: "+said.Error())
			continue
		}
		if left++; first == nil {
			first = said
		}
	}
	if first == nil {
		return nil
	}
	kind := kindOf(0, first.code)
	return record.Errorf(kind, "deliver to %s: %d of %d entries refused for now, the first: %w", at, left, len(entries), first).
		WithHint("%s", at.hint(kind, first))
}

// judgeEntry picks what to say about an entry, and whether it can never be taken: only when all that is said is of that
// sort. An entry that conflicts may do so with another one of its request; alone it conflicts for good, since nothing else
// of this export is under way. Codes that are not known may go away.
func judgeEntry(e *entryErrors, alone bool) (said *answer, forever bool) {
	said, forever = &answer{}, len(e.Errors) > 0
	for i, x := range e.Errors {
		a := &answer{code: x.Code, message: x.Message}
		if i == 0 {
			said = a
		}
		switch shortCode(x.Code) {
		case "InvalidRequest", "Validation", "ResourceNotFound", "TimestampOutOfRange", "AccessDenied":
		case "ConflictingOperation":
			if !alone && forever {
				said, forever = a, false
			}
		default:
			if forever {
				said, forever = a, false
			}
		}
	}
	return said, forever
}
