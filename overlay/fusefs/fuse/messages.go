// Package fuse has the messages of the kernel's FUSE protocol, version 7.45, as include/uapi/linux/fuse.h lays them out: those
// that fusefs speaks, each request with the header in front.
//
// A library has them too; it comes with a server of its own, whose preparations every start of this program would wait for.
package fuse

// InHeader begins each request (fuse_in_header).
type InHeader struct {
	Length, Opcode       uint32
	Unique               uint64
	NodeId               uint64
	Uid, Gid, Pid        uint32
	TotalExtlen, Padding uint16
}

// OutHeader begins each answer, and each notification (fuse_out_header).
type OutHeader struct {
	Length uint32
	Status int32
	Unique uint64
}

// Attr is fuse_attr.
type Attr struct {
	Ino, Size, Blocks               uint64
	Atime, Mtime, Ctime             uint64
	Atimensec, Mtimensec, Ctimensec uint32
	Mode, Nlink, Uid, Gid           uint32
	Rdev, Blksize, Flags            uint32
}

// EntryOut is fuse_entry_out.
type EntryOut struct {
	NodeId, Generation            uint64
	EntryValid, AttrValid         uint64
	EntryValidNsec, AttrValidNsec uint32
	Attr
}

// AttrOut is fuse_attr_out.
type AttrOut struct {
	AttrValid            uint64
	AttrValidNsec, Dummy uint32
	Attr
}

// OpenOut is fuse_open_out.
type OpenOut struct {
	Fh        uint64
	OpenFlags uint32
	BackingID int32
}

// CreateOut answers CREATE and TMPFILE.
type CreateOut struct {
	EntryOut
	OpenOut
}

// Requests, fuse_NAME_in.
type (
	// InitIn begins a connection.
	InitIn struct {
		InHeader
		Major, Minor, MaxReadAhead uint32
		Flags, Flags2              uint32
		Unused                     [11]uint32
	}
	// ForgetIn gives references back.
	ForgetIn struct {
		InHeader
		Nlookup uint64
	}
	// SetAttrIn has in Valid which of its fields count: FATTR_*.
	SetAttrIn struct {
		InHeader
		Valid, Padding                  uint32
		Fh, Size, LockOwner             uint64
		Atime, Mtime, Ctime             uint64
		Atimensec, Mtimensec, Ctimensec uint32
		Mode, Unused4, Uid, Gid         uint32
		Unused5                         uint32
	}
	// StatxIn asks for more than Attr has.
	StatxIn struct {
		InHeader
		GetattrFlags, Reserved uint32
		Fh                     uint64
		SxFlags, SxMask        uint32
	}
	// MknodIn is followed by a name.
	MknodIn struct {
		InHeader
		Mode, Rdev, Umask, Padding uint32
	}
	// MkdirIn is followed by a name.
	MkdirIn struct {
		InHeader
		Mode, Umask uint32
	}
	// CreateIn is followed by a name.
	CreateIn struct {
		InHeader
		Flags, Mode, Umask, OpenFlags uint32
	}
	// LinkIn is followed by a name.
	LinkIn struct {
		InHeader
		Oldnodeid uint64
	}
	// RenameIn, fuse_rename2_in, is followed by two names.
	RenameIn struct {
		InHeader
		Newdir         uint64
		Flags, Padding uint32
	}
	// OpenIn has OPEN_* in Mode.
	OpenIn struct {
		InHeader
		Flags, Mode uint32
	}
	// ReleaseIn ends what OPEN and OPENDIR began.
	ReleaseIn struct {
		InHeader
		Fh                  uint64
		Flags, ReleaseFlags uint32
		LockOwner           uint64
	}
	// FlushIn comes with each close.
	FlushIn struct {
		InHeader
		Fh              uint64
		Unused, Padding uint32
		LockOwner       uint64
	}
	// ReadIn is for files and directories.
	ReadIn struct {
		InHeader
		Fh, Offset      uint64
		Size, ReadFlags uint32
		LockOwner       uint64
		Flags, Padding  uint32
	}
	// WriteIn is followed by the data.
	WriteIn struct {
		InHeader
		Fh, Offset       uint64
		Size, WriteFlags uint32
		LockOwner        uint64
		Flags, Padding   uint32
	}
	// FsyncIn is for files and directories.
	FsyncIn struct {
		InHeader
		Fh                  uint64
		FsyncFlags, Padding uint32
	}
	// FallocateIn is fallocate(2).
	FallocateIn struct {
		InHeader
		Fh, Offset, Length uint64
		Mode, Padding      uint32
	}
	// LseekIn looks for data or a hole.
	LseekIn struct {
		InHeader
		Fh, Offset      uint64
		Whence, Padding uint32
	}
	// CopyFileRangeIn copies from the header's node to NodeIdOut.
	CopyFileRangeIn struct {
		InHeader
		FhIn, OffIn              uint64
		NodeIdOut, FhOut, OffOut uint64
		Len, Flags               uint64
	}
	// IoctlIn is followed by the data that goes in.
	IoctlIn struct {
		InHeader
		Fh              uint64
		Flags, Cmd      uint32
		Arg             uint64
		InSize, OutSize uint32
	}
	// GetXAttrIn is followed by a name, but for LISTXATTR.
	GetXAttrIn struct {
		InHeader
		Size, Padding uint32
	}
	// SetXAttrIn, with SETXATTR_EXT, is followed by a name and the value.
	SetXAttrIn struct {
		InHeader
		Size, Flags            uint32
		SetXAttrFlags, Padding uint32
	}
	// LkIn is a lock to ask for, or to take.
	LkIn struct {
		InHeader
		Fh, Owner        uint64
		Lk               FileLock
		LkFlags, Padding uint32
	}
	// InterruptIn names the request whose caller was interrupted. It hides the header's own Unique.
	InterruptIn struct {
		InHeader
		Unique uint64
	}
)

// Flags64 returns all of the kernel's features, CAP_*.
func (in *InitIn) Flags64() uint64 { return uint64(in.Flags) | uint64(in.Flags2)<<32 }

// FileLock is fuse_file_lock.
type FileLock struct {
	Start, End uint64
	Typ, Pid   uint32
}

// SxTime is fuse_sx_time.
type SxTime struct {
	Sec            uint64
	Nsec, Reserved uint32
}

// Statx is fuse_statx.
type Statx struct {
	Mask, Blksize                            uint32
	Attributes                               uint64
	Nlink, Uid, Gid                          uint32
	Mode, Spare0                             uint16
	Ino, Size, Blocks, AttributesMask        uint64
	Atime, Btime, Ctime, Mtime               SxTime
	RdevMajor, RdevMinor, DevMajor, DevMinor uint32
	Spare2                                   [14]uint64
}

// Answers, fuse_NAME_out.
type (
	// InitOut has in Flags and Flags2 the features that both have.
	InitOut struct {
		Major, Minor, MaxReadAhead, Flags  uint32
		MaxBackground, CongestionThreshold uint16
		MaxWrite, TimeGran                 uint32
		MaxPages, MapAlignment             uint16
		Flags2, MaxStackDepth              uint32
		RequestTimeout                     uint16
		Unused                             [11]uint16
	}
	// StatxOut answers STATX.
	StatxOut struct {
		AttrValid            uint64
		AttrValidNsec, Flags uint32
		Spare                [2]uint64
		Statx
	}
	// StatfsOut is fuse_kstatfs.
	StatfsOut struct {
		Blocks, Bfree, Bavail, Files, Ffree uint64
		Bsize, NameLen, Frsize, Padding     uint32
		Spare                               [6]uint32
	}
	// WriteOut answers WRITE and COPY_FILE_RANGE.
	WriteOut struct{ Size, Padding uint32 }
	// CopyFileRangeOut answers COPY_FILE_RANGE_64.
	CopyFileRangeOut struct{ BytesCopied uint64 }
	// LseekOut answers LSEEK.
	LseekOut struct{ Offset uint64 }
	// IoctlOut is followed by the data that comes out.
	IoctlOut struct {
		Result                 int32
		Flags, InIovs, OutIovs uint32
	}
	// GetXAttrOut answers when only the size was asked for.
	GetXAttrOut struct{ Size, Padding uint32 }
	// LkOut answers GETLK.
	LkOut struct{ Lk FileLock }
)

// Notifications, fuse_notify_NAME_out.
type (
	// NotifyInvalInodeOut drops attributes, and pages.
	NotifyInvalInodeOut struct {
		Ino         uint64
		Off, Length int64
	}
	// NotifyInvalEntryOut is followed by a name.
	NotifyInvalEntryOut struct {
		Parent         uint64
		NameLen, Flags uint32
	}
	// NotifyInvalDeleteOut, fuse_notify_delete_out, is followed by a name.
	NotifyInvalDeleteOut struct {
		Parent, Child    uint64
		NameLen, Padding uint32
	}
	// NotifyPruneOut is followed by the ids of nodes.
	NotifyPruneOut struct {
		Count, Padding uint32
		Spare          uint64
	}
)

// BackingMap is fuse_backing_map, the argument of FUSE_DEV_IOC_BACKING_OPEN.
type BackingMap struct {
	Fd      int32
	Flags   uint32
	Padding uint64
}
