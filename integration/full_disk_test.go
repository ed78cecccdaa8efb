package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// On a disk without room, and on one without inodes, each operation fails as in the kernel's overlayfs, and
// what it was to change is as before.
func TestFullDiskOperations(t *testing.T) {
	harness.NeedRoot(t)
	for name, disk := range map[string]func(t *testing.T) string{
		"no inodes": func(t *testing.T) string {
			dir := harness.Dir(t)
			if err := unix.Mount("t", dir, "tmpfs", 0, "nr_inodes=60,size=9m"); err != nil {
				t.Fatal(err)
			}
			return dir
		},
		"no blocks": func(t *testing.T) string { return harness.Filesystem(t, "ext4", 8<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			const tree = "d d/sub\nf d/f 1\nF mid 300k\nf tiny 2\nh tiny2 tiny\nF big 3M"
			k := harness.NewLayersOn(t, disk(t), tree)
			want := onFullDisk(t, k.Kernel(t, "redirect_dir=on", "index=on"))
			l := harness.NewLayersOn(t, disk(t), tree)
			lower := harness.Dump(t, l.Lowers[0], true)
			m := l.Plyfs(t)
			if diff := cmp.Diff(want, onFullDisk(t, m)); diff != "" {
				t.Errorf("the kernel's overlayfs (-), plyfs (+):\n%s", diff)
			}
			if left := names(t, l.Work+"/work"); left != "" {
				t.Errorf("the staging directory has %s", left)
			}
			// With room again all of it works, and the kernel mounts the upper.
			for name := range strings.FieldsSeq(names(t, m.Path("filled"))) {
				if err := os.Remove(m.Path("filled/" + name)); err != nil {
					t.Fatal(err)
				}
			}
			waitFor(t, "the room of the removed files", func() bool {
				var st unix.Statfs_t
				return unix.Statfs(m.Dir, &st) == nil && st.Bavail*uint64(st.Bsize) > 4<<20 && st.Ffree > 30
			})
			for _, what := range fullDiskOps {
				if err := what.do(m.Dir); err != nil {
					t.Errorf("%s, with room again: %v", what.name, err)
				}
			}
			view := harness.Dump(t, m.Dir, false)
			m.Close(t)
			if diff := cmp.Diff(view, harness.Dump(t, l.Kernel(t).Dir, false)); diff != "" {
				t.Errorf("plyfs (-), the kernel (+):\n%s", diff)
			}
			if diff := cmp.Diff(lower, harness.Dump(t, l.Lowers[0], true)); diff != "" {
				t.Errorf("the lower changed:\n%s", diff)
			}
		})
	}
}

// onFullDisk fills the disk of the upper through a mount, and returns what each operation says then.
func onFullDisk(t *testing.T, m *harness.Mount) map[string]string {
	t.Helper()
	harness.Make(t, m.Dir, "f upper 1\nd filled")
	big, err := os.Create(m.Path("filled/big"))
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 20; size >= 512 && err == nil; {
		if _, err = big.Write(make([]byte, size)); isErrno(err, unix.ENOSPC) {
			size, err = size/2, nil
		}
	}
	if err := errors.Join(err, big.Close()); err != nil {
		t.Fatal(err)
	}
	for i := range 10_000 {
		err := os.WriteFile(m.Path(fmt.Sprintf("filled/%d", i)), nil, 0o644)
		if isErrno(err, unix.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	before := harness.Dump(t, m.Dir, false)
	said := map[string]string{}
	for _, what := range fullDiskOps {
		err := what.do(m.Dir)
		var errno unix.Errno
		if errors.As(err, &errno) {
			said[what.name] = unix.ErrnoName(errno)
		} else if err != nil {
			t.Fatal(err)
		}
		if what.makes != "" { // an inode without blocks may have had room
			_ = os.Remove(m.Path(what.makes))
		}
	}
	if diff := cmp.Diff(before, harness.Dump(t, m.Dir, false)); diff != "" {
		t.Errorf("operations that failed changed:\n%s", diff)
	}
	return said
}

// fullDiskOps all need an inode in the upper.
var fullDiskOps = []struct {
	name, makes string
	do          func(dir string) error
}{
	{"create", "new", func(dir string) error { return writeSynced(dir, "new", os.O_CREATE|os.O_EXCL, 0) }},
	{"copy up", "", func(dir string) error { return writeSynced(dir, "tiny", 0, 0) }},
	{"copy up in the middle", "", func(dir string) error { return writeSynced(dir, "mid", 0, 200_000) }},
	{"copy up by range", "", func(dir string) error { return writeSynced(dir, "big", 0, 2_000_000) }},
	{"truncate", "", func(dir string) error { return os.Truncate(filepath.Join(dir, "big"), 1000) }},
	{"mkdir", "made", func(dir string) error { return os.Mkdir(filepath.Join(dir, "made"), 0o755) }},
	{"mknod", "fifo", func(dir string) error { return unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644) }},
	{"symlink", "symlink", func(dir string) error { return os.Symlink("to", filepath.Join(dir, "symlink")) }},
	{"link", "tiny3", func(dir string) error { return os.Link(filepath.Join(dir, "tiny2"), filepath.Join(dir, "tiny3")) }},
	{"chmod", "", func(dir string) error { return os.Chmod(filepath.Join(dir, "mid"), 0o600) }},
	{"setxattr", "", func(dir string) error { return unix.Setxattr(filepath.Join(dir, "tiny2"), "user.a", []byte("1"), 0) }},
	{"rename a file", "", func(dir string) error { return unix.Rename(filepath.Join(dir, "mid"), filepath.Join(dir, "mid2")) }},
	{"rename a directory", "", func(dir string) error { return unix.Rename(filepath.Join(dir, "d"), filepath.Join(dir, "e")) }},
	{"remove", "", func(dir string) error {
		err := os.Remove(filepath.Join(dir, "d/f"))
		if isErrno(err, unix.ENOENT) { // it was moved
			err = os.Remove(filepath.Join(dir, "e/f"))
		}
		return err
	}},
}

// writeSynced writes one byte and waits for the disk.
func writeSynced(dir, name string, flags int, off int64) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|flags, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("x"), off)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
