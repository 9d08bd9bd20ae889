package query

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// cache keeps objects of a remote lake on disk: cache/objects/<directories of the key>/<file>@<identity>.parquet. The
// identity is the checksum that the catalog knows, or the ETag of an object without one, so a name never comes to mean
// other bytes. It holds at most Config.CacheBytes, least recently used first to go; objects that running queries have
// linked stay on disk until these end.
type cache struct {
	data  *vfs.Dir
	store blob.Store
	cfg   Config

	mu      sync.Mutex // guards what follows; held for a hard link, never for a transfer
	entries map[string]*entry
	order   *list.List // of *entry, most recently used in front; complete ones only
	bytes   int64
	serial  int
	fetched int64
	fetchB  int64
	hits    int64
}

// entry is an object in the cache, or on its way.
type entry struct {
	name    string
	size    int64
	ready   chan struct{} // closed when the transfer has ended, well or not
	err     error         // of the transfer; set before ready is closed
	element *list.Element // nil until the transfer has succeeded
}

// wanted is an object and where the snapshot wants it.
type wanted struct {
	file lake.File
	to   string
}

func openCache(data *vfs.Dir, store blob.Store, cfg Config) (*cache, error) {
	if err := data.MkdirAll(blobDir); err != nil {
		return nil, fmt.Errorf("make %s: %w", blobDir, err)
	}
	c := &cache{data: data, store: store, cfg: cfg, entries: map[string]*entry{}, order: list.New()}
	if err := c.load(blobDir); err != nil {
		return nil, fmt.Errorf("read %s: %w", blobDir, err)
	}
	c.evict(nil)
	return c, nil
}

// load takes over what an earlier process fetched, and removes what it did not finish.
func (c *cache) load(dir string) error {
	entries, err := c.data.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := dir + "/" + e.Name()
		switch {
		case e.IsDir():
			if err := c.load(name); err != nil {
				return err
			}
		case strings.HasSuffix(name, ".part"):
			if err := c.data.Remove(name); err != nil {
				return err
			}
		default:
			info, err := e.Info()
			if err != nil {
				return err
			}
			ready := make(chan struct{})
			close(ready)
			en := &entry{name: name, size: info.Size(), ready: ready}
			en.element = c.order.PushBack(en)
			c.entries[name] = en
			c.bytes += en.size
		}
	}
	return nil
}

func (c *cache) stats() (fetched, bytes, hits, held int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fetched, c.fetchB, c.hits, c.bytes
}

// link puts links to all objects where they are wanted, fetching what is not there. It returns how many it fetched, and
// the files that the store has no more. done is told how many are settled; it is called from this goroutine's children,
// one at a time.
func (c *cache) link(ctx context.Context, objects []wanted, done func(int)) (fetched int, gone []lake.File, err error) {
	var need int64
	for _, o := range objects {
		need += o.file.Size
	}
	if need > c.cfg.CacheBytes {
		return 0, nil, record.Errorf(record.Unavailable, "query needs %d objects of %d bytes from the store, the cache holds %d",
			len(objects), need, c.cfg.CacheBytes).
			WithHint("narrow it by year, month, day or ts, or raise sql.cache_bytes")
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.cfg.Fetches)
	var mu sync.Mutex // guards settled, fetched and gone, serialises done
	settled := 0
	for _, o := range objects {
		group.Go(func() error {
			loaded, err := c.place(ctx, o)
			missing := err != nil && record.KindOf(err) == record.NotFound && c.gone(ctx, o.file.Key)
			if err != nil && !missing {
				return fmt.Errorf("fetch %s: %w", o.file.Key, err)
			}
			mu.Lock()
			defer mu.Unlock()
			settled++
			switch {
			case missing:
				gone = append(gone, o.file)
			case loaded:
				fetched++
			}
			done(settled)
			return nil
		})
	}
	err = group.Wait()
	return fetched, gone, err
}

// gone reports whether the store is there, and has no such key: a missing bucket is another matter.
func (c *cache) gone(ctx context.Context, key string) bool {
	for o, err := range c.store.List(ctx, key) {
		if err != nil || o.Key == key {
			return false
		}
	}
	return true
}

// place links one object, fetching it when needed.
func (c *cache) place(ctx context.Context, o wanted) (fetched bool, err error) {
	name, err := c.name(ctx, o.file)
	if err != nil {
		return false, err
	}
	for {
		e, mine := c.claim(name, o.file.Size)
		if mine {
			fetched = true
			c.complete(e, c.fetch(ctx, o.file, e))
		}
		select {
		case <-e.ready:
		case <-ctx.Done():
			return fetched, ctx.Err()
		}
		if e.err != nil {
			// Another query's transfer may have ended because that query did.
			if !mine && ctx.Err() == nil && errors.Is(e.err, context.Canceled) {
				continue
			}
			return fetched, e.err
		}
		linked, err := c.use(e, o.to, !mine)
		if linked || err != nil {
			return fetched, err
		}
	}
}

// claim returns the entry called name; mine is true when the caller has to fetch it.
func (c *cache) claim(name string, size int64) (e *entry, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[name]; e != nil {
		return e, false
	}
	e = &entry{name: name, size: size, ready: make(chan struct{})}
	c.entries[name] = e
	return e, true
}

// complete publishes the end of a transfer.
func (c *cache) complete(e *entry, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.err = err
	if err != nil {
		delete(c.entries, e.name)
	} else {
		e.element = c.order.PushFront(e)
		c.bytes += e.size
		c.fetched++
		c.fetchB += e.size
	}
	close(e.ready)
}

// use links a complete entry; linked is false when it was evicted meanwhile.
func (c *cache) use(e *entry, to string, hit bool) (linked bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[e.name] != e {
		return false, nil
	}
	err = c.data.Link(e.name, to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.remove(e) // somebody emptied the directory; fetch it again
		return false, nil
	case err != nil && !errors.Is(err, fs.ErrExist):
		return false, err
	}
	c.order.MoveToFront(e.element)
	if hit {
		c.hits++
	}
	c.evict(e)
	return true, nil
}

// evict removes the least recently used entries until the cache fits, but not keep. The caller holds mu (or is alone).
func (c *cache) evict(keep *entry) {
	for el := c.order.Back(); el != nil && c.bytes > c.cfg.CacheBytes; {
		e, _ := el.Value.(*entry)
		el = el.Prev()
		if e == keep {
			continue
		}
		c.remove(e)
		_ = c.data.Remove(e.name) // a file that cannot be removed is found again at the next start
	}
}

func (c *cache) remove(e *entry) {
	delete(c.entries, e.name)
	c.order.Remove(e.element)
	c.bytes -= e.size
}

// name is the entry's name.
func (c *cache) name(ctx context.Context, f lake.File) (string, error) {
	identity := hex.EncodeToString(f.SHA256[:8])
	if f.SHA256 == (lake.Digest{}) {
		o, err := c.store.Stat(ctx, f.Key)
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256([]byte(o.ETag))
		identity = "etag-" + hex.EncodeToString(sum[:8])
	}
	base := strings.TrimSuffix(path.Base(f.Key), ".parquet")
	return path.Join(blobDir, path.Dir(path.Clean("/" + f.Key)[1:]), base+"@"+identity+".parquet"), nil
}

// fetch transfers an object to a temporary file, checks it, and renames it.
func (c *cache) fetch(ctx context.Context, f lake.File, e *entry) (err error) {
	if err := c.data.MkdirAll(path.Dir(e.name)); err != nil {
		return err
	}
	c.mu.Lock()
	c.serial++
	part := fmt.Sprintf("%s.%d.part", e.name, c.serial)
	c.mu.Unlock()
	body, _, err := c.store.Open(ctx, f.Key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	dst, err := c.data.Create(part)
	if err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(dst, sum), body)
	err = errors.Join(err, dst.Close())
	switch {
	case err != nil:
	case f.Size > 0 && n != f.Size:
		err = record.Errorf(record.Corrupt, "%d bytes came, want %d", n, f.Size)
	case f.SHA256 != (lake.Digest{}) && lake.Digest(sum.Sum(nil)) != f.SHA256:
		err = record.Errorf(record.Corrupt, "checksum differs from the one in the catalog")
	default:
		e.size = n
		err = c.data.Rename(part, e.name)
	}
	if err != nil {
		return errors.Join(err, c.data.Remove(part))
	}
	return nil
}
