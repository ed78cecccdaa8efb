package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer/store"
	"github.com/plyfs/plyfs/overlay"
	"github.com/plyfs/plyfs/overlay/copyout"
)

// fillVolumes gives the new volumes of a container what its image has at their targets.
func fillVolumes(s *store.Store, c *store.Container) error {
	for _, m := range c.Mounts {
		if m.Type != store.VolumeMount || m.NoCopy {
			continue
		}
		v, err := s.Volume(m.Source)
		if err != nil {
			return err
		}
		if v.Filled {
			continue
		}
		img, err := s.Image(c.Image)
		if err != nil {
			return err
		}
		if len(img.Layers) == 0 {
			continue
		}
		err = s.FillVolume(m.Source, func(dir string) (bool, error) { return copyFrom(imageView(img), m.Target, dir) })
		if err != nil {
			return err
		}
	}
	return nil
}

// imageView is the view of an image alone.
func imageView(img *store.Image) overlay.Config {
	config := overlay.DefaultConfig()
	config.Lowers = img.LayerDirs()
	return config
}

// copyFrom makes dir, an empty directory, what a view has at target. It reports false if there
// is nothing.
func copyFrom(config overlay.Config, target, dir string) (bool, error) {
	config.Log = func(string, ...any) {} // about the layers; the mount says it
	view, err := overlay.New(config)
	if err != nil {
		return false, err
	}
	defer view.Close()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	result, err := copyout.Tree(view, target, fd)
	if err != nil {
		return false, fmt.Errorf("copying %s of the image: %w", target, err)
	}
	for _, left := range result.Left {
		fmt.Fprintln(os.Stderr, "plyfs: "+oneLine(target+": not copied: "+left))
	}
	return result.Found, nil
}
