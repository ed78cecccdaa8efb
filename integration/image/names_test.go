package image

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// Whatever takes an image takes a name, a name with a digest, a tag that says nothing beside a digest, an id, and the
// beginning of one.
func TestReferences(t *testing.T) {
	harness.NeedRoot(t)
	host := imagetest.Registry(t, "", "")
	dir := harness.Dir(t)
	in := func(platform string) *imagetest.Image {
		return &imagetest.Image{Platform: platform, How: "gzip", Config: v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"echo", "hi"}},
			Layers: [][]imagetest.Entry{imagetest.Busybox(t, "sh echo")}}
	}
	imagetest.WriteLayout(t, dir+"/in", in("linux/"+runtime.GOARCH), in("linux/riscv64"))
	index, err := imagetest.Push(t, dir+"/in", host+"/team/app:v1").Digest()
	if err != nil {
		t.Fatal(err)
	}
	manifest := imagetest.Digest(in("").Build().Manifest)
	c := &harness.CLI{T: t, Root: dir + "/store"}
	m := harness.Dir(t)
	repo := host + "/team/app"
	c.Do("image", "pull", repo+":v1")
	id, _ := inspect(t, c.Root, repo+":v1")
	for _, ref := range []string{repo + ":v1", repo + "@" + index.String(), repo + "@" + manifest, repo + ":other@" + manifest, id, id[:30], id[7:], id[7:13]} {
		if got, _ := inspect(t, c.Root, ref); got != id {
			t.Errorf("inspect %s: %s", ref, got)
		}
		c.Want("hi\n", "run", "--rm", ref)
		c.Want("box\n", "create", "--name", "box", ref)
		c.Do("rm", "box")
		c.Do("mount", "--image", ref, m)
		c.Do("umount", m)
		c.Want("tagged:latest\n", "image", "tag", ref, "tagged")
		c.Want("name tagged:latest\n", "image", "rm", "tagged")
		c.Do("image", "save", "-o", dir+"/out.tar", ref)
	}
	for _, ref := range []string{host + "/team/other@" + manifest, repo + "@sha256:" + strings.Repeat("0", 64)} {
		for _, args := range [][]string{{"image", "inspect"}, {"image", "rm"}, {"image", "save", "-o", dir + "/x.tar"}, {"run"}, {"create"}} {
			c.Fails("no image "+ref, append(args, ref)...)
		}
		c.Fails("no image "+ref, "mount", "--image", ref, m)
		c.Fails("no image "+ref, "image", "tag", ref, "x")
	}
	c.Do("create", "--name", "box", repo+"@"+manifest)
	c.Fails("used by box", "image", "rm", repo+"@"+manifest)

	// What is given to an image is a name without a digest, and that is said before anything is done.
	byDigest := repo + "@" + manifest
	for _, args := range [][]string{{"image", "tag", id, byDigest}, {"commit", "box", byDigest}, {"image", "load", "--name", byDigest, dir + "/in"}, {"image", "pull", "--name", byDigest, repo + ":v1"}} {
		c.Fails("a digest is what an image has", args...)
	}

	// What comes again is called what it was asked for by.
	c.Do("image", "tag", id, "aaa:v1")
	for _, ref := range []string{repo + "@" + index.String(), repo + ":v1", repo + ":none@" + manifest} {
		if out := c.Do("image", "pull", ref); !strings.Contains(out, "\n"+ref+"  ") || strings.Contains(out, "aaa") {
			t.Errorf("pull %s says\n%s", ref, out)
		}
	}
	imagetest.WriteDocker(t, dir+"/unnamed.tar", in(""))
	if out := c.Do("image", "load", dir+"/unnamed.tar"); !strings.Contains(out, "\n<none>  "+id[7:19]) {
		t.Errorf("an image without a name is called something:\n%s", out)
	}
	var made []struct{ Source string }
	for ref, source := range map[string]string{"aaa:v1": "aaa:v1", byDigest: byDigest, id[7:15]: id[7:19]} {
		c.Do("create", "--name", "c", ref)
		c.Do("commit", "c", "made:v1")
		if err := json.Unmarshal([]byte(c.Do("image", "inspect", "--json", "made:v1")), &made); err != nil || made[0].Source != "commit of "+source {
			t.Errorf("commit of %s: %v, %v", ref, made, err)
		}
		c.Do("rm", "c")
		c.Do("image", "rm", "made:v1")
	}
}
