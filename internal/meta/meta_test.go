package meta_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/leat-io/leat/internal/meta"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

type fact struct {
	Name string `json:"name"`
	N    int    `json:"n"`
}

const facts meta.Bucket[fact] = "facts"

func openDir(t testing.TB) *vfs.Dir {
	t.Helper()
	dir, err := vfs.OpenDir(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

func open(t testing.TB, dir *vfs.Dir) *meta.DB {
	t.Helper()
	db, err := meta.Open(dir, meta.Options{Log: slog.New(slog.DiscardHandler), LockTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func fill(t testing.TB, db *meta.DB, n int) {
	t.Helper()
	err := db.Update(func(tx *meta.Tx) error {
		for i := range n {
			if err := facts.Put(tx, fmt.Sprintf("k%05d", i), fact{strings.Repeat("x", 100), i}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func count(t testing.TB, db *meta.DB) (n int) {
	t.Helper()
	err := db.View(func(tx *meta.Tx) error {
		for e, err := range facts.Scan(tx, "", "") {
			if err != nil {
				return err
			}
			if want := fmt.Sprintf("k%05d", e.Value.N); e.Key != want {
				t.Errorf("key %s holds the value of %s", e.Key, want)
			}
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestValuesSurviveReopening(t *testing.T) {
	dir := openDir(t)
	db := open(t, dir)
	fill(t, db, 300)
	if err := db.Update(func(tx *meta.Tx) error { return facts.Delete(tx, "k00007") }); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
	db = open(t, dir)
	if n := count(t, db); n != 299 {
		t.Errorf("%d values after reopening, want 299", n)
	}
	err := db.View(func(tx *meta.Tx) error {
		if _, ok, err := facts.Get(tx, "k00007"); ok || err != nil {
			t.Errorf("deleted value: ok %v, error %v", ok, err)
		}
		v, ok, err := facts.Get(tx, "k00008")
		if v.N != 8 || !ok {
			t.Errorf("k00008 = %+v, %v", v, ok)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestScanKeepsToPrefixAndStart(t *testing.T) {
	db := open(t, openDir(t))
	err := db.Update(func(tx *meta.Tx) error {
		for _, k := range []string{"a/1", "a/2", "a/3", "b/1"} {
			if err := facts.Put(tx, k, fact{Name: k}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = db.View(func(tx *meta.Tx) error {
		for e, err := range facts.Scan(tx, "a/", "a/2") {
			if err != nil {
				return err
			}
			got = append(got, e.Key)
		}
		return nil
	})
	if err != nil || strings.Join(got, " ") != "a/2 a/3" {
		t.Errorf("scan gave %v, %v", got, err)
	}
}

func TestFailedUpdateChangesNothing(t *testing.T) {
	db := open(t, openDir(t))
	fill(t, db, 3)
	boom := errors.New("boom")
	err := db.Update(func(tx *meta.Tx) error {
		if err := facts.Put(tx, "k99999", fact{}); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("error %v, want boom", err)
	}
	if n := count(t, db); n != 3 {
		t.Errorf("%d values, want 3", n)
	}
}

func TestSecondProcessIsTurnedAwayInTime(t *testing.T) {
	dir := openDir(t)
	open(t, dir)
	start := time.Now()
	_, err := meta.Open(dir, meta.Options{Log: slog.New(slog.DiscardHandler), LockTimeout: 30 * time.Millisecond})
	if record.KindOf(err) != record.Unavailable || record.HintOf(err) == "" {
		t.Errorf("error %v (%v), want unavailable with a hint", err, record.KindOf(err))
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestNewerFormatIsRefusedAndLeftAlone(t *testing.T) {
	dir := openDir(t)
	open(t, dir).Close()
	path := filepath.Join(dir.Path(), meta.FileName)
	b, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = b.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("_meta")).Put([]byte("format"), []byte("2")) })
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	_, err = meta.Open(dir, meta.Options{Log: slog.New(slog.DiscardHandler)})
	if record.KindOf(err) != record.Invalid || !strings.Contains(record.HintOf(err), "newer") {
		t.Errorf("error %v, hint %q", err, record.HintOf(err))
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("refused file was changed")
	}
}

// TestDamageIsPutAside damages a file in many ways: each time Open must succeed, and either everything reads or the
// damaged file lies aside, unchanged, and what was kept is right.
func TestDamageIsPutAside(t *testing.T) {
	pristine := func() []byte {
		dir := openDir(t)
		db := open(t, dir)
		fill(t, db, 1000)
		db.Close()
		b, err := os.ReadFile(filepath.Join(dir.Path(), meta.FileName))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}()
	cases := map[string]func([]byte) []byte{
		"empty file":     func(b []byte) []byte { return b[:0] }, // like a missing one: nothing was ever in it
		"ten bytes":      func(b []byte) []byte { return b[:10] },
		"garbage":        func([]byte) []byte { return bytes.Repeat([]byte("garbage "), 4096) },
		"truncated":      func(b []byte) []byte { return b[:len(b)/2/4096*4096] },
		"both metas":     func(b []byte) []byte { clear(b[:8192]); return b },
		"first meta":     func(b []byte) []byte { clear(b[:4096]); return b },
		"flipped value":  func(b []byte) []byte { b[bytes.LastIndex(b, []byte("xxxx"))] ^= 1; return b },
		"zeroed page 10": func(b []byte) []byte { clear(b[10*4096 : 11*4096]); return b },
	}
	for page := range len(pristine) / 4096 {
		cases[fmt.Sprintf("noise in page %d", page)] = func(b []byte) []byte {
			for i := range 64 {
				b[page*4096+i*7%4096] ^= byte(i*31 + 1)
			}
			return b
		}
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			dir := openDir(t)
			damaged := damage(bytes.Clone(pristine))
			if err := os.WriteFile(filepath.Join(dir.Path(), meta.FileName), damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			db := open(t, dir)
			n := count(t, db)
			d := db.Damage()
			if name == "empty file" {
				return
			}
			if d == nil {
				if n != 1000 && name != "noise in page 1" { // the newest meta page: opens as before the last Update
					t.Errorf("%d of 1000 values and no damage reported", n)
				}
				return
			}
			if aside, err := os.ReadFile(d.Path); err != nil || !bytes.Equal(aside, damaged) {
				t.Errorf("damaged file not kept as it was (%v)", err)
			}
			if d.Kept != n || d.Reason == nil {
				t.Errorf("damage says %d kept because of %v, %d are there", d.Kept, d.Reason, n)
			}
			fill(t, db, 10)
		})
	}
}
