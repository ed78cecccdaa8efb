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
	Implied map[string]image.Meta `json:"implied,omitempty"`
}

// layerName checks the name of a directory in layers/.
func layerName(name string) error {
	hex, _, _ := strings.Cut(name, ".")
	if !idForm().MatchString(hex) || strings.ContainsRune(name, '/') {
		return fmt.Errorf("%q is no layer", name)
	}
	return nil
}

func (s *Store) readLayer(name string) (*Layer, error) {
	if err := layerName(name); err != nil {
		return nil, err
	}
	var rec layerRecord
	if err := ReadJSON(s.Path("layers", name, "layer.json"), &rec); err != nil {
		return nil, fmt.Errorf("layer %s: %w", ShortID(name), err)
	}
	return &Layer{DiffID: rec.DiffID, Dir: s.Path("layers", name, "tree"), Size: rec.Size, Files: rec.Files, Notes: rec.Notes, Opaque: rec.Opaque, name: name}, nil
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
