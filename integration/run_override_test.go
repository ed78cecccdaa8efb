package integration

import (
	"bytes"
	"encoding/binary"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// What the kernel does with owners and modes by itself happens to those in an attribute, too: chown(2)
// takes set-id bits away, and what is made in a set-group-id directory has its group.
func TestXattrPermissionsFollowTheRules(t *testing.T) {
	harness.NeedRoot(t)
	const tree = "d g\nu g 0 6\nm g 2777\nd plain\nm plain 777\nf suid 1\nm suid 6755\nf sgid 1\nm sgid 2745\nd d\nm d 6755"
	const script = `chown 5:6 suid; chgrp 6 sgid; chown 5:6 d; mkdir plain/g; chgrp 7 plain/g; chmod 2777 plain/g
		setpriv --reuid 5 --regid 5 --clear-groups sh -ec 'for d in g plain plain/g; do touch $d/f; mkdir $d/d; ln -s x $d/l; mkfifo $d/p; done'
		stat -c '%n %u:%g %a' suid sgid d g g/* plain plain/* plain/g/*`
	run := func(l *harness.Layers) string {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = l.Mnt
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	stack := func() *harness.Layers {
		l := harness.NewLayers(t, tree)
		open(t, l)
		return l
	}
	k := stack()
	m := k.Kernel(t)
	want := run(k)
	m.Close(t)
	for _, option := range []string{"", "xattr_permissions=1", "xattr_permissions=2"} {
		l := stack()
		optioned(t, l, option)
		if got := run(l); got != want {
			t.Errorf("%q\n%s\nthe kernel's overlayfs has\n%s", option, got, want)
		}
	}
}

// A mapping is between the view and what is stored, in an attribute as well as in files.
func TestMappedOwnersInAttributes(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f a 1\nd d\nm d 777")
	open(t, l)
	optioned(t, l, "xattr_permissions=2,uidmapping=0:1000:100,gidmapping=0:1000:100")
	cmd := exec.Command("sh", "-ec", `chown 1005:1006 a; ! chown 5 a
		setpriv --reuid 1007 --regid 1008 --clear-groups touch d/new
		! setpriv --reuid 7 --regid 8 --clear-groups touch d/stranger
		stat -c '%n %u:%g' a d/*; getfattr -n user.containers.override_stat --only-values ../upper/a ../upper/d/new`)
	cmd.Dir = l.Mnt
	out, err := cmd.Output()
	if want := "a 1005:1006\nd/new 1007:1008\n5:6:0644" + "7:8:0644"; err != nil || string(out) != want {
		t.Errorf("%v: %s", err, out)
	}
}

// A mapping is for access lists as for owners.
func TestMappedAccessLists(t *testing.T) {
	harness.NeedRoot(t)
	list := func(uid, gid uint32) []byte { return accessList(uid, gid, 4, 0) }
	l := harness.NewLayers(t, "f secret 1\nf partly 2\nf new 3\nd d")
	open(t, l)
	const attr = "system.posix_acl_access"
	set := func(path, attr string, list []byte) error { return unix.Setxattr(path, attr, list, 0) }
	want := func(path, attr string, list []byte) {
		t.Helper()
		buf := make([]byte, 100)
		size, err := unix.Getxattr(path, attr, nil)
		n, err2 := unix.Getxattr(path, attr, buf)
		if err != nil || err2 != nil || size != n || !bytes.Equal(buf[:n], list) {
			t.Errorf("%s: %v, %v, size %d\n%v, want\n%v", path, err, err2, size, buf[:max(n, 0)], list)
		}
	}
	for _, err := range []error{set(l.Lowers[0]+"/secret", attr, list(5, 6)), set(l.Lowers[0]+"/partly", attr, list(5, 70000))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	optioned(t, l, "uidmapping=0:1000:100,gidmapping=0:1000:100")
	want(l.Mnt+"/secret", attr, list(1005, 1006))
	want(l.Mnt+"/partly", attr, slices.Delete(list(1005, 0), 28, 36)) // nobody in the view is group 70000
	for _, tt := range []struct {
		uid, gid uint32
		file     string
		may      bool
	}{{1005, 1099, "secret", true}, {1099, 1006, "secret", true}, {5, 6, "secret", false}, {1005, 1099, "partly", true}, {70000, 70000, "partly", false}} {
		cmd := exec.Command("cat", filepath.Join(l.Mnt, tt.file))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.gid}}
		if err := cmd.Run(); (err == nil) != tt.may {
			t.Errorf("%d:%d reads %s: %v", tt.uid, tt.gid, tt.file, err)
		}
	}
	if err := set(l.Mnt+"/new", attr, list(1007, 1008)); err != nil {
		t.Error(err)
	}
	want(l.Upper+"/new", attr, list(7, 8))
	if err := set(l.Mnt+"/new", attr, list(7, 8)); err != unix.EINVAL {
		t.Errorf("a list with ids that have no mapping: %v", err)
	}
	const inherited = "system.posix_acl_default"
	if err := set(l.Mnt+"/d", inherited, list(1007, 1008)); err != nil {
		t.Error(err)
	}
	if err := makeAs(t, l.Mnt+"/d/f", 1000, 1000); err != nil {
		t.Error(err)
	}
	want(l.Mnt+"/d/f", attr, list(1007, 1008))
	want(l.Upper+"/d/f", attr, list(7, 8))
	want(l.Upper+"/d", inherited, list(7, 8))
	patch(t, l.Mnt+"/secret", 0, "X")
	want(l.Upper+"/secret", attr, list(5, 6))
}

// accessList is one as an attribute: the owner may read and write, uid and gid read, as far as the mask lets them.
func accessList(uid, gid uint32, mask, others uint16) []byte {
	b := []byte{2, 0, 0, 0}
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, 4, uid}, {4, 0, ^uint32(0)}, {8, 4, gid}, {0x10, mask, ^uint32(0)}, {0x20, others, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// A mode in an attribute and an access list of the file itself are kept in step, as those of a file are.
func TestAccessListAndModeInAttribute(t *testing.T) {
	harness.NeedRoot(t)
	const attr = "system.posix_acl_access"
	for _, option := range []string{"", "xattr_permissions=1", "xattr_permissions=2"} {
		l := harness.NewLayers(t, "f a 1\nd d")
		optioned(t, l, option)
		for _, name := range []string{"a", "d"} {
			path := filepath.Join(l.Mnt, name)
			mode := func(want uint32) {
				t.Helper()
				var st unix.Stat_t
				if err := unix.Lstat(path, &st); err != nil || st.Mode&0o7777 != want {
					t.Errorf("%q: %s has mode %o, want %o, %v", option, name, st.Mode&0o7777, want, err)
				}
			}
			if err := unix.Setxattr(path, attr, accessList(5, 6, 7, 1), 0); err != nil {
				t.Fatal(err)
			}
			mode(0o671)
			if err := unix.Chmod(path, 0o640); err != nil {
				t.Fatal(err)
			}
			mode(0o640)
			buf := make([]byte, 100)
			n, err := unix.Lgetxattr(path, attr, buf)
			if want := accessList(5, 6, 4, 0); err != nil || !bytes.Equal(buf[:n], want) {
				t.Errorf("%q: %s has\n%v, want\n%v, %v", option, name, buf[:max(n, 0)], want, err)
			}
			if err := unix.Setxattr(path, attr, accessList(5, 6, 7, 1)[:12], 0); err == nil { // the owner alone is no list
				t.Error("a list without others was taken")
			}
			mode(0o640)
		}
	}
}
