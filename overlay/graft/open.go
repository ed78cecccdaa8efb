package graft

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/overlay"
)

// An open live file has up to three descriptors, shared by all its opens: one for reading,
// one for writing (and reading, where the mode lets us), one that appends, so that it is the host
// that says where the end is. That for writing goes with the last open for writing: a file open
// for writing cannot be executed on the host.

// OpenFile implements fusefs.Sharer.
func (u *Union) OpenFile(c *overlay.Caller, n Node, flags uint32) (direct bool, err error) {
	write := flags&unix.O_ACCMODE != unix.O_RDONLY
	if write && u.fixed(n) {
		return false, errReadOnly
	}
	if n.g == nil || n.g.typ != unix.S_IFREG {
		return false, nil
	}
	g := n.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.stash; s != nil { // made by this open
		g.stash = nil
		if write && g.w == nil {
			g.w = s
		} else if g.r == nil {
			g.r = s
		} else {
			s.done()
		}
	}
	switch flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		if g.r == nil {
			g.r, err = u.openData(c, g, unix.O_RDONLY)
		}
	case unix.O_RDWR:
		if g.w == nil {
			g.w, err = u.openData(c, g, unix.O_RDWR)
		}
	default:
		if g.w == nil {
			if g.w, err = u.openData(c, g, unix.O_RDWR); err == unix.EACCES {
				g.w, err = u.openData(c, g, unix.O_WRONLY)
			}
		}
	}
	if err == unix.EPERM && write && flags&unix.O_APPEND != 0 && flags&unix.O_TRUNC == 0 {
		// A file that is append-only lets itself be opened for that alone.
		if err = nil; g.a == nil {
			g.a, err = u.openData(c, g, unix.O_WRONLY|unix.O_APPEND)
		}
	}
	if err != nil {
		return false, err
	}
	if write {
		g.writers++
	} else {
		g.readers++
	}
	return g.src.direct.Load(), nil
}

// CloseFile implements fusefs.Sharer.
func (u *Union) CloseFile(n Node, flags uint32) {
	if n.g == nil || n.g.typ != unix.S_IFREG {
		return
	}
	g := n.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		g.writers = max(g.writers-1, 0)
	} else {
		g.readers = max(g.readers-1, 0)
	}
	if g.writers == 0 {
		drop(&g.w)
		drop(&g.a)
	}
	if g.writers+g.readers == 0 {
		drop(&g.r)
	}
}

// openData opens the file of g. g.mu is held.
func (u *Union) openData(c *overlay.Caller, g *inode, flags int) (*desc, error) {
	flags |= unix.O_NONBLOCK
	quiet, open := 0, layer.Open
	if u.quiet {
		open = layer.OpenNoAtime
	}
	if u.quiet || g.src.spec.ReadOnly {
		quiet = unix.O_NOATIME
	}
	var d *desc
	err := u.at(g, func(own int) error {
		return u.may(c, g, func() error {
			fd, err := open(own, "", flags|quiet, 0)
			if err == unix.EPERM && quiet != 0 {
				fd, err = layer.Open(own, "", flags, 0)
			}
			if err == nil {
				d = newDesc(fd)
			}
			return err
		})
	})
	return d, err
}

// reader returns a descriptor to read g through. The caller calls done.
func (u *Union) reader(g *inode) (*desc, error) {
	if g.typ != unix.S_IFREG {
		return nil, unix.EINVAL
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range []*desc{g.r, g.w} {
		if d != nil && d.hold() {
			return d, nil
		}
	}
	return u.openData(nil, g, unix.O_RDONLY)
}

// writer returns a descriptor to write g through. The caller calls done.
func (u *Union) writer(c *overlay.Caller, g *inode) (*desc, error) {
	if g.typ != unix.S_IFREG {
		return nil, unix.EINVAL
	}
	if g.src.spec.ReadOnly {
		return nil, errReadOnly
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range []*desc{g.w, g.stash} {
		if d != nil && d.hold() {
			return d, nil
		}
	}
	return u.openData(c, g, unix.O_WRONLY)
}

// appender returns a descriptor that appends to g. The caller calls done.
func (u *Union) appender(c *overlay.Caller, g *inode) (*desc, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.a == nil {
		d, err := u.openData(c, g, unix.O_WRONLY|unix.O_APPEND)
		if err == unix.EACCES && g.w != nil {
			return nil, nil // open, but its mode keeps us out since: WriteFile finds the end itself
		}
		if err != nil {
			return nil, err
		}
		g.a = d
	}
	g.a.hold()
	return g.a, nil
}

// Backing returns a descriptor for the kernel to do I/O through; see fusefs.
func (u *Union) Backing(c *overlay.Caller, n Node, write bool) (fd int, isUpper bool, release func(), err error) {
	if n.g == nil {
		return u.fs.Backing(c, n.o, write)
	}
	// The kernel opens the file again for each open of the view, with its flags: this
	// descriptor must only name it. One for writing would keep it from being executed.
	d, err := u.reader(n.g)
	if err != nil {
		return -1, false, nil, err
	}
	own, err := layer.Open(d.fd, "", unix.O_RDONLY, 0)
	if err != nil {
		own, err = unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 3)
	}
	d.done()
	if err != nil {
		return -1, false, nil, err
	}
	return own, true, func() { unix.Close(own) }, nil
}

// FlushFile implements fusefs.Sharer: what close(2) of the file would say on the host (a network
// filesystem writes back then, and may have no room).
func (u *Union) FlushFile(n Node) error {
	if n.g == nil || n.g.typ != unix.S_IFREG || !n.g.src.remote {
		return nil
	}
	g := n.g
	g.mu.Lock()
	var open []*desc
	for _, d := range []*desc{g.w, g.a} {
		if d != nil && d.hold() {
			open = append(open, d)
		}
	}
	g.mu.Unlock()
	var err error
	for _, d := range open {
		fd, e := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 3)
		if e == nil {
			if e = unix.Close(fd); e == unix.EINTR {
				e = nil
			}
		}
		if e != nil {
			err = e
		}
		d.done()
	}
	return err
}
