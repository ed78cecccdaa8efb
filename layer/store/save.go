package store

import (
	"context"
	"fmt"
	"io"
	"os"
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
	if to == "-" {
		w, done := abandonable(ctx, os.Stdout)
		return done(s.saveArchive(ctx, list, w))
	}
	// Before anything is packed it is known whether there is a place for it.
	t, err := newTarget(to)
	if err != nil {
		return err
	}
	if archive {
		return t.file(func(f *os.File) error { return s.saveArchive(ctx, list, f) })
	}
	return t.directory(func(dir string) error { return image.WriteLayout(ctx, dir, list, false) })
}

// abandonable returns a way to w that ends when the context does, also while a write waits for somebody who may never read:
// that write is left behind. done waits for what was written, with the error there was, and returns the first.
func abandonable(ctx context.Context, w io.Writer) (out io.Writer, done func(error) error) {
	r, p := io.Pipe()
	end := make(chan error, 1)
	go func() {
		_, err := io.Copy(w, r)
		r.CloseWithError(err)
		end <- err
	}()
	stop := context.AfterFunc(ctx, func() { r.CloseWithError(ctx.Err()) })
	return p, func(err error) error {
		defer stop()
		p.CloseWithError(err)
		if err != nil {
			return err
		}
		select {
		case err = <-end:
		case <-ctx.Done():
			err = ctx.Err()
		}
		return err
	}
}

// saveArchive writes images as a tar archive, by way of the store: how long a blob is has to be known before it.
func (s *Store) saveArchive(ctx context.Context, list []image.Saved, w io.Writer) error {
	stage, err := s.Stage("save")
	if err != nil {
		return err
	}
	defer stage.Close()
	if err := image.WriteLayout(ctx, stage.Dir, list, true); err != nil {
		return s.Explain(err)
	}
	return image.TarLayout(ctx, stage.Dir, w)
}

// savedNames returns the names that an image has in a layout: the one that it was asked for by, or else all. What is
// saved has another digest than what was pulled.
func savedNames(img *Image) []string {
	if slices.Contains(img.Names, img.asked) && !strings.Contains(img.asked, "@") {
		return []string{img.asked}
	}
	return slices.DeleteFunc(slices.Clone(img.Names), func(n string) bool { return strings.Contains(n, "@") })
}
