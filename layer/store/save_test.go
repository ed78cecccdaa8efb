package store

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// What is saved is the image that was loaded: same id, same layers, wherever it goes.
func TestSave(t *testing.T) {
	dir := tempDir(t)
	s := open(t)
	imagetest.WriteLayout(t, dir+"/in", app("app:v1", "zstd"))
	got, err := load(t.Context(), s, dir+"/in", image.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := got[0]
	for _, to := range []string{"out", "out.tar"} {
		archive := strings.HasSuffix(to, ".tar")
		if err := s.Save(t.Context(), []string{"app:v1"}, dir+"/"+to, archive); err != nil {
			t.Fatal(err)
		}
		other := open(t)
		got, err := load(t.Context(), other, dir+"/"+to, image.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got[0].ID != want.ID || len(got[0].Layers) != len(want.Layers) {
			t.Errorf("%s: image %s, want %s", to, got[0].ID, want.ID)
		}
		if diff := cmp.Diff([]string{"app:v1"}, got[0].Names); diff != "" {
			t.Error(diff)
		}
	}
	// Somebody else's idea of a layout is the same.
	p, err := layout.FromPath(dir + "/out")
	if err != nil {
		t.Fatal(err)
	}
	index, err := p.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	if m, err := index.IndexManifest(); err != nil || len(m.Manifests) != 1 {
		t.Fatal(m, err)
	}
	if err := s.Save(t.Context(), []string{"app:v1"}, dir+"/out", false); err == nil {
		t.Error("what was there was overwritten")
	}
	// A layer that was changed in place is not saved as if nothing had happened.
	if err := os.WriteFile(want.LayerDirs()[0]+"/bin/app", []byte("xxx"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), []string{"app:v1"}, dir+"/again.tar", true); err == nil || !strings.Contains(err.Error(), "were changed") {
		t.Errorf("a changed layer: %v", err)
	}
	if _, err := os.Lstat(dir + "/again.tar"); err == nil {
		t.Error("half an archive was left")
	}
}

func TestPull(t *testing.T) {
	host := imagetest.Registry(t, "", "")
	ref := host + "/team/app:v2"
	dir := tempDir(t)
	s := open(t)
	imagetest.WriteLayout(t, dir+"/in", app("app:v1", "gzip"))
	got, err := load(t.Context(), s, dir+"/in", image.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	index := imagetest.Push(t, dir+"/in", ref)
	other := open(t)
	src, err := image.Pull(t.Context(), ref, image.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	img, err := other.Add(t.Context(), src.Images[0], AddOptions{Names: src.Images[0].Names})
	if err != nil {
		t.Fatal(err)
	}
	if img.ID != got[0].ID || img.Names[0] != ref {
		t.Errorf("image %s %v, want %s", img.ID, img.Names, got[0].ID)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if src, err := image.Pull(t.Context(), host+"/team/app@"+digest.String(), image.PullOptions{}); err != nil || src.Images[0].Names[0] != host+"/team/app@"+digest.String() {
		t.Errorf("by digest: %v", err)
	}
	arm, _ := image.ParsePlatform("linux/riscv64")
	for _, c := range []struct {
		ref, want string
		o         image.PullOptions
	}{
		{host + "/team/none:v1", "has no such image", image.PullOptions{}},
		{host + "/team/app:v2", "no image for linux/riscv64", image.PullOptions{Platform: arm}},
		{"UPPER/case", "", image.PullOptions{}},
	} {
		if _, err := image.Pull(t.Context(), c.ref, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.ref, err, c.want)
		}
	}
}
