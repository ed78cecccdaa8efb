package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/plyfs/plyfs/layer/image"
)

// CommitOptions say what a new image is to be.
type CommitOptions struct {
	Name     string // "" for none
	BaseName string // what the user calls the base; said of the image's source as long as it is true
	Author   string
	Comment  string
	Progress Progress
}

// Commit makes an image of changes to the image base: its layers, and the changes as a
// further one.
func (s *Store) Commit(ctx context.Context, base string, changes *image.Layer, o CommitOptions) (*Image, error) {
	img, err := s.Image(base)
	if err != nil {
		return nil, err
	}
	if named, err := s.Image(o.BaseName); err == nil && named.ID == img.ID {
		img = named
	}
	var names []string
	if o.Name != "" {
		names = []string{o.Name}
		if _, err := ParseName(o.Name); err != nil {
			return nil, err
		}
	}
	a := &adder{s: s, ns: s.namespace(), progress: o.Progress}
	defer a.release()
	out, err := a.commit(ctx, img, changes, names, &o)
	if err != nil {
		a.release()
		a.undo()
		return nil, s.Explain(err)
	}
	return out, nil
}

func (a *adder) commit(ctx context.Context, base *Image, changes *image.Layer, names []string, o *CommitOptions) (*Image, error) {
	rec := imageRecord{Loaded: time.Now().UTC().Round(time.Second), Source: "commit of " + base.Name()}
	var dirs []string
	for _, l := range base.Layers {
		ok, err := a.s.hold(a, l.name)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("image %s was removed meanwhile", base.Name())
		}
		rec.Layers = append(rec.Layers, l.name)
		dirs = append(dirs, l.Dir)
	}
	if a.progress != nil {
		a.progress.Layer(1, 1, "", -1)
	}
	name, had, err := a.layer(ctx, changes, dirs)
	if err != nil {
		return nil, err
	}
	if a.progress != nil {
		a.progress.Done(had)
	}
	rec.Layers = append([]string{name}, rec.Layers...)
	l, err := a.s.readLayer(name)
	if err != nil {
		return nil, err
	}
	config, err := commitConfig(base.RawConfig, l.DiffID, o, time.Now())
	if err != nil {
		return nil, err
	}
	var full []string
	for _, n := range names {
		f, err := ParseName(n)
		if err != nil {
			return nil, err
		}
		full = append(full, f)
	}
	return a.record(config, &rec, full)
}

func (s *Store) hold(a *adder, name string) (bool, error) {
	release, ok, err := s.holdLayer(name)
	if ok {
		a.held = append(a.held, release)
	}
	return ok, err
}

// commitConfig adds a layer to a configuration and leaves everything else in it as it is,
// whether it is known here or not.
func commitConfig(raw []byte, diffID string, o *CommitOptions, now time.Time) ([]byte, error) {
	var c map[string]json.RawMessage
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, err
	}
	var root struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	if err := json.Unmarshal(c["rootfs"], &root); err != nil {
		return nil, fmt.Errorf("configuration: rootfs: %w", err)
	}
	root.Type, root.DiffIDs = "layers", append(root.DiffIDs, diffID)
	var history []json.RawMessage
	if h, ok := c["history"]; ok {
		if err := json.Unmarshal(h, &history); err != nil {
			return nil, fmt.Errorf("configuration: history: %w", err)
		}
	}
	when := now.UTC().Round(time.Second)
	entry := map[string]any{"created": when, "created_by": "plyfs commit"}
	if o.Author != "" {
		entry["author"] = o.Author
	}
	if o.Comment != "" {
		entry["comment"] = o.Comment
	}
	e, err := json.Marshal(entry)
	if err != nil {
		return nil, err
	}
	set := map[string]any{"rootfs": root, "created": when}
	// A history that does not have an entry for each layer is better left alone.
	if len(history) > 0 || len(root.DiffIDs) == 1 {
		set["history"] = append(history, e)
	}
	if o.Author != "" {
		set["author"] = o.Author
	}
	for k, v := range set {
		if c[k], err = json.Marshal(v); err != nil {
			return nil, err
		}
	}
	return json.Marshal(c)
}
