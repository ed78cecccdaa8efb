package overlay

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// Unlink removes a name that is not a directory.
func (fs *FS) Unlink(c *Caller, parent *Node, name string) error {
	return fs.remove(c, parent, name, false)
}

// Rmdir removes an empty directory.
func (fs *FS) Rmdir(c *Caller, parent *Node, name string) error {
	return fs.remove(c, parent, name, true)
}

func (fs *FS) remove(c *Caller, parent *Node, name string, dir bool) error {
	if parent.d == nil {
		return unix.ENOTDIR
	}
	if fs.upper == nil {
		return errReadOnly
	}
	var a Attr
	n, err := fs.Lookup(c, parent, name, &a)
	if err != nil {
		return err
	}
	defer fs.unref(n, 1)
	if dir != n.isDir() {
		if dir {
			return unix.ENOTDIR
		}
		return unix.EISDIR
	}
	if err := fs.mayTake(parent, n); err != nil {
		return err
	}
	if dir { // before parent is copied up for a removal that fails; looked at again under the locks
		if err := fs.mustBeEmpty(n); err != nil {
			return err
		}
	}
	if !n.upper.Load() && !dir && a.Nlink > 1 && fs.indexd != nil {
		// The other names must not lose count (kernel: ovl_nlink_start).
		if err := fs.copyUp(c, n, need{cause: cow.CauseUnlink, size: -1, meta: true}); err != nil {
			return err
		}
	}
	up, err := fs.upDir(c, parent)
	if err != nil {
		return err
	}
	parent.d.names.Lock()
	defer parent.d.names.Unlock()
	if fs.nodes.peek(parent, name) != n {
		return unix.ENOENT
	}
	if dir {
		n.d.names.Lock()
		defer n.d.names.Unlock()
		if err := fs.mustBeEmptyLocked(n); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return fs.removeLocked(parent, up, name, n)
}

// mustBeEmptyLocked is ENOTEMPTY if the view of a directory has entries. n.d.names is held.
func (fs *FS) mustBeEmptyLocked(n *Node) error {
	if fs.cfg.LowersChange {
		if err := fs.relist(n); err != nil {
			return err
		}
	}
	x, err := fs.indexOf(n)
	if err != nil {
		return err
	}
	for i := range x.ents {
		if x.ents[i].state == entryLive {
			return unix.ENOTEMPTY
		}
	}
	return nil
}

// removeLocked takes a name away from the layers and from n. The names of parent, and
// n's, are locked, and n.mu.
func (fs *FS) removeLocked(parent *Node, up *layer.Dir, name string, n *Node) error {
	fd, err := up.FD()
	if err != nil {
		return err
	}
	defer up.Done()
	has := fs.upperHas(parent, up, fd, name, n)
	if !has && n.x != nil && n.x.index != "" {
		// So that the count changes with the name (kernel: ovl_nlink_start).
		if err := fs.materialise(&side{parent: parent, name: name, up: up, fd: fd, n: n}); err != nil {
			return err
		}
		has = true
	}
	white := fs.lowerHas(parent, name)
	if has {
		if err := fs.letGo(n, up, name); err != nil {
			return err
		}
	}
	if err := fs.removing(n, func() error { return fs.strike(fd, name, has, white, n.isDir()) }); err != nil {
		fs.takeBack(n, up, name, has)
		return err
	}
	fs.unname(n, parent, name)
	fs.indexRemove(parent, name, white)
	fs.dropIndexEntry(n)
	return nil
}

// removing calls f, which removes n if there is one: a directory not while somebody closes what was removed
// from it (layer.Dir.Leaving). n.mu is held for writing.
func (fs *FS) removing(n *Node, f func() error) error {
	if n != nil && n.isDir() {
		if u := n.d.upper.Load(); u != nil {
			u.Leaving.Lock()
			defer u.Leaving.Unlock()
		}
	}
	return f()
}

// upperHas says whether the upper has an entry of its own for a name of n.
func (fs *FS) upperHas(parent *Node, up *layer.Dir, fd int, name string, n *Node) bool {
	if !n.upper.Load() {
		return false
	}
	if n.anchor < 0 && n.dir == up && n.real == name {
		return true
	}
	var st Attr
	return layer.Stat(fd, name, &st) == nil && !fs.isWhiteout(parent.d, fd, name, &st)
}

// lowerHas says whether a name would show through from below if the upper did not
// have it (kernel: ovl_lower_positive).
func (fs *FS) lowerHas(parent *Node, name string) bool {
	d := parent.d
	if !d.merged() {
		return false
	}
	if x := d.index.Load(); x != nil && !fs.cfg.LowersChange {
		if e := x.get(name); e != nil {
			return e.through()
		}
	}
	var f found
	s := search{fs: fs, d: d, f: &f, name: name}
	return s.below(d.lowers) != nil || s.have
}

// letGo prepares n for losing the upper name it is known by: it keeps a descriptor, or
// its entry in the index, so that whoever has it open goes on.
func (fs *FS) letGo(n *Node, up *layer.Dir, name string) error {
	if n.anchor >= 0 || n.dir != up || n.real != name {
		return nil
	}
	if n.x != nil && n.x.index != "" {
		n.dir, n.real = fs.indexd, n.x.index
		n.loose.Store(true)
		return nil
	}
	fd, err := up.FD()
	if err != nil {
		return err
	}
	defer up.Done()
	a, err := layer.Open(fd, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	n.anchor = int32(a)
	return nil
}

// takeBack undoes letGo after a failure.
func (fs *FS) takeBack(n *Node, up *layer.Dir, name string, has bool) {
	if !has {
		return
	}
	if n.anchor >= 0 {
		unix.Close(int(n.anchor))
		n.anchor = -1
	}
	n.dir, n.real = up, name
	n.loose.Store(false)
}

// strike removes the upper entry, if there is one, and leaves a whiteout, if the
// lower has the name, in one step.
func (fs *FS) strike(fd int, name string, has, white, dir bool) error {
	switch {
	case !has && !white:
		return nil
	case !has:
		return fs.whiteout(fd, name)
	case !white && !dir:
		return layer.Unlink(fd, name)
	case !white:
		err := layer.Rmdir(fd, name)
		if err == unix.ENOTEMPTY || err == unix.EEXIST {
			return fs.sweep(fd, name) // only whiteouts are left in it
		}
		return err
	}
	return fs.whiteoutOver(fd, name, dir)
}

// sweep removes a directory that holds nothing but whiteouts: out of the view first.
func (fs *FS) sweep(fd int, name string) error {
	stage, err := fs.stage.FD()
	if err != nil {
		return err
	}
	defer fs.stage.Done()
	temp := fs.tempName()
	if err := layer.Rename(fd, name, stage, temp, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	_ = layer.RemoveAll(stage, temp) // left behind it is cleared at the next mount
	return nil
}

// dropIndexEntry removes the index entry of an inode that has no name left. n.mu is
// held for writing.
func (fs *FS) dropIndexEntry(n *Node) {
	if n.x == nil || n.x.index == "" {
		return
	}
	var a Attr
	if fs.getattrLocked(n, &a) != nil || a.Nlink > 0 {
		return
	}
	entry := n.x.index
	if n.anchor < 0 {
		p, err := n.place()
		if err != nil {
			return
		}
		fd, err := layer.Open(p.fd, p.name, unix.O_PATH, 0)
		p.done()
		if err != nil {
			return
		}
		n.anchor = int32(fd)
	}
	n.x.index, n.x.diff = "", 0
	fs.indexUndo(entry)
}

// whiteouts are links of one inode: making a name is cheaper than making an inode
// (kernel: ovl_whiteout).
type whiteouts struct {
	mu   sync.Mutex // guards name
	name string     // in the work directory
}

// whiteout makes a whiteout under a name that is free.
func (fs *FS) whiteout(fd int, name string) error {
	if fs.whiteoutNames() {
		f, err := layer.Open(fd, whiteout.AUFSWhiteout(name), unix.O_WRONLY|unix.O_CREAT, 0o600)
		if err == nil {
			unix.Close(f)
		}
		return err
	}
	if err := fs.admitWhiteouts(fd); err != nil {
		return err
	}
	return fs.placeWhiteout(fd, name)
}

// whiteoutNames says whether whiteouts are .wh. files, which do not stand in the place of the name.
func (fs *FS) whiteoutNames() bool { return !fs.can.WhiteoutDev && !fs.xwhite }

// placeWhiteout is whiteout in a directory that admits it.
func (fs *FS) placeWhiteout(fd int, name string) error {
	stage, err := fs.stage.FD()
	if err != nil {
		return err
	}
	defer fs.stage.Done()
	w := &fs.white
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.name != "" {
		err := layer.Link(stage, w.name, fd, name)
		if err == nil || err == unix.EEXIST || err == unix.ENOSPC || err == unix.EDQUOT {
			return err
		}
		// Too many links, or a filesystem without: the next one.
		w.name = ""
	}
	if fs.can.Hardlinks {
		temp := fs.tempName()
		if err := fs.newWhiteout(stage, temp); err != nil {
			return err
		}
		if err := layer.Link(stage, temp, fd, name); err == nil {
			w.name = temp
			return nil
		}
		return layer.Rename(stage, temp, fd, name, unix.RENAME_NOREPLACE)
	}
	return fs.newWhiteout(fd, name)
}

// newWhiteout makes the object: a device, or where there are none an empty file with a mark.
func (fs *FS) newWhiteout(fd int, name string) error {
	if !fs.xwhite {
		return layer.Mknod(fd, name, unix.S_IFCHR, 0)
	}
	if err := layer.Mknod(fd, name, unix.S_IFREG, 0); err != nil {
		return err
	}
	err := fs.setMark(fd, name, "whiteout", []byte("y"))
	if err != nil {
		_ = layer.Unlink(fd, name)
	}
	return err
}

// admitWhiteouts marks a directory in which empty files are going to be whiteouts.
func (fs *FS) admitWhiteouts(fd int) error {
	if !fs.xwhite || fs.opaqueAt(fd, "", false) != whiteout.OpaqueNone {
		return nil
	}
	return fs.setMark(fd, "", "opaque", []byte("x"))
}

// whiteoutOver puts a whiteout in the place of an object, in one step. A directory,
// which has only whiteouts in it, is removed afterwards.
func (fs *FS) whiteoutOver(fd int, name string, dir bool) error {
	if fs.whiteoutNames() {
		if err := fs.whiteout(fd, name); err != nil {
			return err
		}
		if dir {
			return fs.sweep(fd, name)
		}
		return layer.Unlink(fd, name)
	}
	stage, err := fs.stage.FD()
	if err != nil {
		return err
	}
	defer fs.stage.Done()
	if err := fs.admitWhiteouts(fd); err != nil {
		return err
	}
	temp := fs.tempName()
	if err := fs.placeWhiteout(stage, temp); err != nil {
		return err
	}
	flags := uint(0)
	if dir {
		flags = unix.RENAME_EXCHANGE
	}
	if err := layer.Rename(stage, temp, fd, name, flags); err != nil {
		_ = layer.Unlink(stage, temp)
		return err
	}
	if dir {
		_ = layer.RemoveAll(stage, temp)
	}
	return nil
}
