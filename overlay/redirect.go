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
// For the last layer of a search they are not read, as there is no next one.
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
				as, abs = fs.redirectOf(fd, elem, elem)
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

// redirectOf returns under which name, or path from the root, layers below have name in fd, which is called
// elem here.
func (fs *FS) redirectOf(fd int, name, elem string) (as string, absolute bool) {
	if fs.cfg.NoFollow {
		return elem, false
	}
	var buf [4096]byte
	v := fs.mark(fd, name, "redirect", buf[:])
	if len(v) == 0 {
		return elem, false
	}
	r, err := whiteout.ParseRedirect(v)
	if err != nil {
		return elem, false
	}
	return strings.Trim(r.Path, "/"), r.Absolute
}

// setRedirect records, on the object called real in s.fd, where its lower part is (kernel:
// ovl_set_redirect). An absolute redirect stays as it is; within one directory the name is
// enough. fs.renames is held.
func (fs *FS) setRedirect(s *side, real string, same bool) error {
	var buf [4096]byte
	old := fs.mark(s.fd, real, "redirect", buf[:])
	if len(old) > 0 && (old[0] == '/' || same) {
		return nil
	}
	to := s.name
	if !same {
		var err error
		if to, err = fs.lowerPath(s, real); err != nil {
			return err
		}
	}
	if err := fs.markMoves(); err != nil {
		return err
	}
	return fs.setMark(s.fd, real, "redirect", []byte(to))
}

// lowerPath returns the path under which the lower layers, seen as one tree, have the object called real in
// s.fd: that in the view, but for directories that moved (kernel: ovl_get_redirect).
func (fs *FS) lowerPath(s *side, real string) (string, error) {
	path, abs := fs.redirectOf(s.fd, real, s.name)
	for n := s.parent; !abs && n != fs.root; {
		if n == nil {
			return "", unix.ENOENT
		}
		parent, elem := fs.viewPlace(n)
		if up := n.d.upper.Load(); up != nil {
			fd, err := up.FD()
			if err != nil {
				return "", err
			}
			elem, abs = fs.redirectOf(fd, "", elem)
			up.Done()
		}
		path = elem + "/" + path
		n = parent
	}
	if len(path) > 4094 {
		return "", unix.EXDEV // more than is read of a mark
	}
	return "/" + path, nil
}

// walk finds the directory that holds the last element of path in one layer, without
// following links; whiteouts and opaque marks on the way are those of other layers.
func (fs *FS) walk(t *layer.Tree, path string) (*layer.Dir, string, bool) {
	w := fs.descend(t, strings.Trim(path, "/"), true)
	return w.dir, w.name, w.name != ""
}
