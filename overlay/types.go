package overlay

import "golang.org/x/sys/unix"

// Attr is what is known of one inode of the view. Ino, Nlink and the device of a
// device node are the view's; everything else is the real inode's.
type Attr = unix.Statx_t

// Caller is the process on whose behalf an operation runs. New objects belong to
// UID and GID; whether the caller may do what it asks was decided before, by the
// kernel's default_permissions.
type Caller struct {
	UID, GID, PID uint32
	// Umask is applied to the mode of a new object, unless its parent has a
	// default access list.
	Umask uint32
	// Cancel is closed when the caller was hit by a signal. nil is never.
	Cancel <-chan struct{}
}

// SetAttr is a change of attributes; Mask says which of the fields count.
type SetAttr struct {
	Mask         uint32
	Mode         uint32 // permission, set-id and sticky bits
	UID, GID     uint32
	Size         int64
	Atime, Mtime unix.Timespec
}

// Bits of SetAttr.Mask.
const (
	SetMode uint32 = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
	SetAtimeNow
	SetMtimeNow
	// KillPriv takes set-id bits and the file capability away, as a write or a
	// change of owner by somebody without CAP_FSETID does.
	KillPriv
)

// Entry is one name of a directory. Off is the offset from which a listing goes
// on after this entry; it means the same until the node is forgotten.
type Entry struct {
	Name string
	Ino  uint64
	Type uint8 // unix.DT_*
	Off  uint64
}
