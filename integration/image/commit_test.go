package image

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

func TestMain(m *testing.M) { harness.Main(m) }

func plyfs(t *testing.T, args ...string) string {
	t.Helper()
	out, err := harness.Run(args...)
	if err != nil {
		t.Fatalf("plyfs %v: %v\n%s", args, err, out)
	}
	return out
}

type inspected []struct {
	ID     string
	Layers []struct{ Dir string }
}

func inspect(t *testing.T, root, ref string) (id string, lowers []string) {
	t.Helper()
	var list inspected
	if err := json.Unmarshal([]byte(plyfs(t, "image", "inspect", "--json", "--root", root, ref)), &list); err != nil {
		t.Fatal(err)
	}
	for _, l := range list[0].Layers {
		lowers = append(lowers, l.Dir)
	}
	return list[0].ID, lowers
}

// Load, change, commit, save, load elsewhere: the two views are the same.
func TestCommitRoundTrip(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.Dir(t)
	imagetest.WriteLayout(t, dir+"/in", &imagetest.Image{Name: "app:v1", How: "gzip", Layers: [][]imagetest.Entry{
		imagetest.Tree("d etc\nf etc/a 1\nf etc/b 2\nd old\nd old/sub\nf old/sub/f deep\nF big 3M\nf one x\nh two one\nl link etc/a\nd gone\nf gone/f x\nd again\nf again/f x"),
		imagetest.Tree("d etc\nw etc/b\nf etc/c 3"),
	}})
	root := dir + "/store"
	plyfs(t, "image", "load", "--root", root, dir+"/in")
	id, lowers := inspect(t, root, "app:v1")
	c := root + "/containers/web"
	for _, d := range []string{"upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(c, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(c+"/lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c+"/container.json", []byte(`{"id":"`+strings.Repeat("a", 64)+`","image":"`+id+`","args":["sh"],"mounts":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &harness.Layers{Root: dir, Lowers: lowers, Upper: c + "/upper", Work: c + "/work", Mnt: c + "/merged"}
	m := l.Plyfs(t, "--no-settle")
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	do(os.Rename(m.Path("old"), m.Path("new"))) // a redirect
	do(os.WriteFile(m.Path("new/added"), []byte("y"), 0o640))
	do(os.Remove(m.Path("etc/a")))
	do(os.RemoveAll(m.Path("gone")))
	do(os.RemoveAll(m.Path("again")))
	do(os.Mkdir(m.Path("again"), 0o700)) // opaque
	do(os.WriteFile(m.Path("again/g"), nil, 0o600))
	do(os.WriteFile(m.Path("one"), []byte("changed"), 0o644)) // and two with it
	do(os.Symlink("x", m.Path("sym")))
	f, err := os.OpenFile(m.Path("big"), os.O_WRONLY, 0) // unfinished
	do(err)
	_, err = f.WriteAt([]byte("hello"), 1<<20)
	do(err)
	do(f.Close())
	want := harness.Dump(t, m.Dir, true)
	m.Close(t)

	plyfs(t, "commit", "--root", root, "-m", "changes", "web", "app:v2")
	plyfs(t, "image", "save", "--root", root, "-o", dir+"/out.tar", "app:v2")
	other := dir + "/other"
	plyfs(t, "image", "load", "--root", other, dir+"/out.tar")
	_, lowers = inspect(t, other, "app:v2")
	if len(lowers) != 3 {
		t.Fatalf("%d layers, want 3", len(lowers))
	}
	if err := os.Mkdir(dir+"/mnt", 0o755); err != nil {
		t.Fatal(err)
	}
	again := (&harness.Layers{Root: dir, Lowers: lowers, Mnt: dir + "/mnt"}).Plyfs(t)
	if diff := cmp.Diff(want, harness.Dump(t, again.Dir, true)); diff != "" {
		t.Errorf("the container (-) and the image loaded elsewhere (+):\n%s", diff)
	}
	if out, err := harness.Run("image", "rm", "--root", root, "app:v1"); err == nil {
		t.Errorf("an image in use was removed: %s", out)
	}
}
