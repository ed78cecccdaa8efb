package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
)

// side is one of the two names of a rename.
type side struct {
	parent *Node
	name   string
	up     *layer.Dir // upper directory of parent
	fd     int        // and its descriptor

	n     *Node // nil: no such name
	under bool  // a lower has the name
	has   bool  // the upper has an entry for the node
	white bool  // the upper has a whiteout there
}

// Rename moves oldName of oldParent to newName of newParent. flags are RENAME_NOREPLACE,
// RENAME_EXCHANGE and RENAME_WHITEOUT as in renameat2(2). (kernel: ovl_rename.)
func (fs *FS) Rename(c *Caller, oldParent *Node, oldName string, newParent *Node, newName string, flags uint32) error {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE|unix.RENAME_WHITEOUT) != 0 {
		return unix.EINVAL
	}
	if oldParent.d == nil || newParent.d == nil {
		return unix.ENOTDIR
	}
	if err := fs.mayChange(newParent, newName); err != nil {
		return err
	}
	var a Attr
	n, err := fs.Lookup(c, oldParent, oldName, &a)
	if err != nil {
		return err
	}
	defer fs.unref(n, 1)
	exchange := flags&unix.RENAME_EXCHANGE != 0
	var ta Attr
	target, err := fs.Lookup(c, newParent, newName, &ta)
	switch {
	case err == nil:
		defer fs.unref(target, 1)
		if flags&unix.RENAME_NOREPLACE != 0 {
			return unix.EEXIST
		}
		if target == n {
			return nil // two names of one inode: rename(2) does nothing
		}
		if !exchange {
			// The VFS compares the kinds before it asks the filesystem (vfs_rename).
			if err := mayReplace(n, target); err != nil {
				return err
			}
		}
	case Errno(err) != unix.ENOENT:
		return err
	case exchange:
		return unix.ENOENT
	}
	if err := fs.mayTake(oldParent, n); err != nil {
		return err
	}
	if err := fs.mayPut(newParent, target); err != nil {
		return err
	}
	if target != nil && target.isDir() && !exchange {
		// Before anything is copied up for a rename that fails; looked at again under the locks.
		if err := fs.mayMove(n); err != nil {
			return err
		}
		if err := fs.mustBeEmpty(target); err != nil {
			return err
		}
	}
	if err := fs.prepareRename(c, n); err != nil {
		return err
	}
	switch {
	case target == nil:
	case exchange:
		if err := fs.prepareRename(c, target); err != nil {
			return err
		}
	default:
		if err := fs.prepareVictim(c, target, &ta); err != nil {
			return err
		}
	}
	old := side{parent: oldParent, name: oldName, n: n}
	to := side{parent: newParent, name: newName, n: target}
	if old.up, err = fs.upDir(c, oldParent); err != nil {
		return err
	}
	if to.up, err = fs.upDir(c, newParent); err != nil {
		return err
	}
	defer fs.eng.Moving()()
	fs.renames.Lock()
	defer fs.renames.Unlock()
	return fs.renameOrdered(&old, &to, flags)
}

// mayMove is EXDEV where only a redirect, which may not be made, would tell where the lower part of a directory is.
func (fs *FS) mayMove(n *Node) error {
	if n.isDir() && n.d.merged() && !fs.canRedirect() {
		return unix.EXDEV
	}
	return nil
}

// mustBeEmpty is mustBeEmptyLocked for a directory whose names are not locked.
func (fs *FS) mustBeEmpty(n *Node) error {
	n.d.names.Lock()
	defer n.d.names.Unlock()
	return fs.mustBeEmptyLocked(n)
}

// prepareRename copies up what moves.
func (fs *FS) prepareRename(c *Caller, n *Node) error {
	if err := fs.mayMove(n); err != nil {
		return err
	}
	return fs.copyUp(c, n, need{cause: cow.CauseRename, size: -1, meta: true})
}

// canRedirect says whether merged directories can be renamed.
func (fs *FS) canRedirect() bool {
	return fs.cfg.Redirect != Off && !fs.cfg.NoFollow && !fs.degraded.Load()
}

// mayReplace compares the kinds of what moves and of what is there.
func mayReplace(n, target *Node) error {
	switch {
	case n.isDir() == target.isDir():
		return nil
	case target.isDir():
		return unix.EISDIR
	}
	return unix.ENOTDIR
}

// prepareVictim copies up what will be replaced, where its link count must be kept.
func (fs *FS) prepareVictim(c *Caller, target *Node, a *Attr) error {
	if !target.upper.Load() && !target.isDir() && a.Nlink > 1 && fs.indexd != nil {
		return fs.copyUp(c, target, need{cause: cow.CauseUnlink, size: -1, meta: true})
	}
	return nil
}

// renameOrdered takes the locks in their order and renames. fs.renames is held.
func (fs *FS) renameOrdered(old, to *side, flags uint32) error {
	if old.n.isDir() && fs.contains(old.n, to.parent) {
		return unix.EINVAL
	}
	if flags&unix.RENAME_EXCHANGE != 0 && to.n.isDir() && fs.contains(to.n, old.parent) {
		return unix.EINVAL
	}
	if to.n != nil && to.n.isDir() && flags&unix.RENAME_EXCHANGE == 0 && fs.contains(to.n, old.parent) {
		return unix.ENOTEMPTY
	}
	first, second := old.parent, to.parent
	if first != second && fs.contains(second, first) {
		first, second = second, first
	}
	first.d.names.Lock()
	defer first.d.names.Unlock()
	if second != first {
		second.d.names.Lock()
		defer second.d.names.Unlock()
	}
	if fs.nodes.peek(old.parent, old.name) != old.n || fs.nodes.peek(to.parent, to.name) != to.n {
		return unix.ENOENT
	}
	if fs.removed(to.parent) {
		return unix.ENOENT
	}
	victim := to.n != nil && flags&unix.RENAME_EXCHANGE == 0
	if victim && to.n.isDir() && to.n != old.parent {
		to.n.d.names.Lock()
		defer to.n.d.names.Unlock()
		if err := fs.mustBeEmptyLocked(to.n); err != nil {
			return err
		}
	}
	a, b := old.n, to.n
	if b != nil && b.id < a.id {
		a, b = b, a
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if b != nil && b != a {
		b.mu.Lock()
		defer b.mu.Unlock()
	}
	var err error
	if old.fd, err = old.up.FD(); err != nil {
		return err
	}
	defer old.up.Done()
	if to.fd, err = to.up.FD(); err != nil {
		return err
	}
	defer to.up.Done()
	return fs.renameLocked(old, to, flags)
}

// contains says whether directory a is b or one of its ancestors.
func (fs *FS) contains(a, b *Node) bool {
	fs.nodes.mu.Lock()
	defer fs.nodes.mu.Unlock()
	for ; b != nil; b = b.parent {
		if a == b {
			return true
		}
	}
	return false
}

func (fs *FS) look(s *side) error {
	s.under = fs.lowerHas(s.parent, s.name)
	if s.n != nil {
		s.has = fs.upperHas(s.parent, s.up, s.fd, s.name, s.n)
		return nil
	}
	s.white = fs.whiteoutIn(s.parent.d, s.fd, s.name)
	return nil
}

// renameLocked does the rename. Everything is locked: fs.renames, the names of both
// parents and of a directory that is replaced, and the nodes.
func (fs *FS) renameLocked(old, to *side, flags uint32) error {
	if err := fs.look(old); err != nil {
		return err
	}
	if err := fs.look(to); err != nil {
		return err
	}
	if !old.has {
		// An alias of a copied-up inode that the upper does not have yet.
		if err := fs.materialise(old); err != nil {
			return err
		}
	}
	exchange := flags&unix.RENAME_EXCHANGE != 0
	if exchange && !to.has {
		if err := fs.materialise(to); err != nil {
			return err
		}
	}
	if err := fs.markMoved(old, to); err != nil {
		return err
	}
	if exchange {
		if err := fs.markMoved(to, old); err != nil {
			return err
		}
		if err := fs.renameUpper(old, to, unix.RENAME_EXCHANGE); err != nil {
			return err
		}
		fs.swapped(old, to)
		return nil
	}
	return fs.move(old, to, flags&unix.RENAME_WHITEOUT != 0)
}

// markMoved writes the marks a node needs at its new place: a redirect for what merges,
// opaque for a directory that would otherwise merge with what is at the new place.
func (fs *FS) markMoved(s, to *side) error {
	n := s.n
	if fs.nodeHasOrigin(n) {
		fs.markImpure(to.parent.d)
	}
	if n.isDir() {
		if n.d.merged() {
			return fs.setRedirect(s, s.name, s.parent == to.parent)
		}
		if to.parent.d.merged() {
			return fs.setOpaque(s.fd, s.name)
		}
		return nil
	}
	if n.x != nil && n.x.dataDir != nil {
		return fs.setRedirect(s, s.name, false)
	}
	return nil
}

// nodeHasOrigin says whether an upper node shows another inode number than its own.
func (fs *FS) nodeHasOrigin(n *Node) bool {
	if n.isDir() {
		return n.d.merged()
	}
	var st Attr
	p, err := n.place()
	if err != nil {
		return false
	}
	defer p.done()
	return layer.Stat(p.fd, p.name, &st) == nil && n.ino.Load() != fs.viewIno(fs.upper, st.Ino)
}

// move renames over what may be there, and leaves a whiteout where one is needed.
func (fs *FS) move(old, to *side, asked bool) error {
	victim := to.n
	if victim != nil && !to.has && victim.x != nil && victim.x.index != "" {
		// So that the count changes with the name (kernel: ovl_nlink_start).
		if err := fs.materialise(to); err != nil {
			return err
		}
	}
	if victim != nil && to.has {
		if victim.isDir() {
			if err := fs.removing(victim, func() error { return fs.clearVictim(to) }); err != nil {
				return err
			}
		}
		if err := fs.letGo(victim, to.up, to.name); err != nil {
			return err
		}
	}
	// In a directory of the upper alone a whiteout hides nothing, and the kernel would list it.
	white := old.under || asked && old.parent.d.merged()
	flags := uint(0)
	// A directory cannot replace a whiteout, but trade places with it.
	trade := to.white && old.n.isDir()
	switch {
	case trade:
		flags = unix.RENAME_EXCHANGE
		if white {
			if err := fs.admitWhiteouts(old.fd); err != nil {
				return err
			}
		}
	case white && fs.can.RenameWhiteout:
		flags = unix.RENAME_WHITEOUT
	}
	if err := fs.removing(victim, func() error { return fs.renameUpper(old, to, flags) }); err != nil {
		if victim != nil {
			fs.takeBack(victim, to.up, to.name, to.has)
		}
		return err
	}
	switch {
	case trade && !white:
		_ = layer.Unlink(old.fd, old.name)
	case !trade && white && !fs.can.RenameWhiteout:
		if err := fs.whiteout(old.fd, old.name); err != nil {
			fs.cfg.logf("%s: cannot leave a whiteout: %v", old.name, err)
		}
	}
	if fs.whiteoutNames() && to.white {
		_ = layer.Unlink(to.fd, ".wh."+to.name)
	}
	fs.moved(old, to, white)
	return nil
}

// clearVictim swaps a directory that holds only whiteouts for an empty opaque one, so
// that rename(2) can replace it (kernel: ovl_clear_empty).
func (fs *FS) clearVictim(to *side) error {
	dir, err := layer.Open(to.fd, to.name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	ents, err := layer.ReadDir(dir)
	if err != nil || len(ents) == 0 {
		return err
	}
	var st Attr
	if err := layer.Stat(dir, "", &st); err != nil {
		return err
	}
	stage, err := fs.stage.FD()
	if err != nil {
		return err
	}
	defer fs.stage.Done()
	temp := fs.tempName()
	if err := layer.Mkdir(stage, temp, 0o700); err != nil {
		return err
	}
	err = layer.Chown(stage, temp, int(st.Uid), int(st.Gid))
	if err == nil || err == unix.EPERM {
		err = layer.Chmod(stage, temp, uint32(st.Mode)&0o7777)
	}
	if err == nil {
		err = fs.setOpaque(stage, temp)
	}
	if err == nil {
		err = layer.Rename(stage, temp, to.fd, to.name, unix.RENAME_EXCHANGE)
	}
	if err != nil {
		_ = layer.RemoveAll(stage, temp)
		return err
	}
	_ = layer.RemoveAll(stage, temp)
	return nil
}

// moved brings the nodes up to date after a move.
func (fs *FS) moved(old, to *side, white bool) {
	if v := to.n; v != nil {
		fs.unname(v, to.parent, to.name)
		fs.dropIndexEntry(v)
	}
	fs.relocate(old.n, old, to)
	fs.rename(old.n, old.parent, old.name, to.parent, to.name)
	typ := uint8(old.n.typ >> 12)
	ino := fs.rawIno(to.fd, to.name)
	fs.indexRemove(old.parent, old.name, white)
	fs.indexAdd(to.parent, to.name, ino, typ)
}

func (fs *FS) rawIno(fd int, name string) uint64 {
	var st Attr
	_ = layer.Stat(fd, name, &st)
	return st.Ino
}

// swapped brings the nodes up to date after an exchange.
func (fs *FS) swapped(old, to *side) {
	fs.relocate(old.n, old, to)
	fs.relocate(to.n, to, old)
	t := &fs.nodes
	t.mu.Lock()
	old.n.setName(old.parent, old.name, to.parent, to.name)
	to.n.setName(to.parent, to.name, old.parent, old.name)
	old.parent.d.children[old.name] = to.n
	to.parent.d.children[to.name] = old.n
	t.mu.Unlock()
	for _, s := range [...]struct{ at, from *side }{{old, to}, {to, old}} {
		fs.indexAdd(s.at.parent, s.at.name, fs.rawIno(s.at.fd, s.at.name), uint8(s.from.n.typ>>12))
	}
}
