package server

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/blob/file"
	"github.com/leat-io/leat/internal/blob/s3"
	"github.com/leat-io/leat/internal/vfs"
)

// openStore opens the bucket or the directory. dir is the lake's directory when queries can link its files: when it is
// a directory on the data directory's file system.
func (s *Server) openStore(ctx context.Context) (store blob.Store, dir string, err error) {
	if s.cfg.Store.S3.Bucket != "" {
		return s.openBucket(ctx)
	}
	path := s.cfg.Store.Dir
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.data.Path(), path)
	}
	d, err := vfs.OpenDir(path, nil)
	if err != nil {
		return nil, "", pathError("store.dir", path, err)
	}
	s.closeLater(d.Close)
	f, err := file.Open(d, s.log.With("part", "store"))
	if err != nil {
		return nil, "", pathError("store.dir", path, err)
	}
	s.closeLater(f.Close)
	dir, err = below(s.data.Path(), path)
	return f, dir, err
}

// below is where path lies below base, symbolic links followed; "" when it lies elsewhere: a link that leads out of the
// data directory is not followed from within (see vfs).
func below(base, path string) (string, error) {
	base, err := filepath.EvalSymlinks(base)
	if err != nil {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	if rel, err := filepath.Rel(base, path); err == nil && filepath.IsLocal(rel) {
		return filepath.ToSlash(rel), nil
	}
	return "", nil
}

func (s *Server) openBucket(ctx context.Context) (blob.Store, string, error) {
	state, err := s.sub("upload")
	if err != nil {
		return nil, "", err
	}
	store, err := s3.Open(ctx, s3.Options{Config: s.cfg.Store.S3, State: state, Log: s.log.With("part", "store")})
	if err != nil {
		return nil, "", fmt.Errorf("store.s3: %w", err)
	}
	s.closeLater(store.Close)
	return store, "", nil
}

// storePlace is where files end up, for people.
func (s *Server) storePlace() string {
	c := s.cfg.Store
	if c.S3.Bucket == "" {
		if filepath.IsAbs(c.Dir) {
			return c.Dir
		}
		return filepath.Join(s.data.Path(), c.Dir)
	}
	place := "s3://" + c.S3.Bucket
	if p := strings.Trim(c.S3.Prefix, "/"); p != "" {
		place += "/" + p
	}
	if c.S3.Endpoint != "" {
		place += " at " + c.S3.Endpoint
	}
	return place
}
