package integration

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// A layer whose filesystem dies takes its own files away, and nothing else: it may be back at the next mount.
func TestLowerGoesAway(t *testing.T) {
	below := harness.NewLayers(t, "f a 1\nF big 1M\nf d/f 1")
	below.Upper = ""
	inner := below.Plyfs(t)
	l := harness.NewLayers(t, "f b 2\nf d/g 2")
	l.Lowers = append(l.Lowers, inner.Dir)
	m := l.Plyfs(t)
	patch(t, m.Path("big"), 1000, "changed")
	if got := names(t, m.Path("d")); got != "f g" {
		t.Errorf("the view has %q", got)
	}
	_ = unix.Kill(inner.PID(), unix.SIGKILL)
	waitFor(t, "the end of the lower's daemon", func() bool { return !harness.Alive(inner.PID()) })
	// ECONNABORTED is for a request that the death overtakes (fuse_dev_release).
	if _, err := os.ReadFile(m.Path("a")); !isErrno(err, unix.ENOTCONN) && !isErrno(err, unix.ECONNABORTED) {
		t.Errorf("reading a file of the dead layer: %v", err)
	}
	patch(t, m.Path("b"), 0, "X")
	harness.Make(t, m.Dir, "f new 1\nd made")
	for name, want := range map[string]string{"b": "X", "d/g": "2", "new": "1"} {
		if b, err := os.ReadFile(m.Path(name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	out, err := harness.Run("umount", m.Dir)
	if !strings.Contains(out, "unmounted, but incomplete") || harness.ExitCode(err) != 1 {
		t.Errorf("umount: %v, %q", err, out)
	}
	if mounted, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounted), " "+m.Dir+" ") {
		t.Errorf("it is still mounted: %v", err)
	}
	harness.Unmount(inner.Dir)
	inner = below.Plyfs(t)
	m = l.Plyfs(t)
	want := harness.Bytes(1 << 20)
	copy(want[1000:], "changed")
	if b, err := os.ReadFile(m.Path("big")); err != nil || string(b) != string(want) {
		t.Errorf("the file that was not complete: %v", err)
	}
	m.Close(t)
	inner.Close(t)
}

// The limits of whoever mounts are not those of whoever uses the mount.
func TestLimitsOfTheStarter(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "F big 1M")
	line := "ulimit -S -f 100 && exec " + harness.Binary() + " mount --threshold off --lower " + l.Lowers[0] + " --upper " + l.Upper + " --work " + l.Work + " " + l.Mnt
	if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	patch(t, l.Mnt+"/big", 1<<19, "changed")
	if err := os.WriteFile(l.Mnt+"/new", make([]byte, 1<<20), 0o644); err != nil {
		t.Error(err)
	}
	// The user's own counts.
	out, err := exec.Command("sh", "-c", "trap '' XFSZ; ulimit -f 100; head -c 1M /dev/zero > "+l.Mnt+"/limited").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "File too large") {
		t.Errorf("beyond the caller's limit: %v, %s", err, out)
	}
	plyfs(t, "umount", l.Mnt)
}

// An upper without extended attributes.
func TestUpperWithoutXattrs(t *testing.T) {
	harness.NeedRoot(t)
	disk := harness.Dir(t)
	if err := unix.Mount("r", disk, "ramfs", 0, ""); err != nil {
		t.Skip(err)
	}
	l := harness.NewLayersOn(t, disk, "f a 1\nf d/f 1\nf e/f 1\nF big 1M")
	m := l.Plyfs(t)
	patch(t, m.Path("a"), 0, "X")
	patch(t, m.Path("big"), 1000, "changed")
	if err := unix.Rename(m.Path("d"), m.Path("d2")); err != unix.EXDEV {
		t.Errorf("renaming a merged directory: %v, want EXDEV", err)
	}
	// A directory in the place of one that was removed, and one that was moved there, have nothing of it.
	for _, name := range []string{"d", "e"} {
		if err := os.RemoveAll(m.Path(name)); err != nil {
			t.Fatal(err)
		}
	}
	harness.Make(t, m.Dir, "d d\nf other/x 1")
	if err := unix.Rename(m.Path("other"), m.Path("e")); err != nil {
		t.Error(err)
	}
	if err := unix.Setxattr(m.Path("a"), "user.a", nil, 0); err != unix.EOPNOTSUPP {
		t.Errorf("setting an attribute: %v", err)
	}
	for range 2 {
		if got := names(t, m.Dir) + ", " + names(t, m.Path("d")) + ", " + names(t, m.Path("e")); got != "a big d e, , x" {
			t.Errorf("the view has %s", got)
		}
		m.Close(t)
		m = l.Plyfs(t)
	}
	if err := errors.Join(os.Remove(m.Path("d")), os.RemoveAll(m.Path("e"))); err != nil {
		t.Error(err)
	}
	if got := names(t, m.Dir); got != "a big" {
		t.Errorf("the view has %s", got)
	}
}

// Layers in a mount of the kernel's overlayfs: any lower one, and an upper, which the kernel refuses there.
func TestLayersInKernelOverlay(t *testing.T) {
	harness.NeedRoot(t)
	below := harness.NewLayers(t, "f a 1\nf b 2\nf d/f 3\nd up\nd wk")
	k := below.Kernel(t, "redirect_dir=on")
	if err := errors.Join(os.Remove(k.Path("b")), os.Rename(k.Path("d"), k.Path("e"))); err != nil {
		t.Fatal(err)
	}
	t.Run("lower", func(t *testing.T) {
		l := harness.NewLayers(t)
		l.Lowers = []string{k.Dir}
		m := l.Plyfs(t)
		patch(t, m.Path("e/f"), 0, "X")
		if got := names(t, m.Dir) + ", " + names(t, m.Path("e")); got != "a e up wk, f" {
			t.Errorf("the view has %s", got)
		}
		m.Close(t)
		if b, err := os.ReadFile(k.Path("e/f")); err != nil || string(b) != "3" {
			t.Errorf("the lower file: %q, %v", b, err)
		}
	})
	t.Run("upper", func(t *testing.T) {
		l := harness.NewLayers(t, "f a 1\nf d/f 2\nf e/g 3")
		l.Upper, l.Work = k.Path("up"), k.Path("wk")
		m := l.Plyfs(t)
		patch(t, m.Path("a"), 0, "X")
		if err := errors.Join(os.Remove(m.Path("d/f")), os.Rename(m.Path("d"), m.Path("d2")), os.RemoveAll(m.Path("e"))); err != nil {
			t.Fatal(err)
		}
		harness.Make(t, m.Dir, "d d\nf e/new 1")
		for range 2 {
			if got := names(t, m.Dir) + ", " + names(t, m.Path("d")) + ", " + names(t, m.Path("d2")) + ", " + names(t, m.Path("e")); got != "a d d2 e, , , new" {
				t.Errorf("the view has %s", got)
			}
			m.Close(t)
			m = l.Plyfs(t)
		}
		m.Close(t)
	})
}

// What is to be said of hundreds of layers with long names is more than an extended attribute holds.
func TestManyLongNames(t *testing.T) {
	l := harness.NewLayers(t)
	args := []string{"mount", "--upper", l.Upper, "--work", l.Work}
	for i := range 500 {
		dir := l.Root + "/" + strings.Repeat("n", 200) + itoa(i)
		harness.Make(t, dir, "f same "+itoa(i))
		args = append(args, "--lower", dir)
	}
	plyfs(t, append(args, l.Mnt)...)
	for _, sub := range []string{"stat", "explain", "tree"} {
		if out := plyfs(t, sub, l.Mnt); len(out) < 100 {
			t.Errorf("%s: %q", sub, out)
		}
	}
	if out := plyfs(t, "explain", l.Mnt+"/same"); strings.Count(out, strings.Repeat("n", 200)) < 500 {
		t.Errorf("explain: %q", out)
	}
	plyfs(t, "umount", l.Mnt)
}
