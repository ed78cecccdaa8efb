package integration

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// budgetLayers are two layers with files in one directory each and one in both.
func budgetLayers(t *testing.T) *harness.Layers {
	t.Helper()
	var top, low strings.Builder
	for i := range 40 {
		fmt.Fprintf(&top, "f both/t%d 1\n", i)
		fmt.Fprintf(&low, "f both/l%d 1\nf low/f%d 1\nf listed/f%d 1\n", i, i, i)
	}
	low.WriteString("F low/big 64k\nl low/link f1\nf low/x 1\n")
	return harness.NewLayers(t, top.String(), low.String())
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// list reads a directory's names in calls of buf bytes, and returns how many calls found some.
func list(t *testing.T, dir string, buf int) (names, calls int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	do(t, err)
	defer unix.Close(fd)
	b := make([]byte, buf)
	for {
		n, err := unix.Getdents(fd, b)
		do(t, err)
		if n == 0 {
			return names, calls
		}
		calls++
		_, got, _ := unix.ParseDirent(b[:n], -1, nil)
		names += got
	}
}

func readAll(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	do(t, err)
	b := make([]byte, 128<<10)
	for {
		n, err := unix.Read(fd, b)
		do(t, err)
		if n == 0 {
			break
		}
	}
	do(t, unix.Close(fd))
}

func create(t *testing.T, path string, size int) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o644)
	do(t, err)
	if size > 0 {
		n, err := unix.Write(fd, make([]byte, size))
		do(t, err)
		if n != size {
			t.Fatalf("wrote %d of %d bytes", n, size)
		}
	}
	do(t, unix.Close(fd))
}

// budget fails when f makes more requests than allowed, or another kind than named.
func budget(t *testing.T, m *harness.Mount, what string, allowed map[string]uint64, f func()) {
	t.Helper()
	for kind, n := range m.Count(t, f) {
		if n > allowed[kind] {
			t.Errorf("%s: %d %s, allowed are %v", what, n, kind, allowed)
		}
	}
}

// TestRequestBudgets counts what the kernel asks for. The count is the same on every machine,
// and what the time depends on most.
func TestRequestBudgets(t *testing.T) {
	harness.KeepCaches(t)
	m := budgetLayers(t).Plyfs(t)
	type kinds = map[string]uint64
	var st unix.Stat_t
	none := kinds{}
	stat := func(name string) func() { return func() { do(t, unix.Lstat(m.Path(name), &st)) } }
	missing := func() {
		if err := unix.Lstat(m.Path("both/missing"), &st); err != unix.ENOENT {
			t.Errorf("a missing name: %v", err)
		}
	}
	readAll(t, m.Path("both/t0")) // OPEN and FLUSH are asked once per mount
	list(t, m.Path("listed"), 32<<10)
	budget(t, m, "a name listed with attributes", none, stat("listed/f7"))
	budget(t, m, "first stat", kinds{"LOOKUP": 1}, stat("low"))
	budget(t, m, "first lookup of a name", kinds{"LOOKUP": 1}, stat("low/f1"))
	budget(t, m, "warm stat", none, stat("low/f1"))
	budget(t, m, "first missing name", kinds{"LOOKUP": 1}, missing)
	budget(t, m, "missing name, again", none, missing)
	budget(t, m, "first open, read, close", kinds{"READ": 1}, func() { readAll(t, m.Path("low/f1")) })
	budget(t, m, "warm open, read, close", none, func() { readAll(t, m.Path("low/f1")) })
	link := func() {
		if target, err := os.Readlink(m.Path("low/link")); err != nil || target != "f1" {
			t.Errorf("readlink: %q, %v", target, err)
		}
	}
	link()
	budget(t, m, "warm readlink", none, link)
	listing := func() { list(t, m.Path("low"), 32<<10) }
	budget(t, m, "first listing", kinds{"READDIRPLUS": 2, "READDIR": 1}, listing)
	budget(t, m, "warm listing", none, listing)

	// What changes a directory makes the kernel ask for its attributes before the next change.
	changed := func(with kinds) kinds { with["GETATTR"] = 1; return with }
	write := func(name string, size int) func() { return func() { create(t, m.Path(name), size) } }
	budget(t, m, "create, write, close", kinds{"LOOKUP": 1, "CREATE": 1, "WRITE": 1}, write("both/new", 4096))
	budget(t, m, "create, write 128 KiB, close", changed(kinds{"LOOKUP": 1, "CREATE": 1, "WRITE": 1}), write("both/new2", 128<<10))
	// Not os.Rename, which looks at the target itself first.
	budget(t, m, "rename", changed(kinds{"LOOKUP": 1, "RENAME": 1}), func() { do(t, unix.Rename(m.Path("both/new"), m.Path("both/newer"))) })
	budget(t, m, "link", changed(kinds{"LOOKUP": 1, "LINK": 1}), func() { do(t, os.Link(m.Path("both/newer"), m.Path("both/linked"))) })
	budget(t, m, "unlink", changed(kinds{"UNLINK": 1}), func() { do(t, unix.Unlink(m.Path("both/linked"))) })
	budget(t, m, "mkdir", changed(kinds{"LOOKUP": 1, "MKDIR": 1}), func() { do(t, os.Mkdir(m.Path("both/dir"), 0o755)) })
	budget(t, m, "symlink", changed(kinds{"LOOKUP": 1, "SYMLINK": 1}), func() { do(t, os.Symlink("x", m.Path("both/link"))) })
	forgotten := m.Stat(t).Requests["FORGET"]
	budget(t, m, "rmdir", changed(kinds{"RMDIR": 1, "FORGET": 1}), func() { do(t, unix.Rmdir(m.Path("both/dir"))) })
	// Nobody waits for the FORGET, which may come late: not into the next budgets.
	waitFor(t, "the FORGET of the removed directory", func() bool { return m.Stat(t).Requests["FORGET"] > forgotten })

	readAll(t, m.Path("low/big"))
	fd, err := unix.Open(m.Path("low/big"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	do(t, err)
	defer unix.Close(fd)
	piece := make([]byte, 4096)
	overwrite := func() {
		_, err := unix.Pwrite(fd, piece, 8192)
		do(t, err)
	}
	// The kernel asks once whether the file has capabilities that a write takes away.
	budget(t, m, "first overwrite", kinds{"WRITE": 1, "GETXATTR": 1}, overwrite)
	budget(t, m, "overwrite of a cached page", kinds{"WRITE": 1}, overwrite)
}

// TestWritesGathered is the same with writeback=1: no request before the flush.
func TestWritesGathered(t *testing.T) {
	harness.KeepCaches(t)
	m := budgetLayers(t).Plyfs(t, "-o", "writeback=1")
	readAll(t, m.Path("low/big"))
	fd, err := unix.Open(m.Path("low/big"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	do(t, err)
	piece := make([]byte, 4096)
	overwrite := func(off int64) {
		_, err := unix.Pwrite(fd, piece, off)
		do(t, err)
	}
	overwrite(0)
	do(t, unix.Fsync(fd))
	var st unix.Stat_t
	do(t, unix.Fstat(fd, &st))
	overwrite(4096)
	budget(t, m, "overwrite of a cached page", map[string]uint64{}, func() { overwrite(8192) })
	do(t, unix.Close(fd))
}

// TestHolesSeeCachedWrites: where the data of a file is must not depend on what of it the
// kernel has written back.
func TestHolesSeeCachedWrites(t *testing.T) {
	for _, option := range []string{"writeback=0", "writeback=1"} {
		t.Run(option, func(t *testing.T) {
			m := harness.NewLayers(t, "d dir").Plyfs(t, "-o", option)
			fd, err := unix.Open(m.Path("sparse"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
			do(t, err)
			defer unix.Close(fd)
			do(t, unix.Ftruncate(fd, 1<<20))
			_, err = unix.Pwrite(fd, make([]byte, 4096), 256<<10)
			do(t, err)
			mem, err := unix.Mmap(fd, 512<<10, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			do(t, err)
			defer unix.Munmap(mem)
			mem[0] = 1
			for _, want := range []struct{ from, data int64 }{{0, 256 << 10}, {260 << 10, 512 << 10}} {
				if at, err := unix.Seek(fd, want.from, unix.SEEK_DATA); at != want.data {
					t.Errorf("SEEK_DATA from %d: %d, %v; want %d", want.from, at, err, want.data)
				}
			}
		})
	}
}

// TestRequestsAfterReads: after a READ the kernel does not know a file's access time. When most files of a directory
// were read, as by grep, the next listing brings the attributes of all; who looks at each file after reading it,
// as tar does, has them already, and the listing stays known.
func TestRequestsAfterReads(t *testing.T) {
	harness.KeepCaches(t)
	runtime.LockOSThread() // the daemon tells callers apart by their threads
	defer runtime.UnlockOSThread()
	m := budgetLayers(t).Plyfs(t)
	names := func(format string) (out []string) {
		for i := range 40 {
			out = append(out, m.Path(fmt.Sprintf(format, i)))
		}
		return out
	}
	pass := func(dir string, files []string, after bool) {
		list(t, m.Path(dir), 32<<10)
		var st unix.Stat_t
		for _, f := range files {
			if !after {
				do(t, unix.Lstat(f, &st))
			}
			readAll(t, f)
			if after {
				do(t, unix.Lstat(f, &st))
			}
		}
	}
	type kinds = map[string]uint64
	grep := func() { pass("low", names("low/f%d"), false) }
	grep()
	budget(t, m, "listed, looked at and read again", kinds{"READDIRPLUS": 2, "READDIR": 1, "GETATTR": 3}, grep)
	budget(t, m, "the same, third time", kinds{"GETATTR": 1}, grep)
	tar := func() { pass("listed", names("listed/f%d"), true) }
	tar()
	budget(t, m, "read, then looked at, again", kinds{"GETATTR": 1}, tar)
}
