package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/plyfs/plyfs/cmd/plyfs/mountopt"
	"github.com/plyfs/plyfs/layer/store"
	"github.com/plyfs/plyfs/layer/store/userns"
	"github.com/plyfs/plyfs/overlay/graft"
)

// openParts finds what a plain mount takes from the store: an image, a container, volumes. They
// stay until release is called, or the daemon ends.
func (s *service) openParts() (release func(), err error) {
	var held []func()
	all := func() {
		for i := len(held) - 1; i >= 0; i-- {
			held[i]()
		}
	}
	defer func() {
		if err != nil {
			all()
		}
	}()
	hold := func(f func(), err error) error {
		if err == nil {
			held = append(held, f)
		}
		return err
	}
	o := s.options
	if o.Image != "" {
		st, err := mountStore(o)
		if err != nil {
			return nil, err
		}
		img, err := st.Image(o.Image)
		if err != nil {
			return nil, err
		}
		if err := hold(st.HoldImage(img)); err != nil {
			return nil, err
		}
		o.Lowers = img.LayerDirs()
		if len(o.Lowers) == 0 {
			return nil, fmt.Errorf("image %s has no layers", o.Image)
		}
	}
	if o.Container != "" {
		if err := hold(s.openContainer()); err != nil {
			return nil, err
		}
	}
	for i := range o.Grafts {
		if g := &o.Grafts[i]; g.Kind == graft.Volume && g.Path == "" {
			if err := hold(s.openVolume(g)); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// mountStore opens the store for a mount, which makes none. An ordinary user stays who they
// are: a mount made in a user namespace could not be seen outside.
func mountStore(o *mountopt.Options) (*store.Store, error) {
	root := o.Root
	if root == "" {
		var err error
		if root, err = store.DefaultRoot(userns.Rootless()); err != nil {
			return nil, err
		}
	}
	if !store.Exists(root) {
		return nil, fmt.Errorf("%s: no store with images and volumes", root)
	}
	return store.Open(root)
}

// openVolume finds a volume and, if it is new, gives it what the layers have at its target.
func (s *service) openVolume(g *graft.Spec) (release func(), err error) {
	if g.Source == "" {
		return nil, fmt.Errorf("volume at %s: an anonymous volume belongs to a container; plyfs run makes one", g.Target)
	}
	st, err := mountStore(s.options)
	if err == nil {
		release, err = st.HoldVolume(g.Source)
	}
	if errors.Is(err, store.ErrNotFound) || err != nil && st == nil {
		return nil, fmt.Errorf("volume %s: there is no such volume (plyfs volume create makes one)", g.Source)
	}
	if err != nil {
		return nil, err
	}
	v, err := st.Volume(g.Source)
	if err == nil && !v.Filled && !g.NoCopy {
		layers := s.config()
		layers.Upper, layers.Work = "", ""
		err = st.FillVolume(g.Source, func(dir string) (bool, error) { return copyFrom(layers, g.Target, dir) })
	}
	if err != nil {
		release()
		return nil, err
	}
	g.Path = v.Dir
	return release, nil
}

// openContainer takes charge of a container that does not run, as its keeper would, to show its
// view somewhere else.
func (s *service) openContainer() (release func(), err error) {
	o := s.options
	st, err := mountStore(o)
	if err != nil {
		return nil, err
	}
	c, err := st.Container(o.Container)
	if err != nil {
		return nil, err
	}
	before, err := st.State(c)
	if err != nil {
		return nil, err
	}
	unlock, err := st.LockContainer(c)
	if err != nil {
		return nil, err
	}
	letGo := func() {}
	leave := func() {
		letGo()
		if err := st.SetState(c, before); err != nil {
			s.say("%v", err)
		}
		unlock()
	}
	defer func() {
		if err != nil {
			leave()
		}
	}()
	detachStale(st, c)
	now := time.Now().UTC().Truncate(time.Second)
	err = st.SetState(c, &store.State{Status: store.Mounted, Daemon: os.Getpid(), Started: &now, Mountpoint: s.mountpoint})
	if err != nil {
		return nil, err
	}
	img, err := st.Image(c.Image)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.Name, err)
	}
	hold, err := st.HoldImage(img)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.Name, err)
	}
	letGo = hold
	if err = fillVolumes(st, c); err != nil {
		return nil, err
	}
	box, err := containerOptions(st, c, img)
	if err != nil {
		return nil, err
	}
	o.Lowers, o.Upper, o.Work = box.Lowers, box.Upper, box.Work
	o.Grafts = append(box.Grafts, o.Grafts...)
	o.ReadOnly = o.ReadOnly || box.ReadOnly
	if o.Source == "" {
		o.Source = box.Source
	}
	return leave, nil
}
