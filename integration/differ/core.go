package differ

import (
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// coreTree is the union without FUSE: the part of the kernel is played by the code
// below, which finds nodes by path, keeps references for open files, and forgets everything
// else at once. That makes cases fast, and forgetting, which the kernel does when it likes,
// part of every one of them.
type coreTree struct {
	fs     *overlay.FS
	caller overlay.Caller
	dead   map[*overlay.Node]bool // directories that were removed
}

func newCoreTree(cfg overlay.Config) (*coreTree, error) {
	fs, err := overlay.New(cfg)
	if err != nil {
		return nil, err
	}
	return &coreTree{fs: fs, caller: overlay.Caller{PID: uint32(os.Getpid())}, dead: map[*overlay.Node]bool{}}, nil
}

func errno(err error) error {
	if err == nil {
		return nil
	}
	return overlay.Errno(err)
}

// walk finds the node at p; put gives it back.
func (t *coreTree) walk(p string, a *overlay.Attr) (*overlay.Node, func(), error) {
	var held []*overlay.Node
	put := func() {
		for i := len(held) - 1; i >= 0; i-- {
			t.fs.Forget(held[i].ID(), 1)
		}
	}
	n := t.fs.Root()
	if err := t.fs.Getattr(n, a); err != nil {
		return nil, nil, errno(err)
	}
	for name := range strings.SplitSeq(path.Clean(p), "/") {
		if name == "." {
			continue
		}
		if n.Mode() != unix.S_IFDIR {
			put()
			if n.Mode() == unix.S_IFLNK { // the kernel would follow it: to nothing that is there
				return nil, nil, unix.ENOENT
			}
			return nil, nil, unix.ENOTDIR
		}
		next, err := t.fs.Lookup(&t.caller, n, name, a)
		if err != nil {
			put()
			return nil, nil, errno(err)
		}
		held = append(held, next)
		n = next
	}
	return n, put, nil
}

// at runs f on the node of a path.
func (t *coreTree) at(p string, f func(n *overlay.Node, a *overlay.Attr) error) error {
	var a overlay.Attr
	n, put, err := t.walk(p, &a)
	if err != nil {
		return err
	}
	defer put()
	return errno(f(n, &a))
}

// in runs f on the directory of a path and the last name in it.
func (t *coreTree) in(p string, f func(dir *overlay.Node, name string) error) error {
	return t.at(path.Dir(p), func(n *overlay.Node, _ *overlay.Attr) error {
		if n.Mode() != unix.S_IFDIR {
			if n.Mode() == unix.S_IFLNK {
				return unix.ENOENT
			}
			return unix.ENOTDIR
		}
		return f(n, path.Base(p))
	})
}

// made forgets a node that an operation made.
func (t *coreTree) made(n *overlay.Node, err error) error {
	if err == nil {
		t.fs.Forget(n.ID(), 1)
	}
	return err
}

// absent is what the kernel checks before it asks for a new name.
func (t *coreTree) absent(dir *overlay.Node, name string) error {
	var a overlay.Attr
	n, err := t.fs.Lookup(&t.caller, dir, name, &a)
	if err == nil {
		t.fs.Forget(n.ID(), 1)
		return unix.EEXIST
	}
	if overlay.Errno(err) == unix.ENOENT {
		return nil
	}
	return err
}

func (t *coreTree) open(p string, flags int, mode uint32) (handle, error) {
	if flags&unix.O_TMPFILE == unix.O_TMPFILE {
		var h *coreHandle
		err := t.at(p, func(dir *overlay.Node, _ *overlay.Attr) error {
			var a overlay.Attr
			if dir.Mode() == unix.S_IFLNK {
				return unix.ENOTDIR
			}
			n, err := t.fs.Tmpfile(&t.caller, dir, mode, &a)
			h = &coreHandle{t: t, n: n, flags: flags}
			return err
		})
		if err != nil {
			return nil, err
		}
		return h, nil
	}
	var h *coreHandle
	err := t.in(p, func(dir *overlay.Node, name string) error {
		var a overlay.Attr
		var n *overlay.Node
		var err error
		if name == "." {
			n = dir
		} else if n, err = t.fs.Lookup(&t.caller, dir, name, &a); overlay.Errno(err) == unix.ENOENT && flags&unix.O_CREAT != 0 {
			n, err = t.fs.Mknod(&t.caller, dir, name, unix.S_IFREG|mode, 0, &a)
			flags &^= unix.O_EXCL | unix.O_TRUNC
		}
		if err != nil {
			return err
		}
		if err := t.mayOpen(n, flags); err != nil {
			if name != "." {
				t.fs.Forget(n.ID(), 1)
			}
			return err
		}
		h = &coreHandle{t: t, n: n, flags: flags, root: name == "."}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// mayOpen is what the kernel checks, and the truncation it asks for.
func (t *coreTree) mayOpen(n *overlay.Node, flags int) error {
	if flags&unix.O_CREAT != 0 && flags&unix.O_EXCL != 0 {
		return unix.EEXIST
	}
	write := flags&unix.O_ACCMODE != unix.O_RDONLY
	if n.Mode() == unix.S_IFDIR && !write && flags&unix.O_DIRECT != 0 {
		return unix.EINVAL
	}
	switch n.Mode() {
	case unix.S_IFLNK:
		if flags&unix.O_DIRECTORY != 0 {
			return unix.ENOTDIR
		}
		return unix.ELOOP
	case unix.S_IFDIR:
		if write || flags&unix.O_CREAT != 0 {
			return unix.EISDIR
		}
		return nil
	}
	if flags&unix.O_DIRECTORY != 0 {
		return unix.ENOTDIR
	}
	if n.Mode() != unix.S_IFREG {
		return errSpecial
	}
	if flags&unix.O_TRUNC != 0 {
		var a overlay.Attr
		return t.fs.Setattr(&t.caller, n, &overlay.SetAttr{Mask: overlay.SetSize}, &a)
	}
	return nil
}

// errSpecial: what opening a fifo, a socket or a device does is no business of a union.
var errSpecial = unix.ENXIO

func (t *coreTree) lstat(p string) (st unix.Stat_t, err error) {
	err = t.at(p, func(n *overlay.Node, _ *overlay.Attr) (err error) {
		st, err = t.stat(n)
		return err
	})
	return st, err
}

func (t *coreTree) stat(n *overlay.Node) (st unix.Stat_t, err error) {
	var a overlay.Attr
	if err := t.fs.Getattr(n, &a); err != nil {
		return st, errno(err)
	}
	st.Ino, st.Mode, st.Uid, st.Gid, st.Nlink = a.Ino, uint32(a.Mode), a.Uid, a.Gid, uint64(a.Nlink)
	st.Size, st.Rdev = int64(a.Size), unix.Mkdev(a.Rdev_major, a.Rdev_minor)
	st.Mtim = unix.Timespec{Sec: a.Mtime.Sec, Nsec: int64(a.Mtime.Nsec)}
	return st, nil
}

func (t *coreTree) set(p string, s *overlay.SetAttr) error {
	return t.at(p, func(n *overlay.Node, _ *overlay.Attr) error {
		if n.Mode() == unix.S_IFLNK {
			switch {
			case s.Mask&overlay.SetMode != 0:
				return unix.EOPNOTSUPP
			case s.Mask&overlay.SetSize != 0:
				return unix.ENOENT // of its target
			}
		}
		if n.Mode() == unix.S_IFDIR && s.Mask&overlay.SetSize != 0 {
			return unix.EISDIR
		}
		return t.setNode(n, s)
	})
}

func (t *coreTree) setNode(n *overlay.Node, s *overlay.SetAttr) error {
	if s.Mask&(overlay.SetUID|overlay.SetGID) != 0 && n.Mode() != unix.S_IFDIR {
		s.Mask |= overlay.KillPriv
	}
	var a overlay.Attr
	return t.fs.Setattr(&t.caller, n, s, &a)
}

func setOwner(uid, gid int) *overlay.SetAttr {
	return &overlay.SetAttr{Mask: overlay.SetUID | overlay.SetGID, UID: uint32(uid), GID: uint32(gid)}
}

// setTimes is utimensat(2), which gives the time or UTIME_NOW, or leaves it with UTIME_OMIT.
func setTimes(ts [2]unix.Timespec) *overlay.SetAttr {
	s := &overlay.SetAttr{Atime: ts[0], Mtime: ts[1]}
	for i, bits := range [2][2]uint32{{overlay.SetAtime, overlay.SetAtimeNow}, {overlay.SetMtime, overlay.SetMtimeNow}} {
		switch ts[i].Nsec {
		case unix.UTIME_OMIT:
		case unix.UTIME_NOW:
			s.Mask |= bits[0] | bits[1]
		default:
			s.Mask |= bits[0]
		}
	}
	return s
}

func (t *coreTree) truncate(p string, size int64) error {
	return t.set(p, &overlay.SetAttr{Mask: overlay.SetSize, Size: size})
}

func (t *coreTree) chmod(p string, mode uint32) error {
	return t.set(p, &overlay.SetAttr{Mask: overlay.SetMode, Mode: mode})
}

func (t *coreTree) chown(p string, uid, gid int) error {
	return t.set(p, setOwner(uid, gid))
}

func (t *coreTree) utimens(p string, ts [2]unix.Timespec) error {
	if ts[0].Nsec == unix.UTIME_OMIT && ts[1].Nsec == unix.UTIME_OMIT {
		return nil // not even looked for
	}
	return t.set(p, setTimes(ts))
}

func (t *coreTree) mkdir(p string, mode uint32) error {
	return t.in(p, func(dir *overlay.Node, name string) error {
		var a overlay.Attr
		if err := t.absent(dir, name); err != nil {
			return err
		}
		return t.made(t.fs.Mkdir(&t.caller, dir, name, mode&0o1777, &a))
	})
}

func (t *coreTree) rmdir(p string) error {
	return t.burying(p, func() error {
		return t.in(p, func(dir *overlay.Node, name string) error { return t.fs.Rmdir(&t.caller, dir, name) })
	})
}

func (t *coreTree) unlink(p string) error {
	return t.in(p, func(dir *overlay.Node, name string) error { return t.fs.Unlink(&t.caller, dir, name) })
}

// burying notes, if f succeeds, that the directory at p is gone.
func (t *coreTree) burying(p string, f func() error) error {
	var a overlay.Attr
	n, put, err := t.walk(p, &a)
	if err != nil {
		return f()
	}
	defer put()
	if err := f(); err != nil {
		return err
	}
	t.dead[n] = n.Mode() == unix.S_IFDIR
	return nil
}

func (t *coreTree) rename(p, q string, flags uint) error {
	if flags&unix.RENAME_EXCHANGE == 0 && path.Clean(p) != path.Clean(q) {
		return t.burying(q, func() error { return t.move(p, q, flags) })
	}
	return t.move(p, q, flags)
}

func (t *coreTree) move(p, q string, flags uint) error {
	return t.in(p, func(dir *overlay.Node, name string) error {
		return t.in(q, func(to *overlay.Node, newName string) error {
			if err := t.renameOrder(p, q, flags); err != nil {
				return err
			}
			if path.Clean(p) == path.Clean(q) {
				return nil
			}
			return t.fs.Rename(&t.caller, dir, name, to, newName, uint32(flags))
		})
	})
}

// renameOrder is what the kernel refuses before it asks (fs/namei.c, do_renameat2), in its order.
func (t *coreTree) renameOrder(p, q string, flags uint) error {
	p, q = path.Clean(p), path.Clean(q)
	a, err := t.lstat(p)
	if err != nil {
		return err
	}
	_, errTo := t.lstat(q)
	switch {
	case flags&unix.RENAME_NOREPLACE != 0 && errTo == nil:
		return unix.EEXIST
	case flags&unix.RENAME_EXCHANGE != 0 && errTo != nil:
		return unix.ENOENT
	case strings.HasPrefix(q, p+"/"):
		if a.Mode&unix.S_IFMT == unix.S_IFDIR {
			return unix.EINVAL
		}
	case strings.HasPrefix(p, q+"/"):
		if flags&unix.RENAME_EXCHANGE != 0 {
			return unix.EINVAL
		}
		return unix.ENOTEMPTY
	}
	return nil
}

func (t *coreTree) link(p, q string) error {
	return t.at(p, func(n *overlay.Node, _ *overlay.Attr) error { return t.linkNode(n, q) })
}

func (t *coreTree) linkNode(n *overlay.Node, q string) error {
	return t.in(q, func(dir *overlay.Node, name string) error {
		var a overlay.Attr
		if err := t.absent(dir, name); err != nil {
			return err
		}
		if n.Mode() == unix.S_IFDIR {
			return unix.EPERM
		}
		return t.made(n, t.fs.Link(&t.caller, n, dir, name, &a))
	})
}

func (t *coreTree) symlink(target, p string) error {
	return t.in(p, func(dir *overlay.Node, name string) error {
		var a overlay.Attr
		if err := t.absent(dir, name); err != nil {
			return err
		}
		return t.made(t.fs.Symlink(&t.caller, dir, name, target, &a))
	})
}

func (t *coreTree) mknod(p string, mode uint32, dev int) error {
	return t.in(p, func(dir *overlay.Node, name string) error {
		var a overlay.Attr
		if err := t.absent(dir, name); err != nil {
			return err
		}
		major, minor := unix.Major(uint64(dev)), unix.Minor(uint64(dev))
		return t.made(t.fs.Mknod(&t.caller, dir, name, mode, minor&0xff|major<<8|minor&^0xff<<12, &a))
	})
}

// mayXattr is what the kernel refuses before it asks (fs/xattr.c, xattr_permission).
func mayXattr(n *overlay.Node, name string, read bool) error {
	if strings.HasPrefix(name, "user.") && n.Mode() != unix.S_IFREG && n.Mode() != unix.S_IFDIR {
		if read {
			return unix.ENODATA
		}
		return unix.EPERM
	}
	return nil
}

func (t *coreTree) setxattr(p, name string, val []byte, flags int) error {
	return t.at(p, func(n *overlay.Node, _ *overlay.Attr) error {
		if err := mayXattr(n, name, false); err != nil {
			return err
		}
		return t.fs.Setxattr(&t.caller, n, name, val, flags, false)
	})
}

func (t *coreTree) removexattr(p, name string) error {
	return t.at(p, func(n *overlay.Node, _ *overlay.Attr) error {
		if err := mayXattr(n, name, false); err != nil {
			return err
		}
		return t.fs.Removexattr(&t.caller, n, name)
	})
}

func (t *coreTree) getxattr(p, name string) (val []byte, err error) {
	err = t.at(p, func(n *overlay.Node, _ *overlay.Attr) error {
		if err := mayXattr(n, name, true); err != nil {
			return err
		}
		buf := make([]byte, 4096)
		size, err := t.fs.Getxattr(n, name, buf)
		val = buf[:max(size, 0)]
		return err
	})
	return val, err
}

func (t *coreTree) listxattr(p string) (names []string, err error) {
	err = t.at(p, func(n *overlay.Node, _ *overlay.Attr) error {
		buf := make([]byte, 16<<10)
		size, err := t.fs.Listxattr(n, buf)
		if size > 0 {
			names = strings.Split(strings.TrimSuffix(string(buf[:size]), "\x00"), "\x00")
		}
		return err
	})
	return names, err
}

func (t *coreTree) readlink(p string) (s string, err error) {
	err = t.at(p, func(n *overlay.Node, _ *overlay.Attr) (err error) {
		s, err = t.fs.Readlink(n)
		return err
	})
	return s, err
}
