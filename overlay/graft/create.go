package graft

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/overlay"
)

// What changes names in a live directory. The host's own calls do the work, one each, so
// that what the view does is as atomic as on the host.

// create makes an object called name in a live directory and returns its node.
func (u *Union) create(c *overlay.Caller, p *inode, name, feature string, a *overlay.Attr, make func(fd int) error) (*inode, error) {
	var n *inode
	err := u.at(p, func(fd int) error {
		if err := u.as(c, func() error { return make(fd) }); err != nil {
			if feature != "" {
				p.src.lacks(feature, err, fd)
			}
			return err
		}
		if err := layer.Stat(fd, name, a); err != nil {
			return err
		}
		var err error
		n, err = u.adopt(p, fd, name, a)
		return err
	})
	return n, err
}

// newMode applies the caller's umask, which a default access list of the directory replaces.
func (u *Union) newMode(c *overlay.Caller, p *inode, mode uint32) uint32 {
	if c == nil || c.Umask == 0 {
		return mode
	}
	if !p.src.noACL.Load() {
		size := 0
		err := u.at(p, func(fd int) (err error) {
			size, err = layer.Getxattr(fd, "", "system.posix_acl_default", nil)
			return err
		})
		if err == nil && size > 0 {
			return mode
		}
		if err == unix.EOPNOTSUPP {
			p.src.noACL.Store(true)
		}
	}
	return mode &^ (c.Umask & 0o777)
}

func (u *Union) mkdir(c *overlay.Caller, p *inode, name string, mode uint32, a *overlay.Attr) (*inode, error) {
	perm := u.newMode(c, p, mode&0o7777)
	return u.create(c, p, name, "", a, func(fd int) error {
		if err := layer.Mkdir(fd, name, perm); err != nil {
			return err
		}
		if perm&unix.S_ISUID == 0 { // mkdir(2) takes the sticky bit and permissions only
			return nil
		}
		dir, err := layer.Open(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return layer.Chmod(fd, name, perm)
		}
		defer unix.Close(dir)
		return addSetID(dir, perm)
	})
}

// addSetID gives what was just made the bits beside the permissions, which a default access list may have changed.
func addSetID(fd int, perm uint32) error {
	if perm&0o7000 == 0 {
		return nil
	}
	var a overlay.Attr
	if err := layer.Stat(fd, "", &a); err != nil {
		return err
	}
	if want := uint32(a.Mode)&0o7777 | perm&0o7000; want != uint32(a.Mode)&0o7777 {
		return unix.Fchmod(fd, want)
	}
	return nil
}

func (u *Union) mknod(c *overlay.Caller, p *inode, name string, mode, rdev uint32, a *overlay.Attr) (*inode, error) {
	typ := mode & unix.S_IFMT
	perm := u.newMode(c, p, mode&0o7777)
	if typ != 0 && typ != unix.S_IFREG {
		dev := int(unix.Mkdev((rdev&0xfff00)>>8, rdev&0xff|(rdev>>12)&0xfff00))
		return u.create(c, p, name, "special files", a, func(fd int) error {
			return layer.Mknod(fd, name, typ|perm, dev)
		})
	}
	made := -1
	n, err := u.create(c, p, name, "", a, func(fd int) error {
		f, err := layer.Open(fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, perm)
		if err != nil {
			return err
		}
		made = f
		return addSetID(f, perm) // open(2) leaves set-id bits out on some filesystems
	})
	if err != nil {
		if made >= 0 {
			unix.Close(made)
		}
		return nil, err
	}
	u.give(n, made)
	return n, nil
}

// give keeps the descriptor of a file just made for the open that follows: its mode may not let
// even its owner open it again.
func (u *Union) give(n *inode, fd int) {
	if u.quiet {
		layer.Quiet(fd)
	}
	n.mu.Lock()
	drop(&n.stash)
	n.stash = newDesc(fd)
	n.mu.Unlock()
}

func (u *Union) tmpfile(c *overlay.Caller, p *inode, mode uint32, a *overlay.Attr) (*inode, error) {
	perm := u.newMode(c, p, mode&0o7777)
	var n *inode
	err := u.at(p, func(dir int) error {
		fd := -1
		err := u.as(c, func() (err error) {
			fd, err = layer.Open(dir, "", unix.O_TMPFILE|unix.O_RDWR, perm)
			return err
		})
		if err != nil {
			p.src.lacks("files without a name (O_TMPFILE)", err)
			return err
		}
		own, err := layer.Open(fd, "", unix.O_PATH, 0)
		if err == nil {
			if err = layer.Stat(own, "", a); err != nil {
				unix.Close(own)
			}
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		n = u.enter(p, "", own, p.src.gen.Load(), a)
		u.give(n, fd)
		return nil
	})
	return n, err
}

func (u *Union) link(n, p *inode, name string, a *overlay.Attr) error {
	err := u.at(p, func(fd int) error {
		return u.at(n, func(own int) error {
			err := layer.LinkFD(own, fd, name)
			p.src.lacks("hard links", err, fd, own)
			return err
		})
	})
	if err != nil {
		return err
	}
	u.nodes.mu.Lock()
	n.refs++
	old := u.nodes.place(n, p, name)
	u.nodes.mu.Unlock()
	if old != nil {
		u.nodes.unref(old, 1)
	}
	if err := u.getattr(n, a); err != nil {
		u.nodes.unref(n, 1)
		return err
	}
	return nil
}

func (u *Union) remove(c *overlay.Caller, p *inode, name string, f func(fd int, name string) error) error {
	return u.at(p, func(fd int) error {
		return u.may(c, p, func() error { return f(fd, name) })
	})
}

func (u *Union) rename(c *overlay.Caller, p *inode, name string, q *inode, newName string, flags uint32) error {
	return u.at(p, func(fd int) error {
		return u.at(q, func(newFD int) error {
			err := u.may(c, p, func() error { return layer.Rename(fd, name, newFD, newName, uint(flags)) })
			if err != nil {
				if flags != 0 {
					p.src.lacks("renameat2 flags", err)
				}
				return err
			}
			u.seen(q, newFD, newName)
			if flags&unix.RENAME_EXCHANGE != 0 {
				u.seen(p, fd, name)
			}
			return nil
		})
	})
}

// seen notes the place of a node that is known.
func (u *Union) seen(p *inode, fd int, name string) {
	var a overlay.Attr
	if layer.Stat(fd, name, &a) != nil {
		return
	}
	if n := u.known(p, name, p.src.key(p.src.gen.Load(), &a)); n != nil {
		u.nodes.unref(n, 1)
	}
}
