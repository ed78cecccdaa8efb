package harness

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow/bench/rig"
)

// Layers are the directories of one stack, made below a directory of the test.
type Layers struct {
	Root   string   // has everything below
	Lowers []string // topmost first
	Upper  string
	Work   string
	Mnt    string
}

// NewLayers makes a stack from one tree per lower layer, topmost first (see [Make]).
func NewLayers(t testing.TB, lowers ...string) *Layers {
	t.Helper()
	return NewLayersOn(t, "", lowers...)
}

// NewLayersOn is NewLayers with upper and work in a fresh directory below dir, on another
// filesystem than the lower ones perhaps; "" for the same.
func NewLayersOn(t testing.TB, dir string, lowers ...string) *Layers {
	t.Helper()
	Need(t)
	l := &Layers{Root: Dir(t)}
	up := l.Root
	if dir != "" {
		var err error
		if up, err = os.MkdirTemp(dir, "up-"); err != nil {
			t.Fatal(err)
		}
	}
	for i, text := range lowers {
		dir := filepath.Join(l.Root, fmt.Sprintf("lower%d", i+1))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		Make(t, dir, text)
		l.Lowers = append(l.Lowers, dir)
	}
	l.Upper, l.Work, l.Mnt = up+"/upper", up+"/work", l.Root+"/mnt"
	for _, d := range []string{l.Upper, l.Work, l.Mnt} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// Dir returns an empty directory that is removed, with what is mounted in it, at the end
// of the test.
func Dir(t testing.TB) string {
	t.Helper()
	Need(t)
	dir, err := os.MkdirTemp(scratch, "t-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		Unmount(dir)
		_ = exec.Command("chattr", "-R", "-i", "-a", dir).Run()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Unmount takes away every mount at or below dir.
func Unmount(dir string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	lines := strings.Split(string(b), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		f := strings.Fields(lines[i])
		if len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			if unix.Unmount(f[4], unix.MNT_DETACH) != nil && os.Geteuid() != 0 {
				_ = exec.Command("fusermount3", "-uz", f[4]).Run()
			}
		}
	}
}

// Mount is a mounted stack.
type Mount struct {
	Dir string
	l   *Layers
	pid int
}

// Plyfs mounts the stack with plyfs; flags are further ones of plyfs mount. The mount ends with the
// test at the latest, and a daemon that logged a fault fails the test.
func (l *Layers) Plyfs(t testing.TB, flags ...string) *Mount {
	t.Helper()
	args := []string{"mount"}
	for _, d := range l.Lowers {
		args = append(args, "--lower", d)
	}
	if l.Upper != "" {
		args = append(args, "--upper", l.Upper, "--work", l.Work)
	}
	log := filepath.Join(l.Root, "log")
	args = append(append(args, "--log", log), append(flags, l.Mnt)...)
	if out, err := Run(args...); err != nil {
		t.Fatalf("plyfs %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	m := &Mount{Dir: l.Mnt, l: l}
	m.pid = m.Stat(t).Union.Daemon.PID
	t.Cleanup(func() {
		m.Close(t)
		if b, err := os.ReadFile(log); err == nil && len(b) > 0 {
			t.Logf("log of the daemon:\n%s", b)
			if bytes.Contains(b, []byte("panic")) || bytes.Contains(b, []byte("DATA RACE")) {
				t.Error("the daemon logged a fault")
			}
		}
	})
	return m
}

// Kernel mounts the stack with the kernel's overlayfs, the oracle; options as in
// "redirect_dir=on".
func (l *Layers) Kernel(t testing.TB, options ...string) *Mount {
	t.Helper()
	p := rig.Kernel("kernel", options...)
	if err := p.Check(); err != nil {
		t.Skip(err)
	}
	if _, err := p.Mount(&rig.Stack{Lowers: l.Lowers, Upper: l.Upper, Work: l.Work}, l.Mnt); err != nil {
		t.Fatal(err)
	}
	m := &Mount{Dir: l.Mnt, l: l}
	t.Cleanup(func() { m.Close(t) })
	return m
}

// Close unmounts and waits for the daemon. It may be called again.
func (m *Mount) Close(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := unix.Unmount(m.Dir, 0)
		if err == nil || err == unix.EINVAL || err == unix.ENOENT {
			break
		}
		if err != unix.EBUSY || time.Now().After(deadline) {
			t.Errorf("unmount %s: %v", m.Dir, err)
			_ = unix.Unmount(m.Dir, unix.MNT_DETACH)
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	for m.pid > 0 && Alive(m.pid) {
		if time.Now().After(deadline) {
			t.Errorf("the daemon (process %d) stayed after the unmount", m.pid)
			_ = unix.Kill(m.pid, unix.SIGQUIT) // its goroutines go to the log
			time.Sleep(time.Second)
			_ = unix.Kill(m.pid, unix.SIGKILL)
			break
		}
		time.Sleep(time.Millisecond)
	}
	m.pid = 0
}

// Kill kills the daemon in the middle of whatever it does, and takes the dead mount away.
func (m *Mount) Kill(t testing.TB) {
	t.Helper()
	_ = unix.Kill(m.pid, unix.SIGKILL)
	for Alive(m.pid) {
		time.Sleep(time.Millisecond)
	}
	_ = unix.Unmount(m.Dir, unix.MNT_DETACH)
	m.pid = 0
}

// KillDaemon is Kill for a mount that was made by other means.
func (m *Mount) KillDaemon(t testing.TB) {
	t.Helper()
	m.pid = m.Stat(t).Union.Daemon.PID
	m.Kill(t)
}

// PID returns the process that serves the mount; 0 for the kernel's overlayfs.
func (m *Mount) PID() int { return m.pid }

// Path returns a path in the view.
func (m *Mount) Path(name string) string { return filepath.Join(m.Dir, name) }

// Alive reports whether a process runs; one that only waits to be reaped does not.
func Alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest != "" && rest[0] != 'Z' && rest[0] != 'X'
}

// Stat is what a live mount says of itself, see plyfs stat --json.
type Stat struct {
	Requests map[string]uint64 `json:"requests"`
	Total    uint64            `json:"total"`
	Control  uint64            `json:"control"` // what was asked as this is
	Panics   uint64            `json:"panics"`
	Union    struct {
		Daemon struct {
			PID int `json:"pid"`
		} `json:"daemon"`
		Core struct {
			Nodes      int `json:"nodes"`
			OpenFiles  int `json:"open_files"`
			Unfinished int `json:"unfinished"`
		} `json:"core"`
	} `json:"union"`
}

// Stat asks the mount.
func (m *Mount) Stat(t testing.TB) *Stat {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(m.Dir, "plyfs.stat", buf)
	if err != nil {
		t.Fatalf("%s: plyfs.stat: %v", m.Dir, err)
	}
	var s Stat
	if err := json.Unmarshal(buf[:n], &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// Count returns how many requests, by kind, the kernel made while f ran.
func (m *Mount) Count(t testing.TB, f func()) map[string]uint64 {
	t.Helper()
	before := m.Stat(t).Requests
	f()
	after := m.Stat(t).Requests
	for kind, n := range before {
		if after[kind] -= n; after[kind] == 0 {
			delete(after, kind)
		}
	}
	return after
}

// Run runs the plyfs under test and returns what it printed.
func Run(args ...string) (string, error) {
	out, err := exec.Command(binary, args...).CombinedOutput()
	return string(out), err
}

// ExitCode returns the exit code in an error of [Run], 0 for nil.
func ExitCode(err error) int {
	var e *exec.ExitError
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// At is a mount that was made by other means.
func At(dir string) *Mount { return &Mount{Dir: dir} }

// DaemonPID returns the process that serves the mount at dir.
func DaemonPID(dir string) (int, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(dir, "plyfs.stat", buf)
	if err != nil {
		return 0, fmt.Errorf("%s: plyfs.stat: %w", dir, err)
	}
	var s Stat
	if err := json.Unmarshal(buf[:n], &s); err != nil {
		return 0, err
	}
	return s.Union.Daemon.PID, nil
}
