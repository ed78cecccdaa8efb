package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// There are files that are themselves when they are decompressed: whoever looks into every compression never ends.
func TestCompressionWithinCompression(t *testing.T) {
	archive := imagetest.Tar(imagetest.Tree("f a x"))
	for wraps := range 6 {
		path := t.TempDir() + "/in"
		if err := os.WriteFile(path, archive, 0o600); err != nil {
			t.Fatal(err)
		}
		src, err := image.Open(t.Context(), path, image.OpenOptions{Temp: t.TempDir()})
		if err == nil {
			src.Close()
		}
		if tooMany := err != nil && strings.Contains(err.Error(), "compressed more than 4 times"); tooMany != (wraps > 4) || !tooMany && err != nil {
			t.Errorf("compressed %d times: %v", wraps, err)
		}
		archive = imagetest.Compress(archive, "gzip")
	}
}

// A small archive can name a large configuration any number of times: what is kept in memory has a bound.
func TestOneConfigurationOfManyImages(t *testing.T) {
	config := []byte(`{"rootfs":{"type":"layers"},"comment":"` + strings.Repeat("x", 7<<20) + `"}`)
	const manifestType, configType = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json"
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`,
		manifestType, configType, image.Digest(config), len(config))
	blob := func(b []byte) string { return "blobs/sha256/" + strings.TrimPrefix(image.Digest(b), "sha256:") }
	for _, n := range []int{9, 10} {
		var docker, list []map[string]any
		for range n {
			docker = append(docker, map[string]any{"Config": "config.json"})
			list = append(list, map[string]any{"mediaType": manifestType, "digest": image.Digest(manifest), "size": len(manifest)})
		}
		for what, files := range map[string]map[string]any{
			"docker archive": {"config.json": config, "manifest.json": docker},
			"layout": {"oci-layout": map[string]string{"imageLayoutVersion": "1.0.0"}, "index.json": map[string]any{"schemaVersion": 2, "manifests": list},
				blob(manifest): manifest, blob(config): config},
		} {
			dir := t.TempDir()
			for name, v := range files {
				b, ok := v.([]byte)
				if !ok {
					b, _ = json.Marshal(v)
				}
				if err := errors.Join(os.MkdirAll(dir+"/blobs/sha256", 0o755), os.WriteFile(dir+"/"+name, b, 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			src, err := image.Open(t.Context(), dir, image.OpenOptions{Temp: t.TempDir()})
			if err == nil {
				src.Close()
			}
			if refused := err != nil && strings.Contains(err.Error(), "more than 64 MiB"); refused != (n > 9) || !refused && err != nil {
				t.Errorf("%s of %d images: %v", what, n, err)
			}
		}
	}
}

// Making the zeros of a sparse file reads nothing, and can be interrupted all the same.
func TestInterruptedInAHole(t *testing.T) {
	const size = 1 << 30
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	// The writer refuses the names that mean a sparse file.
	if err := w.WriteHeader(&tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644, Size: 4, Format: tar.FormatPAX, PAXRecords: map[string]string{
		"GNX.sparse.numblocks": "1", "GNX.sparse.map": "0,4", "GNX.sparse.size": strconv.Itoa(size)}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("data")); err != nil {
		t.Fatal(err)
	}
	archive := bytes.ReplaceAll(b.Bytes(), []byte("GNX.sparse"), []byte("GNU.sparse"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	in := io.MultiReader(bytes.NewReader(archive), readFunc(func([]byte) (int, error) {
		return 0, errors.New("it reads what follows the file")
	}))
	atData := readFunc(func(p []byte) (int, error) {
		n, err := in.Read(p)
		if bytes.Contains(p[:n], []byte("data")) {
			cancel()
		}
		return n, err
	})
	dir := t.TempDir()
	root := openDir(t, dir)
	if _, err := image.Unpack(ctx, atData, root, io.Discard, image.UnpackOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if st, err := os.Stat(dir + "/a"); err != nil || st.Size() == size {
		t.Errorf("the whole file was made: %v", err)
	}
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }
