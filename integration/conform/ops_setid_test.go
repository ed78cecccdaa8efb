package conform

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSetIDUnderDefaultACL: a new file with set-id bits has no more permissions than its
// directory's default access list gives.
func TestSetIDUnderDefaultACL(t *testing.T) {
	everywhere(t, []string{"d dir 777\nd over 777\nf over/gone x"}, func(t *testing.T, v *view) {
		must(t, os.Remove(v.path("over/gone")))
		for _, dir := range []string{"dir", "over"} {
			must(t, unix.Lsetxattr(v.path(dir), "system.posix_acl_default", aclBlob("u::rwx u:1001:rwx g::r-x m::rwx o::---"), 0))
			for name, create := range map[string]func(path string) error{
				"gone": func(path string) error {
					fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o6777)
					unix.Close(fd)
					return err
				},
				"node": func(path string) error { return unix.Mknod(path, unix.S_IFREG|0o6777, 0) },
			} {
				path := v.path(dir + "/" + name)
				must(t, create(path))
				wantMode(t, path, 0o6770)
				if got, want := acl(t, path, "access"), "u::rwx u:1001:rwx g::r-x m::rwx o::---"; got != want {
					t.Errorf("%s has the list %q, want %q", path, got, want)
				}
			}
		}
	})
}

// TestSetIDAndStrangers: a chown of nothing is not for somebody who may not write the file; who
// has it open for writing takes the bits away by writing, whatever the mode says by now.
func TestSetIDAndStrangers(t *testing.T) {
	everywhere(t, []string{"f lower x\nf open x"}, func(t *testing.T, v *view) {
		must(t, os.WriteFile(v.path("upper"), []byte("x"), 0o644))
		for _, name := range []string{"lower", "upper"} {
			path := v.path(name)
			for _, mode := range []uint32{0o4755, 0o2755, 0o6777} {
				must(t, unix.Chmod(path, mode))
				asUser(1000, 1000, nil, func() { wants(t, "chown of nothing", unix.Chown(path, -1, -1), unix.EPERM) })
				wantMode(t, path, mode)
			}
			must(t, unix.Chmod(path, 0o755))
			asUser(1000, 1000, nil, func() { wants(t, "chown of nothing, no bits", unix.Chown(path, -1, -1), 0) })
		}
		path := v.path("open")
		for what, change := range map[string]func(fd int) error{
			"write":     func(fd int) error { _, err := unix.Pwrite(fd, []byte("y"), 0); return err },
			"fallocate": func(fd int) error { return unix.Fallocate(fd, 0, 0, 20_000) },
			"punch": func(fd int) error {
				return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1)
			},
		} {
			fd, err := unix.Open(path, unix.O_RDWR, 0)
			must(t, err, unix.Chmod(path, 0o6755))
			asUser(1000, 1000, nil, func() { wants(t, what, change(fd), 0) })
			wantMode(t, path, 0o755)
			unix.Close(fd)
		}
	})
}

// TestSetGroupIDWithoutExecute: the set-group-id bit of a file that its group may not execute
// goes with a change by somebody who is not in the group, and only then (kernel:
// setattr_should_drop_sgid).
func TestSetGroupIDWithoutExecute(t *testing.T) {
	everywhere(t, []string{"f lower 0123456789\nf other 0123456789"}, func(t *testing.T, v *view) {
		write := func(path string) error {
			fd, err := unix.Open(path, unix.O_WRONLY, 0)
			if err == nil {
				_, err = unix.Write(fd, []byte("x"))
				unix.Close(fd)
			}
			return err
		}
		for what, change := range map[string]func(path string) error{
			"write":    write,
			"truncate": func(path string) error { return unix.Truncate(path, 3) },
		} {
			for _, name := range []string{"lower", "other"} {
				path := v.path(name)
				must(t, unix.Chown(path, 0, 1001), unix.Chmod(path, 0o2666))
				asUser(1000, 1000, []int{1001}, func() { wants(t, what, change(path), 0) })
				wantMode(t, path, 0o2666)
				asUser(1000, 1001, nil, func() { wants(t, what, change(path), 0) })
				wantMode(t, path, 0o2666)
				asUser(1000, 1000, []int{1002}, func() { wants(t, what, change(path), 0) })
				wantMode(t, path, 0o666)
			}
		}
	})
}
