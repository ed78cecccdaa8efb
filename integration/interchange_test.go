package integration

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// What the uppers of TestInterchange are written over, topmost first. See [interchanged].
var interchangeLowers = []string{
	`f both top
	 w buried
	 d merged/sub
	 f merged/top 1
	 f merged/sub/top 2
	 f tree/a/top 3`,
	`f both bottom
	 f buried 0
	 f plain 4
	 f gone 5
	 f replaced/file 6
	 f emptied/x 7
	 f emptied/y/z 8
	 F big 2M
	 F other 2M
	 F meta 300k
	 F merged/meta 200k
	 h links/meta merged/meta
	 f merged/bottom 9
	 f merged/sub/bottom 10
	 f merged/gone 11
	 f tree/a/b/c/deep 12
	 f tree/a/bottom 13
	 f links/one linked
	 h links/two links/one
	 h elsewhere/three links/one
	 f links/p pair
	 h links/q links/p
	 f links/r removed
	 h links/s links/r
	 l symlink plain
	 l moving tree/a
	 p fifo
	 c device 7 260
	 f attr attributes
	 x attr user.colour blue
	 x attr security.label s0
	 f suid set
	 m suid 4755
	 d sticky
	 m sticky 1777
	 u attr 1000 1000
	 u tree/a 1000 100`,
}

// interchanged are the layers of whoever runs the tests: without the lines that only root can make.
func interchanged() []string {
	if harness.Root() {
		return interchangeLowers
	}
	bottom := interchangeLowers[1]
	for _, line := range []string{"c device 7 260", "x attr security.label s0"} {
		bottom = strings.Replace(bottom, line, "", 1)
	}
	return []string{interchangeLowers[0], bottom}
}

// change does to a view everything that leaves a mark. Renaming a directory that merges is left out
// where the kernel cannot.
func change(t *testing.T, dir string, moves bool) {
	t.Helper()
	p := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) error { return os.WriteFile(p(name), []byte(text), 0o644) }
	uid, gid := 1000, 100
	if !harness.Owners() {
		uid, gid = 0, 0 // the only ones there are
	}
	rename := func(a, b string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, p(a), unix.AT_FDCWD, p(b), flags)
	}
	for i, err := range []error{
		write("both", "changed"),
		os.Remove(p("gone")),
		write("buried", "dug up"),
		os.RemoveAll(p("replaced")),
		write("replaced", "a file where a directory was"),
		os.RemoveAll(p("emptied")), // and made again: opaque
		os.Mkdir(p("emptied"), 0o750),
		write("emptied/new", "new"),
		os.Remove(p("merged/gone")),
		write("merged/gone", "again"),
		os.Remove(p("merged/gone")), // a whiteout over a whiteout
		write("merged/sub/new", "new"),
		os.Truncate(p("other"), 1<<20),
		write("links/one", "changed through one name"),
		os.Chmod(p("links/p"), 0o600),
		os.Link(p("links/p"), p("links/t")),
		os.Remove(p("links/r")),
		os.Rename(p("plain"), p("renamed")),
		os.Link(p("renamed"), p("emptied/linked")),
		rename("fifo", "symlink", unix.RENAME_EXCHANGE),
		os.Lchown(p("moving"), uid, gid),
		os.Chown(p("suid"), uid, uid),
		unix.Lsetxattr(p("attr"), "user.colour", []byte("red"), 0),
		unix.Lsetxattr(p("attr"), "user.new", []byte("new"), 0),
		unix.Lsetxattr(p("merged"), "user.on", []byte("directory"), 0),
		os.Chmod(p("sticky"), 0o3770),
		unix.Mkfifo(p("merged/pipe"), 0o640),
		os.Symlink("../nowhere", p("merged/dangling")),
		os.Mkdir(p("fresh"), 0o2775),
		write("fresh/file", "fresh"),
		os.Rename(p("fresh"), p("merged/fresh")),
		os.Chmod(p("meta"), 0o600), // with metacopy: no data
		os.Rename(p("meta"), p("fresh")),
		os.Link(p("fresh"), p("emptied/meta")),
		os.Chown(p("merged/meta"), uid, gid),
		os.Rename(p("merged/meta"), p("merged/sub/meta")),
	} {
		if err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
	if harness.Root() {
		for i, err := range []error{
			os.Lchown(p("device"), uid, gid),
			unix.Lremovexattr(p("attr"), "security.label"),
			unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		} {
			if err != nil {
				t.Errorf("step %d of root's: %v", i, err)
			}
		}
	}
	patch(t, p("big"), 1<<20+5, "in the middle")
	patch(t, p("merged/fresh/file"), 1<<20, "behind a hole")
	if !moves {
		if err := rename("merged", "moved", 0); !errors.Is(err, unix.EXDEV) {
			t.Errorf("renaming a merged directory: %v", err)
		}
		return
	}
	for i, err := range []error{
		rename("merged", "moved", 0),
		rename("tree/a/b", "moved/b", 0), // a lower one, into one that moved
		rename("tree/a", "a", 0),
		os.Mkdir(p("merged"), 0o755), // nothing of the old one shows
		os.Remove(p("moved/b/c/deep")),
		write("moved/b/c/new", "new"),
		os.Remove(p("moved/bottom")),
		rename("moved", "emptied", unix.RENAME_EXCHANGE),
		rename("elsewhere", "moved/elsewhere", 0),
	} {
		if err != nil {
			t.Errorf("move %d: %v", i, err)
		}
	}
}

// An upper that plyfs wrote mounts in the kernel, with no option it was not told here by name, and one that
// the kernel wrote mounts here: with the same tree.
func TestInterchange(t *testing.T) {
	for _, tt := range []struct {
		name    string
		flags   []string // of plyfs
		options []string // of the kernel that reads
		writes  []string // and of the one that writes
		moves   bool     // the kernel renames merged directories
	}{
		{"trusted", nil, nil, []string{"redirect_dir=on", "index=on"}, true},
		{"userxattr", []string{"-o", "userxattr"}, []string{"userxattr"}, []string{"userxattr", "index=on"}, false},
		{"metacopy", []string{"-o", "metacopy=on"}, []string{"metacopy=on"}, []string{"redirect_dir=on", "metacopy=on", "index=on"}, true},
	} {
		harness.OnFilesystems(t, 1<<30, func(t *testing.T, dir string) {
			if tt.name != "userxattr" {
				harness.NeedRoot(t) // for marks that are not the user's
			}
			t.Run(tt.name+" by plyfs", func(t *testing.T) {
				l := harness.NewLayersOn(t, dir, interchanged()...)
				m := l.Plyfs(t, tt.flags...)
				change(t, m.Dir, true)
				want := harness.Dump(t, m.Dir, true)
				m.Close(t)
				k := l.Kernel(t, tt.options...)
				if diff := cmp.Diff(want, harness.Dump(t, k.Dir, true)); diff != "" {
					t.Errorf("plyfs (-), kernel (+):\n%s", diff)
				}
				k.Close(t)
				if diff := cmp.Diff(want, harness.Dump(t, l.Plyfs(t, tt.flags...).Dir, true)); diff != "" {
					t.Errorf("before (-), after (+):\n%s", diff)
				}
			})
			t.Run(tt.name+" by the kernel", func(t *testing.T) {
				l := harness.NewLayersOn(t, dir, interchanged()...)
				k := l.Kernel(t, tt.writes...)
				change(t, k.Dir, tt.moves)
				want := harness.Dump(t, k.Dir, true)
				k.Close(t)
				got := harness.Dump(t, l.Plyfs(t, tt.flags...).Dir, true)
				if !harness.Root() {
					// The kernel has no index in a user namespace: it shows two names of one inode as two files.
					same := regexp.MustCompile(` is="[^"]*"`)
					for i := range want {
						want[i] = same.ReplaceAllString(want[i], "")
					}
					for i := range got {
						got[i] = same.ReplaceAllString(got[i], "")
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("kernel (-), plyfs (+):\n%s", diff)
				}
			})
		})
	}
}

// A mount under userxattr that was killed while a directory is elsewhere leaves an upper that the kernel
// refuses, by name; the next mount and unmount make it one that it takes.
func TestMovedThenKilled(t *testing.T) {
	l := harness.NewLayers(t, interchanged()...)
	m := l.Plyfs(t, "-o", "userxattr")
	change(t, m.Dir, true)
	want := harness.Dump(t, m.Dir, true)
	m.Kill(t)
	err := unix.Mount("o", l.Mnt, "overlay", 0, "userxattr,lowerdir="+strings.Join(l.Lowers, ":")+",upperdir="+l.Upper+",workdir="+l.Work)
	if err == nil {
		t.Error("the kernel mounts what it does not understand")
		_ = unix.Unmount(l.Mnt, 0)
	}
	m = l.Plyfs(t, "-o", "userxattr")
	if diff := cmp.Diff(want, harness.Dump(t, m.Dir, true)); diff != "" {
		t.Errorf("before (-), after the kill (+):\n%s", diff)
	}
	m.Close(t)
	if diff := cmp.Diff(want, harness.Dump(t, l.Kernel(t, "userxattr").Dir, true)); diff != "" {
		t.Errorf("plyfs (-), kernel (+):\n%s", diff)
	}
}
