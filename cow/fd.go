package cow

import (
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// futimens is utimensat(2) on the descriptor itself, which needs neither /proc
// nor AT_EMPTY_PATH (x/sys has no wrapper for a null path).
func futimens(fd int, ts *[2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func flistxattr(fd int) ([]string, error) {
	var small [256]byte
	buf := small[:]
	for {
		n, err := unix.Flistxattr(fd, buf)
		if err == nil {
			if n == 0 {
				return nil, nil
			}
			return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"), nil
		}
		if err != unix.ERANGE {
			return nil, err
		}
		if n, err = unix.Flistxattr(fd, nil); err != nil {
			return nil, err
		}
		buf = make([]byte, n+256)
	}
}

func fgetxattr(fd int, attr string) ([]byte, error) {
	var small [512]byte
	buf := small[:]
	for {
		n, err := unix.Fgetxattr(fd, attr, buf)
		if err == nil {
			return append([]byte(nil), buf[:n]...), nil
		}
		if err != unix.ERANGE {
			return nil, err
		}
		if n, err = unix.Fgetxattr(fd, attr, nil); err != nil {
			return nil, err
		}
		buf = make([]byte, n+256)
	}
}

// statFD is statx(2) on the descriptor itself.
func statFD(fd int, st *unix.Statx_t) error {
	return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, st)
}
