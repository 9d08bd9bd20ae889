package lake

import (
	"bytes"
	"hash/maphash"
)

// interner gives equal byte strings one number, 0, 1, 2 …, so that buffers hold words instead of strings. A new string
// costs a copy into the arena; a known one costs a hash and a comparison, and no allocation.
type interner struct {
	seed  maphash.Seed
	arena []byte
	ends  []int    // ends[i] is where string i ends in arena; it starts where i-1 ends
	table []uint32 // open addressing: number+1, 0 is free; its length is a power of two
}

func newInterner() *interner {
	return &interner{seed: maphash.MakeSeed(), table: make([]uint32, 256)}
}

// id is the number of s.
func (in *interner) id(s []byte) uint32 {
	mask := uint64(len(in.table) - 1)
	slot := maphash.Bytes(in.seed, s) & mask
	for in.table[slot] != 0 {
		if n := in.table[slot] - 1; bytes.Equal(in.get(n), s) {
			return n
		}
		slot = (slot + 1) & mask
	}
	n := uint32(len(in.ends))
	in.arena = append(in.arena, s...)
	in.ends = append(in.ends, len(in.arena))
	in.table[slot] = n + 1
	if len(in.ends)*2 > len(in.table) {
		in.grow()
	}
	return n
}

func (in *interner) grow() {
	in.table = make([]uint32, 2*len(in.table))
	mask := uint64(len(in.table) - 1)
	for n := range in.ends {
		slot := maphash.Bytes(in.seed, in.get(uint32(n))) & mask
		for in.table[slot] != 0 {
			slot = (slot + 1) & mask
		}
		in.table[slot] = uint32(n) + 1
	}
}

// get is string n. It is valid until reset.
func (in *interner) get(n uint32) []byte {
	start := 0
	if n > 0 {
		start = in.ends[n-1]
	}
	return in.arena[start:in.ends[n]:in.ends[n]]
}

// bytes is what the interner holds, in bytes.
func (in *interner) bytes() int64 {
	return int64(len(in.arena) + 8*len(in.ends) + 4*len(in.table))
}

// reset forgets all strings. Memory beyond keep bytes is given back, so that one burst of long strings does not stay.
func (in *interner) reset(keep int) {
	if cap(in.arena) > keep || len(in.table) > keep/8 {
		*in = interner{seed: in.seed, table: make([]uint32, 256)}
		return
	}
	in.arena, in.ends = in.arena[:0], in.ends[:0]
	clear(in.table)
}
