package mountopt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes directories (names ending in /) and files below a new directory and
// returns it.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestPlaces(t *testing.T) {
	root := tree(t, "a/sub/", "ab/", "b/", "u/in/", "w/", "m/", "file")
	if err := os.Symlink("a/sub", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ lowers, upper, work, mnt, err string }{
		{"a b", "u", "w", "m", ""},
		{"a ab", "u", "w", "m", ""},
		{"a", "", "", "m", ""},
		{"a", "", "", "a", ""},
		{"a", "", "u/in", "m", ""}, // of no use without an upper, as in the kernel
		{"a missing", "u", "w", "m", "lower directory missing: no such file or directory"},
		{"file", "u", "w", "m", "lower directory file: not a directory"},
		{"a a", "u", "w", "m", "lower directory a: the same as lower directory a"},
		{"a a/sub", "u", "w", "m", "lower directory a/sub: inside lower directory a"},
		{"a link", "u", "w", "m", "lower directory link: inside lower directory a"},
		{"a", "a/sub", "w", "m", "upper directory a/sub: inside lower directory a"},
		{"a/sub", "a", "w", "m", "lower directory a/sub: inside upper directory a"},
		{"a", "u", "u/in", "m", "work directory u/in: inside upper directory u"},
		{"a", "u/in", "u", "m", "upper directory u/in: inside work directory u"},
		{"a", "u", "a/sub", "m", "work directory a/sub: inside lower directory a"},
		{"a", "u", "w", "a/sub", "mount point a/sub: inside lower directory a"},
		{"a", "u", "w", "u", "mount point u: the same as upper directory u"},
		{"a", "u", "w", "gone", "mount point gone: no such file or directory"},
		{"a", "u", "w", "file", "mount point file: not a directory"},
	} {
		abs := func(name string) string {
			if name == "" {
				return ""
			}
			return filepath.Join(root, name)
		}
		p := Places{Upper: abs(tt.upper), Work: abs(tt.work), Mountpoint: abs(tt.mnt)}
		for _, l := range strings.Fields(tt.lowers) {
			p.Lowers = append(p.Lowers, abs(l))
		}
		got := ""
		if err := p.Check(); err != nil {
			got = strings.ReplaceAll(err.Error(), root+"/", "")
		}
		if got != tt.err {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

// A directory is the same through another mount of it, and the upper and work
// directories must be in one mount.
func TestPlacesThroughMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make mounts")
	}
	root := tree(t, "a/sub/", "bind/", "tmp/", "u/", "w/", "m/")
	in := func(name string) string { return filepath.Join(root, name) }
	for _, m := range []struct {
		src, dst, fstype string
		flags            uintptr
	}{{in("a"), in("bind"), "", unix.MS_BIND}, {"tmpfs", in("tmp"), "tmpfs", 0}, {"tmpfs", in("a/sub"), "tmpfs", 0}} {
		if err := unix.Mount(m.src, m.dst, m.fstype, m.flags, ""); err != nil {
			t.Skip("no permission to mount: ", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(m.dst, unix.MNT_DETACH) })
	}
	for _, tt := range []struct {
		p   Places
		err string
	}{
		{Places{Lowers: []string{in("a"), in("bind/sub")}, Mountpoint: in("m")}, "lower directory bind/sub: inside lower directory a"},
		{Places{Lowers: []string{in("a"), in("bind")}, Mountpoint: in("m")}, "lower directory bind: the same as lower directory a"},
		{Places{Lowers: []string{in("a"), in("a/sub")}, Mountpoint: in("m")}, ""}, // another filesystem, not part of the layer
		{Places{Lowers: []string{in("a")}, Upper: in("u"), Work: in("tmp"), Mountpoint: in("m")},
			"work directory tmp: not on the same mounted filesystem as the upper directory u"},
	} {
		got := ""
		if err := tt.p.Check(); err != nil {
			got = strings.ReplaceAll(err.Error(), root+"/", "")
		}
		if got != tt.err {
			t.Errorf("%+v: %q, want %q", tt.p, got, tt.err)
		}
	}
	if _, _, err := MakeWork(in("tmp"), nil); err == nil || !strings.Contains(err.Error(), "root of its filesystem") {
		t.Errorf("a work directory beside a mount: %v", err)
	}
}

func TestMakeWork(t *testing.T) {
	root := tree(t, "ok/u/", "low/u/", "open/u/", "taken/u/", "taken/u.work")
	in := func(name string) string { return filepath.Join(root, name) }
	if err := os.Chmod(in("open"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, made := range []bool{true, false} {
		work, got, err := MakeWork(in("ok/u"), []string{in("low")})
		if err != nil || work != in("ok/u.work") || got != made {
			t.Errorf("made %v: %q, %v, %v", made, work, got, err)
		}
	}
	for _, tt := range []struct{ upper, lower, err string }{
		{"low/u", "low", "it would lie in the lower directory"},
		{"open/u", "low", "anybody can write"},
		{"taken/u", "low", "is not a directory of yours"},
	} {
		if _, _, err := MakeWork(in(tt.upper), []string{in(tt.lower)}); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: error %v, want %q", tt.upper, err, tt.err)
		}
	}
	for _, name := range []string{"low/u.work", "open/u.work"} {
		if _, err := os.Lstat(in(name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}
