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
	// HandleOK says that files have handles (name_to_handle_at(2)) that mean the same file for ever. Those of FUSE are
	// node ids, which somebody else has after the next mount.
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
	// Opened, if not nil, is called with a descriptor of the directory that was opened for
	// reading, and is closed afterwards.
	Opened func(fd int)
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
	t := &Tree{Path: path, Index: index, cache: cache}
	if err := t.look(fd, o.Opened); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if abs, err := filepath.Abs(path); err == nil {
		t.Path = abs
	}
	t.Root = &Dir{tree: t, fd: int32(fd)}
	t.Root.state.Store(held)
	return t, nil
}

// look finds out what filesystem the directory is on. The error, an errno, says why it cannot be listed and searched.
func (t *Tree) look(fd int, opened func(fd int)) error {
	own, err := Open(fd, "", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(own)
	if err := unix.Faccessat(fd, ".", unix.X_OK, unix.AT_EACCESS); err != nil {
		return err
	}
	if err := t.identify(fd, own); err != nil {
		return err
	}
	if opened != nil {
		opened(own)
	}
	return nil
}

// clonePrivate returns a descriptor of a detached, read-only clone of the mount that path
// is on, or -1 where that is not permitted. It need not be one of a directory.
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
	return fd
}

// MayClone says whether OpenTree with Private sees nothing that is mounted over parts of the tree.
func MayClone(path string) bool {
	fd := clonePrivate(path)
	if fd < 0 {
		return false
	}
	unix.Close(fd)
	return true
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

// identify fills in t.FS: fd is the directory, own the same opened for reading. Layers are many, and filesystems few: what
// is known of one is kept in the cache.
func (t *Tree) identify(fd, own int) error {
	var st unix.Statx_t
	if err := Stat(fd, "", &st); err != nil {
		return err
	}
	dev := unix.Mkdev(st.Dev_major, st.Dev_minor)
	t.cache.mu.Lock()
	defer t.cache.mu.Unlock()
	known, ok := t.cache.filesystems[dev]
	if !ok {
		known = filesystemOf(fd, own)
		known.Dev = dev
		t.cache.filesystems[dev] = known
	}
	t.FS = known
	return nil
}

// filesystemOf finds out all but the device.
func filesystemOf(fd, own int) (f Filesystem) {
	var sfs unix.Statfs_t
	if err := unix.Fstatfs(fd, &sfs); err == nil {
		f.Magic = int64(sfs.Type)
	}
	if f.Magic != unix.FUSE_SUPER_MAGIC {
		_, err := Handle(fd, "")
		f.HandleOK = err == nil
	}
	var id fsUUID
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(own), fsIocGetfsuuid, uintptr(unsafe.Pointer(&id)))
	if e == 0 && id.size == 16 {
		f.UUID, f.HasUUID = id.uuid, id.uuid != [16]byte{}
	} else if f.Magic == unix.BTRFS_SUPER_MAGIC {
		// It does not answer that, but has the identifier in its super block as the others do.
		var info btrfsInfo
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(own), btrfsIocFsInfo, uintptr(unsafe.Pointer(&info)))
		if e == 0 {
			f.UUID, f.HasUUID = info.fsid, info.fsid != [16]byte{}
		}
	}
	return f
}

// Close closes the root once its users are done. Directories below keep what descriptors
// they have until they are forgotten, or the cache is closed.
func (t *Tree) Close() error {
	t.Root.release()
	return nil
}
