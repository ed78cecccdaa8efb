package conform

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

var namesTree = []string{
	`f both/top 1
	 f replaced top
	 w gone`,
	`f both/bottom 2
	 f file lower
	 f other other
	 f replaced bottom
	 f gone was here
	 d empty
	 f full/in x
	 f tree/a/b/c deep
	 l link file
	 l dirlink full
	 p fifo
	 F big 1M
	 d open
	 m open 1777`,
}

// list returns the names in a directory, sorted.
func list(t *testing.T, dir string) string {
	t.Helper()
	ents, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range ents {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestMakeAndRemove(t *testing.T) {
	everywhere(t, namesTree, func(t *testing.T, v *view) {
		p := v.path
		wants(t, "mkdir over a file", unix.Mkdir(p("file"), 0o755), unix.EEXIST)
		wants(t, "mkdir over a directory", unix.Mkdir(p("full"), 0o755), unix.EEXIST)
		wants(t, "mkdir below a file", unix.Mkdir(p("file/x"), 0o755), unix.ENOTDIR)
		wants(t, "mkdir below nothing", unix.Mkdir(p("nothing/x"), 0o755), unix.ENOENT)
		wants(t, "rmdir of a file", unix.Rmdir(p("file")), unix.ENOTDIR)
		wants(t, "rmdir of a full directory", unix.Rmdir(p("full")), unix.ENOTEMPTY)
		wants(t, "rmdir of a merged directory", unix.Rmdir(p("both")), unix.ENOTEMPTY)
		wants(t, "unlink of a directory", unix.Unlink(p("empty")), unix.EISDIR)
		wants(t, "unlink of nothing", unix.Unlink(p("nothing")), unix.ENOENT)
		wants(t, "symlink over a file", unix.Symlink("x", p("file")), unix.EEXIST)
		wants(t, "mknod over a file", unix.Mknod(p("file"), unix.S_IFIFO|0o644, 0), unix.EEXIST)
		wants(t, "link over a file", unix.Link(p("other"), p("file")), unix.EEXIST)
		wants(t, "link of a directory", unix.Link(p("full"), p("new")), unix.EPERM)
		wants(t, "link of nothing", unix.Link(p("nothing"), p("new")), unix.ENOENT)
		_, err := unix.Open(p("file"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
		wants(t, "O_EXCL over a file", err, unix.EEXIST)
		_, err = unix.Open(p("link"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
		wants(t, "O_EXCL over a link", err, unix.EEXIST)
		_, err = unix.Open(p("link"), unix.O_NOFOLLOW, 0)
		wants(t, "O_NOFOLLOW of a link", err, unix.ELOOP)
		_, err = unix.Open(p("file"), unix.O_DIRECTORY, 0)
		wants(t, "O_DIRECTORY of a file", err, unix.ENOTDIR)
		_, err = unix.Open(p("full"), unix.O_WRONLY, 0)
		wants(t, "write to a directory", err, unix.EISDIR)

		for _, dir := range []string{"empty", "both", "tree"} {
			must(t, unix.Mkdir(p(dir+"/d"), 0o750), unix.Mkfifo(p(dir+"/p"), 0o640), unix.Mknod(p(dir+"/s"), unix.S_IFSOCK|0o700, 0),
				unix.Symlink("to nowhere", p(dir+"/l")), os.WriteFile(p(dir+"/f"), []byte("new"), 0o600), unix.Link(p("file"), p(dir+"/h")))
			wantMode(t, p(dir+"/d"), 0o750)
			wantMode(t, p(dir+"/p"), 0o640)
			for name, dev := range map[string]struct {
				kind uint32
				id   uint64
			}{"b": {unix.S_IFBLK | 0o600, unix.Mkdev(259, 65537)}, "c": {unix.S_IFCHR | 0o600, unix.Mkdev(1, 3)}} {
				err := unix.Mknod(p(dir+"/"+name), dev.kind, int(dev.id))
				if !harness.Root() {
					wants(t, "a device of an ordinary user", err, unix.EPERM)
					continue
				}
				must(t, err)
				if st := stat(t, p(dir+"/"+name)); st.Rdev != dev.id || st.Mode != dev.kind {
					t.Errorf("%s: device %#x of mode %o", name, st.Rdev, st.Mode)
				}
			}
			if target, err := os.Readlink(p(dir + "/l")); target != "to nowhere" || err != nil {
				t.Errorf("link to %q, %v", target, err)
			}
			if st := stat(t, p(dir+"/l")); st.Size != 10 {
				t.Errorf("size %d of a link of 10 bytes", st.Size)
			}
			if content(t, p(dir+"/h")) != "lower" || content(t, p(dir+"/f")) != "new" {
				t.Error("wrong contents")
			}
		}
		if st := stat(t, p("file")); st.Nlink != 4 {
			t.Errorf("%d links, want 4", st.Nlink)
		}
		want := "b bottom c d f h l p s top"
		if !harness.Root() {
			want = "bottom d f h l p s top"
		}
		if got := list(t, p("both")); got != want {
			t.Errorf("both has %s, want %s", got, want)
		}
		// Away with all of it, and made again as something else.
		for _, dir := range []string{"both", "tree", "full", "empty"} {
			must(t, os.RemoveAll(p(dir)))
			wants(t, "stat of what is gone", unix.Lstat(p(dir), new(unix.Stat_t)), unix.ENOENT)
		}
		must(t, unix.Mkdir(p("both"), 0o755), os.WriteFile(p("tree"), []byte("a file now"), 0o644), unix.Mkdir(p("gone"), 0o755),
			os.Remove(p("file")), unix.Mkdir(p("file"), 0o755), os.WriteFile(p("file/in"), nil, 0o644))
		for range 2 {
			if got := list(t, p("both")) + list(t, p("gone")); got != "" {
				t.Errorf("%q shows through", got)
			}
			if got, want := list(t, v.dir), "big both dirlink fifo file gone link open other replaced tree"; got != want && v.kind != "plain" {
				t.Errorf("has %s\nwant %s", got, want)
			}
			v.renew(t)
		}
	})
}

// TestUmask: the umask of the caller counts, for every kind of object.
func TestUmask(t *testing.T) {
	everywhere(t, namesTree, func(t *testing.T, v *view) {
		for _, dir := range []string{"full", "both", "."} {
			withUmask(0o027, func() {
				p := v.path(dir)
				wants(t, "mkdir", unix.Mkdir(p+"/ud", 0o777), 0)
				wants(t, "mkfifo", unix.Mkfifo(p+"/up", 0o666), 0)
				wants(t, "mknod", unix.Mknod(p+"/uf", unix.S_IFREG|0o666, 0), 0)
				fd, err := unix.Open(p+"/uo", unix.O_CREAT|unix.O_WRONLY, 0o777)
				wants(t, "open", err, 0)
				unix.Close(fd)
				wants(t, "symlink", unix.Symlink("x", p+"/ul"), 0)
			})
			for name, want := range map[string]uint32{"ud": 0o750, "up": 0o640, "uf": 0o640, "uo": 0o750, "ul": 0o777} {
				wantMode(t, v.path(dir+"/"+name), want)
			}
		}
		withUmask(0, func() {
			wants(t, "mkdir", unix.Mkdir(v.path("wide"), 0o1777), 0)
			wants(t, "mknod", unix.Mknod(v.path("widefile"), unix.S_IFREG|0o6777, 0), 0)
		})
		wantMode(t, v.path("wide"), 0o1777)
		wantMode(t, v.path("widefile"), 0o6777)
	})
}

// TestOwnerOfNew: new objects belong to the caller, and to the group of a set-gid directory,
// whose bit new directories inherit.
func TestOwnerOfNew(t *testing.T) {
	everywhere(t, append([]string{"w open/old\nm open 1777"}, namesTree...), func(t *testing.T, v *view) {
		must(t, unix.Mkdir(v.path("sgid"), 0o755), unix.Chown(v.path("sgid"), 1000, 2000), unix.Chmod(v.path("sgid"), 0o2777))
		must(t, unix.Chown(v.path("both"), -1, 2000), unix.Chmod(v.path("both"), 0o2777))
		for _, dir := range []string{"open", "sgid", "both"} {
			gid := uint32(1001)
			if dir != "open" {
				gid = 2000
			}
			p := v.path(dir)
			asUser(1000, 1001, nil, func() {
				wants(t, "mkdir", unix.Mkdir(p+"/d", 0o755), 0)
				wants(t, "mkfifo", unix.Mkfifo(p+"/p", 0o644), 0)
				wants(t, "symlink", unix.Symlink("x", p+"/l"), 0)
				fd, err := unix.Open(p+"/f", unix.O_CREAT|unix.O_RDWR, 0o2775)
				wants(t, "open", err, 0)
				unix.Close(fd)
				fd, err = unix.Open(p, unix.O_TMPFILE|unix.O_RDWR, 0o644)
				wants(t, "O_TMPFILE", err, 0)
				var st unix.Stat_t
				wants(t, "fstat", unix.Fstat(fd, &st), 0)
				if st.Uid != 1000 || st.Gid != gid {
					t.Errorf("%s: O_TMPFILE belongs to %d:%d", dir, st.Uid, st.Gid)
				}
				unix.Close(fd)
				wants(t, "mknod of a device", unix.Mknod(p+"/c", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))), unix.EPERM)
			})
			for _, name := range []string{"d", "p", "l", "f"} {
				if st := stat(t, p+"/"+name); st.Uid != 1000 || st.Gid != gid {
					t.Errorf("%s/%s belongs to %d:%d, want 1000:%d", dir, name, st.Uid, st.Gid, gid)
				}
			}
			wantDir, wantFile := uint32(0o755), uint32(0o2755) // umask 022
			if dir != "open" {
				wantDir, wantFile = 0o2755, 0o755 // not in the group: no set-id bit
			}
			wantMode(t, p+"/d", wantDir)
			wantMode(t, p+"/f", wantFile)
		}
		// In the place of a whiteout, too.
		must(t, os.WriteFile(v.path("both/x"), nil, 0o644), os.Remove(v.path("both/bottom")))
		asUser(1000, 1001, nil, func() {
			wants(t, "mkdir over a whiteout", unix.Mkdir(v.path("both/bottom"), 0o755), 0)
			wants(t, "sticky", unix.Unlink(v.path("open/nothing")), unix.ENOENT)
		})
		if st := stat(t, v.path("both/bottom")); st.Uid != 1000 || st.Gid != 2000 || st.Mode&0o7777 != 0o2755 {
			t.Errorf("over a whiteout: %d:%d %o", st.Uid, st.Gid, st.Mode)
		}
		asUser(1001, 1001, nil, func() {
			wants(t, "unlink another's in a sticky directory", unix.Unlink(v.path("open/f")), unix.EPERM)
			wants(t, "rename another's in a sticky directory", unix.Rename(v.path("open/f"), v.path("open/g")), unix.EPERM)
			wants(t, "create in another's directory", unix.Mkdir(v.path("full/x"), 0o755), unix.EACCES)
			_, err := unix.Open(v.path("file"), unix.O_WRONLY, 0)
			wants(t, "write another's file", err, unix.EACCES)
			wants(t, "truncate another's file", unix.Truncate(v.path("file"), 0), unix.EACCES)
		})
	})
}

func TestNameLimits(t *testing.T) {
	everywhere(t, namesTree, func(t *testing.T, v *view) {
		long, tooLong := strings.Repeat("n", 255), strings.Repeat("n", 256)
		for _, dir := range []string{"full/", "both/"} {
			p := func(name string) string { return v.path(dir) + "/" + name }
			must(t, os.WriteFile(p(long), []byte("x"), 0o644), unix.Rename(p(long), p(long[1:]+"m")), unix.Unlink(p(long[1:]+"m")),
				unix.Mkdir(p(long), 0o755), unix.Rmdir(p(long)), unix.Symlink("x", p(long)), unix.Rename(p(long), p("s")))
			e := unix.ENAMETOOLONG
			_, err := unix.Open(p(tooLong), unix.O_CREAT|unix.O_WRONLY, 0o644)
			wants(t, "open", err, e)
			wants(t, "lstat", unix.Lstat(p(tooLong), new(unix.Stat_t)), e)
			wants(t, "mkdir", unix.Mkdir(p(tooLong), 0o755), e)
			wants(t, "mkfifo", unix.Mkfifo(p(tooLong), 0o644), e)
			wants(t, "symlink", unix.Symlink("x", p(tooLong)), e)
			wants(t, "link", unix.Link(v.path("file"), p(tooLong)), e)
			wants(t, "rename", unix.Rename(v.path("file"), p(tooLong)), e)
			wants(t, "rename from", unix.Rename(p(tooLong), p("y")), e)
			wants(t, "unlink", unix.Unlink(p(tooLong)), e)
			wants(t, "rmdir", unix.Rmdir(p(tooLong)), e)
		}
		target := strings.Repeat("t", 4095)
		must(t, unix.Symlink(target, v.path("longlink")))
		if got, err := os.Readlink(v.path("longlink")); got != target {
			t.Errorf("a target of %d bytes, %v", len(got), err)
		}
		wants(t, "symlink of 4096 bytes", unix.Symlink(target+"t", v.path("longer")), unix.ENAMETOOLONG)
		wants(t, "empty target", unix.Symlink("", v.path("emptylink")), unix.ENOENT)

		// A path of PATH_MAX-1 bytes, given whole, and a tree deeper than any path.
		path := v.path("deep")
		must(t, unix.Mkdir(path, 0o755))
		for len(path) < 4095-200 {
			path += "/" + strings.Repeat("d", 99)
			must(t, unix.Mkdir(path, 0o755))
		}
		path += "/" + strings.Repeat("f", 4095-len(path)-1)
		must(t, os.WriteFile(path, []byte("at the end"), 0o644))
		if len(path) != 4095 || content(t, path) != "at the end" {
			t.Error("not to be read")
		}
		wants(t, "one more", unix.Lstat(path+"x", new(unix.Stat_t)), unix.ENAMETOOLONG)
		dir, err := unix.Open(v.path("deep"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		for range 60 {
			if err := unix.Mkdirat(dir, strings.Repeat("e", 200), 0o755); err != nil {
				t.Fatal(err)
			}
			next, err := unix.Openat(dir, strings.Repeat("e", 200), unix.O_RDONLY|unix.O_DIRECTORY, 0)
			unix.Close(dir)
			must(t, err)
			dir = next
		}
		fd, err := unix.Openat(dir, "bottom", unix.O_CREAT|unix.O_RDWR, 0o644)
		must(t, err, unix.Renameat(dir, "bottom", dir, "floor"), unix.Unlinkat(dir, "floor", 0))
		unix.Close(fd)
		unix.Close(dir)
		must(t, os.RemoveAll(v.path("deep")))
	})
}

func TestRename(t *testing.T) {
	everywhere(t, namesTree, func(t *testing.T, v *view) {
		p := v.path
		rename := func(from, to string, flags uint) error {
			return unix.Renameat2(unix.AT_FDCWD, p(from), unix.AT_FDCWD, p(to), flags)
		}
		const noreplace, exchange, white = unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_WHITEOUT
		wants(t, "file over a directory", rename("file", "empty", 0), unix.EISDIR)
		wants(t, "directory over a file", rename("full", "file", 0), unix.ENOTDIR)
		wants(t, "over a full directory", rename("empty", "full", 0), unix.ENOTEMPTY)
		wants(t, "over a merged directory", rename("empty", "both", 0), unix.ENOTEMPTY)
		wants(t, "into itself", rename("tree", "tree/a/x", 0), unix.EINVAL)
		wants(t, "onto the own parent", rename("tree/a", "tree", 0), unix.ENOTEMPTY)
		wants(t, "of nothing", rename("nothing", "x", 0), unix.ENOENT)
		wants(t, "into nothing", rename("file", "nothing/x", 0), unix.ENOENT)
		wants(t, "not replacing", rename("file", "other", noreplace), unix.EEXIST)
		wants(t, "exchange with nothing", rename("file", "nothing", exchange), unix.ENOENT)
		wants(t, "exchange with the own parent", rename("tree", "tree/a", exchange), unix.EINVAL)
		wants(t, "both flags", rename("file", "x", noreplace|exchange), unix.EINVAL)
		wants(t, "to itself", rename("file", "file", 0), 0)

		wants(t, "not replacing a free name", rename("file", "moved", noreplace), 0)
		wants(t, "old name", unix.Lstat(p("file"), new(unix.Stat_t)), unix.ENOENT)
		wants(t, "over another", rename("moved", "other", 0), 0)
		if content(t, p("other")) != "lower" {
			t.Error("not replaced")
		}
		wants(t, "over a name that was deleted", rename("other", "gone", 0), 0)
		wants(t, "exchange", rename("gone", "both", exchange), 0)
		if content(t, p("both")) != "lower" || list(t, p("gone")) != "bottom top" {
			t.Error("not exchanged")
		}
		wants(t, "of a merged directory", rename("gone", "tree/a/merged", 0), 0)
		if list(t, p("tree/a/merged")) != "bottom top" {
			t.Error("lost something")
		}
		wants(t, "of a lower directory over an empty one", rename("full", "empty", 0), 0)
		if list(t, p("empty")) != "in" {
			t.Error("lost something")
		}
		wants(t, "of the directory around both", rename("tree", "trunk", 0), 0)
		if content(t, p("trunk/a/b/c")) != "deep" || list(t, p("trunk/a/merged")) != "bottom top" {
			t.Error("lost something")
		}
		wants(t, "of a link", rename("dirlink", "link2", 0), 0)
		wants(t, "of a fifo", rename("fifo", "fifo2", 0), 0)
		if v.kind != "kernel" { // which keeps it for itself
			wants(t, "leaving a whiteout", rename("big", "big2", white), 0)
			if v.kind == "plain" {
				if st := stat(t, p("big")); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
					t.Errorf("left %o", st.Mode)
				}
			} else {
				// In a union a whiteout is a name that is not there.
				wants(t, "the whiteout", unix.Lstat(p("big"), new(unix.Stat_t)), unix.ENOENT)
			}
			if st := stat(t, p("big2")); st.Size != 1<<20 {
				t.Errorf("%d bytes", st.Size)
			}
		}
		dump := harness.Dump(t, v.dir, false)
		v.renew(t)
		if got := strings.Join(harness.Dump(t, v.dir, false), "\n"); got != strings.Join(dump, "\n") {
			t.Errorf("another tree after a remount:\n%s\nwas\n%s", got, strings.Join(dump, "\n"))
		}
	})
}

// TestDotDot: the parent of a directory is found by "..", also after it moved.
func TestDotDot(t *testing.T) {
	everywhere(t, namesTree, func(t *testing.T, v *view) {
		dir := openFD(t, v.path("tree/a/b"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, os.Rename(v.path("tree/a"), v.path("full/a")))
		var up, want unix.Stat_t
		must(t, unix.Fstatat(dir, "../..", &up, 0), unix.Stat(v.path("full"), &want))
		if up.Ino != want.Ino {
			t.Errorf("../.. is %d, want %d", up.Ino, want.Ino)
		}
		fd, err := unix.Openat(dir, "../../in", unix.O_RDONLY, 0)
		must(t, err)
		unix.Close(fd)
		real, err := filepath.EvalSymlinks(v.path("dirlink/../full/a/b/c"))
		if err != nil || real != v.path("full/a/b/c") {
			t.Errorf("%s, %v", real, err)
		}
	})
}
