package differ

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The first thread stays the test's own: as root's it cannot come back, it does not end before the process,
// and a daemon that looks up what its caller may do finds it.
func init() { runtime.LockOSThread() }

// userGroups are the groups of a user: the first is that of the process, the second another one it is in.
func userGroups(uid int) (gid int, more uint32) { return uid - 1000, 2 }

// as runs f as somebody else with no capability, or as root, with a file mode creation mask. On the union alone only the
// mask counts: that somebody may do what he does is for the kernel to say.
func (v *view) as(uid, mask int, f func() (string, error)) (string, error) {
	if t, ok := v.t.(*coreTree); ok {
		if uid != 0 {
			return "", fmt.Errorf("the union alone has no users")
		}
		t.caller.Umask = uint32(mask)
		defer func() { t.caller.Umask = 0 }()
		return f()
	}
	var s string
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread ends with the goroutine: it cannot become root's again in all.
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		unix.Umask(mask)
		// Who is not root may not come by the path.
		t := v.t.(sysTree)
		if err = unix.Chdir(string(t)); err != nil {
			return
		}
		v.t = sysTree(".")
		defer func() {
			v.back(t)
			_ = unix.Chdir("/") // the thread may be there for a while yet
		}()
		if uid != 0 {
			if err = become(uid); err != nil {
				return
			}
			v.uid = uid
			defer func() { v.uid = 0 }()
		}
		s, err = f()
	}()
	<-done
	return s, err
}

// back makes t the tree again, of files that were opened, too.
func (v *view) back(t sysTree) {
	v.t = t
	for _, h := range v.slots {
		h.(*sysHandle).t = t
	}
}

// become makes the calling thread somebody's, but for what seteuid brings back.
func become(uid int) error {
	gid, more := userGroups(uid)
	groups := []uint32{more}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&groups[0])), 0); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
		return e
	}
	return seteuid(uid)
}

// seteuid is that of the calling thread alone.
func seteuid(uid int) error {
	const same = ^uintptr(0)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same); e != 0 {
		return e
	}
	return nil
}

// asRoot runs f as root, within what somebody else does.
func (v *view) asRoot(f func() error) error {
	if v.uid == 0 {
		return f()
	}
	if err := seteuid(0); err != nil {
		return err
	}
	err := f()
	if e := seteuid(v.uid); e != nil {
		return e
	}
	return err
}

// hasUsers says whether some operation is somebody else's.
func (c *Case) hasUsers() bool {
	for _, ops := range append(c.Layers, c.Ops) {
		for _, o := range ops {
			if o.Name == "as" && num(o.Args[0]) != 0 {
				return true
			}
		}
	}
	return false
}
