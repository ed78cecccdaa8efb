package overlay

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
)

// Lower layers that change underneath (Config.LowersChange): nothing that was found once is taken for true later.
// Every lookup searches the layers again and compares; every listing that begins reads them again. A node
// that is not what its name stands for any more loses the name, and the name gets another node.
// What is copied up is copied whole, so that nothing in the upper depends on a lower file that may go.

// stillThere says whether n is what parent has by that name. If not, n has lost its names. A search that failed for
// another reason than what the layers have says nothing, and is an error: who lost its names would lose what is written to it.
// parent.d.names is held.
func (fs *FS) stillThere(parent *Node, name string, n *Node) (bool, error) {
	f := founds.Get().(*found)
	defer func() {
		*f = found{}
		founds.Put(f)
	}()
	for {
		*f = found{}
		seen := fs.altered.Load()
		switch err := fs.find(parent, name, f); err {
		case nil:
			if fs.same(n, f) {
				return true, nil
			}
		case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ESTALE: // the name, or a directory that it was in
		default:
			return false, err
		}
		if fs.altered.Load() == seen {
			break
		} // else it may have been copied up in between
	}
	n.mu.Lock()
	dead := fs.nodes.detach(n)
	n.mu.Unlock()
	for _, d := range dead {
		fs.bury(d)
	}
	return false, nil
}

// same says whether the object found is the one that n stands for.
func (fs *FS) same(n *Node, f *found) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.typ != uint32(f.st.Mode)&unix.S_IFMT {
		return false
	}
	if n.d != nil {
		return fs.sameDirectory(n, f)
	}
	if n.upper.Load() { // by the index, perhaps, of a lower name
		return f.upper || n.x != nil && n.x.index != ""
	}
	return !f.upper && n.ino.Load() == f.ino && (f.st.Nlink > 1 || n.real == f.name && n.dir.SamePlace(f.dir))
}

// sameDirectory is same for directories. One that was removed and made again is the same, but is opened anew.
func (fs *FS) sameDirectory(n *Node, f *found) bool {
	if n.upper.Load() != f.upper || len(n.d.lowers) != len(f.lowers) {
		return false
	}
	for i, l := range n.d.lowers {
		if !l.SamePlace(f.lowers[i]) {
			return false
		}
	}
	for _, l := range n.d.lowers {
		l.Renew()
	}
	return true
}

// relist reads the names of n again. Those that were there before keep their offsets. n.d.names is held.
func (fs *FS) relist(n *Node) error {
	d := n.d
	d.building.Lock()
	defer d.building.Unlock()
	x, err := fs.readNames(d)
	if err != nil {
		return err
	}
	if old := d.index.Load(); old != nil {
		x.follow(old)
	}
	d.index.Store(x)
	fs.dirs.add(fs, n, len(x.ents))
	return nil
}

// follow gives the entries of x, which is new, the offsets that they have in old.
func (x *nameIndex) follow(old *nameIndex) {
	x.next = max(old.next, firstOffset)
	for i := range x.ents {
		e := &x.ents[i]
		if o := old.get(e.name); o != nil {
			e.off = o.off
		} else {
			e.off = x.next
			x.next++
		}
	}
	slices.SortFunc(x.ents, func(a, b indexEntry) int { return cmp.Compare(a.off, b.off) })
	x.byName = nil // numbers have changed
}
