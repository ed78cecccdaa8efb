package overlay

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// Explanation says why one object of the view is what it is.
type Explanation struct {
	Path     string `json:"path"` // in the view; "" for an object without a name
	Type     string `json:"type"`
	Sentence string `json:"sentence"` // the rule that decided
	Layers   []Part `json:"layers"`   // topmost first
}

// Part is what one layer has to do with an object.
type Part struct {
	Role  string   `json:"role"`  // upper, lower or data
	Index int      `json:"index"` // 1 is the topmost lower (or data) layer, the upper is 0
	Dir   string   `json:"dir"`   // the layer
	Name  string   `json:"name"`  // of the object in it
	Part  string   `json:"part"`  // provides, merged, data, hidden, whiteout, absent
	Marks []string `json:"marks,omitempty"`
	Note  string   `json:"note,omitempty"`

	tree *layer.Tree
}

func (p *Part) label() string {
	switch p.Role {
	case "upper":
		return "the upper"
	case "data":
		return fmt.Sprintf("data layer %d", p.Index)
	}
	return fmt.Sprintf("lower %d", p.Index)
}

// Explain returns the Explanation of n as JSON.
func (fs *FS) Explain(n *Node) ([]byte, error) {
	e, err := fs.Explanation(n)
	if err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

// Explanation says which layer gives n what, and why.
func (fs *FS) Explanation(n *Node) (*Explanation, error) {
	e := &Explanation{Path: fs.Path(n), Type: TypeName(n.typ)}
	if fs.upper != nil {
		e.Layers = append(e.Layers, Part{Role: "upper", Dir: fs.upper.Path, tree: fs.upper})
	}
	for i, t := range fs.lowers {
		e.Layers = append(e.Layers, Part{Role: "lower", Index: i + 1, Dir: t.Path, tree: t})
	}
	for i, t := range fs.datas {
		e.Layers = append(e.Layers, Part{Role: "data", Index: i + 1, Dir: t.Path, tree: t})
	}
	own := map[*layer.Tree]place{} // where n's own parts are
	n.mu.RLock()
	role := "provides"
	switch {
	case n.d != nil:
		parts := n.d.parts(nil)
		if len(parts) > 1 {
			role = "merged"
		}
		for _, d := range parts {
			own[d.Tree()] = place{d, "", d.Path(), role}
		}
	case n.dir != nil:
		own[n.dir.Tree()] = place{n.dir, n.real, path.Join(n.dir.Path(), n.real), role}
		if n.upper.Load() && n.dir == fs.indexd { // found by way of the hard link index
			own[fs.upper] = place{n.dir, n.real, strings.TrimPrefix(e.Path, "/"), role}
		}
		if x := n.x; x != nil && x.dataDir != nil {
			own[x.dataDir.Tree()] = place{x.dataDir, x.dataName, path.Join(x.dataDir.Path(), x.dataName), "data"}
		}
	}
	n.mu.RUnlock()
	parent, name := fs.viewPlace(n)
	for i := range e.Layers {
		p := &e.Layers[i]
		if at, ok := own[p.tree]; ok {
			p.Name, p.Part = at.path, at.role
			p.Marks = fs.marksOf(at.dir, at.name)
			continue
		}
		fs.otherPart(p, parent, name, e.Path)
	}
	e.Sentence = fs.sentence(n, e)
	return e, nil
}

type place struct {
	dir  *layer.Dir
	name string
	path string
	role string
}

// otherPart says what a layer has under the name of an object that is not its own.
func (fs *FS) otherPart(p *Part, parent *Node, name, viewPath string) {
	p.Part, p.Name = "absent", strings.TrimPrefix(viewPath, "/")
	if parent == nil {
		return
	}
	var dir *layer.Dir
	for _, d := range parent.d.parts(nil) {
		if d.Tree() == p.tree {
			dir = d
		}
	}
	at := name
	if dir == nil {
		var ok bool
		if dir, at, ok = fs.walk(p.tree, viewPath); !ok {
			return
		}
		p.Note = "its directory does not show here"
	} else {
		p.Name = path.Join(dir.Path(), name)
	}
	fd, err := dir.FD()
	if err != nil {
		return
	}
	defer dir.Done()
	var st Attr
	if layer.Stat(fd, at, &st) != nil {
		p.Note = ""
		if layer.Stat(fd, whiteout.AUFSWhiteout(at), &st) == nil {
			p.Part, p.Name = "whiteout", path.Join(path.Dir(p.Name), whiteout.AUFSWhiteout(at))
		}
		return
	}
	if fs.isWhiteout(parent.d, fd, at, &st) {
		p.Part, p.Note = "whiteout", ""
		return
	}
	p.Part = "hidden"
	fs.retypeAt(dir.Tree(), fd, at, &st)
	if kind := TypeName(uint32(st.Mode) & unix.S_IFMT); kind != "file" {
		p.Part += " " + kind
	}
	p.Marks = fs.marksOf(dir, at)
}

// Marks of files that are not settled: with blocks missing, and with all of them.
const (
	markUnfinished = "unfinished"
	markUnsynced   = "not settled"
)

// marksOf lists the overlay marks of an object, in words.
func (fs *FS) marksOf(d *layer.Dir, name string) []string {
	fd, err := d.FD()
	if err != nil {
		return nil
	}
	defer d.Done()
	var out []string
	var st Attr
	if layer.Stat(fd, name, &st) != nil {
		return nil
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		switch fs.opaqueAt(fd, name, false) {
		case whiteout.OpaqueYes:
			out = append(out, "opaque")
		case whiteout.OpaqueXattrWhiteouts:
			out = append(out, "whiteouts in attributes")
		}
	}
	buf := make([]byte, 4096)
	if v := fs.mark(fd, name, "redirect", buf); len(v) > 0 {
		out = append(out, "redirect "+string(v))
	}
	if hasMark(fd, name, fs.attr("metacopy"), buf) {
		out = append(out, "metacopy")
	}
	if v := fs.mark(fd, name, "origin", buf); len(v) > 0 {
		out = append(out, "origin")
	}
	if d.Tree() != fs.upper && hasMark(fd, name, fs.attr(cow.RecordKey), buf) {
		out = append(out, markUnfinished)
	}
	if fs.eng != nil && d.Tree() == fs.upper {
		if rec, err := fs.eng.ReadRecord(fd, name); err == nil && rec != nil {
			if st.Blocks*512 >= uint64(rec.Valid) {
				out = append(out, markUnsynced)
			} else {
				out = append(out, markUnfinished)
			}
		}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink > 1 {
		out = append(out, fmt.Sprintf("%d links", st.Nlink))
	}
	return out
}

// sentence puts the rule into words.
func (fs *FS) sentence(n *Node, e *Explanation) string {
	if n == fs.root {
		if len(e.Layers) == 1 {
			return "The root of the only layer."
		}
		return "The root: all layers merge here."
	}
	var shown []string
	var first, data *Part
	for i := range e.Layers {
		p := &e.Layers[i]
		switch {
		case p.Part == "provides" || p.Part == "merged":
			shown = append(shown, p.label())
			if first == nil {
				first = p
			}
		case p.Part == "data":
			data = p
		}
	}
	if first == nil {
		return "It has no name any more, and lives until the last user closes it."
	}
	marks, hides := strings.Join(first.Marks, " "), Hides(e.Layers)
	var s string
	switch {
	case len(shown) > 1:
		s = "A directory merged from " + enumerate(shown) + "; a name is taken from the topmost that has it"
	case n.d != nil && strings.Contains(marks, "opaque") && strings.Contains(hides, "hidden"):
		s = fmt.Sprintf("%s has it and is marked opaque: nothing shows through from below", upperCase(first.label()))
	case first.Role == "upper" && strings.Contains(marks, "origin"):
		s = "The upper has a copy of a lower file, made when it was first changed (copy-up)"
		switch {
		case strings.Contains(marks, markUnsynced):
			s += "; all of it is copied, and will be settled once it is certainly on the disk"
		case strings.Contains(marks, markUnfinished):
			s += "; blocks it does not have yet are read from the lower, until it is settled"
		}
	case first.Role == "upper":
		s = "The upper has it: it was made or replaced in this mount's writable layer"
	default:
		s = fmt.Sprintf("It comes from %s, the topmost layer that has the name", first.label())
		if strings.Contains(marks, markUnfinished) {
			s += "; it is unfinished and cannot be read, because the layer was the upper of a mount and was not settled"
		}
	}
	if data != nil {
		s += fmt.Sprintf("; only its attributes are there, its data is in %s", data.label())
	}
	return s + hides
}

// Hides is the end of a sentence: which layers have something under the name that does not show.
func Hides(parts []Part) (s string) {
	var hidden, white []string
	for i := range parts {
		switch p := &parts[i]; {
		case strings.HasPrefix(p.Part, "hidden"):
			hidden = append(hidden, p.label())
		case p.Part == "whiteout":
			white = append(white, p.label())
		}
	}
	if len(hidden) > 0 {
		s += fmt.Sprintf("; %s %s it too, hidden", enumerate(hidden), have(len(hidden)))
	}
	if len(white) > 0 {
		s += fmt.Sprintf("; %s %s a whiteout, which hides the name in the layers below it", enumerate(white), have(len(white)))
	}
	return s + "."
}

func have(n int) string {
	if n == 1 {
		return "has"
	}
	return "have"
}

func enumerate(s []string) string {
	switch len(s) {
	case 1:
		return s[0]
	case 2:
		return s[0] + " and " + s[1]
	}
	return strings.Join(s[:len(s)-1], ", ") + " and " + s[len(s)-1]
}

func upperCase(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// TypeName says in a word what kind of object a mode is of.
func TypeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "device"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "file"
}
