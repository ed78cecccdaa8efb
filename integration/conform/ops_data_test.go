package conform

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// big is large enough to be copied up by range, and has a hole's worth of everything.
var big = []string{"d dir", "F big 1M\nF small 10000\nf short 0123456789\nd dir"}

// files are the paths that each test of file contents is tried on: of the lower, small and
// large, and new.
func files(t *testing.T, v *view, f func(t *testing.T, path string, data []byte)) {
	for _, name := range []string{"big", "small", "new"} {
		t.Run(name, func(t *testing.T) {
			path := v.path(name)
			if name == "new" {
				must(t, os.WriteFile(path, harness.Bytes(300_000), 0o644))
			}
			data, err := os.ReadFile(path)
			must(t, err)
			f(t, path, data)
		})
	}
}

// same compares a file with what it should have, by read and after its pages were dropped.
func same(t *testing.T, path string, want []byte) {
	t.Helper()
	for range 2 {
		got, err := os.ReadFile(path)
		must(t, err)
		if !bytes.Equal(got, want) {
			at := 0
			for at < len(got) && at < len(want) && got[at] == want[at] {
				at++
			}
			t.Fatalf("%s: %d bytes, want %d; differs at %d", path, len(got), len(want), at)
		}
		if st := stat(t, path); st.Size != int64(len(want)) {
			t.Fatalf("%s: size %d, want %d", path, st.Size, len(want))
		}
		fd := openFD(t, path, unix.O_RDONLY, 0)
		must(t, unix.Fsync(fd), unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
	}
}

func TestWriteAndTruncate(t *testing.T) {
	everywhere(t, big, func(t *testing.T, v *view) {
		files(t, v, func(t *testing.T, path string, want []byte) {
			fd := openFD(t, path, unix.O_RDWR, 0)
			put := func(off int, b string) {
				n, err := unix.Pwrite(fd, []byte(b), int64(off))
				if must(t, err); n != len(b) {
					t.Fatalf("wrote %d of %d", n, len(b))
				}
				if off+len(b) > len(want) {
					want = append(want, make([]byte, off+len(b)-len(want))...)
				}
				copy(want[off:], b)
			}
			put(5, "hello")
			put(4094, "over an edge")
			same(t, path, want)
			put(len(want)-3, "past the end")
			same(t, path, want)
			put(len(want)+10_000, "after a hole")
			same(t, path, want)
			for _, size := range []int{len(want) - 5, 5000, 4096, 4095, 9000, 1, 0, 100} {
				must(t, unix.Ftruncate(fd, int64(size)))
				if size < len(want) {
					want = want[:size:size]
				} else {
					want = append(want, make([]byte, size-len(want))...)
				}
				same(t, path, want)
			}
			must(t, unix.Truncate(path, 7))
			same(t, path, want[:7])
		})
		wants(t, "truncate a directory", unix.Truncate(v.path("dir"), 0), unix.EISDIR)
		wants(t, "truncate to less than nothing", unix.Truncate(v.path("small"), -1), unix.EINVAL)
	})
}

func TestOpenTruncated(t *testing.T) {
	everywhere(t, big, func(t *testing.T, v *view) {
		for _, name := range []string{"big", "small", "short"} {
			fd := openFD(t, v.path(name), unix.O_WRONLY|unix.O_TRUNC, 0)
			if st := stat(t, v.path(name)); st.Size != 0 || st.Blocks != 0 {
				t.Errorf("%s: %d bytes in %d blocks after O_TRUNC", name, st.Size, st.Blocks)
			}
			_, err := unix.Write(fd, []byte("new"))
			must(t, err)
			same(t, v.path(name), []byte("new"))
		}
	})
}

func TestFallocate(t *testing.T) {
	const (
		keep     = unix.FALLOC_FL_KEEP_SIZE
		punch    = unix.FALLOC_FL_PUNCH_HOLE | keep
		collapse = unix.FALLOC_FL_COLLAPSE_RANGE
		zero     = unix.FALLOC_FL_ZERO_RANGE
		insert   = unix.FALLOC_FL_INSERT_RANGE
	)
	everywhere(t, big, func(t *testing.T, v *view) {
		files(t, v, func(t *testing.T, path string, want []byte) {
			fd := openFD(t, path, unix.O_RDWR, 0)
			step := func(what string, mode uint32, off, n int64) bool {
				t.Helper()
				err := unix.Fallocate(fd, mode, off, n)
				// FUSE itself does not know the modes that shift data.
				if v.plyfs() && mode&(collapse|insert) != 0 {
					wants(t, what, err, unix.EOPNOTSUPP)
					return false
				}
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				return true
			}
			size := int64(len(want))
			step("punch", punch, 100, 5000)
			clear(want[100:5100])
			same(t, path, want)
			step("zero", zero|keep, 6000, 1000)
			clear(want[6000:7000])
			same(t, path, want)
			step("allocate, keeping the size", keep, size, 8192)
			same(t, path, want)
			step("allocate", 0, 0, size+5000)
			want = append(want, make([]byte, 5000)...)
			same(t, path, want)
			step("zero past the end", zero, size+4000, 3000)
			want = append(want, make([]byte, 2000)...)
			same(t, path, want)
			step("punch all", punch, 0, size)
			clear(want[:size])
			same(t, path, want)
			if step("collapse", collapse, 4096, 4096) {
				want = append(want[:4096:4096], want[8192:]...)
				same(t, path, want)
			}
			if step("insert", insert, 4096, 8192) {
				want = append(want[:4096:4096], append(make([]byte, 8192), want[4096:]...)...)
				same(t, path, want)
			}
			wants(t, "punch without keeping the size", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE, 0, 4096), unix.EOPNOTSUPP)
			wants(t, "nothing", unix.Fallocate(fd, 0, 0, 0), unix.EINVAL)
			ro := openFD(t, path, unix.O_RDONLY, 0)
			wants(t, "read-only descriptor", unix.Fallocate(ro, 0, 0, 4096), unix.EBADF)
		})
	})
}

func TestSeekDataHole(t *testing.T) {
	everywhere(t, big, func(t *testing.T, v *view) {
		seek := func(fd int, off int64, whence int, want int64, e unix.Errno) {
			t.Helper()
			got, err := unix.Seek(fd, off, whence)
			if e != 0 {
				wants(t, "seek", err, e)
			} else if err != nil || got != want {
				t.Errorf("seek(%d, %d) = %d, %v; want %d", off, whence, got, err, want)
			}
		}
		for _, name := range []string{"big", "sparse"} {
			fd := openFD(t, v.path(name), unix.O_RDWR|unix.O_CREAT, 0o644)
			if name == "sparse" {
				must(t, unix.Ftruncate(fd, 1<<20))
				seek(fd, 0, unix.SEEK_DATA, 0, unix.ENXIO)
				seek(fd, 0, unix.SEEK_HOLE, 0, 0)
				_, err := unix.Pwrite(fd, harness.Bytes(65536), 256<<10)
				must(t, err, unix.Fsync(fd))
				seek(fd, 0, unix.SEEK_DATA, 256<<10, 0)
				seek(fd, 256<<10, unix.SEEK_HOLE, 320<<10, 0)
				seek(fd, 320<<10, unix.SEEK_DATA, 0, unix.ENXIO)
			} else {
				seek(fd, 0, unix.SEEK_HOLE, 1<<20, 0)
				seek(fd, 4097, unix.SEEK_DATA, 4097, 0)
				must(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 128<<10, 128<<10))
				must(t, unix.Fsync(fd))
				if v.kind == "plain" || v.kind == "kernel" || v.kind == "passthrough" {
					seek(fd, 0, unix.SEEK_HOLE, 128<<10, 0)
				}
				// Where the file is not finished, zeros stand for the hole.
				data, err := unix.Seek(fd, 128<<10, unix.SEEK_DATA)
				if err != nil || data != 128<<10 && data != 256<<10 {
					t.Errorf("data after the hole at %d, %v", data, err)
				}
			}
			seek(fd, 1<<20, unix.SEEK_DATA, 0, unix.ENXIO)
			seek(fd, 1<<20, unix.SEEK_HOLE, 0, unix.ENXIO)
			seek(fd, -1, unix.SEEK_DATA, 0, unix.ENXIO)
			seek(fd, -1<<63, unix.SEEK_HOLE, 0, unix.ENXIO)
			seek(fd, 0, unix.SEEK_END, 1<<20, 0)
		}
	})
}

func TestCopyFileRange(t *testing.T) {
	everywhere(t, big, func(t *testing.T, v *view) {
		src, err := os.ReadFile(v.path("big"))
		must(t, err)
		to, err := os.ReadFile(v.path("small"))
		must(t, err)
		in, out := openFD(t, v.path("big"), unix.O_RDONLY, 0), openFD(t, v.path("small"), unix.O_RDWR, 0)
		whole := func(offIn, offOut int64, n int) {
			t.Helper()
			for n > 0 {
				m, err := unix.CopyFileRange(in, &offIn, out, &offOut, n, 0)
				must(t, err)
				if m == 0 {
					t.Fatal("copied nothing")
				}
				n -= m
			}
		}
		whole(1000, 500, 20_000)
		to = append(to[:500:500], src[1000:21_000]...)
		same(t, v.path("small"), to)
		whole(0, 1<<20, 1<<20)
		to = append(append(to, make([]byte, 1<<20-len(to))...), src...)
		same(t, v.path("small"), to)
		// Within one file, and overlapping.
		one := openFD(t, v.path("small"), unix.O_RDWR, 0)
		i, o := int64(0), int64(100_000)
		n, err := unix.CopyFileRange(one, &i, one, &o, 20_000, 0)
		must(t, err)
		copy(to[100_000:], to[:n])
		same(t, v.path("small"), to)
		i, o = 0, 100
		_, err = unix.CopyFileRange(one, &i, one, &o, 20_000, 0)
		wants(t, "overlapping", err, unix.EINVAL)
		i, o = 2<<20, 0
		n, err = unix.CopyFileRange(in, &i, out, &o, 10, 0)
		if n != 0 || err != nil {
			t.Errorf("copied %d, %v from past the end", n, err)
		}
		same(t, v.path("big"), src)
	})
}

func TestMmap(t *testing.T) {
	everywhere(t, big, func(t *testing.T, v *view) {
		files(t, v, func(t *testing.T, path string, want []byte) {
			fd := openFD(t, path, unix.O_RDWR, 0)
			shared, err := unix.Mmap(fd, 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			defer unix.Munmap(shared)
			private, err := unix.Mmap(fd, 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
			must(t, err)
			defer unix.Munmap(private)
			if !bytes.Equal(shared, want) || !bytes.Equal(private, want) {
				t.Fatal("the mappings differ from what was read")
			}
			copy(private[10:], "only here")
			copy(shared[4090:], "for everybody")
			copy(want[4090:], "for everybody")
			must(t, unix.Msync(shared, unix.MS_SYNC))
			same(t, path, want)
			_, err = unix.Pwrite(fd, []byte("written"), 5000)
			must(t, err)
			if string(shared[5000:5007]) != "written" {
				t.Errorf("the mapping has %q where a write put another", shared[5000:5007])
			}
		})
		fd := openFD(t, v.path("short"), unix.O_RDONLY, 0)
		_, err := unix.Mmap(fd, 0, 10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		wants(t, "writable mapping of a read-only descriptor", err, unix.EACCES)
	})
}

// aligned returns n bytes at an address that direct I/O takes.
func aligned(n int) []byte {
	b := make([]byte, n+4096)
	off := -int(uintptr(unsafe.Pointer(&b[0]))) & 4095
	return b[off : off+n : off+n]
}

func TestDirectIO(t *testing.T) {
	everywhere(t, big, func(t *testing.T, v *view) {
		files(t, v, func(t *testing.T, path string, want []byte) {
			direct, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
			must(t, err)
			defer unix.Close(direct)
			fd := openFD(t, path, unix.O_RDWR, 0)
			buf := aligned(8192)
			n, err := unix.Pread(direct, buf, 4096)
			must(t, err)
			if !bytes.Equal(buf[:n], want[4096:min(len(want), 4096+8192)]) {
				t.Fatal("a direct read differs from a buffered one")
			}
			// Written by one way, read by the other; the page was cached before.
			copy(buf, bytes.Repeat([]byte("direct! "), 512))
			_, err = unix.Pwrite(direct, buf[:4096], 4096)
			must(t, err)
			copy(want[4096:], buf[:4096])
			got := make([]byte, 4096)
			_, err = unix.Pread(fd, got, 4096)
			must(t, err)
			if !bytes.Equal(got, buf[:4096]) {
				t.Fatal("a buffered read does not show the direct write before it")
			}
			_, err = unix.Pwrite(fd, []byte("buffered"), 4100)
			must(t, err)
			copy(want[4100:], "buffered")
			_, err = unix.Pread(direct, buf[:4096], 4096)
			must(t, err)
			if !bytes.Equal(buf[:4096], want[4096:8192]) {
				t.Fatal("a direct read does not show the buffered write before it")
			}
			same(t, path, want)
		})
	})
}

func TestAppend(t *testing.T) {
	everywhere(t, big, func(t *testing.T, v *view) {
		files(t, v, func(t *testing.T, path string, want []byte) {
			a, b := openFD(t, path, unix.O_WRONLY|unix.O_APPEND, 0), openFD(t, path, unix.O_WRONLY|unix.O_APPEND, 0)
			for i := range 20 {
				fd := a
				if i%2 == 1 {
					fd = b
				}
				_, err := unix.Write(fd, []byte("line\n"))
				must(t, err)
				want = append(want, "line\n"...)
			}
			same(t, path, want)
		})
		must(t, os.WriteFile(v.path("log"), nil, 0o666))
		done := make(chan string)
		for _, c := range []string{"a", "b", "c"} {
			go func() { done <- second(t, "append", v.path("log"), c, "500") }()
		}
		for range 3 {
			if s := <-done; s != "ok" {
				t.Error(s)
			}
		}
		b, err := os.ReadFile(v.path("log"))
		must(t, err)
		lines := map[string]int{}
		for line := range bytes.Lines(b) {
			lines[string(line)]++
		}
		for _, c := range []string{"a", "b", "c"} {
			if n := lines[string(bytes.Repeat([]byte(c), 9))+"\n"]; n != 500 {
				t.Errorf("%d lines of %s, want 500 (%d bytes in all)", n, c, len(b))
			}
		}
	})
}

func TestSync(t *testing.T) {
	everywhere(t, big, func(t *testing.T, v *view) {
		for _, name := range []string{"big", "small", "new", "dir", "."} {
			flags := unix.O_RDWR | unix.O_CREAT
			if name == "dir" || name == "." {
				flags = unix.O_RDONLY | unix.O_DIRECTORY
			}
			fd := openFD(t, v.path(name), flags, 0o644)
			if flags&unix.O_DIRECTORY == 0 {
				_, err := unix.Pwrite(fd, []byte("x"), 0)
				must(t, err)
			}
			must(t, unix.Fsync(fd), unix.Fdatasync(fd), unix.Syncfs(fd))
		}
		fd := openFD(t, v.path("big"), unix.O_RDONLY, 0)
		must(t, unix.SyncFileRange(fd, 0, 4096, unix.SYNC_FILE_RANGE_WRITE))
		unix.Sync()
	})
}

func TestReadPastTheEnd(t *testing.T) {
	everywhere(t, big, func(t *testing.T, v *view) {
		fd := openFD(t, v.path("short"), unix.O_RDONLY, 0)
		buf := make([]byte, 100)
		for off, want := range map[int64]int{0: 10, 9: 1, 10: 0, 5000: 0} {
			if n, err := unix.Pread(fd, buf, off); n != want || err != nil {
				t.Errorf("read %d, %v at %d, want %d", n, err, off, want)
			}
		}
		_, err := unix.Write(fd, []byte("x"))
		wants(t, "write to a read-only descriptor", err, unix.EBADF)
		_, err = unix.Pread(openFD(t, v.path("dir"), unix.O_RDONLY, 0), buf, 0)
		wants(t, "read a directory", err, unix.EISDIR)
	})
}

// TestFallocateUnknown: a mode that the upper does not know fails after the copy-up, and with index=off that has parted the
// names, so that the file has another number. The kernel must not go on showing the old one.
func TestFallocateUnknown(t *testing.T) {
	harness.NeedRoot(t)
	up := filepath.Join(harness.Dir(t), "tmpfs")
	must(t, os.Mkdir(up, 0o755), unix.Mount("none", up, "tmpfs", 0, "size=16m"))
	l := harness.NewLayersOn(t, up, "f a text\nh b a")
	m := l.Plyfs(t, "-o", "index=off")
	ino := func(flags int) uint64 {
		var st unix.Statx_t
		must(t, unix.Statx(unix.AT_FDCWD, m.Path("a"), flags, unix.STATX_BASIC_STATS, &st))
		return st.Ino
	}
	before := ino(0)
	fd := openFD(t, m.Path("a"), unix.O_WRONLY, 0)
	defer shut(fd)
	if err := unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 0, 100); err != unix.EOPNOTSUPP {
		t.Errorf("fallocate: %v", err)
	}
	after, really := ino(0), ino(unix.AT_STATX_FORCE_SYNC)
	if after != really || after == before {
		t.Errorf("inode %#x, then %#x, which is %#x", before, after, really)
	}
}
