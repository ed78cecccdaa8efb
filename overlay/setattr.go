package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
)

// Setattr changes attributes of n and fills a with all of them. Only a change of size
// needs the data in the upper.
func (fs *FS) Setattr(c *Caller, n *Node, s *SetAttr, a *Attr) error {
	if fs.upper == nil {
		return errReadOnly
	}
	if err := fs.maySet(n, s.Mask); err != nil {
		return err
	}
	if s.Mask&SetSize != 0 {
		if err := fs.truncate(c, n, s.Size, s.Mask&KillPriv != 0); err != nil {
			return err
		}
	}
	var ino uint64 // of the upper file, if known
	if s.Mask&^(SetSize|KillPriv) != 0 || s.Mask == KillPriv {
		if err := fs.copyUp(c, n, need{cause: causeOf(s.Mask), size: -1, meta: true, ino: &ino}); err != nil {
			return err
		}
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	p, err := n.place()
	if err != nil {
		return err
	}
	err = fs.changing(n, p, ino, func() error { return fs.change(c, p, n, s) })
	p.done()
	if err != nil {
		return err
	}
	return fs.getattrLocked(n, a)
}

func causeOf(mask uint32) cow.Cause {
	switch {
	case mask&SetMode != 0:
		return cow.CauseChmod
	case mask&(SetUID|SetGID) != 0:
		return cow.CauseChown
	}
	return cow.CauseUtimens
}

// change applies everything but the size. Owner before mode: a change of owner takes set-id
// bits away. n.mu is held.
func (fs *FS) change(c *Caller, p pin, n *Node, s *SetAttr) error {
	if fs.overrides[fs.upper] != "" && s.Mask&(SetUID|SetGID|SetMode) != 0 {
		return fs.changeOverride(c, p, s)
	}
	if fs.overrides[fs.upper] != "" && s.Mask&KillPriv != 0 && s.Mask&SetSize == 0 {
		if err := fs.dropOverride(c, p, n); err != nil {
			return err
		}
		return fs.changeTimes(p, s)
	}
	var st Attr
	kills := s.Mask&KillPriv != 0 && s.Mask&(SetSize|SetMode) == 0 && !n.isDir()
	if kills {
		if err := layer.Stat(p.fd, p.name, &st); err != nil {
			return err
		}
	}
	killed := false // by chown(2), as here
	if s.Mask&(SetUID|SetGID) != 0 {
		var err error
		if killed, err = fs.chown(p, s); err != nil {
			return err
		}
	}
	if s.Mask&SetMode != 0 {
		if err := layer.Chmod(p.fd, p.name, s.Mode&0o7777); err != nil {
			return err
		}
	} else if kills {
		// Of the bits chown(2) leaves the one that belongs to a group which may not execute the file: to this process.
		m, left := fs.killSetID(c, uint32(st.Mode), st.Gid), uint32(st.Mode)&0o7777
		if killed {
			left &^= unix.S_ISUID
			if left&0o010 != 0 {
				left &^= unix.S_ISGID
			}
		}
		if m != left {
			if err := layer.Chmod(p.fd, p.name, m); err != nil {
				return err
			}
		}
	}
	return fs.changeTimes(p, s)
}

func (fs *FS) changeTimes(p pin, s *SetAttr) error {
	if s.Mask&(SetAtime|SetMtime|SetAtimeNow|SetMtimeNow) == 0 {
		return nil
	}
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	if s.Mask&SetAtimeNow != 0 {
		ts[0].Nsec = unix.UTIME_NOW
	} else if s.Mask&SetAtime != 0 {
		ts[0] = s.Atime
	}
	if s.Mask&SetMtimeNow != 0 {
		ts[1].Nsec = unix.UTIME_NOW
	} else if s.Mask&SetMtime != 0 {
		ts[1] = s.Mtime
	}
	return layer.Utimens(p.fd, p.name, &ts)
}

// chown reports whether the owner was set, and set-id bits gone with that.
func (fs *FS) chown(p pin, s *SetAttr) (bool, error) {
	uid, gid, err := fs.stow(s)
	if err != nil {
		return false, err
	}
	return fs.chownTo(p, uid, gid)
}

// chownTo stores an owner, -1: the one there is. Where all belongs to one there is nothing to give.
func (fs *FS) chownTo(p pin, uid, gid int) (bool, error) {
	if fs.cfg.SquashUID >= 0 {
		uid = -1
	}
	if fs.cfg.SquashGID >= 0 {
		gid = -1
	}
	if uid < 0 && gid < 0 {
		return false, nil
	}
	return true, layer.Chown(p.fd, p.name, uid, gid)
}

// changeOverride keeps owner and mode in the attribute; the file itself keeps a mode
// this process can work with.
func (fs *FS) changeOverride(c *Caller, p pin, s *SetAttr) error {
	var st Attr
	if err := layer.Stat(p.fd, p.name, &st); err != nil {
		return err
	}
	if !mayOverride(fs.overrides[fs.upper], uint32(st.Mode)) {
		return fs.changeAsMayBe(p, s)
	}
	fs.overriddenAt(fs.upper, p.fd, p.name, &st)
	set := *s
	if mode := fs.killSetID(c, uint32(st.Mode), st.Gid); set.Mask&KillPriv != 0 && set.Mask&SetMode == 0 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		set.Mask, set.Mode = set.Mask|SetMode, mode
	}
	if err := fs.override(p.fd, p.name, &st, &set); err != nil {
		return err
	}
	if s.Mask&SetMode != 0 {
		if err := fs.aclByOverride(p, s.Mode); err != nil {
			return err
		}
	}
	return fs.changeTimes(p, s)
}

// changeAsMayBe is for what cannot have the attribute: the object gets the owner, if this process may give
// it. That it may not is no error (as in fuse-overlayfs): whoever unpacks an archive gives an owner to each symbolic link.
func (fs *FS) changeAsMayBe(p pin, s *SetAttr) error {
	if _, err := fs.chown(p, s); err != nil && err != unix.EPERM {
		return err
	}
	if s.Mask&SetMode != 0 {
		if err := layer.Chmod(p.fd, p.name, s.Mode&0o7777); err != nil {
			return err
		}
	}
	return fs.changeTimes(p, s)
}

// dropOverride takes the set-id bits out of the attribute. n.mu is held.
func (fs *FS) dropOverride(c *Caller, p pin, n *Node) error {
	var st Attr
	if err := layer.Stat(p.fd, p.name, &st); err != nil {
		return err
	}
	fs.overriddenAt(fs.upper, p.fd, p.name, &st)
	mode := fs.killSetID(c, uint32(st.Mode), st.Gid)
	if mode == uint32(st.Mode)&0o7777 || n.isDir() {
		return nil
	}
	return fs.override(p.fd, p.name, &st, &SetAttr{Mask: SetMode, Mode: mode})
}

// truncate changes the size. Of a lower file only what remains is copied.
func (fs *FS) truncate(c *Caller, n *Node, size int64, killPriv bool) error {
	if n.typ != unix.S_IFREG {
		if n.isDir() {
			return unix.EISDIR
		}
		return unix.EINVAL
	}
	o, first, err := fs.firstWrite(c, n, need{cause: cow.CauseTruncate, size: size})
	if err != nil {
		return err
	}
	defer o.done()
	if first != nil {
		defer first.Publish(o.partial)
	}
	if killPriv {
		if err := fs.dropSetID(c, n, o); err != nil {
			return err
		}
	}
	if o.partial != nil {
		fs.settle.changes.Add(1)
		return o.partial.Truncate(size)
	}
	return retry(func() error { return unix.Ftruncate(o.fd, size) })
}

// FsyncDir writes the names of a directory to stable storage.
func (fs *FS) FsyncDir(n *Node) error {
	if n.d == nil {
		return unix.ENOTDIR
	}
	u := n.d.upper.Load()
	if u == nil || fs.cfg.Volatile {
		return nil
	}
	fd, err := u.FD()
	if err != nil {
		return err
	}
	defer u.Done()
	f, err := layer.Open(fd, "", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	return fs.eng.Fsync(f, false)
}

// syncAll writes the upper's filesystem to stable storage.
func (fs *FS) syncAll() error {
	fd, err := fs.upper.Root.FD()
	if err != nil {
		return err
	}
	defer fs.upper.Root.Done()
	f, err := layer.Open(fd, "", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	return retry(func() error { return unix.Syncfs(f) })
}
