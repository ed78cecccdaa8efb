package graft

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
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

func TestSourceSSHFSReal(t *testing.T) {
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
