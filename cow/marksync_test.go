package cow

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The mark is brought to the disk when something in the upper is synced, not before; it costs no
// sync at all when it is gone by then; and no descriptor stays.
func TestMarkSyncedWhenNeeded(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, filesystem(t, kind, map[string]int{"ext4": 64, "xfs": 320, "btrfs": 128}[kind]), Config{Threshold: 1})
			must(t, os.WriteFile(w.lowerPath("f"), pattern(1<<20, 1), 0o644))
			must(t, os.WriteFile(w.lowerPath("g"), pattern(1<<20, 2), 0o644))
			w.leave("f", byRange)
			s := w.e.list.sync.Load()
			if s == nil {
				t.Fatal("the first change waited for the sync of the mark")
			}
			dirs := slices.Clone(s.dirs)
			p := w.partial("f")
			must(t, p.Sync(false))
			p.Close()
			if w.e.list.sync.Load() != nil {
				t.Error("an fsync did not sync the mark first")
			}
			_, err := w.e.Settle(SettleOptions{})
			must(t, err)

			w.leave("g", byRange) // a new mark
			s = w.e.list.sync.Load()
			if s == nil {
				t.Fatal("no sync of the second mark is due")
			}
			dirs = append(dirs, s.dirs...)
			must(t, w.e.removeMark(w.e.list.seq))
			if w.e.list.sync.Load() != nil {
				t.Error("the sync of a mark that is gone is still due")
			}
			for _, fd := range dirs {
				if to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && strings.Contains(to, PartialMark) {
					t.Errorf("descriptor %d of %s stays open", fd, to)
				}
			}
		})
	}
}

// The list of unfinished files is written in pieces, and nothing of it is missing meanwhile.
func TestListGathered(t *testing.T) {
	w := newWorld(t, t.TempDir(), Config{Threshold: 1})
	if w.e.Block() == 0 {
		t.Skip("no unfinished files here")
	}
	list := filepath.Join(w.work.Path, incompatDir, PartialMark, listName)
	work, err := w.work.Root.FD()
	must(t, err)
	defer w.work.Root.Done()
	var want []string
	writes, last := 0, int64(0)
	for total := 0; total < 3*tailBytes; {
		path := fmt.Sprintf("%s/%d", strings.Repeat("d", 100), len(want))
		must(t, w.e.announce(work, "/"+path))
		w.e.placed(true)
		want, total = append(want, path), total+len(path)+1
		st, err := os.Stat(list)
		must(t, err)
		if st.Size() != last {
			writes, last = writes+1, st.Size()
		}
	}
	if writes < 2 || writes > 3 {
		t.Errorf("%d paths went to the list with %d writes", len(want), writes)
	}
	got, _, err := w.e.hints()
	must(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("%d paths in the list, want %d", len(got), len(want))
	}
}
