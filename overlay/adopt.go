package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// adopt returns the node for what find saw under a name of parent, new or already
// known by another name, with one more reference; nil if that may not be so any more, as FS.altered is
// not what it was before. parent.d.names is held.
func (fs *FS) adopt(parent *Node, name string, f *found, seen uint64) (*Node, error) {
	typ := uint32(f.st.Mode) & unix.S_IFMT
	n := &Node{typ: typ, parent: parent, name: name, refs: 1, dir: f.dir, real: f.name, anchor: -1}
	n.ino.Store(f.ino)
	n.upper.Store(f.upper)
	var key *linkKey
	if typ == unix.S_IFDIR {
		fs.adoptDirectory(n, f)
	} else if f.st.Nlink > 1 {
		k, shared, err := fs.adoptLink(n, f)
		if err != nil {
			return nil, err
		}
		if shared {
			key = &k
		}
	} else if f.upper {
		if k := (linkKey{fs: fs.fsIndex(fs.upper), ino: f.st.Ino}); fs.nodes.inherits(k) {
			key = &k
		}
	}
	if !f.upper && guardOf(&f.st) == 0 {
		n.guard.Store(uint32(guardKnown))
	}
	if f.dataDir != nil {
		x := n.more()
		x.dataDir, x.dataName, x.blocks = f.dataDir, f.dataName, f.data.Blocks
	} else if f.upper && typ == unix.S_IFREG && f.st.Blocks*512 < f.st.Size && fs.unsettled() {
		if blocks := fs.owedBlocks(n); blocks > 0 {
			n.more().blocks = blocks
		}
	}
	return fs.enter(n, key, &seen), nil
}

func (fs *FS) adoptDirectory(n *Node, f *found) {
	n.d = &directory{lowers: f.lowers, children: map[string]*Node{}}
	n.d.xwhiteouts.Store(f.xwhiteouts)
	if !f.upper {
		return
	}
	u := f.dir.Child(f.name)
	n.d.upper.Store(u)
	if len(fs.lowers) > 0 {
		if fd, err := f.dir.FD(); err == nil {
			n.d.impure.Store(fs.readImpure(fd, f.name))
			f.dir.Done()
		}
	}
}

// adoptLink gives a node with several names its key, and finds the upper inode of a
// lower one that was copied up under another name: the index knows it. It reports false
// when each name is to have a node of its own, because copy-up will part them.
func (fs *FS) adoptLink(n *Node, f *found) (linkKey, bool, error) {
	if f.upper {
		k := linkKey{fs: fs.fsIndex(fs.upper), ino: f.st.Ino}
		if !f.hasOrigin {
			return k, true, nil
		}
		entry := f.origin.IndexName()
		if !fs.inIndex(entry, f.st.Ino) {
			return k, true, nil
		}
		fs.linked(n, entry)
		return f.originKey, true, nil
	}
	t := f.dir.Tree()
	k := linkKey{fs: fs.fsIndex(t), ino: f.st.Ino}
	if fs.upper == nil {
		return k, true, nil
	}
	entry := fs.indexName(f.dir, f.name)
	if entry == "" {
		return k, false, nil
	}
	fd, err := fs.indexd.FD()
	if err != nil {
		return k, false, err
	}
	defer fs.indexd.Done()
	var st Attr
	if err := layer.Stat(fd, entry, &st); err != nil {
		return k, true, nil
	}
	if fs.retypeAt(fs.upper, fd, entry, &st); uint32(st.Mode)&unix.S_IFMT != n.typ {
		return k, true, nil
	}
	var buf [128]byte
	if size, err := layer.Getxattr(fd, entry, fs.attr("metacopy"), buf[:]); err != nil {
		f.dataDir = nil // the upper inode has its data
	} else if _, err := whiteout.ParseMetacopy(buf[:size]); err != nil {
		return k, false, unix.EIO
	} else if f.dataDir == nil {
		f.dataDir, f.dataName, f.data = f.dir, f.name, f.st
	}
	n.upper.Store(true)
	n.dir, n.real = fs.indexd, entry
	n.loose.Store(true)
	f.upper = true
	fs.linked(n, entry)
	return k, true, nil
}

// enter puts a new node into the table, unless the name, or the inode by another
// name, is there already. It returns nil if FS.altered is not what was seen, with seen not nil: then n may
// be out of date, and the node that knew better forgotten.
func (fs *FS) enter(n *Node, key *linkKey, seen *uint64) *Node {
	t := &fs.nodes
	t.mu.Lock()
	defer t.mu.Unlock()
	parent, name := n.parent, n.name
	if old := parent.d.children[name]; old != nil {
		old.refs++
		return old
	}
	if key != nil {
		if old := t.links[*key]; old != nil {
			old.refs++
			if old.parent == nil && old != fs.root {
				old.parent, old.name = parent, name
			} else {
				if old.links == nil {
					old.links = &links{key: *key}
				}
				old.links.aliases = append(old.links.aliases, alias{parent, name})
			}
			parent.d.children[name] = old
			parent.refs++
			return old
		}
	}
	if seen != nil && fs.altered.Load() != *seen {
		return nil
	}
	if key != nil {
		n.links = &links{key: *key}
		t.links[*key] = n
	}
	t.insert(n)
	parent.d.children[name] = n
	parent.refs++
	return n
}

// unname takes one name from a node, after it was removed from the layers. The
// node gets another of its known names as its place in the view, or none. n.mu is
// held for writing.
func (fs *FS) unname(n *Node, parent *Node, name string) {
	t := &fs.nodes
	t.mu.Lock()
	defer t.mu.Unlock()
	if parent.d.children[name] == n {
		delete(parent.d.children, name)
		parent.refs-- // the caller keeps parent alive
	}
	if n.parent == parent && n.name == name {
		n.parent, n.name = nil, ""
		if n.links != nil {
			if k := len(n.links.aliases); k > 0 {
				a := n.links.aliases[k-1]
				n.links.aliases = n.links.aliases[:k-1]
				n.parent, n.name = a.parent, a.name
			}
		}
	} else if n.links != nil {
		for i, a := range n.links.aliases {
			if a.parent == parent && a.name == name {
				n.links.aliases = append(n.links.aliases[:i], n.links.aliases[i+1:]...)
				break
			}
		}
	}
}

// Getattr fills a with the attributes of n, as the view shows them.
func (fs *FS) Getattr(n *Node, a *Attr) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return fs.getattrLocked(n, a)
}

// getattrLocked is Getattr with n.mu held.
func (fs *FS) getattrLocked(n *Node, a *Attr) error {
	p, err := n.place()
	if err != nil {
		return err
	}
	err = fs.statPlace(n, p, a)
	p.done()
	if err != nil {
		return err
	}
	fs.presentLocked(n, a)
	return nil
}

// present turns the attributes of the real object into those of the view.
func (fs *FS) present(n *Node, a *Attr) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	fs.presentLocked(n, a)
}

func (fs *FS) presentLocked(n *Node, a *Attr) {
	a.Ino = n.ino.Load()
	if n.d != nil && n.d.layers() > 1 {
		a.Nlink = 1 // as ovl_getattr: subdirectories are not counted over layers
	}
	if x := n.x; x != nil {
		if x.index != "" {
			a.Nlink = uint32(max(int(a.Nlink)+x.diff, 0))
		}
		if x.dataDir != nil || x.blocks > 0 && fs.unsettled() && !n.wasFinished() {
			a.Blocks = max(a.Blocks, min(x.blocks, (a.Size+511)/512))
		}
	}
	if (n.isDir() || n.anchor < 0 && (n.x == nil || n.x.index == "")) && fs.removed(n) {
		a.Nlink = 0 // removed from the view; the lower still has it
	}
	if fs.cfg.StaticNlink && n.isDir() {
		a.Nlink = 1
	}
	fs.mapOut(n, a)
}
