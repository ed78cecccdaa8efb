package store

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// offsets are places in so many bytes: the first and last ones, and some between.
func offsets(size int) []int {
	all := []int{0, 1, 2, 3, 4, 8, 9, 10, 11, 12, size / 3, size / 2, size - 9, size - 8, size - 5, size - 4, size - 1}
	r := rand.New(rand.NewSource(1))
	for range 20 {
		all = append(all, r.Intn(size))
	}
	return all
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x10
	return b
}

// One wrong byte anywhere in a layer is said to be that, whether the decompressor or the archive's reader stumbles over
// it first: that the image was damaged on its way is what the user needs to know.
func TestLoadFlippedByte(t *testing.T) {
	for _, c := range []struct {
		name, how string
		write     func(testing.TB, string, ...*imagetest.Image)
	}{
		{"gzip", "gzip", imagetest.WriteLayout},
		{"zstd", "zstd", imagetest.WriteLayout},
		{"plain", "", imagetest.WriteLayout},
		{"docker archive", "", imagetest.WriteDocker},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			size := 0
			img := app("app:v1", c.how)
			second := func(f func(b []byte) []byte) {
				n := 0
				img.Tamper = func(kind string, b []byte) []byte {
					if kind == "layer" {
						if n++; n%len(img.Layers) == 2 {
							return f(b)
						}
					}
					return b
				}
			}
			second(func(b []byte) []byte { size = len(b); return b })
			img.Build()
			unchanged(t, s, func() {
				for _, at := range offsets(size) {
					second(func(b []byte) []byte { return flipped(b, at) })
					path := filepath.Join(tempDir(t), "bad")
					c.write(t, path, img)
					_, err := load(t.Context(), s, path, image.OpenOptions{})
					if !errors.Is(err, image.ErrDigest) || !strings.Contains(err.Error(), "layer 2 of 3") {
						t.Errorf("byte %d of %d: %v", at, size, err)
					}
				}
			})
		})
	}
}

// The same from a registry, and in what it says of the image.
func TestPullFlippedByte(t *testing.T) {
	host := imagetest.Registry(t, "", "")
	dir := tempDir(t)
	img := app("app:v1", "gzip")
	imagetest.WriteLayout(t, dir+"/in", img)
	imagetest.Push(t, dir+"/in", host+"/app:v1")
	parts := img.Build()
	manifest := imagetest.Digest(parts.Manifest)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	var what string // the digest to be changed
	var at int
	proxy.ModifyResponse = func(r *http.Response) error {
		if !strings.HasSuffix(r.Request.URL.Path, what) || r.Request.Method != http.MethodGet {
			return nil
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		r.Body = io.NopCloser(bytes.NewReader(flipped(b, at)))
		r.Header.Set("Content-Length", strconv.Itoa(len(b)))
		return nil
	}
	server := httptest.NewServer(proxy)
	defer server.Close()
	ref := strings.TrimPrefix(server.URL, "http://") + "/app:v1"
	pull := func(s *Store) error {
		src, err := image.Pull(t.Context(), ref, image.PullOptions{})
		if err == nil {
			_, err = s.Add(t.Context(), src.Images[0], AddOptions{})
		}
		return err
	}
	s := open(t)
	unchanged(t, s, func() {
		for _, d := range []string{manifest, imagetest.Digest(parts.Config), parts.Layers[0], parts.Layers[2]} {
			what = d
			for _, at = range offsets(len(parts.Blobs[d])) {
				err := pull(s)
				// What is said of a manifest is the registry client's.
				if err == nil || d != manifest && !errors.Is(err, image.ErrDigest) || !strings.Contains(err.Error(), " digest: ") || !strings.Contains(err.Error(), d) || strings.Contains(err.Error(), "\n") {
					t.Errorf("byte %d of %s: %v", at, d, err)
				}
			}
		}
	})
	what = "nothing"
	if err := pull(s); err != nil {
		t.Error(err)
	}
}
