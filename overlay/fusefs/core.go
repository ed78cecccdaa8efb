package fusefs

import "golang.org/x/sys/unix"

// Node is one inode of the union. The zero value of the type means "none".
type Node interface {
	comparable
	ID() uint64   // node id of the protocol; the root is 1
	Mode() uint32 // type bits (S_IFMT)
}

// Union is what this package serves; *overlay.FS is one. Errors are errnos
// or wrap one. Every method that returns a node has added one reference to it, which
// Forget takes away again, and has filled a. Methods may be called from any
// number of threads at once. Reference counts follow "FORGET" in the kernel's
// Documentation/filesystems/fuse.rst.
type Union[N Node] interface {
	Root() N
	Node(id uint64) N // zero if unknown
	Forget(id uint64, count uint64)

	Lookup(c *Caller, parent N, name string, a *Attr) (N, error)
	Getattr(n N, a *Attr) error
	Setattr(c *Caller, n N, s *SetAttr, a *Attr) error
	Readlink(n N) (string, error)
	Mknod(c *Caller, parent N, name string, mode, rdev uint32, a *Attr) (N, error)
	Mkdir(c *Caller, parent N, name string, mode uint32, a *Attr) (N, error)
	Symlink(c *Caller, parent N, name, target string, a *Attr) (N, error)
	Link(c *Caller, n N, parent N, name string, a *Attr) error
	Tmpfile(c *Caller, parent N, mode uint32, a *Attr) (N, error)
	Unlink(c *Caller, parent N, name string) error
	Rmdir(c *Caller, parent N, name string) error
	Rename(c *Caller, parent N, name string, newParent N, newName string, flags uint32) error

	ReadAt(n N, p []byte, off int64) (int, error)
	WriteAt(c *Caller, n N, p []byte, off int64, killPriv bool) (int, error)
	Seek(n N, off int64, whence int) (int64, error)
	Fallocate(c *Caller, n N, mode uint32, off, length int64) error
	CopyRange(c *Caller, in N, offIn int64, out N, offOut, length int64) (int64, error)
	Fsync(n N, datasync bool) error
	FsyncDir(n N) error
	Syncfs() error
	Statfs(n N, st *unix.Statfs_t) error

	Getxattr(n N, name string, buf []byte) (int, error)
	Listxattr(n N, buf []byte) (int, error)
	Setxattr(c *Caller, n N, name string, val []byte, flags int, killSGID bool) error
	Removexattr(c *Caller, n N, name string) error

	ReadDir(n N, off uint64, buf []Entry) (int, error)
	Ioctl(c *Caller, n N, cmd uint32, in, out []byte) (result int32, err error)

	Backing(c *Caller, n N, write bool) (fd int, isUpper bool, release func(), err error)
}

// What a union may offer besides. Each is looked for once, at mount.
type (
	// Renewer gives a node that is open on a lower file, and now wanted for writing, a
	// successor: same inode number, fresh node id. Later lookups of its names find
	// the successor; the old node keeps serving what is open.
	Renewer[N Node] interface {
		Renew(c *Caller, n N) (N, error)
	}
	// Outdater says that the data of a node is no more that of the lower file it may be open on.
	Outdater[N Node] interface {
		Outdated(n N) bool
	}
	// Splicer names the file that has all the data of n, at the same offsets, for READs that
	// go by splice(2); a negative descriptor where there is none. It stays open until done is called.
	Splicer[N Node] interface {
		Source(n N) (fd int, done func())
	}
	// Aliaser says that a node cannot have a successor, because of its other names. The kernel does not read
	// its lower file by itself.
	Aliaser[N Node] interface {
		Aliased(n N) bool
	}
	// Quiet reads for those who opened with O_NOATIME.
	Quiet[N Node] interface {
		ReadQuiet(n N, p []byte, off int64) (int, error)
	}
	// Guard knows files that are append-only or immutable.
	Guard[N Node] interface {
		// MayOpen says whether n may be written to through a descriptor with these flags of
		// open(2). It is asked at each open that is answered, and at each write.
		MayOpen(n N, flags uint32) error
		// Guarded says that the kernel must not write to n by itself.
		Guarded(n N) bool
	}
	// Explainer answers the virtual attribute plyfs.explain with JSON.
	Explainer[N Node] interface {
		Explain(n N) ([]byte, error)
	}
	// Events answers plyfs.events.CURSOR: JSON of the events after the cursor. If it
	// waits for the first, then until cancel is closed; the mount is busy meanwhile.
	Events interface {
		Events(cursor string, cancel <-chan struct{}) ([]byte, error)
	}
	// Settler completes pending background work (asking for plyfs.settle).
	Settler interface {
		Settle(value string, cancel <-chan struct{}) error
	}
	// Stater adds its own figures to plyfs.stat. The value must marshal to JSON.
	Stater interface {
		Stat() any
	}
	// Sharer is a union of which parts belong to others too (grafts). Its mount answers
	// OPEN and OPENDIR, keeps nothing about what others may change, and has no writeback
	// cache.
	Sharer[N Node] interface {
		// Keep says whether the kernel may keep the name it found n under, and what it
		// knows of n: attributes, data, the names in it, and which are missing.
		Keep(n N) (name, rest bool)
		// Ahead says whether the attributes of a name may be looked up while dir is listed,
		// because nobody else has to be asked for them.
		Ahead(dir N, name string) bool
		// OpenFile is told of every open, with the flags of open(2), before the kernel
		// gets its answer; an error is the answer. direct says that the kernel shall do
		// I/O on the file of Backing itself, if it can.
		OpenFile(c *Caller, n N, flags uint32) (direct bool, err error)
		// CloseFile undoes one OpenFile that had these flags.
		CloseFile(n N, flags uint32)
		// FlushFile is told of every close(2) of a file open for writing.
		FlushFile(n N) error
		// OpenDir returns a listing for one open of a directory that others change, nil
		// for one of this mount's own.
		OpenDir(n N) (Listing, error)
		// WriteFile is WriteAt with the flags of open(2); with O_APPEND off is ignored.
		WriteFile(c *Caller, n N, p []byte, off int64, flags uint32, killPriv bool) (int, error)
	}
	// Locker serves POSIX and BSD locks of open files. All of them, or none: the kernel
	// does not share the work. A lock belongs to a node, an owner, and the open file
	// (handle) it was set through.
	Locker[N Node] interface {
		Getlk(c *Caller, n N, owner uint64, lk *Lock) error
		// Setlk sets or removes a lock; EAGAIN if another is in the way. With wait it
		// waits for that one to go, until cancel is closed (EINTR).
		Setlk(c *Caller, n N, handle, owner uint64, lk *Lock, flock, wait bool, cancel <-chan struct{}) error
		// Unlock removes the POSIX locks of an owner: it closed a descriptor of n.
		Unlock(n N, owner uint64)
		// Released removes what was set through a handle that is gone.
		Released(node, handle uint64)
	}
)

// Listing is a directory as one open of it reads it. Offset 0 begins anew. It is used
// by one request at a time.
type Listing interface {
	ReadDir(off uint64, buf []Entry) (int, error)
	Close()
}

// Lock is a byte range lock; End is inclusive, as in the protocol.
type Lock struct {
	Start, End uint64
	Type, PID  uint32
}
