package conform

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// What a failed call has copied up stays, and somebody sees it later: an open directory can be changed or not, a
// lower file is twice on the disk. So it is what the kernel's overlayfs copies up, and mostly nothing.
func TestFailedCallsCopyUp(t *testing.T) {
	harness.NeedRoot(t)
	lower := `
		f in/file text
		f in/other text
		f in/full/deep/x text
		f in/full/y text
		d in/empty
		l in/link file
		f from/f text
		f from/d/x text
		f ro/x text`
	open := func(flags int) func(p func(string) string) error {
		return func(p func(string) string) error {
			fd, err := unix.Open(p("in/file"), flags, 0o644)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
	}
	rename := func(from, to string, flags uint) func(p func(string) string) error {
		return func(p func(string) string) error {
			return unix.Renameat2(unix.AT_FDCWD, p(from), unix.AT_FDCWD, p(to), flags)
		}
	}
	calls := []struct {
		name string
		call func(p func(string) string) error
		want unix.Errno
	}{
		{"rmdir of a full directory", func(p func(string) string) error { return unix.Rmdir(p("in/full")) }, unix.ENOTEMPTY},
		{"rmdir of a file", func(p func(string) string) error { return unix.Rmdir(p("in/file")) }, unix.ENOTDIR},
		{"rmdir of nothing", func(p func(string) string) error { return unix.Rmdir(p("in/nothing")) }, unix.ENOENT},
		{"unlink of a directory", func(p func(string) string) error { return unix.Unlink(p("in/empty")) }, unix.EISDIR},
		{"unlink of nothing", func(p func(string) string) error { return unix.Unlink(p("in/nothing")) }, unix.ENOENT},
		{"mkdir over a file", func(p func(string) string) error { return unix.Mkdir(p("in/file"), 0o755) }, unix.EEXIST},
		{"mknod over a file", func(p func(string) string) error { return unix.Mknod(p("in/file"), unix.S_IFIFO|0o644, 0) }, unix.EEXIST},
		{"symlink over a file", func(p func(string) string) error { return unix.Symlink("x", p("in/file")) }, unix.EEXIST},
		{"link over a file", func(p func(string) string) error { return unix.Link(p("from/f"), p("in/file")) }, unix.EEXIST},
		{"link of a directory", func(p func(string) string) error { return unix.Link(p("from/d"), p("in/new")) }, unix.EPERM},
		{"rename of a directory over a full one", rename("from/d", "in/full", 0), unix.ENOTEMPTY},
		{"rename of a directory over a file", rename("from/d", "in/file", 0), unix.ENOTDIR},
		{"rename of a file over a directory", rename("from/f", "in/empty", 0), unix.EISDIR},
		{"rename that must not replace", rename("from/f", "in/file", unix.RENAME_NOREPLACE), unix.EEXIST},
		{"exchange with nothing", rename("from/f", "in/nothing", unix.RENAME_EXCHANGE), unix.ENOENT},
		{"rename into itself", rename("from", "from/d/x2", 0), unix.EINVAL},
		{"O_EXCL over a file", open(unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL), unix.EEXIST},
		{"O_DIRECTORY of a file", open(unix.O_RDONLY | unix.O_DIRECTORY), unix.ENOTDIR},
		{"truncation to less than nothing", func(p func(string) string) error { return unix.Truncate(p("in/file"), -1) }, unix.EINVAL},
		{"removal of an attribute that is not there", func(p func(string) string) error { return unix.Removexattr(p("in/file"), "user.none") }, unix.ENODATA},
		{"replacing an attribute that is not there", func(p func(string) string) error {
			return unix.Setxattr(p("in/file"), "user.none", []byte("x"), unix.XATTR_REPLACE)
		}, unix.ENODATA},
	}
	for _, c := range calls {
		t.Run(c.name, func(t *testing.T) {
			after := map[string][]string{}
			for _, who := range []string{"plyfs", "kernel"} {
				l := harness.NewLayers(t, lower)
				var m *harness.Mount
				if who == "plyfs" {
					m = l.Plyfs(t)
				} else {
					m = l.Kernel(t, "redirect_dir=on")
				}
				wants(t, "on "+who, c.call(m.Path), c.want)
				m.Close(t)
				after[who] = harness.Dump(t, l.Upper, false)
			}
			if !slices.Equal(after["plyfs"], after["kernel"]) {
				t.Errorf("in the upper: %q, of the kernel: %q", after["plyfs"], after["kernel"])
			}
		})
	}
}
