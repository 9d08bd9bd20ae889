package server

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/leat-io/leat/internal/export"
	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/record"
)

// restoreCatalog rebuilds the catalog from this node's manifests in the store, when meta.db was damaged or is new while
// the store is not. Exports do not wait for it; queries see older files once it is done. It is tried until it succeeds,
// over restarts, too.
func (s *Server) restoreCatalog(ctx context.Context, ready func()) error {
	ready()
	pause := s.cfg.Export.RetryMin
	for s.rebuild {
		files, refused, err := s.restoreOnce(ctx)
		if err == nil {
			if files > 0 {
				s.log.Info("catalog restored from the store's manifests", "files", files)
			}
			s.unrestored.Store(refused)
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		if last := s.unrestored.Swap(&err); last == nil || (*last).Error() != err.Error() {
			s.log.Warn("catalog not restored yet: queries miss files that are in the store", "error", err, "hint", record.HintOf(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		}
		pause = min(2*pause, s.cfg.Export.RetryMax)
	}
	<-ctx.Done()
	return nil
}

// restoreOnce goes through all manifests. Those that do not read, or do not fit the tables as they are now (a table
// that was made anew meanwhile can have got another type for a column), are passed over and reported: refused is the
// first of them.
func (s *Server) restoreOnce(ctx context.Context) (files int, refused *error, err error) {
	lost := map[string]bool{} // keys that manifests name in vain
	for o, err := range s.store.List(ctx, lake.ManifestPrefix+s.node+"/") {
		if err != nil {
			return files, nil, fmt.Errorf("list manifests: %w", err)
		}
		text, err := s.readObject(ctx, o.Key)
		if err != nil {
			return files, nil, fmt.Errorf("read manifest %s: %w", o.Key, err)
		}
		n, err := s.restoreFrom(o.Key, text, lost)
		if err != nil {
			err = fmt.Errorf("restore manifest %s: %w", o.Key, err)
		}
		switch kind := record.KindOf(err); {
		case err == nil:
			files += n
		case kind == record.Corrupt || kind == record.Invalid:
			s.log.Error("manifest passed over; its files are missing from the catalog", "key", o.Key, "error", err)
			if refused == nil {
				refused = &err
			}
		default:
			return files, nil, err
		}
	}
	return files, refused, s.catalog.SetComplete(true)
}

// restoreFrom registers the files of a manifest, or adds those of a note of damage, which comes first, to lost.
func (s *Server) restoreFrom(key string, text []byte, lost map[string]bool) (files int, err error) {
	if export.IsDamageNote(key) {
		damaged, err := export.LostFiles(text)
		for _, f := range damaged {
			lost[f.Key] = true
		}
		return 0, err
	}
	m, err := lake.DecodeManifest(text)
	if err != nil {
		return 0, err
	}
	m.Files = slices.DeleteFunc(m.Files, func(f lake.ManifestFile) bool { return lost[f.Key] })
	return len(m.Files), s.catalog.Restore(m, lake.Store)
}

// maxManifest is far above what a step's manifest can have: a damaged store must not fill the memory.
const maxManifest = 64 << 20

func (s *Server) readObject(ctx context.Context, key string) ([]byte, error) {
	body, _, err := s.store.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(io.LimitReader(body, maxManifest))
}
