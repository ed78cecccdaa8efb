package graft

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// point is a name in a directory of the view where a graft begins.
type point struct {
	parent Node
	name   string
	root   Node
	hides  bool // the parent has the name too; only asked of directories of the overlay
}

// synth is what a synthetic directory has besides: the place where it would be made, if
// somebody wanted to make something in it.
type synth struct {
	parent Node
	name   string
	point  *point

	mu   sync.Mutex
	over Node // the directory made there; zero as long as nobody needed it
}

// order sorts the grafts so that outer targets come before those inside them, whatever way
// they are spelled, and refuses two for one target.
func (u *Union) order(specs []Spec) ([]Spec, error) {
	type placed struct {
		spec  Spec
		where string // the target with the overlay's links resolved
	}
	all := make([]placed, len(specs))
	for i := range specs {
		s := &specs[i]
		if !path.IsAbs(s.Target) || path.Clean(s.Target) != s.Target {
			return nil, fmt.Errorf("%s: the target %q is not an absolute, clean path", s.Kind, s.Target)
		}
		w, err := u.walk(s.Target)
		if err != nil {
			return nil, fmt.Errorf("%s at %s: cannot look the target up: %w", s.Kind, s.Target, err)
		}
		all[i] = placed{*s, w.where()}
		w.release(u)
	}
	slices.SortStableFunc(all, func(a, b placed) int {
		return cmp.Compare(strings.Count(a.where, "/")-b2i(a.where == "/"), strings.Count(b.where, "/")-b2i(b.where == "/"))
	})
	for i := range all {
		specs[i] = all[i].spec
		for j := range i {
			if all[i].where == all[j].where {
				return nil, fmt.Errorf("two grafts for one target: %s and %s", all[j].spec.Target, all[i].spec.Target)
			}
		}
	}
	return specs, nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// walked is how far a path could be followed in the view.
type walked struct {
	chain   []step   // from the root on
	missing []string // what is not there, outermost first
}

type step struct {
	node Node
	name string
}

func (w *walked) last() Node { return w.chain[len(w.chain)-1].node }

// where is the path without links.
func (w *walked) where() string {
	var b strings.Builder
	for _, s := range w.chain[1:] {
		b.WriteString("/" + s.name)
	}
	for _, name := range w.missing {
		b.WriteString("/" + name)
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

func (w *walked) release(u *Union) {
	for _, s := range w.chain[1:] {
		u.forget(s.node)
	}
}

const linksMax = 40 // as the kernel

// Where returns the path without links at which a graft with the target would be, in the view as it is.
func (u *Union) Where(target string) (string, error) {
	w, err := u.walk(target)
	if err != nil {
		return "", err
	}
	defer w.release(u)
	return w.where(), nil
}

// walk follows a path in the view, links included, and never leaves it: ".." of the root is the
// root (kernel: openat2 with RESOLVE_IN_ROOT). What is missing at the end is no error.
func (u *Union) walk(p string) (*walked, error) {
	w := &walked{chain: []step{{node: u.root}}}
	todo := strings.Split(p, "/")
	links := 0
	fail := func(err error) (*walked, error) {
		w.release(u)
		return nil, err
	}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		switch {
		case name == "" || name == ".":
			continue
		case name == ".." && len(w.missing) > 0:
			w.missing = w.missing[:len(w.missing)-1]
			continue
		case name == "..":
			if n := len(w.chain); n > 1 {
				u.forget(w.last())
				w.chain = w.chain[:n-1]
			}
			continue
		case len(w.missing) > 0:
			w.missing = append(w.missing, name)
			continue
		}
		if !w.last().isDir() {
			return fail(unix.ENOTDIR)
		}
		var a overlay.Attr
		n, err := u.Lookup(u.self(), w.last(), name, &a)
		if errors.Is(err, unix.ENOENT) {
			if len(name) > unix.NAME_MAX {
				return fail(unix.ENAMETOOLONG)
			}
			w.missing = append(w.missing, name)
			continue
		}
		if err != nil {
			return fail(err)
		}
		if n.Mode() != unix.S_IFLNK {
			w.chain = append(w.chain, step{n, name})
			continue
		}
		target, err := u.Readlink(n)
		u.forget(n)
		if err != nil {
			return fail(err)
		}
		if links++; links > linksMax {
			return fail(unix.ELOOP)
		}
		if path.IsAbs(target) {
			w.release(u)
			w.chain = w.chain[:1]
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return w, nil
}

// plant puts the root of a source at its target.
func (u *Union) plant(s *source) error {
	w, err := u.walk(s.spec.Target)
	if err != nil {
		return fmt.Errorf("cannot look the target up: %w", err)
	}
	dir := s.typ == unix.S_IFDIR
	if len(w.missing) == 0 && w.last().isDir() != dir {
		w.release(u)
		if dir {
			return errors.New("the source is a directory, the target is not")
		}
		return errors.New("the target is a directory, the source is not")
	}
	if len(w.chain) == 1 && len(w.missing) == 0 {
		if len(u.points) > 0 {
			return errors.New("the root is grafted already")
		}
		u.nodes.mu.Lock()
		delete(u.nodes.ids, s.root.id)
		s.root.id = rootID
		u.nodes.mu.Unlock()
		u.root = Node{g: s.root}
		return nil
	}
	// The directories on the way stay referenced: a point is known by its parent.
	parent, names := w.last(), w.missing
	if len(names) == 0 {
		end := w.chain[len(w.chain)-1]
		parent = w.chain[len(w.chain)-2].node
		u.addPoint(parent, end.name, Node{g: s.root}, true)
		u.forget(end.node)
		return nil
	}
	for _, name := range names[:len(names)-1] {
		d := u.makeSynth(parent, name)
		d.syn.point = u.addPoint(parent, name, Node{g: d}, false)
		parent = Node{g: d}
	}
	u.addPoint(parent, names[len(names)-1], Node{g: s.root}, false)
	return nil
}

func (u *Union) addPoint(parent Node, name string, root Node, hides bool) *point {
	m := u.points[parent]
	if m == nil {
		m = map[string]*point{}
		u.points[parent] = m
	}
	p := &point{parent: parent, name: name, root: root, hides: hides}
	m[name] = p
	return p
}

func (u *Union) makeSynth(parent Node, name string) *inode {
	n := &inode{typ: unix.S_IFDIR, top: true, syn: &synth{parent: parent, name: name}}
	t := &u.nodes
	t.mu.Lock()
	t.insert(n)
	t.mu.Unlock()
	n.ino = overlay.PackIno(127, n.id&^ourBit)
	return n
}

// point returns the graft point of a name, nil if it is none.
func (u *Union) point(parent Node, name string) *point {
	m := u.points[parent]
	if m == nil {
		return nil
	}
	return m[name]
}

// holds says whether something is grafted right into a directory.
func (u *Union) holds(n Node) bool { return u.points[n] != nil }

// over returns the directory that stands behind n for changing its names: n itself, or, for
// a synthetic one, what was made in its place; zero if nothing was.
func (n Node) over() Node {
	if n.g == nil || n.g.syn == nil {
		return n
	}
	s := n.g.syn
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// real is over, made if need be: a directory to change names in. EROFS where that may not be.
func (u *Union) real(n Node) (Node, error) {
	if u.fixed(n) {
		return Node{}, errReadOnly
	}
	if n.g == nil || n.g.syn == nil {
		return n, nil
	}
	s := n.g.syn
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != (Node{}) {
		return s.over, nil
	}
	parent, err := u.real(s.parent)
	if err != nil {
		return Node{}, err
	}
	var a overlay.Attr
	var made Node
	if parent.g == nil {
		var o *overlay.Node
		o, err = u.fs.Mkdir(u.self(), parent.o, s.name, 0o755, &a)
		made = Node{o: o}
	} else {
		var g *inode
		if g, err = u.mkdir(u.self(), parent.g, s.name, 0o755, &a); err == unix.EEXIST {
			if g, err = u.find(parent.g, s.name, &a); err == nil && g.typ != unix.S_IFDIR {
				u.nodes.unref(g, 1)
				err = unix.ENOTDIR
			}
		}
		made = Node{g: g}
	}
	if err != nil {
		return Node{}, err
	}
	s.over = made
	return made, nil
}
