package image

import (
	"os"
	"regexp"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// What the commands on images print, and what they leave.
func TestImageCommands(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.Dir(t)
	imagetest.WriteLayout(t, dir+"/in", &imagetest.Image{Name: "app:v1", How: "gzip",
		Config: v1.Config{Env: []string{"A=b c", "ESC=\x1b]0;gotcha\a"}, Entrypoint: []string{"/bin/app", "with space"}, Cmd: []string{"-x"}, WorkingDir: "/data", User: "7:8",
			Volumes: map[string]struct{}{"/data": {}}, ExposedPorts: map[string]struct{}{"80/tcp": {}}},
		Layers: [][]imagetest.Entry{imagetest.Tree("F big 300k"), imagetest.Tree("f a x")}})
	c := &harness.CLI{T: t, Root: dir + "/store"}
	c.Do("image", "load", dir+"/in")
	out := c.Do("image", "inspect", "app:v1")
	for _, want := range []string{`env +A=b c`, `entrypoint +/bin/app "with space"`, `cmd +-x`, `working dir +/data`, `user +7:8`, `volumes +/data`, `ports +80/tcp`,
		`layers +[0-9a-f]{12} +1 B +1 entries +` + dir, ` +[0-9a-f]{12} +300.0 KiB +1 entries +` + dir} {
		if !regexp.MustCompile(`(?m)^` + want).MatchString(out) {
			t.Errorf("inspect has no %q:\n%s", want, out)
		}
	}
	if strings.ContainsAny(out, "\x1b\a") {
		t.Errorf("inspect speaks to the terminal: %q", out)
	}
	c.Do("image", "tag", "app:v1", "base:v1")
	if out := c.Do("image", "ls"); !regexp.MustCompile(`^NAME +ID .*\napp:v1 .*\nbase:v1 .*\n$`).MatchString(out) {
		t.Errorf("ls: %s", out)
	}
	// A name goes alone as long as there is another; the layers go with the last one.
	c.Want("name app:v1\n", "image", "rm", "app:v1")
	c.Fails("no image app:v1", "image", "inspect", "app:v1")
	c.Do("create", "--name", "one", "base:v1", "true")
	c.Fails("one", "image", "rm", "base:v1")
	c.Do("rm", "-v", "one")
	c.Want("", "image", "prune")
	if out := c.Do("image", "rm", "base:v1"); strings.Count(out, "layer ") != 2 {
		t.Errorf("rm: %s", out)
	}
	if left, err := os.ReadDir(c.Root + "/layers"); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	for _, args := range [][]string{{"image", "tag", "nosuch", "x"}, {"image", "rm", "nosuch"}, {"image", "inspect", "nosuch"}, {"image", "save", "-o", dir + "/x", "nosuch"}} {
		c.Fails("no image nosuch", args...)
	}
	c.Fails("Bad/Name", "image", "load", "--name", "Bad/Name", dir+"/in")
	c.Ends(2, "image", "load")
	c.Ends(2, "image", "save", "-o", "", "base:v1")
	c.Ends(2, "image", "nosuch")
	if left, err := os.ReadDir(c.Root + "/layers"); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What fingers know from docker load and docker image prune: -i, an archive from a pipe or a file without a dash, and -f.
func TestLoadAsDocker(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.Dir(t)
	imagetest.WriteLayout(t, dir+"/in", &imagetest.Image{Name: "app:v1", Layers: [][]imagetest.Entry{imagetest.Tree("f a x")}})
	c := &harness.CLI{T: t, Root: dir + "/store"}
	id := c.Do("image", "load", "-q", "-i", dir+"/in")
	c.Do("image", "save", "-o", dir+"/app.tar", "app:v1")
	f, err := os.Open(dir + "/app.tar")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := c.Command("image", "load", "-q")
	cmd.Stdin = f
	if out, err := cmd.Output(); err != nil || string(out) != id {
		t.Errorf("%q, %v; want %q", out, err, id)
	}
	c.Want(id+id, "image", "load", "-q", "--input", dir+"/app.tar", dir+"/in")
	c.Do("image", "prune", "-f")
	c.Do("image", "inspect", "app:v1")
}
