package layer

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Abilities is what a writable filesystem can do for an upper.
type Abilities struct {
	XattrTrusted   bool // attributes in trusted.
	XattrUser      bool // attributes in user.
	WhiteoutDev    bool // character device 0:0
	Hardlinks      bool
	Tmpfile        bool // O_TMPFILE
	RenameExchange bool // renameat2 with RENAME_EXCHANGE
	RenameWhiteout bool // renameat2 with RENAME_WHITEOUT
	ACL            bool // POSIX access lists
}

// String names the abilities, those that are missing with a minus.
func (a Abilities) String() string {
	var out []string
	for _, f := range []struct {
		name string
		has  bool
	}{
		{"trusted-xattr", a.XattrTrusted}, {"user-xattr", a.XattrUser}, {"whiteout-device", a.WhiteoutDev},
		{"hard-links", a.Hardlinks}, {"tmpfile", a.Tmpfile}, {"rename-exchange", a.RenameExchange},
		{"rename-whiteout", a.RenameWhiteout}, {"acl", a.ACL},
	} {
		sign := "+"
		if !f.has {
			sign = "-"
		}
		out = append(out, sign+f.name)
	}
	return strings.Join(out, " ")
}

// probePrefix begins the names that Probe uses. The kernel's overlayfs and the copy-up
// engine clear leftover names of this form from a staging directory.
const probePrefix = "#probe-"

// Probe tries in the directory d what its filesystem can do, and removes what it made.
// The error, an errno, says that nothing at all can be made there.
func Probe(d *Dir) (Abilities, error) {
	var a Abilities
	fd, err := d.FD()
	if err != nil {
		return a, err
	}
	defer d.Done()
	name := func(n int) string { return probePrefix + strconv.Itoa(n) }
	clear := func() {
		for n := range 4 {
			_ = RemoveAll(fd, name(n))
		}
	}
	clear()
	defer clear()
	f, err := Open(fd, name(0), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return a, err
	}
	unix.Close(f)
	a.XattrTrusted = Setxattr(fd, name(0), "trusted.overlay.probe", []byte("y"), 0) == nil
	a.XattrUser = Setxattr(fd, name(0), "user.overlay.probe", []byte("y"), 0) == nil
	a.Hardlinks = Link(fd, name(0), fd, name(1)) == nil
	_ = Unlink(fd, name(1))
	a.WhiteoutDev = Mknod(fd, name(2), unix.S_IFCHR|0o600, 0) == nil
	if _, err := Getxattr(fd, name(0), "system.posix_acl_access", nil); err == nil || err == unix.ENODATA {
		a.ACL = true
	}
	if t, err := Open(fd, "", unix.O_TMPFILE|unix.O_RDWR, 0o600); err == nil {
		a.Tmpfile = true
		unix.Close(t)
	}
	if f, err := Open(fd, name(3), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600); err == nil {
		unix.Close(f)
		a.RenameExchange = Rename(fd, name(0), fd, name(3), unix.RENAME_EXCHANGE) == nil
		a.RenameWhiteout = Rename(fd, name(0), fd, name(3), unix.RENAME_WHITEOUT) == nil
	}
	return a, nil
}
