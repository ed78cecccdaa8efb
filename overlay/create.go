package overlay

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// maker makes one object under a name of a directory descriptor.
type maker func(fd int, name string) error

// create makes a new object in parent and returns its node. typ is what make makes.
// (kernel: ovl_create_object.)
func (fs *FS) create(c *Caller, parent *Node, name string, typ uint32, a *Attr, make maker) (*Node, error) {
	if err := fs.mayChange(parent, name); err != nil {
		return nil, err
	}
	if err := fs.mayAdd(parent); err != nil {
		return nil, err
	}
	up, err := fs.upDir(c, parent)
	if err != nil {
		return nil, err
	}
	d := parent.d
	d.names.Lock()
	defer d.names.Unlock()
	if fs.removed(parent) {
		return nil, unix.ENOENT
	}
	white, err := fs.freeName(parent, name)
	if err != nil {
		return nil, err
	}
	fd, err := up.FD()
	if err != nil {
		return nil, err
	}
	defer up.Done()
	owned := func(at int, name string) error {
		err := fs.as(c, func() error { return make(at, name) })
		if err != nil {
			return err
		}
		if err = fs.own(c, fd, at, name); err != nil {
			_ = layer.RemoveAll(at, name) // it would be somebody else's
		}
		return err
	}
	if !white {
		err = owned(fd, name)
		if err == unix.EEXIST && !d.merged() && fs.whiteoutIn(d, fd, name) {
			white = true
		} else if err != nil {
			return nil, err
		}
	}
	if white {
		if err := fs.overWhiteout(up, fd, name, typ, owned); err != nil {
			return nil, err
		}
	} else if typ == unix.S_IFDIR && d.merged() {
		// What may appear in the lower one day does not show through (kernel:
		// ovl_create_upper).
		if err := fs.setMark(fd, name, "opaque", []byte("y")); err != nil && !noSupport(err) {
			_ = layer.Rmdir(fd, name)
			return nil, err
		}
	}
	return fs.born(parent, up, fd, name, a)
}

// mayChange refuses what no directory operation may do.
func (fs *FS) mayChange(parent *Node, name string) error {
	switch {
	case parent.d == nil:
		return unix.ENOTDIR
	case fs.upper == nil:
		return errReadOnly
	case len(name) > unix.NAME_MAX:
		return unix.ENAMETOOLONG
	case reserved(name):
		return unix.EINVAL
	}
	return nil
}

func (fs *FS) removed(n *Node) bool { return n != fs.root && fs.unlinked(n) }

// freeName reports EEXIST if the view has the name, and whether the upper has a
// whiteout there. For a directory of the upper alone nothing is asked: making the
// object will tell.
func (fs *FS) freeName(parent *Node, name string) (white bool, err error) {
	d := parent.d
	if fs.nodes.peek(parent, name) != nil {
		return false, unix.EEXIST
	}
	if !d.merged() {
		return false, nil
	}
	var f found
	switch err := fs.find(parent, name, &f); {
	case err == nil:
		return false, unix.EEXIST
	case !errors.Is(err, unix.ENOENT):
		return false, err
	}
	u := d.upper.Load()
	fd, err := u.FD()
	if err != nil {
		return false, err
	}
	defer u.Done()
	return fs.whiteoutIn(d, fd, name), nil
}

func (fs *FS) whiteoutIn(d *directory, fd int, name string) bool {
	var st Attr
	return layer.Stat(fd, name, &st) == nil && fs.isWhiteout(d, fd, name, &st)
}

// born returns the node of an object just made, with the attributes it has.
func (fs *FS) born(parent *Node, up *layer.Dir, fd int, name string, a *Attr) (*Node, error) {
	if err := layer.Stat(fd, name, a); err != nil {
		return nil, err
	}
	typ := uint32(a.Mode) & unix.S_IFMT
	n := &Node{typ: typ, parent: parent, name: name, refs: 1, dir: up, real: name, anchor: -1}
	n.ino.Store(fs.viewIno(fs.upper, a.Ino))
	n.upper.Store(true)
	n.guard.Store(uint32(guardKnown))
	if typ == unix.S_IFDIR {
		n.d = &directory{children: map[string]*Node{}}
		n.d.upper.Store(up.Child(name))
	}
	fs.indexAdd(parent, name, a.Ino, uint8(typ>>12))
	n = fs.enter(n, nil, nil)
	fs.present(n, a)
	return n, nil
}

// overWhiteout builds the object in the work directory and puts it in the place of a
// whiteout in one step, so that a crash leaves one or the other (kernel:
// ovl_create_over_whiteout).
func (fs *FS) overWhiteout(up *layer.Dir, fd int, name string, typ uint32, make maker) error {
	stage, err := fs.stage.FD()
	if err != nil {
		return err
	}
	defer fs.stage.Done()
	room, closeRoom, err := fs.room(up, fd, stage)
	if err != nil {
		return err
	}
	defer closeRoom()
	temp := fs.tempName()
	if err := make(room, temp); err != nil {
		return err
	}
	undo := func() { _ = layer.RemoveAll(room, temp) }
	if typ == unix.S_IFDIR {
		if err := fs.setOpaque(room, temp); err != nil {
			undo()
			return err
		}
		if err := layer.Rename(room, temp, fd, name, unix.RENAME_EXCHANGE); err != nil {
			undo()
			return err
		}
		_ = layer.Unlink(room, temp) // the whiteout
		return nil
	}
	if err := layer.Rename(room, temp, fd, name, 0); err != nil {
		undo()
		return err
	}
	return nil
}

// room returns a directory of the work directory to make an object in that inherits what the
// directory dir gives to new objects: group and default access list.
func (fs *FS) room(up *layer.Dir, dir, stage int) (int, func(), error) {
	var st Attr
	if err := layer.Stat(dir, "", &st); err != nil {
		return -1, nil, err
	}
	acl, err := layer.GetxattrAll(dir, "", aclDefault)
	if err != nil {
		acl = nil
	}
	if st.Mode&unix.S_ISGID == 0 && len(acl) == 0 {
		return stage, func() {}, nil
	}
	temp := fs.tempName()
	if err := layer.Mkdir(stage, temp, 0o700); err != nil {
		return -1, nil, err
	}
	fd, err := layer.Open(stage, temp, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil && st.Mode&unix.S_ISGID != 0 {
		if err = layer.Chown(fd, "", -1, int(st.Gid)); err == nil {
			err = layer.Chmod(fd, "", 0o700|unix.S_ISGID)
		}
	}
	if err == nil && len(acl) > 0 {
		err = layer.Setxattr(fd, "", aclDefault, acl, 0)
	}
	done := func() {
		if fd >= 0 {
			unix.Close(fd)
		}
		_ = layer.Rmdir(stage, temp)
	}
	if err != nil {
		done()
		return -1, nil, err
	}
	return fd, done, nil
}

// tempName returns a fresh name in the work directory; "#" is how the kernel's begin too.
func (fs *FS) tempName() string {
	return "#p" + strconv.FormatUint(fs.temp.Add(1), 16)
}

// newMode applies the caller's umask, which a default access list replaces.
func (fs *FS) newMode(c *Caller, parent *Node, mode uint32) uint32 {
	if c == nil || c.Umask == 0 || fs.hasDefaultACL(parent) {
		return mode
	}
	return mode &^ (c.Umask & 0o777)
}

// hasDefaultACL says whether new objects of a directory inherit an access list. It is
// asked once per directory.
func (fs *FS) hasDefaultACL(n *Node) bool {
	known := n.d.defaultACL.Load()
	switch known & aclStates {
	case aclNone:
		return false
	case aclPresent:
		return true
	}
	if fs.cfg.NoACL {
		return false
	}
	state := uint32(aclNone)
	n.mu.RLock()
	if p, err := n.place(); err == nil {
		if size, err := layer.Getxattr(p.fd, p.name, aclDefault, nil); err == nil && size > 0 {
			state = aclPresent
		}
		p.done()
	}
	n.mu.RUnlock()
	fs.crash("access list read")
	n.d.defaultACL.CompareAndSwap(known, known|state)
	return state == aclPresent
}

// Mknod makes a file of any type but directory and symbolic link. A character
// device 0:0 is EPERM, as in the kernel: it would be a whiteout.
func (fs *FS) Mknod(c *Caller, parent *Node, name string, mode, rdev uint32, a *Attr) (*Node, error) {
	if parent.d == nil {
		return nil, unix.ENOTDIR
	}
	typ := mode & unix.S_IFMT
	if typ == 0 {
		typ = unix.S_IFREG
	}
	if typ == unix.S_IFCHR && rdev == 0 {
		return nil, unix.EPERM
	}
	perm := fs.newMode(c, parent, mode&0o7777)
	if typ != unix.S_IFREG {
		dev := decodeDev(rdev)
		return fs.create(c, parent, name, typ, a, func(fd int, name string) error {
			return layer.Mknod(fd, name, typ|perm, dev)
		})
	}
	made := -1
	n, err := fs.create(c, parent, name, typ, a, func(fd int, name string) error {
		f, err := layer.Open(fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, perm)
		if err == nil {
			err = keepSetID(f, perm)
		}
		made = f
		return err
	})
	if err != nil {
		if made >= 0 {
			unix.Close(made)
		}
		return nil, err
	}
	// A write follows as a rule.
	n.mu.Lock()
	fs.give(n, made, nil)
	n.mu.Unlock()
	return n, nil
}

// keepSetID gives a new file the set-id bits that open(2) left out, as it does on some filesystems. The permissions
// stay what the directory's default access list has made of them.
func keepSetID(fd int, perm uint32) error {
	if perm&0o7000 == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	mode := st.Mode & 0o7777
	if mode|perm&0o7000 == mode {
		return nil
	}
	return unix.Fchmod(fd, mode|perm&0o7000)
}

// decodeDev is new_decode_dev of linux/kdev_t.h, and what mknod(2) wants.
func decodeDev(dev uint32) int {
	major := (dev & 0xfff00) >> 8
	minor := dev&0xff | (dev>>12)&0xfff00
	return int(unix.Mkdev(major, minor))
}

// Mkdir makes a directory.
func (fs *FS) Mkdir(c *Caller, parent *Node, name string, mode uint32, a *Attr) (*Node, error) {
	if parent.d == nil {
		return nil, unix.ENOTDIR
	}
	perm := fs.newMode(c, parent, mode&0o7777)
	return fs.create(c, parent, name, unix.S_IFDIR, a, func(fd int, name string) error {
		return layer.Mkdir(fd, name, perm) // its set-id bits are no matter of mkdir(2)
	})
}

// Symlink makes a symbolic link to target.
func (fs *FS) Symlink(c *Caller, parent *Node, name, target string, a *Attr) (*Node, error) {
	if len(target) >= unix.PathMax {
		return nil, unix.ENAMETOOLONG
	}
	return fs.create(c, parent, name, unix.S_IFLNK, a, func(fd int, name string) error {
		return layer.Symlink(target, fd, name)
	})
}

// Tmpfile makes a file without a name, that Link may give one.
func (fs *FS) Tmpfile(c *Caller, parent *Node, mode uint32, a *Attr) (*Node, error) {
	if parent.d == nil {
		return nil, unix.ENOTDIR
	}
	if fs.upper == nil {
		return nil, errReadOnly
	}
	if err := fs.mayAdd(parent); err != nil {
		return nil, err
	}
	up, err := fs.upDir(c, parent)
	if err != nil {
		return nil, err
	}
	dir, err := up.FD()
	if err != nil {
		return nil, err
	}
	defer up.Done()
	perm := fs.newMode(c, parent, mode&0o7777)
	fd := -1
	err = fs.as(c, func() error {
		fd, err = layer.Open(dir, "", unix.O_TMPFILE|unix.O_RDWR, perm)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := fs.own(c, dir, fd, ""); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := layer.Stat(fd, "", a); err != nil {
		unix.Close(fd)
		return nil, err
	}
	n := &Node{typ: unix.S_IFREG, refs: 1, anchor: int32(fd)}
	n.ino.Store(fs.viewIno(fs.upper, a.Ino))
	n.upper.Store(true)
	fs.nodes.mu.Lock()
	fs.nodes.insert(n)
	fs.nodes.mu.Unlock()
	fs.present(n, a)
	return n, nil
}

// Readlink returns the target of a symbolic link.
func (fs *FS) Readlink(n *Node) (string, error) {
	if n.typ != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	p, err := n.place()
	if err != nil {
		return "", err
	}
	defer p.done()
	return layer.Readlink(p.fd, p.name)
}
