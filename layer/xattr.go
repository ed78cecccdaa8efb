package layer

import (
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The *xattrat system calls of Linux 6.13 take a descriptor and a name. Before that
// the way is a path through /proc/self/fd, and the calls that follow no link.
const (
	sysSetxattrat    = 463
	sysGetxattrat    = 464
	sysListxattrat   = 465
	sysRemovexattrat = 466
)

var noXattrat atomic.Bool

// xattrArgs is struct xattr_args of linux/xattr.h.
type xattrArgs struct {
	value unsafe.Pointer // 64 bits in the kernel's interface, and so only on such machines
	size  uint32
	flags uint32
}

// viaProc calls f with a path that stands for the object and is safe to use with the
// l*xattr calls (follow false) or with the others (a magic link that must be followed).
func viaProc(fd int, name string, follow, nofollow func(path string) error) error {
	if name == "" {
		return follow(procPath(fd, ""))
	}
	return nofollow(procPath(fd, name))
}

// tryProc says whether an error of xattrat leaves the way through /proc: on an old kernel, and for
// descriptors opened with O_PATH, which the system calls do not take for the object itself.
func tryProc(name string, e unix.Errno) bool {
	return e == unix.ENOSYS || e == unix.EBADF && name == ""
}

// xattrat makes one of the calls. Its pointers come as numbers, which the runtime does not
// correct when it moves a stack that has grown: the directive keeps what they point to, and
// what that points to, on the heap.
//
//go:uintptrescapes
func xattrat(nr uintptr, fd int, name string, arg4, arg5, arg6 uintptr) (int, unix.Errno) {
	flags := uintptr(unix.AT_SYMLINK_NOFOLLOW)
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var buf [unix.NAME_MAX + 1]byte
	n, _, e := unix.Syscall6(nr, uintptr(fd), uintptr(unsafe.Pointer(cstring(buf[:], name))), flags, arg4, arg5, arg6)
	if e == unix.ENOSYS {
		noXattrat.Store(true)
	}
	return int(n), e
}

// Getxattr copies the value of an attribute to buf and returns its length; with an empty
// buf only the length.
func Getxattr(fd int, name, attr string, buf []byte) (int, error) {
	if !noXattrat.Load() {
		var attrBuf [128]byte
		args := xattrArgs{size: uint32(len(buf))}
		if len(buf) > 0 {
			args.value = unsafe.Pointer(&buf[0])
		}
		n, e := xattrat(sysGetxattrat, fd, name, uintptr(unsafe.Pointer(cstring(attrBuf[:], attr))), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
		keepAlive(buf)
		if e == 0 {
			return n, nil
		}
		if !tryProc(name, e) {
			return 0, e
		}
	}
	n := 0
	err := viaProc(fd, name,
		func(p string) (err error) { n, err = unix.Getxattr(p, attr, buf); return err },
		func(p string) (err error) { n, err = unix.Lgetxattr(p, attr, buf); return err })
	return n, err
}

// GetxattrAll returns the value of an attribute.
func GetxattrAll(fd int, name, attr string) ([]byte, error) {
	var small [512]byte
	n, err := Getxattr(fd, name, attr, small[:])
	if err == nil {
		return append([]byte(nil), small[:n]...), nil
	}
	for err == unix.ERANGE {
		if n, err = Getxattr(fd, name, attr, nil); err != nil {
			break
		}
		buf := make([]byte, n+64)
		if n, err = Getxattr(fd, name, attr, buf); err == nil {
			return buf[:n], nil
		}
	}
	return nil, err
}

// Setxattr sets an attribute; flags are XATTR_CREATE and XATTR_REPLACE.
func Setxattr(fd int, name, attr string, val []byte, flags int) error {
	if !noXattrat.Load() {
		var attrBuf [128]byte
		args := xattrArgs{size: uint32(len(val)), flags: uint32(flags)}
		if len(val) > 0 {
			args.value = unsafe.Pointer(&val[0])
		}
		_, e := xattrat(sysSetxattrat, fd, name, uintptr(unsafe.Pointer(cstring(attrBuf[:], attr))), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
		keepAlive(val)
		if e == 0 {
			return nil
		}
		if !tryProc(name, e) {
			return e
		}
	}
	return viaProc(fd, name,
		func(p string) error { return unix.Setxattr(p, attr, val, flags) },
		func(p string) error { return unix.Lsetxattr(p, attr, val, flags) })
}

// Removexattr removes an attribute.
func Removexattr(fd int, name, attr string) error {
	if !noXattrat.Load() {
		var attrBuf [128]byte
		_, e := xattrat(sysRemovexattrat, fd, name, uintptr(unsafe.Pointer(cstring(attrBuf[:], attr))), 0, 0)
		if e == 0 {
			return nil
		}
		if !tryProc(name, e) {
			return e
		}
	}
	return viaProc(fd, name,
		func(p string) error { return unix.Removexattr(p, attr) },
		func(p string) error { return unix.Lremovexattr(p, attr) })
}

// ListxattrRaw copies the names of all attributes, each ended by a NUL, to buf and returns
// their length; with an empty buf only the length.
func ListxattrRaw(fd int, name string, buf []byte) (int, error) {
	if !noXattrat.Load() {
		var p unsafe.Pointer
		if len(buf) > 0 {
			p = unsafe.Pointer(&buf[0])
		}
		n, e := xattrat(sysListxattrat, fd, name, uintptr(p), uintptr(len(buf)), 0)
		keepAlive(buf)
		if e == 0 {
			return n, nil
		}
		if !tryProc(name, e) {
			return 0, e
		}
	}
	n := 0
	err := viaProc(fd, name,
		func(p string) (err error) { n, err = unix.Listxattr(p, buf); return err },
		func(p string) (err error) { n, err = unix.Llistxattr(p, buf); return err })
	return n, err
}

// Listxattr returns the names of all attributes.
func Listxattr(fd int, name string) ([]string, error) {
	buf := make([]byte, 512)
	for {
		n, err := ListxattrRaw(fd, name, buf)
		if err == nil {
			if n == 0 {
				return nil, nil
			}
			return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"), nil
		}
		if err != unix.ERANGE {
			return nil, err
		}
		if n, err = ListxattrRaw(fd, name, nil); err != nil {
			return nil, err
		}
		buf = make([]byte, n+256)
	}
}
