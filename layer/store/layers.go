package store

import (
	"fmt"
	"os"
	"strings"

	"github.com/plyfs/plyfs/layer/image"
)

// Layer is one unpacked layer.
type Layer struct {
	DiffID string `json:"diff_id"` // "sha256:" and the digest of its tar archive
	Dir    string `json:"dir"`     // the directory to mount
	Size   int64  `json:"size"`    // of its files' contents, in bytes
	Files  int64  `json:"files"`   // entries of the archive
	// Notes say what could not be unpacked as it was: devices, for an ordinary user.
	Notes []string `json:"notes,omitempty"`
	// Opaque says that nothing beneath the layer is seen.
	Opaque bool `json:"opaque,omitempty"`

	name string // of its directory in layers/
}

// layerRecord is layers/NAME/layer.json.
type layerRecord struct {
	DiffID string   `json:"diff_id"`
	Size   int64    `json:"size"`
	Files  int64    `json:"files"`
	Notes  []string `json:"notes,omitempty"`
	Opaque bool     `json:"opaque,omitempty"`
	// Implied are directories that the archive does not mention but has files in, with what
	// they were given: what the layers beneath had. Over other layers the same archive
	// may have to be unpacked again, to NAME.1 and so on.
	Implied image.Keys[image.Meta] `json:"implied,omitempty"`
}

// layerName checks the name of a directory in layers/.
func layerName(name string) error {
	hex, _, _ := strings.Cut(name, ".")
	if !idForm().MatchString(hex) || strings.ContainsRune(name, '/') {
		return fmt.Errorf("%q is no layer", name)
	}
	return nil
}

// layerDigest is the diff id of the layer in the directory of that name.
func layerDigest(name string) string {
	hex, _, _ := strings.Cut(name, ".")
	return digestPrefix + hex
}

func (s *Store) readLayer(name string) (*Layer, error) {
	if err := layerName(name); err != nil {
		return nil, err
	}
	rec, err := s.readLayerRecord(name)
	if err != nil {
		return nil, err
	}
	return &Layer{DiffID: rec.DiffID, Dir: s.Path("layers", name, "tree"), Size: rec.Size, Files: rec.Files, Notes: rec.Notes, Opaque: rec.Opaque, name: name}, nil
}

// readLayerRecord reads the record of a layer, and looks whether it is of what is there.
func (s *Store) readLayerRecord(name string) (*layerRecord, error) {
	var rec layerRecord
	path := s.Path("layers", name)
	damage := Damage{Kind: "layer", Name: ShortID(name), Path: path + "/layer.json", Help: "load an image again that has it"}
	if err := readRecord(damage, &rec, "diff_id", "size", "files"); err != nil {
		return nil, err
	}
	if rec.DiffID != layerDigest(name) {
		return nil, damage.of(fmt.Errorf("it is of %s", rec.DiffID))
	}
	if !isDir(path + "/tree") {
		return nil, damage.of(fmt.Errorf("there is no directory %s/tree", path))
	}
	return &rec, nil
}

// layerNames returns the names of all directories in layers/.
func (s *Store) layerNames() ([]string, error) {
	entries, err := os.ReadDir(s.Path("layers"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if layerName(e.Name()) == nil {
			out = append(out, e.Name())
		}
	}
	return out, nil
}
