package overlay

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// Append-only and immutable objects (chattr +a, +i). In a lower layer they have the flag; in the upper a
// mark instead, so that the union itself can go on working on them, and on what is in them (kernel:
// ovl_set_protattr). What the VFS checks by S_APPEND and S_IMMUTABLE is checked here: the kernel knows
// nothing of either on a FUSE inode.

// guard is what an object's flags forbid.
type guard uint32

const (
	guardAppend guard = 1 << iota
	guardImmutable
	guardKnown // in Node.guard: has been looked up
)

// guard returns the flags of n. No lock is held. What cannot be read forbids nothing.
func (fs *FS) guard(n *Node) guard {
	if g := guard(n.guard.Load()); g != 0 {
		return g &^ guardKnown
	}
	if n.typ != unix.S_IFREG && n.typ != unix.S_IFDIR {
		return 0
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	p, err := n.place()
	if err != nil {
		return 0
	}
	defer p.done()
	g, err := fs.guardAt(p, n.upper.Load())
	if err != nil {
		return 0
	}
	n.guard.Store(uint32(g | guardKnown))
	return g
}

// guardAt reads the flags of an object: a mark counts in the upper alone (kernel: ovl_get_inode).
func (fs *FS) guardAt(p pin, upper bool) (g guard, err error) {
	var st Attr
	if err := layer.Stat(p.fd, p.name, &st); err != nil {
		return 0, err
	}
	g = guardOf(&st)
	if !upper && g != 0 && !hasFlags(p) {
		return 0, nil
	}
	if upper {
		var buf [16]byte
		mark := whiteout.ParseProtAttr(fs.mark(p.fd, p.name, "protattr", buf[:]))
		if mark.Append {
			g |= guardAppend
		}
		if mark.Immutable {
			g |= guardImmutable
		}
	}
	return g, nil
}

// guardOf returns the flags that the filesystem of an object reports.
func guardOf(st *Attr) (g guard) {
	if st.Attributes&unix.STATX_ATTR_APPEND != 0 {
		g |= guardAppend
	}
	if st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0 {
		g |= guardImmutable
	}
	return g
}

// hasFlags says whether the filesystem of an object has flags at all, as far as that can be found out. EROFS shows
// everything in it as immutable and has none: as a layer it is like any other (kernel: ovl_copyflags goes by the inode's).
func hasFlags(p pin) bool {
	fd, err := openQuiet(p.fd, p.name)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	_, err = unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	return err != unix.ENOTTY && err != unix.EOPNOTSUPP
}

// guarded returns EPERM if n has one of the flags.
func (fs *FS) guarded(n *Node, flags guard) error {
	if fs.guard(n)&flags != 0 {
		return unix.EPERM
	}
	return nil
}

// mayAdd says whether a directory takes a new name (kernel: may_create).
func (fs *FS) mayAdd(parent *Node) error { return fs.guarded(parent, guardImmutable) }

// mayTake says whether the name of n may be taken from its directory (kernel: may_delete).
func (fs *FS) mayTake(parent, n *Node) error {
	if err := fs.guarded(parent, guardAppend|guardImmutable); err != nil {
		return err
	}
	return fs.guarded(n, guardAppend|guardImmutable)
}

// mayPut says whether a name of a directory may come to be another object; target is the one it is, if any.
func (fs *FS) mayPut(parent, target *Node) error {
	if target == nil {
		return fs.mayAdd(parent)
	}
	return fs.mayTake(parent, target)
}

// maySet says whether attributes may be changed (kernel: may_setattr, and vfs_truncate for the size).
func (fs *FS) maySet(n *Node, mask uint32) error {
	const given = SetMode | SetUID | SetGID | SetSize
	const now = SetAtimeNow | SetMtimeNow
	switch {
	case mask&given != 0:
	case mask&now == now:
		return fs.guarded(n, guardImmutable)
	case mask&(SetAtime|SetMtime|now) == 0:
		return nil
	}
	return fs.guarded(n, guardAppend|guardImmutable)
}

// MayOpen says whether n may be written to through a descriptor with these flags of open(2): EPERM where an
// append-only file was not opened for appending, or the file is immutable (kernel: may_open).
func (fs *FS) MayOpen(n *Node, flags uint32) error {
	if flags&unix.O_ACCMODE == unix.O_RDONLY && flags&unix.O_TRUNC == 0 {
		return nil
	}
	g := guardImmutable
	if flags&unix.O_APPEND == 0 || flags&unix.O_TRUNC != 0 {
		g |= guardAppend
	}
	return fs.guarded(n, g)
}

// Guarded says whether n is append-only: the kernel must not write to it by itself, as it does not know.
func (fs *FS) Guarded(n *Node) bool { return fs.guard(n)&guardAppend != 0 }

// mayWrite says whether p may be written at off. Of an append-only file what is there stays; pages that the
// kernel writes back begin with it.
func (fs *FS) mayWrite(n *Node, p []byte, off int64) error {
	g := fs.guard(n)
	if g == 0 {
		return nil
	}
	if g&guardImmutable != 0 {
		return unix.EPERM
	}
	var a Attr
	if err := fs.Getattr(n, &a); err != nil {
		return err
	}
	below := min(int64(a.Size)-off, int64(len(p)))
	if below <= 0 {
		return nil
	}
	old := make([]byte, below)
	if m, err := fs.ReadAt(n, old, off); err != nil {
		return err
	} else if !bytes.Equal(old[:m], p[:m]) {
		return unix.EPERM
	}
	return nil
}

// guardBits are the two flags in the argument of an ioctl, whose first four bytes have them (FS_*_FL, and
// FS_XFLAG_* of struct fsxattr).
func guardBits(cmd uint32) (appendOnly, immutable uint32) {
	if cmd == fsIocFSGetXattr || cmd == fsIocFSSetXattr {
		return 0x10, 0x8
	}
	return 0x20, 0x10
}

// showGuard adds what the mark says to the flags of an upper file.
func showGuard(cmd uint32, g guard, out []byte) {
	a, i := guardBits(cmd)
	flags := binary.NativeEndian.Uint32(out)
	if g&guardAppend != 0 {
		flags |= a
	}
	if g&guardImmutable != 0 {
		flags |= i
	}
	binary.NativeEndian.PutUint32(out, flags)
}

// takeGuard takes the two flags out of the argument of an ioctl.
func takeGuard(cmd uint32, in []byte) (g guard) {
	a, i := guardBits(cmd)
	flags := binary.NativeEndian.Uint32(in)
	if flags&a != 0 {
		g |= guardAppend
	}
	if flags&i != 0 {
		g |= guardImmutable
	}
	binary.NativeEndian.PutUint32(in, flags&^(a|i))
	return g
}

// setGuard writes the mark of an upper object; EPERM where it can have none (kernel: ovl_set_protattr).
func (fs *FS) setGuard(n *Node, g guard) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	p, err := n.place()
	if err != nil {
		return err
	}
	defer p.done()
	if g == 0 {
		if err := layer.Removexattr(p.fd, p.name, fs.attr("protattr")); err != nil && err != unix.ENODATA && !noSupport(err) {
			return err
		}
	} else {
		mark := whiteout.ProtAttr{Append: g&guardAppend != 0, Immutable: g&guardImmutable != 0}
		if err := fs.setMark(p.fd, p.name, "protattr", mark.Encode()); noSupport(err) {
			return unix.EPERM
		} else if err != nil {
			return err
		}
	}
	n.guard.Store(uint32(g | guardKnown))
	return nil
}
