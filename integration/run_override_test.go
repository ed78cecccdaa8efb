package integration

import (
	"os/exec"
	"testing"

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
