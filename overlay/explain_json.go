package overlay

import (
	"encoding/json"

	"github.com/plyfs/plyfs/layer"
)

// Names need not be UTF-8, as strings of JSON are: see [layer.NotText].

// MarshalJSON implements json.Marshaler.
func (e Explanation) MarshalJSON() ([]byte, error) {
	type plain Explanation
	return json.Marshal(struct {
		plain
		PathBytes []byte `json:"path_bytes,omitempty"`
	}{plain(e), layer.NotText(e.Path)})
}

// MarshalJSON implements json.Marshaler.
func (p Part) MarshalJSON() ([]byte, error) {
	type plain Part
	return json.Marshal(struct {
		plain
		DirBytes  []byte `json:"dir_bytes,omitempty"`
		NameBytes []byte `json:"name_bytes,omitempty"`
	}{plain(p), layer.NotText(p.Dir), layer.NotText(p.Name)})
}
