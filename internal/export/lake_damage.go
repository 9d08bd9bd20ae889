package export

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/record"
)

// Damage to the spool: bytes that were synced and no longer read. They are never encoded anew, although the log may by
// chance still hold the records: other files of the step may be in the store already, and a second set under other keys
// would show their rows twice (docs/adr/0005-export-states.md). They are set aside, counted, reported in the log and in
// the store, and the rest of the step goes on.

// stored reports whether a file whose spool file is damaged had reached the store before. Without the right to look it
// counts as not stored: a loss reported too much is better than one too few.
func (l *Lake) stored(ctx context.Context, f lake.File) bool {
	o, err := l.o.Store.Stat(ctx, f.Key)
	return err == nil && o.Size == f.Size
}

// lose sets a damaged file aside.
func (l *Lake) lose(f lake.File, cause error) error {
	to, err := l.o.Spool.setAside(f.Spool)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.o.Log.Error("spool file damaged and set aside", "key", f.Key, "rows", f.Rows, "bytes", f.Size, "cause", cause, "to", to,
		"hint", "the disk returned other bytes than were written: check it; whole row groups of the file may still be readable")
	return l.o.Catalog.RemoveFiles([]lake.File{f})
}

// manifest reads the step's manifest in the spool, whose bytes only a step file can vouch for.
func (l *Lake) manifest(s Step) (lake.Manifest, lake.File, error) {
	dir := stepDir(l.o.Stream, s)
	prefix := lake.Range{Stream: l.o.Stream, From: s.From, To: s.To}.SpoolPrefix()
	name := dir + "/" + prefix + "json"
	text, err := l.o.Spool.dir.ReadFile(name)
	if err != nil {
		return lake.Manifest{}, lake.File{}, damage(err)
	}
	m, err := lake.DecodeManifest(text)
	if err != nil {
		return lake.Manifest{}, lake.File{}, damage(err)
	}
	if rng := m.Range(); rng.Stream != l.o.Stream || rng.From != s.From || rng.To != s.To {
		return lake.Manifest{}, lake.File{}, damage(fmt.Errorf("%s: is of another range", name))
	}
	return m, lake.File{
		Key: m.Range().ManifestKey(), Spool: name, Size: int64(len(text)), SHA256: sha256.Sum256(text),
		Table: m.Schema.Table, Manifest: true,
	}, nil
}

// rebuild makes a damaged step file again from the manifest. The checksums of the data files, which the manifest has
// too, are what proves it right.
func (l *Lake) rebuild(s Step) (*stepFile, error) {
	m, file, err := l.manifest(s)
	if err != nil {
		return nil, err
	}
	f := &stepFile{
		Version: stepFileVersion, Range: m.Range(), Table: m.Schema.Table, Rows: m.Rows, Rejected: m.Rejected,
		Files: m.FileList(),
	}
	for i := range f.Files {
		f.Files[i].Spool = stepDir(l.o.Stream, s) + "/" + f.Files[i].Spool
	}
	f.Files = append(f.Files, file)
	return f, nil
}

// giveUp sets a whole step aside whose step file and manifest are damaged: what its files are called in the store is not known.
func (l *Lake) giveUp(s Step, cause error) (Summary, error) {
	to, err := l.o.Spool.setAside(stepDir(l.o.Stream, s))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Summary{}, err
	}
	l.o.Log.Error("export step damaged and set aside", "from", uint64(s.From), "to", uint64(s.To), "cause", cause, "moved_to", to,
		"hint", "the disk returned other bytes than were written: check it; the Parquet files set aside can be copied into the lake by hand")
	return Summary{Damaged: 1}, nil
}

// damageMark is in the keys of notes of damage, between the manifest's name and a digest of the note.
const damageMark = "-damaged-"

// damageNote tells which files a manifest names in vain.
type damageNote struct {
	Version int         `json:"version"`
	Range   lake.Range  `json:"range"`
	Damaged []lake.File `json:"damaged"`
}

// sendDamage puts a note of damage beside the manifest. Its key holds a digest of it, because a repeated delivery may
// find more of them.
func (l *Lake) sendDamage(ctx context.Context, manifest lake.File, rng lake.Range, damaged []lake.File) error {
	text, err := json.MarshalIndent(damageNote{1, rng, damaged}, "", " ")
	if err != nil {
		return fmt.Errorf("encode damage note: %w", err)
	}
	digest := sha256.Sum256(text)
	key := strings.TrimSuffix(manifest.Key, ".json") + damageMark + hex.EncodeToString(digest[:4]) + ".json"
	err = l.o.Store.Put(ctx, blob.Upload{
		Key: key, Size: int64(len(text)), SHA256: digest, Body: strings.NewReader(string(text)), Resume: resumeName(key, digest),
	})
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

// IsDamageNote tells a note of damage, by its key, from the manifests that it lies beside and sorts before.
func IsDamageNote(key string) bool {
	return strings.HasPrefix(key, lake.ManifestPrefix) && strings.Contains(key, damageMark)
}

// LostFiles returns the files that a note of damage says are not in the store.
func LostFiles(text []byte) ([]lake.File, error) {
	var note damageNote
	if err := json.Unmarshal(text, &note); err != nil {
		return nil, record.Errorf(record.Corrupt, "decode damage note: %w", err)
	}
	return note.Damaged, nil
}

// damageError marks bytes of the spool that were durable and no longer read.
type damageError struct{ err error }

func (e *damageError) Error() string { return e.err.Error() }
func (e *damageError) Unwrap() error { return e.err }

// damage tells damage from what may pass: a missing file, a failing disk and other content are damage, running out of
// file descriptors is not.
func damage(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EIO) {
		return &damageError{err}
	}
	if _, isPath := errors.AsType[*fs.PathError](err); isPath {
		return err
	}
	return &damageError{err}
}

// readAttempts is how often a spool file that gives EIO is tried before it counts as damaged.
const readAttempts = 3

// patience takes the mark of damage off a read error that may pass.
func (l *Lake) patience(name string, err error) error {
	if !errors.Is(err, syscall.EIO) {
		return err
	}
	if l.unread[name]++; l.unread[name] >= readAttempts {
		return err
	}
	return record.Errorf(record.Unavailable, "read spool: %s", err.Error())
}

func isDamage(err error) bool {
	_, ok := errors.AsType[*damageError](err)
	return ok
}
