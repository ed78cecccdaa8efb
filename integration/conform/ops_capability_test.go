package conform

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// asCapable runs f in a thread of another user that has kept one capability.
func asCapable(t *testing.T, uid int, capability uint, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
		if err == nil {
			err = dropTo(uid, uid, nil)
		}
		if err == nil {
			set := [2]unix.CapUserData{{Effective: 1 << (capability % 32), Permitted: 1 << (capability % 32)}}
			if capability >= 32 {
				set[0], set[1] = set[1], set[0]
			}
			err = unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &set[0])
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	must(t, <-done)
}

// TestCapabilityAndStrangers: a chown of nothing by a stranger takes the file capability away where it works,
// and leaves it where it is refused. The kernel asks for that first, by another request.
func TestCapabilityAndStrangers(t *testing.T) {
	everywhere(t, []string{"f lower x"}, func(t *testing.T, v *view) {
		must(t, os.WriteFile(v.path("upper"), []byte("x"), 0o644))
		for _, name := range []string{"lower", "upper"} {
			path := v.path(name)
			reset := func(mode uint32) {
				must(t, unix.Chmod(path, mode), unix.Setxattr(path, "security.capability", netRaw, 0))
			}
			nothing := func(want unix.Errno) func() {
				return func() { wants(t, "chown of nothing", unix.Chown(path, -1, -1), want) }
			}
			for _, mode := range []uint32{0o4755, 0o2755, 0o2745, 0o6777} {
				reset(mode)
				asUser(1000, 1000, nil, nothing(unix.EPERM))
				wantMode(t, path, mode)
				wantCapability(t, path, true)
				asUser(1000, 1000, nil, func() {
					wants(t, "remove", unix.Removexattr(path, "security.capability"), unix.EPERM)
				})
				wantCapability(t, path, true)
			}
			reset(0o2745) // a lock mark, for who is in the group
			asUser(1000, 1000, []int{0}, nothing(0))
			wantMode(t, path, 0o2745)
			wantCapability(t, path, false)
			reset(0o755)
			asUser(1000, 1000, nil, nothing(0))
			wantCapability(t, path, false)

			reset(0o4755)
			asCapable(t, 1000, unix.CAP_SETFCAP, nothing(unix.EPERM))
			wantMode(t, path, 0o4755)
			reset(0o4755)
			asCapable(t, 1000, unix.CAP_SETFCAP, func() {
				wants(t, "remove", unix.Removexattr(path, "security.capability"), 0)
			})
			wantMode(t, path, 0o4755)
			wantCapability(t, path, false)
			reset(0o4755)
			asCapable(t, 1000, unix.CAP_FOWNER, nothing(0))
			wantMode(t, path, 0o755)
			wantCapability(t, path, false)
		}
		if v.plyfs() {
			// Who writes to another file of the same number is a stranger.
			path := v.path("upper")
			fd := openFD(t, v.l.Upper+"/upper", unix.O_WRONLY, 0)
			var st unix.Stat_t
			must(t, unix.Fstat(fd, &st), unix.Chmod(path, 0o4755))
			if stat(t, path).Ino != st.Ino {
				t.Fatal("the file has another number in its layer")
			}
			asUser(1000, 1000, nil, func() { wants(t, "chown of nothing", unix.Chown(path, -1, -1), unix.EPERM) })
			wantMode(t, path, 0o4755)
		}
	})
}

// TestCapabilityAndMapping: a write through a shared mapping leaves the capability, but where it comes to plyfs as
// a write (docs/differences.md). One that is set while a file is unfinished outlives its completion.
func TestCapabilityAndMapping(t *testing.T) {
	everywhere(t, []string{"F big 1M"}, func(t *testing.T, v *view) {
		path := v.path("big")
		must(t, unix.Setxattr(path, "security.capability", netRaw, 0))
		fd := openFD(t, path, unix.O_RDWR, 0)
		b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		must(t, err)
		b[7]++
		must(t, unix.Msync(b, unix.MS_SYNC))
		wantCapability(t, path, !v.plyfs() || v.kind == "passthrough")
		must(t, unix.Setxattr(path, "security.capability", netRaw, 0), unix.Munmap(b))
		shut(fd)
		v.settle(t)
		v.renew(t)
		wantCapability(t, path, true)
	})
}
