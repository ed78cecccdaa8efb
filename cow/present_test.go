package cow

import (
	"sync"
	"testing"
)

// TestRunWhileBlocksAreSet: a run is of one block at least, also when that block becomes present meanwhile.
func TestRunWhileBlocksAreSet(t *testing.T) {
	const blocks = 4 * sectionBlocks
	for range 50 {
		m := newBlockMap(blocks)
		var wg sync.WaitGroup
		wg.Go(func() {
			for k := range int64(blocks) {
				m.set(k, k+1)
			}
		})
		for k := int64(0); k < blocks; {
			present, next := m.run(k, blocks)
			if next <= k || next > blocks {
				t.Fatalf("from block %d: present %v, until %d", k, present, next)
			}
			if !present {
				continue // until it is
			}
			k = next
		}
		wg.Wait()
	}
}
