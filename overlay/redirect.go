package overlay

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// fromRoots goes on below the layer with number index at the path of an absolute
// redirect, from the roots of the layers: the parent's own parts count no more
// (kernel: ovl_lookup, ovl_lookup_layer).
func (s *search) fromRoots(index int) error {
	s.rooted = true
	for {
		path := strings.Trim(s.absolute, "/")
		s.absolute = ""
		again := false
		for i, t := range s.fs.lowers {
			if t.Index <= index {
				continue
			}
			last := i == len(s.fs.lowers)-1
			w := s.fs.descend(t, path, last)
			path = w.next
			if w.dir != nil {
				s.name = w.name
				more, err := s.try(w.dir, false, last)
				if err != nil || !more {
					return err
				}
				if s.absolute != "" {
					index, again = t.Index, true
					break
				}
				path = w.next[:len(w.next)-len(w.name)] + s.name // redirected within its directory, perhaps
			}
			if w.stop {
				return nil
			}
		}
		if !again {
			return nil
		}
	}
}

// way is what became of a path in one layer.
type way struct {
	dir  *layer.Dir // that may hold the last element, name; nil: the layer does not have it
	name string
	next string // the path to look at in the next layer
	stop bool   // there is no next one
}

// descend goes along a path, without slashes at its ends, from the root of one layer to the directory
// of its last element. The marks of the directories on the way count as they do in a
// lookup: opaque ones and whiteouts end the search, a redirect changes the path in the layers below.
func (fs *FS) descend(t *layer.Tree, path string, last bool) way {
	d := t.Root
	prefix, rest := "", path
	w := way{}
	for {
		elem, after, more := strings.Cut(rest, "/")
		if !more {
			w.dir, w.name, w.next = d, elem, prefix+elem
			return w
		}
		w.next = prefix + rest
		fd, err := d.FD()
		if err != nil {
			return w
		}
		as, abs := elem, false
		var st Attr
		err = layer.Stat(fd, elem, &st)
		isDir := err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
		if isDir && !last {
			if fs.opaqueAt(fd, elem, false) == whiteout.OpaqueYes {
				w.stop = true
			} else {
				as, abs = fs.redirectOf(fd, elem)
			}
		}
		d.Done()
		if !isDir {
			w.stop = w.stop || err == nil // a whiteout, or a file that hides what is below
			return w
		}
		if abs {
			w.stop, prefix = false, ""
		}
		prefix += as + "/"
		d, rest = d.Child(elem), after
	}
}

// redirectOf returns under which name, or path from the root, layers below have the directory elem.
func (fs *FS) redirectOf(fd int, elem string) (as string, absolute bool) {
	if fs.cfg.NoFollow {
		return elem, false
	}
	var buf [4096]byte
	r, err := whiteout.ParseRedirect(fs.mark(fd, elem, "redirect", buf[:]))
	if err != nil || r.Path == "" {
		return elem, false
	}
	return strings.Trim(r.Path, "/"), r.Absolute
}

// walk finds the directory that holds the last element of path in one layer, without
// following links; whiteouts and opaque marks on the way are those of other layers.
func (fs *FS) walk(t *layer.Tree, path string) (*layer.Dir, string, bool) {
	d := t.Root
	path = strings.Trim(path, "/")
	for {
		elem, rest, more := strings.Cut(path, "/")
		if !more {
			return d, elem, elem != ""
		}
		fd, err := d.FD()
		if err != nil {
			return nil, "", false
		}
		var st Attr
		err = layer.Stat(fd, elem, &st)
		d.Done()
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil, "", false
		}
		d, path = d.Child(elem), rest
	}
}
