package cow

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/whiteout"
)

func all() *Want { return &Want{Size: -1, Cause: CauseWrite} }

func TestCopyUpKeepsEveryAttribute(t *testing.T) {
	needRoot(t)
	onEach(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, Config{})
		kinds := map[string]func(path string) error{
			"file":    func(p string) error { return os.WriteFile(p, pattern(100_000, 1), 0o644) },
			"empty":   func(p string) error { return os.WriteFile(p, nil, 0o644) },
			"dir":     func(p string) error { return os.Mkdir(p, 0o755) },
			"fifo":    func(p string) error { return unix.Mkfifo(p, 0o644) },
			"socket":  func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o644, 0) },
			"device":  func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))) },
			"block":   func(p string) error { return unix.Mknod(p, unix.S_IFBLK|0o644, int(unix.Mkdev(7, 99))) },
			"symlink": func(p string) error { return os.Symlink("where/ever", p) },
		}
		for name, make := range kinds {
			p := w.lowerPath(name)
			must(t, make(p))
			must(t, unix.Lchown(p, 1234, 4321))
			if name != "symlink" {
				must(t, unix.Chmod(p, map[bool]uint32{true: 0o6751, false: 0o640}[name == "file" || name == "dir"]))
			}
			must(t, unix.Lsetxattr(p, "trusted.mine", []byte("value"), 0))
			must(t, unix.Lsetxattr(p, "trusted.overlay.opaque", []byte("y"), 0))
			must(t, unix.Lsetxattr(p, "trusted.overlay.overlay.opaque", []byte("y"), 0))
			if name == "file" || name == "dir" {
				must(t, unix.Setxattr(p, "user.u", []byte("\x00\x01"), 0))
				must(t, unix.Setxattr(p, "user.empty", nil, 0))
				acl(t, p, "u:77:rwx,g:88:r-x,m::r-x")
			}
			if name == "dir" {
				acl(t, p, "d:u:77:rwx")
			}
			if name == "file" {
				must(t, unix.Setxattr(p, capability, capNetRaw, 0))
			}
			ts := []unix.Timespec{{Sec: 1e9, Nsec: 123456789}, {Sec: 15e8, Nsec: 987654321}}
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW))

			src := w.source(name) // reading may change the access time

			s := w.copyUp(name, &Want{Size: -1, Origin: []byte("origin"), Xattrs: [][2]string{{"trusted.overlay.impure", "y"}}})
			var a, b unix.Statx_t
			must(t, unix.Statx(unix.AT_FDCWD, p, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &a))
			must(t, unix.Statx(unix.AT_FDCWD, w.upperPath(name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &b))
			if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Mtime != b.Mtime || src.Stat.Atime != b.Atime ||
				a.Rdev_major != b.Rdev_major || a.Rdev_minor != b.Rdev_minor || (a.Size != b.Size && name != "dir") {
				t.Errorf("%s: lower %+v, upper %+v", name, a, b)
			}
			if s.Stat.Ino != b.Ino || s.Stat.Mode != b.Mode || s.Stat.Size != b.Size || s.Stat.Mtime != b.Mtime {
				t.Errorf("%s: Staged.Stat %+v, upper %+v", name, s.Stat, b)
			}
			want := xattrsOf(t, p)
			delete(want, "trusted.overlay.opaque")
			want["trusted.overlay.origin"], want["trusted.overlay.impure"] = "origin", "y"
			if got := xattrsOf(t, w.upperPath(name)); !equalMaps(got, want) {
				t.Errorf("%s: xattrs %q, want %q", name, got, want)
			}
		}
		sameContent(t, w.upperPath("file"), pattern(100_000, 1))
		if l, err := os.Readlink(w.upperPath("symlink")); err != nil || l != "where/ever" {
			t.Errorf("symlink: %q, %v", l, err)
		}
		if len(w.logged) > 0 {
			t.Errorf("logged: %q", w.logged)
		}
		w.noLeftovers()
	})
}

// capNetRaw is a revision 2 capability value: cap_net_raw permitted.
var capNetRaw = []byte{0, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func acl(t *testing.T, path, spec string) {
	t.Helper()
	if _, err := exec.LookPath("setfacl"); err != nil {
		t.Log("setfacl is not installed: access lists are not tried")
		return
	}
	if out, err := exec.Command("setfacl", "-m", spec, path).CombinedOutput(); err != nil {
		t.Fatalf("setfacl %s: %s", spec, out)
	}
}

func xattrsOf(t testing.TB, path string) map[string]string {
	t.Helper()
	buf := make([]byte, 65536)
	n, err := unix.Llistxattr(path, buf)
	must(t, err)
	m := map[string]string{}
	for _, name := range strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 }) {
		val := make([]byte, 65536)
		n, err := unix.Lgetxattr(path, name, val)
		must(t, err)
		m[name] = string(val[:n])
	}
	return m
}

func equalMaps(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

func TestSizes(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, Config{Threshold: -1})
		data := pattern(3<<20+17, 3)
		must(t, os.WriteFile(w.lowerPath("f"), data, 0o644))
		mtime := w.source("f").Stat.Mtime
		for _, size := range []int64{-1, 0, 1, 4096, 1 << 20, int64(len(data)), int64(len(data)) + 5} {
			os.Remove(w.upperPath("f"))
			s := w.copyUp("f", &Want{Size: size})
			want := slices.Clone(data)
			if size >= 0 {
				want = append(want, make([]byte, 5)...)[:size]
			}
			sameContent(t, w.upperPath("f"), want)
			if same := size < 0 || size == int64(len(data)); same != (s.Stat.Mtime == mtime) {
				t.Errorf("size %d: mtime %v, lower %v", size, s.Stat.Mtime, mtime)
			}
			if size == 0 && s.Method != MethodNone {
				t.Errorf("size 0: method %s", s.Method)
			}
		}
		w.noLeftovers()
	})
}

func TestHolesStayHoles(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, Config{Threshold: -1})
		const size = 64 << 20
		f, err := os.Create(w.lowerPath("f"))
		must(t, err)
		for _, off := range []int64{0, 1 << 20, 33<<20 + 5, size - 1} {
			_, err = f.WriteAt([]byte{7}, off)
			must(t, err)
		}
		must(t, f.Close())
		for _, kill := range []bool{false, true} {
			// With sharing and without: the pair's memory is set by hand.
			src := w.source("f")
			w.e.pairOf(&src.Stat).noClone.Store(kill)
			os.Remove(w.upperPath("f"))
			s := w.copyUp("f", all())
			want, err := os.ReadFile(w.lowerPath("f"))
			must(t, err)
			sameContent(t, w.upperPath("f"), want)
			if s.Stat.Blocks*512 > 1<<20 {
				t.Errorf("occupies %d bytes", s.Stat.Blocks*512)
			}
		}
	})
}

func TestMethods(t *testing.T) {
	needRoot(t)
	data := pattern(1<<20, 9)
	for _, c := range []struct {
		lower, upper string
		want         []Method
		ways         []Method // what is said beforehand
	}{
		{"ext4", "ext4", []Method{MethodCopyRange}, []Method{MethodCopyRange, MethodLoop}},
		{"xfs", "xfs", []Method{MethodClone}, []Method{MethodClone, MethodCopyRange, MethodLoop}},
		{"btrfs", "btrfs", []Method{MethodClone}, []Method{MethodClone, MethodCopyRange, MethodLoop}},
		{"tmpfs", "tmpfs", []Method{MethodCopyRange, MethodLoop}, []Method{MethodCopyRange, MethodLoop}},
		{"tmpfs", "ext4", []Method{MethodLoop, MethodCopyRange}, []Method{MethodLoop}},
	} {
		t.Run(c.lower+"-"+c.upper, func(t *testing.T) {
			lower := filesystem(t, c.lower, 512)
			upper := lower
			if c.upper != c.lower {
				upper = filesystem(t, c.upper, 512)
			}
			w := newWorldOn(t, lower, upper, Config{Threshold: -1})
			must(t, os.WriteFile(w.lowerPath("f"), data, 0o644))
			if ways := w.e.Ways(w.lower); !slices.Equal(ways, c.ways) {
				t.Errorf("ways %v, want %v", ways, c.ways)
			}
			w.noLeftovers()
			s := w.copyUp("f", all())
			if !slices.Contains(c.want, s.Method) {
				t.Errorf("method %s, want one of %v", s.Method, c.want)
			}
			sameContent(t, w.upperPath("f"), data)
			sums := w.e.Bus().Sums()
			if sums.Total.Count != 1 || sums.ByMethod[s.Method].Count != 1 || sums.ByCause[CauseWrite].Count != 1 {
				t.Errorf("sums %+v", sums)
			}
		})
	}
}

func TestInterrupt(t *testing.T) {
	w := newWorld(t, t.TempDir(), Config{Threshold: -1})
	must(t, os.WriteFile(w.lowerPath("f"), pattern(64<<20, 1), 0o644))
	src := w.source("f")
	w.e.pairOf(&src.Stat).noClone.Store(true)
	cancel := make(chan struct{})
	close(cancel)
	_, err := w.e.Stage(src, &Want{Size: -1, Cancel: cancel})
	wantErrno(t, err, unix.EINTR)
	w.noLeftovers()

	// In the middle: the copier looks between chunks.
	from, err := os.Open(w.lowerPath("f"))
	must(t, err)
	defer from.Close()
	to, err := os.Create(w.upperPath("f"))
	must(t, err)
	defer to.Close()
	cancel = make(chan struct{})
	c := copier{dst: int(to.Fd()), src: int(from.Fd()), pair: w.e.pairOf(&src.Stat), cancel: cancel}
	must(t, c.segment(0, chunkSize))
	close(cancel)
	wantErrno(t, c.segment(chunkSize, 64<<20), unix.EINTR)
	if c.copied != chunkSize {
		t.Errorf("copied %d", c.copied)
	}
}

func TestNoSpace(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"ext4", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorldOn(t, t.TempDir(), filesystem(t, kind, 16), Config{Threshold: -1})
			must(t, os.WriteFile(w.lowerPath("f"), pattern(40<<20, 1), 0o644))
			_, err := w.stage("f", all())
			wantErrno(t, err, unix.ENOSPC)
			w.noLeftovers()
			must(t, os.WriteFile(w.lowerPath("small"), []byte("x"), 0o644))
			w.copyUp("small", all())
			if s := w.e.Bus().Sums(); s.Total.Failed != 1 || s.Total.Count != 2 {
				t.Errorf("sums %+v", s)
			}
		})
	}
}

func TestCommitOverWhiteoutAndConflict(t *testing.T) {
	needRoot(t)
	onEach(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, Config{})
		must(t, os.WriteFile(w.lowerPath("f"), []byte("data"), 0o644))
		must(t, os.Mkdir(w.lowerPath("d"), 0o750))
		fd, err := w.upper.Root.FD()
		must(t, err)
		defer w.upper.Root.Done()
		for _, name := range []string{"f", "d"} {
			must(t, unix.Mknod(w.upperPath(name), unix.S_IFCHR, 0))
			s, err := w.stage(name, all())
			must(t, err)
			wantErrno(t, s.Commit(fd, name, false), unix.EEXIST)
			must(t, s.Commit(fd, name, true))
			s.Abort() // nothing, after Commit
			s.Close()
			st, err := os.Lstat(w.upperPath(name))
			must(t, err)
			if st.Mode()&os.ModeDevice != 0 {
				t.Errorf("%s: still a whiteout", name)
			}
		}
		s, err := w.stage("f", all())
		must(t, err)
		must(t, s.Link(fd, "index"))
		s.Abort()
		sameContent(t, w.upperPath("index"), []byte("data"))
		w.noLeftovers()
	})
}

func TestCleanWork(t *testing.T) {
	w := newWorld(t, t.TempDir(), Config{})
	must(t, os.WriteFile(w.lowerPath("f"), []byte("data"), 0o644))
	_, err := w.stage("f", all()) // never ended: as after a crash
	must(t, err)
	must(t, os.MkdirAll(w.work.Path+"/#a/b", 0o700))
	must(t, os.WriteFile(w.work.Path+"/keep", nil, 0o600))
	must(t, w.e.CleanWork())
	w.noLeftovers()
	if _, err := os.Stat(w.work.Path + "/keep"); err != nil {
		t.Error(err)
	}
}

func TestCompleteMeta(t *testing.T) {
	needRoot(t)
	onEach(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, Config{Metacopy: true})
		data := pattern(5<<20, 4)
		must(t, os.WriteFile(w.lowerPath("f"), data, 0o644))
		must(t, unix.Chmod(w.lowerPath("f"), 0o4755))
		must(t, unix.Setxattr(w.lowerPath("f"), capability, capNetRaw, 0))
		s, err := w.stage("f", &Want{Size: -1, MetaOnly: true, Cause: CauseChmod})
		must(t, err)
		defer s.Close()
		w.commit(s, "f")
		x := xattrsOf(t, w.upperPath("f"))
		if _, ok := x[whiteout.Trusted.Name("metacopy")]; !ok || s.Method != MethodMeta || s.Stat.Size != uint64(len(data)) {
			t.Fatalf("%q, %+v", x, s)
		}
		must(t, w.e.CompleteMeta(s.FD, w.source("f"), all()))
		sameContent(t, w.upperPath("f"), data)
		x = xattrsOf(t, w.upperPath("f"))
		if _, ok := x[whiteout.Trusted.Name("metacopy")]; ok || x[capability] != string(capNetRaw) {
			t.Errorf("after completion: %q", x)
		}
		var a, b unix.Stat_t
		must(t, unix.Stat(w.lowerPath("f"), &a))
		must(t, unix.Stat(w.upperPath("f"), &b))
		if a.Mode != b.Mode || a.Mtim != b.Mtim {
			t.Errorf("lower %+v, upper %+v", a, b)
		}
	})
}

func TestSecurityIsNotWeakened(t *testing.T) {
	needRoot(t)
	// ramfs knows neither access lists nor any other attribute.
	w := newWorldOn(t, t.TempDir(), filesystem(t, "ramfs", 0), Config{})
	must(t, os.WriteFile(w.lowerPath("f"), []byte("x"), 0o600))
	acl(t, w.lowerPath("f"), "u:77:---,o::r")
	if _, ok := xattrsOf(t, w.lowerPath("f"))[aclAccess]; !ok {
		t.Skip("no access lists here")
	}
	_, err := w.stage("f", all())
	wantErrno(t, err, unix.EOPNOTSUPP)
	w.noLeftovers()

	// A capability that is lost gives nobody anything.
	must(t, os.WriteFile(w.lowerPath("c"), []byte("x"), 0o755))
	must(t, unix.Setxattr(w.lowerPath("c"), capability, capNetRaw, 0))
	w.copyUp("c", all())
	if len(w.logged) != 1 || !strings.Contains(w.logged[0], capability) {
		t.Errorf("logged %q", w.logged)
	}
}

// dropCaps runs f on a thread without the capabilities that make root root.
func withoutCaps(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&hdr, &data[0]); err != nil {
			t.Error(err)
			return
		}
		for _, c := range []uint{unix.CAP_CHOWN, unix.CAP_FOWNER, unix.CAP_FSETID} {
			data[0].Effective &^= 1 << c
		}
		if err := unix.Capset(&hdr, &data[0]); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

func TestOwnerThatCannotBeKept(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for _, squash := range []bool{false, true} {
		w := newWorld(t, dir, Config{Squash: squash})
		must(t, os.WriteFile(w.lowerPath("f"), []byte("x"), 0o644))
		must(t, unix.Chown(w.lowerPath("f"), 1234, 1234))
		must(t, unix.Chmod(w.lowerPath("f"), 0o6755))
		src := w.source("f")
		withoutCaps(t, func() {
			s, err := w.e.Stage(src, all())
			if !squash {
				if !errors.Is(err, unix.EPERM) {
					t.Errorf("error %v, want EPERM", err)
				}
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Abort()
			if s.Stat.Uid != 0 || s.Stat.Mode&0o7777 != 0o755 {
				t.Errorf("owner %d, mode %o: set-id bits for another owner", s.Stat.Uid, s.Stat.Mode)
			}
		})
		w.noLeftovers()
	}
}

// The mode is the original's whatever the umask, and also for a copy that is made with it at once.
func TestModeDespiteUmask(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	w := newWorld(t, t.TempDir(), Config{})
	for _, mode := range []uint32{0o666, 0o777, 0o644, 0o600, 0o400, 0o444, 0o4755, 0o2751} {
		must(t, os.RemoveAll(w.upperPath("f")))
		must(t, os.WriteFile(w.lowerPath("f"), []byte("x"), 0o600))
		must(t, unix.Chmod(w.lowerPath("f"), mode))
		w.copyUp("f", all())
		var st unix.Stat_t
		must(t, unix.Stat(w.upperPath("f"), &st))
		if st.Mode&0o7777 != mode {
			t.Errorf("mode %o became %o", mode, st.Mode&0o7777)
		}
		must(t, os.Remove(w.lowerPath("f")))
	}
}
