package fuse

// Features, negotiated by INIT: FUSE_NAME of the header.
const (
	CAP_ASYNC_READ           = 1 << 0
	CAP_POSIX_LOCKS          = 1 << 1
	CAP_ATOMIC_O_TRUNC       = 1 << 3
	CAP_BIG_WRITES           = 1 << 5
	CAP_DONT_MASK            = 1 << 6
	CAP_FLOCK_LOCKS          = 1 << 10
	CAP_IOCTL_DIR            = 1 << 11
	CAP_AUTO_INVAL_DATA      = 1 << 12
	CAP_READDIRPLUS          = 1 << 13
	CAP_ASYNC_DIO            = 1 << 15
	CAP_WRITEBACK_CACHE      = 1 << 16
	CAP_PARALLEL_DIROPS      = 1 << 18
	CAP_POSIX_ACL            = 1 << 20
	CAP_MAX_PAGES            = 1 << 22
	CAP_CACHE_SYMLINKS       = 1 << 23
	CAP_EXPLICIT_INVAL_DATA  = 1 << 25
	CAP_HANDLE_KILLPRIV_V2   = 1 << 28
	CAP_SETXATTR_EXT         = 1 << 29
	CAP_INIT_EXT             = 1 << 30
	CAP_HAS_EXPIRE_ONLY      = 1 << 35
	CAP_DIRECT_IO_ALLOW_MMAP = 1 << 36
	CAP_PASSTHROUGH          = 1 << 37
)

// What counts in a SetAttrIn.
const (
	FATTR_MODE         = 1 << 0
	FATTR_UID          = 1 << 1
	FATTR_GID          = 1 << 2
	FATTR_SIZE         = 1 << 3
	FATTR_ATIME        = 1 << 4
	FATTR_MTIME        = 1 << 5
	FATTR_FH           = 1 << 6
	FATTR_ATIME_NOW    = 1 << 7
	FATTR_MTIME_NOW    = 1 << 8
	FATTR_LOCKOWNER    = 1 << 9
	FATTR_CTIME        = 1 << 10
	FATTR_KILL_SUIDGID = 1 << 11
)

// How a file is open, of OpenOut.
const (
	FOPEN_DIRECT_IO              = 1 << 0
	FOPEN_KEEP_CACHE             = 1 << 1
	FOPEN_CACHE_DIR              = 1 << 3
	FOPEN_PARALLEL_DIRECT_WRITES = 1 << 6
	FOPEN_PASSTHROUGH            = 1 << 7
)

// Flags of single requests: FUSE_NAME of the header.
const (
	OPEN_KILL_SUIDGID      = 1 << 0
	WRITE_CACHE            = 1 << 0
	WRITE_KILL_SUIDGID     = 1 << 2
	SETXATTR_ACL_KILL_SGID = 1 << 0
	LK_FLOCK               = 1 << 0
	IOCTL_UNRESTRICTED     = 1 << 1
)

// Notifications: FUSE_NAME of the header.
const (
	NOTIFY_INVAL_INODE = 2
	NOTIFY_INVAL_ENTRY = 3
	NOTIFY_DELETE      = 6
	NOTIFY_PRUNE       = 9

	EXPIRE_ONLY = 1 << 0 // of NotifyInvalEntryOut
)
