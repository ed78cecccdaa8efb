package graft

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// A panic while a source is asked by the way is the error of who asked, and not the end of the mount.
func TestPanicInAGlance(t *testing.T) {
	var said string
	u := &Union{log: func(format string, args ...any) { said = fmt.Sprintf(format, args...) }}
	var a overlay.Attr
	if err := u.glance(&source{u: u, path: "/some/file"}, &a); err != unix.EIO { // it has no root
		t.Errorf("%v", err)
	}
	if !strings.Contains(said, "/some/file: ") || !strings.Contains(said, "glance") {
		t.Errorf("logged %q", said)
	}
}
