package cow

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSettleWithoutRoom: a file for which the upper has no room is left as it is, and the room that there is to others.
func TestSettleWithoutRoom(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"ext4", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			dir := filesystem(t, kind, 32)
			w := newWorldOn(t, t.TempDir(), dir, Config{})
			must(t, os.WriteFile(w.lowerPath("large"), pattern(64<<20, 1), 0o644))
			must(t, os.WriteFile(w.lowerPath("fits"), pattern(4<<20, 2), 0o644))
			must(t, os.WriteFile(w.lowerPath("sparse"), pattern(2<<20, 3), 0o644))
			must(t, os.Truncate(w.lowerPath("sparse"), 200<<20))
			for _, name := range []string{"large", "fits", "sparse"} {
				w.leave(name, &Want{Size: -1, MetaOnly: true})
			}
			if left, err := w.e.Settle(SettleOptions{}); left != 1 || err != nil {
				t.Errorf("left %d, %v", left, err)
			}
			if len(w.logged) != 1 || !strings.Contains(w.logged[0], "/large: cannot be completed: it needs 64 MiB") {
				t.Errorf("logged %q", w.logged)
			}
			p := w.partial("large")
			if _, err := p.Complete(0, nil); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("Complete: %v", err)
			}
			p.Close()
			for name, most := range map[string]int64{"large": 1 << 20, "fits": 5 << 20, "sparse": 3 << 20} {
				var st unix.Stat_t
				if err := unix.Stat(w.upperPath(name), &st); err != nil || st.Blocks*512 > most {
					t.Errorf("%s: %d bytes in the upper, %v", name, st.Blocks*512, err)
				}
			}
		})
	}
}

// TestFallocateWithoutRoom: fallocate over what was not copied yet, for which there is no room, takes none.
func TestFallocateWithoutRoom(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"ext4", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorldOn(t, t.TempDir(), filesystem(t, kind, 32), Config{})
			must(t, os.WriteFile(w.lowerPath("large"), pattern(64<<20, 1), 0o644))
			w.leave("large", &Want{Size: -1, MetaOnly: true})
			p := w.partial("large")
			defer p.Close()
			if err := p.Fallocate(0, 0, 64<<20, nil); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("all of it: %v", err)
			}
			var st unix.Stat_t
			if err := unix.Stat(w.upperPath("large"), &st); err != nil || st.Blocks*512 > 1<<20 {
				t.Errorf("%d bytes in the upper, %v", st.Blocks*512, err)
			}
			must(t, p.Fallocate(0, 60<<20, 4<<20, nil))
			if err := unix.Stat(w.upperPath("large"), &st); err != nil || st.Blocks*512 < 4<<20 {
				t.Errorf("with room: %d bytes in the upper, %v", st.Blocks*512, err)
			}
		})
	}
}
