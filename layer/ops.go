package layer

import (
	"strconv"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cstring copies s, with a NUL, into buf, or into new memory if that is too small.
func cstring(buf []byte, s string) *byte {
	if len(s)+1 > len(buf) {
		buf = make([]byte, len(s)+1)
	}
	n := copy(buf, s)
	buf[n] = 0
	return &buf[0]
}

// procPath is the magic link of a descriptor, with name beneath it if there is one.
func procPath(fd int, name string) string {
	p := "/proc/self/fd/" + strconv.Itoa(fd)
	if name != "" {
		p += "/" + name
	}
	return p
}

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// Stat fills st with the attributes of an object, birth time included where there is one.
func Stat(fd int, name string, st *unix.Statx_t) error {
	flags := uintptr(unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT)
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var buf [unix.NAME_MAX + 1]byte
	p := cstring(buf[:], name)
	for mask := uintptr(statMask); ; {
		_, _, e := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(p)), flags, mask, uintptr(unsafe.Pointer(st)), 0)
		switch {
		case e == 0:
			return nil
		case e == unix.EINTR:
			continue
		case e == unix.ENOENT && name == "" && mask == statMask:
			// A file that lost its name. FUSE asks another request for the birth time, and there are servers
			// (go-fuse's loopback) that have forgotten such a file in that one only.
			mask = unix.STATX_BASIC_STATS
			continue
		}
		return e
	}
}

// Open opens an object, without following a link (ELOOP). With an empty name the
// object of fd is opened anew: a directory, or by way of /proc anything else.
func Open(fd int, name string, flags int, mode uint32) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_LARGEFILE
	if name == "" {
		if flags&(unix.O_DIRECTORY|unix.O_TMPFILE) != 0 {
			return openat(fd, ".", flags, mode)
		}
		f, err := openat(unix.AT_FDCWD, procPath(fd, ""), flags, mode)
		if err == unix.ENOENT || err == unix.ENOTDIR { // no /proc
			return openat(fd, ".", flags|unix.O_DIRECTORY, mode)
		}
		return f, err
	}
	return openat(fd, name, flags|unix.O_NOFOLLOW, mode)
}

func openat(fd int, path string, flags int, mode uint32) (int, error) {
	for {
		f, err := unix.Openat(fd, path, flags, mode)
		if err != unix.EINTR {
			return f, err
		}
	}
}

// Readlink returns the target of a symbolic link.
func Readlink(fd int, name string) (string, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Readlinkat(fd, name, buf)
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
		buf = make([]byte, 2*len(buf))
	}
}

// Mkdir makes a directory; the process' umask applies.
func Mkdir(fd int, name string, mode uint32) error { return unix.Mkdirat(fd, name, mode) }

// Mknod makes an object of the type in mode; dev is as unix.Mkdev makes it.
func Mknod(fd int, name string, mode uint32, dev int) error {
	return unix.Mknodat(fd, name, mode, dev)
}

// Symlink makes a symbolic link called name.
func Symlink(target string, fd int, name string) error { return unix.Symlinkat(target, fd, name) }

// Link gives an object a further name. The object is not followed if it is a link.
func Link(ofd int, oname string, nfd int, nname string) error {
	if oname == "" {
		return LinkFD(ofd, nfd, nname)
	}
	return unix.Linkat(ofd, oname, nfd, nname, 0)
}

// LinkFD gives the object of a descriptor a further name. That takes
// CAP_DAC_READ_SEARCH, or /proc.
func LinkFD(fd int, nfd int, nname string) error {
	err := unix.Linkat(fd, "", nfd, nname, unix.AT_EMPTY_PATH)
	if err == unix.ENOENT || err == unix.EPERM {
		err = unix.Linkat(unix.AT_FDCWD, procPath(fd, ""), nfd, nname, unix.AT_SYMLINK_FOLLOW)
	}
	return err
}

// Unlink removes a name that is not a directory.
func Unlink(fd int, name string) error { return unix.Unlinkat(fd, name, 0) }

// Rmdir removes an empty directory.
func Rmdir(fd int, name string) error { return unix.Unlinkat(fd, name, unix.AT_REMOVEDIR) }

// Rename is renameat2(2).
func Rename(ofd int, oname string, nfd int, nname string, flags uint) error {
	return unix.Renameat2(ofd, oname, nfd, nname, flags)
}

const sysFchmodat2 = 452 // Linux 6.6

var noFchmodat2 atomic.Bool

// Chmod sets the permission, set-id and sticky bits. A symbolic link is EOPNOTSUPP.
func Chmod(fd int, name string, mode uint32) error {
	if !noFchmodat2.Load() {
		flags := uintptr(unix.AT_SYMLINK_NOFOLLOW)
		if name == "" {
			flags |= unix.AT_EMPTY_PATH
		}
		var buf [unix.NAME_MAX + 1]byte
		_, _, e := unix.Syscall6(sysFchmodat2, uintptr(fd), uintptr(unsafe.Pointer(cstring(buf[:], name))), uintptr(mode), flags, 0, 0)
		switch e {
		case 0:
			return nil
		case unix.ENOSYS:
			noFchmodat2.Store(true)
		default:
			return e
		}
	}
	// An O_PATH descriptor holds the object, so that it cannot be a link.
	own, err := Open(fd, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(own)
	var st unix.Statx_t
	if err := Stat(own, "", &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	return unix.Chmod(procPath(own, ""), mode)
}

// Chown sets owner and group; -1 leaves one as it is.
func Chown(fd int, name string, uid, gid int) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return unix.Fchownat(fd, name, uid, gid, flags)
}

// Utimens sets access and modification time, UTIME_NOW and UTIME_OMIT included.
func Utimens(fd int, name string, ts *[2]unix.Timespec) error {
	flags := uintptr(unix.AT_SYMLINK_NOFOLLOW)
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var buf [unix.NAME_MAX + 1]byte
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), uintptr(unsafe.Pointer(cstring(buf[:], name))), uintptr(unsafe.Pointer(ts)), flags, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// Handle returns the file handle of an object (name_to_handle_at(2)).
func Handle(fd int, name string) (unix.FileHandle, error) {
	flags := 0
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	h, _, err := unix.NameToHandleAt(fd, name, flags)
	return h, err
}

// RemoveAll removes an object with everything in it. What is gone already is no error.
func RemoveAll(fd int, name string) error {
	err := Unlink(fd, name)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	dir, err := Open(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.EACCES {
		if err = Chmod(fd, name, 0o700); err == nil {
			dir, err = Open(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
	}
	if err != nil {
		return err
	}
	ents, err := ReadDir(dir)
	if err == nil {
		for _, e := range ents {
			if err = RemoveAll(dir, e.Name); err == unix.EACCES || err == unix.EPERM {
				if Chmod(dir, "", 0o700) == nil {
					err = RemoveAll(dir, e.Name)
				}
			}
			if err != nil {
				break
			}
		}
	}
	unix.Close(dir)
	if err != nil {
		return err
	}
	err = Rmdir(fd, name)
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// Quiet keeps reading through fd, a file's, from changing the access time, if this process may.
func Quiet(fd int) {
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_NOATIME)
	}
}

// OpenNoAtime is Open for somebody else to read by: what keeps the access time is the mount that the descriptor is on, and
// no flag of it. Where this process may make none it is just Open.
func OpenNoAtime(fd int, name string, flags int, mode uint32) (int, error) {
	tree, err := unix.OpenTree(fd, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return Open(fd, name, flags, mode)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOATIME, Attr_clr: unix.MOUNT_ATTR__ATIME}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return Open(fd, name, flags, mode)
	}
	return Open(tree, "", flags, mode)
}
