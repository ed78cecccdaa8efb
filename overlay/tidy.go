package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// After a clean unmount the kernel's overlayfs mounts an upper with no option but the namespace of
// its marks, and shows the same tree. Two things that are right while plyfs serves them are not so
// for it, and are put right after the unmount: redirects under userxattr (moves.go) and hard links
// that only the index holds together (tidy_links.go). A mount that follows a kill, or one
// that could not finish this, does it at its own unmount.

// untidy says whether there may be something for tidy to do.
func (fs *FS) untidy() bool { return fs.astray.Load() || fs.linksPart() }

// tidy makes the upper one that the kernel reads right. It is called when nobody uses the view any
// more, and ends with EINTR when cancel is closed.
func (fs *FS) tidy(cancel <-chan struct{}) error {
	c := &Caller{Cancel: cancel}
	if err := fs.resolveMoves(c); err != nil {
		return err
	}
	return fs.completeLinks(c)
}

// cancelled is EINTR once a caller has lost patience.
func cancelled(c *Caller) error {
	select {
	case <-c.Cancel:
		return unix.EINTR
	default:
		return nil
	}
}

// each calls f for every entry of the directory n but "." and "..".
func (fs *FS) each(c *Caller, n *Node, f func(e *Entry) error) error {
	buf := make([]Entry, 256)
	for off := uint64(0); ; {
		got, err := fs.ReadDir(n, off, buf)
		if err != nil || got == 0 {
			return err
		}
		for i := range buf[:got] {
			e := &buf[i]
			off = e.Off
			if e.Name == "." || e.Name == ".." {
				continue
			}
			if err := cancelled(c); err != nil {
				return err
			}
			if err := f(e); err != nil {
				return err
			}
		}
	}
}

// within calls f with the node of a name of n; one that is not there any more is passed over.
func (fs *FS) within(c *Caller, n *Node, name string, f func(child *Node) error) error {
	var a Attr
	child, err := fs.Lookup(c, n, name, &a)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer fs.unref(child, 1)
	return f(child)
}

// giveName makes a name, by which n is known in the view, one of the upper's own.
func (fs *FS) giveName(c *Caller, parent *Node, name string, n *Node) error {
	up, err := fs.upDir(c, parent)
	if err != nil {
		return err
	}
	parent.d.names.Lock()
	defer parent.d.names.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	fd, err := up.FD()
	if err != nil {
		return err
	}
	defer up.Done()
	if fs.nodes.peek(parent, name) != n || fs.upperHas(parent, up, fd, name, n) {
		return nil
	}
	return fs.keepingTimes(fd, func() error {
		fs.markImpure(parent.d)
		return fs.materialise(&side{parent: parent, name: name, up: up, fd: fd, n: n})
	})
}

// keepingTimes calls f, which changes the directory fd for reasons of its own.
func (fs *FS) keepingTimes(fd int, f func() error) error {
	var before Attr
	if err := layer.Stat(fd, "", &before); err != nil {
		return err
	}
	defer restoreTimes(fd, &before)
	return f()
}
