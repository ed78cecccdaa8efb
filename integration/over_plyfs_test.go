package integration

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// TestOverPlyfs: what was changed in a union over a plyfs is the same when both were mounted again. The nodes of the
// lower one have other ids then: nothing that was written may depend on them.
func TestOverPlyfs(t *testing.T) {
	harness.NeedRoot(t)
	const tree = `
		f low low
		f one 1
		h two one
		f d/file contents
		F big 300k
		f prog program
		f rest 2
		h rest2 rest`
	for _, who := range []string{"plyfs", "kernel"} {
		t.Run(who, func(t *testing.T) {
			lower := harness.NewLayers(t, tree)
			l := harness.NewLayers(t)
			l.Lowers = []string{lower.Mnt}
			mount := func() *harness.Mount {
				if who == "kernel" {
					return l.Kernel(t, "index=on", "redirect_dir=on")
				}
				return l.Plyfs(t, "--no-settle")
			}
			names := []string{"low", "one", "two", "d", "d/file", "big", "prog", "rest", "rest2"}
			look := func() {
				for _, name := range names {
					if _, err := os.Lstat(filepath.Join(lower.Mnt, name)); err != nil {
						t.Fatal(err)
					}
				}
			}
			below := lower.Plyfs(t)
			look()
			if _, _, err := unix.NameToHandleAt(unix.AT_FDCWD, below.Path("one"), 0); err == nil && who == "kernel" {
				t.Skip("this kernel cannot be told that there are no lasting handles; its index goes by them")
			}
			m := mount()
			for name, b := range map[string]string{"low": "LOW", "one": "ONE", "rest2": "REST", "big": "BIG"} {
				fd, err := unix.Open(m.Path(name), unix.O_WRONLY, 0)
				if err == nil {
					_, err = unix.Pwrite(fd, []byte(b), 0)
					unix.Close(fd)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Rename(m.Path("d"), m.Path("e")); err != nil {
				t.Fatal(err)
			}
			want := harness.Dump(t, m.Dir, true)
			for range 2 {
				m.Close(t)
				below.Close(t)
				below = lower.Plyfs(t)
				slices.Reverse(names)
				look()
				m = mount()
				if diff := cmp.Diff(want, harness.Dump(t, m.Dir, true)); diff != "" {
					t.Errorf("mounted again:\n%s", diff)
				}
			}
			m.Close(t)
		})
	}
}

// TestHandlesOfAMount: no file handle means anything in the next mount. Kernels that can be told so give none.
func TestHandlesOfAMount(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f file 1\nf other 2")
	m := l.Plyfs(t)
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, m.Path("file"), 0)
	if err == unix.EOPNOTSUPP {
		return
	}
	m.Close(t)
	m = l.Plyfs(t)
	_, other := os.Lstat(m.Path("other"))
	dir, open := unix.Open(m.Dir, unix.O_RDONLY, 0)
	if err := errors.Join(err, other, open); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	if fd, err := unix.OpenByHandleAt(dir, h, unix.O_RDONLY); err != unix.ESTALE {
		unix.Close(fd)
		t.Errorf("a handle of an earlier mount: %v", err)
	}
}
