package cow

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A long copy lets others have the processor whenever they wake up, a short one does not bother, and afterwards
// the thread is as it was.
func TestLongCopyGivesWay(t *testing.T) {
	slice := func() uint64 {
		a, err := unix.SchedGetAttr(0, 0)
		must(t, err)
		return a.Runtime
	}
	if slice() == 0 {
		t.Skip("this kernel has no slices of its own for each thread")
	}
	w := newWorld(t, t.TempDir(), Config{})
	for name, size := range map[string]int{"short": longCopy / 2, "long": 2 * longCopy} {
		must(t, os.WriteFile(w.lowerPath(name), pattern(size, 1), 0o644))
		from, err := os.Open(w.lowerPath(name))
		must(t, err)
		defer from.Close()
		to, err := os.Create(w.upperPath(name))
		must(t, err)
		defer to.Close()
		before, chunks, long := slice(), 0, 0
		c := copier{dst: int(to.Fd()), src: int(from.Fd()), pair: &pair{}}
		c.pair.noClone.Store(true)
		c.around = func(change func() error) error {
			chunks++
			if slice() == longSlice {
				long++
			}
			return change()
		}
		must(t, c.whole(int64(size), int64(size), uint64(size/512)))
		if want := name == "long"; chunks < 2 || want && long != chunks || !want && long != 0 {
			t.Errorf("%s: %d of %d chunks with the long slice", name, long, chunks)
		}
		if now := slice(); now != before {
			t.Errorf("%s: afterwards the slice is %d, not %d", name, now, before)
		}
		sameContent(t, w.upperPath(name), pattern(size, 1))
	}
}
