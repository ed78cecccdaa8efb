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
