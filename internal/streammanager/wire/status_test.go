package wire_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

func TestStatusesOfErrors(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status wire.Status
		text   string
	}{
		"none":                  {nil, wire.Success, ""},
		"of no kind":            {errors.New("x"), wire.UnknownFailure, "x"},
		"internal":              {record.Errorf(record.Internal, "x"), wire.UnknownFailure, "x"},
		"not found":             {record.Errorf(record.NotFound, "x"), wire.ResourceNotFound, "x"},
		"invalid, hint":         {fmt.Errorf("do: %w", record.Errorf(record.Invalid, "x").WithHint("y")), wire.InvalidRequest, "do: x (y)"},
		"conflict":              {record.Errorf(record.Conflict, "x"), wire.InvalidRequest, "x"},
		"full":                  {record.Errorf(record.Full, "x"), wire.InvalidRequest, "x"},
		"denied":                {record.Errorf(record.Denied, "x"), wire.Unauthorized, "x"},
		"throttled":             {record.Errorf(record.Throttled, "x"), wire.ServerTimeout, "x"},
		"unavailable":           {record.Errorf(record.Unavailable, "x"), wire.UnknownFailure, "x"},
		"unavailable, too late": {record.Errorf(record.Unavailable, "x: %w", context.DeadlineExceeded), wire.ServerTimeout, "x: context deadline exceeded"},
		"corrupt":               {record.Errorf(record.Corrupt, "x"), wire.MessageStoreReadError, "x"},
		"a kind to come":        {record.Errorf(record.Kind(200), "x"), wire.UnknownFailure, "x"},
		"its own":               {record.Errorf(record.NotFound, "do: %w", wire.Errorf(wire.UpdateNotAllowed, "x")), wire.UpdateNotAllowed, "do: x"},
		"its own, too high":     {wire.Errorf(19, "x"), wire.UnknownFailure, "x"},
		"its own, negative":     {wire.Errorf(-1, "x"), wire.UnknownFailure, "x"},
		"its own, success":      {wire.Errorf(wire.Success, "x"), wire.UnknownFailure, "x"},
		"not UTF-8":             {errors.New("a\xffb"), wire.UnknownFailure, "a?b"},
	} {
		t.Run(name, func(t *testing.T) {
			status, text := wire.StatusOf(c.err)
			if status != c.status || text != c.text {
				t.Errorf("%v, %q", status, text)
			}
			if r := wire.Failure("1", c.err); r != (wire.Response{RequestID: "1", Status: c.status, ErrorMessage: c.text}) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestTextsOfErrorsAreCutBetweenCharacters(t *testing.T) {
	for shift := range 4 {
		_, got := wire.StatusOf(errors.New(strings.Repeat("x", shift) + strings.Repeat("😀", wire.MaxErrorMessage)))
		if len(got) > wire.MaxErrorMessage || len(got) < wire.MaxErrorMessage-8 || !utf8.ValidString(got) || strings.Contains(got, "?") {
			t.Errorf("%d bytes: …%q", len(got), got[len(got)-12:])
		}
	}
}

func TestNamesOfStatuses(t *testing.T) {
	for s, want := range map[wire.Status]string{wire.Success: "Success", wire.UnknownOperation: "UnknownOperation", 19: "status 19", -1: "status -1"} {
		if s.String() != want {
			t.Errorf("%d is %s", int(s), s)
		}
	}
}
