package image

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// Layouts whose directories are called anything, and images in them that are called nothing.
func TestLoadNames(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.Dir(t)
	c := &harness.CLI{T: t, Root: dir + "/store"}
	in := func(name, what string) *imagetest.Image {
		return &imagetest.Image{Name: name, Layers: [][]imagetest.Entry{imagetest.Tree("f what " + what)}}
	}
	for name, want := range map[string]string{"_od": "od:v1", ".hidden": "hidden:v1", "A  B": "a--b:v1", "x_": "x:v1", "ümlaut": "mlaut:v1", "...": "<none>", "--": "<none>", "sha256": "<none>"} {
		imagetest.WriteLayout(t, dir+"/in/"+name, in("v1", name))
		if out := c.Do("image", "load", dir+"/in/"+name); !strings.Contains(out, "\n"+want+"  ") {
			t.Errorf("%s: want %s:\n%s", name, want, out)
		}
	}
	// A name that is none is not given, and another one can be.
	imagetest.WriteLayout(t, dir+"/bad", in("v1+build", "bad"))
	c.Fails("--name gives it another", "image", "load", dir+"/bad")
	c.Do("image", "load", "--name", "fine:v1", dir+"/bad")
	// What has neither name nor platform are as many images.
	imagetest.WriteLayout(t, dir+"/two", in("", "one"), in("", "two"))
	b, err := os.ReadFile(dir + "/two/index.json")
	if err != nil {
		t.Fatal(err)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(b, &index); err != nil {
		t.Fatal(err)
	}
	for i := range index.Manifests {
		index.Manifests[i].Platform = nil
	}
	if b, err = json.Marshal(&index); err == nil {
		err = os.WriteFile(dir+"/two/index.json", b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out := c.Do("image", "load", "-q", dir+"/two"); strings.Count(out, "sha256:") != 2 {
		t.Errorf("two images without names: %s", out)
	}
	// For another machine is said, unless it was asked for.
	other := in("other:v1", "other")
	other.Platform = "linux/s390x"
	imagetest.WriteDocker(t, dir+"/other", other)
	if out := c.Do("image", "load", "-q", dir+"/other"); !strings.Contains(out, "other:v1 is for linux/s390x, and this machine is linux/"+runtime.GOARCH) {
		t.Errorf("another platform: %s", out)
	}
	if out := c.Do("image", "load", "-q", "--platform", "s390x", dir+"/other"); strings.Contains(out, "warning") {
		t.Errorf("the platform that was asked for: %s", out)
	}
	// The directory with the store in it.
	c.Fails("loaded into itself", "image", "load", dir)
	c.Fails("is no name for an image", "image", "pull", "Bad/Name")
	c.Ends(2, "image", "save", "-o", dir+"/out.tar.gz", "fine:v1")
	if _, err := os.Lstat(dir + "/out.tar.gz"); err == nil {
		t.Error("a directory was called .tar.gz")
	}
	var removed struct{ Names, Images, Layers []string }
	out := c.Do("image", "rm", "--json", "fine:v1", "x:v1", "od:v1")
	if err := json.Unmarshal([]byte(out), &removed); err != nil || len(removed.Names) != 3 || len(removed.Images) != 3 || len(removed.Layers) != 3 {
		t.Errorf("%v: %s", err, out)
	}
}

// An image that is loaded anew while its containers run: they keep what they have, the name means the new one.
func TestLoadWhileRunning(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.Dir(t)
	c := &harness.CLI{T: t, Root: dir + "/store"}
	archive := func(what string) string {
		path := filepath.Join(dir, what+".tar")
		imagetest.WriteDocker(t, path, &imagetest.Image{Name: "app:v1", Config: v1.Config{Env: []string{"PATH=/bin"}},
			Layers: [][]imagetest.Entry{imagetest.Busybox(t, "sh cat sleep"), imagetest.Tree("f what " + what)}})
		return path
	}
	stdin := func(path string) string {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd := c.Command("image", "load", "-q", "-")
		cmd.Stdin = f
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	one := archive("one")
	id := stdin(one)
	c.Do("run", "-d", "--name", "box", "app:v1", "sleep", "1000")
	defer c.Do("rm", "-f", "box")
	if got := stdin(one); got != id {
		t.Errorf("%s, want %s", got, id)
	}
	if got := stdin(archive("two")); got == id {
		t.Error("another image has the same id")
	}
	c.Want("two", "run", "--rm", "app:v1", "cat", "/what")
	c.Want("one", "exec", "box", "cat", "/what")
	c.Want("", "image", "prune")
	c.Fails("used by box", "image", "rm", strings.TrimSpace(id))
	c.Do("commit", "box", "app:v2")
	c.Want("one", "run", "--rm", "app:v2", "cat", "/what")
	c.Want("one", "exec", "box", "cat", "/what")
	c.Do("rm", "-f", "box")
	if out := c.Do("image", "prune"); strings.TrimSpace(out) != "image "+strings.TrimSpace(id)[7:19] { // its layers are those of app:v2, too
		t.Errorf("prune: %s", out)
	}
	c.Want("one", "run", "--rm", "app:v2", "cat", "/what")
	c.Do("create", "--name", "box", "app:v2", "cat", "/what")
}
