package s3

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/leat-io/leat/internal/blob"
	"github.com/leat-io/leat/internal/vfs"
)

// stateVersion is the version of the files in Options.State; others are not resumed.
const stateVersion = 1

// stateAge is how long an unfinished upload is remembered.
const stateAge = 30 * 24 * time.Hour

// upload is an unfinished multipart upload as it is kept: <id>.json in Options.State. Which parts are done is not kept;
// the store knows.
type upload struct {
	Version   int    `json:"version"`
	Key       string `json:"key"`
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256"`
	UploadID  string `json:"upload_id"`
	PartSize  int64  `json:"part_size"`
	Checksums bool   `json:"checksums"`        // the upload was created to carry the parts' SHA-256
	Resume    string `json:"resume,omitempty"` // blob.Upload.Resume, for Abort

	id   string
	kept bool // on disk, so that a later attempt goes on with it
}

func newUpload(id string, u blob.Upload, partSize int64) *upload {
	return &upload{
		Version: stateVersion, Key: u.Key, Size: u.Size, SHA256: hex.EncodeToString(u.SHA256[:]), PartSize: partSize,
		Resume: u.Resume, id: id,
	}
}

// count is the number of parts.
func (up *upload) count() int32 { return int32((up.Size + up.PartSize - 1) / up.PartSize) }

// sizeOf is the size of part n, counted from 1.
func (up *upload) sizeOf(n int32) int64 { return min(up.PartSize, up.Size-int64(n-1)*up.PartSize) }

// uploads keeps unfinished uploads. Losing what it keeps costs sending again, so its failures are logged and not
// returned: a full disk must not stop the uploads that make room on it.
type uploads struct {
	dir *vfs.Dir // nil: nothing is kept
	log *slog.Logger
}

// openUploads forgets what has been unfinished for too long.
func openUploads(dir *vfs.Dir, log *slog.Logger) (uploads, error) {
	l := uploads{dir, log}
	if dir == nil {
		return l, nil
	}
	entries, err := dir.ReadDir(".")
	if err != nil {
		return l, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || e.IsDir() {
			continue
		}
		if time.Since(info.ModTime()) > stateAge || strings.HasSuffix(e.Name(), ".tmp") {
			l.remove(e.Name())
		}
	}
	return l, nil
}

// id names an upload's file: the same content and metadata for the same place under the same Resume. It is "" when
// nothing is to be kept.
func (l uploads) id(cfg *Config, u blob.Upload) string {
	if l.dir == nil || u.Resume == "" {
		return ""
	}
	h := sha256.New()
	for _, s := range []string{cfg.Endpoint, cfg.Bucket, cfg.Prefix, u.Key, u.Resume} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	h.Write(u.SHA256[:])
	for _, name := range slices.Sorted(maps.Keys(u.Metadata)) {
		fmt.Fprintf(h, "%q=%q", name, u.Metadata[name])
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func (l uploads) load(id string, u blob.Upload) (*upload, bool) {
	if id == "" {
		return nil, false
	}
	data, err := l.dir.ReadFile(id + ".json")
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.log.Warn("cannot read the state of an upload: it starts again", "key", u.Key, "error", err)
		}
		return nil, false
	}
	up := upload{id: id, kept: true}
	if err := json.Unmarshal(data, &up); err != nil || !up.matches(u) {
		l.log.Warn("state of an upload is damaged or of another version: it starts again", "key", u.Key)
		l.remove(id + ".json")
		return nil, false
	}
	return &up, true
}

// matches checks every field that the upload's arithmetic and the protocol rely on.
func (up *upload) matches(u blob.Upload) bool {
	return up.Version == stateVersion && up.Key == u.Key && up.Size == u.Size &&
		up.SHA256 == hex.EncodeToString(u.SHA256[:]) && up.UploadID != "" &&
		up.PartSize >= minPartSize && up.PartSize <= maxPartSize && up.Size > 0 && up.Size <= up.PartSize*maxParts
}

// begun returns the uploads that are kept under a Resume.
func (l uploads) begun(resume string) []*upload {
	if l.dir == nil || resume == "" {
		return nil
	}
	entries, err := l.dir.ReadDir(".")
	if err != nil {
		l.log.Warn("cannot read the state of uploads: unfinished ones stay in the store", "error", err)
		return nil
	}
	var found []*upload
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		data, err := l.dir.ReadFile(e.Name())
		up := upload{id: id, kept: true}
		// A damaged file is load's business.
		if ok && err == nil && json.Unmarshal(data, &up) == nil && up.Resume == resume && up.Version == stateVersion {
			found = append(found, &up)
		}
	}
	return found
}

func (l uploads) save(up *upload) {
	if up.id == "" {
		return
	}
	data, err := json.Marshal(up)
	if err == nil {
		err = l.dir.WriteFile(up.id+".json", data)
	}
	if err != nil {
		l.log.Warn("cannot keep the state of an upload: a restart will send it from the start", "key", up.Key, "error", err)
		return
	}
	up.kept = true
}

func (l uploads) forget(up *upload) {
	if up.kept {
		l.remove(up.id + ".json")
		up.kept = false
	}
}

func (l uploads) remove(name string) {
	if err := l.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.log.Warn("cannot remove the state of an upload", "file", name, "error", err)
	}
}
