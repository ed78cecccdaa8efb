package differ

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tree is a filesystem that operations run on: a mounted one ([sysTree]), or the union itself,
// without FUSE ([coreTree]). Paths are relative to its root; errors are errnos; symbolic
// links at the end of a path are not followed, and none are in the middle.
type tree interface {
	open(p string, flags int, mode uint32) (handle, error)
	lstat(p string) (unix.Stat_t, error)
	truncate(p string, size int64) error
	mkdir(p string, mode uint32) error
	rmdir(p string) error
	unlink(p string) error
	rename(p, q string, flags uint) error
	link(p, q string) error
	symlink(target, p string) error
	mknod(p string, mode uint32, dev int) error
	chmod(p string, mode uint32) error
	chown(p string, uid, gid int) error
	utimens(p string, ts [2]unix.Timespec) error
	setxattr(p, name string, val []byte, flags int) error
	removexattr(p, name string) error
	getxattr(p, name string) ([]byte, error)
	listxattr(p string) ([]string, error)
	readlink(p string) (string, error)
}

// handle is an open file of a tree.
type handle interface {
	pread(b []byte, off int64) (int, error)
	pwrite(b []byte, off int64) (int, error)
	append(b []byte) (int, error)
	stat() (unix.Stat_t, error)
	truncate(size int64) error
	chmod(mode uint32) error
	chown(uid, gid int) error
	utimens(ts [2]unix.Timespec) error
	link(p string) error
	sync() error
	setxattr(name string, val []byte) error
	fallocate(mode uint32, off, size int64) error
	seek(off int64, whence int) (int64, error) // SEEK_DATA, SEEK_HOLE
	copyTo(to handle, off, offTo, size int64) (int, error)
	entries() ([]dirent, error)
	some() ([]dirent, error) // a few, from where the last ones ended; none at the end
	rewind() error           // to the start
	close() error
}

// sysTree is a directory, by way of system calls.
type sysTree string

func (t sysTree) path(p string) string { return filepath.Join(string(t), p) }

func (t sysTree) open(p string, flags int, mode uint32) (handle, error) {
	if st, err := t.lstat(p); err == nil && flags&(unix.O_EXCL|unix.O_DIRECTORY) == 0 {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR:
			return nil, errSpecial
		}
	}
	fd, err := again(func() (int, error) {
		return unix.Open(t.path(p), flags|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, mode)
	})
	if err != nil {
		return nil, err
	}
	return &sysHandle{t, fd}, nil
}

func (t sysTree) lstat(p string) (st unix.Stat_t, err error) {
	return st, unix.Lstat(t.path(p), &st)
}

func (t sysTree) truncate(p string, size int64) error {
	return again0(func() error { return unix.Truncate(t.path(p), size) })
}

func (t sysTree) mkdir(p string, mode uint32) error {
	return again0(func() error { return unix.Mkdir(t.path(p), mode) })
}

func (t sysTree) rmdir(p string) error {
	return again0(func() error { return unix.Rmdir(t.path(p)) })
}

func (t sysTree) unlink(p string) error {
	return again0(func() error { return unix.Unlink(t.path(p)) })
}

func (t sysTree) rename(p, q string, flags uint) error {
	return again0(func() error { return unix.Renameat2(unix.AT_FDCWD, t.path(p), unix.AT_FDCWD, t.path(q), flags) })
}

func (t sysTree) link(p, q string) error {
	return again0(func() error { return unix.Link(t.path(p), t.path(q)) })
}

func (t sysTree) symlink(target, p string) error {
	return again0(func() error { return unix.Symlink(target, t.path(p)) })
}

func (t sysTree) mknod(p string, mode uint32, dev int) error {
	return again0(func() error { return unix.Mknod(t.path(p), mode, dev) })
}

func (t sysTree) chmod(p string, mode uint32) error {
	return again0(func() error { return unix.Fchmodat(unix.AT_FDCWD, t.path(p), mode, unix.AT_SYMLINK_NOFOLLOW) })
}

func (t sysTree) chown(p string, uid, gid int) error {
	return again0(func() error { return unix.Lchown(t.path(p), uid, gid) })
}

func (t sysTree) utimens(p string, ts [2]unix.Timespec) error {
	return again0(func() error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, t.path(p), ts[:], unix.AT_SYMLINK_NOFOLLOW)
	})
}

func (t sysTree) setxattr(p, name string, val []byte, flags int) error {
	return again0(func() error { return unix.Lsetxattr(t.path(p), name, val, flags) })
}

func (t sysTree) removexattr(p, name string) error {
	return again0(func() error { return unix.Lremovexattr(t.path(p), name) })
}

func (t sysTree) getxattr(p, name string) ([]byte, error) {
	buf := make([]byte, 4096)
	n, err := unix.Lgetxattr(t.path(p), name, buf)
	return buf[:max(n, 0)], err
}

func (t sysTree) listxattr(p string) ([]string, error) {
	buf := make([]byte, 16<<10)
	n, err := unix.Llistxattr(t.path(p), buf)
	if err != nil || n == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"), nil
}

func (t sysTree) readlink(p string) (string, error) {
	s, err := os.Readlink(t.path(p))
	return s, err
}

type sysHandle struct {
	t  sysTree
	fd int
}

func (h *sysHandle) pread(b []byte, off int64) (int, error) {
	return again(func() (int, error) { return unix.Pread(h.fd, b, off) })
}

func (h *sysHandle) pwrite(b []byte, off int64) (int, error) {
	return again(func() (int, error) { return unix.Pwrite(h.fd, b, off) })
}

func (h *sysHandle) append(b []byte) (int, error) {
	return again(func() (int, error) { return unix.Write(h.fd, b) })
}

func (h *sysHandle) stat() (st unix.Stat_t, err error) { return st, unix.Fstat(h.fd, &st) }

func (h *sysHandle) truncate(size int64) error {
	return again0(func() error { return unix.Ftruncate(h.fd, size) })
}

func (h *sysHandle) chmod(mode uint32) error {
	return again0(func() error { return unix.Fchmod(h.fd, mode) })
}

func (h *sysHandle) chown(uid, gid int) error {
	return again0(func() error { return unix.Fchown(h.fd, uid, gid) })
}

func (h *sysHandle) utimens(ts [2]unix.Timespec) error {
	return again0(func() error {
		_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(h.fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
		if e != 0 {
			return e
		}
		return nil
	})
}

func (h *sysHandle) link(p string) error {
	return again0(func() error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", h.fd), unix.AT_FDCWD, h.t.path(p), unix.AT_SYMLINK_FOLLOW)
	})
}

func (h *sysHandle) sync() error { return again0(func() error { return unix.Fsync(h.fd) }) }

func (h *sysHandle) setxattr(name string, val []byte) error {
	return again0(func() error { return unix.Fsetxattr(h.fd, name, val, 0) })
}

func (h *sysHandle) fallocate(mode uint32, off, size int64) error {
	return again0(func() error { return unix.Fallocate(h.fd, mode, off, size) })
}

func (h *sysHandle) seek(off int64, whence int) (int64, error) { return unix.Seek(h.fd, off, whence) }

func (h *sysHandle) copyTo(to handle, off, offTo, size int64) (int, error) {
	return again(func() (int, error) {
		return unix.CopyFileRange(h.fd, &off, to.(*sysHandle).fd, &offTo, int(size), 0)
	})
}

func (h *sysHandle) entries() ([]dirent, error) {
	if _, err := unix.Seek(h.fd, 0, 0); err != nil {
		return nil, err
	}
	var out []dirent
	for {
		more, err := h.getdents(8 << 10)
		if err != nil {
			return nil, err
		}
		if len(more) == 0 {
			return out, nil
		}
		out = append(out, more...)
	}
}

func (h *sysHandle) some() ([]dirent, error) { return h.getdents(80) }

func (h *sysHandle) rewind() error {
	_, err := unix.Seek(h.fd, 0, 0)
	return err
}

// getdents is getdents64(2) with room for size bytes.
func (h *sysHandle) getdents(size int) ([]dirent, error) {
	buf := make([]byte, size)
	n, err := again(func() (int, error) { return unix.Getdents(h.fd, buf) })
	if err != nil {
		return nil, err
	}
	var out []dirent
	for b := buf[:n]; len(b) > 19; {
		size := int(b[16]) | int(b[17])<<8
		name, _, _ := strings.Cut(string(b[19:size]), "\x00")
		ino := uint64(0)
		for i := range 8 {
			ino |= uint64(b[i]) << (8 * i)
		}
		out = append(out, dirent{name, ino, b[18]})
		b = b[size:]
	}
	return out, nil
}

func (h *sysHandle) close() error { return unix.Close(h.fd) }
