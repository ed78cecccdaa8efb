package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// refused runs plyfs, which must say one line with want in it, end with the code, and change nothing
// below root.
func refused(t *testing.T, root string, code int, want string, args ...string) {
	t.Helper()
	before := harness.Dump(t, root, true)
	out, err := harness.Run(args...)
	if harness.ExitCode(err) != code {
		t.Errorf("%s: %v, want exit code %d", strings.Join(args, " "), err, code)
	}
	if !strings.HasPrefix(out, "plyfs: ") || strings.Count(out, "\n") != 1 || !strings.Contains(out, want) {
		t.Errorf("%s\n says %q\nwant %q", strings.Join(args, " "), out, want)
	}
	if diff := cmp.Diff(before, harness.Dump(t, root, true)); diff != "" {
		t.Errorf("%s changed something:\n%s", strings.Join(args, " "), diff)
	}
}

func TestBadDirectories(t *testing.T) {
	l := harness.NewLayers(t, "f a 1\nd in/deep", "f b 2")
	harness.Make(t, l.Root, "d upper/in\nd work2/foreign\nd both/upper\nd both/work\nf file x\nl loop loop\nl link lower1\nf work3/index/x 1\nf index/index/x 1")
	at := func(name string) string { return filepath.Join(l.Root, name) }
	low, up, work, mnt := l.Lowers[0], l.Upper, l.Work, l.Mnt
	for _, tt := range []struct {
		name string
		code int
		want string
		args []string
	}{
		{"no lower", 2, "option lowerdir: missing", []string{mnt}},
		{"missing lower", 1, at("no") + ": lower layer does not exist; create the directory first", []string{"--lower", at("no"), mnt}},
		{"missing second lower", 1, at("no") + ": lower layer does not exist", []string{"--lower", low, "--lower", at("no"), mnt}},
		{"missing data layer", 1, at("no") + ": data layer does not exist", []string{"--lower", low, "--data-lower", at("no"), mnt}},
		{"missing upper", 1, at("no") + ": upper does not exist", []string{"--lower", low, "--upper", at("no"), mnt}},
		{"missing upper in a layer", 1, low + "/no: upper does not exist", []string{"--lower", low, "--upper", low + "/no", mnt}},
		{"missing work", 1, at("no") + ": work directory does not exist", []string{"--lower", low, "--upper", up, "--work", at("no"), mnt}},
		{"missing mount point", 1, at("no") + ": mount point does not exist; create the directory first", []string{"--lower", low, "--upper", up, at("no")}},
		{"file as lower", 1, at("file") + ": lower layer is not a directory", []string{"--lower", at("file"), mnt}},
		{"file as upper", 1, at("file") + ": upper is not a directory", []string{"--lower", low, "--upper", at("file"), mnt}},
		{"file as work", 1, at("file") + ": work directory is not a directory", []string{"--lower", low, "--upper", up, "--work", at("file"), mnt}},
		{"file as mount point", 1, at("file") + ": mount point is not a directory", []string{"--lower", low, "--upper", up, "--work", work, at("file")}},
		{"below a file", 1, at("file/x") + ": cannot use lower layer: not a directory", []string{"--lower", at("file/x"), mnt}},
		{"a link to itself", 1, at("loop") + ": cannot use lower layer: too many", []string{"--lower", at("loop"), mnt}},
		{"a lower twice", 1, "is named twice as a lower layer", []string{"--lower", low, "--lower", at("link"), mnt}},
		{"lower as data", 1, "is both lower layer and data layer", []string{"--lower", low, "--data-lower", low, mnt}},
		{"lower in a lower", 1, "lower layer lies inside lower layer " + low, []string{"--lower", low, "--lower", low + "/in", mnt}},
		{"lower around a lower", 1, "lower layer lies inside lower layer " + low, []string{"--lower", low + "/in", "--lower", low, mnt}},
		{"lower as upper", 1, "is both lower layer and upper", []string{"--lower", low, "--upper", low, mnt}},
		{"lower as work", 1, "is both lower layer and work directory", []string{"--lower", low, "--upper", up, "--work", low, mnt}},
		{"upper as work", 1, "is both upper and work directory", []string{"--lower", low, "--upper", up, "--work", up, mnt}},
		{"upper in a lower", 1, "upper lies inside lower layer " + low, []string{"--lower", low, "--upper", low + "/in", mnt}},
		{"upper in a lower, by a link", 1, "upper lies inside lower layer " + low, []string{"--lower", low, "--upper", at("link/in"), mnt}},
		{"lower in the upper", 1, "lower layer lies inside upper " + up, []string{"--lower", up + "/in", "--upper", up, "--work", work, mnt}},
		{"work in the upper", 1, "work directory lies inside upper " + up, []string{"--lower", low, "--upper", up, "--work", up + "/in", mnt}},
		{"upper in work", 1, "upper lies inside work directory", []string{"--lower", low, "--upper", at("both/upper"), "--work", at("both"), mnt}},
		{"work in a lower", 1, "work directory lies inside lower layer", []string{"--lower", low, "--upper", up, "--work", low + "/in", mnt}},
		{"work that would lie in a lower", 1, "lies inside lower layer " + at("both"), []string{"--lower", at("both"), "--upper", at("both/upper"), mnt}},
		{"mount point in a lower", 1, "mount point lies inside lower layer " + low, []string{"--lower", low, "--upper", up, low + "/in"}},
		{"mount point deep in a lower", 1, "mount point lies inside lower layer " + low, []string{"--lower", low, low + "/in/deep"}},
		{"mount point in the upper", 1, "mount point lies inside upper " + up, []string{"--lower", low, "--upper", up, "--work", work, up + "/in"}},
		{"mount point is the upper", 1, "is both upper and mount point", []string{"--lower", low, "--upper", up, "--work", work, up}},
		{"mount point is the work", 1, "is both work directory and mount point", []string{"--lower", low, "--upper", up, "--work", work, work}},
		{"work without upper", 1, "of no use without an upper", []string{"--lower", low, "--work", work, mnt}},
		{"upper and work on two filesystems", 1, "must be on the same filesystem as the upper", []string{"--lower", low, "--upper", up, "--work", "/dev/shm", mnt}},
		{"foreign things in work", 1, `holds "foreign"`, []string{"--lower", low, "--upper", up, "--work", at("work2"), mnt}},
		{"a threshold that is none", 2, "is not a size", []string{"--lower", low, "--threshold", "much", mnt}},
		{"a mode that is none", 2, "option mode=quick: want", []string{"--lower", low, "--mode", "quick", mnt}},
		{"a flag that is none", 2, "unknown flag: --lowers", []string{"--lowers", low, mnt}},
		{"two mount points", 2, "usage: plyfs mount", []string{"--lower", low, mnt, mnt}},
		{"no mount point", 2, "usage: plyfs mount", []string{"--lower", low}},
		{"a log in no directory", 1, "no/log", []string{"--lower", low, "--log", at("no/log"), mnt}},
		{"an empty name", 2, "a directory without a name", []string{"--lower", "", mnt}},
		{"an empty mount point", 2, "a directory without a name", []string{"--lower", low, ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, l.Root, tt.code, tt.want, append([]string{"mount"}, tt.args...)...)
			refused(t, l.Root, tt.code, tt.want, append([]string{"mount", "-f"}, tt.args...)...)
			if mounted(t, mnt) {
				t.Fatal("mounted")
			}
		})
	}
}

// What another filesystem, mounted inside a lower layer, has is not seen in the layer, and may be upper and mount point. Only
// root can keep it out of sight.
func TestUpperMountedInLower(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f a 1\nf in/hidden 1")
	in := l.Lowers[0] + "/in"
	do(t, unix.Mount("tmpfs", in, "tmpfs", 0, ""))
	t.Cleanup(func() { harness.Unmount(in) })
	harness.Make(t, in, "d upper\nd work\nd mnt")
	for _, mnt := range []string{l.Mnt, in + "/mnt"} {
		plyfs(t, "mount", "--lower", l.Lowers[0], "--upper", in+"/upper", "--work", in+"/work", mnt)
		t.Cleanup(func() { harness.Unmount(mnt) })
		do(t, os.WriteFile(mnt+"/a", []byte("2"), 0o644))
		if ents, err := os.ReadDir(mnt + "/in"); err != nil || len(ents) != 1 || ents[0].Name() != "hidden" {
			t.Errorf("%v, %v", ents, err)
		}
		plyfs(t, "umount", mnt)
	}
	if b, err := os.ReadFile(l.Lowers[0] + "/a"); err != nil || string(b) != "1" {
		t.Errorf("the lower file: %q, %v", b, err)
	}
}

// The upper of one mount is refused to another, here and in the kernel's overlayfs.
func TestUpperInUse(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f a 1", "f b 2")
	harness.Make(t, l.Root, "d mnt2\nd work2\nd upper2")
	mnt2, work2, upper2 := l.Root+"/mnt2", l.Root+"/work2", l.Root+"/upper2"
	again := [][]string{
		{"mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", l.Work, mnt2},
		{"mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", work2, mnt2},
		{"mount", "--lower", l.Lowers[0], "--upper", upper2, "--work", l.Work, mnt2},
	}
	m := l.Plyfs(t)
	for _, args := range again {
		refused(t, l.Root+"/work2", 1, "in use by another mount", args...)
	}
	refused(t, work2, 1, "a plyfs is mounted there already", "mount", "--lower", l.Lowers[1], l.Mnt)
	m.Close(t)
	k := l.Kernel(t)
	for _, args := range again {
		refused(t, l.Root+"/work2", 1, "in use by a mount of the kernel's overlayfs", args...)
	}
	k.Close(t)
	for _, args := range again[:1] {
		plyfs(t, args...)
		plyfs(t, "umount", mnt2)
	}
}

// So is one of the kernel's in another mount namespace.
func TestUpperInUseElsewhere(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f a 1")
	harness.Make(t, l.Root, "d work2")
	line := "mount -t overlay o -o lowerdir=" + l.Lowers[0] + ",upperdir=" + l.Upper + ",workdir=" + l.Work + " " + l.Mnt + "; echo x > " + l.Mnt + "/new; echo ready; exec sleep 100"
	other := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-ec", line)
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	if n, err := out.Read(make([]byte, 10)); n == 0 {
		t.Fatal(err)
	}
	for _, work := range []string{l.Work, l.Root + "/work2"} {
		refused(t, l.Root+"/work2", 1, "in use by a mount of the kernel's overlayfs", "mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", work, l.Mnt)
	}
}

// An upper on a mount of its own has no room for a work directory beside it.
func TestUpperIsMountPoint(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f a 1")
	if err := unix.Mount("t", l.Upper, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	refused(t, l.Root, 1, "work directory beside it would be on another filesystem", "mount", "--lower", l.Lowers[0], "--upper", l.Upper, l.Mnt)
	refused(t, l.Root, 1, "must be on the same filesystem as the upper", "mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", l.Work, l.Mnt)
}

// An upper that cannot be written, and layers that cannot be read.
func TestUnusableLayers(t *testing.T) {
	harness.NeedUser(t)
	l := harness.UserLayers(t, "f a 1", "f b 2")
	for _, tt := range []struct {
		path string
		mode uint32
		want string
	}{
		{l.Lowers[1], 0, "cannot open lower layer: permission denied"},
		{l.Lowers[1], 0o111, "cannot open lower layer: permission denied"},
		{l.Lowers[1], 0o444, "cannot open lower layer: permission denied"},
		{l.Upper, 0o555, "not writable"},
		{l.Work, 0o555, "not writable"},
	} {
		if err := unix.Chmod(tt.path, tt.mode); err != nil {
			t.Fatal(err)
		}
		before := harness.Dump(t, l.Root, true)
		out, err := asUser(t, l, "mount", "--lower", l.Lowers[0], "--lower", l.Lowers[1], "--upper", l.Upper, "--work", l.Work, l.Mnt)
		if harness.ExitCode(err) != 1 || !strings.Contains(out, tt.path) || !strings.Contains(out, tt.want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s with mode %o: %v, %q", tt.path, tt.mode, err, out)
		}
		if diff := cmp.Diff(before, harness.Dump(t, l.Root, true)); diff != "" {
			t.Errorf("%s with mode %o: changed:\n%s", tt.path, tt.mode, diff)
		}
		if err := unix.Chmod(tt.path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("read-only filesystem", func(t *testing.T) {
		l := harness.NewLayers(t, "f a 1")
		if err := unix.Mount(l.Root, l.Root, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("", l.Root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		refused(t, l.Root, 1, "read-only file system", "mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", l.Work, l.Mnt)
		refused(t, l.Root, 1, "read-only file system", "mount", "--lower", l.Lowers[0], "--upper", l.Upper, l.Mnt)
		plyfs(t, "mount", "--lower", l.Lowers[0], l.Mnt)
		plyfs(t, "umount", l.Mnt)
	})
}

// Kernels and machines that cannot do FUSE, in a mount namespace of their own.
func TestWithoutFUSE(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f a 1")
	line := harness.Binary() + " mount --lower " + l.Lowers[0] + " --upper " + l.Upper + " " + l.Mnt
	for prepare, want := range map[string]string{
		"mount --bind /dev/null /dev/fuse":                                                 "no FUSE device",
		"mount -t tmpfs t /dev; mknod /dev/null c 1 3":                                     "no FUSE device (load the fuse module: modprobe fuse)",
		"mount -t tmpfs t /dev; mknod /dev/null c 1 3; mknod /dev/fuse c 240 229":          "no FUSE device",
		"mount -t tmpfs -o nodev t /mnt; mknod /mnt/f c 10 229; mount -B /mnt/f /dev/fuse": "not permitted",
	} {
		before := harness.Dump(t, l.Root, true)
		out, err := exec.Command("unshare", "-m", "sh", "-c", prepare+" && exec "+line).CombinedOutput()
		if harness.ExitCode(err) != 1 || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %q", prepare, err, out)
		}
		if diff := cmp.Diff(before, harness.Dump(t, l.Root, true)); diff != "" {
			t.Errorf("%s: changed:\n%s", prepare, diff)
		}
	}
	// Root without the right to mount.
	before := harness.Dump(t, l.Root, false)
	out, err := exec.Command("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", "sh", "-c", "PATH=/nowhere exec "+line).CombinedOutput()
	if harness.ExitCode(err) != 1 || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), "not permitted") {
		t.Errorf("without CAP_SYS_ADMIN: %v, %q", err, out)
	}
	if diff := cmp.Diff(before, harness.Dump(t, l.Root, false)); diff != "" {
		t.Errorf("without CAP_SYS_ADMIN: changed:\n%s", diff)
	}
}

// A mount point whose daemon was killed is replaced, with a message; also when several lie on each other.
func TestDeadMountPoint(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	args := []string{"mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", l.Work, l.Mnt}
	kill := func() {
		pid := daemonOf(t, l.Mnt)
		_ = unix.Kill(pid, unix.SIGKILL)
		waitFor(t, "the end of the daemon", func() bool { return !harness.Alive(pid) })
	}
	plyfs(t, args...)
	if _, err := os.Stat(l.Mnt); err != nil { // the kernel knows the attributes now
		t.Fatal(err)
	}
	kill()
	for _, sub := range []string{"stat", "explain", "tree", "diff", "settle", "check", "watch"} {
		out, err := harness.Run(sub, l.Mnt)
		if harness.ExitCode(err) != 1 || !strings.Contains(out, "dead daemon") || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: %v, %q", sub, err, out)
		}
	}
	out, err := harness.Run(args...)
	if err != nil || out != "plyfs: "+l.Mnt+": the daemon of an earlier mount died; its mount point was taken away\n" {
		t.Fatalf("%v: %q", err, out)
	}
	if got := names(t, l.Mnt); got != "a" {
		t.Errorf("the view has %q", got)
	}
	kill()
	out, err = harness.Run("umount", l.Mnt)
	if err != nil || !strings.Contains(out, "its daemon was dead") {
		t.Errorf("umount: %v, %q", err, out)
	}
	if mounted(t, l.Mnt) {
		t.Error("still mounted")
	}
	// fuse-overlayfs' words do the same.
	plyfs(t, args...)
	kill()
	out, err = harness.Run("-o", "lowerdir="+l.Lowers[0], l.Mnt)
	if err != nil || !strings.Contains(out, "died") {
		t.Errorf("%v, %q", err, out)
	}
	plyfs(t, "umount", l.Mnt)
}

// A layer inside a dead mount is no layer.
func TestLayerInDeadMount(t *testing.T) {
	l := harness.NewLayers(t, "f a 1\nd d")
	m := l.Plyfs(t)
	other := harness.Dir(t)
	_ = unix.Kill(m.PID(), unix.SIGKILL)
	waitFor(t, "the end of the daemon", func() bool { return !harness.Alive(m.PID()) })
	refused(t, other, 1, "dead", "mount", "--lower", l.Mnt+"/d", other)
}

// An upper that something unknown speaks against, as a later version may.
func TestUnknownIncompat(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	harness.Make(t, l.Work, "d work/incompat/time-travel")
	refused(t, l.Root, 1, `needs "time-travel"`, "mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", l.Work, l.Mnt)
}

func TestUmountErrors(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	refused(t, l.Root, 1, "no plyfs is mounted there", "umount", l.Mnt)
	refused(t, l.Root, 1, "no plyfs is mounted there", "umount", l.Lowers[0]+"/a")
	refused(t, l.Root, 1, "no plyfs is mounted there", "umount", l.Root+"/no")
	refused(t, l.Root, 1, "no such file", "umount", l.Root+"/no/no")
	refused(t, l.Root, 2, "usage", "umount")
	m := l.Plyfs(t)
	refused(t, l.Lowers[0], 1, "no plyfs is mounted there", "umount", m.Path("a"))
	refused(t, l.Lowers[0], 1, "not a directory; plyfs explain", "diff", m.Path("a"))
	// What can be done is done.
	out, err := harness.Run("umount", l.Root+"/no", l.Mnt)
	if harness.ExitCode(err) != 1 || mounted(t, l.Mnt) {
		t.Errorf("%v, %q", err, out)
	}
}

// Who may neither look into a mount nor end it is told who may.
func TestStrangersMount(t *testing.T) {
	harness.NeedUser(t)
	l := harness.NewLayers(t, "f a 1")
	open(t, l)
	l.Plyfs(t)
	for sub, want := range map[string]string{
		"explain": "only root and the owner of the mount may",
		"umount":  "not permitted: it takes root, or whoever mounted it",
	} {
		out, err := asUser(t, l, sub, l.Mnt)
		if harness.ExitCode(err) != 1 || !strings.Contains(out, want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: %v, %q", sub, err, out)
		}
	}
}

func TestUnknownCommands(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	refused(t, l.Root, 2, `unknown command "frobnicate"`, "frobnicate", l.Mnt)
	refused(t, l.Root, 2, `no command "frobnicate"`, "help", "frobnicate")
	refused(t, l.Root, 2, "needs an argument", "-o")
	refused(t, l.Root, 2, "unknown flag: --frobnicate", "umount", "--frobnicate", l.Mnt)
}

// Paths that no system call takes.
func TestTooLongPaths(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	name, path := strings.Repeat("n", 256), strings.Repeat("/dir", 1100)
	for _, long := range []string{l.Root + "/" + name, l.Root + path} {
		refused(t, l.Root, 1, "file name too long", "mount", "--lower", long, l.Mnt)
		refused(t, l.Root, 1, "file name too long", "mount", "--lower", l.Lowers[0], "--upper", long, l.Mnt)
		refused(t, l.Root, 1, "file name too long", "mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", long, l.Mnt)
		refused(t, l.Root, 1, "file name too long", "mount", "--lower", l.Lowers[0], long)
	}
}

// Mount points that are not just an empty directory.
func TestOddMountPoints(t *testing.T) {
	l := harness.NewLayers(t, "f a 1\nF big 1M", "f b 2")
	harness.Make(t, l.Root, "f full/kept 1\nl link mnt\nl dangling nowhere\nd over/lower\nd over/upper\nd over/work\nf over/lower/x 1\nF over/lower/big 1M")
	view := func(dir, want string) {
		t.Helper()
		if got := names(t, dir); got != want {
			t.Errorf("%s shows %q, want %q", dir, got, want)
		}
	}
	refused(t, l.Root, 1, "dangling: mount point does not exist", "mount", "--lower", l.Lowers[0], l.Root+"/dangling")
	// What a directory holds is there again afterwards.
	plyfs(t, "mount", "--lower", l.Lowers[0], l.Root+"/full")
	view(l.Root+"/full", "a big")
	plyfs(t, "umount", l.Root+"/full")
	view(l.Root+"/full", "kept")
	// By a symbolic link.
	plyfs(t, "mount", "--lower", l.Lowers[0], l.Root+"/link")
	view(l.Mnt, "a big")
	refused(t, l.Lowers[0], 1, "a plyfs is mounted there already", "mount", "--lower", l.Lowers[1], l.Root+"/link")
	plyfs(t, "umount", l.Root+"/link")
	if mounted(t, l.Mnt) {
		t.Error("still mounted")
	}
	// On another mount, as mount(8) does.
	if err := unix.Mount("t", l.Mnt, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	harness.Make(t, l.Mnt, "f below 1")
	plyfs(t, "mount", "--lower", l.Lowers[0], l.Mnt)
	view(l.Mnt, "a big")
	plyfs(t, "umount", l.Mnt)
	view(l.Mnt, "below")
	// Over its own layers, which are out of sight then, as the kernel's overlayfs may be.
	over := l.Root + "/over"
	plyfs(t, "mount", "--lower", over+"/lower", "--upper", over+"/upper", "--work", over+"/work", over)
	view(over, "big x")
	patch(t, over+"/big", 1<<19, "changed")
	plyfs(t, "umount", over)
	want := harness.Bytes(1 << 20)
	copy(want[1<<19:], "changed")
	if b, err := os.ReadFile(over + "/upper/big"); err != nil || string(b) != string(want) {
		t.Errorf("the upper's file is not complete: %v", err)
	}
}

// An ordinary user without the helper, or without the right to open the device.
func TestUserWithoutFUSE(t *testing.T) {
	l := harness.UserLayers(t, "f a 1")
	for prepare, want := range map[string]string{
		"chmod 600 /dev/fuse":  "/dev/fuse: mounting is not permitted (user 65534 may not open it",
		"export PATH=/nowhere": "fusermount3 is not installed (package fuse3)",
	} {
		before := harness.Dump(t, l.Root, true)
		for _, work := range []string{"", " --work " + l.Work} {
			line := "mount -t tmpfs t /mnt && mknod /mnt/fuse c 10 229 && chmod 666 /mnt/fuse && mount -B /mnt/fuse /dev/fuse && env=$(command -v setpriv) && " +
				prepare + " && exec $env --reuid 65534 --regid 65534 --clear-groups " + harness.Binary() + " mount --lower " + l.Lowers[0] + " --upper " + l.Upper + work + " " + l.Mnt
			out, err := exec.Command("unshare", "-m", "sh", "-c", line).CombinedOutput()
			if harness.ExitCode(err) != 1 || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), want) {
				t.Errorf("%s: %v, %q", prepare, err, out)
			}
		}
		if diff := cmp.Diff(before, harness.Dump(t, l.Root, true)); diff != "" {
			t.Errorf("%s: changed:\n%s", prepare, diff)
		}
	}
}
