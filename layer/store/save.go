package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plyfs/plyfs/layer/image"
)

// Save writes images as an OCI image layout: into the new directory to, or with archive
// as a tar file; "-" is standard output. What is at to is replaced only by
// something whole, and a directory not at all.
func (s *Store) Save(ctx context.Context, refs []string, to string, archive bool) error {
	var list []image.Saved
	var held []func()
	defer func() {
		for _, f := range held {
			f()
		}
	}()
	at := map[string]int{} // by id: where in list
	for _, ref := range refs {
		img, err := s.Image(ref)
		if err != nil {
			return err
		}
		names := savedNames(img)
		if i, ok := at[img.ID]; ok {
			for _, n := range names {
				if !slices.Contains(list[i].Names, n) {
					list[i].Names = append(list[i].Names, n)
				}
			}
			continue
		}
		at[img.ID] = len(list)
		out := image.Saved{Names: names, Config: img.RawConfig}
		for i := range img.Layers {
			l := &img.Layers[len(img.Layers)-1-i]
			release, ok, err := s.holdLayer(l.name)
			if err != nil {
				return err
			}
			if !ok {
				return fmt.Errorf("%s was removed meanwhile", ref)
			}
			held = append(held, release)
			out.Layers = append(out.Layers, image.SavedLayer{DiffID: l.DiffID, Write: func(w io.Writer) error { return l.Archive(s, w) }})
		}
		list = append(list, out)
	}
	if !archive {
		return saveDir(ctx, list, to)
	}
	stage, err := s.Stage("save")
	if err != nil {
		return err
	}
	defer stage.Close()
	if err := image.WriteLayout(ctx, stage.Dir, list, true); err != nil {
		return explain(err, s.root)
	}
	if to == "-" {
		return image.TarLayout(ctx, stage.Dir, os.Stdout)
	}
	return replace(to, func(f *os.File) error { return image.TarLayout(ctx, stage.Dir, f) })
}

// savedNames returns the names that an image has in a layout: the one that it was asked for by, or else all. What is
// saved has another digest than what was pulled.
func savedNames(img *Image) []string {
	if slices.Contains(img.Names, img.asked) && !strings.Contains(img.asked, "@") {
		return []string{img.asked}
	}
	return slices.DeleteFunc(slices.Clone(img.Names), func(n string) bool { return strings.Contains(n, "@") })
}

func saveDir(ctx context.Context, list []image.Saved, to string) error {
	if _, err := os.Lstat(to); err == nil {
		// An empty directory may be replaced: rename(2) does that.
		if entries, err := os.ReadDir(to); err != nil || len(entries) > 0 {
			return fmt.Errorf("%s: there is something already", to)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(to), "."+filepath.Base(to)+"-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // nothing is there once it is renamed
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := image.WriteLayout(ctx, dir, list, false); err != nil {
		return err
	}
	return os.Rename(dir, to)
}

// replace writes a file beside path and renames it there. A device or a pipe is written to.
func replace(path string, write func(f *os.File) error) error {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return write(f)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
