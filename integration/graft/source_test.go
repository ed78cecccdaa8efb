package graft

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

func TestSourceAbilitiesArePrinted(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f file x")
	fixed := source(t, l, "fixed", "f file x")
	untouched(t, func() {
		out, err := harness.Run("mount", "-v", "--lower", l.Lowers[0], "--bind", src+":/data", "--bind", fixed+":/ro:ro", "--tmpfs", "/run", l.Mnt)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Cleanup(func() { _, _ = harness.Run("umount", l.Mnt) })
		for _, want := range []string{"bind " + src + " at /data: ", "+hard-links", "+flock", "+posix-locks", "bind " + fixed + " at /ro: ", "read-only", "tmpfs at /run: tmpfs"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
	}, fixed)
	if got := names(t, src); got != "file" {
		t.Errorf("left in the source: %q", got)
	}
}

// killSSHFS kills the sshfs that serves at.
func killSSHFS(t *testing.T, at string) {
	t.Helper()
	ps, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		b, _ := os.ReadFile(p)
		if bytes.HasPrefix(b, []byte("sshfs\x00")) && bytes.Contains(b, []byte(at)) {
			var pid int
			if _, err := fmt.Sscanf(p, "/proc/%d/", &pid); err == nil {
				_ = unix.Kill(pid, unix.SIGKILL)
				for harness.Alive(pid) {
					time.Sleep(time.Millisecond)
				}
			}
		}
	}
}

// What it takes for a FUSE server without access lists or attributes to be known as that: the kernel answers that a
// file has no list.
func TestSourceAbilitiesOfSSHFS(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	far := source(t, l, "far", "f conf v1")
	at := harness.SSHFS(t, far)
	out, err := harness.Run("mount", "-v", "--lower", l.Lowers[0], "--bind", at+":/data", "--bind", at+":/ro:ro", "--tmpfs", "/run", l.Mnt)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { _, _ = harness.Run("umount", l.Mnt) })
	for _, want := range []string{"at /data: fuse +create -xattr -acl ", "at /ro: fuse -xattr read-only", "at /run: tmpfs +create +xattr +acl "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	// sshfs itself keeps what was removed straight after a close, for a moment.
	wait(t, "nothing is left in the source", func() bool { return names(t, far) == "conf" })
}

func TestSourceSSHFS(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	far := source(t, l, "far", "f conf v1\nd dir")
	at := harness.SSHFS(t, far)
	m := l.Plyfs(t, "--bind", at+":/data")
	if got := read(t, m.Path("data/conf")); got != "v1" {
		t.Errorf("%q", got)
	}
	write(t, m.Path("data/conf"), "from the view")
	write(t, m.Path("data/dir/new"), "n")
	if got := read(t, far+"/conf") + " " + names(t, far+"/dir"); got != "from the view new" {
		t.Errorf("%q", got)
	}
	write(t, far+"/conf", "from afar, longer")
	if got := read(t, m.Path("data/conf")); got != "from afar, longer" {
		t.Errorf("%q", got)
	}
	// What it lacks is that operation's own error, and nothing else is lost.
	is(t, "setxattr", unix.Setxattr(m.Path("data/conf"), "user.x", []byte("x"), 0), unix.EOPNOTSUPP)
	if got := read(t, m.Path("data/conf")); got != "from afar, longer" {
		t.Errorf("%q", got)
	}
	log := read(t, filepath.Join(l.Root, "log"))
	if n := strings.Count(log, "no extended attributes"); n != 1 {
		t.Errorf("said %d times in the log:\n%s", n, log)
	}

	// It goes away: its users get an error, the others nothing; and it comes back.
	killSSHFS(t, at)
	if _, err := os.ReadFile(m.Path("data/conf")); err == nil {
		t.Error("read from a source that is gone")
	}
	if got := read(t, m.Path("etc/hosts")); got != "hosts" {
		t.Errorf("%q", got)
	}
	write(t, m.Path("etc/hosts"), "still writable")
	if err := unix.Unmount(at, 0); err != nil {
		t.Errorf("the original cannot be unmounted: %v", err)
		_ = unix.Unmount(at, unix.MNT_DETACH)
	}
	harness.MountSSHFS(t, far, at)
	if got := read(t, m.Path("data/conf")); got != "from afar, longer" {
		t.Errorf("back: %q", got)
	}
	log = read(t, filepath.Join(l.Root, "log"))
	if strings.Count(log, "the source is gone") != 1 || strings.Count(log, "the source is back") != 1 {
		t.Errorf("the log does not say once that it went and came back:\n%s", log)
	}
	write(t, m.Path("data/again"), "x")
	if got := names(t, far); got != "again conf dir" {
		t.Errorf("%q", got)
	}
}

// GlusterFS can do most of what a disk can, locks among it.
func TestSourceGlusterFSReal(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	far := source(t, l, "far", "f conf v1\nd dir")
	g := harness.GlusterFS(t, far)
	args := []string{"mount", "-v", "--log", filepath.Join(l.Root, "log"), "--lower", l.Lowers[0], "--upper", l.Upper, "--work", l.Work, "--bind", g.At + ":/data", l.Mnt}
	out, err := harness.Run(args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := harness.At(l.Mnt)
	t.Cleanup(func() { _, _ = harness.Run("umount", l.Mnt) })
	for _, want := range []string{"bind " + g.At + " at /data: fuse ", "+xattr", "+hard-links", "+symlinks", "+chown", "+flock", "+posix-locks", "-exchange"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	host := func(name string) string { return filepath.Join(g.At, name) }
	view := func(name string) string { return m.Path("data/" + name) }

	// Names, contents and appends, both ways, at once.
	if got := names(t, m.Path("data")) + " " + read(t, view("conf")); got != "conf dir v1" {
		t.Errorf("%q", got)
	}
	write(t, view("conf"), "from the view")
	if got := read(t, host("conf")); got != "from the view" {
		t.Errorf("%q", got)
	}
	write(t, host("conf"), "from elsewhere, longer")
	if got := read(t, view("conf")); got != "from elsewhere, longer" {
		t.Errorf("%q", got)
	}
	a, b := open(t, view("log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND), open(t, host("log"), os.O_WRONLY|os.O_APPEND)
	for range 20 {
		for f, text := range map[*os.File]string{a: "view\n", b: "host\n"} {
			if _, err := f.WriteString(text); err != nil {
				t.Error(err)
			}
		}
	}
	if got := read(t, host("log")); strings.Count(got, "view\n") != 20 || strings.Count(got, "host\n") != 20 || len(got) != 200 {
		t.Errorf("%d bytes of 200: %q", len(got), got)
	}
	for i, err := range []error{
		os.Rename(view("conf"), view("dir/moved")), os.Link(view("dir/moved"), view("second")), os.Symlink("second", view("link")),
		os.Chown(view("second"), 5, 6), os.Chmod(view("second"), 0o640), unix.Setxattr(view("second"), "user.x", []byte("y"), 0),
	} {
		if err != nil {
			t.Errorf("change %d: %v", i, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(host("dir/moved"), &st); err != nil || st.Uid != 5 || st.Gid != 6 || st.Mode&0o777 != 0o640 || st.Nlink != 2 {
		t.Errorf("%+v, %v", st, err)
	}
	buf := make([]byte, 10)
	if n, err := unix.Getxattr(host("link"), "user.x", buf); err != nil || n != 1 || buf[0] != 'y' {
		t.Errorf("%q, %v", buf, err)
	}
	is(t, "what it lacks", unix.Renameat2(unix.AT_FDCWD, view("log"), unix.AT_FDCWD, view("second"), unix.RENAME_EXCHANGE), unix.EINVAL)

	// Locks exclude the other users of the volume. (To GlusterFS both kinds are one.)
	mine, theirs := open(t, view("log"), os.O_RDWR), open(t, host("log"), os.O_RDWR)
	if err := unix.Flock(int(mine.Fd()), unix.LOCK_EX); err != nil {
		t.Error(err)
	}
	is(t, "flock", unix.Flock(int(theirs.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EAGAIN)
	if err := unix.Flock(int(mine.Fd()), unix.LOCK_UN); err != nil {
		t.Error(err)
	}
	if _, err := posixLock(theirs, unix.F_SETLK, unix.F_WRLCK, 0, 10); err != nil {
		t.Error(err)
	}
	_, err = posixLock(mine, unix.F_SETLK, unix.F_WRLCK, 5, 10)
	is(t, "fcntl", err, unix.EAGAIN)
	if _, err := posixLock(mine, unix.F_SETLK, unix.F_WRLCK, 10, 10); err != nil {
		t.Error(err)
	}
	_, err = posixLock(theirs, unix.F_SETLK, unix.F_WRLCK, 15, 1)
	is(t, "fcntl, the other way", err, unix.EAGAIN)
	mine.Close()
	if _, err := posixLock(theirs, unix.F_SETLK, unix.F_WRLCK, 15, 1); err != nil {
		t.Errorf("after the close: %v", err)
	}
	theirs.Close()

	// The server goes and comes back.
	g.KillServer(t)
	_, err = os.ReadFile(view("log"))
	is(t, "no server", err, unix.ENOTCONN)
	is(t, "no server", os.WriteFile(view("lost"), nil, 0o644), unix.ENOTCONN)
	if got := names(t, m.Dir) + read(t, m.Path("etc/hosts")); got != "absolute data etc link outside plainhosts" {
		t.Errorf("%q", got)
	}
	write(t, m.Path("etc/hosts"), "still writable")
	g.StartServer(t)
	g.Await(t)
	if got := names(t, m.Path("data")); got != "dir link log second" {
		t.Errorf("%q", got)
	}
	if got := read(t, view("log")); len(got) != 200 {
		t.Errorf("%d bytes of 200", len(got))
	}
	write(t, view("again"), "x")
	log := read(t, filepath.Join(l.Root, "log"))
	if strings.Count(log, "the source is gone") != 1 || strings.Count(log, "the source is back") != 1 {
		t.Errorf("the log does not say once that it went and came back:\n%s", log)
	}
}

// The set-group-id bit of a file that its group may not execute goes with a change of owner by somebody who is not in the
// group, and stays with one by root.
func TestBindSetGroupID(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f file x")
	m := l.Plyfs(t, "--bind", src+":/data")
	path := m.Path("data/file")
	mode := func(what string, want uint32) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(src+"/file", &st); err != nil || st.Mode&0o7777 != want {
			t.Errorf("%s: mode %o, want %o (%v)", what, st.Mode&0o7777, want, err)
		}
	}
	for _, err := range []error{os.Chmod(l.Root, 0o755), os.Chmod(filepath.Dir(l.Root), 0o755), unix.Chmod(path, 0o2644), os.Chown(path, harness.UserID, 0)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	mode("root gives it away", 0o2644)
	if out, err := harness.AsUser("/", "chgrp", strconv.Itoa(harness.UserID), path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	mode("its owner takes it to his group", 0o644)
}

// In the kernel's overlayfs a file is born again when it is copied up, and is the same file: who has its directory open,
// or watches it, goes on.
func TestSourceKernelOverlay(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, graftImage)
	k := harness.NewLayers(t, "f dir/file lower")
	src := k.Kernel(t)
	m := l.Plyfs(t, "--bind", src.Dir+":/data")
	dir, file := open(t, m.Path("data/dir"), os.O_RDONLY), open(t, m.Path("data/dir/file"), os.O_RDONLY)
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, dir.Name(), unix.IN_CREATE); err != nil {
		t.Fatal(err)
	}
	write(t, m.Path("data/dir/one"), "copies the directory up")
	if err := os.Chmod(file.Name(), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read(t, file.Name()) + names(t, dir.Name()); got != "lowerfile one" {
		t.Errorf("%q", got)
	}
	for _, f := range []*os.File{dir, file} {
		if got, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); got != f.Name() {
			t.Errorf("an open file is now %q, %v", got, err)
		}
	}
	write(t, m.Path("data/dir/two"), "")
	buf := make([]byte, 4096)
	n, err := unix.Read(watch, buf)
	if err != nil || !bytes.Contains(buf[:n], []byte("one")) || !bytes.Contains(buf[:n], []byte("two")) {
		t.Errorf("the watch saw %q, %v", buf[:max(n, 0)], err)
	}
}

// A file that is append-only can be appended to, and no more.
func TestSourceAppendOnlyFile(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, graftImage)
	src := harness.Filesystem(t, "ext4", 32<<20)
	harness.Make(t, src, "f log one,\nd upper\nd work")
	over := &harness.Layers{Lowers: l.Lowers, Upper: src + "/upper", Work: src + "/work", Mnt: harness.Dir(t)}
	stacked := over.Kernel(t) // in which the kernel does not write by itself
	write(t, stacked.Path("log"), "one,")
	m := l.Plyfs(t, "--bind", src+":/data", "--bind", stacked.Dir+":/stacked")
	for log, view := range map[string]string{src + "/log": m.Path("data/log"), stacked.Path("log"): m.Path("stacked/log")} {
		if out, err := exec.Command("chattr", "+a", log).CombinedOutput(); err != nil {
			t.Fatalf("chattr: %v: %s", err, out)
		}
		defer exec.Command("chattr", "-a", log).Run()
		f, err := os.OpenFile(view, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := f.WriteString("two,"); err != nil {
			t.Error(err)
		}
		if err := f.Sync(); err != nil {
			t.Error(err)
		}
		f.Close()
		for _, flags := range []int{os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND | os.O_TRUNC} {
			f, err := os.OpenFile(view, flags, 0)
			is(t, "open", err, unix.EPERM)
			f.Close()
		}
		if got := read(t, log); got != "one,two," {
			t.Errorf("%q", got)
		}
	}
}
