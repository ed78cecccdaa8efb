package graft

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/overlay"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

// afterOverlay is where the offsets of names begin that are only grafted into a directory of
// the overlay; those of the overlay are below.
const afterOverlay = 1 << 61

// ReadDir fills buf with entries of directory n after offset off. It is meant for directories
// that only this mount changes; see OpenDir for the others.
func (u *Union) ReadDir(n Node, off uint64, buf []overlay.Entry) (int, error) {
	if !n.isDir() {
		return 0, unix.ENOTDIR
	}
	if n.g != nil {
		l := &listing{u: u, n: n}
		return l.ReadDir(off, buf)
	}
	points := u.points[n]
	if points == nil {
		return u.fs.ReadDir(n.o, off, buf)
	}
	got := 0
	if off < afterOverlay {
		var err error
		if got, err = u.fs.ReadDir(n.o, off, buf); err != nil {
			return 0, err
		}
		for i := range buf[:got] {
			if p := points[buf[i].Name]; p != nil {
				buf[i].Ino, buf[i].Type = p.root.ino(), uint8(p.root.Mode()>>12)
			}
		}
		if got == len(buf) {
			return got, nil
		}
		off = afterOverlay
	}
	extra := u.extra(n, points)
	for i := int(off - afterOverlay); i >= 0 && i < len(extra) && got < len(buf); i++ {
		p := extra[i]
		buf[got] = overlay.Entry{Name: p.name, Ino: p.root.ino(), Type: uint8(p.root.Mode() >> 12), Off: afterOverlay + uint64(i) + 1}
		got++
	}
	return got, nil
}

// extra returns the points in a directory of the overlay that the overlay has no name for,
// in order.
func (u *Union) extra(n Node, points map[string]*point) []*point {
	var out []*point
	for _, p := range points {
		hides := p.hides
		if p.root.g.syn != nil && p.root.over() != (Node{}) {
			hides = true
		}
		if !hides {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *point) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return out
}

func (n Node) ino() uint64 {
	if n.g == nil {
		return n.o.Ino()
	}
	return n.g.ino
}

// listing is one open of a directory that others change: its names as they are when the
// reading begins.
type listing struct {
	u    *Union
	n    Node
	ents []overlay.Entry
	read bool
}

// OpenDir implements fusefs.Sharer.
func (u *Union) OpenDir(n Node) (fusefs.Listing, error) {
	if n.g == nil {
		return nil, nil
	}
	l := &listing{u: u, n: n}
	if n.g.syn != nil {
		return l, nil
	}
	// What reading will meet, open(2) should say.
	return l, u.at(n.g, func(fd int) error {
		f, err := layer.Open(fd, "", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err == nil {
			unix.Close(f)
		}
		return err
	})
}

// Close implements fusefs.Listing.
func (l *listing) Close() { l.ents = nil }

// ReadDir implements fusefs.Listing. The offset of an entry is its place.
func (l *listing) ReadDir(off uint64, buf []overlay.Entry) (int, error) {
	if off == 0 || !l.read {
		if err := l.load(); err != nil {
			return 0, err
		}
	}
	if off >= uint64(len(l.ents)) {
		return 0, nil
	}
	return copy(buf, l.ents[off:]), nil
}

func (l *listing) load() error {
	u, g := l.u, l.n.g
	l.ents, l.read = l.ents[:0], true
	add := func(name string, ino uint64, typ uint8) {
		l.ents = append(l.ents, overlay.Entry{Name: name, Ino: ino, Type: typ, Off: uint64(len(l.ents) + 1)})
	}
	add(".", g.ino, unix.DT_DIR)
	add("..", u.parentIno(l.n), unix.DT_DIR)
	points := u.points[l.n]
	seen := make(map[string]bool, len(points))
	put := func(name string, ino uint64, typ uint8) {
		if p := points[name]; p != nil {
			seen[name] = true
			ino, typ = p.root.ino(), uint8(p.root.Mode()>>12)
		}
		add(name, ino, typ)
	}
	if err := u.list(l.n.over(), put); err != nil {
		return err
	}
	var names []string
	for name := range points {
		if !seen[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		root := points[name].root
		add(name, root.ino(), uint8(root.Mode()>>12))
	}
	return nil
}

// list calls put for the names a tree itself has in a directory.
func (u *Union) list(n Node, put func(name string, ino uint64, typ uint8)) error {
	switch {
	case n == Node{}:
		return nil
	case n.g != nil:
		index := u.devIndex(n.g)
		return u.at(n.g, func(fd int) error {
			return layer.ReadDirFunc(fd, func(name []byte, ino uint64, typ uint8) error {
				put(string(name), overlay.PackIno(index, ino), typ)
				return nil
			})
		})
	}
	var buf [64]overlay.Entry
	for off := uint64(0); ; {
		got, err := u.fs.ReadDir(n.o, off, buf[:])
		if err != nil || got == 0 {
			return err
		}
		for i := range buf[:got] {
			if e := &buf[i]; e.Name != "." && e.Name != ".." {
				put(e.Name, e.Ino, e.Type)
			}
		}
		off = buf[got-1].Off
	}
}

func (u *Union) devIndex(g *inode) uint8 {
	u.devMu.Lock()
	defer u.devMu.Unlock()
	return u.devs[g.key.dev]
}

// parentIno is the number of "..".
func (u *Union) parentIno(n Node) uint64 {
	if n == u.root {
		return n.ino()
	}
	if n.g.syn != nil {
		return n.g.syn.parent.ino()
	}
	if n.g.top {
		for parent, m := range u.points {
			for _, p := range m {
				if p.root == n {
					return parent.ino()
				}
			}
		}
	}
	u.nodes.mu.Lock()
	defer u.nodes.mu.Unlock()
	if n.g.parent != nil {
		return n.g.parent.ino
	}
	return n.g.ino
}

// FsyncDir writes the names of a directory to stable storage.
func (u *Union) FsyncDir(n Node) error {
	if n = n.over(); n == (Node{}) {
		return nil
	}
	if n.g == nil {
		return u.fs.FsyncDir(n.o)
	}
	return u.at(n.g, func(fd int) error {
		f, err := layer.Open(fd, "", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(f)
		return retry(func() error { return unix.Fsync(f) })
	})
}
