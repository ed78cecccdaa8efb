package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/image/imagetest"
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
}

// What is wrong is refused, and the store stays as it was.
func TestLoadBroken(t *testing.T) {
	type change func(kind string, b []byte) []byte
	only := func(which string, f func(b []byte) []byte) change {
		return func(kind string, b []byte) []byte {
			if kind == which {
				return f(b)
			}
			return b
		}
	}
	flip := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		return b
	}
	cut := func(b []byte) []byte { return b[:len(b)-20] }
	text := func(s string) func([]byte) []byte { return func([]byte) []byte { return []byte(s) } }
	sub := func(old, new string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(old), []byte(new)) }
	}
	for _, c := range []struct {
		name   string
		tamper change
		want   string
	}{
		{"a layer with a wrong digest", only("layer", flip), ""}, // gzip notices, or the digest does
		{"a truncated layer", only("layer", cut), "wrong digest"},
		{"a layer with more after it", only("layer", func(b []byte) []byte { return append(bytes.Clone(b), "more"...) }), "wrong digest"},
		{"a wrong diff id", only("tar", flip), "wrong digest"},
		{"a layer that is no archive", only("tar", text("hello")), "wrong digest"},
		{"a truncated archive in a good blob", only("tar", func(b []byte) []byte { return b[:700] }), "wrong digest"},
		{"a configuration with a wrong digest", only("config", flip), "wrong digest"},
		{"a manifest with a wrong digest", only("manifest", flip), "wrong digest"},
		{"a manifest cut off", only("manifest", cut), "wrong digest"},
		{"an index that is no JSON", only("index", text("{")), "index"},
		{"an empty index", only("index", text(`{"schemaVersion":2,"manifests":[]}`)), "without an image"},
		{"an index of another schema", only("index", sub(`"schemaVersion":2`, `"schemaVersion":9`)), "schema version 9"},
		{"an unknown media type", only("index", sub("image.manifest.v1", "image.novel.v9")), "without an image"},
		{"a digest of another kind", only("index", sub("sha256:", "sha512:")), "index"},
		{"a digest that is a path", only("index", func(b []byte) []byte {
			i := bytes.Index(b, []byte("sha256:")) + 7
			return append(append(bytes.Clone(b[:i]), "../../../../etc/passwd"...), b[i+64:]...)
		}), "index"},
		{"a missing blob", only("index", func(b []byte) []byte {
			i := bytes.Index(b, []byte("sha256:")) + 7
			return append(append(bytes.Clone(b[:i]), strings.Repeat("0", 64)...), b[i+64:]...)
		}), "missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			dir := tempDir(t)
			good := app("good:v1", "gzip")
			imagetest.WriteLayout(t, dir+"/good", good)
			if _, err := load(t.Context(), s, dir+"/good", image.OpenOptions{}); err != nil {
				t.Fatal(err)
			}
			bad := app("bad:v1", "gzip")
			bad.Layers = append(bad.Layers, imagetest.Tree("f new x"))
			n := 0
			bad.Tamper = func(kind string, b []byte) []byte {
				if kind == "layer" || kind == "tar" {
					if n++; n <= 6 { // the layers that both have are not read
						return b
					}
				}
				return c.tamper(kind, b)
			}
			unchanged(t, s, func() {
				for _, write := range []func(testing.TB, string, ...*imagetest.Image){imagetest.WriteLayout, imagetest.WriteLayoutTar} {
					n = 0
					path := filepath.Join(tempDir(t), "bad")
					write(t, path, bad)
					if _, err := load(t.Context(), s, path, image.OpenOptions{}); err == nil || !strings.Contains(err.Error(), c.want) {
						t.Errorf("%v, want %q in it", err, c.want)
					}
				}
			})
		})
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "garbage": []byte("garbage"), "gzip of garbage": imagetest.Compress([]byte("garbage"), "gzip"),
		"xz": []byte("\xfd7zXZ\x00 and so on"), "gzip cut off": imagetest.Compress(make([]byte, 10000), "gzip")[:20],
		"a tar cut off":         imagetest.Tar(imagetest.Tree("F a 20k"))[:15<<10],
		"a tar without its end": bytes.TrimRight(imagetest.Tar(imagetest.Tree("F a 1k")), "\x00"),
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			path := tempDir(t) + "/file"
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			unchanged(t, s, func() {
				if _, err := load(t.Context(), s, path, image.OpenOptions{}); err == nil {
					t.Error("no error")
				} else {
					t.Log(err)
				}
			})
		})
	}
}

// A failed load takes away what it brought, and not what others use.
func TestLoadFailsAtTheEnd(t *testing.T) {
	dir := tempDir(t)
	s := open(t)
	img := app("bad:v1", "")
	img.Layers = append(img.Layers, imagetest.Tree("f ../evil x"))
	imagetest.WriteLayout(t, dir+"/bad", img)
	unchanged(t, s, func() {
		if _, err := load(t.Context(), s, dir+"/bad", image.OpenOptions{}); err == nil || !strings.Contains(err.Error(), "layer 4 of 4: ../evil") {
			t.Error(err)
		}
	})
	// Interrupted, at any byte.
	imagetest.WriteLayout(t, dir+"/good", app("good:v1", ""))
	for _, n := range []int{0, 1000, 50_000, 250_000} {
		unchanged(t, s, func() {
			src, err := image.Open(t.Context(), dir+"/good", image.OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if _, err := s.Add(ctx, src.Images[0], AddOptions{Progress: &stopper{after: n, stop: cancel}}); n < 200_000 && !errors.Is(err, context.Canceled) {
				t.Errorf("after %d bytes: %v", n, err)
			} else if err == nil {
				_, err = s.Prune(true)
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
}

type stopper struct {
	after int
	stop  func()
}

func (p *stopper) Layer(int, int, string, int64) { p.Read(0) }
func (p *stopper) Done(bool)                     {}
func (p *stopper) Read(n int) {
	if p.after -= n; p.after <= 0 {
		p.stop()
	}
}

// One archive over different layers: a directory it does not mention is that of the
// layers beneath, for each image its own.
func TestImpliedDirectories(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for owners")
	}
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

// Loads and removals of the same image from many sides at once.
func TestLoadConcurrently(t *testing.T) {
	s := open(t)
	dir := tempDir(t)
	imagetest.WriteLayout(t, dir+"/a", app("a:v1", "gzip"))
	other := app("b:v1", "gzip")
	other.Layers[2] = imagetest.Tree("f other x")
	imagetest.WriteLayout(t, dir+"/b", other)
	var wg sync.WaitGroup
	for n := range 6 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s, err := Open(s.Root())
			if err != nil {
				t.Error(err)
				return
			}
			for range 4 {
				if n == 0 {
					if _, err := s.Prune(true); err != nil {
						t.Error(err)
					}
					continue
				}
				got, err := load(t.Context(), s, dir+"/"+string("ab"[n%2]), image.OpenOptions{})
				if err != nil || len(got[0].Layers) != 3 {
					t.Error(got, err)
				}
			}
		}()
	}
	wg.Wait()
	for _, name := range []string{"a", "b"} {
		if _, err := load(t.Context(), s, dir+"/"+name, image.OpenOptions{}); err != nil {
			t.Error(err)
		}
	}
	all, err := s.Images()
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	for _, img := range all {
		for _, d := range img.LayerDirs() {
			if _, err := os.Stat(d); err != nil {
				t.Error(err)
			}
		}
	}
	if n, _ := s.layerNames(); len(n) != 4 {
		t.Errorf("%d layers, want 4", len(n))
	}
}

// loadVariable makes the test binary a command that loads an image, to be killed.
const loadVariable = "PLYFS_TEST_LOAD"

func TestMain(m *testing.M) {
	if args, ok := os.LookupEnv(loadVariable); ok {
		root, path, _ := strings.Cut(args, ":")
		s, err := Open(root)
		if err == nil {
			_, err = load(context.Background(), s, path, image.OpenOptions{})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A load killed at any moment leaves a store that works, and no image that is not whole.
func TestLoadKilled(t *testing.T) {
	dir := tempDir(t)
	img := app("app:v1", "")
	for n := range 6 {
		img.Layers = append(img.Layers, imagetest.Tree(fmt.Sprintf("d d%d\nF d%d/big 300k\nf d%d/x y", n, n, n)))
	}
	imagetest.WriteLayout(t, dir+"/layout", img)
	root := dir + "/store"
	killed := 0
	for n := range 15 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), loadVariable+"="+root+":"+dir+"/layout")
		var out bytes.Buffer
		cmd.Stderr = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		// Not by the clock: after so many layers, and a little.
		for {
			done, _ := os.ReadDir(root + "/layers")
			staged, _ := os.ReadDir(root + "/staging")
			if len(done) > n%10 && len(staged) > 0 || len(done) == 9 {
				break
			}
			select {
			case err := <-exited:
				exited <- err
			case <-time.After(200 * time.Microsecond):
				continue
			}
			break
		}
		_ = cmd.Process.Kill()
		if err := <-exited; err != nil {
			killed++
		}
		if out.Len() > 0 {
			t.Fatal(out.String())
		}
		s, err := Open(root)
		if err != nil {
			t.Fatal(err)
		}
		all, err := s.Images()
		if err != nil || len(all) > 1 {
			t.Fatal(all, err)
		}
		if left, _ := os.ReadDir(s.Path("staging")); len(left) != 0 {
			t.Fatalf("left in staging: %v", left)
		}
		names, err := s.layerNames()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := s.rebuild(name); err != nil {
				t.Fatalf("layer %s is not whole: %v", name, err)
			}
		}
		if n%3 == 2 {
			if _, err := s.Prune(true); err != nil {
				t.Fatal(err)
			}
			if got := left(t, s); got != "" {
				t.Fatalf("left: %q", got)
			}
		}
	}
	if killed < 5 {
		t.Errorf("only %d loads were killed in the middle", killed)
	}
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := load(t.Context(), s, dir+"/layout", image.OpenOptions{}); err != nil || len(got[0].Layers) != 9 {
		t.Fatal(got, err)
	}
}
