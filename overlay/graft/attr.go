package graft

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/overlay"
)

// Getattr fills a with the attributes of n.
func (u *Union) Getattr(n Node, a *overlay.Attr) error {
	if n.g == nil {
		return u.fs.Getattr(n.o, a)
	}
	if n.g.syn == nil {
		return u.getattr(n.g, a)
	}
	if over := n.over(); over != (Node{}) {
		err := u.Getattr(over, a)
		a.Ino = n.g.ino
		return err
	}
	t := unix.StatxTimestamp{Sec: u.start.Unix(), Nsec: uint32(u.start.Nanosecond())}
	self := u.self()
	*a = overlay.Attr{
		Mask: unix.STATX_BASIC_STATS | unix.STATX_BTIME, Mode: unix.S_IFDIR | 0o755, Ino: n.g.ino, Nlink: 2,
		Uid: self.UID, Gid: self.GID, Blksize: 4096, Atime: t, Btime: t, Ctime: t, Mtime: t,
	}
	return nil
}

// Setattr changes attributes of n and fills a with all of them.
func (u *Union) Setattr(c *overlay.Caller, n Node, s *overlay.SetAttr, a *overlay.Attr) error {
	if n.g != nil && n.g.syn != nil {
		over, err := u.real(n)
		if err != nil {
			return err
		}
		err = u.Setattr(c, over, s, a)
		a.Ino = n.g.ino
		return err
	}
	if u.fixed(n) {
		return errReadOnly
	}
	if n.g == nil {
		return u.fs.Setattr(c, n.o, s, a)
	}
	g := n.g
	if s.Mask&overlay.SetSize != 0 {
		if err := u.truncate(c, g, s.Size, s.Mask&overlay.KillPriv != 0); err != nil {
			return err
		}
	}
	return u.at(g, func(fd int) error {
		if err := u.change(c, g, fd, s); err != nil {
			return err
		}
		err := layer.Stat(fd, "", a)
		u.show(g, a)
		return err
	})
}

// change applies everything but the size. Owner before mode: a change of owner takes set-id
// bits away.
func (u *Union) change(c *overlay.Caller, g *inode, fd int, s *overlay.SetAttr) error {
	var was overlay.Attr
	kills := s.Mask&overlay.KillPriv != 0 && s.Mask&(overlay.SetSize|overlay.SetMode) == 0
	if kills {
		if err := layer.Stat(fd, "", &was); err != nil {
			return err
		}
	}
	if s.Mask&(overlay.SetUID|overlay.SetGID) != 0 {
		uid, gid := -1, -1
		if s.Mask&overlay.SetUID != 0 {
			uid = int(s.UID)
		}
		if s.Mask&overlay.SetGID != 0 {
			gid = int(s.GID)
		}
		if err := u.may(c, g, func() error { return layer.Chown(fd, "", uid, gid) }); err != nil {
			g.src.lacks("changes of owner", err, fd)
			return err
		}
	}
	switch {
	case s.Mask&overlay.SetMode != 0:
		if err := u.may(c, g, func() error { return layer.Chmod(fd, "", s.Mode&0o7777) }); err != nil {
			if g.typ != unix.S_IFLNK {
				g.src.lacks("changes of mode", err, fd)
			}
			return err
		}
	case kills:
		if err := killSetID(c, fd, g.typ, &was); err != nil {
			return err
		}
	}
	if s.Mask&(overlay.SetAtime|overlay.SetMtime|overlay.SetAtimeNow|overlay.SetMtimeNow) == 0 {
		return nil
	}
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	if s.Mask&overlay.SetAtimeNow != 0 {
		ts[0].Nsec = unix.UTIME_NOW
	} else if s.Mask&overlay.SetAtime != 0 {
		ts[0] = s.Atime
	}
	if s.Mask&overlay.SetMtimeNow != 0 {
		ts[1].Nsec = unix.UTIME_NOW
	} else if s.Mask&overlay.SetMtime != 0 {
		ts[1] = s.Mtime
	}
	return u.may(c, g, func() error { return layer.Utimens(fd, "", &ts) })
}

// killSetID takes the set-id bits off that a change by the caller takes away (overlay.Caller.KillSetID). was is the file
// before a change of owner, nil if that stays.
func killSetID(c *overlay.Caller, fd int, typ uint32, was *overlay.Attr) error {
	if typ == unix.S_IFDIR {
		return nil
	}
	var st overlay.Attr
	if err := layer.Stat(fd, "", &st); err != nil {
		return err
	}
	if was == nil {
		was = &st
	}
	mode := uint32(st.Mode)
	m := c.KillSetID(mode, was.Gid)
	if m == mode&0o7777 {
		return nil
	}
	return layer.Chmod(fd, "", m)
}

func (u *Union) truncate(c *overlay.Caller, g *inode, size int64, kill bool) error {
	if g.typ != unix.S_IFREG {
		if g.typ == unix.S_IFDIR {
			return unix.EISDIR
		}
		return unix.EINVAL
	}
	d, err := u.writer(c, g)
	if err != nil {
		return err
	}
	defer d.done()
	if kill {
		if err := killSetID(c, d.fd, g.typ, nil); err != nil {
			return err
		}
	}
	return retry(func() error { return unix.Ftruncate(d.fd, size) })
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// Getxattr copies the value of an attribute into buf and returns its length, with an empty
// buf the length only.
func (u *Union) Getxattr(n Node, name string, buf []byte) (size int, err error) {
	if n.g != nil && n.g.syn != nil {
		if n = n.over(); n == (Node{}) {
			return 0, unix.ENODATA
		}
	}
	if n.g == nil {
		return u.fs.Getxattr(n.o, name, buf)
	}
	err = u.at(n.g, func(fd int) (err error) {
		size, err = layer.Getxattr(fd, "", name, buf)
		return err
	})
	return size, err
}

// Listxattr copies the names, each ended by a NUL, into buf and returns their length.
func (u *Union) Listxattr(n Node, buf []byte) (size int, err error) {
	if n.g != nil && n.g.syn != nil {
		if n = n.over(); n == (Node{}) {
			return 0, nil
		}
	}
	if n.g == nil {
		return u.fs.Listxattr(n.o, buf)
	}
	err = u.at(n.g, func(fd int) (err error) {
		size, err = layer.ListxattrRaw(fd, "", buf)
		return err
	})
	return size, err
}

// Setxattr sets an attribute; see overlay.FS.Setxattr.
func (u *Union) Setxattr(c *overlay.Caller, n Node, name string, val []byte, flags int, killSGID bool) error {
	n, err := u.real(n)
	if err != nil {
		return err
	}
	if n.g == nil {
		return u.fs.Setxattr(c, n.o, name, val, flags, killSGID)
	}
	return u.at(n.g, func(fd int) error {
		if err := u.may(c, n.g, func() error { return layer.Setxattr(fd, "", name, val, flags) }); err != nil {
			if err == unix.EOPNOTSUPP {
				n.g.src.lacks("extended attributes of this kind ("+name+")", err)
			}
			return err
		}
		if !killSGID || name != accessList {
			return nil
		}
		var st overlay.Attr
		if err := layer.Stat(fd, "", &st); err != nil {
			return err
		}
		if st.Mode&unix.S_ISGID == 0 {
			return nil
		}
		return layer.Chmod(fd, "", uint32(st.Mode)&0o7777&^unix.S_ISGID)
	})
}

// Removexattr removes an attribute; ENODATA if there is none.
func (u *Union) Removexattr(c *overlay.Caller, n Node, name string) error {
	if n.g != nil && n.g.syn != nil {
		if n = n.over(); n == (Node{}) {
			return unix.ENODATA
		}
	}
	if u.fixed(n) {
		return errReadOnly
	}
	if n.g == nil {
		return u.fs.Removexattr(c, n.o, name)
	}
	return u.at(n.g, func(fd int) error {
		return u.may(c, n.g, func() error { return layer.Removexattr(fd, "", name) })
	})
}

// Statfs describes the filesystem n is on.
func (u *Union) Statfs(n Node, st *unix.Statfs_t) error {
	for n.g != nil && n.g.syn != nil {
		n = n.g.syn.parent
	}
	if n.g == nil {
		return u.fs.Statfs(n.o, st)
	}
	return u.at(n.g, func(fd int) error { return retry(func() error { return unix.Fstatfs(fd, st) }) })
}
