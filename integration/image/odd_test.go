package image

import (
	"os"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// Images as they come: the same layer several times (an empty one for every line of a Dockerfile that changed
// nothing), one that deletes what it has further down, and none at all.
func TestOddLayers(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.Dir(t)
	base := imagetest.Busybox(t, "sh cat ls")
	config := v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"sh", "-c", "cat /etc/a /etc/b /etc/c 2>/dev/null; ls /etc"}}
	a, b, empty := imagetest.Tree("d etc\nf etc/a A\nf etc/c C"), imagetest.Tree("d etc\nw etc/a\nf etc/b B"), imagetest.Tree("")
	imagetest.WriteLayout(t, dir+"/in",
		&imagetest.Image{Name: "twice:v1", Config: config, Layers: [][]imagetest.Entry{base, a, b, a}},
		&imagetest.Image{Name: "again:v1", Config: config, Layers: [][]imagetest.Entry{base, b, a, b}},
		&imagetest.Image{Name: "empty:v1", Config: config, Layers: [][]imagetest.Entry{empty, base, empty, a, empty, empty}},
		&imagetest.Image{Name: "nothing:v1", Config: config})
	c := &harness.CLI{T: t, Root: dir + "/store"}
	c.Do("image", "load", dir+"/in")
	host := "hostname\nhosts\nresolv.conf\n"
	for name, want := range map[string]string{"twice:v1": "ABCa\nb\nc\n" + host, "again:v1": "BCb\nc\n" + host, "empty:v1": "ACa\nc\n" + host} {
		c.Want(want, "run", "--rm", name)
	}
	// Without layers there are the mounts, and what is written.
	sh := dir + "/busybox"
	if err := os.WriteFile(sh, harness.Busybox(t), 0o755); err != nil {
		t.Fatal(err)
	}
	c.Want("hi\n", "run", "--name", "box", "-v", sh+":/bin/busybox:ro", "nothing:v1", "/bin/busybox", "sh", "-c", "echo hi | /bin/busybox tee /note")
	c.Do("commit", "box", "note:v1")
	// A commit of nothing is an empty layer, and the next one another.
	c.Do("create", "--name", "one", "twice:v1")
	c.Do("commit", "one", "still:v1")
	c.Do("create", "--name", "two", "still:v1")
	c.Do("commit", "two", "still:v2")
	c.Want("ABCa\nb\nc\n"+host, "run", "--rm", "still:v2")
	// A mount shows the same.
	m := harness.Dir(t)
	for name, want := range map[string]string{"twice:v1": "a b c", "again:v1": "b c", "empty:v1": "a c", "still:v2": "a b c"} {
		c.Do("mount", "--image", name, m)
		entries, err := os.ReadDir(m + "/etc")
		c.Do("umount", m)
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, %v, want %s", name, got, err, want)
		}
	}
	c.Fails("no layers", "mount", "--image", "nothing:v1", m)
	// And they are saved and loaded as they are.
	c.Do("image", "save", "-o", dir+"/out.tar", "twice:v1", "empty:v1", "nothing:v1", "still:v2")
	other := &harness.CLI{T: t, Root: dir + "/other"}
	other.Do("image", "load", dir+"/out.tar")
	for _, name := range []string{"twice:v1", "empty:v1", "nothing:v1", "still:v2"} {
		id, layers := inspect(t, c.Root, name)
		if got, l := inspect(t, other.Root, name); got != id || len(l) != len(layers) {
			t.Errorf("%s: %s with %d layers, want %s with %d", name, got, len(l), id, len(layers))
		}
	}
	c.Ends(2, "image", "load", "--name", "x:v1", dir+"/in", dir+"/in")
	c.Ends(2, "image", "load", "--name", "x:v1", dir+"/in")
}
