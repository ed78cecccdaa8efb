package cow

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAllocatedByPowerCut: space that was allocated for blocks whose data did not reach the disk before the power
// failed. The filesystem reads zeros there, and calls them data once they are in its page cache.
func TestAllocatedByPowerCut(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorldOn(t, t.TempDir(), filesystem(t, kind, 512), Config{Threshold: 1})
			const section = minBlock * sectionBlocks
			want := pattern(section+1<<20+123, 1)
			must(t, os.WriteFile(w.lowerPath("f"), want, 0o644))
			w.leave("f", byRange)
			p := w.partial("f")
			write := func(off, n int64) {
				t.Helper()
				b := pattern(int(n), 2)
				_, err := p.WriteAt(b, off)
				must(t, err)
				copy(want[off:], b)
			}
			for _, off := range []int64{5000, 300_000, section - 10_000} {
				write(off, 9000)
			}
			must(t, p.Sync(false))
			bare := []span{{0, 256 << 10}, {section - 64<<10, section + 256<<10}, {section + 1<<20, section + 1<<20 + 123}}
			for i := range int64(200) { // more than one answer of the filesystem holds
				bare = append(bare, span{1<<20 + 8192*i, 1<<20 + 8192*i + 4096})
			}
			for _, s := range bare {
				must(t, unix.Fallocate(p.fd, unix.FALLOC_FL_KEEP_SIZE, s.from, s.to-s.from))
			}
			reopen := func() {
				t.Helper()
				p.Close()
				w.restart()
				p = w.partial("f")
			}
			same := func() {
				t.Helper()
				got := make([]byte, len(want)+1)
				n, err := p.ReadAt(got, 0)
				must(t, err)
				if n != len(want) || firstDiff(got, want) < n {
					t.Errorf("%d bytes differ from the wanted %d at %d", n, len(want), firstDiff(got, want))
				}
			}
			reopen()
			same() // and the filesystem reads ahead
			_, err := os.ReadFile(w.upperPath("f"))
			must(t, err)
			reopen()
			same()
			write(20_000, 100) // not on the disk yet: that it is allocated only says nothing of it
			write(section+70_000, 5000)
			reopen()
			same()
			if _, err := p.Complete(0, nil); err != nil {
				t.Error(err)
			}
			p.Close()
			sameContent(t, w.upperPath("f"), want)
		})
	}
}
