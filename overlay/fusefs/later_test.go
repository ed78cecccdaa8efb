package fusefs

import (
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A panic of who waits for a lock is the error of that request, and not the end of the mount.
func TestPanicInALateAnswer(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	logged := make(chan string, 1)
	c := newConn(int(write.Fd()), nil, nil, func(format string, args ...any) { logged <- format + args[0].(string) })
	r := &request{hdr: &fuse.InHeader{Unique: 8}}
	if e := c.later(r, func(<-chan struct{}) unix.Errno { panic("on purpose") }); e != 0 || !r.silent {
		t.Fatalf("%v, answered at once: %v", e, !r.silent)
	}
	b := make([]byte, 2*outHeaderSize)
	n, err := read.Read(b)
	if err != nil || n != outHeaderSize {
		t.Fatalf("an answer of %d bytes, %v", n, err)
	}
	if h := (*fuse.OutHeader)(unsafe.Pointer(&b[0])); h.Unique != 8 || h.Status != -int32(unix.EIO) {
		t.Errorf("answered %+v", h)
	}
	if text := <-logged; !strings.Contains(text, "on purpose") {
		t.Errorf("logged %q", text)
	}
	c.endLate()
}
