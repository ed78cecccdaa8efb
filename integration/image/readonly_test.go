package image

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// A store on a read-only filesystem is read; what would change it says that it cannot, and which file it was.
func TestReadOnlyStore(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.Dir(t)
	fs := harness.Filesystem(t, "tmpfs", 16<<20)
	imagetest.WriteLayout(t, dir+"/in", &imagetest.Image{Name: "app:v1", Layers: [][]imagetest.Entry{imagetest.Tree("f a x")}})
	c := &harness.CLI{T: t, Root: fs + "/store"}
	id := c.Do("image", "load", "-q", dir+"/in")
	c.Do("create", "--name", "box", "app:v1", "true")
	if err := unix.Mount("", fs, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	c.Want(id, "image", "ls", "-q")
	c.Do("image", "inspect", "app:v1")
	if out := c.Do("ps", "-a"); !strings.Contains(out, "\nbox ") {
		t.Errorf("ps: %s", out)
	}
	c.Do("volume", "ls")
	c.Do("image", "save", "-o", dir+"/out", "app:v1")
	other := &harness.CLI{T: t, Root: dir + "/other"}
	other.Want(id, "image", "load", "-q", dir+"/out")
	view := harness.Dir(t)
	c.Do("mount", "--image", "app:v1", view)
	b, err := os.ReadFile(view + "/a")
	c.Do("umount", view)
	if err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
	for _, args := range [][]string{{"image", "load", "-q", "--name", "new:v1", dir + "/in"}, {"image", "tag", "app:v1", "b:v1"}, {"image", "rm", "app:v1"}, {"image", "prune"}, {"commit", "box", "b:v1"}, {"image", "save", "-o", dir + "/out.tar", "app:v1"}} {
		c.Fails("read-only file system", args...)
	}
}
