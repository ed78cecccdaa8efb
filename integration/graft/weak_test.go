package graft

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// A source that lacks something: that operation's own error, one line in the log however often it
// is tried, and nothing lost. Whatever a source answers, the files of the layers can do it still.
func TestWeakSourceLacksOneThing(t *testing.T) {
	for _, c := range []struct {
		name  string
		lacks map[string]unix.Errno
		want  unix.Errno
		log   string // "" for none: the error is a common one
		do    func(dir string) error
	}{
		{"hard links", map[string]unix.Errno{"link": unix.EPERM}, unix.EPERM, "no hard links",
			func(dir string) error { return os.Link(dir+"/file", dir+"/second") }},
		{"hard links, unknown", map[string]unix.Errno{"link": unix.ENOSYS}, unix.EPERM, "no hard links",
			func(dir string) error { return os.Link(dir+"/file", dir+"/second") }},
		{"symbolic links", map[string]unix.Errno{"symlink": unix.EPERM}, unix.EPERM, "no symbolic links",
			func(dir string) error { return os.Symlink("x", dir+"/second") }},
		{"special files", map[string]unix.Errno{"mknod": unix.EPERM}, unix.EPERM, "no special files",
			func(dir string) error { return unix.Mkfifo(dir+"/second", 0o600) }},
		{"attributes", map[string]unix.Errno{"xattr": unix.ENOSYS}, unix.EOPNOTSUPP, "no extended attributes",
			func(dir string) error { return unix.Setxattr(dir+"/file", "user.x", []byte("x"), 0) }},
		{"owners", map[string]unix.Errno{"chown": unix.EPERM}, unix.EPERM, "no changes of owner",
			func(dir string) error { return os.Chown(dir+"/file", 1, 1) }},
		{"owners, not supported", map[string]unix.Errno{"chown": unix.EOPNOTSUPP}, unix.EOPNOTSUPP, "no changes of owner",
			func(dir string) error { return os.Chown(dir+"/file", 1, 1) }},
		{"modes", map[string]unix.Errno{"chmod": unix.EPERM}, unix.EPERM, "no changes of mode",
			func(dir string) error { return os.Chmod(dir+"/file", 0o600) }},
		{"BSD locks", map[string]unix.Errno{"lock": unix.ENOLCK}, unix.ENOLCK, "no locks",
			func(dir string) error {
				f, err := os.OpenFile(dir+"/file", os.O_RDWR, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
			}},
		{"POSIX locks", map[string]unix.Errno{"lock": unix.EOPNOTSUPP}, unix.EOPNOTSUPP, "no locks",
			func(dir string) error {
				f, err := os.OpenFile(dir+"/file", os.O_RDWR, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = posixLock(f, unix.F_SETLK, unix.F_WRLCK, 0, 1)
				return err
			}},
		{"exchange", map[string]unix.Errno{"rename2": unix.EINVAL}, unix.EINVAL, "",
			func(dir string) error {
				return unix.Renameat2(unix.AT_FDCWD, dir+"/file", unix.AT_FDCWD, dir+"/other", unix.RENAME_EXCHANGE)
			}},
		{"space", map[string]unix.Errno{"fallocate": unix.ENOSYS}, unix.EOPNOTSUPP, "no fallocate",
			func(dir string) error {
				f, err := os.OpenFile(dir+"/file", os.O_RDWR, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				return unix.Fallocate(int(f.Fd()), 0, 0, 8192)
			}},
		{"files without a name", map[string]unix.Errno{"tmpfile": unix.ENOSYS}, unix.EOPNOTSUPP, "no files without a name",
			func(dir string) error {
				fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
				if err == nil {
					unix.Close(fd)
				}
				return err
			}},
		{"room", map[string]unix.Errno{"write": unix.ENOSPC}, unix.ENOSPC, "",
			func(dir string) error {
				f, err := os.OpenFile(dir+"/file", os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = f.WriteString("longer than what is there")
				return err
			}},
		{"room, found out at close", map[string]unix.Errno{"flush": unix.EDQUOT}, unix.EDQUOT, "",
			func(dir string) error {
				f, err := os.OpenFile(dir+"/file", os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				return f.Close()
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := harness.NewLayers(t, graftImage+"\nf lay/file layer\nf lay/other layer")
			src := source(t, l, "src", "f file host\nf other too")
			w := weak(t, src, c.lacks)
			m := l.Plyfs(t, "--bind", w.at+":/data")
			untouched(t, func() {
				for range 3 {
					is(t, c.name, c.do(m.Path("data")), c.want)
				}
			}, src)
			if got := read(t, m.Path("data/file")) + " " + names(t, m.Path("data")); got != "host file other" {
				t.Errorf("the view has %q", got)
			}
			if err := c.do(m.Path("lay")); err != nil {
				t.Errorf("the layers cannot do it any more: %v", err)
			}
			log := readLog(t, l)
			if c.log == "" && log != "" || strings.Count(log, "\n") > 1 {
				t.Errorf("the log says\n%s", log)
			}
			if !strings.Contains(log, c.log) {
				t.Errorf("no %q in the log:\n%s", c.log, log)
			}
		})
	}
}

// Where there are no access lists, modes decide: for the files of a graft and for those of a layer.
func TestWeakSourceWithoutAccessLists(t *testing.T) {
	harness.NeedUser(t)
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f mine 1\nu mine 5 6\nm mine 640\nf group 2\nu group 5 65534\nm group 660\nf theirs 3\nu theirs 5 6\nm theirs 640")
	for _, answer := range []unix.Errno{unix.ENOSYS, unix.EOPNOTSUPP} {
		w := weak(t, src, map[string]unix.Errno{"xattr": answer})
		l.Lowers = append(l.Lowers[:1], w.at)
		m := l.Plyfs(t, "--bind", w.at+":/data")
		if err := os.Chmod(l.Root, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{m.Dir, m.Path("data")} {
			if got := read(t, dir+"/mine"); got != "1" { // as root
				t.Errorf("%q", got)
			}
			out, err := harness.AsUser("/", "cat", dir+"/group").CombinedOutput()
			if err != nil || string(out) != "2" {
				t.Errorf("a member of the group: %s, %v", out, err)
			}
			out, err = harness.AsUser("/", "cat", dir+"/theirs").CombinedOutput()
			if err == nil || !strings.Contains(string(out), "Permission denied") {
				t.Errorf("somebody else: %s, %v", out, err)
			}
			if err := unix.Setxattr(dir+"/mine", "user.x", []byte("x"), 0); dir != m.Dir && !errors.Is(err, unix.EOPNOTSUPP) {
				t.Error(err)
			}
		}
		m.Close(t)
	}
}

// What a file refuses for a reason of its own is nothing that the source lacks.
func TestWeakIsNotImmutable(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, graftImage)
	src := harness.Filesystem(t, "ext4", 32<<20)
	harness.Make(t, src, "f file host")
	m := l.Plyfs(t, "--bind", src+":/data")
	if out, err := exec.Command("chattr", "+i", src+"/file").CombinedOutput(); err != nil {
		t.Fatalf("chattr: %v: %s", err, out)
	}
	defer exec.Command("chattr", "-i", src+"/file").Run()
	file := m.Path("data/file")
	is(t, "chmod", os.Chmod(file, 0o600), unix.EPERM)
	is(t, "chown", os.Chown(file, 1, 1), unix.EPERM)
	is(t, "link", os.Link(file, m.Path("data/second")), unix.EPERM)
	if log := readLog(t, l); log != "" {
		t.Errorf("the log says\n%s", log)
	}
}

// A server that is asked by name for the birth time of a file still knows one that was removed while open.
func TestWeakFileRemovedWhileOpen(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f file host")
	w := weak(t, src, nil)
	m := l.Plyfs(t, "--bind", w.at+":/data")
	f := open(t, m.Path("data/new"), os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err := os.Remove(m.Path("data/new")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("hello"); err != nil {
		t.Error(err)
	}
	size := func(want int64) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Size != want || st.Nlink != 0 {
			t.Errorf("%d bytes of %d, %d names, %v", st.Size, want, st.Nlink, err)
		}
	}
	size(5)
	if err := f.Truncate(2); err != nil {
		t.Error(err)
	}
	size(2)
	if got := names(t, src); got != "file" {
		t.Errorf("left in the source: %q", got)
	}
}

// A server that does not trust root: a file that only its owner may open can be locked by him, and the lock is the source's.
func TestWeakSourceSquashesRoot(t *testing.T) {
	harness.NeedUser(t)
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", fmt.Sprintf("f file host\nm file 600\nu file %d %[1]d", harness.UserID))
	w := weak(t, src, map[string]unix.Errno{"root": unix.EACCES})
	m := l.Plyfs(t, "--bind", w.at+":/data")
	for _, dir := range []string{l.Root, filepath.Dir(l.Root)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := harness.AsUser("/", "sh", "-c", `exec 3<>"$1" && timeout 60 flock 3 && echo locked && read line`, "sh", m.Path("data/file"))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("%q, %v", line, err)
	}
	host := open(t, src+"/file", os.O_RDWR)
	is(t, "the host", unix.Flock(int(host.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EAGAIN)
}

// readLog returns what the daemon logged, but for what it says about passthrough: a weak
// filesystem is a stacked one to the kernel.
func readLog(t *testing.T, l *harness.Layers) string {
	t.Helper()
	var out string
	for line := range strings.Lines(read(t, filepath.Join(l.Root, "log"))) {
		if !strings.Contains(line, "passthrough") {
			out += line
		}
	}
	return out
}

// A source that does not answer keeps nobody waiting but its users, however many there are, and
// serves them when it answers again.
func TestWeakSourceHangs(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f file host\nd dir")
	other := source(t, l, "other", "f name other")
	w := weak(t, src, nil)
	m := l.Plyfs(t, "--bind", w.at+":/data", "--bind", other+":/srv/other", "--bind", w.at+"/file:/etc/one")
	f := open(t, m.Path("data/file"), os.O_RDWR)
	w.set(t, 0, true)
	const users = 50
	errs := make(chan error, users)
	for i := range users {
		go func() {
			var err error
			switch i % 5 {
			case 0:
				_, err = os.Stat(m.Path("data/file"))
			case 1:
				_, err = os.ReadDir(m.Path("data"))
			case 2:
				err = os.WriteFile(m.Path("data/new"), []byte("x"), 0o644)
			case 3:
				_, err = f.WriteAt([]byte("HO"), 0)
			default:
				_, err = f.ReadAt(make([]byte, 4), 0)
			}
			errs <- err
		}()
	}
	wait(t, "requests that hang", func() bool { return w.hanging(t) > 5 })
	for range 20 {
		write(t, m.Path("etc/hosts"), "writable")
		if got := names(t, m.Dir) + ", " + names(t, m.Path("etc")); got != "absolute data etc link outside plain srv, app.conf hosts one" {
			t.Errorf("%q", got)
		}
		if got := read(t, m.Path("srv/other/name")) + read(t, m.Path("plain")); got != "othera file" {
			t.Errorf("%q", got)
		}
		write(t, m.Path("srv/other/name"), "other")
	}
	if err := os.Rename(m.Path("etc"), m.Path("etc2")); err != nil {
		t.Error(err)
	}
	if n := len(errs); n != 0 {
		t.Errorf("%d users of a source that hangs were answered", n)
	}
	w.set(t, 0, false)
	for range users {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := read(t, src+"/file") + read(t, m.Path("data/new")); got != "HOstx" {
		t.Errorf("%q", got)
	}
}

// Nor does a single file whose source does not answer: the kernel keeps its directory locked while it looks it up.
func TestWeakFileHangs(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f file host")
	w := weak(t, src, nil)
	m := l.Plyfs(t, "--bind", w.at+"/file:/etc/one")
	w.set(t, 0, true)
	t.Cleanup(func() { w.set(t, 0, false) })
	type answer struct {
		text []byte
		err  error
	}
	user, others := make(chan answer, 1), make(chan answer, 1)
	go func() {
		b, err := os.ReadFile(m.Path("etc/one"))
		user <- answer{b, err}
	}()
	wait(t, "a request that hangs", func() bool { return w.hanging(t) > 0 })
	go func() {
		err := os.WriteFile(m.Path("etc/hosts"), []byte("writable"), 0o644)
		for i := 0; i < 10 && err == nil; i++ {
			name := m.Path(fmt.Sprint("etc/new", i))
			err = errors.Join(os.WriteFile(name, nil, 0o644), os.Rename(name, name+"2"), os.Remove(name+"2"))
		}
		b, e := os.ReadFile(m.Path("etc/hosts"))
		others <- answer{b, errors.Join(err, e)}
	}()
	select {
	case a := <-others:
		if a.err != nil || string(a.text) != "writable" {
			t.Errorf("%q, %v", a.text, a.err)
		}
	case a := <-user:
		t.Errorf("a source that hangs answered %q, %v", a.text, a.err)
		user <- a
		<-others
	case <-time.After(time.Minute):
		t.Error("others wait for the source")
	}
	w.set(t, 0, false)
	if a := <-user; a.err != nil || string(a.text) != "host" {
		t.Errorf("%q, %v", a.text, a.err)
	}
	if err := os.WriteFile(src+"/file", []byte("longer than before"), 0o644); err != nil {
		t.Error(err)
	}
	if got := read(t, m.Path("etc/one")); got != "longer than before" {
		t.Errorf("%q", got)
	}
}

// A source that fails, or goes away, in the middle of the work: an error for whoever uses it, nothing
// for the others, and all of it is there again when the source is.
func TestWeakSourceGoesAndComesBack(t *testing.T) {
	for _, how := range []unix.Errno{unix.EIO, unix.ESTALE, unix.ENOTCONN, unix.ETIMEDOUT} {
		t.Run(unix.ErrnoName(how), func(t *testing.T) {
			l := harness.NewLayers(t, graftImage)
			src := source(t, l, "src", "f file host\nf dir/deep deep\nf one a single file")
			w := weak(t, src, nil)
			m := l.Plyfs(t, "--bind", w.at+":/data", "--bind", w.at+"/one:/etc/one")
			f := open(t, m.Path("data/file"), os.O_RDWR)
			d := open(t, m.Path("data/dir"), os.O_RDONLY)
			if got := read(t, m.Path("data/dir/deep")) + read(t, m.Path("etc/one")); got != "deepa single file" {
				t.Errorf("%q", got)
			}
			w.set(t, how, false)
			before := readLog(t, l)
			for what, err := range map[string]error{
				"read":      func() error { _, err := f.ReadAt(make([]byte, 1), 0); return err }(),
				"write":     func() error { _, err := f.WriteAt([]byte("lost"), 0); return err }(),
				"stat":      func() error { _, err := os.Stat(m.Path("data/dir/deep")); return err }(),
				"list":      func() error { _, err := os.ReadDir(m.Path("data")); return err }(),
				"create":    os.WriteFile(m.Path("data/new"), nil, 0o644),
				"mkdir":     os.Mkdir(m.Path("data/newdir"), 0o755),
				"rename":    os.Rename(m.Path("data/file"), m.Path("data/moved")),
				"unlink":    os.Remove(m.Path("data/file")),
				"one file":  func() error { _, err := os.ReadFile(m.Path("etc/one")); return err }(),
				"the point": func() error { _, err := os.Stat(m.Path("data")); return err }(),
			} {
				if !errors.Is(err, how) {
					t.Errorf("%s: %v, want %v", what, err, how)
				}
			}
			write(t, m.Path("etc/hosts"), "writable")
			if got := names(t, m.Path("etc")); got != "app.conf hosts one" {
				t.Errorf("%q", got)
			}
			if got := read(t, m.Path("etc/hosts")); got != "writable" {
				t.Errorf("%q", got)
			}
			w.set(t, 0, false)
			if got := read(t, m.Path("data/file")) + read(t, m.Path("data/dir/deep")) + read(t, m.Path("etc/one")) + names(t, m.Path("data")); got != "hostdeepa single filedir file one" {
				t.Errorf("back: %q", got)
			}
			if _, err := f.WriteAt([]byte("H"), 0); err != nil {
				t.Errorf("a file that was open all the time: %v", err)
			}
			if got, err := d.Readdirnames(-1); err != nil || strings.Join(got, " ") != "deep" {
				t.Errorf("a directory that was open all the time: %v, %v", got, err)
			}
			if got := read(t, src+"/file"); got != "Host" {
				t.Errorf("%q", got)
			}
			log := strings.TrimPrefix(readLog(t, l), before)
			if gone, back := strings.Count(log, "is gone"), strings.Count(log, "is back"); gone > 2 || gone != back {
				t.Errorf("%d times gone and %d times back, of two sources:\n%s", gone, back, log)
			}
		})
	}
}

// The server ends, the mount is taken away, and another one comes in its place.
func TestWeakSourceIsMountedAgain(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f file host\nf dir/deep deep\nf one a single file")
	w := weak(t, src, nil)
	m := l.Plyfs(t, "--bind", w.at+":/data", "--bind", w.at+"/one:/etc/one")
	f := open(t, m.Path("data/file"), os.O_RDWR)
	if got := read(t, m.Path("data/dir/deep")); got != "deep" {
		t.Errorf("%q", got)
	}
	for range 2 {
		w.kill()
		for _, name := range []string{"data/file", "data/dir/deep", "etc/one"} {
			if _, err := os.ReadFile(m.Path(name)); err == nil {
				t.Errorf("%s can be read", name)
			}
		}
		if err := os.WriteFile(m.Path("data/lost"), nil, 0o644); err == nil {
			t.Error("a file can be made in a source that is gone")
		}
		_, err := f.ReadAt(make([]byte, 1), 0)
		if !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.EIO) {
			t.Errorf("an open file: %v", err)
		}
		if got := read(t, m.Path("etc/hosts")); got != "hosts" {
			t.Errorf("%q", got)
		}
		if got := names(t, w.at); got != "" {
			t.Errorf("written into the mount point: %q", got)
		}
		w.mount(t)
		if got := read(t, m.Path("data/file")) + read(t, m.Path("data/dir/deep")) + read(t, m.Path("etc/one")); got != "hostdeepa single file" {
			t.Errorf("back: %q", got)
		}
		write(t, m.Path("data/dir/new"), "n")
		if got := names(t, src+"/dir"); got != "deep new" {
			t.Errorf("%q", got)
		}
	}
	log := readLog(t, l)
	if gone, back := strings.Count(log, "is gone"), strings.Count(log, "is back"); gone != 4 || back != 4 {
		t.Errorf("%d times gone and %d times back in the log, want twice each source:\n%s", gone, back, log)
	}
}

// wait waits until ok, a minute at most.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for ever: %s", what)
		}
	}
}
