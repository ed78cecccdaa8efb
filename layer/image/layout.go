package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// openFiles opens a layout or a docker archive; nil if the files are neither. Archives
// of newer Dockers are both: the docker part has the names.
func openFiles(ctx context.Context, f files, name string, o OpenOptions) (*Source, error) {
	raw, err := readSmall(f, "manifest.json")
	if err == nil {
		if images, ok, err := dockerImages(f, raw); ok {
			return &Source{Kind: Docker, files: f, Images: images}, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if _, err := readSmall(f, "oci-layout"); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	raw, err = readSmall(f, "index.json")
	if err != nil {
		return nil, fmt.Errorf("OCI image layout: %w", err)
	}
	index, err := parseIndex(raw)
	if err != nil {
		return nil, fmt.Errorf("OCI image layout: index.json: %w", err)
	}
	s := &Source{Kind: Layout, files: f}
	var total configs
	for _, group := range groups(index.Manifests, name, o.Platform.Asked) {
		d, err := choose(group.list, o.Platform)
		if err != nil {
			return nil, err
		}
		img, err := resolve(ctx, layoutBlobs{f}, d, o.Platform, 0)
		if err != nil {
			return nil, err
		}
		if err := total.add(img); err != nil {
			return nil, err
		}
		if group.name != "" {
			img.Names = []string{group.name}
		}
		s.Images = append(s.Images, img)
	}
	return s, nil
}

// maxConfigs bounds, in bytes, what the configurations of all images of one source may have: a small archive
// can name a large one any number of times.
const maxConfigs = 64 << 20

// configs counts the bytes of configurations.
type configs int

func (c *configs) add(img *Image) error {
	if *c += configs(len(img.Config)); *c > maxConfigs {
		return fmt.Errorf("the configurations of its images have more than %d MiB", maxConfigs>>20)
	}
	return nil
}

// group is one image of a layout's index, for one platform or several.
type group struct {
	name string
	list []v1.Descriptor
}

// groups sorts an index by name: what has the same name differs in the platform. Without
// names all of it is one image for several platforms; what has neither name nor platform is an image of its own, unless
// one for a platform is wanted.
func groups(list []v1.Descriptor, fallback string, asked bool) []*group {
	var out []*group
	byName := map[string]*group{}
	for _, d := range list {
		if !d.MediaType.IsImage() && !d.MediaType.IsIndex() || d.Annotations["vnd.docker.reference.type"] != "" {
			continue
		}
		name := nameOf(&d, fallback)
		g := byName[name]
		if name == "" && d.Platform == nil && !asked {
			out = append(out, &group{list: []v1.Descriptor{d}})
			continue
		}
		if g == nil {
			g = &group{name: name}
			byName[name] = g
			out = append(out, g)
		}
		g.list = append(g.list, d)
	}
	return out
}

// dockerManifest is one image in the manifest.json of a docker archive.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

var hexForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:sha256:)?([0-9a-f]{64})(?:\.json|\.tar)?$`)
})

// dockerImages reads a manifest.json; ok is false for one that is something else.
func dockerImages(f files, raw []byte) (images []*Image, ok bool, err error) {
	var list []dockerManifest
	if json.Unmarshal(raw, &list) != nil || len(list) == 0 || list[0].Config == "" {
		return nil, false, nil
	}
	var total configs
	for _, m := range list {
		img, err := dockerImage(f, &m)
		if err == nil {
			err = total.add(img)
		}
		if err != nil {
			return nil, true, fmt.Errorf("docker archive: %w", err)
		}
		images = append(images, img)
	}
	return images, true, nil
}

func dockerImage(f files, m *dockerManifest) (*Image, error) {
	config, err := readSmall(f, m.Config)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	// Where the file is named after its digest, it must be right.
	if h := hexForm().FindStringSubmatch(path.Base(m.Config)); h != nil && Digest(config) != "sha256:"+h[1] {
		return nil, fmt.Errorf("%w: %s is %s", ErrDigest, m.Config, Digest(config))
	}
	ids, err := diffIDs(config)
	if err != nil {
		return nil, err
	}
	if len(ids) != len(m.Layers) {
		return nil, fmt.Errorf("%d layers, and diff ids for %d", len(m.Layers), len(ids))
	}
	img := &Image{Names: m.RepoTags, Config: config}
	for i, name := range m.Layers {
		r, size, err := f.open(name)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		r.Close()
		blob := ""
		if h := hexForm().FindStringSubmatch(path.Base(name)); h != nil && path.Dir(name) == "blobs/sha256" {
			blob = "sha256:" + h[1]
		}
		img.Layers = append(img.Layers, &Layer{DiffID: ids[i], Blob: blob, Size: size,
			open: func(context.Context) (io.ReadCloser, error) {
				r, _, err := f.open(name)
				return r, err
			}})
	}
	return img, nil
}
