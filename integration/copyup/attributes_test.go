package copyup

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// capNetRaw is the value of security.capability for cap_net_raw+ep.
var capNetRaw = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func setfacl(t *testing.T, path string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("setfacl"); err != nil {
		t.Skip(err)
	}
	if out, err := exec.Command("setfacl", append(args, path)...).CombinedOutput(); err != nil {
		t.Fatalf("setfacl: %s", out)
	}
}

// attributeTree makes one object of each kind, small and large, with everything an object can have.
func attributeTree(t *testing.T, dir string) []string {
	t.Helper()
	harness.Make(t, dir, "f empty \nf small something\nF large 300k\nd dir\nl link to/nowhere\np fifo\nc null 1 3\nf protected x\nF mapped 300k")
	names := []string{"empty", "small", "large", "dir", "link", "fifo", "null", "protected", "mapped"}
	for i, name := range names {
		path := filepath.Join(dir, name)
		must(t, os.Lchown(path, 1000+i, 2000+i))
		must(t, unix.Lsetxattr(path, "trusted.mine", []byte{0, byte(i)}, 0))
		if name != "link" {
			must(t, unix.Chmod(path, []uint32{0o6751, 0o640, 0o4711, 0o2750}[i%4]))
		}
		if slices.Contains([]string{"small", "large", "dir"}, name) {
			must(t, unix.Setxattr(path, "user.u", []byte("\x00value"), 0))
			must(t, unix.Setxattr(path, "user.empty", nil, 0))
			setfacl(t, path, "-m", "u:77:rwx,g:88:r-x,m::r-x")
		}
		if name == "dir" {
			setfacl(t, path, "-d", "-m", "u:77:rwx")
		}
		if name == "small" || name == "large" {
			must(t, unix.Setxattr(path, "security.capability", capNetRaw, 0))
		}
		when := []unix.Timespec{{Sec: 1e9, Nsec: 123456789}, {Sec: 15e8 + int64(i), Nsec: 987654321}}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, when, unix.AT_SYMLINK_NOFOLLOW))
	}
	return names
}

var sgiACL = regexp.MustCompile(` trusted\.SGI_ACL_\w+="[^"]*"`)

// TestAttributesComeAlong copies up one object of each kind by a change that leaves it as it was: nothing may
// be different then, nor after a remount, when it is completed, or in the kernel's overlayfs.
func TestAttributesComeAlong(t *testing.T) {
	harness.NeedRoot(t)
	for how, change := range map[string]func(t *testing.T, path string){
		"setxattr": func(t *testing.T, path string) {
			must(t, unix.Lsetxattr(path, "trusted.other", []byte("x"), 0))
			must(t, unix.Lremovexattr(path, "trusted.other"))
		},
		"rename": func(t *testing.T, path string) {
			must(t, os.Rename(path, path+"2"))
			must(t, os.Rename(path+"2", path))
		},
		"link": func(t *testing.T, path string) {
			if st, err := os.Lstat(path); err != nil || st.IsDir() {
				return
			}
			must(t, os.Link(path, path+"2"))
			must(t, os.Remove(path+"2"))
		},
	} {
		t.Run(how, func(t *testing.T) {
			harness.OnFilesystems(t, 512<<20, func(t *testing.T, dir string) {
				l := harness.NewLayersOn(t, dir, "")
				names := attributeTree(t, l.Lowers[0])
				m := l.Plyfs(t, manual...)
				dump := func(dir string) []string {
					lines := harness.Dump(t, dir, true)
					for i := range lines { // how XFS shows access lists besides
						lines[i] = sgiACL.ReplaceAllString(lines[i], "")
					}
					return slices.DeleteFunc(lines, func(s string) bool { return strings.HasPrefix(s, `"." `) })
				}
				want := dump(l.Lowers[0])
				check := func(dir, when string) {
					t.Helper()
					if diff := cmp.Diff(want, dump(dir)); diff != "" {
						t.Errorf("%s: the lower layer (-), and the copy (+):\n%s", when, diff)
					}
				}
				check(m.Dir, "before")
				for _, name := range names {
					change(t, m.Path(name))
					if _, err := os.Lstat(filepath.Join(l.Upper, name)); err != nil && (how != "link" || name != "dir") {
						t.Errorf("not copied up: %v", err)
					}
				}
				check(m.Dir, "after")
				m.Close(t)
				m = l.Plyfs(t, "--settle-budget", "off")
				check(m.Dir, "mounted again")
				settle(t, m)
				check(m.Dir, "completed")
				m.Close(t)
				if how != "link" {
					check(l.Upper, "in the upper")
				}
				check(l.Kernel(t).Dir, "in the kernel")
			})
		})
	}
}

// lsattr returns the letters of a file's flags, without those that say how its filesystem keeps it.
func lsattr(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	must(t, err)
	var out []byte
	for letter, bit := range map[byte]uint32{'i': 0x10, 'a': 0x20, 'd': 0x40, 'A': 0x80, 'S': 0x8} {
		if flags&bit != 0 {
			out = append(out, letter)
		}
	}
	slices.Sort(out)
	return string(out)
}

func chattr(t *testing.T, flags, path string) {
	t.Helper()
	if out, err := exec.Command("chattr", flags, path).CombinedOutput(); err != nil {
		t.Skipf("chattr: %v: %s", err, out)
	}
}

// TestFlagsComeAlong: the harmless file flags stay what they are when a file is copied up, here and in the kernel.
func TestFlagsComeAlong(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f small x\nF large 300k")
	for _, name := range []string{"small", "large"} {
		chattr(t, "+dAS", filepath.Join(l.Lowers[0], name))
	}
	m := l.Plyfs(t, "--settle-budget", "off")
	for _, name := range []string{"small", "large"} {
		must(t, os.Chmod(m.Path(name), 0o600))
		if got := lsattr(t, m.Path(name)); got != "ASd" {
			t.Errorf("%s has %q", name, got)
		}
	}
	m.Close(t)
	k := l.Kernel(t)
	for _, name := range []string{"small", "large"} {
		if got := lsattr(t, k.Path(name)); got != "ASd" {
			t.Errorf("in the kernel %s has %q", name, got)
		}
	}
}

// TestUpperThatHoldsLess: on ramfs, which keeps no attributes, what is lost is said with its path, and what
// would grant more than before is refused.
func TestUpperThatHoldsLess(t *testing.T) {
	harness.NeedRoot(t)
	dir := filepath.Join(harness.Dir(t), "ramfs")
	must(t, os.Mkdir(dir, 0o755))
	must(t, unix.Mount("ramfs", dir, "ramfs", 0, ""))
	l := harness.NewLayersOn(t, dir, "f dir/able x\nf listed secret\nm listed 600\nf dir/said x")
	lower := l.Lowers[0]
	must(t, unix.Setxattr(lower+"/dir/able", "security.capability", capNetRaw, 0))
	must(t, unix.Setxattr(lower+"/dir/said", "user.said", []byte("x"), 0))
	setfacl(t, lower+"/listed", "-m", "u:77:---,o::r")
	m := l.Plyfs(t)
	if err := os.Chtimes(m.Path("listed"), time.Now(), time.Now()); errnoOf(err) != unix.EOPNOTSUPP {
		t.Errorf("a file whose access list would be lost: %v", err)
	}
	if _, err := os.Lstat(l.Upper + "/listed"); err == nil {
		t.Error("it is in the upper")
	}
	for _, name := range []string{"dir/able", "dir/said"} {
		must(t, os.Chtimes(m.Path(name), time.Now(), time.Now()))
	}
	m.Close(t)
	log, err := os.ReadFile(l.Root + "/log")
	must(t, err)
	for _, part := range []string{"/dir/able: security.capability", "/dir/said: user.said"} {
		if !strings.Contains(string(log), part) {
			t.Errorf("the log does not say %q:\n%s", part, log)
		}
	}
}

// TestAccessListOfTheWorkDirectory: what is copied up is staged there, and must not inherit its list.
func TestAccessListOfTheWorkDirectory(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f small x\nF large 300k\nd dir\np fifo")
	setfacl(t, l.Work, "-m", "u:77:rwx,d:u:77:rwx")
	m := l.Plyfs(t, manual...)
	for _, name := range []string{"small", "large", "dir", "fifo"} {
		before, err := os.Stat(m.Path(name))
		must(t, err)
		must(t, os.Chtimes(m.Path(name), time.Now(), time.Now()))
		after, err := os.Stat(m.Path(name))
		must(t, err)
		if after.Mode() != before.Mode() {
			t.Errorf("%s: mode %v, was %v", name, after.Mode(), before.Mode())
		}
		for _, attr := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
			for _, path := range []string{m.Path(name), filepath.Join(l.Upper, name)} {
				if n, err := unix.Getxattr(path, attr, nil); err != unix.ENODATA {
					t.Errorf("%s: %s has %d bytes, %v", path, attr, n, err)
				}
			}
		}
	}
}

// TestChownTakesSetID: a change of owner takes set-id bits, as of a file in a plain directory; of a lower file and of one
// that was copied up before.
func TestChownTakesSetID(t *testing.T) {
	harness.NeedRoot(t)
	modes := []uint32{0o4755, 0o2755, 0o6711, 0o2644, 0o4644}
	tree := ""
	for i := range modes {
		tree += "f f" + itoa(i) + " x\nd d" + itoa(i) + "\n"
	}
	change := func(dir string, prepare bool) (out []uint32) {
		for i, mode := range modes {
			for _, kind := range []string{"f", "d"} {
				path := filepath.Join(dir, kind+itoa(i))
				if prepare {
					must(t, unix.Chmod(path, mode))
				}
				must(t, os.Chown(path, 1000+len(out), -1))
				var st unix.Stat_t
				must(t, unix.Stat(path, &st))
				out = append(out, st.Mode&0o7777)
			}
		}
		return out
	}
	l := harness.NewLayers(t, tree)
	plain := harness.Dir(t)
	harness.Make(t, plain, tree)
	for i, mode := range modes {
		must(t, unix.Chmod(filepath.Join(l.Lowers[0], "f"+itoa(i)), mode))
		must(t, unix.Chmod(filepath.Join(l.Lowers[0], "d"+itoa(i)), mode))
	}
	want := change(plain, true)
	m := l.Plyfs(t, manual...)
	if diff := cmp.Diff(want, change(m.Dir, false)); diff != "" {
		t.Errorf("lower files (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, change(m.Dir, true)); diff != "" {
		t.Errorf("upper files (-want +got):\n%s", diff)
	}
}
