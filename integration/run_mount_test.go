package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// plyfs runs the program, which must succeed and print nothing but what it is asked for.
func plyfs(t *testing.T, args ...string) string {
	t.Helper()
	out, err := harness.Run(args...)
	if err != nil {
		t.Fatalf("plyfs %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// mounted says whether something is mounted at dir itself.
func mounted(t *testing.T, dir string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte(" "+dir+" "))
}

// waitFor waits until ok, a minute at most.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for ever: %s", what)
		}
	}
}

// daemonOf returns the process that serves dir.
func daemonOf(t *testing.T, dir string) int {
	t.Helper()
	pid := harness.At(dir).Stat(t).Union.Daemon.PID
	if pid == 0 {
		t.Fatal("no daemon in plyfs.stat")
	}
	return pid
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestTwoWaysToSayIt(t *testing.T) {
	l := harness.NewLayers(t, "f top 1", "f bottom 2")
	dirs := strings.Join(l.Lowers, ":")
	for _, tt := range [][]string{
		{"mount", "--lower", l.Lowers[0], "--lower", l.Lowers[1], "--upper", l.Upper, "--work", l.Work, l.Mnt},
		{"-o", "lowerdir=" + dirs + ",upperdir=" + l.Upper + ",workdir=" + l.Work, l.Mnt},
		{"-o", "lowerdir=" + dirs, "-o", "upperdir=" + l.Upper + ",workdir=" + l.Work, l.Mnt},
		{"-olowerdir=" + dirs + ",upperdir=" + l.Upper + ",workdir=" + l.Work, l.Mnt},
		{l.Mnt, "-o", "lowerdir=" + dirs + ",upperdir=" + l.Upper + ",workdir=" + l.Work},
		{"somewhere", l.Mnt, "-o", "lowerdir=" + dirs + ",upperdir=" + l.Upper + ",workdir=" + l.Work},
		{"mount", "-o", "lowerdir+=" + l.Lowers[0], "--lower", l.Lowers[1], "--upper", l.Upper, "--work", l.Work, l.Mnt},
	} {
		if out := plyfs(t, tt...); out != "" {
			t.Errorf("%q printed %q", tt, out)
		}
		// The next command sees the mount.
		if got := names(t, l.Mnt); got != "bottom top" {
			t.Errorf("%q: the view has %q", tt, got)
		}
		if err := os.WriteFile(l.Mnt+"/top", []byte("changed"), 0o644); err != nil {
			t.Errorf("%q: %v", tt, err)
		}
		if out := plyfs(t, "umount", l.Mnt); out != "" {
			t.Errorf("umount printed %q", out)
		}
		if mounted(t, l.Mnt) {
			t.Fatalf("%q: still mounted", tt)
		}
	}
	for i, want := range []string{"1", "2"} {
		if b, err := os.ReadFile(filepath.Join(l.Lowers[i], []string{"top", "bottom"}[i])); err != nil || string(b) != want {
			t.Errorf("lower %d: %q, %v", i+1, b, err)
		}
	}
}

func TestReadOnlyWithoutUpper(t *testing.T) {
	l := harness.NewLayers(t, "f a 1\nd d")
	l.Upper = ""
	m := l.Plyfs(t)
	for what, err := range map[string]error{
		"write":  os.WriteFile(m.Path("a"), nil, 0o644),
		"create": os.WriteFile(m.Path("b"), nil, 0o644),
		"mkdir":  os.Mkdir(m.Path("e"), 0o755),
		"remove": os.Remove(m.Path("a")),
		"chmod":  os.Chmod(m.Path("a"), 0o600),
		"rename": os.Rename(m.Path("a"), m.Path("b")),
		"xattr":  unix.Setxattr(m.Path("a"), "user.a", []byte("1"), 0),
	} {
		if !isErrno(err, unix.EROFS) {
			t.Errorf("%s: %v, want EROFS", what, err)
		}
	}
	if b, err := os.ReadFile(m.Path("a")); err != nil || string(b) != "1" {
		t.Errorf("%q, %v", b, err)
	}
}

// Without --work a work directory is made beside the upper, and used again.
func TestWorkBesideTheUpper(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	if err := os.Remove(l.Work); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		plyfs(t, "mount", "--lower", l.Lowers[0], "--upper", l.Upper, l.Mnt)
		if err := os.WriteFile(l.Mnt+"/a", []byte("2"), 0o644); err != nil {
			t.Error(err)
		}
		plyfs(t, "umount", l.Mnt)
		if _, err := os.Stat(filepath.Join(l.Root, ".upper.work", "work")); err != nil {
			t.Error(err)
		}
	}
	if got := names(t, l.Root); got != ".upper.work lower1 mnt upper" {
		t.Errorf("the directory has %q", got)
	}
}

// What ends a mount, ends it cleanly: no mount, no process, and an upper that is free.
func TestEndings(t *testing.T) {
	for name, end := range map[string]func(dir string, pid int) error{
		"plyfs umount":      func(dir string, _ int) error { return run(harness.Binary(), "umount", dir) },
		"plyfs umount lazy": func(dir string, _ int) error { return run(harness.Binary(), "umount", "-l", dir) },
		"umount":            func(dir string, _ int) error { return run("umount", dir) },
		"fusermount3":       func(dir string, _ int) error { return run("fusermount3", "-u", dir) },
		"SIGTERM":           func(_ string, pid int) error { return unix.Kill(pid, unix.SIGTERM) },
		"SIGINT":            func(_ string, pid int) error { return unix.Kill(pid, unix.SIGINT) },
	} {
		for _, how := range []string{"foreground", "background"} {
			t.Run(name+" "+how, func(t *testing.T) {
				l := harness.NewLayers(t, "f a 1\nF big 1M")
				args := []string{"mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", l.Work, l.Mnt}
				var served *exec.Cmd
				if how == "foreground" {
					served = foreground(t, l.Mnt, args...)
				} else {
					plyfs(t, args...)
				}
				pid := daemonOf(t, l.Mnt)
				if served != nil && pid != served.Process.Pid {
					t.Errorf("process %d serves, %d was started", pid, served.Process.Pid)
				}
				patch(t, l.Mnt+"/big", 70000, "changed")
				if err := end(l.Mnt, pid); err != nil {
					t.Fatal(err)
				}
				if served != nil {
					if err := served.Wait(); err != nil {
						t.Errorf("the daemon ended with %v", err)
					}
				}
				waitFor(t, "the daemon's end", func() bool { return !harness.Alive(pid) })
				if mounted(t, l.Mnt) {
					t.Error("still mounted")
				}
				if got := names(t, filepath.Join(l.Work, "work")); got != "" {
					t.Errorf("the staging directory has %q", got)
				}
				want := harness.Bytes(1 << 20)
				copy(want[70000:], "changed")
				if b, err := os.ReadFile(l.Upper + "/big"); err != nil || !bytes.Equal(b, want) {
					t.Errorf("the upper's file is not complete: %v", err)
				}
			})
		}
	}
}

// A terminal that is closed does not leave a dead mount point.
func TestHangUp(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	served := foreground(t, l.Mnt, "mount", "--lower", l.Lowers[0], l.Mnt)
	if err := served.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := served.Wait(); err != nil {
		t.Errorf("in the foreground: %v", err)
	}
	if mounted(t, l.Mnt) {
		t.Error("still mounted")
	}
	plyfs(t, "mount", "--lower", l.Lowers[0], l.Mnt)
	pid := daemonOf(t, l.Mnt)
	if err := unix.Kill(pid, unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if got := names(t, l.Mnt); got != "a" || !harness.Alive(pid) {
		t.Errorf("in the background: %q", got)
	}
	plyfs(t, "umount", l.Mnt)
}

// Whoever interrupts the command while the mount is not ready interrupts the mount.
func TestInterruptedStart(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		l := harness.NewLayers(t, "f a 1")
		// As if an earlier mount were still completing files of the lower layer: the daemon waits.
		lower, err := os.Open(l.Lowers[0])
		if err != nil {
			t.Fatal(err)
		}
		defer lower.Close()
		if err := unix.FcntlFlock(lower.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(harness.Binary(), "mount", "--lower", l.Lowers[0], l.Mnt)
		out := new(bytes.Buffer)
		cmd.Stderr = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if mounted(t, l.Mnt) {
				plyfs(t, "umount", l.Mnt)
			}
		})
		daemon := 0
		waitFor(t, "the daemon", func() bool { daemon = childOf(cmd.Process.Pid); return daemon != 0 })
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // or the mount is ready before the command can pass the signal on
		lower.Close()
		if err := cmd.Wait(); harness.ExitCode(err) != 1 || !strings.HasPrefix(out.String(), "plyfs: ") || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%v: %v, %q", sig, err, out)
		}
		waitFor(t, "the daemon's end", func() bool { return !harness.Alive(daemon) || mounted(t, l.Mnt) })
		if mounted(t, l.Mnt) {
			t.Errorf("%v: mounted all the same", sig)
		}
	}
}

// childOf returns a child of a process, 0 if it has none.
func childOf(pid int) int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		if f := strings.Fields(string(b)); len(f) > 0 {
			child, _ := strconv.Atoi(f[0])
			return child
		}
	}
	return 0
}

// A mount that is in use: it stays for umount, and is out of sight but alive for its users after a
// signal.
func TestEndingWhileInUse(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	plyfs(t, "mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", l.Work, l.Mnt)
	pid := daemonOf(t, l.Mnt)
	f, err := os.OpenFile(l.Mnt+"/a", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := harness.Run("umount", l.Mnt)
	if harness.ExitCode(err) != 1 || !strings.Contains(out, "in use") {
		t.Errorf("umount: %v, %q", err, out)
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the mount to go out of sight", func() bool { return !mounted(t, l.Mnt) })
	if _, err := f.WriteAt([]byte("2"), 0); err != nil {
		t.Errorf("writing to a file that was open: %v", err)
	}
	if !harness.Alive(pid) {
		t.Error("the daemon left its user alone")
	}
	f.Close()
	waitFor(t, "the daemon's end", func() bool { return !harness.Alive(pid) })
	if b, err := os.ReadFile(l.Upper + "/a"); err != nil || string(b) != "2" {
		t.Errorf("%q, %v", b, err)
	}
}

// The daemon keeps nothing of the one who started it: no directory, no terminal, no pipe.
func TestDaemonLetsGo(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	dir := harness.Dir(t)
	var out bytes.Buffer
	cmd := exec.Command(harness.Binary(), "mount", "--lower", l.Lowers[0], l.Mnt)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out // Wait waits for the end of these
	extra, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{extra}
	if err := cmd.Run(); err != nil {
		t.Fatal(err, out.String())
	}
	extra.Close()
	pid := daemonOf(t, l.Mnt)
	for _, link := range append(fds(t, pid), "cwd") {
		if to, err := os.Readlink("/proc/" + itoa(pid) + "/" + link); err == nil && strings.HasPrefix(to, dir) {
			t.Errorf("the daemon has %s open (%s)", to, link)
		}
	}
	plyfs(t, "umount", l.Mnt)
}

// As mount(8) does it, and as Podman does.
func TestByOtherNames(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	bin := harness.Dir(t)
	for _, name := range []string{"plyfs", "fuse-overlayfs", "mount.fuse.plyfs"} {
		if err := os.Symlink(harness.Binary(), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	options := "lowerdir=" + l.Lowers[0] + ",upperdir=" + l.Upper + ",workdir=" + l.Work
	lines := [][]string{
		{bin + "/fuse-overlayfs", "-o", options, l.Mnt},
		{bin + "/mount.fuse.plyfs", "thing", l.Mnt, "-o", "rw," + options},
		{bin + "/mount.fuse.plyfs", "thing", l.Mnt, "-n", "-s", "-t", "fuse.plyfs", "-o", "rw," + options},
	}
	// mount.fuse3 looks for the program on root's path and nowhere else.
	const rootBin = "/usr/local/sbin"
	if _, err := exec.LookPath("mount.fuse3"); err == nil && unix.Mount(bin, rootBin, "", unix.MS_BIND, "") == nil {
		defer unix.Unmount(rootBin, unix.MNT_DETACH)
		lines = append(lines, []string{"mount", "-t", "fuse.plyfs", "thing", l.Mnt, "-o", options + ",nosuid,noatime,_netdev"})
		lines = append(lines, []string{"mount", "-t", "fuse", "plyfs#thing", l.Mnt, "-o", options})
	}
	for _, line := range lines {
		cmd := exec.Command(line[0], line[1:]...)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v, %q", strings.Join(line, " "), err, out)
			continue
		}
		if got := names(t, l.Mnt); got != "a" {
			t.Errorf("%s: %q", strings.Join(line, " "), got)
		}
		plyfs(t, "umount", l.Mnt)
	}
	cmd := exec.Command(bin+"/fuse-overlayfs", "--version")
	if out, err := cmd.Output(); err != nil || !bytes.HasPrefix(out, []byte("plyfs version")) {
		t.Errorf("--version: %q, %v", out, err)
	}
	// In the foreground, as Podman asks of it for storage mounts.
	fg := exec.Command(bin+"/fuse-overlayfs", "-f", "-o", options, l.Mnt)
	if err := fg.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the mount", func() bool { return mounted(t, l.Mnt) })
	plyfs(t, "umount", l.Mnt)
	if err := fg.Wait(); err != nil {
		t.Error(err)
	}
}

// 500 layers, as the issue says.
func TestManyLayers(t *testing.T) {
	var lowers []string
	for i := range 500 {
		lowers = append(lowers, "f d/f"+itoa(i)+" x\nf same "+itoa(i))
	}
	m := harness.NewLayers(t, lowers...).Plyfs(t)
	if entries, err := os.ReadDir(m.Path("d")); err != nil || len(entries) != 500 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	if b, err := os.ReadFile(m.Path("same")); err != nil || string(b) != "0" {
		t.Errorf("%q, %v", b, err)
	}
	if err := os.WriteFile(m.Path("d/f499"), []byte("y"), 0o644); err != nil {
		t.Error(err)
	}
}
