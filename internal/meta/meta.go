// Package meta keeps facts that are no records and refer to no offsets: definitions, table schemas, the registry of
// lake files. They lie in one bbolt file, meta.db in the data directory.
//
// The types are DB, the open file, Tx, a transaction, and Bucket, a named map from string to a Go value (JSON with a
// checksum in front). A caller declares its buckets as values of its own package and works in View and Update.
//
// # Guarantees
//
//   - When Update has returned nil, its changes survive a crash; when it has not, none of them is there.
//   - A file of a newer format is refused with the remedy; nothing is changed in it.
//   - Damage never keeps the program from starting: the damaged file is renamed to meta.db.damaged-<time>, what still
//     reads is copied to a new one, and the loss is logged as an error and kept in Damage. What is missing then must be
//     rebuilt by its owner (package lake rebuilds its catalog from manifests).
//   - One case cannot be told from a crash: when the newest of bbolt's two meta pages is damaged, the file opens as it
//     was before the last Update. Owners must be able to repeat their last change.
//   - Damage found later, in a value or a page, is an error of kind Corrupt, never a panic.
//
// # Duties of the caller
//
// Only one process can have the file open; a second Open waits Options.LockTimeout and then fails. Transactions are
// short: a View that stays open keeps old pages from being reused.
//
// DB is safe for concurrent use: one Update at a time, any number of Views. It starts no goroutine.
package meta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"iter"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// FileName is the file's name in the data directory.
const FileName = "meta.db"

// Format is the version of the file's layout that this program writes; it reads this one and all before it.
const Format = 1

// ownBucket holds facts about the file itself: "format" → version in decimal digits.
const ownBucket = "_meta"

// verifyLimit is the largest file, in bytes, that Open reads as a whole to find damage. Larger ones are checked value
// by value when they are used, so that the time to start does not grow with the catalog.
const verifyLimit = 64 << 20

// DB is the open file.
type DB struct {
	b      *bbolt.DB
	damage *Damage
}

// Options are the settings of Open.
type Options struct {
	Log         *slog.Logger
	LockTimeout time.Duration // how long to wait for another process that has the file open; 0 means 2 s
}

// Damage is what Open found wrong with the previous file.
type Damage struct {
	Path   string // where the damaged file was put
	Reason error
	Kept   int // values copied to the new file
}

// Open opens meta.db in dir, creating it when missing.
func Open(dir *vfs.Dir, opt Options) (*DB, error) {
	if opt.LockTimeout == 0 {
		opt.LockTimeout = 2 * time.Second
	}
	path := filepath.Join(dir.Path(), FileName)
	b, err := openFile(path, opt.LockTimeout, false)
	if err == nil {
		if err = prepare(b); err == nil {
			return &DB{b: b}, nil
		}
		err = errors.Join(err, b.Close())
	}
	if record.KindOf(err) != record.Corrupt {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return replace(dir, opt, err)
}

// Damage tells what Open had to repair; nil when nothing.
func (d *DB) Damage() *Damage { return d.damage }

// Close closes the file. It is idempotent and waits for open transactions.
func (d *DB) Close() error { return d.b.Close() }

// Path is where the file lies.
func (d *DB) Path() string { return d.b.Path() }

func openFile(path string, timeout time.Duration, readOnly bool) (b *bbolt.DB, err error) {
	err = guard(func() error {
		b, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout: timeout, ReadOnly: readOnly, FreelistType: bbolt.FreelistMapType, NoStatistics: true,
		})
		return err
	})
	switch {
	case err == nil:
		return b, nil
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, record.Errorf(record.Unavailable, "another process has it open (waited %v)", timeout).
			WithHint("stop the other leat, or give this one another --data-dir")
	case errors.Is(err, bbolterrors.ErrInvalid), errors.Is(err, bbolterrors.ErrChecksum),
		errors.Is(err, bbolterrors.ErrVersionMismatch), isShort(err):
		return nil, record.Errorf(record.Corrupt, "%w", err)
	}
	return nil, err
}

// isShort recognises the errors bbolt gives for a file of less than two pages; it has no value for them.
func isShort(err error) bool {
	s := err.Error()
	return s == "file size too small" || s == "EOF" || s == "unexpected EOF"
}

// prepare checks the format and, in a file of moderate size, that everything reads; an empty file gets its format.
func prepare(b *bbolt.DB) error {
	var format, size int64
	err := guard(func() error {
		return b.View(func(tx *bbolt.Tx) error {
			size = tx.Size()
			bucket := tx.Bucket([]byte(ownBucket))
			if bucket == nil {
				return nil
			}
			var err error
			if format, err = strconv.ParseInt(string(bucket.Get([]byte("format"))), 10, 64); err != nil {
				return record.Errorf(record.Corrupt, "read format: %w", err)
			}
			return nil
		})
	})
	switch {
	case err != nil:
		return err
	case format > Format:
		return record.Errorf(record.Invalid, "format %d is newer than %d, the newest this leat reads", format, Format).
			WithHint("install the leat that wrote this data directory, or a newer one")
	case format == 0:
		return guard(func() error { return b.Update(putFormat) })
	case size > verifyLimit:
		return nil
	}
	return walk(b, func(string, []byte, []byte) error { return nil }, true)
}

func putFormat(tx *bbolt.Tx) error {
	bucket, err := tx.CreateBucketIfNotExists([]byte(ownBucket))
	if err != nil {
		return err
	}
	return bucket.Put([]byte("format"), []byte(strconv.Itoa(Format)))
}

// walk calls do for every value whose checksum is right. With strict it returns the first damage found, else it goes
// on behind it as far as the file can be followed.
func walk(b *bbolt.DB, do func(bucket string, k, v []byte) error, strict bool) error {
	var names []string
	err := guard(func() error {
		return b.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
				names = append(names, string(name))
				return nil
			})
		})
	})
	if err != nil && strict {
		return err
	}
	for _, name := range names {
		if name == ownBucket {
			continue
		}
		err := guard(func() error {
			return b.View(func(tx *bbolt.Tx) error {
				return tx.Bucket([]byte(name)).ForEach(func(k, v []byte) error {
					if _, err := unseal(v); err != nil {
						if strict {
							return err
						}
						return nil
					}
					return do(name, k, v)
				})
			})
		})
		if err != nil && strict {
			return fmt.Errorf("bucket %s: %w", name, err)
		}
	}
	return nil
}

// replace puts the damaged file aside and starts a new one with what can still be read.
func replace(dir *vfs.Dir, opt Options, reason error) (*DB, error) {
	aside := FileName + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := dir.Rename(FileName, aside); err != nil {
		return nil, fmt.Errorf("put damaged %s aside: %w", FileName, err)
	}
	if err := dir.SyncDir("."); err != nil {
		return nil, err
	}
	b, err := openFile(filepath.Join(dir.Path(), FileName), opt.LockTimeout, false)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", FileName, err)
	}
	d := &DB{b: b, damage: &Damage{Path: filepath.Join(dir.Path(), aside), Reason: reason}}
	if err := prepare(b); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if err := d.salvage(opt.LockTimeout); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	opt.Log.Error("metadata file was damaged and has been replaced", "damaged_file", d.damage.Path, "reason", reason,
		"values_kept", d.damage.Kept)
	return d, nil
}

// salvage copies what reads, in transactions of a bounded number of values. That nothing reads is no error.
func (d *DB) salvage(timeout time.Duration) error {
	old, err := openFile(d.damage.Path, timeout, true)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return err
		}
		return nil // not a database any more
	}
	type entry struct {
		bucket string
		k, v   []byte
	}
	var batch []entry
	flush := func() error {
		err := d.b.Update(func(tx *bbolt.Tx) error {
			for _, e := range batch {
				bucket, err := tx.CreateBucketIfNotExists([]byte(e.bucket))
				if err != nil {
					return err
				}
				if err := bucket.Put(e.k, e.v); err != nil {
					return err
				}
			}
			return nil
		})
		d.damage.Kept += len(batch)
		batch = batch[:0]
		return err
	}
	var failed error
	err = walk(old, func(bucket string, k, v []byte) error {
		batch = append(batch, entry{bucket, bytes.Clone(k), bytes.Clone(v)})
		if len(batch) >= 1000 && failed == nil {
			failed = flush()
		}
		return failed
	}, false)
	if failed == nil && len(batch) > 0 {
		failed = flush()
	}
	return errors.Join(err, failed, old.Close())
}

// guard turns the ways in which bbolt meets a damaged page (panics, faults beyond the end of the mapped file) into an
// error of kind Corrupt.
func guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = record.Errorf(record.Corrupt, "damaged page: %v", p)
		}
	}()
	return do()
}

// Tx is a transaction. It is valid until the function it was given to returns.
type Tx struct {
	tx *bbolt.Tx
}

// View runs do on a consistent snapshot.
func (d *DB) View(do func(*Tx) error) error {
	return guard(func() error {
		return d.b.View(func(tx *bbolt.Tx) error { return do(&Tx{tx}) })
	})
}

// Update runs do and makes its changes durable, or, when it returns an error, none of them.
func (d *DB) Update(do func(*Tx) error) error {
	return guard(func() error {
		return d.b.Update(func(tx *bbolt.Tx) error { return do(&Tx{tx}) })
	})
}

// Bucket is a named map from string to T, kept as JSON. The zero keys and values are as good as others, but "" is no
// key. A Bucket holds no state: declare it where it is used.
type Bucket[T any] string

// Get returns the value of key; ok is false when there is none.
func (b Bucket[T]) Get(tx *Tx, key string) (v T, ok bool, err error) {
	bucket := tx.tx.Bucket([]byte(b))
	if bucket == nil {
		return v, false, nil
	}
	sealed := bucket.Get([]byte(key))
	if sealed == nil {
		return v, false, nil
	}
	err = b.decode(key, sealed, &v)
	return v, err == nil, err
}

// Put sets the value of key.
func (b Bucket[T]) Put(tx *Tx, key string, v T) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s %q: %w", string(b), key, err)
	}
	bucket, err := tx.tx.CreateBucketIfNotExists([]byte(b))
	if err != nil {
		return err
	}
	return bucket.Put([]byte(key), seal(data))
}

// Delete removes key; a missing one is no error.
func (b Bucket[T]) Delete(tx *Tx, key string) error {
	bucket := tx.tx.Bucket([]byte(b))
	if bucket == nil {
		return nil
	}
	return bucket.Delete([]byte(key))
}

// Entry is a key with its value, as Scan yields it.
type Entry[T any] struct {
	Key   string
	Value T
}

// Scan yields the entries whose keys start with prefix and are at least from, in key order, and ends after the first
// error. The bucket must not be changed meanwhile.
func (b Bucket[T]) Scan(tx *Tx, prefix, from string) iter.Seq2[Entry[T], error] {
	return func(yield func(Entry[T], error) bool) {
		bucket := tx.tx.Bucket([]byte(b))
		if bucket == nil {
			return
		}
		c := bucket.Cursor()
		for k, sealed := c.Seek([]byte(max(prefix, from))); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, sealed = c.Next() {
			e := Entry[T]{Key: string(k)}
			err := b.decode(e.Key, sealed, &e.Value)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (b Bucket[T]) decode(key string, sealed []byte, v *T) error {
	data, err := unseal(sealed)
	if err == nil {
		if jerr := json.Unmarshal(data, v); jerr != nil {
			err = record.Errorf(record.Corrupt, "decode: %w", jerr)
		}
	}
	if err != nil {
		return fmt.Errorf("read %s %q: %w", string(b), key, err)
	}
	return nil
}

// A value lies in the file as four bytes of CRC-32C (little endian) and the JSON they cover: bbolt has no checksums.
func seal(data []byte) []byte {
	sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	return append([]byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)}, data...)
}

func unseal(sealed []byte) ([]byte, error) {
	if len(sealed) < 4 {
		return nil, record.Errorf(record.Corrupt, "value of %d bytes has no checksum", len(sealed))
	}
	data := sealed[4:]
	sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	if want := uint32(sealed[0]) | uint32(sealed[1])<<8 | uint32(sealed[2])<<16 | uint32(sealed[3])<<24; sum != want {
		return nil, record.Errorf(record.Corrupt, "checksum %08x, want %08x", sum, want)
	}
	return data, nil
}
