package user

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

const userTree = "f a 1\nf gone 2\nd dir/sub\nf dir/f 3\nh link a\nF big 1M\nx a user.colour blue"

// What a mount of an ordinary user is used for.
const userWork = `
cd mnt
[ "$(cat a)" = 1 ]
echo changed > a
[ "$(cat link)" = changed ]
rm gone
! test -e gone
mv dir moved
[ "$(ls moved)" = "f
sub" ]
mkdir dir
echo x | dd of=big bs=1 seek=70000 conv=notrunc status=none
umask 077; echo secret > private
chmod 400 private; cat private > /dev/null
ln a another
mkfifo pipe
rm -r moved/sub
cd ..
`

func TestOrdinaryUser(t *testing.T) {
	l := harness.UserLayers(t, userTree)
	before := harness.Dump(t, l.Lowers[0], true)
	for i, end := range [][]string{
		{harness.Binary(), "umount", l.Mnt},
		{"fusermount3", "-u", l.Mnt},
		{"umount", l.Mnt},
	} {
		if out, err := asUser(t, l, "mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", l.Work, l.Mnt); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b, err := os.ReadFile("/proc/self/mounts")
		if err != nil || !strings.Contains(string(b), l.Mnt+" fuse.plyfs rw,nosuid,nodev,") {
			t.Errorf("mounted as\n%s", b)
		}
		if i == 0 {
			script(t, harness.AsUser(l.Root, "sh"), userWork)
			// Nobody else gets in, root included.
			if _, err := os.ReadDir(l.Mnt); harness.Root() && !errors.Is(err, unix.EACCES) {
				t.Errorf("root reads the mount: %v", err)
			}
		} else {
			script(t, harness.AsUser(l.Root, "sh"), `cd mnt; [ "$(cat link)" = changed ]; [ "$(ls)" = "a
another
big
dir
link
moved
pipe
private" ]; ls moved; [ "$(ls moved)" = f ]`)
		}
		if out, err := harness.AsUser(l.Root, end[0], end[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", end, err, out)
		}
		if mounted(t, l.Mnt) {
			t.Fatal("still mounted")
		}
		waitFor(t, "the upper to be free", func() bool { return len(harness.Processes(l.Mnt)) == 0 })
	}
	if diff := cmp.Diff(before, harness.Dump(t, l.Lowers[0], true)); diff != "" {
		t.Errorf("the lower changed:\n%s", diff)
	}
	want := harness.Bytes(1 << 20)
	copy(want[70000:], "x\n")
	if b, err := os.ReadFile(l.Upper + "/big"); err != nil || string(b) != string(want) {
		t.Errorf("the upper's file is not complete: %v", err)
	}
}

// What an ordinary user may not do gets one line.
func TestOrdinaryUserErrors(t *testing.T) {
	l := harness.UserLayers(t, "f a 1")
	others := "/root"
	if harness.Root() {
		others = harness.Dir(t)
	} else if _, err := os.ReadDir(others); err == nil {
		t.Skip("everybody may read /root here")
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"mount", "--lower", l.Lowers[0], others}, "permission denied"},
		{[]string{"mount", "--lower", others, l.Mnt}, "permission denied"},
		{[]string{"mount", "--lower", l.Lowers[0], "--allow-other", l.Mnt}, "user_allow_other"},
		{[]string{"mount", "--lower", l.Lowers[0], "--upper", "/usr", "--work", "/var", l.Mnt}, "not writable"},
		{[]string{"mount", "--lower", l.Lowers[0], "/mnt"}, "mount"},
		{[]string{"umount", "/proc"}, "no plyfs is mounted there"},
	} {
		out, err := asUser(t, l, tt.args...)
		if harness.ExitCode(err) != 1 || strings.Count(out, "\n") != 1 || !strings.Contains(strings.ToLower(out), tt.want) {
			t.Errorf("%q: %v, %q", tt.args, err, out)
		}
		if mounted(t, l.Mnt) {
			t.Fatal("mounted")
		}
	}
	if got := names(t, l.Work) + names(t, l.Upper); got != "" {
		t.Errorf("left behind: %q", got)
	}
}

// A daemon of an ordinary user that died is recognised and replaced by him, too.
func TestOrdinaryUserDeadMount(t *testing.T) {
	l := harness.UserLayers(t, "f a 1")
	args := []string{"mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", l.Work, l.Mnt}
	if out, err := asUser(t, l, args...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, pid := range harness.Processes(l.Mnt) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	waitFor(t, "the end of the daemon", func() bool { return len(harness.Processes(l.Mnt)) == 0 })
	out, err := asUser(t, l, args...)
	if err != nil || !strings.Contains(out, "died") {
		t.Fatalf("%v: %s", err, out)
	}
	script(t, harness.AsUser(l.Root, "sh"), `[ "$(cat mnt/a)" = 1 ]`)
	if out, err := asUser(t, l, "umount", l.Mnt); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// Root of a user namespace mounts directly, without fusermount3, and keeps its marks in user. attributes:
// what it leaves mounts in the kernel with userxattr, in such a namespace too.
func TestUserNamespace(t *testing.T) {
	l := harness.UserLayers(t, userTree)
	sh := func(lines string) string {
		t.Helper()
		cmd := harness.AsUser(l.Root, "unshare", "-Ur", "-m", "sh")
		cmd.Env = append(os.Environ(), "PLYFS="+harness.Binary(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
		return script(t, cmd, lines)
	}
	sh(`fusermount3() { exit 9; }
$PLYFS mount --lower lower1 --upper upper --work work mnt
grep -q "mnt fuse.plyfs rw,relatime,user_id=0,group_id=0" /proc/mounts
` + userWork + `
chown 0:0 mnt/a
$PLYFS umount mnt`)
	for _, marks := range []struct{ path, attr string }{
		{"a", "user.overlay.origin"}, {"moved", "user.overlay.opaque"}, {"big", "user.overlay.origin"},
	} {
		if _, err := unix.Lgetxattr(filepath.Join(l.Upper, marks.path), marks.attr, nil); err != nil {
			t.Errorf("%s: %s: %v", marks.path, marks.attr, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(l.Upper+"/gone", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("no whiteout: %o, %v", st.Mode, err)
	}
	const list = `cd mnt; find . ! -name . -printf '%p %y %m %s %n\n' | sort; cat a link another private; md5sum big`
	ours := sh(`$PLYFS mount --lower lower1 --upper upper --work work mnt; [ "$(ls mnt/moved)" = f ]; ` + list + `; cd ..; $PLYFS umount mnt`)
	kernels := sh(`mount -t overlay o -o userxattr,lowerdir=lower1,upperdir=upper,workdir=work mnt; ` + list)
	if diff := cmp.Diff(ours, kernels); diff != "" {
		t.Errorf("plyfs (-), kernel (+):\n%s", diff)
	}
}
