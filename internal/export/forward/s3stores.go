package forward

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/leat-io/leat/internal/blob/s3"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// maxStores is how many stores stay open without a user: clients choose buckets, so there is no end to them.
const maxStores = 16

// stores are the open stores of S3 tasks, one for each bucket of a destination. It is safe for concurrent use.
type stores struct {
	state *vfs.Dir // nil: nothing is kept
	log   *slog.Logger

	mu     sync.Mutex   // guards below, and is held while a store is opened or closed, which talks to nobody
	list   []*openStore // least recently used first
	closed bool
}

type openStore struct {
	*s3.Store
	id    string
	dir   *vfs.Dir // below stores.state; nil: nothing is kept
	users int
}

// storeID names a store, and the directory of its state.
func storeID(c s3.Config) string {
	h := sha256.New()
	for _, s := range []string{c.Endpoint, c.Region, c.Profile, c.AccessKey, c.Bucket} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// open returns a store; the caller calls release when it does not use it any more.
func (s *stores) open(ctx context.Context, c s3.Config) (store *s3.Store, release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, record.Errorf(record.Unavailable, "open bucket %s: leat is stopping", c.Bucket)
	}
	id := storeID(c)
	i := slices.IndexFunc(s.list, func(o *openStore) bool { return o.id == id })
	var o *openStore
	if i >= 0 {
		o = s.list[i]
		s.list = append(slices.Delete(s.list, i, i+1), o)
	} else {
		if o, err = s.connect(ctx, id, c); err != nil {
			return nil, nil, err
		}
		s.list = append(s.list, o)
	}
	o.users++
	s.trim(maxStores)
	return o.Store, sync.OnceFunc(func() { s.release(o) }), nil
}

// connect opens a store with a directory of its own for state. Without one, uploads start anew after a restart.
func (s *stores) connect(ctx context.Context, id string, c s3.Config) (*openStore, error) {
	o := &openStore{id: id}
	if s.state != nil {
		var err error
		if o.dir, err = s.state.Sub(id); err != nil {
			s.log.Warn("cannot keep the state of uploads: a restart sends unfinished ones from the start", "bucket", c.Bucket, "error", err)
		}
	}
	var err error
	o.Store, err = s3.Open(ctx, s3.Options{Config: c, State: o.dir, Log: s.log, AnyKey: true})
	if err != nil {
		if o.dir != nil {
			err = errors.Join(err, o.dir.Close())
		}
		return nil, err
	}
	return o, nil
}

func (s *stores) release(o *openStore) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.users--
	if s.closed {
		s.trim(0)
		return
	}
	s.trim(maxStores)
}

// trim closes what was not used for longest and has no user, until at most n stores are open. It needs the lock.
func (s *stores) trim(n int) {
	for i := 0; i < len(s.list) && len(s.list) > n; {
		if s.list[i].users > 0 {
			i++
			continue
		}
		if err := s.end(s.list[i]); err != nil {
			s.log.Warn("close object store", "error", err)
		}
		s.list = slices.Delete(s.list, i, i+1)
	}
}

// end closes a store and removes its directory when no upload is unfinished.
func (s *stores) end(o *openStore) error {
	err := o.Close()
	if o.dir == nil {
		return err
	}
	entries, rerr := o.dir.ReadDir(".")
	err = errors.Join(err, rerr, o.dir.Close())
	if rerr == nil && len(entries) == 0 {
		err = errors.Join(err, s.state.Remove(o.id))
	}
	return err
}

// mayHold reports whether an unfinished upload to a store may be known.
func (s *stores) mayHold(c s3.Config) bool {
	if s.state == nil {
		return false
	}
	_, err := s.state.Stat(storeID(c))
	return err == nil
}

// close closes all stores; those in use when they are released.
func (s *stores) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.trim(0)
	return nil
}
