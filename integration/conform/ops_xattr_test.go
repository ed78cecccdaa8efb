package conform

import (
	"bytes"
	"os"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// listXattrs returns the names of all attributes, sorted.
func listXattrs(t *testing.T, path string) string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatalf("%s: listxattr: %v", path, err)
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	sort.Strings(names)
	return strings.Join(names, " ")
}

func getXattr(path, name string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(path, name, buf)
	return string(buf[:max(n, 0)]), err
}

var xattrTree = []string{"f file text\nd dir\nF big 1M\nf both/x 1", "f both/y 1\np fifo\nl link file\nl broken /nowhere/at/all"}

func TestXattr(t *testing.T) {
	harness.NeedRoot(t) // for trusted attributes
	everywhere(t, xattrTree, func(t *testing.T, v *view) {
		must(t, os.WriteFile(v.path("new"), []byte("text"), 0o644))
		for _, name := range []string{"file", "dir", "big", "both", "new", "."} {
			p := v.path(name)
			want := func(attr, val string) {
				t.Helper()
				if got, err := getXattr(p, attr); err != nil || got != val {
					t.Errorf("%s: %s is %q, %v; want %q", name, attr, got, err, val)
				}
			}
			const create, replace = unix.XATTR_CREATE, unix.XATTR_REPLACE
			_, err := getXattr(p, "user.a")
			wants(t, "get of none", err, unix.ENODATA)
			wants(t, "remove of none", unix.Lremovexattr(p, "user.a"), unix.ENODATA)
			wants(t, "replace of none", unix.Lsetxattr(p, "user.a", []byte("1"), replace), unix.ENODATA)
			wants(t, "create", unix.Lsetxattr(p, "user.a", []byte("1"), create), 0)
			wants(t, "create again", unix.Lsetxattr(p, "user.a", []byte("2"), create), unix.EEXIST)
			want("user.a", "1")
			wants(t, "replace", unix.Lsetxattr(p, "user.a", []byte("three"), replace), 0)
			want("user.a", "three")
			wants(t, "flags", unix.Lsetxattr(p, "user.a", nil, 4), unix.EINVAL)
			wants(t, "both flags", unix.Lsetxattr(p, "user.a", nil, create|replace), unix.EEXIST)

			// The size, with no room and with too little.
			n, err := unix.Lgetxattr(p, "user.a", nil)
			if n != 5 || err != nil {
				t.Errorf("%s: size %d, %v; want 5", name, n, err)
			}
			_, err = unix.Lgetxattr(p, "user.a", make([]byte, 4))
			wants(t, "too little room", err, unix.ERANGE)
			n, err = unix.Lgetxattr(p, "user.a", make([]byte, 5))
			if n != 5 || err != nil {
				t.Errorf("%s: just enough room: %d, %v", name, n, err)
			}

			for _, attr := range []string{"user.b", "trusted.c", "security.d"} {
				must(t, unix.Lsetxattr(p, attr, []byte(attr), 0))
				want(attr, attr)
			}
			must(t, unix.Lsetxattr(p, "user.empty", nil, 0))
			want("user.empty", "")
			long := strings.Repeat("v", 2000)
			must(t, unix.Lsetxattr(p, "user.long", []byte(long), 0))
			want("user.long", long)
			const all = "security.d trusted.c user.a user.b user.empty user.long"
			if got := listXattrs(t, p); got != all {
				t.Errorf("%s has %s\nwant %s", name, got, all)
			}
			n, err = unix.Llistxattr(p, nil)
			if n != len(all)+1 && v.kind != "kernel" || err != nil { // which counts its own too
				t.Errorf("%s: the list has %d bytes, %v; want %d", name, n, err, len(all)+1)
			}
			_, err = unix.Llistxattr(p, make([]byte, n-1))
			wants(t, "too little room for the list", err, unix.ERANGE)

			wants(t, "a name of 255 bytes", unix.Lsetxattr(p, "user."+strings.Repeat("n", 250), []byte("1"), 0), 0)
			wants(t, "and away", unix.Lremovexattr(p, "user."+strings.Repeat("n", 250)), 0)
			wants(t, "a name of 256 bytes", unix.Lsetxattr(p, "user."+strings.Repeat("n", 251), []byte("1"), 0), unix.ERANGE)
			wants(t, "too large", unix.Lsetxattr(p, "user.large", make([]byte, 64<<10+1), 0), unix.E2BIG)
			wants(t, "no namespace", unix.Lsetxattr(p, "colour", []byte("1"), 0), unix.EOPNOTSUPP)
			wants(t, "no such namespace", unix.Lsetxattr(p, "elsewhere.colour", []byte("1"), 0), unix.EOPNOTSUPP)
			wants(t, "no name in it", unix.Lsetxattr(p, "user.", []byte("1"), 0), unix.EINVAL)
			must(t, unix.Lremovexattr(p, "user.b"), unix.Lremovexattr(p, "trusted.c"))
			_, err = getXattr(p, "user.b")
			wants(t, "removed", err, unix.ENODATA)
		}
		for range 2 {
			for _, name := range []string{"file", "dir", "big", "both", "new"} {
				if got := listXattrs(t, v.path(name)); got != "security.d user.a user.empty user.long" {
					t.Errorf("%s has %s", name, got)
				}
			}
			if content(t, v.path("file")) != "text" || stat(t, v.path("big")).Size != 1<<20 {
				t.Error("the contents changed")
			}
			v.renew(t)
		}
		must(t, os.Rename(v.path("both"), v.path("moved")))
		if got, err := getXattr(v.path("moved"), "user.a"); got != "three" {
			t.Errorf("after a rename: %q, %v", got, err)
		}
	})
}

// TestXattrRights: what others may see and set.
func TestXattrRights(t *testing.T) {
	harness.NeedRoot(t) // for trusted attributes
	everywhere(t, xattrTree, func(t *testing.T, v *view) {
		must(t, unix.Setxattr(v.path("file"), "trusted.t", []byte("1"), 0), unix.Setxattr(v.path("file"), "user.u", []byte("1"), 0),
			unix.Setxattr(v.path("file"), "security.s", []byte("1"), 0), os.WriteFile(v.path("mine"), []byte("x"), 0o600),
			unix.Chown(v.path("mine"), 1000, 1000))
		v.sink(t)
		asUser(1000, 1000, nil, func() {
			p := v.path("file")
			_, err := getXattr(p, "trusted.t")
			wants(t, "trusted of another", err, unix.ENODATA)
			if got := listXattrs(t, p); got != "security.s user.u" {
				t.Errorf("a user sees %s", got)
			}
			got, err := getXattr(p, "user.u")
			if got != "1" || err != nil {
				t.Errorf("user.u is %q, %v", got, err)
			}
			wants(t, "set on another's file", unix.Setxattr(p, "user.u", []byte("2"), 0), unix.EACCES)
			wants(t, "set trusted", unix.Setxattr(v.path("mine"), "trusted.t", []byte("2"), 0), unix.EPERM)
			wants(t, "set security", unix.Setxattr(v.path("mine"), "security.s", []byte("2"), 0), unix.EPERM)
			wants(t, "set on the own", unix.Setxattr(v.path("mine"), "user.u", []byte("2"), 0), 0)
		})
		// The owner cannot read what it has no mode bit for, root can.
		must(t, unix.Chmod(v.path("mine"), 0))
		asUser(1000, 1000, nil, func() {
			_, err := getXattr(v.path("mine"), "user.u")
			wants(t, "without the right to read", err, unix.EACCES)
		})
		if got, err := getXattr(v.path("mine"), "user.u"); got != "2" {
			t.Errorf("root reads %q, %v", got, err)
		}
	})
}

// TestXattrOfLink: attributes of a symbolic link are its own, and never those of what it points to: with
// the rights of the daemon that would be a way out of the mount.
func TestXattrOfLink(t *testing.T) {
	harness.NeedRoot(t) // for trusted attributes
	everywhere(t, xattrTree, func(t *testing.T, v *view) {
		outside := harness.Dir(t) + "/outside"
		must(t, os.WriteFile(outside, []byte("x"), 0o644), os.Symlink(outside, v.path("lowlink")), os.Symlink(outside, v.path("lowlink2")))
		v.sink(t)
		must(t, os.Symlink(outside, v.path("uplink")))
		// For the daemon the same path may be another file: the host's.
		for _, name := range []string{"link", "broken", "lowlink", "uplink"} {
			p := v.path(name)
			for _, attr := range []string{"trusted.mark", "security.mark"} {
				wants(t, name+": set "+attr, unix.Lsetxattr(p, attr, []byte("of the link"), 0), 0)
				if got, err := getXattr(p, attr); got != "of the link" || err != nil {
					t.Errorf("%s: %s is %q, %v", name, attr, got, err)
				}
			}
			wants(t, name+": user attributes of links do not exist", unix.Lsetxattr(p, "user.mark", []byte("x"), 0), unix.EPERM)
			wants(t, name+": nor access lists", setACL(p, "access", "u::rw- g::r-- o::r--"), unix.EOPNOTSUPP)
			if got := listXattrs(t, p); got != "security.mark trusted.mark" {
				t.Errorf("%s has %q", name, got)
			}
			must(t, unix.Lremovexattr(p, "trusted.mark"))
		}
		must(t, unix.Lchown(v.path("lowlink2"), 5, 6), unix.UtimesNanoAt(unix.AT_FDCWD, v.path("lowlink2"), []unix.Timespec{{Sec: 7}, {Sec: 8}}, unix.AT_SYMLINK_NOFOLLOW))
		if st := stat(t, outside); listXattrs(t, outside) != "" || st.Uid != 0 || st.Mtim.Sec == 8 {
			t.Errorf("outside: %q %+v", listXattrs(t, outside), st)
		}
		if got := listXattrs(t, v.path("file")); got != "" {
			t.Errorf("the target of a link has %q", got)
		}
		// By way of the link it is the target's.
		must(t, unix.Setxattr(v.path("link"), "user.through", []byte("1"), 0))
		if got := listXattrs(t, v.path("file")); got != "user.through" {
			t.Errorf("the target of a link has %q", got)
		}
		v.renew(t)
		if got := listXattrs(t, v.path("lowlink")); got != "security.mark" {
			t.Errorf("after a remount the link has %q", got)
		}
	})
}

// TestXattrOfUnions: a union can be built on this one: its marks are kept apart from ours.
func TestXattrOfUnions(t *testing.T) {
	harness.NeedRoot(t) // for trusted attributes
	everywhere(t, xattrTree, func(t *testing.T, v *view) {
		for _, name := range []string{"file", "dir"} {
			must(t, unix.Setxattr(v.path(name), "trusted.overlay.opaque", []byte("y"), 0))
		}
		for range 2 {
			for _, name := range []string{"file", "dir"} {
				if got, err := getXattr(v.path(name), "trusted.overlay.opaque"); got != "y" || listXattrs(t, v.path(name)) != "trusted.overlay.opaque" {
					t.Errorf("%s: %q, %v; lists %s", name, got, err, listXattrs(t, v.path(name)))
				}
			}
			v.renew(t)
		}
		must(t, unix.Removexattr(v.path("dir"), "trusted.overlay.opaque"))
		_, err := getXattr(v.path("dir"), "trusted.overlay.opaque")
		wants(t, "removed", err, unix.ENODATA)
	})
}

// TestXattrOfUnionsTooLong: a name that is too long once it is escaped is none that is supported.
func TestXattrOfUnionsTooLong(t *testing.T) {
	harness.NeedRoot(t) // for trusted attributes
	everywhere(t, xattrTree, func(t *testing.T, v *view) {
		if v.kind == "plain" {
			return
		}
		const prefix, escape = "trusted.overlay.", "overlay."
		for _, name := range []string{"file", "dir"} {
			path := v.path(name)
			fits := prefix + strings.Repeat("x", 255-len(prefix)-len(escape))
			must(t, unix.Setxattr(path, fits, []byte("y"), 0))
			if got, err := getXattr(path, fits); got != "y" {
				t.Errorf("%q, %v", got, err)
			}
			must(t, unix.Removexattr(path, fits))
			for _, long := range []string{fits + "x", prefix + strings.Repeat("x", 255-len(prefix))} {
				_, err := getXattr(path, long)
				wants(t, "get", err, unix.EOPNOTSUPP)
				wants(t, "set", unix.Setxattr(path, long, []byte("y"), 0), unix.EOPNOTSUPP)
				wants(t, "remove", unix.Removexattr(path, long), unix.EOPNOTSUPP)
			}
		}
	})
}

// TestCapabilityCopiedUp: a program's capabilities come along with a copy-up that leaves the contents alone.
func TestCapabilityCopiedUp(t *testing.T) {
	everywhere(t, xattrTree, func(t *testing.T, v *view) {
		must(t, unix.Setxattr(v.path("file"), "security.capability", netRaw, 0))
		v.sink(t)
		must(t, unix.Chmod(v.path("file"), 0o755), os.Rename(v.path("file"), v.path("dir/file")))
		got, err := getXattr(v.path("dir/file"), "security.capability")
		if err != nil || !bytes.Equal([]byte(got), netRaw) {
			t.Errorf("%x, %v", got, err)
		}
	})
}
