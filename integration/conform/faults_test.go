// Package conform holds operations against what a filesystem has to do: one table that runs on a plain
// directory, on the kernel's overlayfs and on plyfs in each mode.
//
// Union filesystems in user space have had faults that their users met late. None may be here, and
// each has its test:
//
//	writes lost, contents mixed: one of two linked lower names     TestLinkedLowerNames
//	    changes and the mount is renewed
//	one st_ino for several files of several filesystems            TestInodesOfManyFilesystems
//	setxattr on a symbolic link follows it out of the mount        TestXattrOfLink
//	names become ENOENT or ENOTDIR after the kernel forgot them    TestNamesAfterEviction
//	link counts fall to 1                                          TestLinkCounts
//	an open deleted file still shows a link                        TestOpenWithoutName
//	mknod ignores the umask; set-gid directories                   TestUmask, TestOwnerOfNew
//	default access lists and masks                                 TestDefaultACL, TestACLMask
//	paths near PATH_MAX, names near NAME_MAX                       TestNameLimits
//	access times                                                   TestAccessTime, TestTimes
//	a buffered read beside direct I/O is stale                     TestDirectIO
//	an old descriptor keeps showing old bytes                      TestOldDescriptor, TestTailFollows
//	EXDEV on renaming a lower directory                            TestRename
//	no O_TMPFILE, no RENAME_WHITEOUT                               TestTmpfile, TestRename
//	holes filled by copy-up                                        copyup.TestSparseStaysSparse
//	data copied for O_TRUNC, chmod, an open that writes nothing    copyup.TestNothingIsCopied
//	everybody waits while one file is copied                       copyup.TestNobodyWaitsForACopyUp
//	unknown options                                                integration.TestRefusedOptions
package conform

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// TestLinkedLowerNames writes through one name of a lower inode, mounts again, writes through another: all
// names show all writes, before and after.
func TestLinkedLowerNames(t *testing.T) {
	lowers := []string{"d dir\nd top", "f a 0123456789\nh b a\nh dir/c a\nF big 1M\nh dir/big2 big\nf x X\nh y x\nf z Z"}
	everywhere(t, lowers, func(t *testing.T, v *view) {
		put := func(name, text string, off int64) {
			t.Helper()
			fd := openFD(t, v.path(name), unix.O_WRONLY, 0)
			_, err := unix.Pwrite(fd, []byte(text), off)
			must(t, err)
			shut(fd)
		}
		check := func(when, want string) {
			t.Helper()
			for _, name := range []string{"a", "b", "dir/c"} {
				if got := content(t, v.path(name)); got != want {
					t.Errorf("%s: %s has %q, want %q", when, name, got, want)
				}
				if st := stat(t, v.path(name)); st.Nlink != 3 || st.Ino != stat(t, v.path("a")).Ino {
					t.Errorf("%s: %s: %d links of inode %d", when, name, st.Nlink, st.Ino)
				}
			}
		}
		ino := stat(t, v.path("a")).Ino
		big := harness.Bytes(1 << 20)
		check("at first", "0123456789")
		put("b", "B", 1)
		put("dir/big2", "two", 500_000)
		copy(big[500_000:], "two")
		check("written by one name", "0B23456789")
		v.renew(t)
		check("mounted again", "0B23456789")
		same(t, v.path("big"), big)
		put("dir/c", "C", 2)
		put("big", "one", 700_000)
		copy(big[700_000:], "one")
		v.renew(t)
		put("a", "A", 0)
		check("written by the others", "ABC3456789")
		same(t, v.path("dir/big2"), big)
		// Names come, go and move; another inode takes an old name.
		must(t, os.Rename(v.path("b"), v.path("top/b")), os.Rename(v.path("z"), v.path("b")), os.Link(v.path("a"), v.path("top/d")))
		must(t, unix.Renameat2(unix.AT_FDCWD, v.path("dir/c"), unix.AT_FDCWD, v.path("x"), unix.RENAME_EXCHANGE))
		for range 2 {
			for name, want := range map[string]string{"a": "ABC3456789", "top/b": "ABC3456789", "top/d": "ABC3456789", "x": "ABC3456789", "dir/c": "X", "y": "X", "b": "Z"} {
				if got := content(t, v.path(name)); got != want {
					t.Errorf("after renames: %s has %q, want %q", name, got, want)
				}
			}
			if st := stat(t, v.path("top/b")); st.Nlink != 4 || v.kind != "kernel" && st.Ino != ino {
				t.Errorf("after renames: %d links of inode %d, was %d", st.Nlink, st.Ino, ino)
			}
			v.renew(t)
		}
	})
}

// TestLinkCounts: the links of files, through copy-up, new and removed names, remounts, and inodes that
// the kernel forgot.
func TestLinkCounts(t *testing.T) {
	everywhere(t, []string{"d dir\nf dir/own 1", "f one 1\nf a 1\nh b a\nh dir/c a\nf m 1\nh n m\nd dir/sub"}, func(t *testing.T, v *view) {
		want := func(when string, counts map[string]uint64) {
			t.Helper()
			for range 2 {
				for name, n := range counts {
					if st := stat(t, v.path(name)); st.Nlink != n {
						t.Errorf("%s: %s has %d links, want %d", when, name, st.Nlink, n)
					}
				}
				harness.DropCaches(t)
			}
		}
		want("at first", map[string]uint64{"one": 1, "a": 3, "b": 3, "dir/c": 3, "m": 2, "n": 2})
		must(t, os.Chmod(v.path("a"), 0o600), os.WriteFile(v.path("n"), []byte("written"), 0o644), os.Chmod(v.path("one"), 0o600))
		want("copied up", map[string]uint64{"one": 1, "a": 3, "b": 3, "dir/c": 3, "m": 2, "n": 2})
		must(t, os.Link(v.path("b"), v.path("d")), os.Link(v.path("one"), v.path("dir/two")), os.Remove(v.path("m")))
		counts := map[string]uint64{"one": 2, "dir/two": 2, "a": 4, "b": 4, "dir/c": 4, "d": 4, "n": 1}
		want("linked", counts)
		v.renew(t)
		want("mounted again", counts)
		must(t, os.Remove(v.path("dir/c")), os.Rename(v.path("n"), v.path("b")), os.Remove(v.path("one")))
		counts = map[string]uint64{"dir/two": 1, "a": 2, "d": 2, "b": 1}
		want("removed and replaced", counts)
		v.renew(t)
		want("and mounted again", counts)
		must(t, os.WriteFile(v.path("d"), []byte("written"), 0o644), os.Link(v.path("a"), v.path("e")))
		counts["a"], counts["d"], counts["e"] = 3, 3, 3
		want("written and linked", counts)
	})
}

// TestNamesAfterEviction: all names stay what they are when the kernel forgets them, also below directories
// and files that are kept open, and for somebody who looks meanwhile.
func TestNamesAfterEviction(t *testing.T) {
	lowers := []string{
		"f both/top 1\nf dir2/x top\nw gone",
		"f both/bottom 2\nf both/sub/deep deep\nf a/b/c/d deep\nf moved/in/here 1\nf file text\nh link file\nf changed text\nf gone 1\nF big 1M\nf dir2/y 2\nl sym both\nd replaced\nf replacedfile 1",
	}
	everywhere(t, lowers, func(t *testing.T, v *view) {
		cwd := openFD(t, v.path("both"), unix.O_PATH, 0)
		deep := openFD(t, v.path("a/b/c"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		held := openFD(t, v.path("file"), unix.O_RDWR, 0)
		must(t, os.Rename(v.path("moved"), v.path("a/moved")), os.Rename(v.path("a/b"), v.path("dir2/b")),
			os.WriteFile(v.path("changed"), []byte("changed"), 0o644), os.Mkdir(v.path("gone"), 0o755), os.WriteFile(v.path("gone/x"), nil, 0o644),
			os.Remove(v.path("replaced")), os.WriteFile(v.path("replaced"), []byte("now a file"), 0o644),
			os.Remove(v.path("replacedfile")), os.MkdirAll(v.path("replacedfile/now/a"), 0o755), os.Remove(v.path("both/top")))
		_, err := unix.Pwrite(held, []byte("T"), 0)
		must(t, err)
		want := harness.Dump(t, v.dir, false)
		look := func() {
			t.Helper()
			if diff := cmp.Diff(want, harness.Dump(t, v.dir, false)); diff != "" {
				t.Fatalf("after the inodes were dropped:\n%s", diff)
			}
			var st unix.Stat_t
			must(t, unix.Fstatat(cwd, "sub/deep", &st, 0), unix.Fstatat(cwd, "../file", &st, 0), unix.Fstatat(deep, "d", &st, 0),
				unix.Fstatat(deep, "../../../dir2/x", &st, 0))
			wants(t, "a missing name", unix.Fstatat(cwd, "top", &st, 0), unix.ENOENT)
			if got := string(readFD(t, held, 10)); got != "Text" {
				t.Errorf("the open file has %q", got)
			}
		}
		for range 3 {
			harness.DropCaches(t)
			look()
		}
		harness.DropCaches(t)
		must(t, unix.Mkdirat(deep, "made", 0o755), os.WriteFile(v.path("dir2/b/c/made/x"), nil, 0o644), os.Rename(v.path("a/moved/in"), v.path("both/in")))
		want = harness.Dump(t, v.dir, false)
		// Others look all the time.
		stop := make(chan struct{})
		var others sync.WaitGroup
		for _, name := range []string{"dir2/b/c/d", "both/in/here", "a/moved", "both/sub/deep", "replacedfile/now/a", "sym/bottom", "link"} {
			others.Go(func() {
				for n := 0; ; n++ {
					if err := unix.Stat(v.path(name), new(unix.Stat_t)); err != nil {
						t.Errorf("%s: %v after %d times", name, err, n)
						return
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		for range 20 {
			harness.DropCaches(t)
		}
		close(stop)
		others.Wait()
		look()
	})
}

// TestInodesOfManyFilesystems: lowers on several filesystems use the same inode numbers for different files. In
// the view each has its own, readdir and stat agree, and it stays over copy-up, rename and remount.
func TestInodesOfManyFilesystems(t *testing.T) {
	harness.NeedRoot(t)
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			l := harness.NewLayersOn(t, harness.Filesystem(t, "ext4", 64<<20))
			numbers := map[uint64]int{}
			for i, kind := range []string{"ext4", "ext4", "tmpfs", "tmpfs", "btrfs", "btrfs"} {
				low := harness.Filesystem(t, kind, 128<<20) + "/low"
				var tree strings.Builder
				for j := range 20 {
					fmt.Fprintf(&tree, "f dir/f%d-%d 1\nf own%d/f%d 1\nd dir/d%d-%d\n", i, j, i, j, i, j)
				}
				fmt.Fprintf(&tree, "f linked%d 1\nh dir/linked%d linked%d\nf both 1\nF dir/big%d 300k", i, i, i, i)
				harness.Make(t, low, tree.String())
				l.Lowers = append(l.Lowers, low)
				entries, err := os.ReadDir(low + "/dir")
				must(t, err)
				for _, e := range entries {
					numbers[stat(t, filepath.Join(low, "dir", e.Name())).Ino]++
				}
			}
			again := 0
			for _, n := range numbers {
				again += n - 1
			}
			if again == 0 {
				t.Fatal("no number is used twice: this tests nothing")
			}
			m := l.Plyfs(t, "--mode", mode)
			first := uniqueInodes(t, m.Dir)
			for i := range 6 {
				p := func(format string) string { return m.Path(fmt.Sprintf(format, i)) }
				must(t, os.Chmod(p("dir/f%d-0"), 0o600), os.WriteFile(p("dir/f%d-1"), []byte("changed"), 0o644), os.Chmod(p("linked%d"), 0o600),
					os.Chmod(p("dir/d%d-1"), 0o700), os.WriteFile(p("dir/big%d"), []byte("x"), 0o644))
			}
			sameInodes(t, "copied up", first, uniqueInodes(t, m.Dir))
			m.Close(t)
			m = l.Plyfs(t, "--mode", mode)
			sameInodes(t, "mounted again", first, uniqueInodes(t, m.Dir))
			for i := range 6 {
				from, to := fmt.Sprintf("own%d", i), fmt.Sprintf("dir/moved%d", i)
				must(t, os.Rename(m.Path(from), m.Path(to)), os.Rename(m.Path(fmt.Sprintf("dir/f%d-2", i)), m.Path(to+"/f2")))
				first[to], first[to+"/f2"] = first[from], first[fmt.Sprintf("dir/f%d-2", i)]
				delete(first, from)
				delete(first, fmt.Sprintf("dir/f%d-2", i))
				for j := range 20 {
					name := fmt.Sprintf("/f%d", j)
					if j != 2 {
						first[to+name] = first[from+name]
					}
					delete(first, from+name)
				}
			}
			sameInodes(t, "renamed", first, uniqueInodes(t, m.Dir))
			m.Close(t)
			m = l.Plyfs(t, "--mode", mode)
			sameInodes(t, "renamed, mounted again", first, uniqueInodes(t, m.Dir))
		})
	}
}

// TestInodesOfCopiedFilesystems: two lowers on filesystems that are copies, with one UUID: their files can
// be told apart only while they are mounted, so that linked names part when one changes (kernel: index=off).
// Nothing is taken for something else.
func TestInodesOfCopiedFilesystems(t *testing.T) {
	l := harness.NewLayers(t)
	dir := harness.Filesystem(t, "ext4", 64<<20)
	harness.Make(t, dir, "f low/dir/one 1\nf low/own/x 1\nf low/a 1\nh low/b low/a")
	unix.Sync()
	image, at := filepath.Join(l.Root, "copy.img"), filepath.Join(l.Root, "copy")
	must(t, os.Mkdir(at, 0o755))
	for _, args := range [][]string{{"fsfreeze", "--freeze", dir}, {"cp", "--sparse=always", dir + ".img", image}, {"fsfreeze", "--unfreeze", dir}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	must(t, os.Rename(at+"/low/dir/one", at+"/low/dir/two"), os.Rename(at+"/low/own", at+"/low/other"), os.Rename(at+"/low/a", at+"/low/c"), os.Rename(at+"/low/b", at+"/low/d"))
	if one, two := stat(t, dir+"/low/dir/one"), stat(t, at+"/low/dir/two"); one.Ino != two.Ino {
		t.Fatal("the copies have different numbers")
	}
	l.Lowers = []string{dir + "/low", at + "/low"}
	m := l.Plyfs(t)
	uniqueInodes(t, m.Dir)
	for _, name := range []string{"dir/one", "dir/two", "a", "d"} {
		must(t, os.WriteFile(m.Path(name), []byte(name), 0o644))
	}
	m.Close(t)
	m = l.Plyfs(t)
	uniqueInodes(t, m.Dir)
	for name, want := range map[string]string{"dir/one": "dir/one", "dir/two": "dir/two", "a": "a", "b": "1", "c": "1", "d": "d"} {
		if got := content(t, m.Path(name)); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
}

// uniqueInodes returns the number of each path, and fails the test when two files share one, when readdir says
// another than stat, or when there is more than one device.
func uniqueInodes(t *testing.T, dir string) map[string]uint64 {
	t.Helper()
	root := stat(t, dir)
	numbers, owner := map[string]uint64{}, map[uint64]string{root.Ino: "."}
	var walk func(rel string)
	walk = func(rel string) {
		fd, err := unix.Open(filepath.Join(dir, rel), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		entries := allEntries(t, fd)
		must(t, unix.Close(fd))
		for _, e := range entries {
			name := filepath.Join(rel, e.name)
			st := stat(t, filepath.Join(dir, rel)+"/"+e.name)
			if e.ino != st.Ino && !(rel == "" && e.name == "..") {
				t.Errorf("%s/%s: readdir says %#x, stat %#x", rel, e.name, e.ino, st.Ino)
			}
			if e.name == "." || e.name == ".." {
				continue
			}
			if st.Dev != root.Dev {
				t.Errorf("%s is on another device", name)
			}
			linked := strings.Contains(e.name, "linked") || len(e.name) == 1
			if before, ok := owner[st.Ino]; ok && !(linked && st.Nlink == 2) {
				t.Errorf("%s and %s have the number %#x", before, name, st.Ino)
			}
			owner[st.Ino] = name
			numbers[name] = st.Ino
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				walk(name)
			}
		}
	}
	walk("")
	return numbers
}

func sameInodes(t *testing.T, when string, want, got map[string]uint64) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: was (-), is (+):\n%s", when, diff)
	}
}
