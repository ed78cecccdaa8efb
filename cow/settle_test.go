package cow

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKernelRefuses: the kernel's overlayfs mounts the upper when no file of it
// is unfinished, and only then.
func TestKernelRefuses(t *testing.T) {
	needRoot(t)
	dir := filesystem(t, "ext4", 128)
	w := newWorld(t, dir, Config{})
	want := pattern(1<<20, 6)
	must(t, os.WriteFile(w.lowerPath("f"), want, 0o644))
	mnt := t.TempDir()
	mount := func() error {
		opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", w.lower.Path, w.upper.Path, filepath.Dir(w.work.Path))
		return unix.Mount("overlay", mnt, "overlay", 0, opts)
	}
	w.leave("f", byRange)
	if err := mount(); err == nil {
		unix.Unmount(mnt, 0)
		t.Fatal("the kernel mounts an upper with an unfinished file")
	}
	if left, err := w.e.Settle(SettleOptions{}); left != 0 || err != nil {
		t.Fatal(left, err)
	}
	must(t, mount())
	defer unix.Unmount(mnt, unix.MNT_DETACH)
	sameContent(t, mnt+"/f", want)
}

func TestSettle(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		for _, kill := range []bool{false, true} {
			w := newWorld(t, dir, Config{})
			const files = 300 // more than a batch
			var want [files][]byte
			for i := range files {
				want[i] = pattern(metaThreshold+1000*(i%20), byte(i*2))
				must(t, os.WriteFile(w.lowerPath(fmt.Sprint(i)), want[i], 0o644))
				w.leave(fmt.Sprint(i), &Want{Size: -1, MetaOnly: true, Cause: CauseChown})
			}
			// A file that moved, one that is gone, one that is not the listed one.
			must(t, os.Mkdir(w.upperPath("d"), 0o755))
			must(t, os.Rename(w.upperPath("7"), w.upperPath("d/seven")))
			must(t, os.Remove(w.upperPath("8")))
			must(t, os.Remove(w.upperPath("9")))
			must(t, os.Symlink("/etc/passwd", w.upperPath("9")))
			if n := w.e.Unfinished(); n != files {
				t.Errorf("%d unfinished", n)
			}
			if kill {
				w.restart()
				if n := w.e.Unfinished(); n < 1 || !w.e.Marked() {
					t.Errorf("%d unfinished after a kill", n)
				}
			}
			found := 0
			must(t, w.e.Walk(func(path string, r *Record) error {
				if r == nil || r.Valid != r.Size {
					t.Errorf("%s: %+v", path, r)
				}
				found++
				return nil
			}))
			if found != files-2 {
				t.Errorf("%d files found, want %d", found, files-2)
			}
			var total int64
			left, err := w.e.Settle(SettleOptions{Budget: 100_000})
			if left == 0 || err != nil {
				t.Errorf("a budget settled all but %d, %v", left, err)
			}
			left, err = w.e.Settle(SettleOptions{Progress: func(done, all int64) { total = all }})
			if left != 0 || err != nil || total == 0 {
				t.Errorf("left %d of %d bytes, %v", left, total, err)
			}
			for i := range files {
				switch i {
				case 7:
					sameContent(t, w.upperPath("d/seven"), want[i])
				case 8, 9:
				default:
					sameContent(t, w.upperPath(fmt.Sprint(i)), want[i])
				}
			}
			if _, err := os.Lstat(w.work.Path + "/incompat"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the mark is still there: %v", err)
			}
			if n := w.e.Unfinished(); n != 0 {
				t.Errorf("%d unfinished", n)
			}
			if len(w.logged) > 0 {
				t.Errorf("logged %q", w.logged)
			}
		}
	})
}

// TestSmallCopyNeedsNoSync: a small file is copied at once and synced later; until
// then its record covers what a crash may take away.
func TestSmallCopyNeedsNoSync(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"ext4", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, filesystem(t, kind, 128), Config{})
			want := pattern(10_000, 3)
			must(t, os.WriteFile(w.lowerPath("f"), want, 0o644))
			s := w.copyUp("f", byRange)
			if s.Partial != (kind == "ext4") || s.Method == MethodRange {
				t.Fatalf("unfinished %v, method %s", s.Partial, s.Method)
			}
			must(t, os.Remove(w.lowerPath("f")))
			p := w.partial("f")
			defer p.Close()
			w.content(p, want)
			if left, err := w.e.Settle(SettleOptions{}); left != 0 || err != nil || !p.Finished() {
				t.Errorf("left %d, %v", left, err)
			}
			sameContent(t, w.upperPath("f"), want)
		})
	}
}

func TestSettleOfARemovedUpper(t *testing.T) {
	w := newWorld(t, t.TempDir(), Config{})
	must(t, os.WriteFile(w.lowerPath("f"), pattern(metaThreshold, 1), 0o644))
	w.leave("f", &Want{Size: -1, MetaOnly: true})
	must(t, os.RemoveAll(w.upper.Path))
	must(t, os.RemoveAll(filepath.Dir(w.work.Path)))
	if left, err := w.e.Settle(SettleOptions{}); left != 0 || err != nil || len(w.logged) > 0 {
		t.Errorf("left %d, %v, logged %q", left, err, w.logged)
	}
}

// TestCleanWorkKeepsTheMark: of what a kill leaves only staged objects go.
func TestCleanWorkKeepsTheMark(t *testing.T) {
	w := newWorld(t, t.TempDir(), Config{})
	must(t, os.WriteFile(w.lowerPath("f"), pattern(metaThreshold, 1), 0o644))
	w.leave("f", &Want{Size: -1, MetaOnly: true})
	w.restart()
	if _, err := os.Stat(w.work.Path + "/incompat/plyfs-partial"); err != nil || !w.e.Marked() {
		t.Error(err)
	}
}

// TestCompleteKeepsAttributes: filling in data is nobody's write.
func TestCompleteKeepsAttributes(t *testing.T) {
	needRoot(t)
	onEach(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, Config{})
		want := pattern(1<<20, 1)
		must(t, os.WriteFile(w.lowerPath("f"), want, 0o644))
		must(t, os.Chown(w.lowerPath("f"), 77, 88))
		must(t, unix.Chmod(w.lowerPath("f"), 0o6711))
		must(t, unix.Setxattr(w.lowerPath("f"), capability, capNetRaw, 0))
		must(t, os.Chtimes(w.lowerPath("f"), keepTimes(t, w.lowerPath("f")), keepTimes(t, w.lowerPath("f")).Add(-1e9)))
		w.leave("f", &Want{Size: -1, MetaOnly: true})
		p := w.partial("f")
		defer p.Close()
		done, err := p.Complete(0, nil)
		if !done || err != nil {
			t.Fatal(done, err)
		}
		var a, b unix.Stat_t
		must(t, unix.Stat(w.lowerPath("f"), &a))
		must(t, unix.Stat(w.upperPath("f"), &b))
		if a.Mode != b.Mode || a.Mtim != b.Mtim || a.Uid != b.Uid || a.Gid != b.Gid {
			t.Errorf("lower %+v, upper %+v", a, b)
		}
		if got := xattrsOf(t, w.upperPath("f")); !equalMaps(got, xattrsOf(t, w.lowerPath("f"))) {
			t.Errorf("xattrs %q", got)
		}
		sameContent(t, w.upperPath("f"), want)
	})
}

// TestPace: whoever settles beside others copies no more than its budget between two pauses.
func TestPace(t *testing.T) {
	const size, budget = 5 << 20, 1 << 20
	w := newWorld(t, t.TempDir(), Config{})
	for _, name := range []string{"a", "b"} {
		must(t, os.WriteFile(w.lowerPath(name), pattern(size, 1), 0o644))
		w.leave(name, byRange)
	}
	copied := func() (n int64) {
		for _, name := range []string{"a", "b"} {
			var st unix.Stat_t
			must(t, unix.Stat(w.upperPath(name), &st))
			n += st.Blocks * 512
		}
		return n
	}
	pauses, last := 0, copied()
	left, err := w.e.Settle(SettleOptions{Budget: budget, Pace: func() error {
		now := copied()
		if n := now - last; n > budget+64<<10 { // and what the filesystem needs to find it
			t.Errorf("%d bytes between two pauses", n)
		}
		pauses, last = pauses+1, now
		return nil
	}})
	if left != 0 || err != nil || pauses != 2*size/budget-1 && pauses != 2*size/budget {
		t.Errorf("%d pauses, left %d, %v", pauses, left, err)
	}
	// The pause is also where it is told to end.
	must(t, os.WriteFile(w.lowerPath("c"), pattern(size, 1), 0o644))
	w.leave("c", byRange)
	if _, err := w.e.Settle(SettleOptions{Budget: budget, Pace: func() error { return unix.EINTR }}); !errors.Is(err, unix.EINTR) {
		t.Errorf("ended in a pause: %v", err)
	}
	if !w.e.Marked() {
		t.Error("the mark went with a file unfinished")
	}
}
