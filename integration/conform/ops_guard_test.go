package conform

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// fileFlags are the letters of lsattr that the tests here are about.
func fileFlags(t *testing.T, path string) string {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	must(t, err)
	var x struct { // struct fsxattr
		flags uint32
		_     [24]byte
	}
	const fsIocFSGetXattr = 0x801c581f
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsIocFSGetXattr, uintptr(unsafe.Pointer(&x))); e != 0 {
		t.Errorf("FS_IOC_FSGETXATTR: %v", e)
	}
	var out string
	for _, f := range []struct {
		letter     string
		bit, xflag uint32
	}{{"a", 0x20, 0x10}, {"i", 0x10, 0x8}, {"d", 0x40, 0x80}} {
		if flags&f.bit != 0 {
			out += f.letter
		}
		if flags&f.bit != 0 != (x.flags&f.xflag != 0) {
			t.Errorf("%s: FS_IOC_GETFLAGS %#x and FS_IOC_FSGETXATTR %#x do not agree", path, flags, x.flags)
		}
	}
	return out
}

func chattr(t *testing.T, flags, path string) {
	t.Helper()
	if out, err := exec.Command("chattr", flags, path).CombinedOutput(); err != nil {
		t.Fatalf("chattr %s: %v: %s", flags, err, out)
	}
}

// writeTo opens, writes and closes: where opens are not asked (mode cached), it is the write that fails.
func writeTo(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("+"))
	return err
}

// refusesAll tries what neither an append-only nor an immutable object takes.
func refusesAll(t *testing.T, v *view, name string) {
	t.Helper()
	path, free := v.path(name), v.path("free")
	when := []unix.Timespec{{Sec: 1}, {Sec: 2}}
	other := v.path("other")
	for what, err := range map[string]error{
		"chmod":       unix.Chmod(path, 0o600),
		"chown":       unix.Chown(path, 5, 6),
		"utimes":      unix.UtimesNanoAt(unix.AT_FDCWD, path, when, 0),
		"utimes, one": unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}, 0),
		"setxattr":    unix.Setxattr(path, "user.new", []byte("x"), 0),
		"removexattr": unix.Removexattr(path, "user.old"),
		"rename":      unix.Rename(path, free),
		"exchange":    unix.Renameat2(unix.AT_FDCWD, other, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE),
	} {
		wants(t, name+": "+what, err, unix.EPERM)
	}
	if stat(t, path).Mode&unix.S_IFMT == unix.S_IFDIR {
		wants(t, name+": rmdir", unix.Rmdir(path), unix.EPERM)
		return
	}
	for what, err := range map[string]error{
		"unlink":          unix.Unlink(path),
		"link":            unix.Link(path, free),
		"rename over":     unix.Rename(other, path),
		"write":           writeTo(path, unix.O_WRONLY),
		"read and write":  writeTo(path, unix.O_RDWR),
		"open truncating": tryOpen(path, unix.O_WRONLY|unix.O_TRUNC),
		"truncate":        unix.Truncate(path, 1),
		"truncate, more":  unix.Truncate(path, 100),
	} {
		wants(t, name+": "+what, err, unix.EPERM)
	}
}

// appendOnly checks that a file with the text is append-only, and adds a "+".
func appendOnly(t *testing.T, v *view, name, text string) {
	t.Helper()
	path := v.path(name)
	if got := fileFlags(t, path); got != "a" {
		t.Errorf("%s: flags %q, want a", name, got)
	}
	refusesAll(t, v, name)
	fd := openFD(t, path, unix.O_RDWR|unix.O_APPEND, 0)
	_, err := unix.Write(fd, []byte("+"))
	must(t, err)
	wants(t, name+": ftruncate", unix.Ftruncate(fd, 0), unix.EPERM)
	wants(t, name+": punch", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1), unix.EPERM)
	wants(t, name+": fallocate", unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, 10), 0)
	if _, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, 0); err == nil { // FUSE does not know
		_, err = unix.Pwrite(fd, []byte("X"), 0)
	}
	wants(t, name+": appending no more", err, unix.EPERM)
	shut(fd)
	wants(t, name+": touch", unix.UtimesNanoAt(unix.AT_FDCWD, path, nil, 0), 0)
	wants(t, name+": append, truncating", tryOpen(path, unix.O_WRONLY|unix.O_TRUNC|unix.O_APPEND), unix.EPERM)
	if got := content(t, path); got != text+"+" {
		t.Errorf("%s: has %q, want %q", name, got, text+"+")
	}
}

func immutable(t *testing.T, v *view, name, flags string) {
	t.Helper()
	path := v.path(name)
	if got := fileFlags(t, path); got != flags {
		t.Errorf("%s: flags %q, want %s", name, got, flags)
	}
	refusesAll(t, v, name)
	wants(t, name+": append", writeTo(path, unix.O_WRONLY|unix.O_APPEND), unix.EPERM)
	wants(t, name+": touch", unix.UtimesNanoAt(unix.AT_FDCWD, path, nil, 0), unix.EPERM)
	if got := content(t, path); got != "text" {
		t.Errorf("%s: has %q", name, got)
	}
}

// addsOnly checks an append-only directory, which has a file "in", and makes a file "add".
func addsOnly(t *testing.T, v *view, name, add string) {
	t.Helper()
	if got := fileFlags(t, v.path(name)); got != "a" {
		t.Errorf("%s: flags %q, want a", name, got)
	}
	refusesAll(t, v, name)
	in := v.path(name + "/in")
	must(t, os.WriteFile(v.path(name+"/"+add), nil, 0o644))
	wants(t, name+": unlink", unix.Unlink(in), unix.EPERM)
	wants(t, name+": rename", unix.Rename(in, in+"2"), unix.EPERM)
	wants(t, name+": rename over", unix.Rename(v.path("other"), in), unix.EPERM)
	wants(t, name+": a file in it", unix.Chmod(in, 0o640), 0)
}

// fixed checks an immutable directory, which has a file "in".
func fixed(t *testing.T, v *view, name string) {
	t.Helper()
	if got := fileFlags(t, v.path(name)); got != "i" {
		t.Errorf("%s: flags %q, want i", name, got)
	}
	refusesAll(t, v, name)
	in, free, other := v.path(name+"/in"), v.path(name+"/free"), v.path("other")
	for what, err := range map[string]error{
		"create":      tryOpen(free, unix.O_CREAT|unix.O_WRONLY),
		"mkdir":       unix.Mkdir(free, 0o755),
		"symlink":     unix.Symlink("x", free),
		"mknod":       unix.Mknod(free, unix.S_IFIFO|0o600, 0),
		"link":        unix.Link(other, free),
		"tmpfile":     tryOpen(v.path(name), unix.O_TMPFILE|unix.O_WRONLY),
		"unlink":      unix.Unlink(in),
		"rename":      unix.Rename(in, v.path("free")),
		"rename into": unix.Rename(other, free),
		"rename over": unix.Rename(other, in),
	} {
		wants(t, name+": "+what, err, unix.EPERM)
	}
	wants(t, name+": a file in it", unix.Chmod(in, 0o640), 0)
}

// TestAppendOnlyAndImmutable: chattr +a and +i mean what they mean, and stay: of a lower object, of a copy, after a
// remount.
func TestAppendOnlyAndImmutable(t *testing.T) {
	harness.NeedRoot(t) // for chattr
	lowers := []string{"f a text\nF big 1M\nf i text\nf ad/in 1\nf id/in 1\nf other 1\nx a user.old 1\nx i user.old 1\nx ad user.old 1\nx id user.old 1"}
	everywhere(t, lowers, func(t *testing.T, v *view) {
		base := v.dir
		if v.l != nil {
			base = v.l.Lowers[0]
		}
		for _, name := range []string{"a", "big", "ad"} {
			chattr(t, "+a", filepath.Join(base, name))
		}
		for _, name := range []string{"i", "id"} {
			chattr(t, "+i", filepath.Join(base, name))
		}
		check := func(n int) { // the objects, appended to n times
			t.Helper()
			text := "text"
			for range n {
				text += "+"
			}
			appendOnly(t, v, "a", text)
			flags := "i"
			if n > 0 && v.kind != "plain" {
				flags = "id"
			}
			immutable(t, v, "i", flags)
			addsOnly(t, v, "ad", "new"+text)
			fixed(t, v, "id")
		}
		check(0)
		if v.kind != "plain" { // there the file itself is immutable
			chattr(t, "+d", v.path("i")) // copies it up
		}
		check(1)
		must(t, writeTo(v.path("big"), unix.O_WRONLY|unix.O_APPEND))
		v.renew(t)
		check(2)
		v.settle(t)
		if got := fileFlags(t, v.path("big")); got != "a" {
			t.Errorf("big, completed: flags %q", got)
		}
		wants(t, "big: write", writeTo(v.path("big"), unix.O_WRONLY), unix.EPERM)
		must(t, writeTo(v.path("big"), unix.O_WRONLY|unix.O_APPEND))
		if got, err := os.ReadFile(v.path("big")); err != nil || len(got) != 1<<20+2 {
			t.Errorf("big: %d bytes, %v", len(got), err)
		}
		must(t, os.WriteFile(v.path("made"), []byte("text"), 0o644))
		must(t, unix.Setxattr(v.path("made"), "user.old", []byte("1"), 0))
		chattr(t, "+a", v.path("made"))
		appendOnly(t, v, "made", "text")
		v.renew(t)
		appendOnly(t, v, "made", "text+")
		for _, name := range []string{"a", "i", "ad", "id", "made", "big"} {
			chattr(t, "-a", v.path(name))
			chattr(t, "-i", v.path(name))
			if got := fileFlags(t, v.path(name)); got != "" && got != "d" {
				t.Errorf("%s: flags %q when they were taken away", name, got)
			}
		}
		must(t, unix.Truncate(v.path("a"), 0), unix.Truncate(v.path("i"), 0), writeTo(v.path("big"), unix.O_WRONLY),
			os.RemoveAll(v.path("ad")), os.RemoveAll(v.path("id")), unix.Unlink(v.path("made")))
		v.renew(t)
		must(t, unix.Unlink(v.path("a")), unix.Unlink(v.path("i")), unix.Unlink(v.path("big")))
	})
}

// TestGuardInTheKernel: a file that is append-only in an upper is so for the kernel, and one the kernel made so
// is so here.
func TestGuardInTheKernel(t *testing.T) {
	harness.NeedRoot(t) // for chattr, which an ordinary user may not even as root of a user namespace
	v := mountIn(t, "cached", "f a text\nf other 1\nx a user.old 1\nf b text\nx b user.old 1")
	chattr(t, "+a", v.path("a"))
	appendOnly(t, v, "a", "text")
	v.m.Close(t)
	v.kind = "kernel"
	v.renew(t)
	appendOnly(t, v, "a", "text+")
	chattr(t, "+i", v.path("b"))
	v.m.Close(t)
	v.kind = "cached"
	v.renew(t)
	appendOnly(t, v, "a", "text++")
	immutable(t, v, "b", "i")
}

// TestGuardOfItsOwn: an upper file that has the flag itself, not the mark (chattr in the upper, or a kernel before 5.14).
func TestGuardOfItsOwn(t *testing.T) {
	harness.NeedRoot(t)
	v := mountIn(t, "cached", "f other 1")
	must(t, os.WriteFile(v.path("a"), []byte("text"), 0o644), os.WriteFile(v.path("i"), []byte("text"), 0o644))
	for _, name := range []string{"a", "i"} {
		must(t, unix.Setxattr(v.path(name), "user.old", []byte("1"), 0))
	}
	v.m.Close(t)
	chattr(t, "+a", filepath.Join(v.l.Upper, "a"))
	chattr(t, "+i", filepath.Join(v.l.Upper, "i"))
	v.renew(t)
	appendOnly(t, v, "a", "text")
	immutable(t, v, "i", "i")
	chattr(t, "-a", v.path("a"))
	chattr(t, "-i", v.path("i"))
	must(t, unix.Unlink(v.path("a")), unix.Unlink(v.path("i")))
}

// TestLayerOfErofs: everything in it is shown as immutable, and can be changed in the view.
func TestLayerOfErofs(t *testing.T) {
	harness.NeedRoot(t)
	if _, err := exec.LookPath("mkfs.erofs"); err != nil {
		t.Skip("mkfs.erofs is not installed")
	}
	l := harness.NewLayers(t, "f a text\nd d\nf d/b text\nf gone 1")
	image, layer := filepath.Join(l.Root, "image"), filepath.Join(l.Root, "erofs")
	must(t, os.Mkdir(layer, 0o755))
	if out, err := exec.Command("mkfs.erofs", image, l.Lowers[0]).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-t", "erofs", "-o", "loop", image, layer).CombinedOutput(); err != nil {
		if strings.Contains(string(out), "unknown filesystem") {
			t.Skip("this kernel does not mount erofs")
		}
		t.Fatalf("mount: %v: %s", err, out)
	}
	l.Lowers = []string{layer}
	for _, mode := range []string{"cached", "passthrough", "shared"} {
		m := l.Plyfs(t, "--mode", mode)
		for _, name := range []string{"a", "d/b"} {
			must(t, os.Chmod(m.Path(name), 0o600), os.WriteFile(m.Path(name), []byte(mode), 0o600))
		}
		must(t, os.WriteFile(m.Path("d/new"), nil, 0o600), os.Remove(m.Path("gone")), os.Rename(m.Path("d"), m.Path("e")))
		if b, err := os.ReadFile(m.Path("e/b")); err != nil || string(b) != mode {
			t.Errorf("%s: %q, %v", mode, b, err)
		}
		m.Close(t)
		l.Upper, l.Work = l.Upper+"+", l.Work+"+"
		must(t, os.Mkdir(l.Upper, 0o755), os.Mkdir(l.Work, 0o755))
	}
}

// TestGuardOfGatheredWrites: with writeback=1 the kernel sends pages, of which those of an append-only file begin with
// what is there.
func TestGuardOfGatheredWrites(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f a text\nf i text")
	chattr(t, "+a", l.Lowers[0]+"/a")
	chattr(t, "+i", l.Lowers[0]+"/i")
	m := l.Plyfs(t, "-o", "writeback=1")
	add := func(name string, flags int) error {
		fd := openFD(t, m.Path(name), unix.O_WRONLY|flags, 0)
		defer shut(fd)
		_, err := unix.Write(fd, []byte("+more"))
		must(t, err)
		return unix.Fsync(fd)
	}
	must(t, add("a", unix.O_APPEND), add("a", unix.O_APPEND))
	fd := openFD(t, m.Path("a"), unix.O_WRONLY|unix.O_APPEND, 0)
	_, err := unix.Write(fd, []byte("!"))
	delete(opened, fd)
	must(t, err, unix.Close(fd))
	if add("a", 0) == nil || add("i", 0) == nil {
		t.Error("written over, and fsync says nothing")
	}
	m.Close(t)
	m = l.Plyfs(t)
	if a, i := content(t, m.Path("a")), content(t, m.Path("i")); a != "text+more+more!" || i != "text" {
		t.Errorf("%q and %q", a, i)
	}
}
