package differ

import (
	"fmt"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// Tree is what a view looks like: a line per path, and the inode numbers.
type Tree struct {
	Lines []string
	Inos  map[string]uint64
	Types map[string]uint32 // S_IFMT bits
	odd   map[string]bool   // where readdir and lstat disagree in the number
}

// Dump describes the tree of a view: names, attributes, contents, extended attributes,
// and which names are one inode. Where readdir and lstat disagree it says so.
func (v *view) Dump() Tree {
	t := Tree{Inos: map[string]uint64{}, Types: map[string]uint32{}, odd: map[string]bool{}}
	first := map[uint64]string{}
	v.dump(".", dirent{}, &t, first)
	sort.Strings(t.Lines)
	return t
}

func (v *view) dump(rel string, e dirent, t *Tree, first map[uint64]string) {
	st, err := v.t.lstat(rel)
	if err == unix.ENOENT && v.listsWhiteouts(e) {
		return
	}
	if err != nil {
		t.Lines = append(t.Lines, fmt.Sprintf("%s: lstat: %v", rel, err))
		return
	}
	s := rel + ": " + v.attrs(&st)
	listed := e.ino
	if listed != 0 && listed != st.Ino {
		t.odd[rel] = true
	}
	if listed != 0 && listed != st.Ino && !v.mayDiffer(rel, st.Mode) {
		s += fmt.Sprintf(" (readdir and stat differ in inode number: %#x, %#x)", listed, st.Ino)
	}
	t.Inos[rel] = st.Ino
	t.Types[rel] = st.Mode & unix.S_IFMT
	if other, ok := first[st.Ino]; ok && !v.parts {
		s += " same inode as " + other
	} else {
		first[st.Ino] = rel
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h, err := v.t.open(rel, unix.O_RDONLY, 0)
		if err == nil {
			var text string
			text, err = readSum(h)
			s += " " + text
			_ = h.close()
		}
		if err != nil {
			s += " read: " + err.Error()
		}
	case unix.S_IFLNK:
		target, err := v.t.readlink(rel)
		s += fmt.Sprintf(" -> %q %v", target, err)
	}
	names, err := v.t.listxattr(rel)
	sort.Strings(names)
	if err != nil && err != unix.EOPNOTSUPP {
		s += " listxattr: " + err.Error()
	}
	for _, name := range names {
		val, err := v.t.getxattr(rel, name)
		s += fmt.Sprintf(" %s=%q", name, val)
		if err != nil {
			s += err.Error()
		}
	}
	t.Lines = append(t.Lines, s)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return
	}
	ents, err := v.entries(rel)
	if err != nil {
		t.Lines = append(t.Lines, fmt.Sprintf("%s: readdir: %v", rel, err))
	}
	for _, e := range ents {
		switch e.name {
		case ".":
			if e.ino != st.Ino && !v.oracle {
				t.Lines = append(t.Lines, fmt.Sprintf("%s: readdir and stat differ in the inode number of .", rel))
			}
		case "..":
		default:
			v.dump(filepath.Join(rel, e.name), e, t, first)
		}
	}
}

// diff says where two lists of lines differ, "" if nowhere.
func diff(aName string, a []string, bName string, b []string) string {
	in := func(list []string) map[string]bool {
		m := map[string]bool{}
		for _, s := range list {
			m[s] = true
		}
		return m
	}
	ma, mb := in(a), in(b)
	var out []string
	for _, s := range a {
		if !mb[s] {
			out = append(out, s+"   <- "+aName)
		}
	}
	for _, s := range b {
		if !ma[s] {
			out = append(out, s+"   <- "+bName)
		}
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

// diffInos says which inode numbers changed.
func diffInos(before, after map[string]uint64) string {
	var out []string
	for p, ino := range before {
		if now, ok := after[p]; ok && now != ino {
			out = append(out, fmt.Sprintf("%s: inode number %#x became %#x", p, ino, now))
		}
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}
