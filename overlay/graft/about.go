package graft

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

var (
	_ fusefs.Union[Node]     = (*Union)(nil)
	_ fusefs.Sharer[Node]    = (*Union)(nil)
	_ fusefs.Locker[Node]    = (*Union)(nil)
	_ fusefs.Renewer[Node]   = (*Union)(nil)
	_ fusefs.Outdater[Node]  = (*Union)(nil)
	_ fusefs.Guard[Node]     = (*Union)(nil)
	_ fusefs.Explainer[Node] = (*Union)(nil)
	_ fusefs.Events          = (*Union)(nil)
	_ fusefs.Settler         = (*Union)(nil)
)

// Renew implements fusefs.Renewer, for files of the overlay.
func (u *Union) Renew(c *fusefs.Caller, n Node) (Node, error) {
	if n.g != nil {
		return Node{}, unix.ETXTBSY
	}
	o, err := u.fs.Renew(c, n.o)
	return wrap(o, err)
}

// Outdated implements fusefs.Outdater, for files of the overlay.
func (u *Union) Outdated(n Node) bool { return n.g == nil && u.fs.Outdated(n.o) }

// MayOpen implements fusefs.Guard. The host says what it allows for files of a graft.
func (u *Union) MayOpen(n Node, flags uint32) error {
	if n.g != nil {
		return nil
	}
	return u.fs.MayOpen(n.o, flags)
}

// Guarded implements fusefs.Guard.
func (u *Union) Guarded(n Node) bool { return n.g == nil && u.fs.Guarded(n.o) }

// Events implements fusefs.Events: copying up is the overlay's.
func (u *Union) Events(cursor string, cancel <-chan struct{}) ([]byte, error) {
	return u.fs.Events(cursor, cancel)
}

// Settle implements fusefs.Settler.
func (u *Union) Settle(value string, cancel <-chan struct{}) error {
	return u.fs.Settle(value, cancel)
}

// Explain returns the overlay's Explanation as JSON; of a graft it is ours.
func (u *Union) Explain(n Node) ([]byte, error) {
	if n.g == nil {
		return u.fs.Explain(n.o)
	}
	return json.Marshal(u.Explanation(n))
}

// Explanation says what a node of a graft is, why it is there, and what of the layers it hides.
func (u *Union) Explanation(n Node) *overlay.Explanation {
	e := &overlay.Explanation{Path: u.Path(n), Type: overlay.TypeName(n.Mode())}
	if n.g.syn != nil {
		return u.explainSynth(n, e)
	}
	s := n.g.src
	from := ""
	switch s.spec.Kind {
	case Bind:
		from = "the bind of " + s.path
	case Volume:
		from = "the volume " + s.spec.Source
	case Tmpfs:
		from = "a tmpfs, gone with the mount"
	}
	if s.spec.ReadOnly {
		from += ", read-only"
	}
	e.Sentence = fmt.Sprintf("It comes from %s, grafted at %s", from, s.spec.Target)
	top, way := u.way(n.g)
	e.Layers = []overlay.Part{{Role: s.spec.Kind.String(), Dir: s.path, Name: path.Join(way...), Part: "provides"}}
	hidden := u.hidden(top, way)
	if len(hidden) > 0 {
		e.Sentence += ": what the layers have there is hidden"
	}
	e.Sentence += "."
	e.Layers = append(e.Layers, hidden...)
	return e
}

// explainSynth is Explanation for a directory that something is grafted beneath.
func (u *Union) explainSynth(n Node, e *overlay.Explanation) *overlay.Explanation {
	over := n.over()
	if over == (Node{}) {
		e.Layers = []overlay.Part{{Role: "graft", Part: "provides"}}
		e.Sentence = "No layer has this directory: it is here because something is grafted beneath it. It is made in the writable layer when something is made in it."
		return e
	}
	made := e
	if over.g != nil {
		made = u.Explanation(over)
	} else if x, err := u.fs.Explanation(over.o); err == nil {
		made = x
	}
	made.Path = e.Path
	made.Sentence += " Something is grafted beneath it."
	return made
}

// way returns the root of the graft that n is in, and the names that lead from there to n.
func (u *Union) way(n *inode) (top *inode, names []string) {
	u.nodes.mu.Lock()
	defer u.nodes.mu.Unlock()
	for !n.top && n.parent != nil {
		names = append(names, n.name)
		n = n.parent
	}
	slices.Reverse(names)
	return n, names
}

// hidden returns what the layers have where a graft shows something: at the point of a graft, and
// on the way from there. It is empty for a graft that lies in another.
func (u *Union) hidden(top *inode, way []string) []overlay.Part {
	at := u.fs.Root()
	if u.root.g != top {
		at = nil
		for parent, m := range u.points {
			for _, p := range m {
				if p.root.g == top && parent.g == nil {
					at, way = parent.o, append([]string{p.name}, way...)
				}
			}
		}
	}
	if at == nil {
		return nil
	}
	for i, name := range way {
		var a overlay.Attr
		next, err := u.fs.Lookup(u.self(), at, name, &a)
		if i > 0 {
			u.fs.Forget(at.ID(), 1)
		}
		if err != nil {
			return nil
		}
		at = next
	}
	if len(way) > 0 {
		defer u.fs.Forget(at.ID(), 1)
	}
	x, err := u.fs.Explanation(at)
	if err != nil {
		return nil
	}
	for i := range x.Layers {
		switch p := &x.Layers[i]; p.Part {
		case "provides", "merged", "data":
			p.Part = "hidden"
			if x.Type != "file" {
				p.Part += " " + x.Type
			}
		}
	}
	return x.Layers
}

// Path returns where a node was seen last in the view.
func (u *Union) Path(n Node) string {
	switch {
	case n == u.root:
		return "/"
	case n.g == nil:
		return clean(u.fs.Path(n.o))
	case n.g.top:
		for parent, m := range u.points {
			for _, p := range m {
				if p.root == n {
					return join(u.Path(parent), p.name)
				}
			}
		}
		return ""
	}
	u.nodes.mu.Lock()
	parent, name := n.g.parent, n.g.name
	u.nodes.mu.Unlock()
	if parent == nil {
		return ""
	}
	return join(u.Path(Node{g: parent}), name)
}

func clean(p string) string { return "/" + strings.Trim(p, "/") }

func join(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}

// Grafts returns what is grafted, outer targets first, with sources as they were found.
func (u *Union) Grafts() []Spec {
	var out []Spec
	for _, s := range u.sources {
		spec := s.spec
		if spec.Kind != Tmpfs {
			spec.Path = s.path
		}
		out = append(out, spec)
	}
	return out
}
