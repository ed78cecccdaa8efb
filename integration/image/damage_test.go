package image

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// damaged is a store with an image, a container and a volume that are well and one each to be damaged.
func damaged(t *testing.T) (c *harness.CLI, dir string) {
	t.Helper()
	harness.NeedRoot(t)
	dir = harness.Dir(t)
	in := func(name string) *imagetest.Image {
		return &imagetest.Image{Name: name, Config: v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"cat", "/which"}},
			Layers: [][]imagetest.Entry{imagetest.Busybox(t, "sh cat echo sleep"), imagetest.Tree("f which " + name)}}
	}
	for _, name := range []string{"good", "bad", "more"} {
		imagetest.WriteLayout(t, dir+"/"+name, in(name+":v1"))
	}
	c = &harness.CLI{T: t, Root: dir + "/store"}
	c.Do("image", "load", dir+"/good", dir+"/bad")
	c.Do("create", "--name", "goodbox", "-v", "goodvol:/v", "good:v1")
	c.Do("create", "--name", "badbox", "-v", "badvol:/v", "good:v1")
	return c, dir
}

// warns runs plyfs, which must succeed, warn of the file in one line, and print JSON if that is asked for.
func warns(t *testing.T, c *harness.CLI, path string, args ...string) string {
	t.Helper()
	var out, err bytes.Buffer
	cmd := c.Command(args...)
	cmd.Stdout, cmd.Stderr = &out, &err
	if e := cmd.Run(); e != nil {
		t.Errorf("plyfs %s: %v\n%s", strings.Join(args, " "), e, err.String())
	}
	var lines []string
	for line := range strings.Lines(err.String()) {
		if !strings.HasPrefix(line, "layer ") {
			lines = append(lines, line)
		}
	}
	if path == "" && len(lines) == 0 {
		return out.String()
	}
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "plyfs: warning: ") || !strings.Contains(lines[0], path) || !strings.Contains(lines[0], "plyfs ") || path == "" {
		t.Errorf("plyfs %s: want one warning of %q: %q", strings.Join(args, " "), path, lines)
	}
	if args[len(args)-1] == "--json" && !json.Valid(out.Bytes()) {
		t.Errorf("plyfs %s: no JSON: %s", strings.Join(args, " "), out.String())
	}
	return out.String()
}

func TestDamagedImage(t *testing.T) {
	c, dir := damaged(t)
	id, _ := inspect(t, c.Root, "bad:v1")
	path := filepath.Join(c.Root, "images", id[7:], "image.json")
	if err := os.WriteFile(path, []byte(`{"layers": [`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"image", "ls"}, {"image", "ls", "-q"}, {"image", "ls", "--json"}, {"image", "prune"}, {"image", "prune", "--json"}} {
		if out := warns(t, c, path, args...); strings.Contains(out, id[7:19]) {
			t.Errorf("%v: it is in there: %s", args, out)
		}
	}
	for _, args := range [][]string{{"ps", "-a", "--json"}, {"volume", "ls", "--json"}, {"image", "inspect", "good:v1"}, {"image", "load", dir + "/more"},
		{"run", "--rm", "good:v1"}, {"image", "tag", "good:v1", "x:v1"}, {"image", "save", "-o", dir + "/out.tar", "good:v1"}} {
		warns(t, c, "", args...)
	}
	warns(t, c, path, "image", "rm", "more:v1")
	for _, args := range [][]string{{"run", "--rm", "bad:v1"}, {"create", "bad:v1"}, {"image", "inspect", "bad:v1"}, {"image", "save", "-o", dir + "/bad.tar", "bad:v1"}} {
		c.Fails(path, args...)
		c.Fails("load or pull it again, or take it away with plyfs image rm "+id[7:19], args...)
	}
	warns(t, c, "", "image", "load", dir+"/bad")
	if out := c.Do("run", "--rm", "bad:v1"); out != "bad:v1" {
		t.Errorf("%q", out)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if out := c.Do("image", "rm", id[7:19]); !strings.Contains(out, "image "+id[7:19]) {
		t.Errorf("rm: %s", out)
	}
	warns(t, c, "", "image", "ls", "--json")
}

// A container that runs, or is mounted, keeps its layers while the record of one is made anew, and the old one is taken away.
func TestDamagedLayerInUse(t *testing.T) {
	c, dir := damaged(t)
	m := harness.Dir(t)
	for name, use := range map[string]struct{ begin, look, end []string }{
		"run":   {[]string{"run", "-d", "--name", "box", "bad:v1", "sleep", "1000"}, []string{"exec", "box", "cat", "/which"}, []string{"rm", "-f", "box"}},
		"mount": {[]string{"mount", "--container", "seen", m}, nil, []string{"umount", m}},
	} {
		if name == "mount" {
			c.Do("create", "--name", "seen", "bad:v1")
		}
		_, lowers := inspect(t, c.Root, "bad:v1")
		path := strings.TrimSuffix(lowers[0], "tree") + "layer.json"
		c.Do(use.begin...)
		if err := os.Truncate(path, 10); err != nil {
			t.Fatal(err)
		}
		warns(t, c, path, "image", "ls")
		warns(t, c, "", "image", "load", dir+"/bad")
		if _, now := inspect(t, c.Root, "bad:v1"); now[0] == lowers[0] || now[1] != lowers[1] {
			t.Errorf("%s: the layers are %v, and were %v", name, now, lowers)
		}
		if out := c.Do("image", "prune"); out != "" {
			t.Errorf("%s: a layer in use was removed: %s", name, out)
		}
		if use.look != nil {
			c.Want("bad:v1", use.look...)
		} else if b, err := os.ReadFile(m + "/which"); err != nil || string(b) != "bad:v1" {
			t.Errorf("%q, %v", b, err)
		}
		c.Do(use.end...)
		if out := c.Do("image", "prune"); !strings.HasPrefix(out, "layer ") {
			t.Errorf("%s: prune: %q", name, out)
		}
	}
	c.Want("bad:v1", "start", "-a", "seen")
}

func TestDamagedContainerAndVolume(t *testing.T) {
	c, _ := damaged(t)
	record := filepath.Join(c.Root, "containers", "badbox", "container.json")
	volume := filepath.Join(c.Root, "volumes", "badvol", "volume.json")
	if err := os.Truncate(record, 30); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ps"}, {"ps", "-a", "-q"}, {"ps", "-a", "--json"}, {"volume", "ls"}, {"volume", "ls", "--json"}, {"volume", "prune", "-a"}, {"image", "prune", "-a"}, {"image", "prune", "--json"}} {
		if out := warns(t, c, record, args...); strings.Contains(out, "badbox") || strings.Contains(out, "removed") {
			t.Errorf("%v: %s", args, out)
		}
	}
	warns(t, c, "", "run", "--rm", "good:v1")
	for _, args := range [][]string{{"start", "badbox"}, {"commit", "badbox", "x"}, {"image", "rm", "bad:v1"}, {"volume", "rm", "badvol"}} {
		c.Fails("plyfs rm badbox", args...)
	}
	c.Want("badbox\n", "rm", "-v", "badbox")
	warns(t, c, "", "ps", "-a", "--json")

	if err := os.Truncate(volume, 0); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"volume", "ls"}, {"volume", "ls", "-q"}, {"volume", "ls", "--json"}, {"volume", "prune", "-a"}} {
		if out := warns(t, c, volume, args...); strings.Contains(out, "badvol") {
			t.Errorf("%v: %s", args, out)
		}
	}
	for _, args := range [][]string{{"run", "--rm", "-v", "badvol:/v", "good:v1"}, {"create", "-v", "badvol:/v", "good:v1"}} {
		c.Fails("plyfs volume create badvol", args...)
	}
	warns(t, c, "", "start", "-a", "goodbox")
	c.Want("badvol\n", "volume", "create", "badvol")
	warns(t, c, "", "run", "--rm", "-v", "badvol:/v", "good:v1")
	if err := os.Remove(volume); err != nil {
		t.Fatal(err)
	}
	c.Want("badvol\n", "volume", "rm", "badvol")
	warns(t, c, "", "volume", "ls", "--json")
}
