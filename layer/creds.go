package layer

import (
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capabilities are those this process has effective; read once.
var capabilities = sync.OnceValue(func() (data [2]unix.CapUserData) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	_ = unix.Capget(&hdr, &data[0])
	return data
})

// WithCreds runs f with the filesystem ids uid and gid, and with the capabilities of this
// process: what f makes belongs to them from the beginning, and f may do all this process may
// (kernel: ovl_override_creds, ovl_create_or_link). Other threads are not touched. The calling
// process must be root of its user namespace.
func WithCreds(uid, gid uint32, f func() error) (err error) {
	caps := capabilities()
	runtime.LockOSThread()
	oldGID := setfsid(unix.SYS_SETFSGID, gid)
	oldUID := setfsid(unix.SYS_SETFSUID, uid)
	failed := setfsid(unix.SYS_SETFSGID, ^uint32(0)) != gid || setfsid(unix.SYS_SETFSUID, ^uint32(0)) != uid
	if !failed && uid != 0 {
		// Leaving uid 0 took the capabilities to override permissions away.
		failed = capset(&caps) != nil
	}
	// Whatever f does, a panic too, the thread becomes itself again.
	defer func() {
		setfsid(unix.SYS_SETFSUID, oldUID)
		setfsid(unix.SYS_SETFSGID, oldGID)
		if setfsid(unix.SYS_SETFSUID, ^uint32(0)) != oldUID || setfsid(unix.SYS_SETFSGID, ^uint32(0)) != oldGID || capset(&caps) != nil {
			// The thread must not serve anybody else: locked, it ends with its goroutine.
			err = unix.EPERM
			return
		}
		runtime.UnlockOSThread()
	}()
	if failed {
		return unix.EPERM // ids that are not mapped here
	}
	return f()
}

// setfsid calls setfsuid or setfsgid for this thread alone and returns the previous id,
// which is all that these calls tell.
func setfsid(nr uintptr, id uint32) uint32 {
	old, _, _ := unix.RawSyscall(nr, uintptr(id), 0, 0)
	return uint32(old)
}

func capset(data *[2]unix.CapUserData) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if _, _, e := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(data)), 0); e != 0 {
		return e
	}
	return nil
}
