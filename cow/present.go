package cow

import (
	"math/bits"
	"sync/atomic"
)

// blockMap is the set of blocks of one file that are known to be in the upper.
// It is read and changed without a lock; a block never leaves it. Blocks are
// kept in sections that are learned from the filesystem one by one: until a
// section is loaded, a missing block means nothing.
type blockMap struct {
	sections []section
}

type section struct {
	loaded atomic.Bool
	words  atomic.Pointer[[sectionBlocks / 64]uint64] // nil: no block; its words are accessed atomically
}

// sectionBlocks is how many blocks a section has: learning about one (a seek
// for each extent) must not keep a reader waiting.
const sectionBlocks = 1 << 13

func newBlockMap(blocks int64) blockMap {
	return blockMap{make([]section, (blocks+sectionBlocks-1)/sectionBlocks)}
}

func (m *blockMap) get(k int64) bool {
	w := m.sections[k/sectionBlocks].words.Load()
	return w != nil && atomic.LoadUint64(&w[k%sectionBlocks/64])&(1<<(k%64)) != 0
}

// set adds the blocks from .. to.
func (m *blockMap) set(from, to int64) {
	for from < to {
		s := &m.sections[from/sectionBlocks]
		w := s.words.Load()
		if w == nil {
			s.words.CompareAndSwap(nil, new([sectionBlocks / 64]uint64))
			w = s.words.Load()
		}
		n := min(to-from, 64-from%64)
		atomic.OrUint64(&w[from%sectionBlocks/64], (^uint64(0)>>(64-n))<<(from%64))
		from += n
	}
}

// run returns whether block k is present, and the first block after it, at most
// end, that is not like it. It is asked while others set blocks, so that each word is
// looked at once: else the run of a block that just became present would be empty.
func (m *blockMap) run(k, end int64) (present bool, next int64) {
	for first := true; k < end; first = false {
		base := k - k%64
		w := m.sections[k/sectionBlocks].words.Load()
		var word uint64
		if w != nil {
			word = atomic.LoadUint64(&w[k%sectionBlocks/64])
		}
		if first {
			present = word&(1<<(k%64)) != 0
		}
		if present {
			word = ^word
		}
		if word >>= k % 64; word != 0 {
			return present, min(k+int64(bits.TrailingZeros64(word)), end)
		}
		if w == nil && !present {
			k = k - k%sectionBlocks + sectionBlocks
		} else {
			k = base + 64
		}
	}
	return present, end
}

// all says whether every block from .. to is present.
func (m *blockMap) all(from, to int64) bool {
	if from >= to {
		return true
	}
	present, next := m.run(from, to)
	return present && next == to
}
