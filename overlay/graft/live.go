package graft

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/overlay"
)

// at runs f with a descriptor (O_PATH as a rule) of a live node. When the source turns out
// to have gone away and come back, roots are tried once more.
func (u *Union) at(n *inode, f func(fd int) error) error {
	for try := 0; ; try++ {
		d, err := u.path(n)
		if err == nil {
			err = f(d.fd)
			d.done()
		}
		if err == nil {
			n.src.answered()
		}
		if err == nil || !isGone(err) || try > 0 {
			return err
		}
		if n.key.gen != n.src.gen.Load() && !n.top {
			return err
		}
		if n.desc.Load() == d && !n.top {
			n.desc.CompareAndSwap(d, nil)
			d.done()
		}
		if !n.src.revive() {
			return err
		}
	}
}

// path returns the descriptor of n, opened if need be. The caller calls done.
func (u *Union) path(n *inode) (*desc, error) {
	if d := n.desc.Load(); d != nil && d.hold() {
		return d, nil
	}
	n.opening.Lock()
	defer n.opening.Unlock()
	if d := n.desc.Load(); d != nil && d.hold() {
		return d, nil
	}
	if n.top {
		return nil, unix.ENOTCONN // closed for good
	}
	t := &u.nodes
	t.mu.Lock()
	parent, name := n.parent, n.name
	t.mu.Unlock()
	if parent == nil || n.key.gen != n.src.gen.Load() {
		return nil, unix.ESTALE
	}
	p, err := u.path(parent)
	if err != nil {
		return nil, err
	}
	fd, err := layer.Open(p.fd, name, unix.O_PATH, 0)
	p.done()
	if err != nil {
		if err == unix.ENOENT || err == unix.ENOTDIR {
			err = unix.ESTALE
		}
		return nil, err
	}
	var a overlay.Attr
	err = layer.Stat(fd, "", &a)
	if err == nil && n.src.key(n.key.gen, &a) != n.key {
		err = unix.ESTALE // moved or replaced on the host: whoever wants it looks it up
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	d := newDesc(fd)
	d.hold()
	n.desc.Store(d)
	t.opened(n)
	return d, nil
}

// find returns the live node of a name, with one more reference, and fills a.
func (u *Union) find(p *inode, name string, a *overlay.Attr) (*inode, error) {
	if p.typ != unix.S_IFDIR {
		return nil, unix.ENOTDIR
	}
	if len(name) > unix.NAME_MAX {
		return nil, unix.ENAMETOOLONG
	}
	var n *inode
	err := u.at(p, func(fd int) (err error) {
		if err = layer.Stat(fd, name, a); err != nil {
			return err
		}
		n, err = u.adopt(p, fd, name, a)
		return err
	})
	return n, err
}

// adopt returns the node of the object that a describes, name in the directory fd.
func (u *Union) adopt(p *inode, fd int, name string, a *overlay.Attr) (*inode, error) {
	gen := p.src.gen.Load()
	if n := u.known(p, name, p.src.key(gen, a)); n != nil {
		u.show(n, a)
		return n, nil
	}
	own, err := layer.Open(fd, name, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	if err := layer.Stat(own, "", a); err != nil {
		unix.Close(own)
		return nil, err
	}
	return u.enter(p, name, own, gen, a), nil
}

// known returns the live node of a key, with one more reference and its place noted.
func (u *Union) known(p *inode, name string, k key) *inode {
	t := &u.nodes
	t.mu.Lock()
	n := p.src.nodes[k]
	var old *inode
	if n != nil {
		n.refs++
		old = t.place(n, p, name)
	}
	t.mu.Unlock()
	if old != nil {
		t.unref(old, 1)
	}
	return n
}

// enter makes the node of an open descriptor, unless somebody else was faster. With no name
// it is a file that has none.
func (u *Union) enter(p *inode, name string, own int, gen uint32, a *overlay.Attr) *inode {
	k := p.src.key(gen, a)
	if name != "" {
		if n := u.known(p, name, k); n != nil {
			unix.Close(own)
			u.show(n, a)
			return n
		}
	}
	n := &inode{typ: uint32(a.Mode) & unix.S_IFMT, src: p.src, key: k, ino: u.viewIno(a)}
	n.desc.Store(newDesc(own))
	t := &u.nodes
	t.mu.Lock()
	if other := p.src.nodes[k]; other != nil {
		other.refs++
		old := t.place(other, p, name)
		t.mu.Unlock()
		if old != nil {
			t.unref(old, 1)
		}
		n.bury()
		u.show(other, a)
		return other
	}
	t.insert(n)
	p.src.nodes[k] = n
	if name != "" {
		t.place(n, p, name)
	}
	t.mu.Unlock()
	if name != "" {
		t.opened(n)
	}
	u.show(n, a)
	return n
}

// show makes the host's attributes the view's.
func (u *Union) show(n *inode, a *overlay.Attr) { a.Ino = n.ino }

// getattr fills a with the attributes of a live node. A file that is open and has lost its name
// still has its descriptors.
func (u *Union) getattr(n *inode, a *overlay.Attr) error {
	err := u.at(n, func(fd int) error { return layer.Stat(fd, "", a) })
	if err == nil {
		u.show(n, a)
	}
	return err
}

// as runs f as the caller: what f makes belongs to them.
func (u *Union) as(c *overlay.Caller, f func() error) error {
	if !u.priv || c == nil || c.UID == 0 && c.GID == 0 {
		return f()
	}
	return layer.WithCreds(c.UID, c.GID, f)
}

// may runs f as this process, and, where it is somebody else who decides (a server that
// does not trust root), as the caller if that was refused.
func (u *Union) may(c *overlay.Caller, n *inode, f func() error) error {
	err := f()
	if (err == unix.EACCES || err == unix.EPERM) && n.src.remote && c != nil && c.UID != 0 {
		err = u.as(c, f)
	}
	return err
}

// viewIno numbers an inode of the host. The filesystems grafts come from have the indexes
// from 126 down, see overlay/ino.go, so that the same file has the same number through
// whatever graft.
func (u *Union) viewIno(a *overlay.Attr) uint64 {
	dev := unix.Mkdev(a.Dev_major, a.Dev_minor)
	u.devMu.Lock()
	defer u.devMu.Unlock()
	i, ok := u.devs[dev]
	if !ok {
		i = uint8(max(126-len(u.devs), 64))
		u.devs[dev] = i
	}
	return overlay.PackIno(i, a.Ino)
}
