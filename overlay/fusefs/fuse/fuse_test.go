package fuse

import (
	"reflect"
	"testing"

	peer "github.com/hanwen/go-fuse/v2/fuse"
)

// The messages have the layout that another implementation found to be the kernel's: fields of one name lie at one place.
func TestLayout(t *testing.T) {
	for _, pair := range [][2]any{
		{InHeader{}, peer.InHeader{}}, {OutHeader{}, peer.OutHeader{}},
		{Attr{}, peer.Attr{}}, {EntryOut{}, peer.EntryOut{}}, {AttrOut{}, peer.AttrOut{}},
		{OpenOut{}, peer.OpenOut{}}, {CreateOut{}, peer.CreateOut{}},
		{InitIn{}, peer.InitIn{}}, {ForgetIn{}, peer.ForgetIn{}}, {SetAttrIn{}, peer.SetAttrIn{}}, {StatxIn{}, peer.StatxIn{}},
		{MknodIn{}, peer.MknodIn{}}, {MkdirIn{}, peer.MkdirIn{}}, {CreateIn{}, peer.CreateIn{}}, {LinkIn{}, peer.LinkIn{}},
		{RenameIn{}, peer.RenameIn{}}, {OpenIn{}, peer.OpenIn{}}, {ReleaseIn{}, peer.ReleaseIn{}}, {FlushIn{}, peer.FlushIn{}},
		{ReadIn{}, peer.ReadIn{}}, {WriteIn{}, peer.WriteIn{}}, {FsyncIn{}, peer.FsyncIn{}}, {FallocateIn{}, peer.FallocateIn{}},
		{LseekIn{}, peer.LseekIn{}}, {CopyFileRangeIn{}, peer.CopyFileRangeIn{}}, {IoctlIn{}, peer.IoctlIn{}},
		{GetXAttrIn{}, peer.GetXAttrIn{}}, {SetXAttrIn{}, peer.SetXAttrIn{}}, {LkIn{}, peer.LkIn{}}, {InterruptIn{}, peer.InterruptIn{}},
		{FileLock{}, peer.FileLock{}}, {SxTime{}, peer.SxTime{}}, {Statx{}, peer.Statx{}},
		{InitOut{}, peer.InitOut{}}, {StatxOut{}, peer.StatxOut{}}, {StatfsOut{}, peer.StatfsOut{}}, {WriteOut{}, peer.WriteOut{}},
		{CopyFileRangeOut{}, peer.CopyFileRangeOut{}}, {LseekOut{}, peer.LseekOut{}}, {IoctlOut{}, peer.IoctlOut{}},
		{GetXAttrOut{}, peer.GetXAttrOut{}}, {LkOut{}, peer.LkOut{}},
		{NotifyInvalInodeOut{}, peer.NotifyInvalInodeOut{}}, {NotifyInvalEntryOut{}, peer.NotifyInvalEntryOut{}},
		{NotifyInvalDeleteOut{}, peer.NotifyInvalDeleteOut{}}, {NotifyPruneOut{}, peer.NotifyPruneOut{}},
		{BackingMap{}, peer.BackingMap{}},
	} {
		ours, theirs := reflect.TypeOf(pair[0]), reflect.TypeOf(pair[1])
		if ours.Size() != theirs.Size() {
			t.Errorf("%v: %d bytes, want %d", ours, ours.Size(), theirs.Size())
		}
		want, found := offsets(theirs), 0
		for name, at := range offsets(ours) {
			if place, ok := want[name]; ok {
				found++
				if place != at {
					t.Errorf("%v.%s: at %d of %d bytes, want %d of %d", ours, name, at[0], at[1], place[0], place[1])
				}
			}
		}
		if found == 0 && len(want) > 0 { // LkOut is another struct
			t.Errorf("%v: no field can be compared", ours)
		}
	}
}

// offsets returns where each plain field lies, and its size, those of structs in it included.
func offsets(t reflect.Type) map[string][2]uintptr {
	out := map[string][2]uintptr{}
	for _, f := range reflect.VisibleFields(t) {
		if f.Type.Kind() == reflect.Struct {
			continue
		}
		at, in := uintptr(0), t
		for _, i := range f.Index {
			at += in.Field(i).Offset
			in = in.Field(i).Type
		}
		out[f.Name] = [2]uintptr{at, f.Type.Size()}
	}
	return out
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		name         string
		ours, theirs uint64
	}{
		{"CAP_ASYNC_READ", CAP_ASYNC_READ, peer.CAP_ASYNC_READ},
		{"CAP_POSIX_LOCKS", CAP_POSIX_LOCKS, peer.CAP_POSIX_LOCKS},
		{"CAP_ATOMIC_O_TRUNC", CAP_ATOMIC_O_TRUNC, peer.CAP_ATOMIC_O_TRUNC},
		{"CAP_BIG_WRITES", CAP_BIG_WRITES, peer.CAP_BIG_WRITES},
		{"CAP_DONT_MASK", CAP_DONT_MASK, peer.CAP_DONT_MASK},
		{"CAP_FLOCK_LOCKS", CAP_FLOCK_LOCKS, peer.CAP_FLOCK_LOCKS},
		{"CAP_IOCTL_DIR", CAP_IOCTL_DIR, peer.CAP_IOCTL_DIR},
		{"CAP_AUTO_INVAL_DATA", CAP_AUTO_INVAL_DATA, peer.CAP_AUTO_INVAL_DATA},
		{"CAP_READDIRPLUS", CAP_READDIRPLUS, peer.CAP_READDIRPLUS},
		{"CAP_ASYNC_DIO", CAP_ASYNC_DIO, peer.CAP_ASYNC_DIO},
		{"CAP_WRITEBACK_CACHE", CAP_WRITEBACK_CACHE, peer.CAP_WRITEBACK_CACHE},
		{"CAP_PARALLEL_DIROPS", CAP_PARALLEL_DIROPS, peer.CAP_PARALLEL_DIROPS},
		{"CAP_POSIX_ACL", CAP_POSIX_ACL, peer.CAP_POSIX_ACL},
		{"CAP_MAX_PAGES", CAP_MAX_PAGES, peer.CAP_MAX_PAGES},
		{"CAP_CACHE_SYMLINKS", CAP_CACHE_SYMLINKS, peer.CAP_CACHE_SYMLINKS},
		{"CAP_EXPLICIT_INVAL_DATA", CAP_EXPLICIT_INVAL_DATA, peer.CAP_EXPLICIT_INVAL_DATA},
		{"CAP_HANDLE_KILLPRIV_V2", CAP_HANDLE_KILLPRIV_V2, peer.CAP_HANDLE_KILLPRIV_V2},
		{"CAP_SETXATTR_EXT", CAP_SETXATTR_EXT, peer.CAP_SETXATTR_EXT},
		{"CAP_INIT_EXT", CAP_INIT_EXT, peer.CAP_INIT_EXT},
		{"CAP_HAS_EXPIRE_ONLY", CAP_HAS_EXPIRE_ONLY, peer.CAP_HAS_EXPIRE_ONLY},
		{"CAP_DIRECT_IO_ALLOW_MMAP", CAP_DIRECT_IO_ALLOW_MMAP, peer.CAP_DIRECT_IO_ALLOW_MMAP},
		{"CAP_PASSTHROUGH", CAP_PASSTHROUGH, peer.CAP_PASSTHROUGH},
		{"FATTR_MODE", FATTR_MODE, peer.FATTR_MODE},
		{"FATTR_UID", FATTR_UID, peer.FATTR_UID},
		{"FATTR_GID", FATTR_GID, peer.FATTR_GID},
		{"FATTR_SIZE", FATTR_SIZE, peer.FATTR_SIZE},
		{"FATTR_ATIME", FATTR_ATIME, peer.FATTR_ATIME},
		{"FATTR_MTIME", FATTR_MTIME, peer.FATTR_MTIME},
		{"FATTR_FH", FATTR_FH, peer.FATTR_FH},
		{"FATTR_ATIME_NOW", FATTR_ATIME_NOW, peer.FATTR_ATIME_NOW},
		{"FATTR_MTIME_NOW", FATTR_MTIME_NOW, peer.FATTR_MTIME_NOW},
		{"FATTR_LOCKOWNER", FATTR_LOCKOWNER, peer.FATTR_LOCKOWNER},
		{"FATTR_CTIME", FATTR_CTIME, peer.FATTR_CTIME},
		{"FATTR_KILL_SUIDGID", FATTR_KILL_SUIDGID, peer.FATTR_KILL_SUIDGID},
		{"FOPEN_DIRECT_IO", FOPEN_DIRECT_IO, peer.FOPEN_DIRECT_IO},
		{"FOPEN_KEEP_CACHE", FOPEN_KEEP_CACHE, peer.FOPEN_KEEP_CACHE},
		{"FOPEN_CACHE_DIR", FOPEN_CACHE_DIR, peer.FOPEN_CACHE_DIR},
		{"FOPEN_PARALLEL_DIRECT_WRITES", FOPEN_PARALLEL_DIRECT_WRITES, peer.FOPEN_PARALLEL_DIRECT_WRITES},
		{"FOPEN_PASSTHROUGH", FOPEN_PASSTHROUGH, peer.FOPEN_PASSTHROUGH},
		{"OPEN_KILL_SUIDGID", OPEN_KILL_SUIDGID, peer.OPEN_KILL_SUIDGID},
		{"WRITE_CACHE", WRITE_CACHE, peer.WRITE_CACHE},
		{"WRITE_KILL_SUIDGID", WRITE_KILL_SUIDGID, peer.WRITE_KILL_SUIDGID},
		{"SETXATTR_ACL_KILL_SGID", SETXATTR_ACL_KILL_SGID, peer.SETXATTR_ACL_KILL_SGID},
		{"LK_FLOCK", LK_FLOCK, peer.LK_FLOCK},
		{"IOCTL_UNRESTRICTED", IOCTL_UNRESTRICTED, peer.IOCTL_UNRESTRICTED},
		{"NOTIFY_INVAL_INODE", NOTIFY_INVAL_INODE, -peer.NOTIFY_INVAL_INODE},
		{"NOTIFY_INVAL_ENTRY", NOTIFY_INVAL_ENTRY, -peer.NOTIFY_INVAL_ENTRY},
		{"NOTIFY_DELETE", NOTIFY_DELETE, -peer.NOTIFY_DELETE},
		{"NOTIFY_PRUNE", NOTIFY_PRUNE, -peer.NOTIFY_PRUNE},
		{"EXPIRE_ONLY", EXPIRE_ONLY, peer.EXPIRE_ONLY},
	} {
		if tt.ours != tt.theirs {
			t.Errorf("%s: %#x, want %#x", tt.name, tt.ours, tt.theirs)
		}
	}
}
