package overlay

// relocate notes where the object of n is after it moved from one place to the other.
func (fs *FS) relocate(n *Node, from, to *side) {
	if n.anchor < 0 && n.dir == from.up && n.real == from.name {
		n.dir, n.real = to.up, to.name
	}
	if n.d != nil {
		n.d.upper.Load().Move(to.up, to.name)
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
