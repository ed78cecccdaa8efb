package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"unicode/utf8"

	"github.com/plyfs/plyfs/layer"
)

// Names need not be UTF-8, as strings of JSON are: see layer.NotText. Between daemon and command, and in what
// --json prints, the bytes of such names are beside them.

// inJSON is json.Marshal without its care for HTML, as in printJSON.
func inJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// restore gives a name its bytes back.
func restore(name *string, b []byte) {
	if b != nil {
		*name = string(b)
	}
}

// areText refuses what would be something else in the record of a container, and on its way to whoever runs a command:
// both are JSON. The first that is not UTF-8 is named.
func areText(lists ...[]string) error {
	for _, s := range slices.Concat(lists...) {
		if !utf8.ValidString(s) {
			return usagef("%s: no UTF-8, which is all that a container's record can hold", oneLine(s))
		}
	}
	return nil
}

type (
	plainExplanation explanation
	explanationJSON  struct {
		plainExplanation
		PathBytes []byte `json:"path_bytes,omitempty"`
	}
	plainPart part
	partJSON  struct {
		plainPart
		DirBytes  []byte `json:"dir_bytes,omitempty"`
		NameBytes []byte `json:"name_bytes,omitempty"`
	}
	plainAbout about
	aboutJSON  struct {
		plainAbout
		MountpointBytes []byte   `json:"mountpoint_bytes,omitempty"`
		LowersBytes     [][]byte `json:"lowers_bytes,omitempty"`
		DataLowersBytes [][]byte `json:"data_lowers_bytes,omitempty"`
		UpperBytes      []byte   `json:"upper_bytes,omitempty"`
	}
)

func (e explanation) MarshalJSON() ([]byte, error) {
	return inJSON(explanationJSON{plainExplanation(e), layer.NotText(e.Path)})
}

func (e *explanation) UnmarshalJSON(b []byte) error {
	var x explanationJSON
	err := json.Unmarshal(b, &x)
	*e = explanation(x.plainExplanation)
	restore(&e.Path, x.PathBytes)
	return err
}

func (p part) MarshalJSON() ([]byte, error) {
	return inJSON(partJSON{plainPart(p), layer.NotText(p.Dir), layer.NotText(p.Name)})
}

func (p *part) UnmarshalJSON(b []byte) error {
	var x partJSON
	err := json.Unmarshal(b, &x)
	*p = part(x.plainPart)
	restore(&p.Dir, x.DirBytes)
	restore(&p.Name, x.NameBytes)
	return err
}

func (a about) MarshalJSON() ([]byte, error) {
	return inJSON(aboutJSON{plainAbout(a), layer.NotText(a.Mountpoint), notTexts(a.Lowers), notTexts(a.DataLowers), layer.NotText(a.Upper)})
}

func (a *about) UnmarshalJSON(b []byte) error {
	var x aboutJSON
	err := json.Unmarshal(b, &x)
	*a = about(x.plainAbout)
	restore(&a.Mountpoint, x.MountpointBytes)
	restore(&a.Upper, x.UpperBytes)
	restoreAll(a.Lowers, x.LowersBytes)
	restoreAll(a.DataLowers, x.DataLowersBytes)
	return err
}

func restoreAll(names []string, all [][]byte) {
	for i, b := range all[:min(len(names), len(all))] {
		restore(&names[i], b)
	}
}

// notTexts is nil if all names are UTF-8, else it has those that are not at their places.
func notTexts(names []string) [][]byte {
	var out [][]byte
	for i, name := range names {
		if b := layer.NotText(name); b != nil {
			if out == nil {
				out = make([][]byte, len(names))
			}
			out[i] = b
		}
	}
	return out
}

func (c change) MarshalJSON() ([]byte, error) {
	type plain change
	return inJSON(struct {
		plain
		PathBytes []byte `json:"path_bytes,omitempty"`
	}{plain(c), layer.NotText(c.Path)})
}

func (b branch) MarshalJSON() ([]byte, error) {
	type plain branch
	return inJSON(struct {
		plain
		NameBytes []byte `json:"name_bytes,omitempty"`
	}{plain(b), layer.NotText(b.Name)})
}

func (f finding) MarshalJSON() ([]byte, error) {
	type plain finding
	return inJSON(struct {
		plain
		PathBytes []byte `json:"path_bytes,omitempty"`
	}{plain(f), layer.NotText(f.Path)})
}

func (r layerReport) MarshalJSON() ([]byte, error) {
	type plain layerReport
	return inJSON(struct {
		plain
		LayerBytes []byte `json:"layer_bytes,omitempty"`
	}{plain(r), layer.NotText(r.Layer)})
}
