package conform

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

func TestMain(m *testing.M) {
	if action := os.Getenv(helperVariable); action != "" {
		os.Exit(helper(strings.Split(action, "\x1f")))
	}
	harness.Main(m)
}

// The ops_*_test.go files are one table of operations that runs on a plain directory, on the
// kernel's overlayfs and on plyfs in each mode: what is expected is what all of them do.

// view is one of the filesystems that an operation is tried on.
type view struct {
	dir  string
	kind string // "plain", "kernel", or the mode of a plyfs
	l    *harness.Layers
	m    *harness.Mount
}

func (v *view) path(name string) string { return filepath.Join(v.dir, name) }

// plyfs says whether it is ours.
func (v *view) plyfs() bool { return v.kind != "plain" && v.kind != "kernel" }

// everywhere runs f on each filesystem over the same layers, topmost first. For an ordinary user the kernel's overlayfs
// neither renames what merges nor keeps linked names together, and there is no passthrough.
func everywhere(t *testing.T, lowers []string, f func(t *testing.T, v *view)) {
	t.Helper()
	harness.NeedOwners(t)
	if len(lowers) == 0 {
		lowers = []string{""}
	}
	t.Run("plain", func(t *testing.T) {
		dir := harness.Dir(t)
		public(t, dir)
		for i := len(lowers) - 1; i >= 0; i-- {
			for line := range strings.Lines(lowers[i]) {
				if gone, ok := strings.CutPrefix(strings.TrimSpace(line), "w "); ok {
					must(t, os.RemoveAll(filepath.Join(dir, gone)))
				} else {
					harness.Make(t, dir, line)
				}
			}
		}
		f(t, &view{dir: dir, kind: "plain"})
	})
	t.Run("kernel", func(t *testing.T) {
		harness.NeedRoot(t)
		l := harness.NewLayers(t, lowers...)
		public(t, l.Root)
		m := l.Kernel(t, "redirect_dir=on", "index=on")
		f(t, &view{dir: m.Dir, kind: "kernel", l: l, m: m})
	})
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) { f(t, mountIn(t, mode, lowers...)) })
	}
}

// mountIn mounts a new stack with plyfs in one mode.
func mountIn(t *testing.T, mode string, lowers ...string) *view {
	t.Helper()
	if mode == "passthrough" {
		harness.NeedRoot(t)
	}
	l := harness.NewLayers(t, lowers...)
	public(t, l.Root)
	m := l.Plyfs(t, "--mode", mode)
	return &view{dir: m.Dir, kind: mode, l: l, m: m}
}

// renew closes what is open, unmounts, and mounts again.
func (v *view) renew(t *testing.T) {
	t.Helper()
	shutAll()
	if v.m == nil {
		return
	}
	v.m.Close(t)
	if v.kind == "kernel" {
		v.m = v.l.Kernel(t, "redirect_dir=on", "index=on")
	} else {
		v.m = v.l.Plyfs(t, "--mode", v.kind)
	}
}

// sink makes what was written the topmost lower layer, and mounts again with a fresh upper:
// how a test gets lower objects that the lines of a tree cannot say.
func (v *view) sink(t *testing.T) {
	t.Helper()
	if v.m == nil {
		return
	}
	shutAll()
	v.m.Close(t)
	v.l.Lowers = append([]string{v.l.Upper}, v.l.Lowers...)
	n := strconv.Itoa(len(v.l.Lowers))
	v.l.Upper, v.l.Work = filepath.Join(v.l.Root, "upper"+n), filepath.Join(v.l.Root, "work"+n)
	must(t, os.Mkdir(v.l.Upper, 0o755), os.Mkdir(v.l.Work, 0o755))
	v.renew(t)
}

// settle completes what is partly copied.
func (v *view) settle(t *testing.T) {
	t.Helper()
	if !v.plyfs() {
		return
	}
	if out, err := harness.Run("settle", v.dir); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// public lets other users reach a directory of a test.
func public(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// asUser runs f in a thread that has the ids of somebody else, and no capabilities.
func asUser(uid, gid int, groups []int, f func()) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		done <- dropTo(uid, gid, groups)
		f()
		close(done)
	}()
	if err := <-done; err != nil {
		panic(err)
	}
	<-done
}

func dropTo(uid, gid int, groups []int) error {
	list := make([]uint32, len(groups)+1) // never empty: its address is taken
	for i, g := range groups {
		list[i] = uint32(g)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&list[0])), 0); e != 0 {
		return fmt.Errorf("setgroups: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
		return fmt.Errorf("setresgid: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
		return fmt.Errorf("setresuid: %w", e)
	}
	return nil
}

// withUmask runs f in a thread that has another umask.
func withUmask(mask int, f func()) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			unix.Umask(mask)
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		panic(err)
	}
}

// must fails the test on the first error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// wants fails the test, and goes on, when err is not the errno; 0 is none.
func wants(t *testing.T, what string, err error, want unix.Errno) {
	t.Helper()
	var got unix.Errno
	if err != nil && !errors.As(err, &got) {
		t.Errorf("%s: %v, want %v", what, err, want)
		return
	}
	if got != want {
		t.Errorf("%s: %s, want %s", what, errnoName(got), errnoName(want))
	}
}

func errnoName(e unix.Errno) string {
	if e == 0 {
		return "no error"
	}
	return unix.ErrnoName(e)
}

func stat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

func openFD(t *testing.T, path string, flags int, mode uint32) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	opened[fd] = true
	t.Cleanup(func() { shut(fd) })
	return fd
}

// opened are the descriptors of openFD: they keep a mount busy.
var opened = map[int]bool{}

func shutAll() {
	for fd := range opened {
		shut(fd)
	}
}

// shut closes a descriptor of openFD before the end of the test.
func shut(fd int) {
	if opened[fd] {
		unix.Close(fd)
		delete(opened, fd)
	}
}

// tryOpen opens and closes.
func tryOpen(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mode(t *testing.T, path string) uint32 { return stat(t, path).Mode & 0o7777 }

func wantMode(t *testing.T, path string, want uint32) {
	t.Helper()
	if got := mode(t, path); got != want {
		t.Errorf("%s: mode %04o, want %04o", filepath.Base(path), got, want)
	}
}

// helperVariable makes the test program play a second process; see helper.
const helperVariable = "PLYFS_TEST_HELPER"

// second runs one action in another process and returns what it says.
func second(t *testing.T, action ...string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperVariable+"="+strings.Join(action, "\x1f"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", action, err, out)
	}
	return string(out)
}

// helper is the main program of the second process: it prints an errno's name, or "ok".
func helper(action []string) int {
	say := func(err error) {
		var e unix.Errno
		if errors.As(err, &e) {
			fmt.Print(unix.ErrnoName(e))
		} else if err != nil {
			fmt.Print(err)
		} else {
			fmt.Print("ok")
		}
	}
	switch action[0] {
	case "loop":
		return helperLoop()
	case "flock":
		fd, err := unix.Open(action[1], unix.O_RDONLY, 0)
		if err == nil {
			err = unix.Flock(fd, number(action[2])|unix.LOCK_NB)
		}
		say(err)
	case "lock": // PATH COMMAND TYPE START LENGTH
		fd, err := unix.Open(action[1], unix.O_RDWR, 0)
		lk := unix.Flock_t{Type: int16(number(action[3])), Start: int64(number(action[4])), Len: int64(number(action[5]))}
		if err == nil {
			err = unix.FcntlFlock(uintptr(fd), number(action[2]), &lk)
		}
		if err == nil && number(action[2]) == unix.F_GETLK {
			fmt.Printf("%d %d %d", lk.Type, lk.Start, lk.Len)
			return 0
		}
		say(err)
	case "append": // PATH CHARACTER TIMES
		fd, err := unix.Open(action[1], unix.O_WRONLY|unix.O_APPEND, 0)
		for range number(action[3]) {
			if err == nil {
				_, err = unix.Write(fd, []byte(strings.Repeat(action[2], 9)+"\n"))
			}
		}
		say(err)
	default:
		return 2
	}
	return 0
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}
