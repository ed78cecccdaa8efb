package store

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/image/imagetest"
	"github.com/plyfs/plyfs/layer/layertest"
)

// app is an image of three layers.
func app(name, how string) *imagetest.Image {
	return &imagetest.Image{Name: name, How: how,
		Config: v1.Config{Env: []string{"A=b"}, Cmd: []string{"/bin/app", "-x"}, WorkingDir: "/data", User: "7:8",
			Volumes: map[string]struct{}{"/data": {}}, ExposedPorts: map[string]struct{}{"80/tcp": {}}},
		Layers: [][]imagetest.Entry{
			imagetest.Tree("d bin\nf bin/app one\nm bin/app 755\nd etc\nf etc/a 1\nf etc/b 2"),
			imagetest.Tree("d etc\nw etc/a\nf etc/c 3"),
			imagetest.Tree("d bin\nf bin/app two\nd data\nF data/big 200k"),
		}}
}

// load opens a source and adds its images.
func load(ctx context.Context, s *Store, path string, o image.OpenOptions) ([]*Image, error) {
	if o.Temp == "" {
		o.Temp = s.Path("staging")
	}
	src, err := image.Open(ctx, path, o)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	var out []*Image
	for _, in := range src.Images {
		img, err := s.Add(ctx, in, AddOptions{Names: in.Names, Source: path})
		if err != nil {
			return out, err
		}
		out = append(out, img)
	}
	return out, nil
}

// everything lists all files of a store but its lock, with their contents.
func everything(t testing.TB, s *Store) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(s.Root(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		line := strings.TrimPrefix(path, s.Root())
		if line == "/lock" {
			return nil
		}
		if d.Type().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + imagetest.Digest(b)
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(out)
	return out
}

func unchanged(t *testing.T, s *Store, f func()) {
	t.Helper()
	before := everything(t, s)
	f()
	if diff := cmp.Diff(before, everything(t, s)); diff != "" {
		t.Errorf("the store changed:\n%s", diff)
	}
}

// Every kind of source gives the same image.
func TestLoad(t *testing.T) {
	dir := tempDir(t)
	compressed := func(path, how string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out := path + "." + how
		if err := os.WriteFile(out, imagetest.Compress(b, how), 0o600); err != nil {
			t.Fatal(err)
		}
		return out
	}
	imagetest.WriteLayout(t, dir+"/layout", app("app:v1", "gzip"))
	imagetest.WriteLayout(t, dir+"/zstd", app("app:v1", "zstd"))
	imagetest.WriteLayoutTar(t, dir+"/layout.tar", app("app:v1", ""))
	imagetest.WriteDocker(t, dir+"/docker.tar", app("app:v1", ""))
	writeWithRegistryTool(t, dir+"/tool.tar", dir+"/layout")
	var id string
	for _, path := range []string{"layout", "zstd", "layout.tar", "docker.tar", "tool.tar", compressed(dir+"/layout.tar", "gzip"), compressed(dir+"/docker.tar", "zstd")} {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			s := open(t)
			got, err := load(t.Context(), s, path, image.OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			img, err := s.Image("app:v1")
			if err != nil || len(got) != 1 || img.ID != got[0].ID {
				t.Fatal(got, img, err)
			}
			if id == "" {
				id = img.ID
			}
			if img.ID != id || len(img.Layers) != 3 {
				t.Errorf("image %s with %d layers", img.ID, len(img.Layers))
			}
			want := Config{Env: []string{"A=b"}, Cmd: []string{"/bin/app", "-x"}, WorkingDir: "/data", User: "7:8",
				Volumes: map[string]struct{}{"/data": {}}, ExposedPorts: map[string]struct{}{"80/tcp": {}}}
			if diff := cmp.Diff(want, img.Config); diff != "" {
				t.Error(diff)
			}
			top := img.LayerDirs()[0]
			if b, err := os.ReadFile(top + "/bin/app"); err != nil || string(b) != "two" {
				t.Errorf("%s: %q, %v", top, b, err)
			}
			if left, _ := os.ReadDir(s.Path("staging")); len(left) != 0 {
				t.Errorf("left in staging: %v", left)
			}
			// Once more changes nothing.
			unchanged(t, s, func() {
				if _, err := load(t.Context(), s, path, image.OpenOptions{}); err != nil {
					t.Error(err)
				}
			})
			if _, err := s.RemoveImage("app:v1", false); err != nil {
				t.Error(err)
			}
			if got := left(t, s); got != "" {
				t.Errorf("left: %q", got)
			}
		})
	}
}

// writeWithRegistryTool makes a docker archive of the image in a layout, as crane, ko and Bazel do: the names in it
// are not Docker's.
func writeWithRegistryTool(t *testing.T, path, from string) {
	t.Helper()
	in, err := layout.FromPath(from)
	if err != nil {
		t.Fatal(err)
	}
	index, err := in.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("app:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(path, tag, img); err != nil {
		t.Fatal(err)
	}
}

func TestLoadPlain(t *testing.T) {
	dir := tempDir(t)
	entries := imagetest.Tree("d etc\nf etc/a 1\nl b etc/a\nh c etc/a")
	if err := os.WriteFile(dir+"/root.tar", imagetest.Tar(entries), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/root.tar.zst", imagetest.Compress(imagetest.Tar(entries), "zstd"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir+"/root/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/root/etc/a", []byte("1"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(dir+"/root/etc/a", dir+"/root/c"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"root.tar", "root.tar.zst", "root"} {
		s := open(t)
		got, err := load(t.Context(), s, filepath.Join(dir, name), image.OpenOptions{})
		if err != nil {
			t.Fatal(name, err)
		}
		if len(got) != 1 || len(got[0].Layers) != 1 || got[0].OS != "linux" {
			t.Fatalf("%s: %+v", name, got)
		}
		tree := got[0].LayerDirs()[0]
		a, err1 := os.Stat(tree + "/etc/a")
		c, err2 := os.Stat(tree + "/c")
		if err1 != nil || err2 != nil || !os.SameFile(a, c) {
			t.Errorf("%s: %v, %v: no hard link", name, err1, err2)
		}
	}
}

func TestLoadPlatform(t *testing.T) {
	dir := tempDir(t)
	arch := func(platform, what string) *imagetest.Image {
		return &imagetest.Image{Name: "app:v1", Platform: platform, Layers: [][]imagetest.Entry{imagetest.Tree("f arch " + what)}}
	}
	imagetest.WriteLayout(t, dir+"/multi", arch("linux/amd64", "amd64"), arch("linux/arm64/v8", "arm64"), arch("linux/arm/v6", "v6"), arch("linux/arm/v7", "v7"), arch("unknown/unknown", "none"))
	for want, platform := range map[string]string{"amd64": "linux/amd64", "arm64": "linux/arm64", "v7": "linux/arm", "v6": "linux/arm/v6"} {
		p, err := image.ParsePlatform(platform)
		if err != nil {
			t.Fatal(err)
		}
		s := open(t)
		got, err := load(t.Context(), s, dir+"/multi", image.OpenOptions{Platform: p})
		if err != nil {
			t.Fatal(platform, err)
		}
		if b, err := os.ReadFile(got[0].LayerDirs()[0] + "/arch"); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", platform, b, err)
		}
	}
	p, _ := image.ParsePlatform("linux/s390x")
	if _, err := load(t.Context(), open(t), dir+"/multi", image.OpenOptions{Platform: p}); err == nil || !strings.Contains(err.Error(), "linux/arm/v7") {
		t.Errorf("a platform that is not there: %v", err)
	}
	imagetest.WriteDocker(t, dir+"/one.tar", arch("linux/amd64", "amd64"))
	if _, err := load(t.Context(), open(t), dir+"/one.tar", image.OpenOptions{Platform: p}); err == nil || !strings.Contains(err.Error(), "is for linux/amd64") {
		t.Errorf("the only image is for another platform: %v", err)
	}
	// Of a root filesystem nobody else says what it is for.
	if err := os.WriteFile(dir+"/root.tar", imagetest.Tar(imagetest.Tree("f a x")), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := load(t.Context(), open(t), dir+"/root.tar", image.OpenOptions{Platform: p}); err != nil || got[0].Arch != "s390x" {
		t.Errorf("a root filesystem: %+v, %v", got, err)
	}
}

// One archive over different layers: a directory it does not mention is that of the
// layers beneath, for each image its own.
func TestImpliedDirectories(t *testing.T) {
	layertest.NeedOwners(t)
	s := open(t)
	dir := tempDir(t)
	shared := imagetest.Tree("f srv/data x")
	var dirs []string
	for n, base := range []string{"d srv\nm srv 700\nu srv 5 5", "d srv\nm srv 750", "d srv\nm srv 700\nu srv 5 5\nf other y"} {
		path := fmt.Sprint(dir, "/", n)
		imagetest.WriteLayout(t, path, &imagetest.Image{Name: fmt.Sprintf("i%d:v1", n), Layers: [][]imagetest.Entry{imagetest.Tree(base), shared}})
		got, err := load(t.Context(), s, path, image.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, got[0].LayerDirs()[0])
	}
	if dirs[0] != dirs[2] || dirs[0] == dirs[1] {
		t.Errorf("layers %v", dirs)
	}
	for n, want := range []os.FileMode{0o700, 0o750} {
		if st, err := os.Stat(dirs[n] + "/srv"); err != nil || st.Mode().Perm() != want {
			t.Errorf("%v, %v", st.Mode(), err)
		}
	}
}

// Names need not be text: what a directory was given is found again, and the layer is not unpacked anew each time.
func TestImpliedDirectoriesThatAreNoText(t *testing.T) {
	s := open(t)
	path := tempDir(t)
	imagetest.WriteLayout(t, path, &imagetest.Image{Name: "odd:v1", Layers: [][]imagetest.Entry{
		imagetest.Tree("d \xe4\nm \xe4 750\nx \xe4 user.\xfc 1\nd \"\nm \" 700"), imagetest.Tree("f \xe4/data x\nf \"/data y")}})
	for range 3 {
		got, err := load(t.Context(), s, path, image.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]os.FileMode{"\xe4": 0o750, `"`: 0o700} {
			if st, err := os.Stat(filepath.Join(got[0].LayerDirs()[0], name)); err != nil || st.Mode().Perm() != want {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
	if names, err := s.layerNames(); err != nil || len(names) != 2 {
		t.Errorf("layers %q, %v", names, err)
	}
}

// An opaque root hides all layers beneath.
func TestOpaqueRoot(t *testing.T) {
	s := open(t)
	dir := tempDir(t)
	imagetest.WriteLayout(t, dir, &imagetest.Image{Name: "a:b", Layers: [][]imagetest.Entry{
		imagetest.Tree("f a x"), imagetest.Tree("f .wh..wh..opq\nf b x"), imagetest.Tree("f c x")}})
	got, err := load(t.Context(), s, dir, image.OpenOptions{})
	if err != nil || len(got[0].LayerDirs()) != 2 || len(got[0].Layers) != 3 {
		t.Fatal(got, err)
	}
}
