package record_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/leat-io/leat/internal/record"
)

func TestAttributesKeepPairsInOrder(t *testing.T) {
	a := record.Attributes(nil).Append("retain", "1").Append("", "empty name").Append("retain", "2").Append("blob", "\x00\xff")
	var got []string
	for name, value := range a.All() {
		got = append(got, fmt.Sprintf("%s=%q", name, value))
	}
	if s := strings.Join(got, " "); s != `retain="1" ="empty name" retain="2" blob="\x00\xff"` || !a.Valid() {
		t.Errorf("%s, valid %v", s, a.Valid())
	}
	if v, ok := a.Get("retain"); !ok || string(v) != "1" {
		t.Errorf("first of two equal names: %q, %v", v, ok)
	}
	if _, ok := a.Get("missing"); ok {
		t.Error("found what is not there")
	}
}

func FuzzAttributes(f *testing.F) {
	f.Add([]byte(record.Attributes(nil).Append("a", "b").Append("c", "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := record.Attributes(b)
		var again record.Attributes
		for name, value := range a.All() {
			again = again.Append(string(name), string(value))
		}
		if a.Valid() && !again.Valid() {
			t.Error("a valid list became an invalid one")
		}
	})
}

func TestStreamNames(t *testing.T) {
	for name, valid := range map[record.StreamName]bool{
		"ingest/default": true, "kinesis/orders/shardId-000000000000": true, "sm/My stream": true, "sm/größe/ö": true,
		"": false, "default": false, "/x": false, "x/": false, "a/b\x00": false,
		record.StreamName("a/" + strings.Repeat("x", record.MaxStreamName-2)): true,
		record.StreamName("a/" + strings.Repeat("x", record.MaxStreamName-1)): false,
	} {
		err := name.Validate()
		if (err == nil) != valid || err != nil && record.KindOf(err) != record.Invalid {
			t.Errorf("%.40q: %v", name, err)
		}
	}
}

func TestErrorsKeepKindHintAndCause(t *testing.T) {
	inner := record.Errorf(record.Full, "write: %w", fs.ErrPermission).WithHint("free %d bytes", 5)
	err := fmt.Errorf("append: %w", record.Errorf(record.Unavailable, "commit: %w", inner))
	if record.KindOf(err) != record.Unavailable {
		t.Errorf("kind %v: the outermost counts", record.KindOf(err))
	}
	if record.HintOf(err) != "free 5 bytes" || !errors.Is(err, fs.ErrPermission) || err.Error() != "append: commit: write: permission denied" {
		t.Errorf("hint %q, %v", record.HintOf(err), err)
	}
	if plain := errors.New("x"); record.KindOf(plain) != record.Internal || record.HintOf(plain) != "" {
		t.Error("an error of no kind is Internal and has no hint")
	}
}
