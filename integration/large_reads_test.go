package integration

import (
	"bytes"
	"crypto/rand"
	"os"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// aligned returns a buffer that O_DIRECT takes.
func aligned(size int) []byte {
	b := make([]byte, size+4096)
	return b[4096-int(uintptr(unsafe.Pointer(&b[0]))%4096):][:size]
}

// TestLargeReads: large answers do not pass through the daemon's memory (splice.go), others do, and
// every byte is that of the file, whatever is asked for.
func TestLargeReads(t *testing.T) {
	l := harness.NewLayers(t, "d dir")
	want := make([]byte, 3<<20+123)
	_, _ = rand.Read(want)
	do(t, os.WriteFile(l.Lowers[0]+"/dir/file", want, 0o644))
	m := l.Plyfs(t)
	path := m.Path("dir/file")
	got, err := os.ReadFile(path)
	do(t, err)
	if !bytes.Equal(got, want) {
		t.Error("read through the page cache: other bytes")
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	do(t, err)
	defer unix.Close(fd)
	for _, size := range []int{4 << 10, 64 << 10, 68 << 10, 1 << 20, 2 << 20, 4 << 20} {
		buf := aligned(size)
		for off := 0; off <= len(want)+size; off += size {
			n, err := unix.Pread(fd, buf, int64(off))
			do(t, err)
			if part := want[min(off, len(want)):min(off+size, len(want))]; !bytes.Equal(buf[:n], part) {
				t.Errorf("%d bytes at %d past the page cache: %d of %d bytes, or others", size, off, n, len(part))
			}
		}
	}
}

// TestLargeReadsOfChangingFile reads a file that others cut off and fill again: what is read is what
// was written, or the zeros of a hole, and never more than there is.
func TestLargeReadsOfChangingFile(t *testing.T) {
	m := harness.NewLayers(t, "d dir").Plyfs(t)
	path := m.Path("dir/file")
	const size = 1 << 20
	full := bytes.Repeat([]byte{'x'}, size)
	do(t, os.WriteFile(path, full, 0o644))
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	do(t, err)
	defer unix.Close(fd)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		defer close(stop)
		for i := range 200 {
			if err := os.Truncate(path, int64(i*4099)); err != nil {
				t.Error(err)
				return
			}
			if err := os.WriteFile(path, full, 0o644); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer wg.Wait()
	buf := aligned(size + 4096)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, err := unix.Pread(fd, buf, 0)
		do(t, err)
		if left := bytes.Trim(buf[:n], "x\x00"); n > size || len(left) > 0 {
			t.Fatalf("read %d bytes, with %q", n, left[:min(len(left), 32)])
		}
	}
}
