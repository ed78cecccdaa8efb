package overlay

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
)

// Commands of linux/fs.h that have no constant in x/sys, for 64-bit machines.
const (
	fsIocFSGetXattr = 0x801c581f
	fsIocFSSetXattr = 0x401c5820
	fsIocGetVersion = 0x80087601
	fsxattrSize     = 28
)

// Ioctl serves the file flags (lsattr, chattr) and the project id: they live on the
// upper file, which a change brings into being. Everything else is ENOTTY.
func (fs *FS) Ioctl(c *Caller, n *Node, cmd uint32, in, out []byte) (int32, error) {
	switch cmd {
	case unix.FS_IOC_GETFLAGS, fsIocFSGetXattr, fsIocGetVersion:
		fd, err := fs.openFlags(n)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		if err := passIoctl(fd, cmd, nil, out); err != nil || len(out) < 4 || cmd == fsIocGetVersion {
			return 0, err
		}
		showGuard(cmd, fs.guard(n), out)
		return 0, nil
	case unix.FS_IOC_SETFLAGS, fsIocFSSetXattr:
		if cmd == fsIocFSSetXattr && len(in) < fsxattrSize || len(in) < 4 {
			return 0, unix.EINVAL
		}
		if fs.upper == nil {
			return 0, errReadOnly
		}
		if same, err := fs.sameFlags(n, cmd, in); err != nil || same {
			return 0, err
		}
		if err := fs.copyUp(c, n, need{cause: cow.CauseSetflags, size: -1, whole: true}); err != nil {
			return 0, err
		}
		if err := fs.complete(c, n); err != nil {
			return 0, err
		}
		fs.files.evict(n)
		fd, err := fs.openFlags(n)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		// The file itself keeps neither flag, nor one it may have from elsewhere: marked it could not be.
		g := takeGuard(cmd, in)
		if err := passIoctl(fd, cmd, in, nil); err != nil {
			return 0, err
		}
		return 0, fs.setGuard(n, g)
	}
	return 0, unix.ENOTTY
}

// sameFlags: setting what is set already copies nothing up.
func (fs *FS) sameFlags(n *Node, cmd uint32, in []byte) (bool, error) {
	if cmd != unix.FS_IOC_SETFLAGS || n.upper.Load() {
		return false, nil
	}
	fd, err := fs.openFlags(n)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	old, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return false, err
	}
	return old == binary.NativeEndian.Uint32(in), nil
}

func (fs *FS) openFlags(n *Node) (int, error) {
	if n.typ != unix.S_IFREG && n.typ != unix.S_IFDIR {
		return -1, unix.ENOTTY
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	p, err := n.place()
	if err != nil {
		return -1, err
	}
	defer p.done()
	fd, err := layer.Open(p.fd, p.name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err == unix.EACCES && n.upper.Load() {
		return fs.openAnyway(p)
	}
	return fd, err
}

// passIoctl hands a command with a flat argument to a file of a layer.
func passIoctl(fd int, cmd uint32, in, out []byte) error {
	var arg [fsxattrSize + 4]byte
	copy(arg[:], in)
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&arg[0])))
	if e != 0 {
		return e
	}
	copy(out, arg[:])
	return nil
}
