package layer

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Abilities is what a writable filesystem can do for an upper.
type Abilities struct {
	XattrTrusted   bool // attributes in trusted.
	XattrUser      bool // attributes in user.; tried where there are none in trusted.
	WhiteoutDev    bool // character device 0:0
	WhiteoutName   bool // names that begin with .wh.; tried where there are no such devices
	Hardlinks      bool
	RenameWhiteout bool // renameat2 with RENAME_WHITEOUT, and what it leaves is seen

	// What nothing depends on, to be told to the user: tried if all is asked for.
	Tmpfile        bool // O_TMPFILE
	RenameExchange bool // renameat2 with RENAME_EXCHANGE
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

// Probe tries in the directory d what its filesystem can do, and removes what it made. A mount waits for it: what
// nothing depends on is only tried with all. The error, an errno, says that nothing at all can be made there, or that it
// cannot be told what can: on a full disk nothing is known of attributes, and an upper whose marks are not
// read shows something else.
func Probe(d *Dir, all bool) (Abilities, error) {
	var a Abilities
	fd, err := d.FD()
	if err != nil {
		return a, err
	}
	defer d.Done()
	const file, link, device, renamed, hidden = probePrefix + "0", probePrefix + "1", probePrefix + "2", probePrefix + "3", ".wh." + probePrefix + "4"
	clear := func() {
		for _, name := range [...]string{file, link, device, renamed, hidden} {
			_ = RemoveAll(fd, name)
		}
	}
	clear()
	defer clear()
	f, err := Open(fd, file, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return a, err
	}
	unix.Close(f)
	can := func(e error) bool {
		switch e {
		case unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.ENOMEM:
			err = e
		}
		return e == nil
	}
	a.XattrTrusted = can(Setxattr(fd, file, "trusted.overlay.probe", []byte("y"), 0))
	if all || !a.XattrTrusted {
		a.XattrUser = can(Setxattr(fd, file, "user.overlay.probe", []byte("y"), 0))
	}
	a.Hardlinks = can(Link(fd, file, fd, link))
	a.WhiteoutDev = can(Mknod(fd, device, unix.S_IFCHR|0o600, 0))
	if !a.WhiteoutDev {
		a.WhiteoutName = can(Mknod(fd, hidden, unix.S_IFREG|0o600, 0))
	}
	if err != nil {
		return a, err
	}
	if all {
		a.tryRest(fd, file, renamed)
	}
	if Rename(fd, file, fd, renamed, unix.RENAME_WHITEOUT) == nil {
		var st unix.Statx_t // a union makes a whiteout of its own, beneath what is seen
		a.RenameWhiteout = Stat(fd, file, &st) == nil
	}
	return a, nil
}

// tryRest tries what only the user is told of. It leaves other, a name that is free before.
func (a *Abilities) tryRest(fd int, file, other string) {
	if _, err := Getxattr(fd, file, "system.posix_acl_access", nil); err == nil || err == unix.ENODATA {
		a.ACL = true
	}
	if t, err := Open(fd, "", unix.O_TMPFILE|unix.O_RDWR, 0o600); err == nil {
		a.Tmpfile = true
		unix.Close(t)
	}
	if f, err := Open(fd, other, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600); err == nil {
		unix.Close(f)
		a.RenameExchange = Rename(fd, file, fd, other, unix.RENAME_EXCHANGE) == nil
	}
}
