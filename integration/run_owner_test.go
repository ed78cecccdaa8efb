package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

func TestOwnerOptions(t *testing.T) {
	harness.NeedRoot(t)
	const tree = "f a 1\nu a 0 0\nf b 2\nu b 5 6\nf c 3\nu c 70000 70000\nd d\nm d 777"
	for _, tt := range []struct {
		options string
		want    [3][2]uint32 // of a, b, c
		new     [2]uint32    // of what 1005:1006 makes
		stored  [2]uint32    // in the upper
		fails   bool
	}{
		{"", [3][2]uint32{{0, 0}, {5, 6}, {70000, 70000}}, [2]uint32{1005, 1006}, [2]uint32{1005, 1006}, false},
		{"uidmapping=0:1000:100,gidmapping=0:1000:100",
			[3][2]uint32{{1000, 1000}, {1005, 1006}, {65534, 65534}}, [2]uint32{1005, 1006}, [2]uint32{5, 6}, false},
		{"uidmapping=0:5000:1:5:5005:1", [3][2]uint32{{5000, 0}, {5005, 6}, {65534, 70000}}, [2]uint32{}, [2]uint32{}, true},
		{"squash_to_root", [3][2]uint32{{0, 0}, {0, 0}, {0, 0}}, [2]uint32{0, 0}, [2]uint32{0, 0}, false},
		{"squash_to_uid=7,squash_to_gid=8", [3][2]uint32{{7, 8}, {7, 8}, {7, 8}}, [2]uint32{7, 8}, [2]uint32{0, 0}, false},
		{"squash_to_uid=7", [3][2]uint32{{7, 0}, {7, 6}, {7, 70000}}, [2]uint32{7, 0}, [2]uint32{0, 0}, false},
	} {
		t.Run(tt.options, func(t *testing.T) {
			l := harness.NewLayers(t, tree)
			open(t, l)
			optioned(t, l, tt.options)
			for i, name := range []string{"a", "b", "c"} {
				wantOwner(t, filepath.Join(l.Mnt, name), tt.want[i][0], tt.want[i][1])
			}
			if err := makeAs(t, l.Mnt+"/d/new", 1005, 1006); tt.fails {
				if err == nil {
					t.Error("a user without a mapping made a file")
				}
				return
			} else if err != nil {
				t.Fatal(err)
			}
			wantOwner(t, l.Mnt+"/d/new", tt.new[0], tt.new[1])
			wantOwner(t, l.Upper+"/d/new", tt.stored[0], tt.stored[1])
			// A copy keeps the owner it had.
			patch(t, l.Mnt+"/b", 0, "X")
			wantOwner(t, l.Mnt+"/b", tt.want[1][0], tt.want[1][1])
		})
	}
}

func TestChownThroughMapping(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f a 1")
	optioned(t, l, "uidmapping=0:1000:100,gidmapping=0:1000:100")
	if err := os.Chown(l.Mnt+"/a", 1007, 1008); err != nil {
		t.Fatal(err)
	}
	wantOwner(t, l.Mnt+"/a", 1007, 1008)
	wantOwner(t, l.Upper+"/a", 7, 8)
	if err := os.Chown(l.Mnt+"/a", 3, -1); !isErrno(err, unix.EINVAL) {
		t.Errorf("to an id without a mapping: %v", err)
	}
}

// Owners and modes kept in an attribute, as fuse-overlayfs keeps them.
func TestXattrPermissions(t *testing.T) {
	harness.NeedRoot(t)
	for option, attr := range map[string]string{
		"xattr_permissions=1": "security.fuseoverlayfs.override_stat",
		"xattr_permissions=2": "user.containers.override_stat",
	} {
		t.Run(option, func(t *testing.T) {
			l := harness.NewLayers(t, "f a 1\nd d")
			optioned(t, l, option)
			for _, name := range []string{"a", "d", "n"} {
				path := filepath.Join(l.Mnt, name)
				if name == "n" {
					if err := os.WriteFile(path, nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.Chown(path, 5, 6); err != nil {
					t.Fatal(err)
				}
				if err := unix.Chmod(path, 0o4640); err != nil {
					t.Fatal(err)
				}
				wantOwner(t, path, 5, 6)
				var st unix.Stat_t
				if err := unix.Lstat(path, &st); err != nil || st.Mode&0o7777 != 0o4640 {
					t.Errorf("%s: mode %o, %v", name, st.Mode, err)
				}
				wantOwner(t, filepath.Join(l.Upper, name), 0, 0)
				buf := make([]byte, 100)
				n, err := unix.Lgetxattr(filepath.Join(l.Upper, name), attr, buf)
				if err != nil || !strings.HasPrefix(string(buf[:n]), "5:6:04640") {
					t.Errorf("%s: %s is %q, %v", name, attr, buf[:max(n, 0)], err)
				}
				if n, err := unix.Llistxattr(path, buf); err != nil || strings.Contains(string(buf[:max(n, 0)]), "override_stat") {
					t.Errorf("%s: the view shows %q, %v", name, buf[:max(n, 0)], err)
				}
			}
		})
	}
}

// What cannot have the attribute, a symbolic link or a fifo, has the owner itself; where that cannot be, it is
// the daemon's, and no error.
func TestXattrPermissionsOfLinks(t *testing.T) {
	const make = `ln -s x link; chown -h 5:6 link; mkfifo pipe; chown 5:6 pipe; chmod 640 pipe; chown -h 7 lower; : > file; chown 5:6 file; stat -c '%n %u:%g %a' file link lower pipe`
	t.Run("root", func(t *testing.T) {
		harness.NeedRoot(t)
		l := harness.NewLayers(t, "l lower x")
		optioned(t, l, "xattr_permissions=2")
		out, err := exec.Command("sh", "-ec", "cd "+l.Mnt+"; "+make).CombinedOutput()
		if want := "file 5:6 644\nlink 5:6 777\nlower 7:0 777\npipe 5:6 640\n"; err != nil || string(out) != want {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("user", func(t *testing.T) {
		l := harness.UserLayers(t, "l lower x")
		options := "xattr_permissions=2,lowerdir=" + l.Lowers[0] + ",upperdir=" + l.Upper + ",workdir=" + l.Work
		out := script(t, harness.AsUser(l.Root, "unshare", "-Ur", "-m", "sh"), harness.Binary()+" -o "+options+" mnt; cd mnt; "+
			strings.NewReplacer("5:6", "0:0", "-h 7", "-h 0").Replace(make)+"; cd ..; "+harness.Binary()+" umount mnt")
		if want := "file 0:0 644\nlink 0:0 777\nlower 0:0 777\npipe 0:0 640\n"; out != want {
			t.Errorf("%s", out)
		}
	})
}

// Layers whose roots say so keep owners and modes in an attribute; a copy in an upper that does not
// keeps them as files do.
func TestOverriddenLayers(t *testing.T) {
	harness.NeedRoot(t)
	for attr, want := range map[string]uint32{
		"security.fuseoverlayfs.override_stat": 5,
		"user.containers.override_stat":        0, // root of the machine believes no attribute that anybody may write
	} {
		l := harness.NewLayers(t, "f a 1\nd d\nx . "+attr+" 0:0:040755\nx a "+attr+" 5:6:0100750\nx d "+attr+" 5:6:01777:dir", "f b 2\nx b "+attr+" 5:6:0100750")
		optioned(t, l, "")
		group := map[uint32]uint32{5: 6, 0: 0}[want]
		for range 2 {
			wantOwner(t, l.Mnt+"/a", want, group)
			wantOwner(t, l.Mnt+"/d", want, group)
			wantOwner(t, l.Mnt+"/b", 0, 0)
			patch(t, l.Mnt+"/a", 0, "X") // again, from the upper
			if err := os.WriteFile(l.Mnt+"/d/new", nil, 0o644); err != nil {
				t.Error(err)
			}
		}
		wantOwner(t, l.Upper+"/a", want, group)
		wantOwner(t, l.Upper+"/d", want, group)
		wantOwner(t, l.Upper+"/d/new", 0, 0)
	}
}

// Empty files stand for devices, fifos and sockets where those cannot be made, or cannot have the attribute.
func TestOverriddenTypes(t *testing.T) {
	harness.NeedRoot(t)
	const user, privileged = "user.containers.override_stat", "security.fuseoverlayfs.override_stat"
	types := map[string]string{"null": "char-1-3", "null2": "char1:3", "disk": "block-259-7", "disk2": "block8:1", "pipe": "pipe",
		"socket": "socket", "file": "file", "white": "char-0-0"}
	want := map[string]string{"null": "c 1:3", "null2": "c 1:3", "disk": "b 259:7", "disk2": "b 8:1", "pipe": "p 0:0", "socket": "s 0:0",
		"file": "- 0:0", "white": "- 0:0", "full": "- 0:0"}
	stack := func(attr string) *harness.Layers {
		tree := "f full content\nx full " + attr + " 5:6:0640:char-1-3\nx . " + attr + " 0:0:0755:dir\n"
		for name, typ := range types {
			tree += "f " + name + " \nx " + name + " " + attr + " 5:6:0640:" + typ + "\n"
		}
		return harness.NewLayers(t, tree+"h again null\nd sub", "d sub\nf sub/b 1")
	}
	check := func(dir string, mode uint32) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		files := slices.DeleteFunc(entries, os.DirEntry.IsDir)
		if len(files) != len(want)+1 {
			t.Errorf("%d names, want %d", len(files), len(want)+1)
		}
		for _, e := range files {
			name := strings.Replace(e.Name(), "again", "null", 1)
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(dir, e.Name()), &st); err != nil {
				t.Error(err)
			}
			if got := fmt.Sprintf("%c %d:%d", typeLetter(st.Mode), unix.Major(st.Rdev), unix.Minor(st.Rdev)); got != want[name] {
				t.Errorf("%s is %s, want %s", e.Name(), got, want[name])
			}
			if listed := typeLetter(listedType(e)); listed != want[name][0] {
				t.Errorf("%s is listed as %c", e.Name(), listed)
			}
			if st.Mode&0o7777 != mode || st.Uid != 5 {
				t.Errorf("%s has mode %o, owner %d", e.Name(), st.Mode, st.Uid)
			}
		}
	}
	change := func(l *harness.Layers) {
		t.Helper()
		for name := range want {
			if err := unix.Chmod(filepath.Join(l.Mnt, name), 0o600); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := os.Chown(filepath.Join(l.Mnt, name), 5, 9); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := os.WriteFile(l.Mnt+"/null", []byte("gone"), 0); err != nil {
			t.Error(err)
		}
		if b, err := os.ReadFile(l.Mnt + "/null"); err != nil || len(b) > 0 {
			t.Errorf("what was written to a null device: %q, %v", b, err)
		}
		wantOwner(t, l.Mnt+"/again", 5, 9) // one file with two names
	}
	t.Run("kept in the upper", func(t *testing.T) {
		l := stack(user)
		optioned(t, l, "xattr_permissions=2")
		check(l.Mnt, 0o640)
		change(l)
		check(l.Mnt, 0o600)
		plyfs(t, "umount", l.Mnt)
		buf := make([]byte, 100)
		for name, typ := range types {
			n, err := unix.Lgetxattr(filepath.Join(l.Upper, name), user, buf)
			if got := string(buf[:max(n, 0)]); err != nil || got != "5:9:0600:"+typ {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		optioned(t, l, "xattr_permissions=2")
		check(l.Mnt, 0o600)
	})
	t.Run("as such in the upper", func(t *testing.T) {
		l := stack(privileged)
		optioned(t, l, "")
		check(l.Mnt, 0o640)
		change(l)
		plyfs(t, "umount", l.Mnt)
		check(l.Upper, 0o600)
	})
	t.Run("not believed", func(t *testing.T) {
		l := stack(user)
		optioned(t, l, "")
		if st, err := os.Lstat(l.Mnt + "/null"); err != nil || !st.Mode().IsRegular() {
			t.Errorf("%v, %v", st, err)
		}
	})
}

// typeLetter is the first letter of ls -l.
func typeLetter(mode uint32) byte { return "?pc?d?b?-?l?s???"[mode>>12&15] }

// listedType is the type of a listed name, as in a mode.
func listedType(e os.DirEntry) uint32 {
	switch typ := e.Type(); {
	case typ&os.ModeCharDevice != 0:
		return unix.S_IFCHR
	case typ&os.ModeDevice != 0:
		return unix.S_IFBLK
	case typ&os.ModeNamedPipe != 0:
		return unix.S_IFIFO
	case typ&os.ModeSocket != 0:
		return unix.S_IFSOCK
	}
	return unix.S_IFREG
}
