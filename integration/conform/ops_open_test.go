package conform

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// nlink returns what an open file says of its names.
func nlink(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	return st.Nlink
}

func readFD(t *testing.T, fd, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	n, err := unix.Pread(fd, b, 0)
	must(t, err)
	return b[:n]
}

// TestOpenWithoutName: a file lives until its last descriptor is closed, and shows no link; whatever it was
// when its name went.
func TestOpenWithoutName(t *testing.T) {
	lowers := []string{"f lower text\nf changed text\nF big 1M\nf over text\nf two text\nh three two\nf dir/in 1\nf moved text\nf plain 1"}
	everywhere(t, lowers, func(t *testing.T, v *view) {
		gone := func(what, path string, fd int) {
			t.Helper()
			wants(t, what+": the name", unix.Lstat(path, new(unix.Stat_t)), unix.ENOENT)
			// The kernel's overlayfs says 1 of some.
			if n := nlink(t, fd); n != 0 && v.kind != "kernel" {
				t.Errorf("%s: %d links, want none", what, n)
			}
		}
		must(t, os.WriteFile(v.path("new"), []byte("text"), 0o644), os.WriteFile(v.path("changed"), []byte("text"), 0o644),
			os.Rename(v.path("moved"), v.path("dir/moved")))
		for _, name := range []string{"lower", "changed", "new", "big", "dir/moved"} {
			p := v.path(name)
			want := []byte(content(t, p))
			fd := openFD(t, p, unix.O_RDWR, 0)
			before := stat(t, p)
			must(t, unix.Unlink(p))
			gone(name, p, fd)
			if got := readFD(t, fd, 2<<20); !bytes.Equal(got, want) {
				t.Fatalf("%s: has %d other bytes without its name", name, len(got))
			}
			// All that can be done to a file: one of a lower is copied up to a place without a name.
			_, err := unix.Pwrite(fd, []byte("W"), 1)
			must(t, err)
			want[1] = 'W'
			_, err = unix.Pwrite(fd, []byte("end"), int64(len(want)))
			must(t, err)
			want = append(want, "end"...)
			if got := readFD(t, fd, 2<<20); !bytes.Equal(got, want) {
				t.Fatalf("%s: a write is not there", name)
			}
			must(t, unix.Fchmod(fd, 0o604), unix.Fchown(fd, 3, 4), unix.Fsetxattr(fd, "user.a", []byte("1"), 0), unix.Fsync(fd),
				unix.Ftruncate(fd, 3), unix.Fallocate(fd, 0, 0, 10))
			if got, want := readFD(t, fd, 100), append(want[:3:3], make([]byte, 7)...); !bytes.Equal(got, want) {
				t.Errorf("%s: has %q, want %q", name, got, want)
			}
			var st unix.Stat_t
			must(t, unix.Fstat(fd, &st))
			if st.Mode != unix.S_IFREG|0o604 || st.Uid != 3 || st.Gid != 4 || st.Size != 10 || st.Ino != before.Ino {
				t.Errorf("%s: %+v", name, st)
			}
			gone(name+", changed", p, fd)
			wants(t, name+": no new name", unix.Linkat(fd, "", unix.AT_FDCWD, v.path("back"), unix.AT_EMPTY_PATH), unix.ENOENT)
			// Another of the name is another file.
			must(t, os.WriteFile(p, []byte("another"), 0o644))
			if got := readFD(t, fd, 100); len(got) != 10 || content(t, p) != "another" {
				t.Errorf("%s: the old one has %q", name, got)
			}
		}
		// Replaced by a rename.
		fd := openFD(t, v.path("over"), unix.O_RDONLY, 0)
		must(t, os.WriteFile(v.path("fresh"), []byte("fresh"), 0o644), os.Rename(v.path("fresh"), v.path("over")))
		if n := nlink(t, fd); n != 0 && v.kind != "kernel" || string(readFD(t, fd, 10)) != "text" || content(t, v.path("over")) != "fresh" {
			t.Errorf("replaced: %d links, %q", n, readFD(t, fd, 10))
		}
		// One of two names.
		fd = openFD(t, v.path("two"), unix.O_RDWR, 0)
		must(t, unix.Unlink(v.path("two")))
		if n := nlink(t, fd); n != 1 {
			t.Errorf("%d links with one name left", n)
		}
		_, err := unix.Pwrite(fd, []byte("T"), 0)
		must(t, err)
		if got := content(t, v.path("three")); got != "Text" {
			t.Errorf("the other name has %q", got)
		}
		must(t, unix.Unlink(v.path("three")))
		gone("the last name", v.path("three"), fd)
		if got := readFD(t, fd, 10); string(got) != "Text" {
			t.Errorf("has %q", got)
		}
		// A directory.
		dir := openFD(t, v.path("dir"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, os.RemoveAll(v.path("dir")))
		gone("a directory", v.path("dir"), dir)
		_, err = unix.Openat(dir, "x", unix.O_CREAT|unix.O_WRONLY, 0o644)
		wants(t, "create in a removed directory", err, unix.ENOENT)
		must(t, unix.Mkdir(v.path("dir"), 0o755), os.WriteFile(v.path("dir/x"), nil, 0o644))
		wants(t, "a name of the new one", unix.Fstatat(dir, "x", new(unix.Stat_t), 0), unix.ENOENT)
		// In the middle of a mapping.
		fd = openFD(t, v.path("plain"), unix.O_RDWR, 0)
		must(t, unix.Ftruncate(fd, 8192))
		mem, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		must(t, err, unix.Unlink(v.path("plain")))
		mem[5000] = 'm'
		must(t, unix.Msync(mem, unix.MS_SYNC))
		if got := readFD(t, fd, 8192); got[5000] != 'm' {
			t.Error("a mapping's change is lost")
		}
		must(t, unix.Munmap(mem))
	})
}

// TestOldDescriptor: descriptors opened before a copy-up show what is written after it, as on a plain
// directory. The kernel's overlayfs, and passthrough, show the lower file (docs/differences.md).
func TestOldDescriptor(t *testing.T) {
	everywhere(t, []string{"f small 0123456789\nF big 1M\nf cut 0123456789\nf mapped 0123456789\nf trunc 0123456789"}, func(t *testing.T, v *view) {
		stays := v.kind == "kernel" || v.kind == "passthrough"
		for _, name := range []string{"small", "big"} {
			old := openFD(t, v.path(name), unix.O_RDONLY, 0)
			before := readFD(t, old, 20)
			fd := openFD(t, v.path(name), unix.O_RDWR, 0)
			_, err := unix.Pwrite(fd, []byte("NEW"), 2)
			must(t, err)
			want := append(append(before[:2:2], "NEW"...), before[5:]...)
			if got := readFD(t, old, 20); !bytes.Equal(got, want) && !(stays && bytes.Equal(got, before)) {
				t.Errorf("%s: the old descriptor shows %q, want %q", name, got, want)
			}
			if got := readFD(t, fd, 20); !bytes.Equal(got, want) {
				t.Errorf("%s: the new descriptor shows %q, want %q", name, got, want)
			}
			_, err = unix.Pwrite(fd, []byte("appended"), stat(t, v.path(name)).Size)
			must(t, err)
			var st unix.Stat_t
			must(t, unix.Fstat(old, &st))
			if st.Size != stat(t, v.path(name)).Size && !stays {
				t.Errorf("%s: size %d by the old descriptor, %d by the name", name, st.Size, stat(t, v.path(name)).Size)
			}
		}
		old := openFD(t, v.path("cut"), unix.O_RDONLY, 0)
		must(t, os.Truncate(v.path("cut"), 4))
		if got := readFD(t, old, 20); string(got) != "0123" && !(stays && string(got) == "0123456789") {
			t.Errorf("after a truncation the old descriptor shows %q", got)
		}
		old = openFD(t, v.path("trunc"), unix.O_RDONLY, 0)
		readFD(t, old, 20)
		must(t, os.WriteFile(v.path("trunc"), []byte("short"), 0o644))
		if got := readFD(t, old, 20); string(got) != "short" && !(stays && string(got) == "0123456789") {
			t.Errorf("after O_TRUNC the old descriptor shows %q", got)
		}
		old = openFD(t, v.path("mapped"), unix.O_RDONLY, 0)
		mem, err := unix.Mmap(old, 0, 10, unix.PROT_READ, unix.MAP_SHARED)
		must(t, err)
		defer unix.Munmap(mem)
		_ = mem[0]
		fd := openFD(t, v.path("mapped"), unix.O_WRONLY, 0)
		_, err = unix.Pwrite(fd, []byte("NEW"), 0)
		must(t, err)
		if got := string(mem); got != "NEW3456789" && !(stays && got == "0123456789") {
			t.Errorf("an old mapping shows %q", got)
		}
	})
}

// TestTailFollows: tail -f of a log of the image shows what is appended.
func TestTailFollows(t *testing.T) {
	if _, err := exec.LookPath("tail"); err != nil {
		t.Skip(err)
	}
	for _, mode := range []string{"cached", "shared"} {
		t.Run(mode, func(t *testing.T) {
			harness.NeedRoot(t)
			v := mountIn(t, mode, "f log first\\n\nF big 1M")
			for _, name := range []string{"log", "big"} {
				cmd := exec.Command("tail", "-f", "-c", "+1", v.path(name))
				out, err := cmd.StdoutPipe()
				must(t, err, cmd.Start())
				t.Cleanup(func() {
					_ = cmd.Process.Kill()
					_ = cmd.Wait()
				})
				r := bufio.NewReader(out)
				want := []byte(content(t, v.path(name)))
				for _, add := range []string{"", "second\n", "third\n"} {
					f, err := os.OpenFile(v.path(name), os.O_WRONLY|os.O_APPEND, 0)
					must(t, err)
					_, err = f.WriteString(add)
					must(t, err, f.Close())
					want = append(want, add...)
					got := make([]byte, len(want))
					for n := 0; n < len(want); {
						m, err := r.Read(got[n:])
						must(t, err)
						n += m
					}
					if !bytes.Equal(got, want) {
						t.Fatalf("%s: tail printed %d other bytes than %q at the end", name, len(got), add)
					}
					want = want[:0]
				}
			}
		})
	}
}
