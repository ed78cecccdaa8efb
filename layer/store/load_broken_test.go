package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

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
		{"a layer with a wrong digest", only("layer", flip), "wrong digest"},
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
