package rootless

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// image writes app:v1: a busybox and files of several owners, in two layers.
func image(t *testing.T, path string) {
	t.Helper()
	bottom := imagetest.Busybox(t, "sh cat id ls stat chown sleep mkdir rm touch true")
	bottom = append(bottom, imagetest.Tree("d etc\nd dev\nd proc\nd sys\nd old\nf old/gone x\nd root")...)
	bottom = append(bottom, imagetest.Tree(`f etc/passwd root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/data:/bin/sh\n
f etc/group root:x:0:\napp:x:1001:\nextra:x:44:app\n
f etc/shadow secret
m etc/shadow 640
u etc/shadow 0 42
f bin/setuid x
u bin/setuid 1000 0
m bin/setuid 4755
c dev/zero 1 5
f etc/plain text`)...)
	top := imagetest.Tree(`o old
f old/new y
w etc/plain
d data
m data 750
u data 1000 1001
f data/list welcome\n
m data/list 640
u data/list 1000 1001
x data/list user.colour blue
h data/again data/list
d data/deep
u data/deep 2000 2000
f data/deep/file z
u data/deep/file 2000 65534`)
	imagetest.WriteLayoutTar(t, path, &imagetest.Image{Name: "app:v1", How: "gzip", Layers: [][]imagetest.Entry{bottom, top},
		Config: v1.Config{Cmd: []string{"cat", "/data/list"}, Volumes: map[string]struct{}{"/data": {}}, Env: []string{"PATH=/bin"}}})
}

// user is an ordinary user with the image in their store.
func user(t *testing.T) *harness.CLI {
	t.Helper()
	c := &harness.CLI{T: t, As: harness.NewAccount(t)}
	image(t, c.As.Home+"/app.tar")
	if out := c.Do("image", "load", "app.tar"); !strings.Contains(out, "dev/zero") {
		t.Errorf("loaded without a word of the device that was left out:\n%s", out)
	}
	return c
}

const ls = `stat -c '%n %u:%g %a %F %h' /bin/setuid /etc/shadow /old/* /data /data/* /data/deep/*`

const listed = `/bin/setuid 1000:0 4755 regular file 1
/etc/shadow 0:42 640 regular file 1
/old/new 0:0 644 regular file 1
/data 1000:1001 750 directory 3
/data/again 1000:1001 640 regular file 2
/data/deep 2000:2000 755 directory 2
/data/list 1000:1001 640 regular file 2
/data/deep/file 2000:65534 644 regular file 1
`

// Owners, modes, links and marks of the archive are in the view, and on the host they are
// subordinate ids.
func TestOwners(t *testing.T) {
	c := user(t)
	c.Want(listed, "run", "--rm", "--tmpfs", "/other", "app:v1", "sh", "-c", ls)
	c.Want("", "run", "--rm", "-v", "empty:/data:nocopy", "app:v1", "ls", "/data")
	c.Want("welcome\n", "run", "--rm", "app:v1")
	var st unix.Stat_t
	trees, err := os.ReadDir(c.As.Home + "/.local/share/plyfs/layers")
	if err != nil || len(trees) != 2 {
		t.Fatalf("%v, %v", trees, err)
	}
	for _, e := range trees {
		if unix.Lstat(c.As.Home+"/.local/share/plyfs/layers/"+e.Name()+"/tree/data/list", &st) == nil && st.Uid < 100000 {
			t.Errorf("on the host the file is of user %d", st.Uid)
		}
	}
	c.Fails("in use by", "volume", "rm", strings.TrimSpace(c.Do("run", "--name", "keeps", "app:v1", "sh", "-c", "exit 0") + c.Do("volume", "ls", "-q"))[6:])
	c.Do("rm", "-v", "keeps")
	c.Want("empty\n", "volume", "ls", "-q")
}

// A container of an ordinary user from creation to removal.
func TestLife(t *testing.T) {
	c := user(t)
	c.Want("one\n", "create", "--name", "one", "app:v1", "sh", "-c", "echo out; echo $(($(cat /n 2>/dev/null || echo 0) + 1)) > /n; trap 'exit 7' TERM; while :; do sleep 0.1; done")
	c.Do("start", "one")
	if out := c.Do("ps"); !strings.Contains(out, "one") || !strings.Contains(out, "running") {
		t.Errorf("ps: %s", out)
	}
	c.Want("0 0\n", "exec", "one", "sh", "-c", `echo "$(id -u) $(id -g)"`)
	c.Want("1000 1001 1001 44\n", "exec", "-u", "app", "one", "sh", "-c", `echo "$(id -u) $(id -g) $(id -G)"`)
	c.Ends(3, "exec", "one", "sh", "-c", "exit 3")
	c.Ends(127, "exec", "one", "nosuch")
	c.Do("exec", "one", "sh", "-c", "while ! test -s /n; do sleep 0.1; done; echo changed > /etc/passwd2; chown 5:6 /etc/passwd2; rm /bin/setuid")
	c.Fails("stop it first", "rm", "one")
	c.Do("stop", "one")
	if out := c.Do("ps", "-a"); !strings.Contains(out, "exited (7)") {
		t.Errorf("ps -a: %s", out)
	}
	c.Want("out\n", "logs", "one")
	c.Do("start", "one")
	c.Want("2\n5:6\n", "exec", "one", "sh", "-c", "while test $(cat /n) = 1; do sleep 0.1; done; cat /n; stat -c %u:%g /etc/passwd2; test ! -e /bin/setuid")
	c.Do("rm", "-f", "one")
	c.Want("", "ps", "-a", "-q")
	if left, _ := os.ReadDir(c.As.Home + "/.local/share/plyfs/containers"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestUsersAndReadOnly(t *testing.T) {
	c := user(t)
	c.Want("1000 1001 1001 44\n", "run", "--rm", "-u", "app", "app:v1", "sh", "-c", `echo "$(id -u) $(id -g) $(id -G)"`)
	c.Want("welcome\n", "run", "--rm", "-u", "1000:1001", "app:v1", "cat", "/data/list")
	c.Ends(1, "run", "--rm", "-u", "3000", "app:v1", "cat", "/data/list")
	c.Ends(125, "run", "--rm", "-u", "nosuch", "app:v1", "true")
	c.Ends(0, "run", "--rm", "--read-only", "--tmpfs", "/run:mode=1777", "-u", "app", "app:v1", "sh", "-c",
		"! touch /data/../x 2>/dev/null && touch /run/x /data/x && test -u /bin/setuid")
	c.Ends(0, "run", "--rm", "-w", "/made/here", "-e", "A=b c", "app:v1", "sh", "-c", `test "$PWD $A $HOME" = "/made/here b c /root"`)
}

// A bind of the user's own directory shows as root's, and what root makes in it is the user's.
func TestBinds(t *testing.T) {
	c := user(t)
	conf := c.As.Home + "/conf"
	c.Want("", "run", "--rm", "-v", conf+":/conf", "app:v1", "ls", "/conf") // made for -v
	if err := os.WriteFile(conf+"/a", []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(conf+"/a", int(c.As.ID), int(c.As.ID)); err != nil {
		t.Fatal(err)
	}
	c.Want("from the host\n0:0\n", "run", "--rm", "-v", conf+":/conf", "app:v1", "sh", "-c", "cat /conf/a; stat -c %u:%g /conf/a; echo inside > /conf/b")
	var st unix.Stat_t
	if err := unix.Stat(conf+"/b", &st); err != nil || st.Uid != c.As.ID {
		t.Errorf("made inside: user %d, %v", st.Uid, err)
	}
	c.Ends(1, "run", "--rm", "-v", conf+":/conf:ro", "app:v1", "touch", "/conf/c")
	c.Want("from the host\n", "run", "--rm", "-v", "./conf/a:/etc/passwd:ro", "app:v1", "cat", "/etc/passwd")
	// What the user may not read on the host, root of their containers may not either.
	secret := harness.Dir(t)
	c.Ends(1, "run", "--rm", "-v", secret+":/secret", "app:v1", "ls", "/secret")
}

func TestVolumes(t *testing.T) {
	c := user(t)
	c.Do("run", "--name", "one", "-v", "todo:/data", "-v", "more:/more", "-u", "app", "app:v1", "sh", "-c", "echo milk >> /data/list")
	c.Want("welcome\nmilk\n", "run", "--rm", "--volumes-from", "one:ro", "app:v1")
	c.Ends(1, "run", "--rm", "--volumes-from", "one:ro", "app:v1", "touch", "/more/x")
	c.Want(listed, "run", "--rm", "--volumes-from", "one", "app:v1", "sh", "-c", ls)
	c.Do("rm", "one")
	c.Want("welcome\nmilk\n", "run", "--rm", "-v", "todo:/data", "app:v1")
	c.Want("more\ntodo\n", "volume", "ls", "-q")
	c.Do("volume", "rm", "more", "todo")
	// What a mark of the image hides does not come into a volume.
	c.Want("new\n", "run", "--rm", "-v", "old:/old", "app:v1", "ls", "/old")
	c.Do("volume", "rm", "old")
}

// In a user namespace, as Podman has a rootless image mounted, a view without an upper finds the marks
// where a user's are.
func TestMarksOfReadOnlyView(t *testing.T) {
	c := &harness.CLI{T: t, As: harness.NewAccount(t)}
	if out, err := c.As.Command("sh", "-ec", "mkdir -p top/d low/d view; touch top/d/new low/d/hidden").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := unix.Setxattr(c.As.Home+"/top/d", "user.overlay.opaque", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	cmd := c.As.Command("unshare", "-Urm", "sh", "-ec", `"$1" -o lowerdir=top:low view; ls view/d; "$1" umount view`, "sh", harness.Binary())
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "new\n" {
		t.Errorf("%v, %q", err, out)
	}
}

// Changes of a container, as an image elsewhere: in root's store they have the owners they had.
func TestCommitAndSave(t *testing.T) {
	c := user(t)
	const change = "chown 1000:1001 /etc/passwd; rm -r /old; mkdir -p /srv/x; echo new > /srv/x/f; chown 33:34 /srv/x/f; touch /etc/plain"
	c.Do("run", "--name", "one", "app:v1", "sh", "-c", change)
	c.Do("commit", "one", "app:v2")
	c.Do("create", "--name", "two", "app:v2", "sleep", "1000")
	c.Do("start", "two")
	c.Do("exec", "two", "sh", "-c", "echo running > /srv/x/g")
	c.Do("commit", "two", "app:v3")
	c.Do("rm", "-f", "two")
	const look = "cat /srv/x/*; stat -c '%n %u:%g %a' /etc/passwd /srv/x/* /etc/plain /etc/shadow /data/list; ls -d /old"
	want, _ := c.Command("run", "--rm", "app:v3", "sh", "-c", look).Output()
	if !strings.Contains(string(want), "new\nrunning\n") || !strings.Contains(string(want), "/srv/x/f 33:34") || strings.Contains(string(want), "old") {
		t.Errorf("committed: %s", want)
	}
	c.Do("image", "save", "-o", "out.tar", "app:v3")
	root := &harness.CLI{T: t, Root: harness.Dir(t) + "/store"}
	root.Do("image", "load", c.As.Home+"/out.tar")
	if got, _ := root.Command("run", "--rm", "app:v3", "sh", "-c", look).Output(); string(got) != string(want) {
		t.Errorf("in root's store %s\nin the user's %s", got, want)
	}
	c.Do("rm", "one")
	c.Do("image", "rm", "app:v1", "app:v2", "app:v3")
	if left, _ := os.ReadDir(c.As.Home + "/.local/share/plyfs/layers"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestAnotherRuntime(t *testing.T) {
	harness.NeedTool(t, "crun")
	_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH) // crun does not start with both generations of cgroups
	c := user(t)
	c.Want("welcome\n1000\n", "run", "--rm", "--runtime", "crun", "-u", "app", "app:v1", "sh", "-c", "cat /data/list; id -u")
	c.Ends(42, "run", "--rm", "--runtime", "crun", "app:v1", "sh", "-c", "exit 42")
	c.Do("run", "-d", "--name", "one", "--runtime", "crun", "app:v1", "sleep", "1000")
	c.Want("root\n", "exec", "one", "id", "-un")
	c.Do("stop", "-t", "1", "one")
	c.Do("rm", "one")
}

// Without subordinate ids everything is the user's, and shows as root's.
func TestOneIDOnly(t *testing.T) {
	c := &harness.CLI{T: t, As: harness.NewAccount(t)}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		if err := exec.Command("sed", "-i", "/^"+c.As.Name+":/d", file).Run(); err != nil {
			t.Fatal(err)
		}
	}
	image(t, c.As.Home+"/app.tar")
	if out := c.Do("image", "load", "app.tar"); !strings.Contains(out, "owners other than 0:0 are left out") {
		t.Errorf("loaded without a word of the owners:\n%s", out)
	}
	c.Want("0:0 0:0\nwelcome\n", "run", "--rm", "app:v1", "sh", "-c", "echo $(stat -c %u:%g /data /etc/shadow); cat /data/list")
	c.Fails("/etc/subuid", "run", "--rm", "-u", "app", "app:v1", "true")
}

// What is done before the command is in its namespace does not depend on how far that has come: whose store it is, for one.
func TestLooksAtTheUsersStore(t *testing.T) {
	c := user(t)
	c.Do("create", "--name", "one", "app:v1")
	for range 20 {
		c.Want("", "diff", "one")
	}
}
