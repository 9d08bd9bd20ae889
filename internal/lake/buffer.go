package lake

import (
	"bytes"
	"slices"
)

// column holds a column's values in the order they came: for text the number of the string in the interner, else one
// word with the meaning that the column's type gives it (float64 bits, integer, 0 or 1, nanoseconds). It is dense as
// long as every row so far has a value.
type column struct {
	words []uint64
	ids   []uint32 // instead of words, in a text column
	rows  []uint32 // of words or ids; nil while dense
}

func (c *column) len() int { return len(c.words) + len(c.ids) }

// buffer holds the rows of one partition that are not yet in a row group.
type buffer struct {
	day   int64 // days since 1970
	n     int   // rows
	bytes int64 // what it counts for in the budget
	ts    []int64
	cols  []column // by index in the table's columns; the entry of ts stays empty
}

// What a row, a value and the row number of a value in a sparse column account for, in bytes.
const (
	rowBytes  = 8 + 8 // time, and two orders while sorting
	wordBytes = 8
	idBytes   = 4
	gapBytes  = 4 + 4 // the row's number, and its inverse while encoding
)

func (b *buffer) row(ts int64) {
	b.ts = append(b.ts, ts)
	b.n++
}

func (b *buffer) column(c int) *column {
	for len(b.cols) <= c {
		b.cols = append(b.cols, column{})
	}
	return &b.cols[c]
}

// put gives column c of the newest row the value w and returns the bytes that added.
func (b *buffer) put(c int, w uint64) int64 {
	col := b.column(c)
	col.words = append(col.words, w)
	return wordBytes + col.placed(b.n-1)
}

// putID is put for a text column.
func (b *buffer) putID(c int, id uint32) int64 {
	col := b.column(c)
	col.ids = append(col.ids, id)
	return idBytes + col.placed(b.n-1)
}

// placed notes that the newest value is that of row, and returns the bytes that took.
func (c *column) placed(row int) (added int64) {
	n := c.len()
	if c.rows == nil && n == row+1 {
		return 0
	}
	if c.rows == nil { // the first gap: from now on rows are listed
		c.rows = make([]uint32, 0, max(16, n))
		for r := range n - 1 {
			c.rows = append(c.rows, uint32(r))
		}
		added = gapBytes * int64(n-1)
	}
	c.rows = append(c.rows, uint32(row))
	return added + gapBytes
}

// reset empties the buffer for another day and keeps its memory.
func (b *buffer) reset(day int64) {
	b.day, b.n, b.ts = day, 0, b.ts[:0]
	for i := range b.cols {
		b.cols[i] = column{words: b.cols[i].words[:0], ids: b.cols[i].ids[:0]}
	}
}

// sorter orders a buffer's rows by some text columns and then by time. It keeps its memory between uses.
type sorter struct {
	order, other []uint32
	counts       []uint32
	ranks        []uint32
	distinct     []uint32
}

// sort returns the rows of b in the order of their values in the columns keys (dense, interned text, the most
// significant first), then of time, then of arrival. Keys have few distinct values, so each is a counting sort by rank;
// within equal keys rows nearly always come in the order of time already, which one pass proves.
func (s *sorter) sort(b *buffer, keys []int, in *interner) []uint32 {
	s.order = slices.Grow(s.order[:0], b.n)[:b.n]
	s.other = slices.Grow(s.other[:0], b.n)[:b.n]
	for i := range s.order {
		s.order[i] = uint32(i)
	}
	for _, key := range slices.Backward(keys) {
		s.byKey(b.cols[key].ids, in)
	}
	for start := 0; start < b.n; {
		end := start + 1
		for end < b.n && sameKeys(b, keys, s.order[start], s.order[end]) {
			end++
		}
		byTime(b.ts, s.order[start:end])
		start = end
	}
	return s.order
}

func sameKeys(b *buffer, keys []int, i, j uint32) bool {
	for _, k := range keys {
		if b.cols[k].ids[i] != b.cols[k].ids[j] {
			return false
		}
	}
	return true
}

func byTime(ts []int64, rows []uint32) {
	for i := 1; i < len(rows); i++ {
		if ts[rows[i-1]] > ts[rows[i]] {
			slices.SortStableFunc(rows, func(a, b uint32) int {
				switch {
				case ts[a] < ts[b]:
					return -1
				case ts[a] > ts[b]:
					return 1
				}
				return 0
			})
			return
		}
	}
}

// byKey reorders s.order, stably, by the rank of the strings that ids number.
func (s *sorter) byKey(ids []uint32, in *interner) {
	n := len(in.ends)
	s.ranks = slices.Grow(s.ranks[:0], n)[:n]
	clear(s.ranks)
	s.distinct = s.distinct[:0]
	for _, id := range ids {
		if s.ranks[id] == 0 {
			s.ranks[id] = 1
			s.distinct = append(s.distinct, id)
		}
	}
	slices.SortFunc(s.distinct, func(a, b uint32) int { return bytes.Compare(in.get(a), in.get(b)) })
	for rank, id := range s.distinct {
		s.ranks[id] = uint32(rank)
	}
	s.counts = slices.Grow(s.counts[:0], len(s.distinct)+1)[:len(s.distinct)+1]
	clear(s.counts)
	for _, id := range ids {
		s.counts[s.ranks[id]+1]++
	}
	for i := 1; i < len(s.counts); i++ {
		s.counts[i] += s.counts[i-1]
	}
	for _, row := range s.order {
		rank := s.ranks[ids[row]]
		s.other[s.counts[rank]] = row
		s.counts[rank]++
	}
	s.order, s.other = s.other, s.order
}
