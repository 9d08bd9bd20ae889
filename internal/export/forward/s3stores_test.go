package forward

import (
	"fmt"
	"log/slog"
	"os"
	"testing"

	"github.com/leat-io/leat/internal/blob/s3"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

func TestStoresStayFewAndThoseInUseStayOpen(t *testing.T) {
	state, err := vfs.OpenDir(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	all := stores{state: state, log: slog.New(slog.DiscardHandler)}
	config := func(i int) s3.Config {
		c := s3.DefaultConfig()
		c.Endpoint, c.Bucket, c.AccessKey, c.SecretKey = "http://127.0.0.1:1", fmt.Sprintf("bucket-%d", i), "a", "s"
		return c
	}
	var releases []func()
	first, release, err := all.open(t.Context(), config(0))
	if err != nil {
		t.Fatal(err)
	}
	releases = append(releases, release)
	for i := 1; i < 2*maxStores; i++ {
		_, release, err := all.open(t.Context(), config(i))
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
	}
	if got := len(all.list); got != 2*maxStores {
		t.Errorf("%d stores are open while all are in use", got)
	}
	// An unfinished upload keeps its directory.
	if err := os.WriteFile(state.Path()+"/"+storeID(config(1))+"/x.json", []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, release := range releases[1:] {
		release()
		release() // once counts
	}
	if got := len(all.list); got != maxStores {
		t.Errorf("%d stores stay open, want %d", got, maxStores)
	}
	again, release, err := all.open(t.Context(), config(0))
	if err != nil || again != first {
		t.Errorf("a store in use was opened again: %v", err)
	}
	for i, held := range map[int]bool{0: true, 1: true, 2: false} {
		if all.mayHold(config(i)) != held {
			t.Errorf("bucket %d: may hold an upload: %v, want %v", i, !held, held)
		}
	}
	for range 2 {
		if err := all.close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(all.list); got != 1 {
		t.Errorf("%d stores after closing, want the one in use", got)
	}
	release()
	releases[0]()
	if got := len(all.list); got != 0 {
		t.Errorf("%d stores after the last release", got)
	}
	if _, _, err := all.open(t.Context(), config(0)); record.KindOf(err) != record.Unavailable {
		t.Errorf("open after close: %v", err)
	}
	if entries, err := state.ReadDir("."); err != nil || len(entries) != 1 {
		t.Errorf("left in the state directory: %v, %v; want that of bucket 1", entries, err)
	}
}
