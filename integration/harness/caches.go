package harness

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// cacheLock is what whoever minds about the kernel's caches holds a lock on: tests of other packages run at the same
// time, on the same machine. (Not the file of /proc: each package sees a /proc of its own.)
const cacheLock = "/dev/fuse"

func lockCaches(t testing.TB, how int) *os.File {
	t.Helper()
	f, err := os.OpenFile(cacheLock, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		t.Fatal(err)
	}
	return f
}

// KeepCaches keeps other tests from [DropCaches] until the end of this one, which counts what the kernel asks for
// because it does not know it.
func KeepCaches(t testing.TB) {
	t.Helper()
	Need(t)
	f := lockCaches(t, unix.LOCK_SH)
	t.Cleanup(func() { f.Close() })
}

// DropCaches makes the kernel forget pages, names and inodes that are not in use, as it does by itself when memory is
// short. It waits for tests that mind, see [KeepCaches], and skips the test where it may not.
func DropCaches(t testing.TB) {
	t.Helper()
	defer lockCaches(t, unix.LOCK_EX).Close()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0); err != nil {
		t.Skip(err)
	}
}
