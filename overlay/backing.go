package overlay

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
)

// Backing returns a descriptor of the file that has all data of n, for the kernel to read
// and, with write, to write by itself, and whether it is the upper's. It stays open until
// release is called. With write the whole file is copied up first, and an unfinished file is
// completed: the kernel's writes do not pass here.
func (fs *FS) Backing(c *Caller, n *Node, write bool) (fd int, isUpper bool, release func(), err error) {
	if n.typ != unix.S_IFREG {
		return -1, false, nil, unix.EINVAL
	}
	var o *openFile
	if write {
		o, err = fs.toWrite(c, n, need{cause: cow.CauseOpen, size: -1, whole: true})
	} else {
		o, err = fs.reader(n)
	}
	if err != nil {
		return -1, false, nil, err
	}
	if err := o.complete(c); err != nil {
		o.done()
		return -1, false, nil, err
	}
	// Not the shared descriptor: its file is one of plyfs' own, with flags of its own.
	flags := unix.O_RDONLY
	if o.upper && o.write {
		flags = unix.O_RDWR
	}
	open := layer.Open
	if fs.cfg.NoAtime && o.upper {
		open = layer.OpenNoAtime
	}
	own, err := open(o.fd, "", flags, 0)
	isUpper = o.upper
	if err != nil && errors.Is(err, unix.EACCES) { // see openAnyway: keep what is open
		own, err = unix.FcntlInt(uintptr(o.fd), unix.F_DUPFD_CLOEXEC, 3)
	}
	o.done()
	if err != nil {
		return -1, false, nil, err
	}
	return own, isUpper, func() { unix.Close(own) }, nil
}

// complete gives an unfinished file all its data.
func (o *openFile) complete(c *Caller) error {
	if o.partial == nil {
		return nil
	}
	for {
		finished, err := o.partial.Complete(0, cancelOf(c))
		if finished || err != nil {
			return err
		}
	}
}

// complete gives n all its data, if it is an unfinished file.
func (fs *FS) complete(c *Caller, n *Node) error {
	if n.typ != unix.S_IFREG || !fs.unsettled() {
		return nil
	}
	o, err := fs.reader(n)
	if err != nil {
		return err
	}
	defer o.done()
	return o.complete(c)
}

// Outdated says that n was replaced by another node, see [FS.Renew], or that its data is no more the
// lower's, so that whoever opens its name anew must look it up anew.
func (fs *FS) Outdated(n *Node) bool {
	if !n.upper.Load() {
		return false
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.x == nil || n.x.dataDir == nil
}

// Aliased says that the data of n is a lower layer's and n has several names. The kernel would know a node that is replaced by
// [FS.Renew] by the others still, and show there what was before.
func (fs *FS) Aliased(n *Node) bool {
	if fs.Outdated(n) {
		return false
	}
	fs.nodes.mu.Lock()
	defer fs.nodes.mu.Unlock()
	return n.links != nil
}

// Renew copies n up and takes it out of the view: the next lookup of its names finds a
// fresh node with the same inode number, and n goes on serving what is open. It adds no
// reference.
func (fs *FS) Renew(c *Caller, n *Node) (*Node, error) {
	if err := fs.copyUp(c, n, need{cause: cow.CauseOpen, size: -1, whole: true}); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.anchor < 0 {
		p, err := n.place()
		if err != nil {
			return nil, err
		}
		fd, err := layer.Open(p.fd, p.name, unix.O_PATH, 0)
		p.done()
		if err != nil {
			return nil, err
		}
		n.anchor = int32(fd)
	}
	var st Attr
	if err := layer.Stat(int(n.anchor), "", &st); err != nil {
		return nil, err
	}
	fs.nodes.renew(n, linkKey{fs: fs.fsIndex(fs.upper), ino: st.Ino})
	for _, dead := range fs.nodes.detach(n) {
		fs.bury(dead)
	}
	return n, nil
}
