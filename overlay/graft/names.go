package graft

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/overlay"
)

// Lookup finds name in the directory parent, fills a, and returns the node with one more
// reference.
func (u *Union) Lookup(c *overlay.Caller, parent Node, name string, a *overlay.Attr) (Node, error) {
	if p := u.point(parent, name); p != nil {
		// The kernel keeps the parent locked meanwhile: a source that does not answer would
		// keep all others from changing it. It asks for the attributes before it uses them,
		// see Keep.
		switch g := p.root.g; {
		case g.src == nil || g.src.private:
		case g.typ == unix.S_IFDIR:
			*a = g.src.first
			return p.root, nil
		case g.src.remote:
			return p.root, u.glance(g.src, a)
		}
		return p.root, u.Getattr(p.root, a)
	}
	parent = parent.over()
	switch {
	case parent == Node{}:
		return Node{}, unix.ENOENT
	case parent.g == nil:
		o, err := u.fs.Lookup(c, parent.o, name, a)
		return wrap(o, err)
	}
	g, err := u.find(parent.g, name, a)
	return wrapLive(g, err)
}

func wrap(o *overlay.Node, err error) (Node, error) {
	if err != nil {
		return Node{}, err
	}
	return Node{o: o}, nil
}

func wrapLive(g *inode, err error) (Node, error) {
	if err != nil {
		return Node{}, err
	}
	return Node{g: g}, nil
}

// room returns the directory in which name is to be made: EEXIST where a graft is.
func (u *Union) room(parent Node, name string) (Node, error) {
	if !parent.isDir() {
		return Node{}, unix.ENOTDIR
	}
	if u.point(parent, name) != nil {
		return Node{}, unix.EEXIST
	}
	return u.real(parent)
}

// Mknod makes a file of any type but directory and symbolic link.
func (u *Union) Mknod(c *overlay.Caller, parent Node, name string, mode, rdev uint32, a *overlay.Attr) (Node, error) {
	parent, err := u.room(parent, name)
	if err != nil {
		return Node{}, err
	}
	if parent.g == nil {
		return wrap(u.fs.Mknod(c, parent.o, name, mode, rdev, a))
	}
	return wrapLive(u.mknod(c, parent.g, name, mode, rdev, a))
}

// Mkdir makes a directory.
func (u *Union) Mkdir(c *overlay.Caller, parent Node, name string, mode uint32, a *overlay.Attr) (Node, error) {
	parent, err := u.room(parent, name)
	if err != nil {
		return Node{}, err
	}
	if parent.g == nil {
		return wrap(u.fs.Mkdir(c, parent.o, name, mode, a))
	}
	return wrapLive(u.mkdir(c, parent.g, name, mode, a))
}

// Symlink makes a symbolic link to target.
func (u *Union) Symlink(c *overlay.Caller, parent Node, name, target string, a *overlay.Attr) (Node, error) {
	parent, err := u.room(parent, name)
	if err != nil {
		return Node{}, err
	}
	if parent.g == nil {
		return wrap(u.fs.Symlink(c, parent.o, name, target, a))
	}
	return wrapLive(u.create(c, parent.g, name, "symbolic links", a, func(fd int) error {
		return layer.Symlink(target, fd, name)
	}))
}

// Tmpfile makes a file without a name, that Link may give one.
func (u *Union) Tmpfile(c *overlay.Caller, parent Node, mode uint32, a *overlay.Attr) (Node, error) {
	parent, err := u.real(parent)
	if err != nil {
		return Node{}, err
	}
	if parent.g == nil {
		return wrap(u.fs.Tmpfile(c, parent.o, mode, a))
	}
	return wrapLive(u.tmpfile(c, parent.g, mode, a))
}

// Link gives n a further name. It adds a reference to n.
func (u *Union) Link(c *overlay.Caller, n Node, parent Node, name string, a *overlay.Attr) error {
	if !parent.isDir() {
		return unix.ENOTDIR
	}
	if u.point(parent, name) != nil {
		return unix.EEXIST
	}
	if over := parent.over(); over != (Node{}) {
		parent = over
	} else if n.g == nil || n.g.syn != nil {
		var err error
		if parent, err = u.real(parent); err != nil {
			return err
		}
	}
	if u.fixed(parent) {
		return errReadOnly
	}
	if !sameTree(n, parent) || n.g != nil && n.g.top {
		return unix.EXDEV
	}
	if n.g == nil {
		return u.fs.Link(c, n.o, parent.o, name, a)
	}
	return u.link(n.g, parent.g, name, a)
}

// sameTree says whether two nodes are of the overlay, or of one source.
func sameTree(a, b Node) bool {
	if a.g == nil || b.g == nil {
		return a.g == nil && b.g == nil
	}
	return a.g.src == b.g.src && a.g.src != nil
}

// Unlink removes a name that is not a directory.
func (u *Union) Unlink(c *overlay.Caller, parent Node, name string) error {
	if u.point(parent, name) != nil {
		return unix.EBUSY
	}
	parent = parent.over()
	switch {
	case parent == Node{}:
		return unix.ENOENT
	case u.fixed(parent):
		return errReadOnly
	case parent.g == nil:
		return u.fs.Unlink(c, parent.o, name)
	}
	return u.remove(c, parent.g, name, layer.Unlink)
}

// Rmdir removes an empty directory. One that is there only for a graft in it is not empty.
func (u *Union) Rmdir(c *overlay.Caller, parent Node, name string) error {
	if p := u.point(parent, name); p != nil && p.root.g.syn != nil {
		return unix.ENOTEMPTY
	} else if p != nil {
		return unix.EBUSY
	}
	parent = parent.over()
	if parent == (Node{}) {
		return unix.ENOENT
	}
	if u.fixed(parent) {
		return errReadOnly
	}
	if err := u.free(c, parent, name); err != nil {
		return err
	}
	if parent.g == nil {
		return u.fs.Rmdir(c, parent.o, name)
	}
	return u.remove(c, parent.g, name, layer.Rmdir)
}

// free reports ENOTEMPTY, as the kernel would of a directory with a mount point in it, if something is grafted into the
// directory called name.
func (u *Union) free(c *overlay.Caller, parent Node, name string) error {
	if len(u.points) == 0 {
		return nil
	}
	var a overlay.Attr
	var n Node
	var err error
	if parent.g == nil {
		n, err = wrap(u.fs.Lookup(c, parent.o, name, &a))
	} else {
		n, err = wrapLive(u.find(parent.g, name, &a))
	}
	if err != nil {
		return nil // whoever acts on the name finds out
	}
	defer u.forget(n)
	if u.holds(n) {
		return unix.ENOTEMPTY
	}
	return nil
}

// Rename is renameat2(2). The kernel's order of refusals: another mount, then a mount point.
func (u *Union) Rename(c *overlay.Caller, parent Node, name string, newParent Node, newName string, flags uint32) error {
	if !parent.isDir() || !newParent.isDir() {
		return unix.ENOTDIR
	}
	old, to := parent.over(), newParent.over()
	point, newPoint := u.point(parent, name), u.point(newParent, newName)
	switch {
	case old == Node{} && point == nil:
		return unix.ENOENT
	case point != nil || newPoint != nil:
		if old != (Node{}) && to != (Node{}) && !sameTree(old, to) {
			return unix.EXDEV
		}
		return unix.EBUSY
	}
	if to == (Node{}) {
		var err error
		if to, err = u.real(newParent); err != nil {
			return err
		}
	}
	if !sameTree(old, to) {
		return unix.EXDEV
	}
	if u.fixed(old) {
		return errReadOnly
	}
	if flags&unix.RENAME_EXCHANGE == 0 {
		if err := u.free(c, to, newName); err != nil {
			return err
		}
	}
	if old.g == nil {
		return u.fs.Rename(c, old.o, name, to.o, newName, flags)
	}
	return u.rename(c, old.g, name, to.g, newName, flags)
}

// Readlink returns the target of a symbolic link.
func (u *Union) Readlink(n Node) (string, error) {
	if n.g == nil {
		return u.fs.Readlink(n.o)
	}
	if n.g.typ != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	var target string
	err := u.at(n.g, func(fd int) (err error) {
		target, err = layer.Readlink(fd, "")
		return err
	})
	return target, err
}

// MkdirAll makes a directory, and those above it that are missing, also where the overlay is read-only for everybody
// else. To be called before the view is served.
func (u *Union) MkdirAll(path string, mode uint32) error {
	frozen := u.frozen
	u.frozen = u.fs.ReadOnly()
	defer func() { u.frozen = frozen }()
	w, err := u.walk(path)
	if err != nil {
		return err
	}
	defer func() { w.release(u) }()
	for _, name := range w.missing {
		var a overlay.Attr
		n, err := u.Mkdir(u.self(), w.last(), name, mode, &a)
		if err != nil {
			return err
		}
		w.chain = append(w.chain, step{n, name})
	}
	return nil
}
