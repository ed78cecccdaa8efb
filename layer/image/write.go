package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

// Saved is an image that is to be written.
type Saved struct {
	Names  []string
	Config []byte
	// Layers write the archives, bottom first.
	Layers []SavedLayer
}

// SavedLayer is one layer of it.
type SavedLayer struct {
	DiffID string
	Write  func(w io.Writer) error
}

// WriteLayout writes images as an OCI image layout into the new directory dir. A
// layer that several have is written once. For an archive there is a manifest.json for docker load, too; in a
// directory a tool that knows nothing of it, and adds an image, would leave it behind.
func WriteLayout(ctx context.Context, dir string, images []Saved, archive bool) error {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	w := &layoutWriter{ctx: ctx, dir: dir, layers: map[string]v1.Descriptor{}}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	var docker []dockerManifest
	for _, img := range images {
		d, m, err := w.image(&img)
		if err != nil {
			return err
		}
		list := img.Names
		if len(list) == 0 {
			list = []string{""}
		}
		for _, n := range list {
			d := d
			if n != "" {
				d.Annotations = map[string]string{"io.containerd.image.name": canonical(n), "org.opencontainers.image.ref.name": n[strings.LastIndexByte(n, ':')+1:]}
			}
			index.Manifests = append(index.Manifests, d)
		}
		docker = append(docker, m)
	}
	files := map[string]any{"index.json": index, "oci-layout": map[string]string{"imageLayoutVersion": "1.0.0"}}
	if archive {
		files["manifest.json"] = docker
	}
	for name, v := range files {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// canonical is the long form of a name, which containerd writes.
func canonical(name string) string {
	first, _, ok := strings.Cut(name, "/")
	switch {
	case !ok:
		return "docker.io/library/" + name
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		return "docker.io/" + name
	}
	return name
}

type layoutWriter struct {
	ctx    context.Context
	dir    string
	layers map[string]v1.Descriptor // by diff id
}

func (w *layoutWriter) image(img *Saved) (v1.Descriptor, dockerManifest, error) {
	var none v1.Descriptor
	c, err := parseRootFS(img.Config)
	if err != nil {
		return none, dockerManifest{}, err
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	if m.Config, err = w.blob(types.OCIConfigJSON, img.Config); err != nil {
		return none, dockerManifest{}, err
	}
	d := dockerManifest{Config: blobPath(m.Config.Digest), RepoTags: img.Names, Layers: []string{}}
	for _, l := range img.Layers {
		desc, ok := w.layers[l.DiffID]
		if !ok {
			if desc, err = w.layer(&l); err != nil {
				return none, dockerManifest{}, err
			}
			w.layers[l.DiffID] = desc
		}
		m.Layers = append(m.Layers, desc)
		d.Layers = append(d.Layers, blobPath(desc.Digest))
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return none, dockerManifest{}, err
	}
	desc, err := w.blob(types.OCIManifestSchema1, raw)
	desc.Platform = &v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
	return desc, d, err
}

func blobPath(h v1.Hash) string { return "blobs/sha256/" + h.Hex }

func (w *layoutWriter) blob(kind types.MediaType, b []byte) (v1.Descriptor, error) {
	h, err := v1.NewHash(Digest(b))
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: kind, Digest: h, Size: int64(len(b))}, os.WriteFile(filepath.Join(w.dir, blobPath(h)), b, 0o644)
}

// layer writes a layer, compressed; its name is known afterwards.
func (w *layoutWriter) layer(l *SavedLayer) (v1.Descriptor, error) {
	var none v1.Descriptor
	f, err := os.CreateTemp(filepath.Join(w.dir, "blobs"), "layer-*")
	if err != nil {
		return none, err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	defer f.Close()
	sum := sha256.New()
	z := gzip.NewWriter(io.MultiWriter(f, sum))
	if err := l.Write(cancelWriter{w.ctx, z}); err != nil {
		return none, err
	}
	if err := z.Close(); err != nil {
		return none, err
	}
	if err := f.Chmod(0o644); err != nil {
		return none, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return none, err
	}
	h := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	return v1.Descriptor{MediaType: types.OCILayer, Digest: h, Size: size}, os.Rename(f.Name(), filepath.Join(w.dir, blobPath(h)))
}

type cancelWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c cancelWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

// TarLayout writes the layout in dir as a tar archive.
func TarLayout(ctx context.Context, dir string, w io.Writer) error {
	t := tar.NewWriter(w)
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		h := &tar.Header{Name: name, Mode: 0o644, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
		if d.IsDir() {
			h.Typeflag, h.Mode, h.Name = tar.TypeDir, 0o755, name+"/"
			return t.WriteHeader(h)
		}
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return fmt.Errorf("%s: %w", name, errors.ErrUnsupported)
		}
		h.Size = st.Size()
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err = io.Copy(cancelWriter{ctx, t}, f)
		return err
	})
	if err != nil {
		return err
	}
	return t.Close()
}
