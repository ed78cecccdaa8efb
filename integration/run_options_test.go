package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// optioned mounts l with the given -o options and unmounts at the end of the test.
func optioned(t *testing.T, l *harness.Layers, options string) {
	t.Helper()
	all := "lowerdir=" + strings.Join(l.Lowers, ":")
	if l.Upper != "" {
		all += ",upperdir=" + l.Upper + ",workdir=" + l.Work
	}
	if options != "" {
		all += "," + options
	}
	plyfs(t, "-o", all, l.Mnt)
	t.Cleanup(func() {
		if mounted(t, l.Mnt) {
			plyfs(t, "umount", l.Mnt)
		}
	})
}

func owner(t *testing.T, path string) (uid, gid uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid, st.Gid
}

func wantOwner(t *testing.T, path string, uid, gid uint32) {
	t.Helper()
	if u, g := owner(t, path); u != uid || g != gid {
		t.Errorf("%s belongs to %d:%d, want %d:%d", path, u, g, uid, gid)
	}
}

// As somebody else, with an own file made.
func makeAs(t *testing.T, path string, uid, gid uint32) error {
	t.Helper()
	cmd := exec.Command("sh", "-c", `: > "$0"`, path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	return cmd.Run()
}

// open lets others reach the directories of a stack.
func open(t *testing.T, l *harness.Layers) {
	t.Helper()
	for dir := l.Root; dir != "/"; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm()&0o011 != 0o011 {
			if err := os.Chmod(dir, st.Mode()|0o011); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestOptionPaths(t *testing.T) {
	l := harness.NewLayers(t, "f a 1", "f b 2", "f c 3")
	odd := []string{`c:o,lon`, `back\slash`, `two words`}
	for i, name := range odd {
		to := filepath.Join(l.Root, name)
		if err := os.Rename(l.Lowers[i], to); err != nil {
			t.Fatal(err)
		}
		l.Lowers[i] = to
	}
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace
	comma := strings.NewReplacer(`,`, `\,`).Replace
	upper := filepath.Join(l.Root, `up,p:er`)
	if err := os.Rename(l.Upper, upper); err != nil {
		t.Fatal(err)
	}
	var joined, single []string
	for _, d := range l.Lowers {
		joined = append(joined, escape(d))
		single = append(single, "lowerdir+="+comma(d))
	}
	up := ",upperdir=" + escape(upper) + ",workdir=" + escape(l.Work)
	for _, options := range []string{"lowerdir=" + strings.Join(joined, ":") + up, strings.Join(single, ",") + up} {
		plyfs(t, "-o", options, l.Mnt)
		if got := names(t, l.Mnt); got != "a b c" {
			t.Errorf("%s: %q", options, got)
		}
		if err := os.WriteFile(l.Mnt+"/a", []byte("4"), 0o644); err != nil {
			t.Error(err)
		}
		// In use, by whatever name: the same mount table entry must be found.
		out, err := harness.Run("mount", "--lower", l.Lowers[1], "--upper", upper, "--work", l.Work, harness.Dir(t))
		if harness.ExitCode(err) != 1 || !strings.Contains(out, "in use") {
			t.Errorf("a second mount of the upper: %v, %s", err, out)
		}
		plyfs(t, "umount", l.Mnt)
	}
	if b, err := os.ReadFile(upper + "/a"); err != nil || string(b) != "4" {
		t.Errorf("%q, %v", b, err)
	}
}

// lowerdir=A::D and datadir+=D: files of D are not shown, but found by a redirect.
func TestDataOnlyLayers(t *testing.T) {
	harness.NeedRoot(t)
	for _, how := range []string{"::", "datadir+"} {
		l := harness.NewLayers(t, "f shown xxxx\nx shown trusted.overlay.metacopy \nx shown trusted.overlay.redirect /blob", "f blob data\nf other 1")
		options := "lowerdir=" + l.Lowers[0] + "::" + l.Lowers[1]
		if how == "datadir+" {
			options = "lowerdir+=" + l.Lowers[0] + ",datadir+=" + l.Lowers[1]
		}
		if err := unix.Setxattr(l.Lowers[0]+"/shown", "trusted.overlay.metacopy", nil, 0); err != nil {
			t.Fatal(err)
		}
		plyfs(t, "-o", options, l.Mnt)
		if got := names(t, l.Mnt); got != "shown" {
			t.Errorf("%s: %q", how, got)
		}
		if b, err := os.ReadFile(l.Mnt + "/shown"); err != nil || string(b) != "data" {
			t.Errorf("%s: %q, %v", how, b, err)
		}
		plyfs(t, "umount", l.Mnt)
	}
}

func TestFlagOptions(t *testing.T) {
	harness.NeedRoot(t)
	for options, want := range map[string]string{
		"":                                 "rw,relatime",
		"ro":                               "ro,relatime",
		"rw,suid,dev,exec":                 "rw,relatime",
		"nosuid,nodev,noexec,noatime":      "rw,nosuid,nodev,noexec,noatime",
		"default_permissions,allow_other":  "rw,relatime",
		"threaded=1,fast_ino=1,_netdev":    "rw,relatime",
		"async,big_writes,max_read=65536":  "rw,relatime",
		"xino=auto,nfs_export=off,noacl":   "rw,relatime",
		"redirect_dir=on,index=on":         "rw,relatime",
		"redirect_dir=off,metacopy=off":    "rw,relatime",
		"redirect_dir=nofollow,index=off":  "rw,relatime",
		"timeout=10,volatile,static_nlink": "rw,relatime",
	} {
		t.Run(options, func(t *testing.T) {
			l := harness.NewLayers(t, "f a 1")
			optioned(t, l, options)
			b, err := os.ReadFile("/proc/self/mounts")
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(b)) {
				f := strings.Fields(line)
				if f[1] != l.Mnt {
					continue
				}
				if flags, _, _ := strings.Cut(f[3], ",user_id="); flags != want || f[2] != "fuse.plyfs" || f[0] != "plyfs" {
					t.Errorf("mounted as %s", line)
				}
				if !strings.Contains(f[3], "default_permissions") || !strings.Contains(f[3], "allow_other") {
					t.Errorf("mounted as %s", line)
				}
			}
			err = os.WriteFile(l.Mnt+"/a", []byte("2"), 0o644)
			if ro := strings.HasPrefix(want, "ro"); ro != isErrno(err, unix.EROFS) || !ro && err != nil {
				t.Errorf("writing: %v", err)
			}
		})
	}
}

func TestFsname(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	optioned(t, l, `fsname=my\,view`)
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil || !strings.Contains(string(b), "my,view "+l.Mnt+" fuse.plyfs ") {
		t.Errorf("%v, the mount table has\n%s", err, b)
	}
}

// What the options that change the union change.
func TestUnionOptions(t *testing.T) {
	harness.NeedRoot(t)
	const tree = "d d/sub\nf d/f 1\nf a 2\nh b a\nF big 1M"
	attr := func(path, name string) bool {
		_, err := unix.Lgetxattr(path, name, nil)
		return err == nil
	}
	t.Run("redirect_dir=off", func(t *testing.T) {
		l := harness.NewLayers(t, tree)
		optioned(t, l, "redirect_dir=off")
		if err := unix.Rename(l.Mnt+"/d", l.Mnt+"/e"); err != unix.EXDEV {
			t.Errorf("renaming a lower directory: %v, want EXDEV", err)
		}
	})
	t.Run("redirect_dir=on", func(t *testing.T) {
		l := harness.NewLayers(t, tree)
		optioned(t, l, "redirect_dir=on")
		if err := unix.Rename(l.Mnt+"/d", l.Mnt+"/e"); err != nil {
			t.Error(err)
		}
		if !attr(l.Upper+"/e", "trusted.overlay.redirect") {
			t.Error("no redirect mark")
		}
		plyfs(t, "umount", l.Mnt)
		optioned(t, l, "redirect_dir=nofollow")
		if got := names(t, l.Mnt+"/e"); got != "" {
			t.Errorf("nofollow shows %q", got)
		}
		plyfs(t, "umount", l.Mnt)
		optioned(t, l, "redirect_dir=follow")
		if got := names(t, l.Mnt+"/e"); got != "f sub" {
			t.Errorf("follow shows %q", got)
		}
		if err := unix.Rename(l.Mnt+"/e/sub", l.Mnt+"/s"); err != unix.EXDEV {
			t.Errorf("follow: renaming a lower directory: %v, want EXDEV", err)
		}
	})
	t.Run("metacopy=on", func(t *testing.T) {
		l := harness.NewLayers(t, tree)
		optioned(t, l, "metacopy=on")
		if err := os.Chmod(l.Mnt+"/big", 0o600); err != nil {
			t.Error(err)
		}
		plyfs(t, "umount", l.Mnt)
		if !attr(l.Upper+"/big", "trusted.overlay.metacopy") {
			t.Error("no metacopy mark after the unmount")
		}
	})
	t.Run("metacopy=off", func(t *testing.T) {
		l := harness.NewLayers(t, tree)
		optioned(t, l, "metacopy=off")
		if err := os.Chmod(l.Mnt+"/big", 0o600); err != nil {
			t.Error(err)
		}
		plyfs(t, "umount", l.Mnt)
		if attr(l.Upper+"/big", "trusted.overlay.metacopy") || attr(l.Upper+"/big", "trusted.overlay.plyfs") {
			t.Error("marks after the unmount")
		}
	})
	for _, index := range []string{"on", "off"} {
		t.Run("index="+index, func(t *testing.T) {
			l := harness.NewLayers(t, tree)
			optioned(t, l, "index="+index)
			patch(t, l.Mnt+"/a", 0, "X")
			want := map[string]string{"on": "X", "off": "2"}[index]
			for range 2 {
				if b, err := os.ReadFile(l.Mnt + "/b"); err != nil || string(b) != want && index == "on" {
					t.Errorf("the other name: %q, %v", b, err)
				}
				plyfs(t, "umount", l.Mnt)
				optioned(t, l, "index="+index)
			}
			if b, err := os.ReadFile(l.Mnt + "/b"); err != nil || string(b) != want {
				t.Errorf("the other name after new mounts: %q, %v", b, err)
			}
		})
	}
	t.Run("userxattr", func(t *testing.T) {
		l := harness.NewLayers(t, tree)
		optioned(t, l, "userxattr")
		patch(t, l.Mnt+"/a", 0, "X")
		plyfs(t, "umount", l.Mnt)
		if !attr(l.Upper+"/a", "user.overlay.origin") || attr(l.Upper+"/a", "trusted.overlay.origin") {
			t.Error("marks in the wrong namespace")
		}
	})
	t.Run("volatile", func(t *testing.T) {
		l := harness.NewLayers(t, tree)
		optioned(t, l, "volatile")
		mark := filepath.Join(l.Work, "work/incompat/volatile")
		if _, err := os.Stat(mark); err != nil {
			t.Error(err)
		}
		patch(t, l.Mnt+"/a", 0, "X")
		plyfs(t, "umount", l.Mnt)
		if _, err := os.Stat(mark); !os.IsNotExist(err) {
			t.Errorf("the mark after the unmount: %v", err)
		}
		optioned(t, l, "volatile")
		harness.At(l.Mnt).KillDaemon(t)
		out, err := harness.Run("mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", l.Work, l.Mnt)
		if harness.ExitCode(err) != 1 || !strings.Contains(out, "volatile") {
			t.Errorf("after a kill: %v, %s", err, out)
		}
		if err := os.RemoveAll(mark); err != nil {
			t.Error(err)
		}
		optioned(t, l, "")
	})
	t.Run("static_nlink", func(t *testing.T) {
		l := harness.NewLayers(t, tree)
		optioned(t, l, "static_nlink")
		for name, want := range map[string]uint64{"d": 1, "d/sub": 1, "a": 2, "big": 1} {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(l.Mnt, name), &st); err != nil || st.Nlink != want {
				t.Errorf("%s has %d links, %v", name, st.Nlink, err)
			}
		}
	})
	t.Run("noacl", func(t *testing.T) {
		l := harness.NewLayers(t, tree)
		optioned(t, l, "noacl")
		acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, 4, 0, 4, 0, 0xff, 0xff, 0xff, 0xff, 0x20, 0, 4, 0, 0xff, 0xff, 0xff, 0xff}
		if err := unix.Setxattr(l.Mnt+"/a", "system.posix_acl_access", acl, 0); err != unix.EOPNOTSUPP {
			t.Errorf("setting an access list: %v", err)
		}
		plyfs(t, "umount", l.Mnt)
		optioned(t, l, "")
		if err := unix.Setxattr(l.Mnt+"/a", "system.posix_acl_access", acl, 0); err != nil {
			t.Errorf("setting an access list without noacl: %v", err)
		}
	})
	t.Run("timeout=0", func(t *testing.T) {
		l := harness.NewLayers(t, tree)
		optioned(t, l, "timeout=0")
		m := harness.At(l.Mnt)
		if _, err := os.Lstat(m.Path("a")); err != nil {
			t.Fatal(err)
		}
		n := m.Count(t, func() { _, _ = os.Lstat(m.Path("a")) })
		if n["LOOKUP"] == 0 {
			t.Errorf("a name was believed: %v", n)
		}
	})
	t.Run("nosettle", func(t *testing.T) {
		l := harness.NewLayers(t, tree)
		optioned(t, l, "nosettle")
		patch(t, l.Mnt+"/big", 0, "X")
		plyfs(t, "umount", l.Mnt)
		if !attr(l.Upper+"/big", "trusted.overlay.plyfs") {
			t.Error("the file was completed")
		}
		out, err := exec.Command("mount", "-t", "overlay", "o", "-o", "lowerdir="+l.Lowers[0]+",upperdir="+l.Upper+",workdir="+l.Work, l.Mnt).CombinedOutput()
		if err == nil {
			t.Errorf("the kernel mounts the upper: %s", out)
		}
	})
	t.Run("threshold=off", func(t *testing.T) {
		l := harness.NewLayers(t, tree)
		optioned(t, l, "threshold=off,nosettle")
		patch(t, l.Mnt+"/big", 0, "X")
		var st unix.Stat_t
		if err := unix.Stat(l.Upper+"/big", &st); err != nil || st.Blocks*512 < 1<<20 {
			t.Errorf("%d blocks, %v", st.Blocks, err)
		}
	})
	for _, fsync := range []string{"0", "1"} {
		t.Run("fsync="+fsync, func(t *testing.T) {
			l := harness.NewLayers(t, tree)
			optioned(t, l, "fsync="+fsync)
			f, err := os.Create(l.Mnt + "/new")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Sync(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Options that would change what the mount does, and are not done, are errors that name them; so are
// values that make no sense. Nothing is mounted.
func TestRefusedOptions(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	for _, tt := range []struct{ option, want string }{
		{"nfs_export=on", "nfs_export=on: not supported"},
		{"verity=require", "verity=require: not supported"},
		{"uid=5", "uid: not supported: use uidmapping"},
		{"sync", "sync: not supported"},
		{"auto_unmount", "auto_unmount: not supported"},
		{"plugins=x", "plugins: not supported"},
		{"no_such_option", "no_such_option: unknown"},
		{"Lowerdir=/", "Lowerdir: unknown"},
		{"redirect_dir=sometimes", "redirect_dir=sometimes: want"},
		{"uidmapping=1:2", "uidmapping=1:2: want"},
		{"squash_to_uid=root", "squash_to_uid=root: "},
		{"timeout=soon", "timeout=soon: want"},
		{"xattr_permissions=9", "xattr_permissions=9: want"},
		{"metacopy=on,redirect_dir=off", "metacopy=on: contradicts"},
		{"volatile=yes", "volatile: takes no value"},
		{"workdir", "workdir: needs a value"},
	} {
		out, err := harness.Run("-o", "lowerdir="+l.Lowers[0]+","+tt.option, l.Mnt)
		if harness.ExitCode(err) != 2 || !strings.HasPrefix(out, "plyfs: option "+tt.want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: %v, %q", tt.option, err, out)
		}
		if mounted(t, l.Mnt) {
			t.Fatalf("%s: mounted", tt.option)
		}
	}
}

// SELinux labels are the kernel's business: it gets them, and where it has no SELinux it says so.
func TestContextOption(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		t.Skip("this kernel has SELinux")
	}
	for _, option := range []string{"context=system_u:object_r:container_file_t:s0", `context="system_u:object_r:t:s0:c1,c2"`, "rootcontext=x"} {
		name, _, _ := strings.Cut(option, "=")
		refused(t, l.Root, 1, "the kernel does not take "+name, "-o", "lowerdir="+l.Lowers[0]+","+option, l.Mnt)
	}
}
