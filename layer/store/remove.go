package store

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Removed says what was taken away.
type Removed struct {
	Names  []string `json:"names"`  // names that mean nothing any more
	Images []string `json:"images"` // ids
	Layers []string `json:"layers"` // diff ids
	Size   int64    `json:"size"`   // of the layers, in bytes
}

// Add adds what another removal took away.
func (r *Removed) Add(o *Removed) {
	r.Names = append(r.Names, o.Names...)
	r.Images = append(r.Images, o.Images...)
	r.Layers = append(r.Layers, o.Layers...)
	r.Size += o.Size
}

// Tag gives the image that ref means a further name, which may have meant another one
// before. It returns the name in full.
func (s *Store) Tag(ref, name string) (full string, err error) {
	if full, err = ParseName(name); err != nil {
		return "", err
	}
	return full, s.Explain(s.Update(func() error {
		img, err := s.lookup(ref)
		if err != nil {
			return err
		}
		n, err := s.readNames()
		if err != nil {
			return err
		}
		n[full] = img.ID
		return s.writeNames(n)
	}))
}

// RemoveImage takes a name away, and with the last name of an image the image, and with the
// last image of a layer the layer. An id takes the image away with its name; one that has
// several, only with force. What a container uses stays: that is an error that names the containers.
func (s *Store) RemoveImage(ref string, force bool) (*Removed, error) {
	return s.remove(func(r *remover) error {
		id, asked, err := s.resolve(ref, r.names)
		if err != nil {
			return err
		}
		names := r.names.of(id)
		if _, is := r.names[asked]; is && len(names) > 1 {
			return r.untag(asked)
		}
		if len(names) > 1 && !force {
			return fmt.Errorf("image %s has %d names (%s): remove those, or use force", ShortID(id), len(names), strings.Join(names, ", "))
		}
		if users := r.users[id]; len(users) > 0 {
			return fmt.Errorf("image %s is used by %s: remove the containers first", asked, strings.Join(users, ", "))
		}
		if len(r.unknown) > 0 {
			return fmt.Errorf("image %s may be in use: %w", asked, r.unknown[0])
		}
		return r.image(id)
	})
}

// Prune takes away the images that no container uses and that have no name (all: names or
// not), and the layers that no image has. What a damaged record may use stays.
func (s *Store) Prune(all bool) (*Removed, error) {
	return s.remove(func(r *remover) error {
		images, err := s.images()
		if err != nil {
			return err
		}
		if len(r.unknown) > 0 { // a container that may use any of them
			s.tell(r.unknown...)
			return nil
		}
		for _, img := range images {
			if len(r.users[img.ID]) > 0 || len(img.Names) > 0 && !all {
				continue
			}
			if err := r.image(img.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// remover takes things away while the store is locked: it moves them to a bin, which
// is emptied after the lock is gone.
type remover struct {
	s     *Store
	bin   *bin
	names names
	users map[string][]string
	only  map[string]bool // the layers to look at, which were not there before; nil for all
	done  Removed

	unknown []*Damage // containers that may use any image
}

func (s *Store) remove(f func(*remover) error) (*Removed, error) {
	b, err := s.newBin()
	if err != nil {
		return nil, err
	}
	r := &remover{s: s, bin: b, done: Removed{Names: []string{}, Images: []string{}, Layers: []string{}}}
	err = s.Update(func() (err error) {
		if r.names, err = s.readNames(); err != nil {
			return err
		}
		if r.users, r.unknown, err = s.imageUsers(); err != nil {
			return err
		}
		if err := f(r); err != nil {
			return err
		}
		return r.layers()
	})
	if e := b.Close(); err == nil {
		err = e
	}
	return &r.done, err
}

// untag takes names away.
func (r *remover) untag(list ...string) error {
	if len(list) == 0 {
		return nil
	}
	for _, name := range list {
		delete(r.names, name)
	}
	r.done.Names = append(r.done.Names, list...)
	err := r.s.writeNames(r.names)
	if path := r.s.Path("images", "names.json"); noRoom(err) && overwriteJSON(path, r.names) == nil {
		return nil
	}
	return err
}

// image takes an image away, names first: a name must never mean what is not there.
func (r *remover) image(id string) error {
	if err := r.untag(r.names.of(id)...); err != nil {
		return err
	}
	if !isID(id) || !isDir(r.s.imagePath(id)) {
		return nil // a name of nothing
	}
	r.done.Images = append(r.done.Images, id)
	return r.move("images", strings.TrimPrefix(id, digestPrefix))
}

func (r *remover) move(kind, name string) error {
	return r.bin.take(r.s.Path(kind, name))
}

// layers takes away the layers that no image has and that nobody holds.
func (r *remover) layers() error {
	used, known, err := r.s.usedLayers(r.names)
	if err != nil {
		return err
	}
	if !known && r.only == nil {
		return nil
	}
	all, err := r.s.layerNames()
	if err != nil {
		return err
	}
	for _, name := range all {
		if used(name) || r.only != nil && !r.only[name] {
			continue
		}
		if err := r.layer(name); err != nil {
			return err
		}
	}
	return nil
}

func (r *remover) layer(name string) error {
	path := r.s.Path("layers", name)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		return nil // somebody is about to name it
	} else if err != nil {
		return &os.PathError{Op: "lock", Path: path, Err: err}
	}
	if l, err := r.s.readLayer(name); err == nil { // damaged, it is as useless
		r.done.Size += l.Size
	}
	r.done.Layers = append(r.done.Layers, layerDigest(name))
	return r.move("layers", name)
}

// HoldImage keeps the layers of an image from being removed until release is called or the
// process ends. The image itself may lose its names, and go.
func (s *Store) HoldImage(img *Image) (release func(), err error) {
	var held []func()
	release = func() {
		for _, f := range held {
			f()
		}
	}
	for i, l := range img.Layers {
		if slices.ContainsFunc(img.Layers[:i], func(o Layer) bool { return o.name == l.name }) {
			continue
		}
		f, ok, err := s.holdLayer(l.name)
		if err == nil && !ok {
			err = fmt.Errorf("image %s: layer %s: %w", img.Name(), ShortID(l.DiffID), ErrNotFound)
		}
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, f)
	}
	return release, nil
}

// holdLayer keeps a layer from being removed until the function it returns is called. It
// reports false if there is no such layer.
func (s *Store) holdLayer(name string) (release func(), ok bool, err error) {
	path := s.Path("layers", name)
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err == unix.ENOENT {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, &os.PathError{Op: "open", Path: path, Err: err}
		}
		if err := flock(fd, unix.LOCK_SH); err != nil {
			unix.Close(fd)
			return nil, false, &os.PathError{Op: "lock", Path: path, Err: err}
		}
		if same(fd, path) {
			return func() { unix.Close(fd) }, true, nil
		}
		unix.Close(fd) // removed while we waited
	}
}
