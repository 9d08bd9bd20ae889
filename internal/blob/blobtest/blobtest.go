// Package blobtest is the conformance suite of blob.Store, and what tests of object stores need besides: a real S3
// server process (Gateway) and a proxy that fails on demand (Proxy).
//
// A store's own test calls Run. Only tests import this package.
package blobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/record"
)

// Upload is an object to put. Its Resume is derived from key and content.
func Upload(key string, content []byte) blob.Upload {
	sum := sha256.Sum256(content)
	return blob.Upload{
		Key: key, Size: int64(len(content)), SHA256: sum, Body: bytes.NewReader(content),
		Resume: key + "@" + hex.EncodeToString(sum[:8]),
	}
}

// Bytes are n bytes that do not compress, the same for each seed.
func Bytes(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	out := make([]byte, n)
	if _, err := rand.NewChaCha8(key).Read(out); err != nil {
		panic(err) // cannot happen: a generator has no end
	}
	return out
}

// MustPut puts an object and fails the test when that fails.
func MustPut(t testing.TB, s blob.Store, key string, content []byte) {
	t.Helper()
	if err := s.Put(t.Context(), Upload(key, content)); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

// MustRead returns an object's content and fails the test when there is none.
func MustRead(t testing.TB, s blob.Store, key string) []byte {
	t.Helper()
	body, o, err := s.Open(t.Context(), key)
	if err != nil {
		t.Fatalf("open %s: %v", key, err)
	}
	content, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		t.Fatalf("read %s: %v", key, err)
	}
	if o.Size >= 0 && o.Size != int64(len(content)) {
		t.Fatalf("%s: opened with size %d, has %d bytes", key, o.Size, len(content))
	}
	return content
}

// Keys lists the keys below a prefix and fails the test when that fails.
func Keys(t testing.TB, s blob.Store, prefix string) []string {
	t.Helper()
	var keys []string
	for o, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("list %q: %v", prefix, err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

// WantKind fails the test unless err is of the kind and, where wanted of one for people, has a hint.
func WantKind(t testing.TB, err error, kind record.Kind, hint string) {
	t.Helper()
	if err == nil || record.KindOf(err) != kind {
		t.Fatalf("error %v of kind %q, want kind %q", err, record.KindOf(err), kind)
	}
	if !strings.Contains(record.HintOf(err), hint) {
		t.Fatalf("error %v has the hint %q, want one about %q", err, record.HintOf(err), hint)
	}
}

// Sizes are what is large and many for a store.
type Sizes struct {
	Large int // bytes of an object for which the store does whatever it does for large ones
	Many  int // objects that do not fit into one page of a listing
}

// Run checks that the stores which open makes, each empty, are what blob.Store promises.
func Run(t *testing.T, open func(t *testing.T) blob.Store, of Sizes) {
	large := of.Large
	for name, test := range map[string]func(*testing.T, blob.Store){
		"an object reads back as it was put":           readsBack,
		"empty and large objects":                      func(t *testing.T, s blob.Store) { sizes(t, s, large) },
		"the same content again is no error":           func(t *testing.T, s blob.Store) { again(t, s, large) },
		"another content is a conflict":                func(t *testing.T, s blob.Store) { conflict(t, s, large) },
		"an upload that overwrites":                    func(t *testing.T, s blob.Store) { overwrite(t, s, large) },
		"a missing object is not found":                missing,
		"a deleted object is gone and can be put anew": deletes,
		"bad keys are refused":                         badKeys,
		"bodies that are not what they say":            badBodies,
		"special keys":                                 specialKeys,
		"listings are in key order":                    listOrder,
		"more objects than a page of a listing holds":  func(t *testing.T, s blob.Store) { manyObjects(t, s, of.Many) },
		"a listing ends when asked to":                 listStops,
		"a cancelled context ends calls":               cancelled,
		"two writers of one key":                       race,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func readsBack(t *testing.T, s blob.Store) {
	const key = "samples/year=2026/month=11/day=21/0100_n1-00ff-0-99.parquet"
	content := Bytes(1, 10_000)
	MustPut(t, s, key, content)
	if !bytes.Equal(MustRead(t, s, key), content) {
		t.Fatal("content differs")
	}
	o, err := s.Stat(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if o.Key != key || o.Size != 10_000 || o.ETag == "" || o.Modified.IsZero() {
		t.Fatalf("stat: %+v", o)
	}
	for l, err := range s.List(t.Context(), "samples/") {
		if err != nil {
			t.Fatal(err)
		}
		if l.Key != o.Key || l.Size != o.Size || l.ETag != o.ETag {
			t.Fatalf("list says %+v, stat %+v", l, o)
		}
	}
}

func sizes(t *testing.T, s blob.Store, large int) {
	for i, n := range []int{0, 1, large - 1, large, large + 1} {
		key := fmt.Sprintf("size/%d", n)
		content := Bytes(uint64(i), n)
		MustPut(t, s, key, content)
		if !bytes.Equal(MustRead(t, s, key), content) {
			t.Fatalf("content of %d bytes differs", n)
		}
	}
}

func again(t *testing.T, s blob.Store, large int) {
	for _, n := range []int{0, 100, large} {
		key := fmt.Sprintf("again/%d", n)
		MustPut(t, s, key, Bytes(1, n))
		before, err := s.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		MustPut(t, s, key, Bytes(1, n))
		after, err := s.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if before.ETag != after.ETag || !before.Modified.Equal(after.Modified) {
			t.Fatalf("%d bytes were written again: %+v, %+v", n, before, after)
		}
	}
}

func conflict(t *testing.T, s blob.Store, large int) {
	for _, n := range []int{100, large} {
		key := fmt.Sprintf("conflict/%d", n)
		MustPut(t, s, key, Bytes(1, n))
		for name, other := range map[string][]byte{"other bytes": Bytes(2, n), "other size": Bytes(1, n+1)} {
			if err := s.Put(t.Context(), Upload(key, other)); record.KindOf(err) != record.Conflict || err == nil {
				t.Errorf("%s of %d: %v, want a conflict", name, n, err)
			}
		}
		if !bytes.Equal(MustRead(t, s, key), Bytes(1, n)) {
			t.Fatal("the first object was overwritten")
		}
	}
}

// overwrite puts over a smaller, a larger and no object, in one piece and, where the store knows parts, in several. A body
// that is not what it says leaves the object as it was.
func overwrite(t *testing.T, s blob.Store, large int) {
	for i, n := range []int{100, large + 1, large, 0, 10} {
		for _, key := range []string{"over/one", fmt.Sprintf("over/new/%d", i)} {
			u := Upload(key, Bytes(uint64(i), n))
			u.Overwrite, u.Metadata = true, map[string]string{"origin": "unit 7"}
			if i%2 == 0 {
				u.MultipartAbove = int64(large) + 1
			}
			if err := s.Put(t.Context(), u); err != nil {
				t.Fatalf("put %s of %d bytes: %v", key, n, err)
			}
			if !bytes.Equal(MustRead(t, s, key), Bytes(uint64(i), n)) {
				t.Fatalf("%s: content of %d bytes differs", key, n)
			}
		}
	}
	changed := Upload("over/one", []byte("as it was hashed"))
	changed.Overwrite, changed.Body = true, strings.NewReader("as it reads later")
	if err := s.Put(t.Context(), changed); record.KindOf(err) != record.Corrupt || err == nil {
		t.Errorf("changed body: %v, want an error of kind corrupt", err)
	}
	if !bytes.Equal(MustRead(t, s, "over/one"), Bytes(4, 10)) {
		t.Error("a put that failed changed the object")
	}
	if err := s.Put(t.Context(), Upload("over/one", []byte("other"))); record.KindOf(err) != record.Conflict || err == nil {
		t.Errorf("a put that does not overwrite: %v, want a conflict", err)
	}
}

func missing(t *testing.T, s blob.Store) {
	MustPut(t, s, "there/object", []byte("x"))
	for _, key := range []string{"absent", "there/absent", "there/object/below", "there"} {
		if _, err := s.Stat(t.Context(), key); record.KindOf(err) != record.NotFound || err == nil {
			t.Errorf("stat %s: %v", key, err)
		}
		body, _, err := s.Open(t.Context(), key)
		if record.KindOf(err) != record.NotFound || err == nil {
			t.Errorf("open %s: %v", key, err)
		}
		if body != nil {
			t.Errorf("open %s: a body beside an error", key)
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %s: %v", key, err)
		}
	}
	if got := Keys(t, s, "absent/"); len(got) != 0 {
		t.Errorf("list: %q", got)
	}
	if got := Keys(t, s, ""); !slices.Equal(got, []string{"there/object"}) {
		t.Errorf("list: %q", got)
	}
}

func deletes(t *testing.T, s blob.Store) {
	MustPut(t, s, "a/b/c", []byte("1"))
	MustPut(t, s, "a/d", []byte("2"))
	if err := s.Delete(t.Context(), "a/b/c"); err != nil {
		t.Fatal(err)
	}
	if got := Keys(t, s, ""); !slices.Equal(got, []string{"a/d"}) {
		t.Fatalf("left: %q", got)
	}
	MustPut(t, s, "a/b/c", []byte("other"))
	if got := MustRead(t, s, "a/b/c"); string(got) != "other" {
		t.Fatalf("content %q", got)
	}
}

func badKeys(t *testing.T, s blob.Store) {
	for _, key := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/./b", "a\x00b", "a\nb", `a\b`, "\xff"} {
		_, _, oerr := s.Open(t.Context(), key)
		_, serr := s.Stat(t.Context(), key)
		for call, err := range map[string]error{
			"put": s.Put(t.Context(), Upload(key, []byte("x"))), "open": oerr, "stat": serr,
			"delete": s.Delete(t.Context(), key),
		} {
			if record.KindOf(err) != record.Invalid || err == nil {
				t.Errorf("%s %q: %v, want an error of kind invalid", call, key, err)
			}
		}
	}
}

func badBodies(t *testing.T, s blob.Store) {
	changed := Upload("bad/changed", []byte("as it was hashed"))
	changed.Body = strings.NewReader("as it reads later")
	short := Upload("bad/short", []byte("0123456789"))
	short.Body = strings.NewReader("01234")
	broken := Upload("bad/broken", []byte("0123456789"))
	broken.Body = brokenReader{}
	for name, u := range map[string]blob.Upload{"changed": changed, "short": short} {
		if err := s.Put(t.Context(), u); record.KindOf(err) != record.Corrupt || err == nil {
			t.Errorf("%s: %v, want an error of kind corrupt", name, err)
		}
	}
	if err := s.Put(t.Context(), broken); !errors.Is(err, errBroken) {
		t.Errorf("unreadable: %v, want the reader's error", err)
	}
	if got := Keys(t, s, ""); len(got) != 0 {
		t.Errorf("something was stored: %q", got)
	}
}

var errBroken = errors.New("broken disk")

type brokenReader struct{}

func (brokenReader) ReadAt([]byte, int64) (int, error) { return 0, errBroken }

// SpecialKeys are keys with the characters that have a meaning in URLs, query strings, XML or file systems.
func SpecialKeys() []string {
	return []string{
		"year=2026/month=11", "a b/c d", "a+b/c+d", "ü/ß/漢字/🙂", "100%/%2F", "a&b<c>d\"e'f", "q?x=1#frag", "a:b;c,d@e$f!g",
		"(x)[y]{z}", "~tilde", "-dash", "_under", "a*b|c^d`e", ".hidden/.file", "..double", strings.Repeat("long", 60),
	}
}

func specialKeys(t *testing.T, s blob.Store) {
	for _, key := range SpecialKeys() {
		MustPut(t, s, "special/"+key+"/x", []byte(key))
	}
	var want []string
	for _, key := range SpecialKeys() {
		full := "special/" + key + "/x"
		want = append(want, full)
		if got := MustRead(t, s, full); string(got) != key {
			t.Errorf("%q reads %q", full, got)
		}
		if got := Keys(t, s, "special/"+key+"/"); !slices.Equal(got, []string{full}) {
			t.Errorf("list %q: %q", full, got)
		}
	}
	got := Keys(t, s, "special/")
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("listed %q\nwant %q", got, want)
	}
	for _, key := range want {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %q: %v", key, err)
		}
	}
	if got := Keys(t, s, ""); len(got) != 0 {
		t.Errorf("left after deleting: %q", got)
	}
}

func listOrder(t *testing.T, s blob.Store) {
	want := []string{"a-b/x", "a.b", "a/b", "a/b.c/d", "a/b0", "a0/x", "ab", "b"}
	for _, i := range rand.Perm(len(want)) {
		if want[i] != "a/b" { // in a file system a/b cannot be beside a/b.c unless it is a file, which it is
			MustPut(t, s, want[i], []byte("x"))
		}
	}
	MustPut(t, s, "a/b", []byte("x"))
	if got := Keys(t, s, ""); !slices.Equal(got, want) {
		t.Errorf("listed %q\nwant %q", got, want)
	}
	for prefix, want := range map[string][]string{
		"a/b": {"a/b", "a/b.c/d", "a/b0"}, "a/": {"a/b", "a/b.c/d", "a/b0"}, "a.": {"a.b"}, "a/b.c/": {"a/b.c/d"},
		"zz": nil, "a/b/": nil,
	} {
		if got := Keys(t, s, prefix); !slices.Equal(got, want) {
			t.Errorf("list %q: %q, want %q", prefix, got, want)
		}
	}
}

func manyObjects(t *testing.T, s blob.Store, n int) {
	var want []string
	var wg sync.WaitGroup
	next := make(chan string)
	for range 8 {
		wg.Go(func() {
			for key := range next {
				if err := s.Put(t.Context(), Upload(key, []byte(key))); err != nil {
					t.Errorf("put %s: %v", key, err)
				}
			}
		})
	}
	for i := range n {
		key := fmt.Sprintf("many/day=%02d/%04d", i%31, i)
		want = append(want, key)
		next <- key
	}
	close(next)
	wg.Wait()
	slices.Sort(want)
	if got := Keys(t, s, "many/"); !slices.Equal(got, want) {
		t.Fatalf("listed %d keys, want %d in order", len(got), n)
	}
}

func listStops(t *testing.T, s blob.Store) {
	for i := range 5 {
		MustPut(t, s, fmt.Sprintf("stop/%d", i), []byte("x"))
	}
	n := 0
	for _, err := range s.List(t.Context(), "stop/") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Fatalf("%d objects", n)
	}
}

func cancelled(t *testing.T, s blob.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, Upload("cancelled", Bytes(1, 1000))); !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v", err)
	}
	var last error
	for _, err := range s.List(ctx, "") {
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("list: %v", last)
	}
	if got := Keys(t, s, ""); len(got) != 0 {
		t.Errorf("stored: %q", got)
	}
}

// race puts two contents under one key from many goroutines: one content wins, and only its writers are told success.
func race(t *testing.T, s blob.Store) {
	for round := range 5 {
		key := fmt.Sprintf("race/%d/deep/er", round)
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				for {
					errs[i] = s.Put(t.Context(), Upload(key, Bytes(uint64(i%2), 1000)))
					if record.KindOf(errs[i]) != record.Unavailable { // 409 and the like: again, as callers do
						return
					}
				}
			})
		}
		wg.Wait()
		won := -1
		for seed := range 2 {
			if bytes.Equal(MustRead(t, s, key), Bytes(uint64(seed), 1000)) {
				won = seed
			}
		}
		for i, err := range errs {
			if i%2 == won && err != nil || i%2 != won && record.KindOf(err) != record.Conflict {
				t.Errorf("writer %d, content %d won: %v", i, won, err)
			}
		}
	}
}
