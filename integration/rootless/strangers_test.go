package rootless

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// A directory of root's that an ordinary user loads is root's in the image, and a message says so: the user's namespace has
// no id for the host's root, and the kernel shows it as nobody. What nobody has stays nobody's.
func TestLoadOfWhatRootMade(t *testing.T) {
	c := &harness.CLI{T: t, As: harness.NewAccount(t)}
	dir := c.As.Home + "/app"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "-x", "-C", dir)
	cmd.Stdin = bytes.NewReader(imagetest.Tar(append(imagetest.Busybox(t, "sh stat"),
		imagetest.Tree("d etc\nf etc/roots x\nl etc/link roots\nd etc/other\nf etc/other/theirs x\nf etc/mine x\nf etc/nobodys x")...)))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	nobody := firstSubordinate(t, c.As.Name) + 65533
	for name, id := range map[string]int{"etc/other": 1, "etc/other/theirs": 1, "etc/mine": int(c.As.ID), "etc/nobodys": nobody} {
		if err := os.Lchown(dir+"/"+name, id, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Chmod(dir+"/etc/other", 0o755|unix.S_ISVTX); err != nil {
		t.Fatal(err)
	}
	if out := c.Do("image", "load", "--name", "app:v1", "app"); !strings.Contains(out, "no ids for") {
		t.Errorf("nothing is said of the owners:\n%s", out)
	}
	c.Want("/etc/link 0:0\n/etc/mine 0:0\n/etc/nobodys 65534:65534\n/etc/other 0:0\n/etc/roots 0:0\n/etc/other/theirs 0:0\n",
		"run", "--rm", "app:v1", "sh", "-c", "stat -c '%n %u:%g' /etc/link /etc/mine /etc/nobodys /etc/other /etc/roots /etc/other/*")
}

// firstSubordinate is the id on the host that a user's namespace has as 1.
func firstSubordinate(t *testing.T, name string) int {
	t.Helper()
	b, err := os.ReadFile("/etc/subuid")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var first int
		if _, err := fmt.Sscanf(line, name+":%d:", &first); err == nil {
			return first
		}
	}
	t.Fatalf("%s has no subordinate ids", name)
	return 0
}
