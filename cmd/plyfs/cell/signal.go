package cell

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// resetSignal gives a signal its default action. Package signal cannot: what was ignored when
// the program started, it hands on.
func resetSignal(sig unix.Signal) {
	var act [4]uint64 // struct kernel_sigaction: handler 0 is SIG_DFL
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0)
}
