package graft

import (
	"encoding/json"
	"fmt"
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
	_ fusefs.Explainer[Node] = (*Union)(nil)
	_ fusefs.Events          = (*Union)(nil)
	_ fusefs.Settler         = (*Union)(nil)
)

// Renew implements fusefs.Renewer, for files of the overlay.
func (u *Union) Renew(n Node) (Node, error) {
	if n.g != nil {
		return Node{}, unix.ETXTBSY
	}
	o, err := u.fs.Renew(n.o)
	return wrap(o, err)
}

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

// Explanation says what a node of a graft is, and why it is there.
func (u *Union) Explanation(n Node) *overlay.Explanation {
	e := &overlay.Explanation{Path: u.Path(n), Type: overlay.TypeName(n.Mode())}
	if n.g.syn != nil {
		e.Sentence = "No layer has this directory: it is here because something is grafted beneath it. It is made in the writable layer when something is made in it."
		return e
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
	how := ""
	if s.spec.ReadOnly {
		how = ", read-only"
	}
	e.Sentence = fmt.Sprintf("It comes from %s, grafted at %s%s: what the layers have there is hidden.", from, s.spec.Target, how)
	name := strings.TrimPrefix(strings.TrimPrefix(e.Path, s.spec.Target), "/")
	e.Layers = []overlay.Part{{Role: s.spec.Kind.String(), Dir: s.path, Name: name, Part: "provides"}}
	return e
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
