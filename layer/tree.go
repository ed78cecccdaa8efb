package layer

import (
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Filesystem is what is known of the filesystem a tree is on.
type Filesystem struct {
	Dev     uint64   // device number, as unix.Mkdev makes it
	Magic   int64    // statfs f_type
	UUID    [16]byte // as the kernel's overlayfs writes it into origin marks
	HasUUID bool     // it has one, and the kernel tells it (Linux 6.9)
	// HandleOK says that files have handles (name_to_handle_at(2)).
	HandleOK bool
}

// TreeOptions say how a tree is opened.
type TreeOptions struct {
	// Private opens the tree by way of a read-only clone of its mount, where this
	// process may make one: what is mounted over parts of it later, a view over its own
	// lower layer included, is not seen through it (kernel: ovl_get_layers clones
	// likewise). An upper and its work directory cannot be private: renames do not
	// cross mounts.
	Private bool
}

// Tree is one directory tree of a union. It is safe for use from any goroutine.
type Tree struct {
	// Path is where the tree was when it was opened, absolute. For messages and
	// hints: nothing is reached by it.
	Path string
	// Index is the tree's place in its union: 0 the upper, 1 the topmost lower.
	Index int
	Root  *Dir
	FS    Filesystem
	cache *Cache
}

// OpenTree opens the directory at path; symbolic links on the way are followed, as it is the
// user who names it. The error is an errno.
func OpenTree(path string, index int, cache *Cache, o TreeOptions) (*Tree, error) {
	fd := -1
	if o.Private {
		fd = clonePrivate(path)
	}
	if fd < 0 {
		var err error
		if fd, err = openat(unix.AT_FDCWD, path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return nil, err
		}
	}
	if err := readable(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	t := &Tree{Path: path, Index: index, cache: cache}
	if abs, err := filepath.Abs(path); err == nil {
		t.Path = abs
	}
	t.Root = &Dir{tree: t, fd: int32(fd)}
	t.Root.state.Store(held)
	if err := t.identify(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return t, nil
}

// readable reports why the directory cannot be listed and searched.
func readable(fd int) error {
	own, err := Open(fd, "", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	unix.Close(own)
	return unix.Faccessat(fd, ".", unix.X_OK, unix.AT_EACCESS)
}

// clonePrivate returns a descriptor of a detached, read-only clone of the mount that path
// is on, or -1 where that is not permitted.
func clonePrivate(path string) int {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1
	}
	// How access times are kept is one value of several bits: without clearing it, EINVAL.
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOATIME, Attr_clr: unix.MOUNT_ATTR__ATIME}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return -1
	}
	var st unix.Statx_t
	if Stat(fd, "", &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		unix.Close(fd)
		return -1
	}
	return fd
}

// fsUUID is struct fsuuid2 of linux/fs.h.
type fsUUID struct {
	size uint8
	uuid [16]byte
}

// btrfsInfo is struct btrfs_ioctl_fs_info_args of linux/btrfs.h.
type btrfsInfo struct {
	_    [16]byte
	fsid [16]byte
	_    [992]byte
}

const (
	fsIocGetfsuuid = 0x80111500 // FS_IOC_GETFSUUID
	btrfsIocFsInfo = 0x8400941f // BTRFS_IOC_FS_INFO
)

func (t *Tree) identify(fd int) error {
	var st unix.Statx_t
	if err := Stat(fd, "", &st); err != nil {
		return err
	}
	t.FS.Dev = unix.Mkdev(st.Dev_major, st.Dev_minor)
	var sfs unix.Statfs_t
	if err := unix.Fstatfs(fd, &sfs); err == nil {
		t.FS.Magic = int64(sfs.Type)
	}
	if _, err := Handle(fd, ""); err == nil {
		t.FS.HandleOK = true
	}
	own, err := Open(fd, "", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(own)
	var id fsUUID
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(own), fsIocGetfsuuid, uintptr(unsafe.Pointer(&id)))
	if e == 0 && id.size == 16 {
		t.FS.UUID, t.FS.HasUUID = id.uuid, id.uuid != [16]byte{}
	} else if t.FS.Magic == unix.BTRFS_SUPER_MAGIC {
		// It does not answer that, but has the identifier in its super block as the others do.
		var info btrfsInfo
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(own), btrfsIocFsInfo, uintptr(unsafe.Pointer(&info)))
		if e == 0 {
			t.FS.UUID, t.FS.HasUUID = info.fsid, info.fsid != [16]byte{}
		}
	}
	return nil
}

// Close closes the root once its users are done. Directories below keep what descriptors
// they have until they are forgotten.
func (t *Tree) Close() error {
	t.Root.release()
	return nil
}
