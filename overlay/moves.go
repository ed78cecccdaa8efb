package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// With marks in user attributes the kernel follows no redirects: looking up a directory that has
// one is EPERM (ovl_fs_params_verify, ovl_lookup_single). Renaming a lower or merged directory
// leaves one here all the same, as rename(2) is to be quick and atomic. While there is one, the work directory
// has incompat/plyfs-moved, for which the kernel refuses the upper; and after the unmount each such
// directory is made the upper's own: what it shows of the lower layers is copied up, and it
// becomes opaque.

// movedMark is the name in incompat that says: there may be redirects in user attributes.
const movedMark = "plyfs-moved"

// markMoves makes the mark, durably, before the first redirect is written.
func (fs *FS) markMoves() error {
	if fs.ns != whiteout.User || fs.astray.Load() {
		return nil
	}
	if err := fs.mkIncompat(movedMark, ""); err != nil {
		return err
	}
	fs.astray.Store(true)
	return nil
}

// resolveMoves makes every directory with a redirect the upper's own, and takes the mark away.
func (fs *FS) resolveMoves(c *Caller) error {
	if !fs.astray.Load() {
		return nil
	}
	if err := fs.resolveBelow(c, fs.root); err != nil {
		return err
	}
	if !fs.cfg.Volatile {
		if err := fs.syncAll(); err != nil {
			return err
		}
	}
	if err := fs.rmIncompat(movedMark); err != nil {
		return err
	}
	fs.astray.Store(false)
	return nil
}

// resolveBelow looks for redirects in the directories of the upper below n.
func (fs *FS) resolveBelow(c *Caller, n *Node) error {
	up := n.d.upper.Load()
	fd, err := up.FD()
	if err != nil {
		return err
	}
	ents, err := layer.ReadDir(fd)
	up.Done()
	if err != nil {
		return err
	}
	for _, e := range ents {
		if e.Type != unix.DT_DIR && e.Type != unix.DT_UNKNOWN {
			continue
		}
		err := fs.within(c, n, e.Name, func(child *Node) error {
			if !child.isDir() || child.d.upper.Load() == nil {
				return nil
			}
			if fs.redirected(child) {
				if err := fs.sever(c, child); err != nil {
					return err
				}
			}
			return fs.resolveBelow(c, child)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (fs *FS) redirected(n *Node) bool {
	up := n.d.upper.Load()
	fd, err := up.FD()
	if err != nil {
		return false
	}
	defer up.Done()
	var buf [4096]byte
	return len(fs.mark(fd, "", "redirect", buf[:])) > 0
}

// sever copies up all that the directory n shows, and parts it from the lower layers. Nobody else
// uses the union.
func (fs *FS) sever(c *Caller, n *Node) error {
	if !n.d.merged() {
		return nil
	}
	up, err := fs.upDir(c, n)
	if err != nil {
		return err
	}
	err = fs.each(c, n, func(e *Entry) error {
		return fs.within(c, n, e.Name, func(child *Node) error {
			if child.isDir() {
				return fs.sever(c, child)
			}
			if err := fs.copyUp(c, child, need{cause: cow.CauseComplete, size: -1}); err != nil {
				return err
			}
			return fs.giveName(c, n, e.Name, child)
		})
	})
	if err != nil {
		return err
	}
	fd, err := up.FD()
	if err != nil {
		return err
	}
	defer up.Done()
	// In this order: at each step a mount here shows the same.
	if err := fs.setMark(fd, "", "opaque", []byte("y")); err != nil {
		return err
	}
	if err := layer.Removexattr(fd, "", fs.attr("redirect")); err != nil && err != unix.ENODATA {
		return err
	}
	n.d.names.Lock()
	defer n.d.names.Unlock()
	fs.indexDrop(n)
	n.d.lowers = nil
	return fs.keepingTimes(fd, func() error { return fs.unwhite(n.d, fd) })
}

// unwhite removes the whiteouts of a directory beneath which there is nothing: the kernel may list
// them.
func (fs *FS) unwhite(d *directory, fd int) error {
	ents, err := layer.ReadDir(fd)
	if err != nil {
		return err
	}
	for _, e := range ents {
		_, aufs := whiteout.AUFSTarget(e.Name)
		if aufs || fs.whiteoutIn(d, fd, e.Name) {
			if err := layer.Unlink(fd, e.Name); err != nil {
				return err
			}
		}
	}
	return nil
}
