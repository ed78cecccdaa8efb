package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// The link count of an indexed inode is not that of its upper inode, which has one name more (its entry in
// the index) and lacks those that only lower layers have. The difference is in the nlink mark of
// the upper inode, so that a name and the count come and go together, in one step. Only where a name that
// the view has already becomes one of the upper inode's too would they not: from before that until
// after it the mark says the difference from the lower inode's count, which stays what it
// is (kernel: ovl_set_nlink_upper, ovl_set_nlink_lower).

func (fs *FS) writeNlink(fd int, name string, nl whiteout.Nlink) error {
	return fs.setMark(fd, name, "nlink", nl.Encode())
}

// linked notes that n is the upper inode with the given entry in the index, and
// reads how its link count differs. n is new.
func (fs *FS) linked(n *Node, entry string) {
	x := n.more()
	x.index, x.diff = entry, -1 // the entry itself
	p, err := n.place()
	if err != nil {
		return
	}
	defer p.done()
	var buf [32]byte
	nl, err := whiteout.ParseNlink(fs.mark(p.fd, p.name, "nlink", buf[:]))
	if err == nil && nl.FromUpper { // what a kill left of others recount has seen to
		x.diff = nl.Diff
	}
}

// countStaged enters that n, just copied up from lower, has its name in fd and an entry in the index. On error the
// copy-up must be taken back (kernel: ovl_link_up fails too): its count would be wrong as soon as it gets or loses a
// name, and once it is 0 too early what was written is lost to the other names. n.mu is held for writing.
func (fs *FS) countStaged(n *Node, fd int, name, entry string, lower *Attr) error {
	fs.crash("named")
	diff := int(lower.Nlink) - 2
	if err := fs.writeNlink(fd, name, whiteout.Nlink{FromUpper: true, Diff: diff}); err != nil {
		fs.cfg.logf("%s: cannot write its link count: %v", fs.Path(n), err)
		return err
	}
	x := n.more()
	x.index, x.diff = entry, diff
	return nil
}

// materialise gives a node that is in the upper under another name this name too, which only lower
// layers have. n.mu is held for writing.
func (fs *FS) materialise(s *side) error {
	n := s.n
	if n.x == nil || n.x.index == "" {
		return unix.EIO
	}
	p, err := n.place()
	if err != nil {
		return err
	}
	defer p.done()
	var st Attr
	if err := layer.Stat(p.fd, p.name, &st); err != nil {
		return err
	}
	diff := n.x.diff
	if lower, ok := fs.lowerNlink(s.parent, s.name, nil); ok {
		if err := fs.writeNlink(p.fd, p.name, whiteout.Nlink{Diff: int(st.Nlink) + diff - int(lower)}); err != nil {
			return err
		}
	}
	fs.crash("to be named")
	if err := fs.linkTo(n, s.fd, s.name); err != nil {
		_ = fs.writeNlink(p.fd, p.name, whiteout.Nlink{FromUpper: true, Diff: diff})
		return err
	}
	fs.crash("named")
	if err := fs.writeNlink(p.fd, p.name, whiteout.Nlink{FromUpper: true, Diff: diff - 1}); err != nil {
		_ = layer.Unlink(s.fd, s.name)
		return err
	}
	n.x.diff = diff - 1
	fs.altered.Add(1)
	if n.dir == fs.indexd {
		n.dir, n.real = s.up, s.name
		n.loose.Store(false)
	}
	s.has = true
	return nil
}

// lowerNlink returns the link count of what the lower layers have under a name, if it is the inode that
// origin says; nil for any.
func (fs *FS) lowerNlink(parent *Node, name string, origin *linkKey) (uint32, bool) {
	var f found
	s := search{fs: fs, d: parent.d, f: &f, name: name}
	if s.below(parent.d.lowers) != nil || !s.have {
		return 0, false
	}
	if origin != nil && *origin != (linkKey{fs: fs.fsIndex(f.dir.Tree()), ino: f.st.Ino}) {
		return 0, false
	}
	return f.st.Nlink, true
}

// recount makes counts that a kill left relative to the lower inodes relative to the upper ones, and
// removes entries whose inodes have no name any more (kernel: ovl_indexdir_cleanup). Nobody uses the
// union yet.
func (fs *FS) recount() error {
	fd, err := fs.indexd.FD()
	if err != nil {
		return err
	}
	defer fs.indexd.Done()
	ents, err := layer.ReadDir(fd)
	if err != nil {
		return err
	}
	lost := map[linkKey]count{}
	for _, e := range ents {
		var buf [32]byte
		var st Attr
		nl, err := whiteout.ParseNlink(fs.mark(fd, e.Name, "nlink", buf[:]))
		if err != nil || layer.Stat(fd, e.Name, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue
		}
		if nl.FromUpper {
			if st.Nlink == 1 && nl.Diff < 0 {
				fs.indexUndo(e.Name)
			}
			continue
		}
		if key, _, ok := fs.readOrigin(fd, e.Name); ok {
			lost[key] = count{e.Name, nl.Diff, int(st.Nlink)}
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return fs.recountBelow(&Caller{}, fs.root, fd, lost)
}

// count is an entry of the index and its inode's count: difference from the lower one's, and upper one's.
type count struct {
	entry       string
	diff, upper int
}

// recountBelow looks below n for names that the inodes in lost have in lower layers: whatever was about to
// get a name has one there. It takes from lost what it has written.
func (fs *FS) recountBelow(c *Caller, n *Node, index int, lost map[linkKey]count) error {
	inos := map[uint64]linkKey{}
	for key := range lost {
		inos[packIno(key.fs, key.ino)] = key
	}
	return fs.each(c, n, func(e *Entry) error {
		if e.Type == unix.DT_DIR && len(lost) > 0 {
			return fs.within(c, n, e.Name, func(child *Node) error {
				return fs.recountBelow(c, child, index, lost)
			})
		}
		key, ok := inos[e.Ino]
		l, still := lost[key]
		if !ok || !still {
			return nil
		}
		lower, ok := fs.lowerNlink(n, e.Name, &key)
		if !ok {
			return nil
		}
		delete(lost, key)
		return fs.writeNlink(index, l.entry, whiteout.Nlink{FromUpper: true, Diff: int(lower) + l.diff - l.upper})
	})
}
