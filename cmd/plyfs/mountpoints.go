package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
	"github.com/plyfs/plyfs/cmd/plyfs/mountopt"
	"github.com/plyfs/plyfs/layer/store"
	"github.com/plyfs/plyfs/overlay"
	"github.com/plyfs/plyfs/overlay/graft"
)

// addMountPoints grafts an empty directory at each place where a running container has something of the
// kernel, and the view has nothing: made in the writable layer, they would be in every commit. It reports whether /tmp
// is one of them.
func addMountPoints(s *store.Store, c *store.Container, o *mountopt.Options, view *overlay.FS) (tmp bool, err error) {
	taken := map[string]bool{}
	for _, g := range o.Grafts {
		taken[g.Target] = true
	}
	empty := s.ContainerPath(c, "empty")
	for _, name := range cell.MountPoints {
		if taken["/"+name] {
			continue
		}
		switch there, err := hasName(o, view, name); {
		case err != nil:
			return false, err
		case there:
			continue
		}
		if name == "tmp" && slices.ContainsFunc(o.Grafts, func(g graft.Spec) bool { return strings.HasPrefix(g.Target, "/tmp/") }) {
			// One that is mounted over the view would hide what is to be seen in it.
			o.Grafts = append(o.Grafts, graft.Spec{Kind: graft.Tmpfs, Target: "/tmp"})
			continue
		}
		if err := os.Mkdir(empty, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return false, err
		}
		o.Grafts = append(o.Grafts, graft.Spec{Source: empty, Target: "/" + name, ReadOnly: true})
		tmp = tmp || name == "tmp"
	}
	return tmp, nil
}

// makeWorkDir makes the working directory of a container that will not be allowed to make it. tmp says that /tmp is not
// the view's.
func makeWorkDir(c *store.Container, tmp bool, view *graft.Union) error {
	if !c.ReadOnly || c.Dir == "" {
		return nil
	}
	where, err := view.Where(c.Dir)
	if err != nil {
		return nil // whoever enters it says why
	}
	top, _, _ := strings.Cut(strings.TrimPrefix(where, "/"), "/")
	if slices.Contains(cell.MountPoints, top) && (top != "tmp" || tmp) {
		return nil // what will be mounted there can be written to
	}
	if err := view.MkdirAll(where, 0o755); err != nil {
		return fmt.Errorf("working directory: mkdir %s: %w", c.Dir, err)
	}
	return nil
}

// hasName tells whether the root has a name: the layers have it, or what is grafted over them all.
func hasName(o *mountopt.Options, view *overlay.FS, name string) (bool, error) {
	for _, g := range o.Grafts {
		if g.Target == "/" {
			_, err := os.Lstat(cmp.Or(g.Path, g.Source) + "/" + name)
			return g.Kind != graft.Tmpfs && err == nil, nil
		}
	}
	var a overlay.Attr
	n, err := view.Lookup(nil, view.Root(), name, &a)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err == nil {
		view.Forget(n.ID(), 1)
	}
	return true, err
}
