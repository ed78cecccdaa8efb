package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is one image that is being brought in.
type Image struct {
	// Names are those the source has for it.
	Names []string
	// Config is its configuration, byte for byte; nil for a plain root filesystem, whose
	// configuration is made when its layer's digest is known ([PlainConfig]).
	Config []byte
	// Layers, bottom first.
	Layers []*Layer
	// Manifest is the digest of the manifest; "" if there is none.
	Manifest string
	// Digests are Manifest and those of the indexes it was found in.
	Digests []string
	// Created is when it was made, as far as that is known without a configuration.
	Created time.Time
	// Platform is what a plain root filesystem is said to be for; nil for this machine.
	Platform *Platform
}

// rootFS is the part of a configuration that is needed here.
type rootFS struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
	RootFS       struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// maxIndexDepth bounds indexes within indexes.
const maxIndexDepth = 4

// resolve follows a descriptor to the image for the platform.
func resolve(ctx context.Context, b blobs, d *v1.Descriptor, p *Platform, depth int) (*Image, error) {
	if depth > maxIndexDepth {
		return nil, errors.New("indexes within indexes, too many")
	}
	raw, err := readBlob(ctx, b, d)
	if err != nil {
		return nil, err
	}
	return resolveRaw(ctx, b, d, raw, p, depth)
}

func resolveRaw(ctx context.Context, b blobs, d *v1.Descriptor, raw []byte, p *Platform, depth int) (*Image, error) {
	switch {
	case d.MediaType.IsIndex():
		index, err := parseIndex(raw)
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", d.Digest, err)
		}
		next, err := choose(index.Manifests, p)
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", d.Digest, err)
		}
		img, err := resolve(ctx, b, next, p, depth+1)
		if err != nil {
			return nil, err
		}
		img.Digests = append(img.Digests, d.Digest.String())
		return img, nil
	case d.MediaType.IsImage():
		img, err := readManifest(ctx, b, raw)
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
		img.Manifest = d.Digest.String()
		img.Digests = []string{img.Manifest}
		return img, nil
	case d.MediaType == types.DockerManifestSchema1, d.MediaType == types.DockerManifestSchema1Signed:
		return nil, errors.New("a manifest of schema 1, which nobody has written since 2017: pull and push the image with a newer tool")
	}
	return nil, fmt.Errorf("%s: media type %q is no image", d.Digest, d.MediaType)
}

func parseIndex(raw []byte) (*v1.IndexManifest, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("no index: %w", err)
	}
	if index.SchemaVersion != 2 {
		return nil, fmt.Errorf("no index: schema version %d", index.SchemaVersion)
	}
	for i := range index.Manifests {
		if err := checkDescriptor(&index.Manifests[i]); err != nil {
			return nil, err
		}
	}
	return index, nil
}

// readManifest reads the manifest of an image, and its configuration.
func readManifest(ctx context.Context, b blobs, raw []byte) (*Image, error) {
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("no manifest: %w", err)
	}
	if m.SchemaVersion != 2 {
		return nil, fmt.Errorf("no manifest: schema version %d", m.SchemaVersion)
	}
	if !m.Config.MediaType.IsConfig() {
		return nil, fmt.Errorf("no container image: its configuration is of type %q", m.Config.MediaType)
	}
	config, err := readBlob(ctx, b, &m.Config)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	ids, err := diffIDs(config)
	if err != nil {
		return nil, err
	}
	if len(ids) != len(m.Layers) {
		return nil, fmt.Errorf("%d layers, and diff ids for %d", len(m.Layers), len(ids))
	}
	img := &Image{Config: config}
	for i := range m.Layers {
		d := m.Layers[i]
		if !layerTypes[d.MediaType] {
			return nil, fmt.Errorf("layer %d: unknown media type %q", i+1, d.MediaType)
		}
		if err := checkDescriptor(&d); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		img.Layers = append(img.Layers, &Layer{DiffID: ids[i], Blob: d.Digest.String(), Size: d.Size,
			open: func(ctx context.Context) (io.ReadCloser, error) { return b.blob(ctx, &d) }})
	}
	return img, nil
}

// diffIDs reads the digests of the layers' archives out of a configuration.
func diffIDs(config []byte) ([]string, error) {
	c, err := parseRootFS(config)
	if err != nil {
		return nil, err
	}
	return c.RootFS.DiffIDs, nil
}

func parseRootFS(config []byte) (*rootFS, error) {
	var c rootFS
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	for _, id := range c.RootFS.DiffIDs {
		if !digestForm().MatchString(id) {
			return nil, fmt.Errorf("configuration: %q is no SHA-256 digest", id)
		}
	}
	return &c, nil
}

// PlainConfig returns a configuration for an image of plain layers, bottom first. p may be nil.
func PlainConfig(diffIDs []string, created time.Time, p *Platform) ([]byte, error) {
	if p == nil {
		p = Host()
	}
	hashes := make([]v1.Hash, len(diffIDs))
	for i, id := range diffIDs {
		h, err := v1.NewHash(id)
		if err != nil {
			return nil, err
		}
		hashes[i] = h
	}
	return json.Marshal(&v1.ConfigFile{
		Created: v1.Time{Time: created.UTC()}, OS: p.OS, Architecture: p.Architecture, Variant: p.Variant,
		Config: v1.Config{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: hashes},
	})
}

// refNames are the annotations in which tools put an image's name.
var refNames = []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"}

// nameOf returns the name a descriptor of an index carries; a bare tag is given to fallback. Where the tag is that of
// another name than containerd's, a tool has copied the descriptor and knows but one of the two annotations.
func nameOf(d *v1.Descriptor, fallback string) string {
	ref := d.Annotations[refNames[1]]
	for _, key := range refNames {
		name := d.Annotations[key]
		if key == refNames[0] && ref != "" && name != ref && !strings.HasSuffix(name, ":"+ref) {
			continue
		}
		switch {
		case name == "":
		case strings.ContainsAny(name, ":/"):
			return name
		case fallback != "":
			return fallback + ":" + name
		}
	}
	return ""
}
