package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// Hard links across copy-up (kernel: overlayfs.rst, "Index of hardlinks"). The
// first copy-up of a lower inode with several names leaves, besides the name, an
// entry in work/index called after the inode's file handle. A lookup of another
// of its lower names finds the entry and shows the upper inode. What of the link
// count the upper inode cannot know is kept in a mark, see nlink.go.

// openIndex opens work/index where hard links can be kept together.
func (fs *FS) openIndex() error {
	if fs.cfg.Index == Off || fs.degraded.Load() || !fs.can.Hardlinks {
		return nil
	}
	handles := false
	for _, t := range fs.lowers {
		handles = handles || t.FS.HandleOK
	}
	if !handles {
		return nil
	}
	if err := fs.makeIn(fs.work.Root, "index"); err != nil {
		return failure(fs.cfg.Work, "cannot make the index in it", err)
	}
	fs.indexd = fs.work.Root.Child("index")
	fs.eng.SearchIndex(fs.indexd)
	if err := fs.readLinksMark(); err != nil {
		return err
	}
	if err := fs.recount(); err != nil {
		return failure(fs.cfg.Work, "cannot count links in the index in it", err)
	}
	return nil
}

// indexName returns the index entry's name for a lower inode, "" if it can have none: then
// copying up one of its names parts it from the others.
func (fs *FS) indexName(d *layer.Dir, name string) string {
	if fs.indexd == nil || fs.ambiguous(d.Tree()) {
		return ""
	}
	fd, err := d.FD()
	if err != nil {
		return ""
	}
	defer d.Done()
	v := fs.originOf(d, fd, name)
	if v == nil {
		return ""
	}
	o, err := whiteout.ParseOrigin(v)
	if err != nil {
		return ""
	}
	if fs.ns == whiteout.User {
		// The marks of an entry are user attributes, which only files and directories
		// can have. (The kernel fails to copy such an object up.)
		var st Attr
		if layer.Stat(fd, name, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			return ""
		}
	}
	return o.IndexName()
}

// inIndex says whether the entry is there and is the upper inode ino.
func (fs *FS) inIndex(entry string, ino uint64) bool {
	if fs.indexd == nil || entry == "" {
		return false
	}
	fd, err := fs.indexd.FD()
	if err != nil {
		return false
	}
	defer fs.indexd.Done()
	var st Attr
	return layer.Stat(fd, entry, &st) == nil && st.Ino == ino
}

// indexStaged gives a staged copy its index entry, before it gets its name. Until countStaged its
// link count is that of the lower inode. n.mu is held.
func (fs *FS) indexStaged(staged *cow.Staged, entry string) error {
	stage, err := fs.stage.FD()
	if err != nil {
		return err
	}
	defer fs.stage.Done()
	if err := fs.writeNlink(stage, staged.Name, whiteout.Nlink{}); err != nil {
		return err
	}
	fs.linkedOrigins.Store(true)
	index, err := fs.indexd.FD()
	if err != nil {
		return err
	}
	defer fs.indexd.Done()
	err = staged.Link(index, entry)
	if err == unix.EEXIST {
		// Left by a copy-up that a crash ended before the name was given.
		if err = layer.Unlink(index, entry); err == nil {
			err = staged.Link(index, entry)
		}
	}
	return err
}

// indexUndo takes back an entry whose copy-up failed after it was made.
func (fs *FS) indexUndo(entry string) {
	fd, err := fs.indexd.FD()
	if err != nil {
		return
	}
	defer fs.indexd.Done()
	_ = layer.Unlink(fd, entry)
}

// linkUp gives an upper inode that only the index knows the name it has in the view, as it is
// about to change: mounted without the index its changes would be lost with it (kernel:
// ovl_link_up). It may be left without, if it has no name in the view. No lock is held.
func (fs *FS) linkUp(c *Caller, n *Node) error {
	for n.loose.Load() {
		parent, name := fs.viewPlace(n)
		if parent == nil {
			n.loose.Store(false)
			return nil
		}
		up, err := fs.upDir(c, parent)
		if err != nil {
			return err
		}
		if err := fs.linkUpAs(n, parent, up, name); err != nil {
			return err
		}
	}
	return nil
}

// linkUpAs is linkUp for the name that n has just now; if it has changed, nothing happens.
func (fs *FS) linkUpAs(n, parent *Node, up *layer.Dir, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p, now := fs.viewPlace(n); !n.loose.Load() || p != parent || now != name {
		return nil
	}
	fd, err := up.FD()
	if err != nil {
		return err
	}
	defer up.Done()
	s := side{parent: parent, name: name, up: up, fd: fd, n: n}
	if fs.upperHas(parent, up, fd, name, n) {
		n.dir, n.real = up, name
		n.loose.Store(false)
		return nil
	}
	var before Attr
	if err := layer.Stat(fd, "", &before); err != nil {
		return err
	}
	fs.markImpure(parent.d)
	if err := fs.materialise(&s); err != nil {
		return err
	}
	restoreTimes(fd, &before)
	return nil
}

// Link makes name in parent a further name of n, and fills a. n gets one more reference.
func (fs *FS) Link(c *Caller, n *Node, parent *Node, name string, a *Attr) error {
	if err := fs.mayChange(parent, name); err != nil {
		return err
	}
	if n.isDir() {
		return unix.EPERM
	}
	if err := fs.mayAdd(parent); err != nil {
		return err
	}
	if err := fs.guarded(n, guardAppend|guardImmutable); err != nil {
		return err
	}
	if err := fs.copyUp(c, n, need{cause: cow.CauseLink, size: -1, meta: true}); err != nil {
		return err
	}
	up, err := fs.upDir(c, parent)
	if err != nil {
		return err
	}
	defer fs.eng.Moving()()
	if fs.cfg.Metacopy == On {
		fs.renames.Lock() // for the path in a redirect
		defer fs.renames.Unlock()
	}
	d := parent.d
	d.names.Lock()
	defer d.names.Unlock()
	if fs.removed(parent) {
		return unix.ENOENT
	}
	white, err := fs.freeName(parent, name)
	if err != nil {
		return err
	}
	fd, err := up.FD()
	if err != nil {
		return err
	}
	defer up.Done()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := fs.redirectLinked(n); err != nil {
		return err
	}
	if !white {
		err = fs.linkTo(n, fd, name)
		if err == unix.EEXIST && !d.merged() && fs.whiteoutIn(d, fd, name) {
			white = true
		}
	}
	if white {
		err = fs.linkOver(n, fd, name)
	}
	if err != nil {
		return err
	}
	return fs.linkedAs(n, parent, up, fd, name, a)
}

// redirectLinked records where the data of a metadata-only file is, before it gets a name under which
// the lower layers do not have it (kernel: ovl_set_link_redirect). n.mu is held, and fs.renames.
func (fs *FS) redirectLinked(n *Node) error {
	if n.x == nil || n.x.dataDir == nil {
		return nil
	}
	p, err := n.place()
	if err != nil {
		return err
	}
	defer p.done()
	parent, name := fs.viewPlace(n)
	return fs.setRedirect(&side{parent: parent, name: name, fd: p.fd}, p.name, false)
}

// linkTo links the object of n, wherever it is. n.mu is held.
func (fs *FS) linkTo(n *Node, fd int, name string) error {
	p, err := n.place()
	if err != nil {
		return err
	}
	defer p.done()
	if p.name == "" {
		return layer.LinkFD(p.fd, fd, name)
	}
	return layer.Link(p.fd, p.name, fd, name)
}

// linkOver is linkTo in the place of a whiteout.
func (fs *FS) linkOver(n *Node, fd int, name string) error {
	stage, err := fs.stage.FD()
	if err != nil {
		return err
	}
	defer fs.stage.Done()
	temp := fs.tempName()
	if err := fs.linkTo(n, stage, temp); err != nil {
		return err
	}
	if err := layer.Rename(stage, temp, fd, name, 0); err != nil {
		_ = layer.Unlink(stage, temp)
		return err
	}
	return nil
}

// linkedAs enters the new name. n.mu is held for writing, and parent.d.names.
func (fs *FS) linkedAs(n, parent *Node, up *layer.Dir, fd int, name string, a *Attr) error {
	var st Attr
	if err := layer.Stat(fd, name, &st); err != nil {
		return err
	}
	if st.Nlink == 2 && n.ino.Load() == fs.viewIno(fs.upper, st.Ino) && hasMark(fd, name, fs.attr("origin"), nil) {
		// The mark was not looked at, in a directory that the kernel did not call impure: with two names it would be,
		// at the next mount, and the number would be another one (see search.origin).
		_ = layer.Removexattr(fd, name, fs.attr("origin"))
		if err := layer.Stat(fd, name, &st); err != nil {
			return err
		}
	}
	if n.anchor >= 0 {
		// It has a name to be found by again.
		unix.Close(int(n.anchor))
		n.anchor, n.dir, n.real = -1, up, name
	}
	if n.ino.Load() != fs.viewIno(fs.upper, st.Ino) {
		fs.markImpure(parent.d)
	}
	fs.altered.Add(1)
	t := &fs.nodes
	t.mu.Lock()
	if n.parent == nil {
		n.parent, n.name = parent, name
	} else {
		if n.links == nil {
			n.links = &links{key: linkKey{fs: fs.fsIndex(fs.upper), ino: st.Ino}}
			t.links[n.links.key] = n
		}
		n.links.aliases = append(n.links.aliases, alias{parent, name})
	}
	parent.d.children[name] = n
	parent.refs++
	n.refs++
	t.mu.Unlock()
	fs.indexAdd(parent, name, st.Ino, uint8(n.typ>>12))
	*a = st
	fs.presentLocked(n, a)
	return nil
}
