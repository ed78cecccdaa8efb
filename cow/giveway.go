package cow

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Somebody who opens another file waits for a thread of this process to wake up. The scheduler
// puts it where it ran last, and if that is where a large file is being copied, it waits until the slice of
// the copying thread is over: at the next tick, 4 ms later, and so for each of the requests that an
// open takes. (The processor of whoever asked is idle meanwhile.) A thread with a longer slice is
// interrupted at once by those with shorter ones that wake up (PREEMPT_SHORT in kernel/sched/fair.c, since
// Linux 6.12; older kernels take no notice). Its share of the processor is the same, other than with nice(2):
// somebody waits for the copy, too.

const (
	// longCopy is the number of bytes from which on a copy gives way.
	longCopy = 1 << 20
	// longSlice is the longest slice there is, in nanoseconds.
	longSlice = 100e6
)

// givingWay makes the calling goroutine give way to others of this process and
// of other ones, until the function it returns is called.
func givingWay() (end func()) {
	runtime.LockOSThread()
	was, err := unix.SchedGetAttr(0, 0)
	if err == nil && was.Policy == unix.SCHED_NORMAL {
		long := *was
		long.Runtime = longSlice
		if unix.SchedSetAttr(0, &long, 0) == nil {
			return func() {
				_ = unix.SchedSetAttr(0, was, 0)
				runtime.UnlockOSThread()
			}
		}
	}
	runtime.UnlockOSThread()
	return func() {}
}
