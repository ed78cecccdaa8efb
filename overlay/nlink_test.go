package overlay

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// linkNames are the names that the linked inode may have; d/f and over are other files' too.
var linkNames = []string{"a", "b", "c", "d/e", "d/f", "new", "moved", "over"}

// linkedWorld makes a lower layer with a linked inode, and an upper directory with a work directory in top, and returns
// their parent.
func linkedWorld(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	var err error
	for _, d := range []string{"lower/d", "top/upper", "top/work"} {
		err = errors.Join(err, os.MkdirAll(at(d), 0o755))
	}
	for _, f := range []string{"a", "over", "other"} {
		err = errors.Join(err, os.WriteFile(at("lower/"+f), []byte("contents"), 0o644))
	}
	for _, l := range []string{"b", "c", "d/e", "d/f"} {
		err = errors.Join(err, os.Link(at("lower/a"), at("lower/"+l)))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(at("top/upper"), "trusted.test", []byte("1"), 0); err != nil {
		t.Skip("trusted attributes cannot be written: ", err)
	}
	return dir
}

// openLinked opens the union of a linkedWorld, with a top. Files are copied whole, so that the kernel takes the upper.
func openLinked(t *testing.T, dir, top string) *FS {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Lowers, cfg.Upper, cfg.Work = []string{dir + "/lower"}, top+"/upper", top+"/work"
	cfg.Threshold, cfg.SettleBudget = -1, -1
	cfg.Log = t.Logf
	fs, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// Killed between any two steps of what changes the names of a linked inode, its link count is the number
// of names it has: for the next mount, and for the kernel.
func TestLinkCountAfterKill(t *testing.T) {
	dir := linkedWorld(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	open := func(top string) *FS { return openLinked(t, dir, top) }
	fs := open(at("top"))
	if fs.indexd == nil {
		t.Skip("no index here")
	}
	var now, seen string
	snapshots := 0
	fs.crashAt = func(step string) {
		seen += " " + step
		for _, who := range []string{"plyfs", "kernel"} {
			snapshots++
			top := fmt.Sprintf("%s/kill%d", dir, snapshots)
			if out, err := exec.Command("cp", "-a", at("top"), top).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v: %s", err, out)
			}
			var bad string
			if who == "plyfs" {
				killed := open(top)
				bad = badCounts(func(name string, st *Attr) error { return lstat(killed, name, st) })
				if err := killed.Close(); err != nil {
					t.Error(err)
				}
			} else {
				bad = kernelCounts(t, at("lower"), top)
			}
			if bad != "" {
				t.Errorf("%s, killed at %q, in %s:%s", now, step, who, bad)
			}
		}
	}
	var a Attr
	node := func(path string) *Node {
		t.Helper()
		n, err := find(fs, path)
		if err != nil {
			t.Fatal(path, err)
		}
		return n
	}
	d := node("d")
	for _, op := range []struct {
		what, steps string
		do          func() error
	}{
		{"write a", " indexed named", func() error { _, err := fs.WriteAt(nil, node("a"), []byte("C"), 0, false); return err }},
		{"link a new", "", func() error { return fs.Link(nil, node("a"), fs.root, "new", &a) }},
		{"unlink b", " to be named named", func() error { return fs.Unlink(nil, fs.root, "b") }},
		{"rename c moved", " to be named named", func() error { return fs.Rename(nil, fs.root, "c", fs.root, "moved", 0) }},
		{"rename d/e over", " to be named named", func() error { return fs.Rename(nil, d, "e", fs.root, "over", 0) }},
		{"rename other d/f", " to be named named", func() error { return fs.Rename(nil, fs.root, "other", d, "f", 0) }},
		{"unlink a", "", func() error { return fs.Unlink(nil, fs.root, "a") }},
		{"tidy", " dropped", func() error { return fs.tidy(nil) }},
	} {
		now, seen = op.what, ""
		if err := op.do(); err != nil {
			t.Errorf("%s: %v", op.what, err)
		}
		if seen != op.steps {
			t.Errorf("%s: stopped at%s, not at%s", op.what, seen, op.steps)
		}
		if bad := badCounts(func(name string, st *Attr) error { return lstat(fs, name, st) }); bad != "" {
			t.Errorf("%s:%s", op.what, bad)
		}
	}
	if err := fs.Close(); err != nil {
		t.Error(err)
	}
}

// A copy-up whose link count cannot be written fails, and leaves nothing.
func TestLinkCountRefused(t *testing.T) {
	dir := linkedWorld(t)
	fs := openLinked(t, dir, dir+"/top")
	defer fs.Close() //nolint:errcheck // nothing is unfinished
	if fs.indexd == nil {
		t.Skip("no index here")
	}
	names := attrNames[fs.ns]
	defer func(old string) { names["nlink"] = old }(names["nlink"])
	right := names["nlink"]
	fs.crashAt = func(step string) {
		if step == "named" {
			names["nlink"] = "none.nlink" // there is no such namespace
		}
	}
	write := func() error {
		n, err := find(fs, "a")
		if err != nil {
			t.Fatal(err)
		}
		defer fs.unref(n, 1)
		_, err = fs.WriteAt(nil, n, []byte("C"), 0, false)
		return err
	}
	check := func(entries int) {
		t.Helper()
		if bad := badCounts(func(name string, st *Attr) error { return lstat(fs, name, st) }); bad != "" {
			t.Error(bad)
		}
		for _, d := range []string{"/top/upper", "/top/work/index"} {
			if ents, err := os.ReadDir(dir + d); err != nil || len(ents) != entries {
				t.Errorf("%s: %v, %v", d, ents, err)
			}
		}
	}
	if err := write(); err != unix.EOPNOTSUPP {
		t.Errorf("write: %v", err)
	}
	names["nlink"], fs.crashAt = right, nil
	check(0)
	if err := write(); err != nil {
		t.Error(err)
	}
	check(1)
}

// badCounts says which names of the inode do not show the number of them.
func badCounts(stat func(name string, st *Attr) error) string {
	names := map[string]uint32{}
	var text string
	for _, name := range linkNames {
		var st Attr
		switch err := stat(name, &st); {
		case err == unix.ENOENT:
		case err != nil:
			text += fmt.Sprintf(" %s: %v", name, err)
		case name != "d/f" && name != "over" || st.Nlink > 1:
			names[name] = st.Nlink
		}
	}
	for name, n := range names {
		if int(n) != len(names) {
			text += fmt.Sprintf(" %s has %d of %d links", name, n, len(names))
		}
	}
	return text
}

func lstat(fs *FS, path string, st *Attr) error {
	n, err := find(fs, path)
	if err != nil {
		return err
	}
	defer fs.unref(n, 1)
	return fs.Getattr(n, st)
}

// find looks a path up.
func find(fs *FS, path string) (*Node, error) {
	var a Attr
	dir, name := filepath.Split(path)
	if dir == "" {
		return fs.Lookup(nil, fs.root, name, &a)
	}
	d, err := find(fs, filepath.Clean(dir))
	if err != nil {
		return nil, err
	}
	defer fs.unref(d, 1)
	return fs.Lookup(nil, d, name, &a)
}

// kernelCounts is badCounts for the kernel's overlayfs.
func kernelCounts(t *testing.T, lower, top string) string {
	t.Helper()
	mnt := t.TempDir()
	if err := unix.Mount("overlay", mnt, "overlay", 0, fmt.Sprintf("index=on,redirect_dir=on,lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, top, top)); err != nil {
		return fmt.Sprintf(" it is not mounted: %v", err)
	}
	defer unix.Unmount(mnt, unix.MNT_DETACH) //nolint:errcheck // a leftover fails TempDir
	return badCounts(func(name string, st *Attr) error {
		return unix.Statx(unix.AT_FDCWD, filepath.Join(mnt, name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, st)
	})
}

// An unmount looks for the names of linked inodes when an earlier one did not, though its own mount changed nothing; and
// not again for those that are nowhere in the view.
func TestNamesLeftByAnEarlierMount(t *testing.T) {
	dir := linkedWorld(t)
	if err := os.Link(dir+"/lower/a", dir+"/outside"); err != nil {
		t.Fatal(err)
	}
	change := func(fs *FS) error {
		n, err := find(fs, "a")
		if err == nil {
			_, err = fs.WriteAt(nil, n, []byte("C"), 0, false)
		}
		return err
	}
	for _, step := range []struct {
		what     string
		noSettle bool
		do       func(fs *FS) error
		left     bool // to this mount
		links    uint64
	}{
		{"changed, and not settled", true, change, false, 2},
		{"as it was", false, func(*FS) error { return nil }, true, 6},
		{"once more", false, func(*FS) error { return nil }, false, 6},
	} {
		fs := openLinked(t, dir, dir+"/top")
		if fs.indexd == nil {
			t.Skip("no index here")
		}
		fs.cfg.NoSettle = step.noSettle
		if fs.linksMayPart() != step.left {
			t.Errorf("%s: names left: %v", step.what, !step.left)
		}
		if err := errors.Join(step.do(fs), fs.Close()); err != nil {
			t.Errorf("%s: %v", step.what, err)
		}
		var st unix.Stat_t
		if err := unix.Stat(dir+"/top/upper/a", &st); err != nil || uint64(st.Nlink) != step.links {
			t.Errorf("%s: %d links in the upper, want %d; %v", step.what, st.Nlink, step.links, err)
		}
	}
}

// A linked file keeps its number when its other names go, also in a directory to which the kernel moved it: the kernel
// does not mark that one impure.
func TestNumberOfTheLastName(t *testing.T) {
	dir := linkedWorld(t)
	open := func() *FS {
		fs := openLinked(t, dir, dir+"/top")
		if fs.indexd == nil {
			t.Skip("no index here")
		}
		return fs
	}
	fs := open()
	n, err := find(fs, "a")
	if err != nil {
		t.Fatal(err)
	}
	_, err = fs.WriteAt(nil, n, []byte("C"), 0, false)
	fs.unref(n, 1)
	up := dir + "/top/upper"
	if err := errors.Join(err, fs.Close(), os.Mkdir(up+"/kernel", 0o755), os.Rename(up+"/a", up+"/kernel/a"),
		unix.Mknod(up+"/a", unix.S_IFCHR, 0)); err != nil {
		t.Fatal(err)
	}
	fs = open()
	var before, after Attr
	err = lstat(fs, "kernel/a", &before)
	d, ferr := find(fs, "d")
	if ferr != nil {
		t.Fatal(ferr)
	}
	err = errors.Join(err, fs.Unlink(nil, fs.root, "b"), fs.Unlink(nil, fs.root, "c"), fs.Unlink(nil, d, "e"), fs.Unlink(nil, d, "f"))
	fs.unref(d, 1)
	if err := errors.Join(err, fs.Close()); err != nil {
		t.Fatal(err)
	}
	fs = open()
	defer fs.Close() //nolint:errcheck // nothing is unfinished
	if err := lstat(fs, "kernel/a", &after); err != nil || after.Nlink != 1 || after.Ino != before.Ino {
		t.Errorf("number %d with %d links became %d with %d; %v", before.Ino, before.Nlink, after.Ino, after.Nlink, err)
	}
}
