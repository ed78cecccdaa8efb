package differ

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// coreHandle is an open file of a coreTree: a reference to its node.
type coreHandle struct {
	t     *coreTree
	n     *overlay.Node
	flags int
	root  bool   // no reference to give back
	pos   uint64 // of some
}

// may says whether the descriptor was opened for reading, or for writing.
func (h *coreHandle) may(write bool) error {
	mode := h.flags & unix.O_ACCMODE
	if write && mode == unix.O_RDONLY || !write && mode == unix.O_WRONLY {
		return unix.EBADF
	}
	if h.n.Mode() == unix.S_IFDIR {
		return unix.EISDIR
	}
	return nil
}

func (h *coreHandle) pread(b []byte, off int64) (int, error) {
	if err := h.may(false); err != nil {
		return 0, err
	}
	n, err := h.t.fs.ReadAt(h.n, b, off)
	return n, errno(err)
}

func (h *coreHandle) pwrite(b []byte, off int64) (int, error) {
	if err := h.may(true); err != nil {
		return 0, err
	}
	if err := h.t.fs.MayOpen(h.n, uint32(h.flags&^unix.O_TRUNC)); err != nil { // asked at each write
		return 0, errno(err)
	}
	if h.flags&unix.O_APPEND != 0 { // whatever the offset (pwrite(2))
		st, err := h.stat()
		if err != nil {
			return 0, err
		}
		off = st.Size
	}
	n, err := h.t.fs.WriteAt(&h.t.caller, h.n, b, off, false)
	return n, errno(err)
}

func (h *coreHandle) append(b []byte) (int, error) { return h.pwrite(b, 0) }

func (h *coreHandle) stat() (unix.Stat_t, error) { return h.t.stat(h.n) }

func (h *coreHandle) truncate(size int64) error {
	if err := h.may(true); err != nil {
		return unix.EINVAL
	}
	var a overlay.Attr
	return errno(h.t.fs.Setattr(&h.t.caller, h.n, &overlay.SetAttr{Mask: overlay.SetSize, Size: size}, &a))
}

func (h *coreHandle) chmod(mode uint32) error {
	var a overlay.Attr
	return errno(h.t.fs.Setattr(&h.t.caller, h.n, &overlay.SetAttr{Mask: overlay.SetMode, Mode: mode}, &a))
}

func (h *coreHandle) chown(uid, gid int) error { return errno(h.t.setNode(h.n, setOwner(uid, gid))) }

func (h *coreHandle) utimens(ts [2]unix.Timespec) error {
	s := setTimes(ts)
	if s.Mask == 0 {
		return nil
	}
	return errno(h.t.setNode(h.n, s))
}

func (h *coreHandle) link(p string) error {
	return h.t.linkOpen(h, p)
}

// linkOpen links an open file: one whose names are gone stays without (fs/namei.c, vfs_link).
func (t *coreTree) linkOpen(h *coreHandle, p string) error {
	st, err := h.stat()
	if err != nil {
		return err
	}
	if err := t.in(p, func(dir *overlay.Node, name string) error { return t.absent(dir, name) }); err != nil {
		return err
	}
	if st.Nlink == 0 && (h.flags&unix.O_TMPFILE != unix.O_TMPFILE || h.flags&unix.O_EXCL != 0) {
		return unix.ENOENT
	}
	return t.linkNode(h.n, p)
}

func (h *coreHandle) sync() error {
	if h.n.Mode() == unix.S_IFDIR {
		return errno(h.t.fs.FsyncDir(h.n))
	}
	return errno(h.t.fs.Fsync(h.n, false))
}

func (h *coreHandle) setxattr(name string, val []byte) error {
	if err := mayXattr(h.n, name, false); err != nil {
		return err
	}
	return errno(h.t.fs.Setxattr(&h.t.caller, h.n, name, val, 0, false))
}

func (h *coreHandle) fallocate(mode uint32, off, size int64) error {
	if err := h.may(true); err != nil {
		return unix.EBADF
	}
	return errno(h.t.fs.Fallocate(&h.t.caller, h.n, mode, off, size))
}

func (h *coreHandle) seek(off int64, whence int) (int64, error) {
	if st, err := h.stat(); err != nil || off >= st.Size {
		return 0, unix.ENXIO
	}
	n, err := h.t.fs.Seek(h.n, off, whence)
	return n, errno(err)
}

func (h *coreHandle) copyTo(to handle, off, offTo, size int64) (int, error) {
	o := to.(*coreHandle)
	if err := h.may(false); err != nil {
		return 0, err
	}
	st, err := h.stat()
	if err != nil {
		return 0, err
	}
	if size = min(size, st.Size-off); size <= 0 {
		return 0, nil
	}
	if o.n == h.n && off < offTo+size && offTo < off+size {
		return 0, unix.EINVAL
	}
	n, err := h.t.fs.CopyRange(&h.t.caller, h.n, off, o.n, offTo, size)
	return int(n), errno(err)
}

func (h *coreHandle) entries() ([]dirent, error) {
	if h.n.Mode() != unix.S_IFDIR {
		return nil, unix.ENOTDIR
	}
	if h.t.dead[h.n] { // as the kernel says without asking
		return nil, unix.ENOENT
	}
	var out []dirent
	buf := make([]overlay.Entry, 7)
	for off := uint64(0); ; {
		n, err := h.t.fs.ReadDir(h.n, off, buf)
		if err != nil {
			return nil, errno(err)
		}
		if n == 0 {
			return out, nil
		}
		for _, e := range buf[:n] {
			out = append(out, dirent{e.Name, e.Ino, e.Type})
			off = e.Off
		}
	}
}

func (h *coreHandle) rewind() error {
	h.pos = 0
	return nil
}

func (h *coreHandle) some() ([]dirent, error) {
	if h.n.Mode() != unix.S_IFDIR {
		return nil, unix.ENOTDIR
	}
	if h.t.dead[h.n] {
		return nil, unix.ENOENT
	}
	buf := make([]overlay.Entry, 3)
	n, err := h.t.fs.ReadDir(h.n, h.pos, buf)
	var out []dirent
	for _, e := range buf[:max(n, 0)] {
		out = append(out, dirent{e.Name, e.Ino, e.Type})
		h.pos = e.Off
	}
	return out, errno(err)
}

func (h *coreHandle) close() error {
	if !h.root {
		h.t.fs.Forget(h.n.ID(), 1)
	}
	return nil
}
