package store

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/plyfs/plyfs/layer/image"
)

// ErrNotFound is matched by the errors of lookups that found nothing.
var ErrNotFound = errors.New("not found")

// Image is one image of the store.
type Image struct {
	ID      string    `json:"id"`    // "sha256:" and the digest of the configuration
	Names   []string  `json:"names"` // sorted
	Created time.Time `json:"created"`
	Loaded  time.Time `json:"loaded"`
	Source  string    `json:"source,omitempty"` // where it was loaded from
	// Manifest is the digest the image had there; "" if it had none.
	Manifest string `json:"manifest,omitempty"`
	// Digests are all under which it is known, as in NAME@DIGEST: Manifest, those of indexes that
	// it was found in, and those that it had elsewhere.
	Digests []string `json:"digests,omitempty"`
	OS      string   `json:"os"`
	Arch    string   `json:"architecture"`
	Variant string   `json:"variant,omitempty"`
	// Size is the sum of its layers' files in bytes, of a layer that it has twice once; some may be shared with other images.
	Size   int64   `json:"size"`
	Layers []Layer `json:"layers"` // topmost first
	Config Config  `json:"config"`
	// RawConfig is the configuration as it came.
	RawConfig []byte `json:"-"`

	asked string // what it was looked up by, as Name gives it
}

// Config is what an image says of the processes that run in it (OCI image
// specification, "Image Configuration").
type Config struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   Words               `json:"Entrypoint,omitempty"`
	Cmd          Words               `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
}

// LayerDirs returns the directories to mount, topmost first. A layer that hides
// everything beneath it is the last: what is stacked at the root is seen always. Of a layer that the image
// has several times (an empty one, mostly) the topmost counts: it decides about every name that it has, and
// what the others have are the same names.
func (i *Image) LayerDirs() []string {
	var dirs []string
	for _, l := range i.Layers {
		if slices.Contains(dirs, l.Dir) {
			continue
		}
		dirs = append(dirs, l.Dir)
		if l.Opaque {
			break
		}
	}
	return dirs
}

// Name returns what the image was asked for by: a name, in full, or the short id. In a list that is the first
// name, or the short id of an image without names.
func (i *Image) Name() string {
	if i.asked != "" {
		return i.asked
	}
	if len(i.Names) > 0 {
		return i.Names[0]
	}
	return ShortID(i.ID)
}

// ShortID returns the first 12 digits of an id.
func ShortID(id string) string {
	id = strings.TrimPrefix(id, digestPrefix)
	return id[:min(12, len(id))]
}

const digestPrefix = "sha256:"

// imageRecord is images/HEX/image.json.
type imageRecord struct {
	Layers []string  `json:"layers"` // names of directories in layers/, topmost first
	Loaded time.Time `json:"loaded"`
	Source string    `json:"source,omitempty"`
	// Manifest is the digest under which the source had it.
	Manifest string `json:"manifest,omitempty"`
	// Digests are others: of indexes, and of the same image in another form.
	Digests []string `json:"digests,omitempty"`
}

// digests returns all that the image is known under.
func (r *imageRecord) digests() []string {
	var all []string
	for _, d := range append([]string{r.Manifest}, r.Digests...) {
		if d != "" && !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return all
}

// imageConfig is what is read of images/HEX/config.json here.
type imageConfig struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Variant      string    `json:"variant"`
	Config       Config    `json:"config"`
	RootFS       struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// Image returns the image that ref means: a name, a name with the digest of a manifest or an index, an id, or
// the beginning of one. If there is none, the error matches [ErrNotFound].
func (s *Store) Image(ref string) (img *Image, err error) {
	err = s.View(func() error {
		img, err = s.lookup(ref)
		return err
	})
	return img, err
}

// Images returns all images, those with names first, by name.
func (s *Store) Images() (all []*Image, err error) {
	err = s.View(func() error {
		all, err = s.images()
		return err
	})
	return all, err
}

// images returns those whose records can be read, and tells about the others.
func (s *Store) images() ([]*Image, error) {
	n, damage, err := s.namesIfAny()
	if err != nil {
		return nil, err
	}
	if damage != nil {
		s.tell(damage)
	}
	ids, err := s.imageIDs()
	if err != nil {
		return nil, err
	}
	all := make([]*Image, 0, len(ids))
	for _, id := range ids {
		img, err := s.readImage(id, n)
		if s.leftOut(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, img)
	}
	sort.SliceStable(all, func(i, j int) bool {
		a, b := all[i], all[j]
		if (len(a.Names) > 0) != (len(b.Names) > 0) {
			return len(a.Names) > 0
		}
		return a.Name() < b.Name()
	})
	return all, nil
}

// imageIDs returns the ids of all images.
func (s *Store) imageIDs() ([]string, error) {
	entries, err := os.ReadDir(s.Path("images"))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && idForm().MatchString(e.Name()) {
			ids = append(ids, digestPrefix+e.Name())
		}
	}
	return ids, nil
}

// imagePath returns the directory of an image, or a path in it.
func (s *Store) imagePath(id string, elem ...string) string {
	return s.Path(append([]string{"images", strings.TrimPrefix(id, digestPrefix)}, elem...)...)
}

// readImage reads the record of an image; what is wrong with it is a [Damage].
func (s *Store) readImage(id string, n names) (*Image, error) {
	if !isID(id) {
		return nil, fmt.Errorf("%s: %q is no id", s.Path("images", "names.json"), id)
	}
	if !isDir(s.imagePath(id)) {
		return nil, fmt.Errorf("image %s (%s) is not there any more: load or pull it again, or take the name away with plyfs image rm: %w", strings.Join(n.of(id), ", "), ShortID(id), ErrNotFound)
	}
	raw, c, err := s.readConfig(id, n)
	if err != nil {
		return nil, err
	}
	damage := s.imageDamage(id, n, s.imagePath(id, "image.json"))
	var rec imageRecord
	if err := readRecord(damage, &rec, "layers"); err != nil {
		return nil, err
	}
	if err := rec.fits(c); err != nil {
		return nil, damage.of(err)
	}
	img := &Image{ID: id, Names: n.of(id), Created: c.Created, Loaded: rec.Loaded, Source: rec.Source, Manifest: rec.Manifest, Digests: rec.digests(),
		OS: c.OS, Arch: c.Architecture, Variant: c.Variant, Config: c.Config, RawConfig: raw}
	for _, dir := range rec.Layers {
		l, err := s.readLayer(dir)
		if err != nil {
			if of := damageOf(err); of != nil {
				err = s.imageDamage(id, n, of.Path).of(of.Why)
			}
			return nil, err
		}
		if !slices.ContainsFunc(img.Layers, func(o Layer) bool { return o.name == l.name }) {
			img.Size += l.Size
		}
		img.Layers = append(img.Layers, *l)
	}
	return img, nil
}

// readConfig reads an image's configuration, which must be what the id says.
func (s *Store) readConfig(id string, n names) ([]byte, *imageConfig, error) {
	damage := s.imageDamage(id, n, s.imagePath(id, "config.json"))
	raw, err := readFile(damage.Path)
	if err != nil {
		return nil, nil, damage.of(err)
	}
	if got := image.Digest(raw); got != id {
		return nil, nil, damage.of(fmt.Errorf("its digest is %s", got))
	}
	c, err := parseConfig(raw)
	return raw, c, damage.of(err)
}

// fits reports what is wrong with the record for an image of that configuration.
func (r *imageRecord) fits(c *imageConfig) error {
	ids := c.RootFS.DiffIDs
	if len(r.Layers) != len(ids) {
		return fmt.Errorf("it has %d layers instead of %d", len(r.Layers), len(ids))
	}
	for i, name := range r.Layers {
		if layerName(name) != nil || layerDigest(name) != ids[len(ids)-1-i] {
			return fmt.Errorf("%q is not its layer", name)
		}
	}
	return nil
}

// isID reports whether id is one, in full.
func isID(id string) bool {
	hex, ok := strings.CutPrefix(id, digestPrefix)
	return ok && idForm().MatchString(hex)
}

func sortNames(list []string) { sort.Strings(list) }
