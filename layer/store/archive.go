package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer/image"
)

// Archive writes the tar archive of a layer, as it was when it was unpacked, and checks
// that it is still the same.
func (l *Layer) Archive(s *Store, w io.Writer) error {
	dir := s.Path("layers", l.name)
	recipe, err := os.Open(dir + "/recipe.gz")
	if err != nil {
		return err
	}
	defer recipe.Close()
	root, err := unix.Open(dir+"/tree", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir + "/tree", Err: err}
	}
	defer unix.Close(root)
	sum := sha256.New()
	if err := image.Rebuild(recipe, root, io.MultiWriter(sum, w)); err != nil {
		return fmt.Errorf("layer %s: %w", ShortID(l.DiffID), err)
	}
	if got := digestPrefix + hex.EncodeToString(sum.Sum(nil)); got != l.DiffID {
		return fmt.Errorf("layer %s: %w: its files in %s were changed", ShortID(l.DiffID), image.ErrDigest, dir)
	}
	return nil
}

// rebuild checks a layer by its name.
func (s *Store) rebuild(name string) error {
	l, err := s.readLayer(name)
	if err != nil {
		return err
	}
	return l.Archive(s, io.Discard)
}
