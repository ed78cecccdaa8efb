package main

import (
	"errors"
	"fmt"

	"github.com/plyfs/plyfs/layer/store"
)

var imageRmCmd = command{
	name:  "image rm",
	args:  "IMAGE...",
	short: "take away a name, and with the last one the image",
	run:   runImageRm,
}

var imagePruneCmd = command{
	name:  "image prune",
	short: "take away images without a name, and layers without an image",
	run:   runImagePrune,
}

var imageTagCmd = command{
	name:  "image tag",
	args:  "IMAGE NAME",
	short: "give an image a further name",
	run:   runImageTag,
}

func runImageRm(c *command, args []string) error {
	f := c.flags()
	force := f.BoolP("force", "f", false, "also an image that has several names")
	asJSON := f.Bool("json", false, "print JSON")
	root := storeFlag(f)
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	all := store.Removed{Names: []string{}, Images: []string{}, Layers: []string{}}
	err = eachName(f.Args(), "image rm", func(ref string) error {
		r, err := s.RemoveImage(ref, *force)
		if r == nil {
			return err
		}
		all.Add(r)
		if !*asJSON {
			printRemoved(r)
		}
		return err
	})
	if *asJSON {
		err = errors.Join(printJSON(&all), err)
	}
	return err
}

func runImagePrune(c *command, args []string) error {
	f := c.flags()
	all := f.BoolP("all", "a", false, "all images that no container uses")
	f.BoolP("force", "f", false, "has no effect: it never asks")
	asJSON := f.Bool("json", false, "print JSON")
	root := storeFlag(f)
	if err := c.parse(f, args, 0, 0); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	r, err := s.Prune(*all)
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(r)
	}
	printRemoved(r)
	return nil
}

func printRemoved(r *store.Removed) {
	for _, n := range r.Names {
		fmt.Fprintln(stdout, "name", n)
	}
	for _, id := range r.Images {
		fmt.Fprintln(stdout, "image", store.ShortID(id))
	}
	for _, id := range r.Layers {
		fmt.Fprintln(stdout, "layer", store.ShortID(id))
	}
	if len(r.Layers) > 0 {
		fmt.Fprintln(stdout, bytesText(r.Size), "removed")
	}
}

func runImageTag(c *command, args []string) error {
	f := c.flags()
	asJSON := f.Bool("json", false, "print JSON")
	root := storeFlag(f)
	if err := c.parse(f, args, 2, 2); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	full, err := s.Tag(f.Arg(0), f.Arg(1))
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(map[string]string{"name": full})
	}
	fmt.Fprintln(stdout, full)
	return nil
}
