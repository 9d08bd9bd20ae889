package segment

import (
	"container/list"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// An index file lists a sealed segment's groups by stream, so that a read finds its place without scanning. It can
// always be made again from its segment and is therefore never synced. Layout in docs/format/log.md.
const (
	indexHeaderSize = 40
	indexEntrySize  = 32 // directory entry and group
)

var indexMagic = [8]byte{'L', 'E', 'A', 'T', 'I', 'D', 'X', 1}

// streamGroups is a stream's part of an index.
type streamGroups struct {
	id     record.StreamID
	groups []group
}

// activeIndex collects the index of the active segment, sorted by stream. Called with mu held; what it returns may be
// read without, as only the committer changes groups in place.
func (l *lane) activeIndex() []streamGroups {
	var out []streamGroups
	for _, s := range l.sortedStreams() {
		if len(s.groups) > 0 {
			out = append(out, streamGroups{id: s.id, groups: s.groups})
		}
	}
	return out
}

// encodeIndex lays out an index file: header, directory sorted by stream id, groups.
func encodeIndex(number, salt uint64, index []streamGroups) []byte {
	le := binary.LittleEndian
	dir := make([]byte, 0, len(index)*indexEntrySize)
	var body []byte
	total := 0
	for _, sg := range index {
		start := len(body)
		for _, g := range sg.groups {
			body = le.AppendUint64(body, uint64(g.first))
			body = le.AppendUint64(body, uint64(g.maxTime))
			for _, v := range []uint32{g.pos, g.span, g.count, g.logical} {
				body = le.AppendUint32(body, v)
			}
		}
		dir = le.AppendUint64(dir, uint64(sg.id))
		dir = le.AppendUint32(dir, uint32(total))
		dir = le.AppendUint32(dir, uint32(len(sg.groups)))
		dir = le.AppendUint32(dir, crc32.Checksum(body[start:], castagnoli))
		dir = append(dir, make([]byte, indexEntrySize-20)...)
		total += len(sg.groups)
	}
	head := make([]byte, indexHeaderSize)
	copy(head, indexMagic[:])
	le.PutUint64(head[8:], number)
	le.PutUint64(head[16:], salt)
	le.PutUint32(head[24:], uint32(len(index)))
	le.PutUint32(head[28:], crc32.Checksum(dir, castagnoli))
	le.PutUint32(head[36:], crc32.Checksum(head[:36], castagnoli))
	return slices.Concat(head, dir, body)
}

func (l *lane) writeIndex(seg *segmentState, index []streamGroups) error {
	name := fileName(seg.number, seg.salt, indexExt)
	var old int64
	if st, err := l.dir.Stat(name); err == nil {
		old = st.Size()
	}
	f, err := l.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	l.physical.Add(-old)
	b := encodeIndex(seg.number, seg.salt, index)
	_, err = f.WriteAt(b, 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, l.dir.Remove(name))
	}
	l.physical.Add(int64(len(b)))
	return nil
}

// decodeIndex reads a whole index, checking everything.
func decodeIndex(b []byte, number, salt uint64) ([]streamGroups, error) {
	le := binary.LittleEndian
	bad := record.Errorf(record.Corrupt, "index of segment %d is damaged", number)
	if len(b) < indexHeaderSize || [8]byte(b) != indexMagic || le.Uint64(b[8:]) != number || le.Uint64(b[16:]) != salt ||
		le.Uint32(b[36:]) != crc32.Checksum(b[:36], castagnoli) {
		return nil, bad
	}
	streams := int(le.Uint32(b[24:]))
	if streams > (len(b)-indexHeaderSize)/indexEntrySize {
		return nil, bad
	}
	dir, body := b[indexHeaderSize:indexHeaderSize+streams*indexEntrySize], b[indexHeaderSize+streams*indexEntrySize:]
	if le.Uint32(b[28:]) != crc32.Checksum(dir, castagnoli) {
		return nil, bad
	}
	out := make([]streamGroups, streams)
	for i := range out {
		e := dir[i*indexEntrySize:]
		start, count := int64(le.Uint32(e[8:])), int64(le.Uint32(e[12:]))
		if (start+count)*indexEntrySize > int64(len(body)) {
			return nil, bad
		}
		part := body[start*indexEntrySize : (start+count)*indexEntrySize]
		if crc32.Checksum(part, castagnoli) != le.Uint32(e[16:]) {
			return nil, bad
		}
		out[i] = streamGroups{id: record.StreamID(le.Uint64(e)), groups: decodeGroups(part)}
	}
	return out, nil
}

func decodeGroups(b []byte) []group {
	le := binary.LittleEndian
	groups := make([]group, len(b)/indexEntrySize)
	for i := range groups {
		e := b[i*indexEntrySize:]
		groups[i] = group{
			first: record.Offset(le.Uint64(e)), maxTime: int64(le.Uint64(e[8:])),
			pos: le.Uint32(e[16:]), span: le.Uint32(e[20:]), count: le.Uint32(e[24:]), logical: le.Uint32(e[28:]),
		}
	}
	return groups
}

// scanIndex makes a segment's index from its frames.
func scanIndex(r io.ReaderAt, size int64, salt uint64) ([]streamGroups, error) {
	byID := map[record.StreamID][]group{}
	sc := newScanner(r, size, salt)
	for {
		p, err := sc.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if p.kind == kindData && !p.unreadable {
			byID[p.stream] = addGroup(byID[p.stream], &p.header, p.pos)
		}
	}
	out := make([]streamGroups, 0, len(byID))
	for id, groups := range byID {
		out = append(out, streamGroups{id: id, groups: groups})
	}
	slices.SortFunc(out, func(a, b streamGroups) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return out, nil
}

// indexCache keeps the groups that readers used last. It has its own mutex, taken after the lane's or alone.
type indexCache struct {
	lane *lane

	mu     sync.Mutex // guards what follows
	lru    *list.List // of *cachedGroups, most recently used first
	byKey  map[indexKey]*list.Element
	groups int
}

// maxCachedGroups bounds the cache: 32 bytes each.
const maxCachedGroups = 64 << 10

type indexKey struct {
	segment uint64
	id      record.StreamID
}

type cachedGroups struct {
	key    indexKey
	groups []group
}

func newIndexCache(l *lane) *indexCache {
	return &indexCache{lane: l, lru: list.New(), byKey: map[indexKey]*list.Element{}}
}

// get returns the groups of a stream in a sealed segment; the caller must not change them.
func (c *indexCache) get(seg segmentState, id record.StreamID) ([]group, error) {
	key := indexKey{seg.number, id}
	c.mu.Lock()
	if e, ok := c.byKey[key]; ok {
		c.lru.MoveToFront(e)
		groups := e.Value.(*cachedGroups).groups
		c.mu.Unlock()
		return groups, nil
	}
	c.mu.Unlock()
	groups, err := c.load(seg, id)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byKey[key]; !ok {
		c.byKey[key] = c.lru.PushFront(&cachedGroups{key: key, groups: groups})
		c.groups += len(groups) + 1
	}
	for c.groups > maxCachedGroups && c.lru.Len() > 1 {
		c.evict(c.lru.Back())
	}
	return groups, nil
}

func (c *indexCache) evict(e *list.Element) {
	cg := e.Value.(*cachedGroups)
	c.lru.Remove(e)
	delete(c.byKey, cg.key)
	c.groups -= len(cg.groups) + 1
}

func (c *indexCache) forget(segment uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.lru.Front(); e != nil; {
		next := e.Next()
		if e.Value.(*cachedGroups).key.segment == segment {
			c.evict(e)
		}
		e = next
	}
}

// load reads one stream's groups from the index file: binary search in the directory, then the groups. A damaged or
// missing index is made again first.
func (c *indexCache) load(seg segmentState, id record.StreamID) ([]group, error) {
	name := fileName(seg.number, seg.salt, indexExt)
	f, err := c.lane.dir.Open(name)
	if err == nil {
		groups, rerr := readGroups(f, id)
		if err = errors.Join(rerr, f.Close()); err == nil {
			return groups, nil
		}
	}
	c.lane.logger.Warn("index missing or damaged; rebuilding it from its segment", "segment", seg.number, "reason", err)
	return c.rebuild(seg, id)
}

func (c *indexCache) rebuild(seg segmentState, id record.StreamID) ([]group, error) {
	h, err := c.lane.files.open(seg.number, seg.salt)
	if err != nil {
		return nil, err
	}
	defer h.release()
	size, err := h.file.Size()
	if err != nil {
		return nil, err
	}
	index, err := scanIndex(h.file, size, seg.salt)
	if err != nil {
		return nil, err
	}
	c.lane.stats.indexRebuilds.Add(1)
	if err := c.lane.writeIndex(&seg, index); err != nil {
		c.lane.logger.Warn("index not written; it will be rebuilt when needed", "segment", seg.number, "error", err)
	}
	for _, sg := range index {
		if sg.id == id {
			return sg.groups, nil
		}
	}
	return nil, nil
}

func readGroups(f *vfs.File, id record.StreamID) ([]group, error) {
	le := binary.LittleEndian
	var head [indexHeaderSize]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return nil, fmt.Errorf("read index header: %w", err)
	}
	if [8]byte(head[:]) != indexMagic || le.Uint32(head[36:]) != crc32.Checksum(head[:36], castagnoli) {
		return nil, record.Errorf(record.Corrupt, "index header is damaged")
	}
	var e [indexEntrySize]byte
	streams := int64(le.Uint32(head[24:]))
	lo, hi := int64(0), streams
	for lo < hi {
		mid := (lo + hi) / 2
		if _, err := f.ReadAt(e[:], indexHeaderSize+mid*indexEntrySize); err != nil {
			return nil, fmt.Errorf("read index directory: %w", err)
		}
		if record.StreamID(le.Uint64(e[:])) < id {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < streams {
		if _, err := f.ReadAt(e[:], indexHeaderSize+lo*indexEntrySize); err != nil {
			return nil, fmt.Errorf("read index directory: %w", err)
		}
	}
	if lo == streams || record.StreamID(le.Uint64(e[:])) != id {
		return nil, checkDirectory(f, streams, le.Uint32(head[28:]))
	}
	start, count := int64(le.Uint32(e[8:])), int64(le.Uint32(e[12:]))
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	at := indexHeaderSize + (streams+start)*indexEntrySize
	if at+count*indexEntrySize > size {
		return nil, record.Errorf(record.Corrupt, "index is shorter than its directory says")
	}
	b := make([]byte, count*indexEntrySize)
	if _, err := f.ReadAt(b, at); err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	if crc32.Checksum(b, castagnoli) != le.Uint32(e[16:]) {
		return nil, record.Errorf(record.Corrupt, "index groups are damaged")
	}
	return decodeGroups(b), nil
}

// checkDirectory makes sure that a stream which the search did not find is not there: a page that a power cut left empty
// leads the search astray.
func checkDirectory(f *vfs.File, streams int64, sum uint32) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	if indexHeaderSize+streams*indexEntrySize > size {
		return record.Errorf(record.Corrupt, "index is shorter than its directory")
	}
	dir := make([]byte, streams*indexEntrySize)
	if _, err := f.ReadAt(dir, indexHeaderSize); err != nil && len(dir) > 0 {
		return fmt.Errorf("read index directory: %w", err)
	}
	if crc32.Checksum(dir, castagnoli) != sum {
		return record.Errorf(record.Corrupt, "index directory is damaged")
	}
	return nil
}

// fileCache keeps a few segments open for reading. Deleted segments stay readable for who holds them.
type fileCache struct {
	dir   *vfs.Dir
	limit int

	mu       sync.Mutex // guards what follows, and the handles' refs
	lru      *list.List // of *handle
	byNumber map[uint64]*list.Element
}

type handle struct {
	cache   *fileCache
	segment uint64
	file    *vfs.File
	refs    int
	doomed  bool
}

func newFileCache(dir *vfs.Dir, limit int) *fileCache {
	return &fileCache{dir: dir, limit: limit, lru: list.New(), byNumber: map[uint64]*list.Element{}}
}

// open returns a handle on the segment; release it.
func (c *fileCache) open(number, salt uint64) (*handle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byNumber[number]; ok {
		c.lru.MoveToFront(e)
		h := e.Value.(*handle)
		h.refs++
		return h, nil
	}
	f, err := c.dir.Open(fileName(number, salt, segmentExt))
	if err != nil {
		return nil, fmt.Errorf("open segment %d: %w", number, err)
	}
	h := &handle{cache: c, segment: number, file: f, refs: 1}
	c.byNumber[number] = c.lru.PushFront(h)
	for e := c.lru.Back(); e != nil && c.lru.Len() > c.limit; {
		prev := e.Prev()
		if e.Value.(*handle).refs == 0 {
			c.drop(e)
		}
		e = prev
	}
	return h, nil
}

// drop takes a handle out of the cache; it is closed when nobody holds it.
func (c *fileCache) drop(e *list.Element) {
	h := e.Value.(*handle)
	c.lru.Remove(e)
	delete(c.byNumber, h.segment)
	h.doomed = true
	h.closeUnused()
}

func (h *handle) closeUnused() {
	if h.doomed && h.refs == 0 {
		_ = h.file.Close() // opened for reading: nothing can be lost
	}
}

func (h *handle) release() {
	h.cache.mu.Lock()
	defer h.cache.mu.Unlock()
	h.refs--
	h.closeUnused()
}

func (c *fileCache) forget(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byNumber[number]; ok {
		c.drop(e)
	}
}

func (c *fileCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.lru.Len() > 0 {
		c.drop(c.lru.Front())
	}
}
