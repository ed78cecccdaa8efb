package overlay

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// Of a lower inode with several names, one name is copied up when it changes; that the others are
// the same inode, only the index says. The kernel reads that with index=on, which is not
// its default, and not where the upper becomes a layer of another stack. So after the unmount the other
// names become links of the upper inode too, and its entry goes when they all are.
// With index=on asked for by name the entries stay.

// linksMark, an attribute of work/index, says that entries were removed because all names were the
// upper's. The files keep their origin, and with it their inode numbers. A kernel that shows the
// numbers of the upper then takes the impure marks of their directories away.
const linksMark = "plyfs.links"

// soughtMark, an attribute of work/index, says that all names were made, or are nowhere in the view, of
// what the index had when it was last changed: its modification time then. Otherwise an earlier mount
// was killed, or left that to a later one.
const soughtMark = "plyfs.sought"

// readLinksMark finds out whether listing a directory without the impure mark needs a look at its
// files.
func (fs *FS) readLinksMark() error {
	fd, err := fs.indexd.FD()
	if err != nil {
		return failure(fs.cfg.Work, "cannot open the index in it", err)
	}
	defer fs.indexd.Done()
	var buf [8]byte
	ents, err := layer.ReadDir(fd)
	if err != nil {
		return failure(fs.cfg.Work, "cannot read the index in it", err)
	}
	fs.linkedBefore = len(ents) > 0 || len(fs.mark(fd, "", linksMark, buf[:])) > 0
	fs.linkedOrigins.Store(fs.linkedBefore)
	if len(ents) > 0 {
		now, err := timeOf(fd)
		fs.linksLeft = err == nil && string(fs.mark(fd, "", soughtMark, make([]byte, 64))) != now
	}
	return nil
}

// timeOf returns the modification time of a directory, as [soughtMark] has it.
func timeOf(dir int) (string, error) {
	var st Attr
	err := layer.Stat(dir, "", &st)
	return fmt.Sprintf("%d.%09d", st.Mtime.Sec, st.Mtime.Nsec), err
}

// indexEntries are the entries of the index whose inodes may have names that are not the upper's,
// by the inode number in the view.
type indexEntries map[uint64]string

// linksMayPart says whether the index may say anything that the upper is to say by itself.
func (fs *FS) linksMayPart() bool {
	return fs.indexd != nil && fs.cfg.Index != On && !fs.unused && (fs.linksLeft || fs.settle.changes.Load() > 0)
}

// linksPart says whether the index says anything that the upper does not.
func (fs *FS) linksPart() bool {
	if !fs.linksMayPart() {
		return false
	}
	fd, err := fs.indexd.FD()
	if err != nil {
		return false
	}
	defer fs.indexd.Done()
	ents, err := layer.ReadDir(fd)
	return err == nil && len(ents) > 0
}

// completeLinks gives every indexed inode all its names in the upper, and removes what is in the index
// without need then.
func (fs *FS) completeLinks(c *Caller) error {
	if !fs.linksMayPart() {
		return nil
	}
	open, err := fs.dropWhole()
	if err != nil || len(open) == 0 {
		return err
	}
	if err := fs.nameBelow(c, fs.root, open); err != nil {
		return err
	}
	if open, err = fs.dropWhole(); err != nil || len(open) == 0 {
		return err
	}
	return fs.markSought()
}

// markSought says that nobody need look for names again.
func (fs *FS) markSought() error {
	fd, err := fs.indexd.FD()
	if err != nil {
		return err
	}
	defer fs.indexd.Done()
	now, err := timeOf(fd)
	if err != nil {
		return err
	}
	return fs.setMark(fd, "", soughtMark, []byte(now))
}

// nameBelow makes the names, below n, of inodes in the index names of the upper.
func (fs *FS) nameBelow(c *Caller, n *Node, open indexEntries) error {
	return fs.each(c, n, func(e *Entry) error {
		if e.Type != unix.DT_DIR && open[e.Ino] == "" {
			return nil
		}
		return fs.within(c, n, e.Name, func(child *Node) error {
			switch {
			case child.isDir():
				return fs.nameBelow(c, child, open)
			case child.x != nil && child.x.index != "" && child.x.index == open[e.Ino]:
				return fs.giveName(c, n, e.Name, child)
			}
			return nil
		})
	})
}

// dropWhole removes the entries of inodes that have all their names in the upper, and returns the
// others.
func (fs *FS) dropWhole() (indexEntries, error) {
	fd, err := fs.indexd.FD()
	if err != nil {
		return nil, err
	}
	defer fs.indexd.Done()
	ents, err := layer.ReadDir(fd)
	if err != nil {
		return nil, err
	}
	open := indexEntries{}
	for _, e := range ents {
		var st Attr
		// Directories and whiteouts are there for nfs_export.
		if layer.Stat(fd, e.Name, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR ||
			whiteout.IsWhiteoutDev(uint32(st.Mode), st.Rdev_major, st.Rdev_minor) {
			continue
		}
		key, _, ok := fs.readOrigin(fd, e.Name)
		if !ok {
			continue
		}
		var buf [32]byte
		nl, err := whiteout.ParseNlink(fs.mark(fd, e.Name, "nlink", buf[:]))
		if err != nil || !nl.FromUpper || nl.Diff != -1 || st.Nlink < 2 {
			open[packIno(key.fs, key.ino)] = e.Name
			continue
		}
		if err := fs.setMark(fd, "", linksMark, []byte("y")); err != nil {
			return nil, err
		}
		if err := fs.dropEntry(fd, e.Name); err != nil {
			return nil, err
		}
	}
	return open, nil
}

// dropEntry removes an entry, and only then its inode's mark, by which the entry does not count.
func (fs *FS) dropEntry(index int, name string) error {
	fd, err := layer.Open(index, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := layer.Unlink(index, name); err != nil {
		return err
	}
	fs.crash("dropped")
	return layer.Removexattr(fd, "", fs.attr("nlink"))
}
