package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// renameUpper renames in the upper. Nobody opens a directory that moves, or one below it, while it is elsewhere
// than was noted.
func (fs *FS) renameUpper(old, to *side, flags uint) error {
	rename := func() error { return layer.Rename(old.fd, old.name, to.fd, to.name, flags) }
	var moved [2]layer.Moved
	if old.n.d != nil {
		moved[0] = layer.Moved{Dir: old.n.d.upper.Load(), Parent: to.up, Name: to.name}
	}
	if flags&unix.RENAME_EXCHANGE != 0 && to.n != nil && to.n.d != nil {
		moved[1] = layer.Moved{Dir: to.n.d.upper.Load(), Parent: old.up, Name: old.name}
	}
	if moved[0].Dir == nil && moved[1].Dir == nil {
		return rename()
	}
	return fs.cache.Rename(rename, moved[:]...)
}

// relocate notes where the object of n is after it moved from one place to the other.
func (fs *FS) relocate(n *Node, from, to *side) {
	if n.anchor < 0 && n.dir == from.up && n.real == from.name {
		n.dir, n.real = to.up, to.name
	}
}

// setName replaces one name of n in the view by another. table.mu is held.
func (n *Node) setName(parent *Node, name string, newParent *Node, newName string) {
	if n.parent == parent && n.name == name {
		n.parent, n.name = newParent, newName
		return
	}
	if n.links != nil {
		for i := range n.links.aliases {
			if a := &n.links.aliases[i]; a.parent == parent && a.name == name {
				a.parent, a.name = newParent, newName
				return
			}
		}
	}
}

// rename moves the name of a node in the table.
func (fs *FS) rename(n, parent *Node, name string, newParent *Node, newName string) {
	t := &fs.nodes
	t.mu.Lock()
	defer t.mu.Unlock()
	if parent.d.children[name] == n {
		delete(parent.d.children, name)
		parent.refs--
	}
	n.setName(parent, name, newParent, newName)
	newParent.d.children[newName] = n
	newParent.refs++
}
