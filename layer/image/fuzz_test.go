package image_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// FuzzUnpack feeds archives of any kind: whatever happens, it happens in the layer, and
// what was unpacked comes back.
func FuzzUnpack(f *testing.F) {
	for _, c := range hostile {
		f.Add(imagetest.Tar(imagetest.Tree(c.tree)))
	}
	f.Add(imagetest.Tar(imagetest.Tree("d a\nw a/b\no c\nF d 5k\nh e d\np f\nl g ../..\nx d user.a b")))
	f.Fuzz(func(t *testing.T, archive []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/secret", []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir+"/tree", 0o755); err != nil {
			t.Fatal(err)
		}
		root := openDir(t, dir+"/tree")
		var recipe, again bytes.Buffer
		_, err := image.Unpack(context.Background(), bytes.NewReader(archive), root, &recipe, image.UnpackOptions{SkipDevices: true})
		onlySecret(t, dir)
		if err != nil {
			return
		}
		if err := image.Rebuild(&recipe, root, &again); err != nil || !bytes.Equal(again.Bytes(), archive) {
			t.Errorf("rebuilt %d bytes of %d: %v", again.Len(), len(archive), err)
		}
	})
}

// FuzzRebuild feeds recipes.
func FuzzRebuild(f *testing.F) {
	f.Add([]byte("plyfs recipe 1\nL\x03abcE"))
	f.Add([]byte("plyfs recipe 1\nF\x0c../../secret\x06E"))
	f.Fuzz(func(t *testing.T, recipe []byte) {
		var out bytes.Buffer
		_ = image.Rebuild(bytes.NewReader(imagetest.Compress(recipe, "gzip")), openDir(t, t.TempDir()), &out)
		if bytes.Contains(out.Bytes(), []byte("root:x:0:0")) {
			t.Error("it read outside of the layer")
		}
	})
}

// FuzzOpen feeds files that may be images, and reads what they promise.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	img := &imagetest.Image{Name: "a:b", How: "gzip", Layers: [][]imagetest.Entry{imagetest.Tree("f a x")}}
	imagetest.WriteLayoutTar(f, dir+"/layout.tar", img)
	imagetest.WriteDocker(f, dir+"/docker.tar", img)
	for _, name := range []string{"layout.tar", "docker.tar"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		path := t.TempDir() + "/file"
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		src, err := image.Open(context.Background(), path, image.OpenOptions{})
		if err != nil {
			return
		}
		src.Close()
	})
}

// FuzzPlatform checks that what is understood is understood again.
func FuzzPlatform(f *testing.F) {
	f.Add("linux/arm64/v8")
	f.Add("x86_64")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := image.ParsePlatform(s)
		if err != nil {
			return
		}
		if again, err := image.ParsePlatform(p.String()); err != nil || *again != *p {
			t.Errorf("%q: %v, %v", s, again, err)
		}
	})
}
