package forward

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/leat-io/leat/internal/awsclient"
	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/blob/s3"
	"github.com/leat-io/leat/internal/clock"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// S3Options are the surroundings of the targets that execute S3 upload tasks.
type S3Options struct {
	Config Config // Timeout, S3Directories, S3PartSize and Destinations count here
	// State keeps what is needed to resume multipart uploads after a restart; nil: they start anew. The caller keeps it
	// open until after Close. No other program part uses it.
	State       *vfs.Dir
	Limiter     *Limiter
	WriteStatus StatusWriter
	Clock       clock.Clock
	Log         *slog.Logger // not nil
}

// S3Tasks makes targets that execute S3 upload tasks, and holds the stores they share. Close it when no target is used
// any more.
type S3Tasks struct {
	o           S3Options
	destination func(streamName, export, kind string) Destination
	stores      stores
}

// NewS3Tasks does no I/O: stores are opened when the first task names them.
func NewS3Tasks(o S3Options) *S3Tasks {
	o.Config = o.Config.withDefaults()
	return &S3Tasks{o: o, destination: o.Config.Destination, stores: stores{state: o.State, log: o.Log}}
}

// Close closes the stores. It is idempotent.
func (s *S3Tasks) Close() error { return s.stores.close() }

func (s *S3Tasks) now() time.Time { return time.Unix(0, s.o.Clock.Read().Wall) }

// S3Spec is one export of the kind S3 task executor.
type S3Spec struct {
	Stream     string // as its clients call it
	Identifier string // of the export
	// MultipartAbove is the size, in bytes, above which a file is sent in parts; 0: 5 MiB.
	MultipartAbove int64
	// StatusStream gets the statuses up to StatusLevel (see s3status.go); "": nobody does.
	StatusStream string
	StatusLevel  StatusLevel
}

// S3Target executes the tasks of one export: each message names a file of this machine, and a bucket and a key to which
// it is uploaded, whatever the key held before. The file stays.
//
// A task that cannot be executed (it is malformed, its file missing, outside of Config.S3Directories or behind a link
// that leads out of them, its bucket missing, the right lacking) gets the status Failure and is skipped. What may go away
// without anybody touching the task (network, a busy store, leat's own credentials) is tried again for ever.
//
// Of a link to a file only relative ones that stay inside of the directory count as inside. A file that changes while it
// is uploaded is uploaded once more from the start, and fails when it changes again.
//
// Statuses are written at least once. Key, with its time, and InProgress are fixed with the first attempt and kept in
// Batch.State, so that retries and restarts change neither; parts that an earlier attempt sent are not sent again.
//
// It holds one task at a time and no lock; the stores are shared with the other targets of S3Tasks.
type S3Target struct {
	tasks *S3Tasks
	spec  S3Spec
}

var (
	_ Target   = (*S3Target)(nil)
	_ Canceler = (*S3Target)(nil)
	_ Dropper  = (*S3Target)(nil)
)

// Target makes the target of an export.
func (s *S3Tasks) Target(spec S3Spec) *S3Target {
	if spec.MultipartAbove == 0 {
		spec.MultipartAbove = MinS3PartSize
	}
	return &S3Target{s, spec}
}

func (t *S3Target) log() *slog.Logger {
	return t.tasks.o.Log.With("stream", t.spec.Stream, "export", t.spec.Identifier)
}

// Deliver executes the pending tasks one after the other.
func (t *S3Target) Deliver(ctx context.Context, b *Batch) error {
	for _, i := range b.Pending() {
		if err := t.execute(ctx, b, i); err != nil {
			return err
		}
	}
	return nil
}

// taskState is Batch.State: what the next attempt at a task must find as it was.
type taskState struct {
	Version  int           `json:"version"`
	Sequence record.Offset `json:"sequence"`
	Key      string        `json:"key,omitempty"`    // with its placeholders replaced
	SHA256   string        `json:"sha256,omitempty"` // of the file, in hexadecimal digits
	Told     bool          `json:"told,omitempty"`   // InProgress was written
	Outcome  *outcome      `json:"outcome,omitempty"`
}

// taskStateVersion is the version of taskState; others are not read, which costs repeating.
const taskStateVersion = 1

// outcome is what became of a task whose last status is not written yet.
type outcome struct {
	Status s3Status `json:"status"`
	Text   string   `json:"text"`
}

func loadState(data []byte, sequence record.Offset) taskState {
	var st taskState
	if json.Unmarshal(data, &st) != nil || st.Version != taskStateVersion || st.Sequence != sequence {
		return taskState{Version: taskStateVersion, Sequence: sequence}
	}
	return st
}

func (st *taskState) save(ctx context.Context, b *Batch) error {
	data, err := json.Marshal(st)
	if err != nil {
		return record.Errorf(record.Internal, "encode the state of an S3 task: %w", err)
	}
	return b.Save(ctx, data)
}

// failure is an error that ends a task.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// execute settles message i, or returns why it must be tried again.
func (t *S3Target) execute(ctx context.Context, b *Batch, i int) error {
	m := &b.Messages[i]
	st := loadState(b.State, m.Sequence)
	d, err := decodeTask(m.Payload)
	if st.Outcome == nil {
		if err != nil {
			err = failure{err}
		} else {
			err = t.upload(ctx, b, d, &st)
		}
		f, failed := errors.AsType[failure](err)
		switch {
		case err == nil:
			st.Outcome = &outcome{statusSuccess, fmt.Sprintf("uploaded %s to s3://%s/%s", d.InputURL, d.Bucket, st.Key)}
		case failed:
			st.Outcome = &outcome{statusFailure, awsclient.FirstLine(explain(f.error), maxText)}
			t.giveUp(ctx, m.Sequence, d)
		default:
			return err
		}
	}
	if err := t.tell(ctx, st.Outcome.Status, m.Sequence, d, st.Outcome.Text); err != nil {
		return errors.Join(err, st.save(ctx, b)) // so that the upload at least is not repeated
	}
	if st.Outcome.Status == statusSuccess {
		b.Delivered(i)
	} else {
		b.Skip(i, st.Outcome.Text)
	}
	return nil
}

// upload brings the file to the store. A failure ends the task, any other error is for later.
func (t *S3Target) upload(ctx context.Context, b *Batch, d s3TaskDefinition, st *taskState) error {
	if err := d.validate(); err != nil {
		return failure{err}
	}
	path, err := filePath(d.InputURL)
	if err != nil {
		return failure{err}
	}
	if st.Key == "" {
		if st.Key, err = t.key(d.Key); err != nil {
			return err
		}
	}
	err = t.attempt(ctx, b, d, st, path)
	if errors.Is(err, errChanged) {
		err = t.attempt(ctx, b, d, st, path)
	}
	if errors.Is(err, errChanged) {
		return failure{record.Errorf(record.Conflict, "%s changed while it was uploaded, twice", path).
			WithHint("append the task when the file is complete: write it under another name and rename it")}
	}
	return err
}

// key replaces the placeholders of a key by the time, which must be one to believe.
func (t *S3Target) key(template string) (string, error) {
	now := t.tasks.o.Clock.Read()
	key, err := expandKey(template, time.Unix(0, now.Wall))
	switch {
	case err != nil:
		return "", failure{err}
	case key != template && !now.Trusted:
		return "", record.Errorf(record.Unavailable, "the key %s has the time in it, and this machine's clock is not set yet", template).
			WithHint("leat waits for the clock (NTP)")
	default:
		return key, nil
	}
}

// attempt opens the file, tells that its upload begins, unless it was told before, and sends it. The error is errChanged
// when the file changed meanwhile.
func (t *S3Target) attempt(ctx context.Context, b *Batch, d s3TaskDefinition, st *taskState, path string) (err error) {
	src, err := openSource(t.tasks.o.Config.S3Directories, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	sum, err := src.hash(ctx)
	if err != nil {
		return src.cause(err)
	}
	if err := t.begin(ctx, b, d, st, hex.EncodeToString(sum[:]), src.size); err != nil {
		return err
	}
	store, release, err := t.store(ctx, d.Bucket)
	if err != nil {
		return err
	}
	defer release()
	u := blob.Upload{
		Key: st.Key, Size: src.size, SHA256: sum, Body: src, Resume: t.resume(st.Sequence),
		Overwrite: true, Metadata: d.UserMetadata, MultipartAbove: t.spec.MultipartAbove,
	}
	if t.tasks.o.Limiter != nil {
		u.Pace = t.tasks.o.Limiter.Wait
	}
	err = store.Put(ctx, u)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if err = src.cause(err); s3.Permanent(err) {
		return failure{err}
	}
	return err
}

// begin fixes what later attempts must repeat.
func (t *S3Target) begin(ctx context.Context, b *Batch, d s3TaskDefinition, st *taskState, sum string, size int64) error {
	if st.SHA256 == sum {
		return nil
	}
	if st.SHA256 != "" {
		t.giveUp(ctx, st.Sequence, d) // parts of what the file was
	}
	st.SHA256 = sum
	if !st.Told {
		text := fmt.Sprintf("uploading %s, %d bytes, to s3://%s/%s", d.InputURL, size, d.Bucket, st.Key)
		if err := t.tell(ctx, statusInProgress, st.Sequence, d, text); err != nil {
			return err
		}
		st.Told = true
	}
	if st.Key == d.Key && !t.hears(statusInProgress) && size <= t.spec.MultipartAbove {
		return nil // another attempt would do the same without knowing of this one
	}
	return st.save(ctx, b)
}

// resume is the name of a task's upload.
func (t *S3Target) resume(sequence record.Offset) string {
	return fmt.Sprintf("%s/%s/%d", t.spec.Stream, t.spec.Identifier, sequence)
}

// store opens a bucket where the export's destination has it.
func (t *S3Target) store(ctx context.Context, bucket string) (store *s3.Store, release func(), err error) {
	return t.tasks.stores.open(ctx, t.config(bucket))
}

func (t *S3Target) config(bucket string) s3.Config {
	d := t.tasks.destination(t.spec.Stream, t.spec.Identifier, KindS3)
	c := s3.DefaultConfig()
	c.Endpoint, c.Region, c.PathStyle, c.Bucket = d.Endpoint, d.Region, d.PathStyle, bucket
	c.AccessKey, c.SecretKey, c.SessionToken, c.Profile = d.AccessKey, d.SecretKey, d.SessionToken, d.Profile
	c.PartSize, c.StallTimeout = t.tasks.o.Config.S3PartSize, t.tasks.o.Config.Timeout
	return c
}

// giveUp frees what the store holds of a task's unfinished upload. When it cannot, the client is told.
func (t *S3Target) giveUp(ctx context.Context, sequence record.Offset, d s3TaskDefinition) {
	if !validBucket(d.Bucket) || !t.tasks.stores.mayHold(t.config(d.Bucket)) {
		return
	}
	store, release, err := t.store(ctx, d.Bucket)
	if err == nil {
		defer release()
		err = store.Abort(ctx, t.resume(sequence))
	}
	if err == nil {
		return
	}
	t.log().Warn("parts of an unfinished upload stay in the bucket", "bucket", d.Bucket, "key", d.Key, "sequence", uint64(sequence),
		"error", err, "hint", record.HintOf(err))
	if err := t.tell(ctx, statusWarning, sequence, d, explain(err)); err != nil {
		t.log().Warn("status of an S3 task dropped", "sequence", uint64(sequence), "error", err)
	}
}

// Cancel tells that a task will not be executed because its stream or export has gone, and frees what was uploaded of it.
func (t *S3Target) Cancel(ctx context.Context, _ string, m Message, why string) error {
	// Of a malformed task the status tells what could be read: that it was malformed matters no more.
	d, _ := decodeTask(m.Payload)
	t.giveUp(ctx, m.Sequence, d)
	return t.tell(ctx, statusCanceled, m.Sequence, d, "canceled: "+why)
}

// maxDropped is how many lost tasks get a status each.
const maxDropped = 100

// Drop tells that tasks were lost by their stream. Their definitions are gone, so statuses have the sequence number only.
// The first maxDropped tasks have one each; the last of these tells of the rest.
func (t *S3Target) Drop(ctx context.Context, _ string, from, to record.Offset, why string) error {
	for sequence := from; sequence < to && sequence-from < maxDropped; sequence++ {
		text := "canceled: " + why
		if sequence-from == maxDropped-1 && sequence+1 < to {
			text += fmt.Sprintf(" (tasks %d to %d have no status of their own)", sequence+1, to-1)
		}
		if err := t.tell(ctx, statusCanceled, sequence, s3TaskDefinition{}, text); err != nil {
			return err
		}
	}
	return nil
}
